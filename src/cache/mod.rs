//! The cache: copies that spare the store a read, never the truth.
//!
//! [`Cache`] is the extension point: memory is one file behind it, Redis will be another. Nothing
//! here can fail a turn: a cache that does not answer is a miss, and what it does not take is not
//! kept. Whoever uses a cached state first compares its epoch and version with the store's
//! ([`CachedState::is`]).

mod memory;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

pub use self::memory::MemoryCache;
use crate::model::id::AgentId;

/// What is cached: the `strategy` label of `greenroom_cache_requests_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// Agents' states, written after their commit.
    AgentState,
}

impl Strategy {
    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentState => "agent_state",
        }
    }

    /// Counts a look-up.
    fn count(self, hit: bool) {
        let result = if hit { "hit" } else { "miss" };
        metrics::counter!("greenroom_cache_requests_total", "strategy" => self.name(), "result" => result)
            .increment(1);
    }
}

/// An agent's state as it was once committed.
#[derive(Clone, PartialEq, Eq)]
pub struct CachedState {
    /// The epoch of that commit.
    pub epoch: i64,
    /// The version that it stored.
    pub version: i64,
    /// The framed snapshot.
    pub bytes: Arc<Vec<u8>>,
}

impl CachedState {
    /// Whether this is the commit that the store holds: only then may the bytes be used.
    pub fn is(&self, epoch: i64, version: i64) -> bool {
        (self.epoch, self.version) == (epoch, version)
    }
}

impl fmt::Debug for CachedState {
    /// The state itself is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, version, bytes } = self;
        write!(f, "CachedState {{ epoch: {epoch}, version: {version}, bytes: {} }}", bytes.len())
    }
}

/// Copies of what the store holds. Calls may come from any thread.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// `memory` or `redis`.
    fn name(&self) -> &'static str;

    /// Keeps a state that has been committed, unless a later one (by epoch, then version) is kept.
    async fn put_state(&self, id: AgentId, epoch: i64, version: i64, bytes: Arc<Vec<u8>>);

    /// The state that is kept, if one is. It may be old: see [`CachedState::is`].
    async fn get_state(&self, id: AgentId) -> Option<CachedState>;

    /// Forgets an agent's state.
    async fn invalidate(&self, id: AgentId);
}
