//! The life of a task: its states, the transition function, and its data.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::id::{Target, TaskId};

mod attempt;
mod backlog;
mod batch;
mod claims;
mod dead;
mod family;
mod machine;
mod options;
mod pace;
mod shares;
mod terms;
mod view;
pub use attempt::{Advice, AfterError, has_begun};
pub use backlog::{Backlog, Room};
pub use batch::{BatchNotify, MAX_BATCH, NewBatch, batch_ended, batch_signal};
pub use claims::{ClaimId, Claims, HeldClaim, returns_again};
pub use dead::{DeadFilter, DeadTask, POISON};
pub use family::{by_name, circle};
pub use machine::{Illegal, TaskInput, next};
pub use options::{Flaw, TaskOptions, check_idempotency_key};
pub use pace::{Bounds, Pace, Rate};
pub use shares::{Queue, Shares, each_of, in_turn, queue_of, runs, share_out};
pub use terms::{OwnTerms, TaskTerms};
pub use view::{Prerequisite, TaskEvent, TaskView, TaskWait};

/// The state of a task. The numbers are those in the store.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[repr(i16)]
pub enum TaskState {
    /// Waits for its prerequisites.
    Blocked = 0,
    /// Waits for its start time, or for the delay before a retry.
    Scheduled = 1,
    /// May be claimed.
    Ready = 2,
    /// Claimed by a node.
    Running = 3,
    /// Waits for a signal; holds no slot.
    Waiting = 4,
    /// Its target is paused, stopped or quarantined.
    Parked = 5,
    /// A `once` effect was interrupted: a person must decide the outcome.
    OutcomeUnknown = 6,
    /// Succeeded.
    Succeeded = 10,
    /// Failed finally: kept as a dead letter.
    Failed = 11,
    /// Cancelled by a person, because a prerequisite did not succeed, or because it expired.
    Cancelled = 12,
}

impl TaskState {
    /// Every state, in the order of their numbers.
    pub const ALL: [TaskState; 10] = [
        Self::Blocked,
        Self::Scheduled,
        Self::Ready,
        Self::Running,
        Self::Waiting,
        Self::Parked,
        Self::OutcomeUnknown,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The state of a number in the store.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|s| *s as i16 == code)
    }

    /// The name used on every surface (`outcome_unknown`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Parked => "parked",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it has ended: only a retry by a person can change it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// The error of a task, as every surface shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TaskError {
    /// One of the contract's codes: `refused`, `handler_failed`, `handler_crashed`, `timed_out`, `invalid`, `poison`, …
    pub code: String,
    /// The message for people.
    pub message: String,
    /// The causes, outermost first.
    #[serde(default)]
    pub chain: Vec<String>,
    /// The id of the crash report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crash_id: Option<String>,
    /// The message's own typed refusal, where `code` is `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<serde_json::Value>,
}

/// What happens to a task when a prerequisite did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnParentFailed {
    /// It is cancelled too.
    #[default]
    Cancel,
    /// It runs all the same.
    Run,
}

/// The agent to notify when a task has ended: it receives `message` (a `Done<M>`) as a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Notify {
    /// The agent.
    pub target: Target,
    /// The wire name of the message it receives, such as `Order.done`.
    pub message: String,
}

/// A task to be accepted.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Its identity, known before it is stored.
    pub id: TaskId,
    /// Its target.
    pub target: Target,
    /// The message's wire name; empty for a tool.
    pub message: String,
    /// The input as JSON text.
    pub input: Box<RawValue>,
    /// Higher runs first.
    pub priority: i16,
    /// The earliest start.
    pub run_at: Option<Timestamp>,
    /// How many attempts it has; at least 1.
    pub max_attempts: u32,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// Its prerequisites: tasks that must have ended before it is ready.
    pub after: Vec<TaskId>,
    /// What happens if one of `after` does not succeed.
    pub on_parent_failed: OnParentFailed,
    /// The agent to notify of its end.
    pub notify: Option<Notify>,
    /// The batch it is counted in.
    pub batch: Option<TaskId>,
    /// The task whose turn submitted it.
    pub parent: Option<TaskId>,
    /// Free labels.
    pub tags: Vec<String>,
    /// It is cancelled if it has not started by then.
    pub expires_at: Option<Timestamp>,
    /// The idempotency key it was submitted with.
    pub idempotency_key: Option<String>,
}

