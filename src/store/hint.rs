//! Hints between nodes that share a store.

use tokio::task::JoinHandle;

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
