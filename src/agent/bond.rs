//! What a death watch brings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message;

/// "The agent that you watch has ended": see [`Turn::watch`](super::Turn::watch).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Terminated {
    /// Who: `kind/key`.
    pub id: String,
    /// Why, for a person; at most 1,000 characters.
    pub reason: String,
}
message!(Terminated -> ());
