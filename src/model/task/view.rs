//! A task as every surface shows it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Notify, OnParentFailed, TaskError, TaskState};
use crate::model::{
    id::{Target, TaskId},
    journal::{JOINED, Wait},
};

/// A task as every surface shows it.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TaskView {
    /// Its identity.
    pub id: TaskId,
    /// Its target.
    pub target: Target,
    /// The message's wire name; absent for a tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its state.
    pub state: TaskState,
    /// Claims so far.
    pub attempt: u32,
    /// Claims that ended without an outcome.
    pub lost: u32,
    /// How many attempts it has.
    pub max_attempts: u32,
    /// Higher runs first.
    pub priority: i16,
    /// When it may run, or ran first: of one that may at once, when it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "crate::model::units::moment")]
    pub run_at: Option<Timestamp>,
    /// When it was accepted.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub created_at: Timestamp,
    /// When its last attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "crate::model::units::moment")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "crate::model::units::moment")]
    pub finished_at: Option<Timestamp>,
    /// Its input, if requested and still kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    pub input: Option<Box<RawValue>>,
    /// The reply, if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    pub result: Option<Box<RawValue>>,
    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// The progress it reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<serde_json::Value>,
    /// The task whose turn submitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TaskId>,
    /// The batch it is counted in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<TaskId>,
    /// How many prerequisites have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<u32>,
    /// The first 100 of those, by their ids. Not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prerequisites: Vec<Prerequisite>,
    /// If it is `waiting`: for what, the earliest deadline first. Not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<TaskWait>,
    /// The boot id of the node that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The idempotency key it was submitted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The time limit of one attempt, if it has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// It is cancelled if it has not started by then; absent once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "crate::model::units::moment")]
    pub expires_at: Option<Timestamp>,
    /// `run`, if it runs even after a prerequisite that did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_parent_failed: Option<OnParentFailed>,
    /// The agent to notify of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
}

/// A prerequisite that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Prerequisite {
    /// Its identity.
    pub id: TaskId,
    /// Its target.
    pub target: Target,
    /// Its state.
    pub state: TaskState,
}

/// What a task function waits for: a signal, or the end of a batch that it submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TaskWait {
    /// The signal's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<TaskId>,
    /// Its deadline: the task goes on then without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "crate::model::units::moment")]
    pub until: Option<Timestamp>,
}

impl From<Wait> for TaskWait {
    fn from(wait: Wait) -> Self {
        let batch = wait.name.strip_prefix(JOINED).and_then(|batch| batch.parse().ok());
        Self { signal: batch.is_none().then_some(wait.name), batch, until: wait.until }
    }
}

/// One entry of a task's history.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TaskEvent {
    /// When.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub at: Timestamp,
    /// `accepted`, `started` (each attempt), `retry`, `waiting`, `signalled`, `broken_off`, `rescued`, `retried`,
    /// `cancelled`, `failed`, `succeeded`, …
    pub event: String,
    /// The attempt.
    pub attempt: u32,
    /// The boot id of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
