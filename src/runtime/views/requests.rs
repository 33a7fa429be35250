//! Requests about tasks: submit one, retry or dismiss many.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::task::{OnParentFailed, TaskState};

/// `POST /api/v1/tasks`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRequest {
    /// `KIND/KEY` or `tool:NAME`.
    pub target: String,
    /// The message's wire name, for an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Not before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// Not before this time has passed (`"5m"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_in: Option<String>,
    /// Higher goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i16>,
    /// How many attempts may fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How long one attempt may take (`"30s"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// In a batch: by what the `after` of others in it may call this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The tasks that must have ended before: ids, or names of others in the batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 256)))]
    pub tags: Vec<String>,
    /// Cancelled if it has not started by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What happens when one of `after` does not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_parent_failed: Option<OnParentFailed>,
    /// Makes a repetition safe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// `POST /api/v1/tasks/retry`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// Which tasks.
    pub filter: RetryFilter,
    /// Only says how many there are.
    #[serde(default)]
    pub dry_run: bool,
    /// From the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Which tasks are to be tried again: those for which all that is given holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryFilter {
    /// `failed`, as when absent, or `cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// Only this target, or with a `*` at the end all that begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Only with this label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Only with this code of their error. What took its node down is left out unless it says `poison`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// `POST /api/v1/tasks/dismiss`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DismissRequest {
    /// Which tasks.
    pub filter: DismissFilter,
    /// Only says how many there are.
    #[serde(default)]
    pub dry_run: bool,
    /// From the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Which dead letters are dismissed: those for which all that is given holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DismissFilter {
    /// Only this target, or with a `*` at the end all that begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Only with this label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Only with this code of their error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Swept {
    /// Nothing was done: they were counted.
    pub dry_run: bool,
    /// How many; at least so many where there is a `next_cursor`.
    pub count: u64,
    /// How many of those that were looked at took their node down, and were left out: they must be named.
    #[serde(default)]
    pub left_out: u64,
    /// Give it back as `cursor` to go on; absent where all were looked at.
    pub next_cursor: Option<String>,
}
