//! The cache within this process, bounded by bytes and by time since the last use.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use moka::{ops::compute::Op, sync};

use super::{Cache, CachedState, Strategy};
use crate::model::id::AgentId;

/// What an entry takes besides its bytes, roughly.
const OVERHEAD: usize = 128;

/// A cache in memory.
#[derive(Debug, Clone)]
pub struct MemoryCache {
    states: sync::Cache<AgentId, CachedState>,
}

impl MemoryCache {
    /// A cache of at most `max_bytes` (0 keeps nothing) whose entries go `ttl` after their last use.
    pub fn new(max_bytes: u64, ttl: Duration) -> Self {
        let weigh = |_: &AgentId, state: &CachedState| {
            u32::try_from(state.bytes.len().saturating_add(OVERHEAD)).unwrap_or(u32::MAX)
        };
        // The builder refuses more than a thousand years.
        let ttl = ttl.min(Duration::from_secs(365 * 86_400));
        let states = sync::Cache::builder()
            .name("agent_state")
            .max_capacity(max_bytes)
            .weigher(weigh)
            .time_to_idle(ttl)
            .build();
        Self { states }
    }
}

#[async_trait]
impl Cache for MemoryCache {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn put_state(&self, id: AgentId, epoch: i64, version: i64, bytes: Arc<Vec<u8>>) {
        self.states.entry(id).and_compute_with(|kept| match kept {
            Some(kept) if (kept.value().epoch, kept.value().version) > (epoch, version) => Op::Nop,
            _ => Op::Put(CachedState { epoch, version, bytes }),
        });
    }

    async fn get_state(&self, id: AgentId) -> Option<CachedState> {
        let found = self.states.get(&id);
        Strategy::AgentState.count(found.is_some());
        found
    }

    async fn invalidate(&self, id: AgentId) {
        self.states.invalidate(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(n: usize) -> Arc<Vec<u8>> {
        Arc::new(vec![7; n])
    }

    #[tokio::test]
    async fn a_late_older_state_does_not_replace_a_newer_one() {
        let cache = MemoryCache::new(1 << 20, Duration::from_secs(60));
        let id = AgentId::of("tally", "a");
        assert_eq!(cache.get_state(id).await, None);
        cache.put_state(id, 2, 5, bytes(3)).await;
        cache.put_state(id, 2, 4, bytes(4)).await;
        cache.put_state(id, 1, 9, bytes(5)).await;
        let kept = cache.get_state(id).await.unwrap();
        assert!(kept.is(2, 5) && !kept.is(2, 6) && kept.bytes.len() == 3);
        cache.put_state(id, 3, 1, bytes(6)).await;
        assert!(cache.get_state(id).await.unwrap().is(3, 1));
        cache.invalidate(id).await;
        assert_eq!(cache.get_state(id).await, None);
    }

    #[tokio::test]
    async fn the_bound_holds_in_bytes() {
        let cache = MemoryCache::new(64 << 10, Duration::from_secs(60));
        for n in 0..1_000 {
            cache.put_state(AgentId::of("tally", &n.to_string()), 1, 1, bytes(1 << 10)).await;
        }
        cache.states.run_pending_tasks();
        assert!(cache.states.weighted_size() <= 64 << 10);
        assert!(cache.states.entry_count() > 0);
        let huge = AgentId::of("tally", "huge");
        cache.put_state(huge, 1, 1, bytes(1 << 20)).await;
        cache.states.run_pending_tasks();
        assert_eq!(cache.get_state(huge).await, None);
    }

    #[tokio::test]
    async fn a_state_is_not_printed() {
        let state = CachedState { epoch: 1, version: 2, bytes: Arc::new(b"secret".to_vec()) };
        assert_eq!(format!("{state:?}"), "CachedState { epoch: 1, version: 2, bytes: 6 }");
    }
}
