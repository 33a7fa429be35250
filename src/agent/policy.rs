//! The policy of an agent kind: persistence, restarts and limits. What is not set follows the configuration.

use std::time::Duration;

pub use crate::model::supervision::Restart;
use crate::model::task::{Bounds, OwnTerms, Rate};

/// When an agent's state is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Persistence {
    /// With every turn, before it is acknowledged.
    #[default]
    EveryTurn,
    /// After a number of turns or a time, whichever is first. Turns are acknowledged before that, and a crash
    /// loses those since the last commit. Turns that submit or end tasks commit at once.
    Relaxed {
        /// Commit after this many turns.
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

/// An agent kind's policy, declared in [`Agent::policy`](crate::Agent::policy).
///
/// Precedence, highest first: `agents.KIND.*` in the configuration, this policy, `agents.default.*`. One
/// exception: `agents.default.persistence`, where it is set, overrides [`Policy::persistence`].
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
    pub(crate) stop_timeout: Option<Duration>,
    pub(crate) terms: OwnTerms,
    pub(crate) bounds: Bounds,
    pub(crate) on_full: OnFull,
    pub(crate) group: Option<&'static str>,
}

impl Policy {
    /// How many messages its mailbox holds. 0 is taken as 1.
    pub fn mailbox(mut self, n: usize) -> Self {
        self.mailbox = Some(n.max(1));
        self
    }

    /// An agent that has been idle for this long is unloaded.
    pub fn idle_timeout(mut self, d: Duration) -> Self {
        self.idle_timeout = Some(d);
        self
    }

    /// How many agents of the kind a node keeps in memory; 0: any number. Beyond that, the ones that have been
    /// idle the longest are unloaded, as after `idle_timeout`; the next message loads them again. A soft
    /// bound: agents that work or have a timer set stay, and no message waits for another agent to leave.
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

    /// Which kinds of end are followed by a restart.
    pub fn restart(mut self, r: Restart) -> Self {
        self.restart = Some(r);
        self
    }

    /// The delay before a restart, doubling from `min` to `max` with each crash in a row.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = Some((min, max));
        self
    }

    /// The priority of tasks for it whose submitter sets none: higher runs first; 0 by default.
    pub fn priority(mut self, n: i16) -> Self {
        self.terms.priority = Some(n);
        self
    }

    /// How many attempts a task for it has, unless its submitter says otherwise. 0 is taken as 1.
    pub fn max_attempts(mut self, n: u32) -> Self {
        self.terms.max_attempts = Some(n.max(1));
        self
    }

    /// The delay before a failed task is retried: `min` after the first attempt, doubling up to `max`, reduced
    /// by a random part of up to a quarter. An error may override it: [`Retry`](crate::Retry).
    pub fn retry_backoff(mut self, min: Duration, max: Duration) -> Self {
        (self.terms.min, self.terms.max) = (Some(min), Some(max));
        self
    }

    /// How many tasks for agents of the kind may run at once on a node; the others wait in the store. Asks and
    /// tells are not bounded by it. 0 is taken as 1.
    pub fn concurrency(mut self, n: usize) -> Self {
        self.bounds.concurrency = Some(n.max(1));
        self
    }

    /// How many tasks for agents of the kind may begin `within` a time on a node; the others wait in the
    /// store. Asks and tells are not bounded by it. 0 is taken as 1.
    pub fn rate(mut self, n: u32, within: Duration) -> Self {
        self.bounds.rate = Some(Rate { n: n.max(1), within });
        self
    }

    /// How long one turn may take. A turn that waits is ended; a handler that spins cannot be interrupted.
    pub fn turn_timeout(mut self, d: Duration) -> Self {
        self.turn_timeout = Some(d);
        self
    }

    /// How long a turn may go on whose agent is stopped, restarted or quarantined, and how long `on_start` and `on_stop`
    /// may take once the agent is to leave; 5 s by default. Past that they are cut short, and a turn is undone. Zero
    /// cuts them at once. When a node ends, the 25 s that it has for all its agents are the longer bound.
    pub fn stop_timeout(mut self, d: Duration) -> Self {
        self.stop_timeout = Some(d);
        self
    }

    /// The group that it is supervised in, declared by [`Builder::group`](crate::Builder::group) or in the
    /// configuration (`supervision.groups.NAME`). Without one, each agent is supervised alone: past its
    /// restart intensity it is stopped, and no other agent is affected.
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
