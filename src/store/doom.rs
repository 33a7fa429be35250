//! Doom: why a task is to end although nobody runs it to its end, and what became of those that were due to.

use jiff::Timestamp;

use crate::model::id::{Target, TaskId};

/// Why a task is to be ended although nobody ran it to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doom {
    /// A prerequisite task did not succeed.
    ParentFailed,
    /// It expired before it started.
    Expired,
    /// It was lost too often while it ran alone: to be made a dead letter.
    Poison,
    /// It was cancelled while it ran, and the attempt ended without saying so.
    Cancelled,
}

impl Doom {
    /// What its history and its events say.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ParentFailed => "a task that it came after did not succeed",
            Self::Expired => "it expired before it started",
            Self::Poison => "poison",
            Self::Cancelled => "it was cancelled while it ran",
        }
    }
}

/// A task that is to be ended, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Which.
    pub id: TaskId,
    /// For whom it was.
    pub target: Target,
    /// Why.
    pub why: Doom,
}

/// What one pass over the tasks that are due, expired and doomed has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Promoted {
    /// How many became ready.
    pub ready: u64,
    /// Those that it cancelled, as nobody was to be notified: at most 1,000.
    pub cancelled: Vec<Doomed>,
    /// When the next one is due or expires.
    pub next: Option<Timestamp>,
}
