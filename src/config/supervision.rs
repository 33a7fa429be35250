//! `[supervision]`: restart intensity and delays, and groups.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::model::{group::Strategy, units};

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
