//! The operators' door: everything that HTTP and the command line may see and do, as plain data.

use std::{sync::Arc, time::Duration};

use serde_json::value::RawValue;

use super::{
    node::Node,
    views::{
        Action, AgentInfo, CrashInfo, KindInfo, Page, Reason, SnapshotInfo, StateInfo, Status, TaskRequest,
        ToolInfo, TreeNode,
    },
};
use crate::{
    agent::{AskError, JsonRefusal, JsonReply},
    model::{
        id::TaskId,
        task::{TaskEvent, TaskState, TaskView},
    },
    store::StoredStatus,
};

/// Why the operators' door did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OperatorError {
    /// The body is no JSON, or a name or parameter cannot be understood (400 `malformed`).
    #[error("{0}")]
    Malformed(String),
    /// No such kind (404 `unknown_kind`).
    #[error("unknown kind `{kind}`{}", list(.known))]
    UnknownKind {
        /// What was asked for.
        kind: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The kind has no such message (404 `unknown_message`).
    #[error("`{kind}` takes no message `{message}`{}", list(.known))]
    UnknownMessage {
        /// The kind.
        kind: String,
        /// What was asked for.
        message: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Everything else.
    #[error(transparent)]
    Ask(#[from] AskError<JsonRefusal>),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(": there are {}", names.join(", ")) }
}

impl OperatorError {
    /// The contract's code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::UnknownKind { .. } => "unknown_kind",
            Self::UnknownMessage { .. } => "unknown_message",
            Self::Ask(e) => e.code(),
        }
    }
}

/// How an ask or a call is made.
#[derive(Debug, Clone, Default)]
pub struct SendOptions {
    /// Gives up after this time; the agent's `ask_timeout` when absent.
    pub timeout: Option<Duration>,
    /// Makes a repetition safe.
    pub idempotency_key: Option<String>,
}

/// Which agents to list.
#[derive(Debug, Clone, Default)]
pub struct AgentQuery {
    /// Only this kind.
    pub kind: Option<String>,
    /// Only this status, by its contract name.
    pub status: Option<String>,
    /// From the page before.
    pub cursor: Option<String>,
    /// 1 to 1,000; 100 when absent.
    pub limit: Option<usize>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default)]
pub struct TaskQuery {
    /// Only this state.
    pub state: Option<TaskState>,
    /// Only this target.
    pub target: Option<String>,
    /// From the page before.
    pub cursor: Option<String>,
    /// 1 to 1,000; 100 when absent.
    pub limit: Option<usize>,
}

/// The operators' door. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Operator {
    #[allow(dead_code)]
    node: Arc<Node>,
}

type Result<T> = std::result::Result<T, OperatorError>;

#[allow(unused_variables)]
impl Operator {
    /// How the node is.
    pub async fn status(&self) -> Status {
        todo!()
    }
    /// Whether it may be sent work; else why not.
    pub async fn ready(&self) -> std::result::Result<(), Vec<Reason>> {
        todo!()
    }
    /// The supervision tree.
    pub async fn tree(&self) -> TreeNode {
        todo!()
    }
    /// The kinds, with their messages' schemas.
    pub fn kinds(&self) -> Vec<KindInfo> {
        todo!()
    }
    /// One kind.
    pub fn kind(&self, kind: &str) -> Result<KindInfo> {
        todo!()
    }
    /// One page of agents.
    pub async fn agents(&self, query: &AgentQuery) -> Result<Page<AgentInfo>> {
        todo!()
    }
    /// One agent.
    pub async fn agent(&self, kind: &str, key: &str) -> Result<AgentInfo> {
        todo!()
    }
    /// Its state, now or at a kept version.
    pub async fn state(&self, kind: &str, key: &str, version: Option<i64>) -> Result<StateInfo> {
        todo!()
    }
    /// Its kept snapshots, newest first.
    pub async fn snapshots(&self, kind: &str, key: &str) -> Result<Vec<SnapshotInfo>> {
        todo!()
    }
    /// Acts on an agent.
    pub async fn act(&self, kind: &str, key: &str, action: Action) -> Result<()> {
        todo!()
    }
    /// Asks an agent. `body` is what the client sent: empty, `null` and `{}` are the same.
    pub async fn ask(
        &self,
        kind: &str,
        key: &str,
        message: &str,
        body: &[u8],
        options: SendOptions,
    ) -> Result<JsonReply> {
        todo!()
    }
    /// Tells an agent.
    pub async fn tell(&self, kind: &str, key: &str, message: &str, body: &[u8]) -> Result<()> {
        todo!()
    }
    /// Submits a task. `true`: the idempotency key had been used, and this is the first one.
    pub async fn submit(&self, request: TaskRequest) -> Result<(TaskView, bool)> {
        todo!()
    }
    /// Submits several tasks at once, all or none.
    pub async fn submit_batch(&self, requests: Vec<TaskRequest>) -> Result<Vec<TaskView>> {
        todo!()
    }
    /// One page of tasks, newest first.
    pub async fn tasks(&self, query: &TaskQuery) -> Result<Page<TaskView>> {
        todo!()
    }
    /// One task.
    pub async fn task(&self, id: TaskId) -> Result<TaskView> {
        todo!()
    }
    /// One task, when it has ended or the time is up, whichever is first.
    pub async fn wait(&self, id: TaskId, at_most: Duration) -> Result<TaskView> {
        todo!()
    }
    /// Its history, oldest first.
    pub async fn history(&self, id: TaskId) -> Result<Vec<TaskEvent>> {
        todo!()
    }
    /// Cancels a task; what runs is asked to end.
    pub async fn cancel(&self, id: TaskId) -> Result<TaskView> {
        todo!()
    }
    /// Brings a dead letter back.
    pub async fn retry(&self, id: TaskId) -> Result<TaskView> {
        todo!()
    }
    /// The tools.
    pub async fn tools(&self) -> Vec<ToolInfo> {
        todo!()
    }
    /// One tool.
    pub async fn tool(&self, name: &str) -> Result<ToolInfo> {
        todo!()
    }
    /// Calls a tool; a `once` tool is run as a task, and waited for.
    pub async fn call(&self, name: &str, body: &[u8], options: SendOptions) -> Result<Box<RawValue>> {
        todo!()
    }
    /// The last crashes, newest first.
    pub fn crashes(&self) -> Vec<CrashInfo> {
        todo!()
    }
    /// One crash.
    pub fn crash(&self, id: &str) -> Result<CrashInfo> {
        todo!()
    }
    /// Asks the node to shut down in good order.
    pub fn stop(&self) {
        todo!()
    }
}

#[allow(dead_code)]
fn status_of(name: &str) -> Option<StoredStatus> {
    let _ = name;
    None
}
