//! A lock for each agent that operators act on: one act at a time, since most take several steps.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::model::id::AgentId;

/// The locks that somebody holds or waits for.
#[derive(Default)]
pub(crate) struct AgentLocks(Mutex<HashMap<AgentId, Arc<tokio::sync::Mutex<()>>>>);

impl AgentLocks {
    /// Waits until nobody else acts on the agent. Those who wait have their turns in order.
    pub(crate) async fn lock(&self, id: AgentId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock();
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(id).or_default().clone()
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_acts_on_an_agent_at_a_time_and_nothing_is_kept_of_those_that_are_done() {
        let locks = AgentLocks::default();
        let (a, b) = (AgentId::of("counter", "a"), AgentId::of("counter", "b"));
        let held = locks.lock(a).await;
        let mut waits = Box::pin(locks.lock(a));
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(locks.lock(b).await);
        drop(held);
        drop(waits.await);
        drop(locks.lock(b).await);
        assert_eq!(locks.0.lock().len(), 1);
    }
}
