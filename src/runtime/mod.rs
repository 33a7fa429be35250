//! The runtime: the only room that knows actix.
//!
//! ```text
//! orchestrator ─┬─ persistence   the writers' door: group commit
//!               ├─ cache         states for the next activation; conversations and sessions
//!               ├─ dispatcher ─── task cells
//!               ├─ tool cells
//!               └─ agent cells   each attached to a lane, on one of the arbiters
//! ```

mod agent_locks;
mod backlog;
mod bonds;
mod boot;
mod cache_actor;
mod cell;
mod cleaning;
pub(crate) mod configuration;
mod crashes;
mod crowd;
mod data_dir;
mod dispatcher;
mod doom;
mod gauge;
mod gone;
mod groups;
mod held;
mod hints;
mod host;
pub(crate) mod inbox;
mod keeper;
mod keys;
mod kind;
mod kind_policy;
mod lease;
mod live;
mod loads;
mod long;
mod member;
mod metrics;
pub(crate) mod node;
mod notes;
pub mod operator;
mod orchestrator;
mod outage;
mod pace;
mod parked;
mod parts;
pub(crate) mod persistence;
pub(crate) mod probe;
mod proposal;
pub(crate) mod registry;
mod row;
mod schedules;
mod settle;
mod since;
mod standing;
mod task_cell;
pub(crate) mod tool_cell;
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
pub use loads::LoadStats;
pub(crate) use member::member;
pub(crate) use metrics::describe as describe_metrics;
pub use persistence::CommitStats;
pub(crate) use registry::WrapStore;

use crate::{
    agent::{Agent, AgentRef, Message, Outcome, host::Host},
    model::id::TaskId,
    tool::{Tool, ToolRef},
};
use operator::Operator;

/// The one door to a running node, for code. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Handle {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) operator: Operator,
}

impl Handle {
    /// The door to one agent.
    pub fn agent<A: Agent>(&self, key: impl AsRef<str>) -> AgentRef<A> {
        AgentRef::new(&*self.host, key.as_ref())
    }

    /// The door to one tool.
    pub fn tool<T: Tool>(&self) -> ToolRef<T> {
        ToolRef::new(self.host.clone())
    }

    /// Asks an agent (`kind/key`) through the JSON door.
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

    /// Waits until a task that was submitted as `M` has ended.
    ///
    /// # Errors
    /// When nobody knows the task, or its outcome is not one of `M`.
    pub async fn wait<M: Message>(&self, task: TaskId) -> anyhow::Result<Outcome<M::Reply, M::Error>> {
        use crate::model::task::TaskState;
        loop {
            let view = self.operator.wait(task, Duration::from_secs(60)).await?;
            return Ok(match view.state {
                TaskState::Succeeded => {
                    let body = view.result.as_ref().map_or("null", |r| r.get());
                    Outcome::Succeeded(serde_json::from_str(body)?)
                }
                TaskState::Failed => match view.error {
                    Some(error) => match error.refusal {
                        Some(refusal) => Outcome::Refused(serde_json::from_value(refusal)?),
                        None => Outcome::Failed(crate::Fault {
                            message: error.message,
                            chain: error.chain,
                            crash_id: error.crash_id,
                            advice: None,
                        }),
                    },
                    None => Outcome::Failed(crate::Fault::new("it failed")),
                },
                TaskState::Cancelled => Outcome::Cancelled,
                TaskState::OutcomeUnknown => Outcome::Unknown,
                _ => continue,
            });
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
