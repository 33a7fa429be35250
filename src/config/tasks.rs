//! `[tasks]`, and the task settings that `[agents.KIND]` and `[tools.NAME]` share.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    task::{Bounds, OwnTerms, Rate, TaskTerms},
    units,
};

/// Tasks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tasks {
    /// How many run at once.
    pub slots: u32,
    /// How many may wait before further ones from outside are refused; 0: any number.
    pub max_backlog: u64,
    /// How many attempts each has.
    pub max_attempts: u32,
    /// The wait before another attempt …
    #[serde(with = "units::duration")]
    pub retry_min: Duration,
    /// … which doubles up to this.
    #[serde(with = "units::duration")]
    pub retry_max: Duration,
    /// How often one may crash the process while it runs alone.
    pub max_lost: u32,
    /// How long a finished one can be looked up.
    #[serde(with = "units::duration")]
    pub retention: Duration,
    /// How long one that failed is kept, where that is longer.
    #[serde(with = "units::duration")]
    pub retention_failed: Duration,
}

impl Tasks {
    /// The terms of a kind or a tool that sets none.
    pub fn terms(&self) -> TaskTerms {
        TaskTerms { priority: 0, max_attempts: self.max_attempts, min: self.retry_min, max: self.retry_max }
    }
}

/// Overrides for the tasks of one kind or one tool; unset keys are as for all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskOverrides {
    /// For tasks whose submitter sets none: higher runs first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i16>,
    /// How often one is attempted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// The wait before another attempt …
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub retry_min: Option<Duration>,
    /// … which doubles up to this.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub retry_max: Option<Duration>,
    /// How many may be under way at once on a node; 0: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// How many may begin within a time on a node, such as `100/1s`; `0/1s`: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

impl TaskOverrides {
    /// These bounds, with the overrides on top.
    pub fn bounds(&self, code: Bounds) -> Bounds {
        code.with(self.concurrency, self.rate)
    }

    /// The overridden terms.
    pub fn terms(&self) -> OwnTerms {
        OwnTerms {
            priority: self.priority,
            max_attempts: self.max_attempts,
            min: self.retry_min,
            max: self.retry_max,
        }
    }
}

/// The task keys of `[agents.KIND]` and `[tools.NAME]`.
pub(super) const TASK_KEYS: [&str; 6] =
    ["priority", "max_attempts", "retry_min", "retry_max", "concurrency", "rate"];
/// The numeric ones among them.
pub(super) const TASK_NUMBERS: [&str; 3] = ["priority", "max_attempts", "concurrency"];