impl Claimed {
    /// The claim of a task that starts as soon as it is accepted.
    pub fn begun(task: &NewTask, seq: i64, claim: ClaimId) -> Self {
        Self {
            id: task.id,
            seq,
            target: task.target.clone(),
            message: task.message.clone(),
            input: task.input.clone(),
            priority: task.priority,
            attempt: 1,
            claim,
            lost: 0,
            max_attempts: task.max_attempts.max(1),
            timeout: task.timeout,
            notify: task.notify.clone(),
            batch: task.batch,
            due: None,
            expires_at: task.expires_at,
        }
    }

    /// For how long its first attempt waited, from the moment when it could have run; `None` for
    /// later attempts. (A task's id holds the time of its acceptance.)
    pub fn waited(&self, now: Timestamp) -> Option<Duration> {
        if self.attempt != 1 {
            return None;
        }
        let (secs, nanos) = self.id.0.get_timestamp()?.to_unix();
        let accepted = Timestamp::new(i64::try_from(secs).ok()?, i32::try_from(nanos).ok()?).ok()?;
        let since = self.due.map_or(accepted, |due| due.max(accepted));
        Duration::try_from(since.duration_until(now)).ok()
    }
}

#[cfg(test)]
impl Claimed {
    /// The first claim of a task for somebody.
    pub(crate) fn first(target: Target) -> Self {
        Self {
            id: TaskId::fresh(),
            seq: 1,
            target,
            message: String::new(),
            input: RawValue::NULL.to_owned(),
            priority: 0,
            attempt: 1,
            claim: ClaimId(1),
            lost: 0,
            max_attempts: 3,
            timeout: None,
            notify: None,
            batch: None,
            due: None,
            expires_at: None,
        }
    }
}

impl NewTask {
    /// A task with the given default terms.
    pub(crate) fn under(
        terms: &TaskTerms,
        target: Target,
        message: impl Into<String>,
        input: Box<RawValue>,
    ) -> Self {
        let task = Self::new(target, message, input, terms.max_attempts);
        Self { priority: terms.priority, ..task }
    }

    /// A task with the defaults: priority 0, due at once, `max_attempts` attempts, no notification.
    pub fn new(target: Target, message: impl Into<String>, input: Box<RawValue>, max_attempts: u32) -> Self {
        Self {
            id: TaskId::fresh(),
            target,
            message: message.into(),
            input,
            priority: 0,
            run_at: None,
            max_attempts: max_attempts.max(1),
            timeout: None,
            after: Vec::new(),
            on_parent_failed: OnParentFailed::default(),
            notify: None,
            batch: None,
            parent: None,
            tags: Vec::new(),
            expires_at: None,
            idempotency_key: None,
        }
    }
}

/// A task that this node has claimed: what is needed to run and to end it.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its identity.
    pub id: TaskId,
    /// The order in which the store accepted it.
    pub seq: i64,
    /// Its target.
    pub target: Target,
    /// The message's wire name; empty for a tool.
    pub message: String,
    /// The input as JSON text.
    pub input: Box<RawValue>,
    /// Higher runs first.
    pub priority: i16,
    /// Which attempt this is, from 1. Guards the end of the claim.
    pub attempt: u32,
    /// Which claim this is. Guards its return.
    pub claim: ClaimId,
    /// How many claims ended without an outcome (a node died).
    pub lost: u32,
    /// How many attempts it has.
    pub max_attempts: u32,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// The agent to notify of its end.
    pub notify: Option<Notify>,
    /// The batch it is counted in.
    pub batch: Option<TaskId>,
    /// Its earliest start, if it had one.
    pub due: Option<Timestamp>,
    /// When it expires, if it has not started by then.
    pub expires_at: Option<Timestamp>,
}
