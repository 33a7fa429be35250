//! The family of a task: `GET /api/v1/tasks/{id}/family`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{
    id::{Target, TaskId},
    task::{TaskState, TaskView},
};

/// Tasks that belong together.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Family {
    /// The tasks, by their ids: in the order of their acceptance.
    pub tasks: Vec<Relative>,
    /// Who belongs to whom.
    pub edges: Vec<Edge>,
    /// Whether there are others, which are left out.
    pub more: bool,
}

/// A task of a family, in short.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Relative {
    /// Its identity.
    pub id: TaskId,
    /// Whom it is for.
    pub target: Target,
    /// The message's wire name; absent for a tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where it stands.
    pub state: TaskState,
}

impl From<TaskView> for Relative {
    fn from(task: TaskView) -> Self {
        Self { id: task.id, target: task.target, message: task.message, state: task.state }
    }
}

/// How two tasks belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Edge {
    /// The earlier one.
    pub from: TaskId,
    /// The later one.
    pub to: TaskId,
    /// In which way.
    pub how: EdgeKind,
}

/// In which way a task belongs to an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// It comes after the earlier one: it waited for its end, or still does.
    After,
    /// The turn of the earlier one submitted it.
    Submitted,
}
