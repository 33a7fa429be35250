//! The hand of a scenario in its node: counts the crash points of its turns, crashes at one of them, reads back every
//! committed state, and brings probes what is theirs.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use crate::{
    agent::{Message, double::Double, drops::Guarded, topic::Publication},
    runtime::{
        node::Node,
        probe::{Boundary, Probe},
        trial,
    },
    store::{MemoryStore, StateWrite, Store as _, Unit},
};

/// Where a crash was, in words.
#[derive(Debug, Clone)]
pub(super) struct Crash(pub String);

/// What watches a node.
pub(super) struct Watch {
    store: Arc<MemoryStore>,
    crash_at: Option<usize>,
    reached: AtomicUsize,
    resting: AtomicBool,
    crash: Mutex<Option<Crash>>,
    problems: Mutex<Vec<String>>,
    /// What stands in for agents, by their subjects.
    doubles: Mutex<HashMap<String, Arc<Double>>>,
    /// What looks on at topics, with their stored names.
    lookers: Mutex<Vec<(Arc<str>, Looker)>>,
}

/// Takes a copy of what is published, if it is of its type.
type Looker = Box<dyn Fn(&Publication) + Send>;

impl Watch {
    pub(super) fn new(store: Arc<MemoryStore>, crash_at: Option<usize>) -> Self {
        Self {
            store,
            crash_at,
            reached: AtomicUsize::new(0),
            resting: AtomicBool::new(false),
            crash: Mutex::default(),
            problems: Mutex::default(),
            doubles: Mutex::default(),
            lookers: Mutex::default(),
        }
    }

    /// Counts no more; how many places there were.
    pub(super) fn rest(&self) -> usize {
        self.resting.store(true, Ordering::Relaxed);
        self.reached.load(Ordering::Relaxed)
    }

    /// The crash that there was.
    pub(super) fn crash(&self) -> Option<Crash> {
        self.crash.lock().clone()
    }

    pub(super) fn problem(&self, what: String) {
        self.problems.lock().push(what);
    }

    /// What was wrong, whatever the scenario says.
    pub(super) fn problems(&self) -> Vec<String> {
        self.problems.lock().clone()
    }

    /// Puts something in the place of an agent.
    pub(super) fn stand_in(&self, double: Arc<Double>) {
        self.doubles.lock().insert(double.subject().to_owned(), double);
    }

    /// Has a double get what is published to a topic as well.
    pub(super) fn look_at<M: Message>(&self, topic: Arc<str>, double: Arc<Double>) {
        let looker = move |publication: &Publication| {
            if let Some(message) = publication.body.downcast_ref::<Guarded<M>>().and_then(Guarded::get) {
                double.put(message.clone(), None);
            }
        };
        self.lookers.lock().push((topic, Box::new(looker)));
    }

    fn read_back(&self, node: &Node, write: &StateWrite) -> anyhow::Result<()> {
        let rows = self.store.load(&[write.id]).now_or_never().transpose()?;
        let row = rows.and_then(|mut rows| rows.pop().flatten());
        let row = row.ok_or_else(|| anyhow::anyhow!("the store does not have it"))?;
        match node.kind(&write.kind) {
            Some((_, kind)) => Ok(trial::check(&**kind, &row)?),
            None => Ok(()),
        }
    }
}

impl Probe for Watch {
    fn comes_to(&self, boundary: Boundary, what: fmt::Arguments<'_>) -> bool {
        if self.resting.load(Ordering::Relaxed) {
            return false;
        }
        let place = self.reached.fetch_add(1, Ordering::Relaxed) + 1;
        let crashes = self.crash_at == Some(place);
        if crashes {
            *self.crash.lock() = Some(Crash(format!("{boundary} {what}")));
        }
        crashes
    }

    fn durable(&self, node: &Arc<Node>, unit: &Unit) {
        if let Some(write) = &unit.state
            && let Err(error) = self.read_back(node, write)
        {
            let version = write.base_version.saturating_add(1);
            self.problem(format!(
                "{}/{} could not be restored from its version {version}: {error:#}",
                write.kind, write.key
            ));
        }
    }

    fn double(&self, kind: &str, key: &str) -> Option<Arc<Double>> {
        self.doubles.lock().get(&format!("{kind}/{key}")).cloned()
    }

    fn published(&self, topic: &str, publication: &Publication) {
        let lookers = self.lookers.lock();
        lookers.iter().filter(|(name, _)| **name == *topic).for_each(|(_, looker)| looker(publication));
    }
}
