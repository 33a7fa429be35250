//! How long ended tasks are kept.

use jiff::Timestamp;

/// Before which moments what has ended is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Tasks that succeeded or were cancelled, batches, boots, and crash groups.
    pub ended: Timestamp,
    /// Tasks that failed: dead letters.
    pub failed: Timestamp,
}

impl Past {
    /// All of it alike.
    pub fn before(at: Timestamp) -> Self {
        Self { ended: at, failed: at }
    }
}
