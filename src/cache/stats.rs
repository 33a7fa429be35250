//! Cache statistics: hits and misses by strategy, and whether it answers.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

/// What is cached: the `strategy` label of `greenroom_cache_requests_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// Agents' states, written after their commit.
    AgentState,
    /// Conversations that are in use.
    Conversation,
    /// The newest messages of conversations.
    RecentMessages,
    /// Sessions.
    Session,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AgentState, Self::Conversation, Self::RecentMessages, Self::Session];

    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentState => "agent_state",
            Self::Conversation => "conversation",
            Self::RecentMessages => "recent_messages",
            Self::Session => "session",
        }
    }
}

/// How a cache is.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Whether it answers. A cache that has not been reached yet does not.
    pub up: bool,
    /// Since when that is so.
    pub since: Timestamp,
    /// Why it does not answer.
    pub reason: Option<String>,
    /// The server's version, where it is on one that says so.
    pub version: Option<String>,
    /// Look-ups since the start.
    pub lookups: Vec<Lookups>,
}

/// The look-ups of one strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookups {
    /// Which.
    pub strategy: Strategy,
    /// How many found something.
    pub hits: u64,
    /// How many did not.
    pub misses: u64,
}

/// Counts look-ups.
#[derive(Debug, Default)]
pub(super) struct Stats {
    counts: [(AtomicU64, AtomicU64); 4],
}

impl Stats {
    /// Counts a look-up.
    pub(super) fn count(&self, strategy: Strategy, hit: bool) {
        let [state, conversation, recent, session] = &self.counts;
        let (hits, misses) = match strategy {
            Strategy::AgentState => state,
            Strategy::Conversation => conversation,
            Strategy::RecentMessages => recent,
            Strategy::Session => session,
        };
        if hit { hits } else { misses }.fetch_add(1, Ordering::Relaxed);
        let result = if hit { "hit" } else { "miss" };
        metrics::counter!("greenroom_cache_requests_total", "strategy" => strategy.name(), "result" => result)
            .increment(1);
    }

    /// What was counted.
    pub(super) fn lookups(&self) -> Vec<Lookups> {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let all = Strategy::ALL.into_iter().zip(&self.counts);
        all.map(|(strategy, (hits, misses))| Lookups { strategy, hits: read(hits), misses: read(misses) })
            .collect()
    }
}
