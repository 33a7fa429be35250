//! Hooks for tests: crash points in turns, observation of commits and topics, and what stands in for agents and
//! tools. Only a node that a test has started has them.

use std::{any::Any, collections::HashMap, fmt, sync::Arc};

use parking_lot::Mutex;

use super::node::Node;
use crate::{
    agent::{Message, double::Double, topic::Publication},
    store::Unit,
};

/// A place between two steps of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boundary {
    /// The turn has begun, its handler has not.
    BeforeHandler,
    /// The handler has ended well, and nothing is durable.
    AfterHandler,
    /// Its commit is durable, and what it sends has left; nobody has been answered.
    AfterCommit,
    /// All who waited have been answered.
    AfterRelease,
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeHandler => "before the handler of",
            Self::AfterHandler => "after the handler, before the commit, of",
            Self::AfterCommit => "before the answers of",
            Self::AfterRelease => "after the answers of",
        })
    }
}

/// A test's hand in a node.
pub(crate) trait Probe: Send + Sync {
    /// A turn has come to this place; `true`: it crashes there.
    fn comes_to(&self, boundary: Boundary, what: fmt::Arguments<'_>) -> bool;
    /// A unit is durable, and nobody has been told.
    fn durable(&self, node: &Arc<Node>, unit: &Unit);
    /// What the test has put in the place of an agent.
    fn double(&self, kind: &str, key: &str) -> Option<Arc<Double>>;
    /// A message goes to a topic, by its stored name.
    fn published(&self, topic: &str, publication: &Publication);
}

/// What a stand-in does in place of a tool whose input is `M`.
pub(crate) type StandIn<M> = dyn Fn(M) -> anyhow::Result<<M as Message>::Reply> + Send + Sync;

/// What stands in for tools, by their names.
#[derive(Default)]
pub(crate) struct StandIns(Mutex<HashMap<&'static str, Box<dyn Any + Send>>>);

impl StandIns {
    pub(crate) fn put<M: Message>(&self, tool: &'static str, stand_in: Arc<StandIn<M>>) {
        self.0.lock().insert(tool, Box::new(stand_in));
    }

    pub(crate) fn find<M: Message>(&self, tool: &str) -> Option<Arc<StandIn<M>>> {
        self.0.lock().get(tool)?.downcast_ref::<Arc<StandIn<M>>>().cloned()
    }
}
