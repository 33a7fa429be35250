//! The operator: everything that HTTP and the command line can see and do, as plain data.

mod acts;
mod agents;
mod configuration;
mod conversations;
mod crashes;
mod dead;
mod delete;
mod family;
mod kinds;
mod messages;
mod nodes;
mod reasons;
mod repair;
mod rewrite;
mod schedules;
mod sessions;
mod signals;
mod status;
mod tasks;
mod tokens;
mod tools;
mod tree;

use std::{sync::Arc, time::Duration};

pub(crate) use self::nodes::named;
pub use self::{
    acts::ActQuery,
    configuration::ConfigView,
    conversations::{MessageQuery, PageQuery},
    crashes::CrashQuery,
    signals::Resolution,
};
use super::{kind::AnyKind, node::Node};
use crate::{
    agent::{AskError, JsonRefusal},
    model::{
        id::{AgentId, check_key},
        targets::Targets,
        task::TaskState,
    },
    store::StoreError,
};

/// Why an operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OperatorError {
    /// The body is not JSON, or a name or parameter is invalid (400 `malformed`).
    #[error("{0}")]
    Malformed(String),
    /// No such kind (404 `unknown_kind`).
    #[error("unknown kind `{kind}`{}", list(.known))]
    UnknownKind {
        /// The requested name.
        kind: String,
        /// The known names.
        known: Vec<String>,
    },
    /// The kind has no such message (404 `unknown_message`).
    #[error("`{kind}` takes no message `{message}`{}", list(.known))]
    UnknownMessage {
        /// The kind.
        kind: String,
        /// The requested name.
        message: String,
        /// The known names.
        known: Vec<String>,
    },
    /// Another node serves the agent, or none does yet (503 `unavailable`).
    #[error("{why}")]
    Elsewhere {
        /// The node that serves it, for people.
        why: String,
        /// The URL of that node, if known.
        owner: Option<String>,
    },
    /// The agent is paused and was not resumed in time: nothing happened (504 `timed_out`).
    #[error(
        "{agent} is paused, and was not resumed in time; nothing happened: greenroom agents resume {agent}"
    )]
    Paused {
        /// `kind/key`.
        agent: String,
    },
    /// What was to be written has changed since the caller read it (412 `precondition_failed`).
    #[error("{0}")]
    Changed(String),
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
            Self::Elsewhere { .. } => "unavailable",
            Self::Paused { .. } => "timed_out",
            Self::Changed(_) => "precondition_failed",
            Self::Ask(e) => e.code(),
        }
    }
}

/// Options of an ask or a call.
#[derive(Debug, Clone, Default)]
pub struct SendOptions {
    /// Gives up after this time; the agent's `ask_timeout` when absent.
    pub timeout: Option<Duration>,
    /// Idempotency key: a repeated request returns the first result.
    pub idempotency_key: Option<String>,
    /// Handled before waiting messages that are not urgent.
    pub urgent: bool,
}

/// Which agents to list.
#[derive(Debug, Clone, Default)]
pub struct AgentQuery {
    /// Only this kind.
    pub kind: Option<String>,
    /// Only this status, by its contract name.
    pub status: Option<String>,
    /// The cursor of the previous page.
    pub cursor: Option<String>,
    /// 1 to 1,000; 100 when absent.
    pub limit: Option<usize>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default)]
pub struct TaskQuery {
    /// Only this state.
    pub state: Option<TaskState>,
    /// Only these targets.
    pub target: Option<Targets>,
    /// Only with this label.
    pub tag: Option<String>,
    /// The cursor of the previous page.
    pub cursor: Option<String>,
    /// 1 to 1,000; 100 when absent.
    pub limit: Option<usize>,
}

/// The handle for operators. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Operator {
    pub(crate) node: Arc<Node>,
}

type Result<T> = std::result::Result<T, OperatorError>;

impl From<StoreError> for OperatorError {
    fn from(e: StoreError) -> Self {
        Self::Ask(AskError::Unavailable(e.to_string()))
    }
}

impl Operator {
    /// Figures of the writers.
    pub fn commits(&self) -> &super::CommitStats {
        &self.node.persistence.stats
    }

    /// Figures of the reads that activations make.
    pub fn loads(&self) -> &super::LoadStats {
        self.node.loads.stats()
    }

    /// Asks the node to shut down gracefully.
    pub fn stop(&self) {
        self.node.stop.cancel();
    }

    /// Completes when the node is asked to end, by [`Operator::stop`] or because it must.
    pub async fn stopping(&self) {
        self.node.stop.cancelled().await;
    }

    /// Why the node must end with an error, if it must.
    pub fn fatal(&self) -> Option<String> {
        self.node.fatal.get().cloned()
    }

    fn kind_of(&self, kind: &str) -> Result<(usize, &Arc<dyn AnyKind>)> {
        self.node.kind(kind).ok_or_else(|| OperatorError::UnknownKind {
            kind: kind.to_owned(),
            known: self.node.kinds.iter().map(|k| k.name().to_owned()).collect(),
        })
    }

    fn key_of<'a>(&self, kind: &str, key: &'a str) -> Result<(usize, &Arc<dyn AnyKind>, &'a str)> {
        let (index, kind) = self.kind_of(kind)?;
        check_key(key).map_err(|e| OperatorError::Malformed(e.to_string()))?;
        Ok((index, kind, key))
    }

    /// Whether this node serves an agent now.
    fn here(&self, kind: &str, key: &str) -> Result<()> {
        match self.node.elsewhere(AgentId::of(kind, key), &format!("{kind}/{key}")) {
            Some((why, owner)) => Err(OperatorError::Elsewhere { why: why.to_string(), owner }),
            None => Ok(()),
        }
    }
}

fn wrong_state(why: impl Into<String>) -> OperatorError {
    AskError::WrongState(why.into()).into()
}

fn not_found(what: impl Into<String>) -> OperatorError {
    AskError::NotFound(what.into()).into()
}

fn invalid(pointer: &str, detail: impl Into<String>) -> OperatorError {
    AskError::Invalid(crate::Invalid::at(pointer, detail)).into()
}

fn page_limit(limit: Option<usize>) -> Result<usize> {
    match limit.unwrap_or(100) {
        n @ 1..=1_000 => Ok(n),
        _ => Err(OperatorError::Malformed("`limit` is a number from 1 to 1000".to_owned())),
    }
}
