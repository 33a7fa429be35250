//! The message that a watching agent receives when the watched one ends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message;

/// A watched agent has ended: see [`Turn::watch`](super::Turn::watch).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Terminated {
    /// The agent that ended: `kind/key`.
    pub id: String,
    /// Why, for a person; at most 1,000 characters.
    pub reason: String,
}
message!(Terminated -> ());
