//! Capabilities of a store shared by several processes: connection pool and change notifications.

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::StoreError;

/// A store on a server.
#[async_trait]
pub trait Shared: Send + Sync {
    /// How its connections fare.
    fn pool(&self) -> PoolStatus;

    /// Tells of what other nodes have to say, as long as the answer is kept. `tell` must not block.
    fn watch(&self, tell: Box<dyn Fn(Hint) + Send + Sync>) -> Watch;

    /// Tells all nodes, this one too, at once and at most once. Up to 7,000 bytes.
    ///
    /// # Errors
    /// [`StoreError::NotDone`]; nothing depends on it.
    async fn nudge(&self, what: &str) -> Result<(), StoreError>;

    /// Keeps since when a node begins no tasks, for those who ask another one; `None`: it does.
    async fn drain(&self, boot: Uuid, since: Option<Timestamp>) -> Result<(), StoreError>;

    /// Keeps which kinds and tools (`tool:NAME`) a node has.
    async fn announce(&self, _boot: Uuid, _queues: &[String]) -> Result<(), StoreError> {
        Ok(())
    }

    /// The kinds and tools that some living node has; `None`: one of them, of an earlier version, does not say.
    async fn announced(&self) -> Result<Option<Vec<String>>, StoreError> {
        Ok(None)
    }
}

/// How a store's pool of connections fares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// So many connections at most.
    pub max: usize,
    /// So many there are.
    pub size: usize,
    /// So many of them are free.
    pub idle: usize,
    /// So many callers wait for one.
    pub waiting: usize,
    /// Taken since the start.
    pub taken: u64,
    /// Waited for them since the start, in microseconds, by all callers together.
    pub wait_us: u64,
    /// Connections made since the start.
    pub made: u64,
    /// Callers who got none.
    pub failed: u64,
    /// Connections closed because they came back with work open.
    pub dropped: u64,
}

/// What a watcher is told. A hint is never the truth: whoever acts upon hints polls as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Hints come from now on. What was sent before may have been missed: look for yourself.
    Resync,
    /// A node sent this.
    Nudge(String),
    /// No hints come from now on, for this reason: poll.
    Polling(String),
}

/// Hints come as long as it is kept.
#[derive(Debug)]
pub struct Watch(JoinHandle<()>);

impl Watch {
    pub(super) fn new(task: JoinHandle<()>) -> Self {
        Self(task)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
