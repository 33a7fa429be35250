//! The runtime: the only room that knows actix.

pub(crate) mod node;
pub mod operator;
pub mod views;

use std::sync::Arc;

use crate::agent::{Agent, AgentRef, host::Host};
use crate::tool::{Tool, ToolRef};
use operator::Operator;

/// The one door to a running node, for code. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Handle {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) operator: Operator,
}

impl Handle {
    /// The door to one agent.
    pub fn agent<A: Agent>(&self, key: impl Into<String>) -> AgentRef<A> {
        AgentRef::new(self.host.clone(), key)
    }

    /// The door to one tool.
    pub fn tool<T: Tool>(&self) -> ToolRef<T> {
        ToolRef::new(self.host.clone())
    }

    /// The operators' door, as HTTP and the command line have it.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }
}
