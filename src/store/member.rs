//! Nodes: membership and ownership.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::model::id::TaskId;

/// Who joins.
#[derive(Debug, Clone)]
pub struct Member {
    /// The fresh id of this boot.
    pub boot: Uuid,
    /// The id that the data directory keeps across boots: a restarted node ends its own previous
    /// boot at once, in place of waiting for its lease.
    pub instance: Uuid,
    /// A label for people.
    pub name: String,
    /// Where other nodes send those who ask for what this one owns.
    pub url: Option<String>,
    /// How long it keeps what it owns without a word.
    pub lease: Duration,
    /// How often a task may be lost while it runs alone.
    pub max_lost: u32,
}

/// What a node owns after it has joined or renewed its lease.
#[derive(Debug, Clone, Default)]
pub struct Ownership {
    /// The epoch of each partition, by number; 0 where another node owns it.
    pub epochs: Vec<i64>,
    /// Tasks that a dead boot was running and that are ready again.
    pub rescued: u64,
    /// Tasks lost too often while they ran alone: to be made dead letters.
    pub poison: Vec<TaskId>,
}

/// A node as the store knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRow {
    /// Its boot.
    pub boot: Uuid,
    /// Its label.
    pub name: String,
    /// Where it is reached, if it said.
    pub url: Option<String>,
    /// When it started.
    pub started_at: Timestamp,
    /// Until when it owns what it owns; absent where the lease is a lock (SQLite).
    pub lease_until: Option<Timestamp>,
    /// Since when it begins no tasks because an operator said so.
    pub drained_at: Option<Timestamp>,
    /// The partitions that it owns.
    pub partitions: Vec<i16>,
}
