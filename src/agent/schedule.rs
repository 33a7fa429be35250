//! Schedules that a program declares: the target of their tasks, and options.

use std::{fmt, marker::PhantomData, time::Duration};

use super::{message::Message, messages::Accepts};
use crate::model::{
    id,
    schedule::{Misfire, Overlap},
};

/// The target of a schedule's tasks: an agent that handles `M`, which is checked at compile time, or a tool whose
/// input is `M`, which is checked when the node starts.
pub struct Target<M> {
    pub(crate) to: id::Target,
    _message: PhantomData<fn(M)>,
}

impl<M: Message> Target<M> {
    /// The agent of that key: `Target::agent::<Tally, _>("a")`.
    pub fn agent<A: Accepts<M, I>, I>(key: &str) -> Self {
        Self { to: id::Target::agent(A::KIND, key), _message: PhantomData }
    }

    /// The tool of that name.
    pub fn tool(name: &str) -> Self {
        Self { to: id::Target::Tool(name.to_owned()), _message: PhantomData }
    }
}

/// `kind/key`, or `tool:NAME`.
impl<M> fmt::Debug for Target<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to, f)
    }
}

/// Options of a schedule and its tasks: `ScheduleOptions::default().overlap(Overlap::QueueOne)`.
#[derive(Debug, Clone, Default)]
#[must_use = "it is given to `Builder::schedule_with`"]
pub struct ScheduleOptions {
    pub(crate) overlap: Overlap,
    pub(crate) misfire: Misfire,
    pub(crate) priority: i16,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) tags: Vec<String>,
}

impl ScheduleOptions {
    /// What happens if the previous task has not ended; [`Overlap::Skip`] by default.
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// What happens about missed times; [`Misfire::Once`] by default.
    pub fn misfire(mut self, misfire: Misfire) -> Self {
        self.misfire = misfire;
        self
    }

    /// Higher runs first; 0, the default: the target's own setting.
    pub fn priority(mut self, priority: i16) -> Self {
        self.priority = priority;
        self
    }

    /// How many attempts a task has; the target's own setting by default. 0 is taken as 1.
    pub fn max_attempts(mut self, n: u32) -> Self {
        self.max_attempts = Some(n.max(1));
        self
    }

    /// How long one attempt may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Adds a label to its tasks.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }
}
