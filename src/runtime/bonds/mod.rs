//! Bonds at run time: watchers are notified of an agent's end, and its children are stopped.
//!
//! ```text
//! an end ────────────────────┐
//! a bond that was committed ─┼─► queue ─► keeper ─┬─ a task for each watcher, in the commit that takes its
//! a sweep: start, takeover ──┘   (by agent)       │  watch away
//!                                                 └─ each child of this node's: stopped, then let go
//! ```
//!
//! An end is a status in the store, written before the keeper hears of it. (If the store did not take it, the
//! agent has ended until its node starts again, and its bonds are processed all the same.) A bond is a row, and the
//! keeper hears of it when it is durable. Whichever comes second is processed when the other one is there, so no
//! end is missed; and since one keeper per node does it all, in order, under the epoch of the agent that ended, no
//! watcher is notified twice. What a process leaves undone is found by the sweep of the next one.

mod keep;
mod queue;

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

pub(crate) use self::keep::keep;
use self::queue::{Children, Due, Queue};
use crate::{
    model::bond::Bond,
    store::{Unit, Verdict},
};

/// The way to the keeper of bonds.
pub(crate) struct Bonds {
    queue: Mutex<Queue>,
    work: Notify,
    /// All that has ended is to be looked at.
    sweep: AtomicBool,
    /// Other nodes say what they change.
    told: AtomicBool,
}

impl Bonds {
    pub(crate) fn new() -> Self {
        Self {
            queue: Mutex::default(),
            work: Notify::new(),
            sweep: AtomicBool::new(true),
            told: AtomicBool::new(false),
        }
    }

    /// An agent (`kind/key`) has ended, and its status is durable where it has one.
    pub(crate) fn ended(&self, subject: &str, reason: &str) {
        self.due(subject, Due { reason: Some(reason.into()), ..Due::default() });
    }

    /// It may have ended.
    pub(crate) fn look(&self, subject: &str) {
        self.due(subject, Due { children: Children::All, ..Due::default() });
    }

    /// Whoever is bound to an agent that has ended has been told of it, or stopped. `false`: the node ends.
    pub(crate) async fn settled(&self, subject: &str) -> bool {
        let (waits, settled) = oneshot::channel();
        let due = Due { children: Children::All, waiting: vec![waits], ..Due::default() };
        self.queue.lock().push_first(subject, due);
        self.work.notify_one();
        settled.await.is_ok()
    }

    /// For the writers: what durable units did.
    pub(crate) fn committed(&self, units: &[Unit], verdicts: &[Verdict]) {
        let durable = units.iter().zip(verdicts).filter(|(_, verdict)| **verdict == Verdict::Durable);
        for write in durable.flat_map(|(unit, _)| &unit.subscriptions).filter(|write| write.subscribed) {
            let Some((bond, subject)) = Bond::read(&write.topic) else { continue };
            let children = match bond {
                Bond::Watch => Children::None,
                Bond::Child => Children::These(vec![write.subscriber.clone()]),
            };
            self.due(subject, Due { children, ..Due::default() });
        }
    }

    /// Another node has made such a bond to an agent, or says that this one has ended.
    pub(crate) fn heard(&self, bond: Bond, subject: &str) {
        match bond {
            Bond::Watch => self.due(subject, Due::default()),
            Bond::Child => self.look(subject),
        }
    }

    /// Whether something is due for an agent.
    pub(crate) fn awaits(&self, subject: &str) -> bool {
        self.queue.lock().awaits(subject)
    }

    /// All that has ended is looked at again: ends may have been missed.
    pub(crate) fn sweep(&self) {
        self.sweep.store(true, Ordering::Release);
        self.work.notify_one();
    }

    /// Other nodes say what they change from now on, or do not any more.
    pub(crate) fn told(&self, told: bool) {
        self.told.store(told, Ordering::Release);
        self.sweep();
    }

    /// Whether somebody is to be told of an end, or may be.
    pub(crate) fn is_busy(&self) -> bool {
        !self.queue.lock().is_empty()
    }

    fn due(&self, subject: &str, due: Due) {
        self.queue.lock().push(subject, due);
        self.work.notify_one();
    }
}
