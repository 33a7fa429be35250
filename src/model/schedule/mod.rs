//! Schedules: when a recurring task is due, and how missed times are treated.
//!
//! A **nominal** time is one that the specification names. Each is fired at most once: whoever fires moves
//! the schedule on to a later one in the same commit, guarded by the one that it fires, so nominal times
//! only ever grow, whatever the clocks do.
//!
//! ```
//! use greenroom::model::schedule::Spec;
//!
//! let spec: Spec = "0 3 * * * Europe/Berlin".parse()?;
//! let next = spec.next("2026-07-01T12:00:00Z".parse().unwrap());
//! assert_eq!(next, Some("2026-07-02T01:00:00Z".parse().unwrap()));
//! # Ok::<_, greenroom::model::schedule::SpecError>(())
//! ```

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    id::{NameError, Target, TaskId, check_key},
    task::{NewTask, OwnTerms, TaskState, TaskTerms},
};

mod decide;
mod spec;
pub use decide::{Firing, ON_TIME, decide};
pub use spec::{Spec, SpecError};

/// Longest name of a schedule, in bytes.
pub const MAX_SCHEDULE_NAME_BYTES: usize = 128;
/// The most schedules.
pub const MAX_SCHEDULES: usize = 1_000;
/// The most missed nominal times that are made up for.
pub const MAX_MADE_UP: usize = 100;

/// Whether `name` may name a schedule: 1 to 128 bytes, of what an agent's key may hold.
///
/// # Errors
/// The rule that it breaks.
pub fn check_schedule(name: &str) -> Result<(), NameError> {
    check_key(name)?;
    if name.len() > MAX_SCHEDULE_NAME_BYTES {
        let key = name.chars().take(64).collect();
        return Err(NameError::Key { key, why: "it is longer than the 128 bytes of a schedule's name" });
    }
    Ok(())
}

/// A name among a few, in text.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident: $what:literal { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// Its name on every surface.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(format!("`{text}` is no {}: write one of {}", $what, [$($text),*].join(", "))),
                }
            }
        }
    };
}

named! {
    /// What happens at a nominal time if the previous task has not ended.
    Overlap: "overlap policy" {
        /// They run side by side.
        Allow = "allow",
        /// The nominal time passes without a task.
        #[default]
        Skip = "skip",
        /// The task waits for the end of the previous one, however it ends; while one waits, later nominal
        /// times pass without a task.
        QueueOne = "queue_one",
    }
}

named! {
    /// What happens about nominal times that were missed: the nodes were down, or a
    /// clock was set forward.
    Misfire: "misfire policy" {
        /// One task for all of them: that of the last one.
        #[default]
        Once = "once",
        /// They are skipped; only one that is at most [`ON_TIME`] late is still fired.
        Skip = "skip",
        /// Each gets its task, the first of them first; of more than [`MAX_MADE_UP`] the last ones.
        All = "all",
    }
}

named! {
    /// Who declared a schedule.
    Origin: "origin" {
        /// The program declares it, and may change and remove it when it starts.
        Program = "program",
        /// A person added it: it stays until a person removes it.
        #[default]
        Operator = "operator",
    }
}

/// The definition of a schedule, by the program or by a person.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Its times: see [`Spec`].
    pub spec: String,
    /// The target of its tasks.
    pub target: Target,
    /// Their message's wire name; empty for a tool.
    pub message: String,
    /// Their input as JSON text.
    pub input: Box<RawValue>,
    /// Higher runs first.
    pub priority: i16,
    /// How many attempts a task has; the target's own setting when absent.
    pub max_attempts: Option<u32>,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// Free labels.
    pub tags: Vec<String>,
    /// What happens if the previous task has not ended.
    pub overlap: Overlap,
    /// What happens about missed times.
    pub misfire: Misfire,
}

impl PartialEq for Definition {
    fn eq(&self, other: &Self) -> bool {
        let plain = |d: &Self| (d.priority, d.max_attempts, d.timeout, d.overlap, d.misfire);
        self.spec == other.spec
            && self.target == other.target
            && self.message == other.message
            && self.input.get() == other.input.get()
            && self.tags == other.tags
            && plain(self) == plain(other)
    }
}

