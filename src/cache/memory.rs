//! The cache within this process, bounded by bytes and by time.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use moka::{ops::compute::Op, sync};

use super::{
    Cache, CacheOptions, CachedState, Health, Item, Recent, Room, Shelf, Strategy, Tail, Ticket, Versioned,
    document::{Documents, OVERHEAD},
    stats::Stats,
    tail::Tails,
};
use crate::model::id::AgentId;

/// A cache in memory.
#[derive(Debug)]
pub struct MemoryCache {
    states: States,
    shared: Shared,
    stats: Stats,
    since: Timestamp,
}

/// Agents' states within the process.
#[derive(Debug, Clone)]
pub(super) struct States(sync::Cache<AgentId, CachedState>);

impl States {
    pub(super) fn new(room: Room) -> Self {
        let weigh = |_: &AgentId, state: &CachedState| {
            u32::try_from(state.bytes.len().saturating_add(OVERHEAD)).unwrap_or(u32::MAX)
        };
        // The builder refuses more than a thousand years.
        let ttl = room.ttl.min(Duration::from_secs(365 * 86_400));
        Self(sync::Cache::builder().max_capacity(room.max_size).weigher(weigh).time_to_idle(ttl).build())
    }

    pub(super) fn put(&self, id: AgentId, state: CachedState) {
        self.0.entry(id).and_compute_with(|kept| match kept {
            Some(kept) if (kept.value().epoch, kept.value().version) > (state.epoch, state.version) => {
                Op::Nop
            }
            _ => Op::Put(state),
        });
    }

    pub(super) fn get(&self, id: AgentId) -> Option<CachedState> {
        self.0.get(&id)
    }

    /// Forgets this state, or an older one.
    pub(super) fn drop(&self, id: AgentId, epoch: i64, version: i64) {
        self.0.entry(id).and_compute_with(|kept| match kept {
            Some(kept) if (kept.value().epoch, kept.value().version) <= (epoch, version) => Op::Remove,
            _ => Op::Nop,
        });
    }
}

/// What other nodes may write too, within the process.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    conversations: Documents,
    sessions: Documents,
    pub(super) tails: Tails,
}

impl Shared {
    /// `longest`: how long a copy may live where others write.
    pub(super) fn new(options: &CacheOptions, longest: Option<Duration>) -> Self {
        let room = |room: Room| match longest {
            Some(longest) => Room { ttl: room.ttl.min(longest), ..room },
            None => room,
        };
        Self {
            conversations: Documents::new(room(options.conversation), false),
            sessions: match longest {
                None => Documents::new(options.session, true),
                // A use that is answered here does not reach the server, which must not forget it.
                Some(_) => {
                    Documents::new(room(Room { ttl: options.session.ttl / 4, ..options.session }), false)
                }
            },
            tails: Tails::new(room(options.recent_messages), options.keep),
        }
    }

    pub(super) fn shelf(&self, shelf: Shelf) -> &Documents {
        match shelf {
            Shelf::Conversations => &self.conversations,
            Shelf::Sessions => &self.sessions,
        }
    }
}

impl MemoryCache {
    /// A cache with this much room.
    pub fn new(options: &CacheOptions) -> Self {
        Self {
            states: States::new(options.agent_state),
            shared: Shared::new(options, None),
            stats: Stats::default(),
            since: Timestamp::now(),
        }
    }
}

#[async_trait]
impl Cache for MemoryCache {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn health(&self) -> Health {
        Health { up: true, since: self.since, reason: None, version: None, lookups: self.stats.lookups() }
    }

    async fn put_state(&self, id: AgentId, epoch: i64, version: i64, bytes: Arc<Vec<u8>>) {
        self.states.put(id, CachedState { epoch, version, bytes });
    }

    async fn get_state(&self, id: AgentId) -> Option<CachedState> {
        let found = self.states.get(id);
        self.stats.count(Strategy::AgentState, found.is_some());
        found
    }

