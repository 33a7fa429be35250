//! The agent cell: the actix actor around an agent.
//!
//! Two ways in: control comes through its actix mailbox, messages through its [lane](crate::agent).
//! The actor owns the runner's life; the runner ([`runner`]) is the one loop of an agent's life:
//! restore, run turns ahead of the disk, flush, release.

mod commit;
mod drive;
mod keyed;
mod leave;
pub(crate) mod restore;
mod rewind;
mod runner;
mod turns;
mod window;

use std::sync::{Arc, atomic::Ordering};

use actix::{fut::wrap_future, prelude::*};

use super::{
    inbox::{Control, Inbox},
    kind::Kind,
    node::Node,
    running_cell::Live,
    watchdog::Noted,
};
use crate::{
    agent::{Agent, lane::Lane},
    model::event::{self, Event, Level},
};
pub(super) use leave::stopped_text;
use runner::Runner;

/// The actor around one agent.
pub(crate) struct Cell<A: Agent> {
    /// Boxed: it moves into the cell's future, and would leave its room behind here.
    runner: Option<Box<Runner<A>>>,
    inbox: Arc<Inbox>,
}

// Nothing in a cell is ever pinned in place: its runner is moved into a boxed future.
impl<A: Agent> Unpin for Cell<A> {}

impl<A: Agent> Cell<A> {
    /// Starts a cell for an attached lane, on the current arbiter.
    pub(crate) fn launch(node: Arc<Node>, kind: Arc<Kind<A>>, lane: Arc<Lane<A>>) {
        let probe = node.probe.as_ref();
        let is_double = probe.is_some_and(|probe| probe.double(A::KIND, &lane.name.key).is_some());
        let is_probed = probe.is_some() && !is_double;
        let inbox = Arc::new(Inbox::new(node.starts.fetch_add(1, Ordering::Relaxed), is_probed));
        inbox.active_at.store(node.tick(), Ordering::Relaxed);
        if node.logger.wants(Level::Debug, event::AGENT_STARTED) {
            node.logger.emit(Event::new(Level::Debug, event::AGENT_STARTED, lane.name.subject()));
        }
        let runner = Runner::new(node, kind.clone(), lane.clone(), inbox.clone(), is_double);
        let addr = Self { runner: Some(Box::new(runner)), inbox: inbox.clone() }.start();
        kind.live.insert(Live { lane, inbox, addr });
    }
}

impl<A: Agent> Actor for Cell<A> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(runner) = self.runner.take() {
            // Out of its box at once: a future that is made of the box would keep it.
            let runner = *runner;
            let life = Noted { inbox: self.inbox.clone(), life: Box::pin(runner.run()) };
            ctx.spawn(wrap_future::<_, Self>(life).map(|(), _, ctx| ctx.stop()));
        }
    }
}

impl Message for Control {
    type Result = ();
}

impl<A: Agent> Handler<Control> for Cell<A> {
    type Result = ();
    fn handle(&mut self, control: Control, _: &mut Self::Context) {
        self.inbox.tell(control);
    }
}
