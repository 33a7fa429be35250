//! How an agent of a kind is kept, restarted and bounded. What is not set follows the configuration.

use std::time::Duration;

pub use crate::model::supervision::Restart;
use crate::model::task::{Bounds, OwnTerms, Rate};

/// When an agent's state is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Persistence {
    /// With every turn, before it is acknowledged.
    #[default]
    EveryTurn,
    /// After so many turns or so much time, whichever is first; turns are acknowledged before, and
    /// a crash loses those since the last commit. Turns that submit or end tasks commit at once.
    Relaxed {
        /// Commit after so many turns.
        turns: u32,
        /// Commit after this time.
        every: Duration,
    },
    /// Never: a crash or a passivation starts from the default. A handler's error is not undone.
    Volatile,
}

/// What a full mailbox does to a typed `tell` or `ask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// The sender waits for room.
    #[default]
    Wait,
    /// The sender gets the message back.
    Reject,
}

/// An agent kind's policy, declared in [`Agent::policy`](crate::Agent::policy). The configuration's
/// `agents.KIND.*` goes before it, `agents.default.*` after it.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Policy {
    pub(crate) mailbox: Option<usize>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_live: Option<usize>,
    pub(crate) restarts: Option<(u32, Duration)>,
    pub(crate) backoff: Option<(Duration, Duration)>,
    pub(crate) persistence: Persistence,
    pub(crate) restart: Option<Restart>,
    pub(crate) turn_timeout: Option<Duration>,
    pub(crate) terms: OwnTerms,
    pub(crate) bounds: Bounds,
    pub(crate) on_full: OnFull,
    pub(crate) group: Option<&'static str>,
}

impl Policy {
    /// How many messages its mailbox holds.
    pub fn mailbox(mut self, n: usize) -> Self {
        self.mailbox = Some(n.max(1));
        self
    }

    /// Leaves memory when it has had nothing to do for so long.
    pub fn idle_timeout(mut self, d: Duration) -> Self {
        self.idle_timeout = Some(d);
        self
    }

    /// How many agents of the kind a node keeps in memory. With more, those leave that have been idle the
    /// longest, as they do past their time; their next message brings them back. A soft bound: who works or
    /// has a timer set stays, and no message waits for somebody else to leave. 0: any number.
    pub fn max_live(mut self, n: usize) -> Self {
        self.max_live = Some(n);
        self
    }

    /// Restart intensity: more than `n` crashes `within` this time stop the agent.
    pub fn max_restarts(mut self, n: u32, within: Duration) -> Self {
        self.restarts = Some((n, within));
        self
    }

    /// When its state is committed.
    pub fn persistence(mut self, p: Persistence) -> Self {
        self.persistence = p;
        self
    }

    /// Which ends are followed by a restart.
    pub fn restart(mut self, r: Restart) -> Self {
        self.restart = Some(r);
        self
    }

    /// The delay before a restart, doubling from `min` to `max` with each crash in a row.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = Some((min, max));
        self
    }

    /// The priority of a task for it, where the submitter does not say: higher goes first; 0 by default.
    pub fn priority(mut self, n: i16) -> Self {
        self.terms.priority = Some(n);
        self
    }

    /// How many attempts at a task for it may fail, where the submitter does not say; at least 1.
    pub fn max_attempts(mut self, n: u32) -> Self {
        self.terms.max_attempts = Some(n.max(1));
        self
    }

    /// How long a task waits after an attempt that failed: `min` after the first, doubling up to `max`, less
    /// up to a quarter by chance. An error may say otherwise: [`Retry`](crate::Retry).
    pub fn retry_backoff(mut self, min: Duration, max: Duration) -> Self {
        (self.terms.min, self.terms.max) = (Some(min), Some(max));
        self
    }

    /// How many tasks for agents of the kind may be under way at once on a node; the others wait in the store.
    /// It does not bound what is asked and told.
    pub fn concurrency(mut self, n: usize) -> Self {
        self.bounds.concurrency = Some(n.max(1));
        self
    }

    /// How many tasks for agents of the kind may begin `within` a time on a node; the others wait in the
    /// store. It does not bound what is asked and told.
    pub fn rate(mut self, n: u32, within: Duration) -> Self {
        self.bounds.rate = Some(Rate { n: n.max(1), within });
        self
    }

    /// How long one turn may take. It ends a turn that waits; a handler that spins cannot be ended.
    pub fn turn_timeout(mut self, d: Duration) -> Self {
        self.turn_timeout = Some(d);
        self
    }

    /// Supervised together with others: a group that [`Builder::group`](crate::Builder::group) or the
    /// configuration (`supervision.groups.NAME`) declares. Without one, each agent stands alone: past its
    /// restart intensity it is stopped, and nobody else is concerned.
    pub fn group(mut self, name: &'static str) -> Self {
        self.group = Some(name);
        self
    }

    /// What a full mailbox does to its senders.
    pub fn on_full(mut self, f: OnFull) -> Self {
        self.on_full = f;
        self
    }
}