/// A stored schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// Its definition.
    pub definition: Definition,
    /// Who declared it.
    pub origin: Origin,
    /// Whether it is paused.
    pub paused: bool,
    /// The next nominal time; absent if there is none any more.
    pub next_at: Option<Timestamp>,
    /// The last nominal time that got a task.
    pub last_at: Option<Timestamp>,
    /// That task.
    pub last_task: Option<TaskId>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its definition was changed, or it was paused or resumed.
    pub updated_at: Timestamp,
    /// Drawn anew with each of these: a write names the revision that was read.
    pub revision: Uuid,
}

impl Schedule {
    /// A new one, first due after `now`.
    pub fn new(name: String, definition: Definition, spec: &Spec, origin: Origin, now: Timestamp) -> Self {
        Self {
            name,
            definition,
            origin,
            paused: false,
            next_at: spec.next(now),
            last_at: None,
            last_task: None,
            created_at: now,
            updated_at: now,
            revision: Uuid::now_v7(),
        }
    }

    /// The same with another definition. It is due anew where it comes at other times.
    #[must_use]
    pub fn redefined(&self, definition: Definition, spec: &Spec, origin: Origin, now: Timestamp) -> Self {
        let next_at =
            if definition.spec == self.definition.spec { self.next_at } else { self.after(spec, now) };
        Self { definition, origin, next_at, updated_at: now, revision: Uuid::now_v7(), ..self.clone() }
    }

    /// The same, paused or resumed. Times that passed while it was paused are not made up for.
    #[must_use]
    pub fn paused(&self, paused: bool, spec: &Spec, now: Timestamp) -> Self {
        let missed = self.next_at.is_none_or(|next| next <= now);
        let next_at = if missed && !paused { self.after(spec, now) } else { self.next_at };
        Self { paused, next_at, updated_at: now, revision: Uuid::now_v7(), ..self.clone() }
    }

    /// The first nominal time after now, and after the last that got a task: a clock that was set back does
    /// not bring one again.
    fn after(&self, spec: &Spec, now: Timestamp) -> Option<Timestamp> {
        spec.next(self.last_at.map_or(now, |last| last.max(now)))
    }

    /// A task of it for a nominal time.
    pub fn task(&self, nominal: Timestamp, terms: &TaskTerms) -> NewTask {
        let mut task = self.task_now(terms);
        task.idempotency_key = Some(key(&self.name, nominal));
        task
    }

    /// A task of it that belongs to no nominal time.
    pub fn task_now(&self, terms: &TaskTerms) -> NewTask {
        let d = &self.definition;
        let priority = (d.priority != 0).then_some(d.priority);
        let terms = terms.with(OwnTerms { priority, max_attempts: d.max_attempts, ..OwnTerms::default() });
        let mut task = NewTask::under(&terms, d.target.clone(), d.message.clone(), d.input.clone());
        task.timeout = d.timeout;
        task.tags.clone_from(&d.tags);
        task
    }
}

/// By which key a task is known to be of a nominal time of a schedule.
pub fn key(name: &str, nominal: Timestamp) -> String {
    format!("schedule:{name}:{nominal}")
}

/// That a schedule goes on, with the task that it fires in the same commit or without one.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleMove {
    /// Which.
    pub name: String,
    /// As it was read.
    pub revision: Uuid,
    /// The nominal time that was to come: what must still be so.
    pub from: Timestamp,
    /// The one that comes next.
    pub next_at: Option<Timestamp>,
    /// The nominal time that gets a task, and the task.
    pub fired: Option<(Timestamp, TaskId)>,
}

/// How far the task of the last nominal time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// There is none, or it has ended.
    Ended,
    /// It has not ended.
    Open(TaskId),
    /// It waits for the end of the one before it.
    Queued(TaskId),
}

impl Last {
    /// What a task's state, where it is known, means here.
    pub fn of(task: Option<(TaskId, TaskState)>) -> Self {
        match task {
            Some((id, TaskState::Blocked)) => Self::Queued(id),
            Some((id, state)) if !state.is_final() => Self::Open(id),
            _ => Self::Ended,
        }
    }
}