    async fn drop_state(&self, id: AgentId, epoch: i64, version: i64) {
        self.states.drop(id, epoch, version);
    }

    async fn get(&self, shelf: Shelf, id: &str) -> Option<Versioned> {
        let found = self.shared.shelf(shelf).get(id);
        self.stats.count(shelf.strategy(), found.is_some());
        found
    }

    async fn put(&self, shelf: Shelf, id: &str, document: Versioned) {
        self.shared.shelf(shelf).put(id, document);
    }

    async fn fill(&self, shelf: Shelf, id: &str, document: Versioned) {
        self.shared.shelf(shelf).put(id, document);
    }

    async fn remove(&self, shelf: Shelf, id: &str) {
        self.shared.shelf(shelf).remove(id);
    }

    fn keeps(&self) -> usize {
        self.shared.tails.room().keep
    }

    async fn get_recent(&self, conversation: &str, n: usize) -> Recent {
        let found = self.shared.tails.get(conversation, n);
        self.stats.count(Strategy::RecentMessages, matches!(found, Recent::Hit(_)));
        found
    }

    async fn fill_recent(&self, conversation: &str, ticket: Ticket, tail: Tail) {
        self.shared.tails.fill(conversation, ticket, tail);
    }

    async fn append_recent(&self, conversation: &str, after: i64, item: Item) {
        self.shared.tails.append(conversation, after, item);
    }

    async fn drop_recent(&self, conversation: &str) {
        self.shared.tails.drop(conversation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(max_size: u64) -> CacheOptions {
        let room = Room { max_size, ttl: Duration::from_secs(60) };
        CacheOptions {
            agent_state: room,
            conversation: room,
            recent_messages: room,
            session: room,
            ..CacheOptions::default()
        }
    }

    fn bytes(n: usize) -> Arc<Vec<u8>> {
        Arc::new(vec![7; n])
    }

    #[tokio::test]
    async fn the_bound_of_each_strategy_holds_in_bytes() {
        let cache = MemoryCache::new(&options(64 << 10));
        for n in 0..1_000 {
            let id = n.to_string();
            cache.put_state(AgentId::of("tally", &id), 1, 1, bytes(1 << 10)).await;
            for shelf in [Shelf::Conversations, Shelf::Sessions] {
                cache.put(shelf, &id, Versioned { version: 1, bytes: bytes(1 << 10) }).await;
            }
            let Recent::Miss(Some(ticket)) = cache.get_recent(&id, 1).await else { panic!("a hit") };
            let tail = Tail { after: 0, items: vec![Item { seq: 1, bytes: bytes(1 << 10) }] };
            cache.fill_recent(&id, ticket, tail).await;
        }
        cache.states.0.run_pending_tasks();
        let shared = &cache.shared;
        for (count, size) in [
            (cache.states.0.entry_count(), cache.states.0.weighted_size()),
            shared.conversations.size(),
            shared.sessions.size(),
            shared.tails.size(),
        ] {
            assert!(count > 0 && size <= 64 << 10, "{count} entries of {size} bytes");
        }
        let huge = AgentId::of("tally", "huge");
        cache.put_state(huge, 1, 1, bytes(1 << 20)).await;
        cache.states.0.run_pending_tasks();
        assert_eq!(cache.get_state(huge).await, None);
    }

    #[tokio::test]
    async fn what_is_kept_is_not_printed() {
        let secret = Arc::new(b"secret".to_vec());
        let state = CachedState { epoch: 1, version: 2, bytes: secret.clone() };
        assert_eq!(format!("{state:?}"), "CachedState { epoch: 1, version: 2, bytes: 6 }");
        let document = Versioned { version: 2, bytes: secret.clone() };
        assert_eq!(format!("{document:?}"), "Versioned { version: 2, bytes: 6 }");
        assert_eq!(format!("{:?}", Item { seq: 3, bytes: secret }), "Item { seq: 3, bytes: 6 }");
    }
}
