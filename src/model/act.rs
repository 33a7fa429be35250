//! Acts: operators' actions, as the audit log keeps them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// What somebody did to the node or to what it runs. It is written down before it is done, and again with what
/// came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Act {
    /// Its id; later acts have higher ones.
    pub id: Uuid,
    /// When it began.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub at: Timestamp,
    /// The name of the token that was shown.
    pub who: String,
    /// The address that it came from.
    pub by: Option<String>,
    /// What: `agent.stop`, `task.retry`, `token.add`, …
    pub action: String,
    /// To whom: `kind/key`, `task:ID`, `token:NAME`, …
    pub subject: String,
    /// `ok`, or the problem's code; absent while it is under way, and where the node ended before it knew.
    pub outcome: Option<String>,
    /// What was there before, where there is something to tell; no secrets.
    pub before: Option<Value>,
    /// What was asked for, or is there now.
    pub after: Option<Value>,
}

impl Act {
    /// What begins at this moment.
    pub fn new(at: Timestamp, action: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            id: Uuid::now_v7(),
            at,
            who: String::new(),
            by: None,
            action: action.into(),
            subject: subject.into(),
            outcome: None,
            before: None,
            after: None,
        }
    }
}

/// The outcome of what was done.
pub const OK: &str = "ok";
/// The outcome of what was only tried out: nothing was done.
pub const DRY_RUN: &str = "dry_run";
