//! Single flight: concurrent requests for the same thing share one load.

use std::{collections::HashMap, future::Future, hash::Hash};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use parking_lot::Mutex;

type Flight<V> = Shared<BoxFuture<'static, V>>;

type Map<K, V> = HashMap<K, Vec<(usize, WeakShared<BoxFuture<'static, V>>)>>;

/// Attempts under way, by key; of each key there may be several sizes.
pub(super) struct Flights<K, V: Clone>(Mutex<Map<K, V>>);

impl<K, V> Flights<K, V>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// What the attempt under way for `key` and `size` yields; without one, what `start` yields.
    ///
    /// The attempt goes on as long as anybody waits for it, not only while its first caller does.
    pub(super) async fn join<F>(&self, key: K, size: usize, start: impl FnOnce() -> F) -> V
    where
        F: Future<Output = V> + Send + 'static,
    {
        let flight = {
            let mut map = self.0.lock();
            let sizes = map.entry(key.clone()).or_default();
            let known = sizes.iter().find(|(of, _)| *of == size).and_then(|(_, weak)| weak.upgrade());
            match known.filter(|flight| flight.peek().is_none()) {
                Some(flight) => flight,
                None => {
                    let flight = start().boxed().shared();
                    sizes.retain(|(of, _)| *of != size);
                    sizes.extend(flight.downgrade().map(|weak| (size, weak)));
                    flight
                }
            }
        };
        let guard = Leave { flights: self, key, flight };
        guard.flight.clone().await
    }

    /// Whoever comes from now on does not join what is under way: it may have begun before a write.
    pub(super) fn forget(&self, key: &K) {
        self.0.lock().remove(key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// Takes an attempt off the map when it has ended, or when nobody waits for it any more.
struct Leave<'a, K, V>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    flights: &'a Flights<K, V>,
    key: K,
    flight: Flight<V>,
}

impl<K, V> Drop for Leave<'_, K, V>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn drop(&mut self) {
        let mut map = self.flights.0.lock();
        let Some(sizes) = map.get_mut(&self.key) else { return };
        sizes.retain(|(_, weak)| match weak.upgrade() {
            Some(other) if !other.ptr_eq(&self.flight) => true,
            // The last one to leave: it and the one just made are the only references.
            Some(flight) => flight.peek().is_none() && flight.strong_count().is_some_and(|n| n > 2),
            None => false,
        });
        if sizes.is_empty() {
            map.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_thousand_share_one_flight() {
        let flights = Arc::new(Flights::<u8, usize>::new());
        let (started, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let mut waiting: Vec<_> = (0..1_000)
            .map(|_| {
                let (flights, started, gate) = (flights.clone(), started.clone(), gate.clone());
                Box::pin(async move {
                    flights
                        .join(7, 0, || async move {
                            let n = started.fetch_add(1, Ordering::SeqCst);
                            let _ = gate.acquire().await;
                            n
                        })
                        .await
                })
            })
            .collect();
        for waiter in &mut waiting {
            assert!(futures_util::poll!(waiter).is_pending());
        }
        // The first, who started it, goes; the others do not lose it.
        drop(waiting.remove(0));
        gate.add_permits(1_000);
        for waiter in waiting {
            assert_eq!(waiter.await, 0);
        }
        assert_eq!((started.load(Ordering::SeqCst), flights.len()), (1, 0));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_given_up() {
        let flights = Flights::<u8, u8>::new();
        let mut waiter = Box::pin(flights.join(1, 0, std::future::pending));
        assert!(futures_util::poll!(&mut waiter).is_pending());
        drop(waiter);
        assert_eq!(flights.len(), 0);
        assert_eq!(flights.join(1, 0, || async { 5 }).await, 5);
    }

    #[tokio::test]
    async fn who_comes_after_a_write_does_not_join_a_flight_from_before() {
        let flights = Flights::<u8, u8>::new();
        let gate = Semaphore::new(0);
        let gate: &'static Semaphore = Box::leak(Box::new(gate));
        let mut old = Box::pin(flights.join(1, 0, || async {
            let _ = gate.acquire().await;
            1
        }));
        assert!(futures_util::poll!(&mut old).is_pending());
        flights.forget(&1);
        assert_eq!(flights.join(1, 0, || async { 2 }).await, 2);
        gate.add_permits(1);
        assert_eq!(old.await, 1);
        assert_eq!(flights.len(), 0);
    }
}
