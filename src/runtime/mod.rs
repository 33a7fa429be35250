//! The runtime: the only module that uses actix.
//!
//! ```text
//! orchestrator ─┬─ persistence   the writers' door: group commit
//!               ├─ cache         states for the next activation; conversations and sessions
//!               ├─ dispatcher ─── task cells
//!               ├─ tool cells
//!               └─ agent cells   each attached to a lane, on one of the arbiters
//! ```

mod agent_locks;
mod agent_status;
mod backlog;
mod batch;
mod bonds;
mod boot;
mod cache_actor;
mod cell;
mod cleaning;
pub(crate) mod configuration;
mod crashes;
mod data_dir;
mod dispatcher;
mod doomed_tasks;
mod drain;
mod edited_state;
mod groups;
mod held;
mod host;
pub(crate) mod inbox;
mod keeper;
mod keys;
mod kind;
mod kind_policy;
mod lease;
mod load_state;
mod lost_tells;
mod mailbox_alerts;
mod metrics;
pub(crate) mod node;
mod node_identity;
mod notes;
mod null_host;
pub mod operator;
mod orchestrator;
mod outage;
mod pace;
mod parked;
mod peer_hints;
pub(crate) mod persistence;
pub(crate) mod probe;
mod pulse;
pub(crate) mod registry;
mod residency;
mod restart_order;
mod root_actors;
mod running_cell;
mod schedules;
mod settle;
mod since;
mod slow_messages;
mod state_loader;
mod task_cell;
mod tool_call;
pub(crate) mod tool_cell;
mod tool_service;
mod topics;
#[doc(hidden)]
pub mod trial;
pub mod views;
mod watchdog;

use std::{sync::Arc, time::Duration};

pub use boot::StartError;
pub(crate) use boot::{Ground, Running, alone, launch, open, open_patiently, start};
pub(crate) use cell::restore::decode;
pub use configuration::{Applied, ConfigureError, Overruled};
pub(crate) use data_dir::{DataDir, lock};
pub(crate) use metrics::describe as describe_metrics;
pub(crate) use node_identity::member;
pub use persistence::CommitStats;
pub(crate) use registry::WrapStore;
pub use state_loader::LoadStats;

use crate::{
    agent::{Agent, AgentRef, Message, Outcome, host::Host},
    model::id::TaskId,
    tool::{Tool, ToolRef},
};
use operator::Operator;

/// The handle to a running node, for code. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Handle {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) operator: Operator,
}

impl Handle {
    /// A reference to one agent.
    pub fn agent<A: Agent>(&self, key: impl AsRef<str>) -> AgentRef<A> {
        AgentRef::new(&*self.host, key.as_ref())
    }

    /// A reference to one tool.
    pub fn tool<T: Tool>(&self) -> ToolRef<T> {
        ToolRef::new(self.host.clone())
    }

    /// Asks an agent (`kind/key`) with a message given as JSON.
    ///
    /// # Errors
    /// See [`operator::OperatorError`].
    pub async fn ask_json(
        &self,
        to: &str,
        message: &str,
        body: serde_json::Value,
    ) -> Result<serde_json::Value, operator::OperatorError> {
        let (kind, key) = to
            .split_once('/')
            .ok_or_else(|| operator::OperatorError::Malformed(format!("`{to}` is not KIND/KEY")))?;
        let reply =
            self.operator.ask(kind, key, message, body.to_string().as_bytes(), Default::default()).await?;
        serde_json::from_str(reply.body.get()).map_err(|e| operator::OperatorError::Malformed(e.to_string()))
    }

    /// Waits until a task that was submitted as `M` has ended. Waits without limit; wrap it in
    /// `tokio::time::timeout`.
    ///
    /// # Errors
    /// The task is unknown, the store does not answer, or its outcome cannot be read as one of `M`.
    pub async fn wait<M: Message>(&self, task: TaskId) -> anyhow::Result<Outcome<M::Reply, M::Error>> {
        loop {
            let view = self.operator.wait(task, Duration::from_secs(60)).await?;
            if let Some(outcome) = Outcome::of(view)? {
                return Ok(outcome);
            }
        }
    }

    /// The operators' door, as HTTP and the command line have it.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }
}

/// A duration in whole milliseconds.
pub(crate) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
