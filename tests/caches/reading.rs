//! Reading through the cache: one load for all who want the same.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use greenroom::cache::{ReadThrough, Shelf, Strategy, Tail};
use tokio::sync::Semaphore;

use crate::support::{World, document, rules, tail};

/// A store that counts what it is asked.
#[derive(Clone)]
struct Store {
    loads: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Store {
    /// It answers when the gate is opened.
    fn shut() -> Self {
        Self { loads: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }

    async fn answer<T>(self, answer: T) -> Result<T, String> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let _pass = self.gate.acquire().await.unwrap();
        Ok(answer)
    }
}

rules! {
    async fn a_thousand_readers_of_one_cold_key_cost_one_load(world: &World) {
        let through = Arc::new(ReadThrough::<String>::new(world.cache.clone()));
        let store = Store::shut();
        let readers: Vec<_> = (0..1_000)
            .map(|_| {
                let (through, store) = (through.clone(), store.clone());
                tokio::spawn(async move {
                    let load = move || store.answer(Some(document(1, "cold")));
                    through.document(Shelf::Conversations, "a", load).await
                })
            })
            .collect();
        store.gate.add_permits(1);
        for reader in readers {
            assert_eq!(reader.await.unwrap().unwrap(), Some(document(1, "cold")));
        }
        assert_eq!(store.loads(), 1);
    }

    async fn a_thousand_readers_of_cold_messages_cost_one_load(world: &World) {
        let through = Arc::new(ReadThrough::<String>::new(world.cache.clone()));
        let store = Store::shut();
        let readers: Vec<_> = (0..1_000)
            .map(|_| {
                let (through, store) = (through.clone(), store.clone());
                tokio::spawn(async move {
                    through.recent("c", 2, move |want| store.answer(tail(10 - want as i64, 9))).await
                })
            })
            .collect();
        store.gate.add_permits(1);
        for reader in readers {
            assert_eq!(reader.await.unwrap().unwrap(), tail(8, 9));
        }
        assert_eq!(store.loads(), 1);
        // As many were loaded as are kept.
        assert_eq!(world.seqs("c", 5).await, Some(vec![5, 6, 7, 8, 9]));
    }

    async fn a_reader_after_a_write_does_not_wait_for_one_from_before(world: &World) {
        let through = Arc::new(ReadThrough::<String>::new(world.cache.clone()));
        let store = Store::shut();
        let old = {
            let (through, store) = (through.clone(), store.clone());
            tokio::spawn(async move { through.recent("c", 1, move |_| store.answer(tail(1, 1))).await })
        };
        while store.loads() == 0 {
            tokio::task::yield_now().await;
        }
        through.appended("c", 1, crate::support::item(2)).await;
        let new = through.recent("c", 1, |_| async { Ok(tail(1, 2)) }).await.unwrap();
        assert_eq!(new, tail(2, 2));
        store.gate.add_permits(1);
        assert_eq!(old.await.unwrap().unwrap(), tail(1, 1));
        assert_eq!(world.seqs("c", 1).await, Some(vec![2]));
    }

    async fn what_is_not_there_and_what_fails_is_not_kept(world: &World) {
        let through = ReadThrough::<String>::new(world.cache.clone());
        let none = through.document(Shelf::Sessions, "a", || async { Ok(None) }).await;
        assert_eq!(none.unwrap(), None);
        let failed = through.document(Shelf::Sessions, "a", || async { Err("down".to_owned()) }).await;
        assert_eq!(*failed.unwrap_err(), "down");
        let there = through.document(Shelf::Sessions, "a", || async { Ok(Some(document(1, "x"))) }).await;
        assert_eq!(there.unwrap(), Some(document(1, "x")));
        through.removed(Shelf::Sessions, "a").await;
        let gone = through.document(Shelf::Sessions, "a", || async { Ok(None) }).await;
        assert_eq!(gone.unwrap(), None);
        let empty = through.recent("c", 3, |_| async { Ok(Tail::default()) }).await;
        assert_eq!(empty.unwrap(), Tail::default());
    }

    async fn look_ups_are_counted_by_strategy(world: &World) {
        world.cache.put(Shelf::Conversations, "a", document(1, "x")).await;
        for id in ["a", "a", "b"] {
            world.cache.get(Shelf::Conversations, id).await;
        }
        world.fill("c", 1, 1).await;
        world.seqs("c", 1).await;
        let health = world.cache.health();
        assert!(health.up && health.reason.is_none());
        let counted = |strategy| {
            let of = health.lookups.iter().find(|l| l.strategy == strategy).unwrap();
            (of.hits, of.misses)
        };
        assert_eq!(counted(Strategy::Conversation), (2, 1));
        assert_eq!(counted(Strategy::RecentMessages), (1, 1));
        assert_eq!(counted(Strategy::Session), (0, 0));
        assert_eq!(counted(Strategy::AgentState), (0, 0));
    }
}
