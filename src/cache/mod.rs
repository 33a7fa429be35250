//! The cache: copies that save reads of the store, which stays the only source of truth.
//!
//! [`Cache`] is an internal extension point; a program cannot plug in a cache of its own yet. [`MemoryCache`]
//! is within the process, [`RedisCache`] shared by several. Nothing here can fail a turn: a cache that does not
//! answer is a miss, and a failed write is skipped.
//!
//! Four [strategies](Strategy), by what makes an old copy harmless:
//!
//! | strategy | written | an old copy |
//! |---|---|---|
//! | agent states | after the commit, later (epoch, version) wins | is used only if the store says that it holds that very commit ([`CachedState::is`]) |
//! | conversations | after the commit, and by readers that had to load; newer version wins | may be read; whoever writes compares the version in the store |
//! | recent messages | after the commit, only behind the predecessor; else the list is dropped | cannot be appended to; a reader's list is refused once somebody has written since ([`Ticket`]) |
//! | sessions | as conversations; the time to live starts again with each use | as conversations; a removed one is not brought back by a late reader |
//!
//! What a node writes is seen by its own readers from then on, and by those of other nodes as soon as
//! its notice is there. A node that ends between its commit and the call that follows it leaves the
//! older copy: until the next write, or the end of its time to live (an hour at most for a session
//! that is in use all the time). So whoever changes a document does it with the version that it read
//! as a condition; where the store refuses, it reads the store itself and calls
//! [`ReadThrough::written`] with what it found.
//!
//! Most callers want [`ReadThrough`], which asks the cache, loads what it misses once for all who ask
//! at the same time, and keeps it.
//!
//! To add a cache: one file here, one arm in [`open`], one line in `tests/caches/support.rs`.

mod document;
mod flight;
mod memory;
mod options;
mod redis;
mod stats;
mod tail;
mod through;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

pub use self::{
    document::{Shelf, Versioned},
    memory::MemoryCache,
    options::{CacheError, CacheOptions, OnChange, Room, open},
    redis::RedisCache,
    stats::{Health, Lookups, Strategy},
    tail::{Item, Recent, Tail, Ticket},
    through::ReadThrough,
};
use crate::model::id::AgentId;

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

/// Copies of what the store holds. Calls may come from any thread; none takes long, none fails.
///
/// Every write is made *after* the store's commit, never before.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// `memory` or `redis`.
    fn name(&self) -> &'static str;

    /// Whether it answers, since when, and how often it had what was asked for.
    fn health(&self) -> Health;

    /// Keeps a state that has been committed, unless a later one (by epoch, then version) is kept.
    async fn put_state(&self, id: AgentId, epoch: i64, version: i64, bytes: Arc<Vec<u8>>);

    /// The state that is kept, if one is. It may be old: see [`CachedState::is`].
    async fn get_state(&self, id: AgentId) -> Option<CachedState>;

    /// Forgets this state of an agent and older ones: they are not what the store holds.
    async fn drop_state(&self, id: AgentId, epoch: i64, version: i64);

    /// The document that is kept, if one is.
    async fn get(&self, shelf: Shelf, id: &str) -> Option<Versioned>;

    /// Keeps a document that has been committed. A newer version that is kept stays, and so does the
    /// mark of [`Cache::remove`]. If this cannot be done, older versions are forgotten as soon as may be.
    async fn put(&self, shelf: Shelf, id: &str, document: Versioned);

    /// Keeps a document that was read from the store, under the same conditions.
    async fn fill(&self, shelf: Shelf, id: &str, document: Versioned);

    /// Forgets a document that was removed: call it after that commit. For a minute nothing of that
    /// id is kept, so that a reader who loaded it before does not bring it back.
    async fn remove(&self, shelf: Shelf, id: &str);

    /// How many messages of a conversation are kept at most: load so many for a [`Ticket`].
    fn keeps(&self) -> usize;

    /// The newest `n` messages of a conversation.
    async fn get_recent(&self, conversation: &str, n: usize) -> Recent;

    /// Keeps what was read from the store for a [`Recent::Miss`], in place of what is kept; unless
    /// somebody has appended since the ticket was given, who may know of more.
    async fn fill_recent(&self, conversation: &str, ticket: Ticket, tail: Tail);

    /// Adds a message that has been committed behind `after`, its predecessor's sequence number (0:
    /// it is the first). Where another one is the last that is kept, the list is dropped instead.
    /// Call it after each such commit, also when nobody has read the conversation.
    async fn append_recent(&self, conversation: &str, after: i64, item: Item);

    /// Forgets the messages of a conversation: call it after removing or changing any.
    async fn drop_recent(&self, conversation: &str);
}
