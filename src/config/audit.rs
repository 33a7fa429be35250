//! `[audit]`: the audit log.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::units;

/// The audit log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// How long an act can be looked up; 0: for ever.
    #[serde(with = "units::duration")]
    pub retention: Duration,
}
