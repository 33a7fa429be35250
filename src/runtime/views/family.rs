//! The family of a task: `GET /api/v1/tasks/{id}/family`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{
    id::{Target, TaskId},
    task::{TaskState, TaskView},
};

/// A task's relatives.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Family {
    /// The tasks, by their ids: in the order of their acceptance.
    pub tasks: Vec<Relative>,
    /// The relations among them.
    pub edges: Vec<Edge>,
    /// Whether some were left out.
    pub more: bool,
}

/// A task of a family, in brief.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Relative {
    /// Its identity.
    pub id: TaskId,
    /// Its target.
    pub target: Target,
    /// The message's wire name; absent for a tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its state.
    pub state: TaskState,
}

impl From<TaskView> for Relative {
    fn from(task: TaskView) -> Self {
        Self { id: task.id, target: task.target, message: task.message, state: task.state }
    }
}

/// A relation of two tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Edge {
    /// The earlier one.
    pub from: TaskId,
    /// The later one.
    pub to: TaskId,
    /// The kind of relation.
    pub how: EdgeKind,
}

/// The relation of a task to an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// The earlier one is a prerequisite: it waited for its end, or still does.
    After,
    /// The turn of the earlier one submitted it.
    Submitted,
}
