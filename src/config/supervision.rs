//! `[supervision]`: restart intensity and delays, and groups.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::model::{
    group::Strategy,
    supervision::{Restart, RestartPolicy},
    units,
};

/// How often and how fast crashed agents are restarted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supervision {
    /// At most so many restarts …
    pub max_restarts: u32,
    /// … in any window of this length.
    #[serde(with = "units::duration")]
    pub within: Duration,
    /// The wait before a restart.
    #[serde(with = "units::duration")]
    pub backoff_min: Duration,
    /// The longest wait.
    #[serde(with = "units::duration")]
    pub backoff_max: Duration,
    /// `[supervision.groups.NAME]`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, GroupOverrides>,
}

impl Supervision {
    /// Of those that set none of their own.
    pub fn policy(&self) -> RestartPolicy {
        let Self { max_restarts, within, backoff_min, backoff_max, .. } = *self;
        RestartPolicy { max_restarts, within, backoff_min, backoff_max, restart: Restart::Permanent }
    }
}

/// The same for the agents of one kind, or for one tool; unset keys are as for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartOverrides {
    /// At most so many restarts …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    /// … in any window of this length.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
    /// The wait before a restart.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub backoff_min: Option<Duration>,
    /// The longest wait.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub backoff_max: Option<Duration>,
}

impl RestartOverrides {
    /// A policy, with these on top.
    pub fn over(&self, policy: RestartPolicy) -> RestartPolicy {
        RestartPolicy {
            max_restarts: self.max_restarts.unwrap_or(policy.max_restarts),
            within: self.within.unwrap_or(policy.within),
            backoff_min: self.backoff_min.unwrap_or(policy.backoff_min),
            backoff_max: self.backoff_max.unwrap_or(policy.backoff_max),
            ..policy
        }
    }
}

/// The keys of [`RestartOverrides`].
pub(super) const RESTART_KEYS: [&str; 4] = ["max_restarts", "within", "backoff_min", "backoff_max"];

/// `[supervision.groups.NAME]`: agents that are supervised together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupOverrides {
    /// Who is restarted with whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// At most so many crashes of its members …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    /// … in any window of this length.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
}

/// The keys that `[supervision.groups.NAME]` knows.
pub(super) const GROUP_KEYS: [&str; 3] = ["strategy", "max_restarts", "within"];
