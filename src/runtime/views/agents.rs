//! Agents as every surface shows them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A mailbox.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
pub struct MailboxInfo {
    /// Number of waiting messages.
    pub depth: usize,
    /// Its capacity.
    pub capacity: usize,
    /// Of an agent that was stopped or quarantined: messages that have been refused since; tasks are parked instead.
    #[serde(default)]
    pub refused: u64,
    /// When the last of those was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "crate::model::units::moment")]
    pub refused_at: Option<Timestamp>,
}

/// An agent.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AgentInfo {
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// `starting`, `active`, `idle`, `passivated`, `restarting`, `paused`, `stopping`, `stopped`, `quarantined`;
    /// `elsewhere`: `node` serves it, and alone knows whether it runs, its mailbox and its restarts.
    pub status: String,
    /// The reason, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its last durable version.
    pub version: i64,
    /// The epoch of that version.
    pub epoch: i64,
    /// The node that owns it.
    pub node: String,
    /// Its mailbox.
    pub mailbox: MailboxInfo,
    /// The message that it is handling, if that waits for something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How long it has been handling it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Restarts since the node started.
    pub restarts: u64,
    /// Its last commit.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub updated_at: Option<Timestamp>,
    /// Its first commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "crate::model::units::moment")]
    pub created_at: Option<Timestamp>,
    /// The size of its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
    /// Its children (`kind/key`), which end with it, at most 1,000; not in listings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<String>,
}

/// A kept snapshot.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotInfo {
    /// Its version.
    pub version: i64,
    /// When it was committed.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub at: Timestamp,
    /// Its size.
    pub bytes: u64,
}

/// An agent's state.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StateInfo {
    /// Its version.
    pub version: i64,
    /// Its schema version.
    pub schema_version: u32,
    /// The state.
    pub state: Value,
}

/// An operator's action on an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Stops it until it is restarted; waiting messages are refused, its tasks are parked.
    Stop,
    /// Restarts it with a fresh restart budget.
    Restart,
    /// Pauses it; its messages queue.
    Pause,
    /// Ends a pause.
    Resume,
    /// Quarantines it, as if its state could not be read.
    Quarantine,
    /// Ends a quarantine, after a successful decode.
    Release,
}
