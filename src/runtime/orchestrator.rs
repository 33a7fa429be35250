//! The orchestrator: the root of the supervision tree.
//!
//! Control passes through its mailbox; messages do not: senders go straight to the lanes. It never
//! awaits I/O.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use actix::prelude::*;
use jiff::Timestamp;

use super::{groups::Budgets, inbox::Control, kind::AnyKind, node::Node};
use crate::agent::lane::Entrance;
use crate::clock;

/// How many stopped agents are remembered for `status`.
const KEPT: usize = 256;

/// What happened to a child.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub(crate) enum Notice {
    /// An agent was stopped by supervision.
    Stopped { subject: String, reason: String },
    /// An agent was taken back into service.
    Healed { subject: String },
}

/// An agent that supervision has stopped.
#[derive(Debug, Clone)]
pub(crate) struct Casualty {
    pub subject: String,
    pub reason: String,
    pub since: Timestamp,
}

/// Asks for the agents that supervision has stopped since the node started.
#[derive(Message)]
#[rtype(result = "Vec<Casualty>")]
pub(crate) struct Casualties;

/// Changes what an agent's senders meet, and tells its cell.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Command {
    pub kind: usize,
    pub key: String,
    pub entrance: Option<Entrance>,
    pub control: Control,
    /// What waits and is in no store is answered before.
    pub clear: bool,
}

/// More agents of a kind are in memory than may be.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Crowded(pub Arc<dyn AnyKind>);

/// The root of the supervision tree.
pub(crate) struct Orchestrator {
    pub node: Arc<Node>,
    pub(super) budgets: Budgets,
    casualties: VecDeque<Casualty>,
}

impl Orchestrator {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, budgets: Budgets::default(), casualties: VecDeque::new() }
    }
}

impl Actor for Orchestrator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(4_096);
        ctx.run_interval(Duration::from_secs(1), |this, _| {
            let (tick, now) = (this.node.advance(), this.node.uptime());
            for kind in &this.node.kinds {
                kind.sweep(tick, now);
            }
        });
    }
}

impl Handler<Notice> for Orchestrator {
    type Result = ();
    fn handle(&mut self, notice: Notice, _: &mut Self::Context) {
        match notice {
            Notice::Stopped { subject, reason } => {
                self.casualties.retain(|c| c.subject != subject);
                if self.casualties.len() == KEPT {
                    self.casualties.pop_front();
                }
                self.casualties.push_back(Casualty { subject, reason, since: clock::now() });
            }
            Notice::Healed { subject } => self.casualties.retain(|c| c.subject != subject),
        }
    }
}

impl Handler<Casualties> for Orchestrator {
    type Result = MessageResult<Casualties>;
    fn handle(&mut self, _: Casualties, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.casualties.iter().cloned().collect())
    }
}

impl Handler<Command> for Orchestrator {
    type Result = ();
    fn handle(&mut self, command: Command, _: &mut Self::Context) {
        let Some(kind) = self.node.kinds.get(command.kind) else { return };
        if command.clear {
            kind.clear(&command.key);
        }
        if let Some(entrance) = command.entrance {
            kind.set_entrance(&command.key, entrance);
        }
        if command.control != Control::None {
            kind.control(&command.key, command.control);
        }
    }
}

impl Handler<Crowded> for Orchestrator {
    type Result = ();
    fn handle(&mut self, Crowded(kind): Crowded, _: &mut Self::Context) {
        kind.thin_out();
    }
}
