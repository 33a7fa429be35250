//! The same counter, as Greenroom and its peers have it.

pub mod actix;
pub mod kameo;
pub mod ractor;

use std::future::Future;

use tokio::sync::Semaphore;

use super::ground::{Ground, Place};

/// Gets a permit for each counter that has ended.
pub static ENDED: Semaphore = Semaphore::const_new(0);

/// Waits until so many counters have ended.
pub async fn ended(n: usize) {
    if let Ok(permits) = ENDED.acquire_many(u32::try_from(n).unwrap_or(u32::MAX)).await {
        permits.forget();
    }
}

/// The way to a counter.
pub trait Counts: Clone + Send + Sync + 'static {
    /// Whose it is, as the table says it.
    const NAME: &'static str;
    /// Whether it lives among an arbiter's local tasks, as actix's do, or is a task of any runtime.
    const LOCAL: bool = false;

    /// Adds `n`, some time.
    fn tell(&self, n: u64) -> impl Future<Output = ()> + Send;
    /// Adds `n`; the sum.
    fn ask(&self, n: u64) -> impl Future<Output = u64> + Send;
    /// Tells it to add a permit to [`ENDED`]: what it was told before has been handled then.
    fn end(&self) -> impl Future<Output = ()> + Send;

    /// Starts a task beside those that run at `place`.
    fn spawn(place: Place, task: impl Future<Output = ()> + Send + 'static) {
        if Self::LOCAL { place.spawn(task) } else { drop(tokio::spawn(task)) }
    }

    /// Runs the sender at `place`, among tasks of the counter's own sort.
    fn at<T: Send + 'static>(
        ground: &Ground,
        place: Place,
        home: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> anyhow::Result<T> {
        if Self::LOCAL {
            return ground.at(place, home, work);
        }
        Ok(ground.at(place, home, async { tokio::spawn(work).await })??)
    }
}

/// A peer that starts its counters by itself, and finds them by name.
pub trait Named: Counts {
    /// A new one on the current runtime.
    fn start(name: Option<&str>) -> impl Future<Output = anyhow::Result<Self>> + Send;
    fn find(name: &str) -> Option<Self>;
    /// Ends it, and takes its name back.
    fn stop(self);
}
