//! `[tasks]`, and what `[agents.KIND]` and `[tools.NAME]` say alike of the tasks for them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    task::{Retries, RetryTerms},
    units,
};

/// Tasks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tasks {
    /// How many run at the same time.
    pub slots: u32,
    /// How often one is attempted.
    pub max_attempts: u32,
    /// The wait before another attempt …
    #[serde(with = "units::duration")]
    pub retry_min: Duration,
    /// … which doubles up to this.
    #[serde(with = "units::duration")]
    pub retry_max: Duration,
    /// How often one may take the process down while it runs alone.
    pub max_lost: u32,
    /// How long a finished one can be looked up.
    #[serde(with = "units::duration")]
    pub retention: Duration,
}

impl Tasks {
    /// What holds for a kind or a tool that says nothing.
    pub fn retries(&self) -> Retries {
        Retries { max_attempts: self.max_attempts, min: self.retry_min, max: self.retry_max }
    }
}

/// What was set for the tasks of one kind or one tool; the rest is as for all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskOverrides {
    /// How often one is attempted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// The wait before another attempt …
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub retry_min: Option<Duration>,
    /// … which doubles up to this.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub retry_max: Option<Duration>,
}

impl TaskOverrides {
    /// What it says of retries.
    pub fn retries(&self) -> RetryTerms {
        RetryTerms { max_attempts: self.max_attempts, min: self.retry_min, max: self.retry_max }
    }
}

/// The keys that `[agents.KIND]` and `[tools.NAME]` know of tasks.
pub(super) const TASK_KEYS: [&str; 3] = ["max_attempts", "retry_min", "retry_max"];
/// Those of them that are numbers.
pub(super) const TASK_NUMBERS: [&str; 1] = ["max_attempts"];
