//! Events, the only form in which the runtime reports: what happened, to which subject, with which fields, and a
//! hint at what a person can do.
//!
//! ```
//! use greenroom::model::event::{self, Event, Level};
//!
//! let event = Event::new(Level::Warn, event::MAILBOX_BACKLOG, "tally/a")
//!     .field("depth", 900)
//!     .hint("greenroom agents show tally/a");
//! assert_eq!(event.fields["depth"], 900);
//! ```

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most bytes that the causes of an error take in an event: there may be many, and long ones.
const MOST_CAUSES: usize = 4 << 10;

/// How much an event matters.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Level {
    /// For those who look for a fault.
    Debug = 0,
    /// The normal story.
    Info = 1,
    /// Something heals by itself, or soon will not.
    Warn = 2,
    /// Something failed.
    Error = 3,
    /// The process, or what it promises, is in danger.
    Critical = 4,
}

impl Level {
    /// Every level, least first.
    pub const ALL: [Level; 5] = [Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Critical];

    /// The name on every surface: `debug`, `info`, `warn`, `error`, `critical`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }

    /// The four letters of a console line.
    pub fn short(self) -> &'static str {
        match self {
            Self::Debug => "DEBG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERRO",
            Self::Critical => "CRIT",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A level that nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a level: use debug, info, warn, error or critical")]
pub struct UnknownLevel(pub String);

impl FromStr for Level {
    type Err = UnknownLevel;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(s.trim()));
        found.ok_or_else(|| UnknownLevel(s.to_owned()))
    }
}

/// What happened, to whom, with which facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// Which event: one of the constants of this module.
    #[serde(rename = "event")]
    pub name: Cow<'static, str>,
    /// Whom it is about: `kind/key`, `tool:NAME`, `task:ID`, `node:NAME`.
    pub subject: String,
    /// The facts, by name.
    #[serde(default)]
    pub fields: Map<String, Value>,
    /// What a person might do next: a command, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Event {
    /// An event that happens now. (The one place of the model that reads the clock: an event is
    /// made where it happens. [`Event::at`] takes the time from outside.)
    pub fn new(level: Level, name: &'static str, subject: impl Into<String>) -> Self {
        Self::at(Timestamp::now(), level, name, subject)
    }

    /// An event that happened at `at`.
    pub fn at(at: Timestamp, level: Level, name: &'static str, subject: impl Into<String>) -> Self {
        Self { at, level, name: Cow::Borrowed(name), subject: subject.into(), fields: Map::new(), hint: None }
    }

    /// Adds a fact.
    #[must_use]
    pub fn field(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(key.to_owned(), value.into());
        self
    }

    /// Adds the causes of an error, from the nearest to the last, where it has any: `chain`, 4 KiB at most.
    #[must_use]
    pub fn caused_by<'c>(self, causes: impl IntoIterator<Item = &'c str>) -> Self {
        let mut text = String::new();
        for cause in causes {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(cause);
            if text.len() > MOST_CAUSES {
                text.truncate(text.floor_char_boundary(MOST_CAUSES));
                text.push('…');
                break;
            }
        }
        if text.is_empty() { self } else { self.field("chain", text) }
    }

    /// Adds a fact if there is one.
    #[must_use]
    pub fn field_opt(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.field(key, value),
            None => self,
        }
    }

    /// Says what a person might do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)*) => {
        $($(#[$doc])* pub const $constant: &str = $name;)*
        /// Every event name of the contract.
        pub const NAMES: &[&str] = &[$($name),*];
    };
}

names! {
    /// The node has joined and takes work.
    NODE_STARTED = "node.started";
    /// The node drains.
    NODE_STOPPING = "node.stopping";
    /// An operator has drained the node: it begins no tasks.
    NODE_DRAINING = "node.draining";
    /// The node has ended in order.
    NODE_STOPPED = "node.stopped";
    /// A node came: another one, or this one again.
    NODE_JOINED = "node.joined";
    /// Another node went.
    NODE_LEFT = "node.left";
    /// The node lost what it owned.
    NODE_FENCED = "node.fenced";
    /// The node starts no turn: its lease is in doubt.
    NODE_SUSPENDED = "node.suspended";
    /// The lease is held again, or an operator has ended a drain.
    NODE_RESUMED = "node.resumed";
    /// An agent has been activated.
    AGENT_STARTED = "agent.started";
    /// An agent has been stopped, by an operator or past its intensity.
    AGENT_STOPPED = "agent.stopped";
    /// A turn did not end although it was asked to, and was undone.
    AGENT_TURN_CUT = "agent.turn_cut";
    /// An idle agent has been put away.
    AGENT_PASSIVATED = "agent.passivated";
    /// A person has written an agent's state.
    AGENT_EDITED = "agent.edited";
    /// A person has deleted an agent.
    AGENT_DELETED = "agent.deleted";
    /// An agent's turn holds its thread.
    AGENT_STUCK = "agent.stuck";
    /// Its thread is free again.
    AGENT_UNSTUCK = "agent.unstuck";
    /// An agent's turn ended in a panic or past its deadline.
    AGENT_CRASHED = "agent.crashed";
    /// Supervision will restart it.
    RESTART_PLANNED = "restart.planned";
    /// It has crashed too often; supervision gave up.
    RESTART_EXCEEDED = "restart.exceeded";
    /// State came back from the store.
    STATE_RESTORED = "state.restored";
    /// State could not be read and is kept aside.
    STATE_QUARANTINED = "state.quarantined";
    /// A dry run over a sample of the states at the start found some that cannot be read.
    STATE_UNREADABLE = "state.unreadable";
    /// A dry run over a sample of the states at the start has ended.
    STATE_TRIED = "state.tried";
    /// A mailbox fills up.
    MAILBOX_BACKLOG = "mailbox.backlog";
    /// A mailbox has room again.
    MAILBOX_CLEARED = "mailbox.cleared";
    /// A message could not be delivered.
    MESSAGE_DEAD_LETTER = "message.dead_letter";
    /// A task is durable.
    TASK_ACCEPTED = "task.accepted";
    /// A task's attempt began.
    TASK_STARTED = "task.started";
    /// A task ended well.
    TASK_SUCCEEDED = "task.succeeded";
    /// A task is a dead letter.
    TASK_FAILED = "task.failed";
    /// A task will be attempted again.
    TASK_RETRY = "task.retry";
    /// A task was cancelled.
    TASK_CANCELLED = "task.cancelled";
    /// A task waits for a signal.
    TASK_WAITING = "task.waiting";
    /// A task's target may not run.
    TASK_PARKED = "task.parked";
    /// It had not ended when its node went down, and begins again.
    TASK_BROKEN_OFF = "task.broken_off";
    /// A `once` effect was interrupted.
    TASK_OUTCOME_UNKNOWN = "task.outcome_unknown";
    /// A schedule's nominal time got its task.
    SCHEDULE_FIRED = "schedule.fired";
    /// A schedule's nominal time passed without a task: the last one has not ended.
    SCHEDULE_SKIPPED = "schedule.skipped";
    /// Nominal times of a schedule passed while nobody could fire them.
    SCHEDULE_MISSED = "schedule.missed";
    /// A request could not be answered as it should.
    HTTP_FAILED = "http.failed";
    /// A request was refused that showed a token, or was beyond what its sender may do.
    HTTP_REFUSED = "http.refused";
    /// The certificate has been read again, or could not be.
    TLS_RELOADED = "tls.reloaded";
    /// An operator did something; it is in the audit log.
    OPERATOR_ACTED = "operator.acted";
    /// A schedule was added, changed, paused or resumed.
    SCHEDULE_CHANGED = "schedule.changed";
    /// A schedule was removed.
    SCHEDULE_REMOVED = "schedule.removed";
    /// A schedule cannot be understood.
    SCHEDULE_FAILED = "schedule.failed";
    /// The store does not answer.
    STORE_DOWN = "store.down";
    /// The store answers again.
    STORE_UP = "store.up";
    /// The shared cache does not answer; the store does its work.
    CACHE_DEGRADED = "cache.degraded";
    /// The shared cache answers again.
    CACHE_RECOVERED = "cache.recovered";
    /// Settings have changed.
    CONFIG_CHANGED = "config.changed";
    /// A change of settings was not taken.
    CONFIG_REFUSED = "config.refused";
    /// Repeated or surplus log records were counted instead of written.
    LOG_SUPPRESSED = "log.suppressed";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_in_their_order_and_within_bounds() {
        let of = |causes: &[&str]| {
            Event::new(Level::Info, TASK_FAILED, "task:x").caused_by(causes.iter().copied()).fields
        };
        assert!(of(&[]).is_empty());
        assert_eq!(of(&["no answer", "refused"])["chain"], "no answer: refused");
        let long = "ä".repeat(MOST_CAUSES);
        let told = of(&[&long, &long])["chain"].as_str().unwrap().len();
        assert!((MOST_CAUSES - 1..=MOST_CAUSES + '…'.len_utf8()).contains(&told), "{told}");
    }

    #[test]
    fn levels_are_ordered_and_named_as_the_contract_says() {
        assert!(Level::Debug < Level::Info && Level::Error < Level::Critical);
        for level in Level::ALL {
            assert_eq!(level.name().parse::<Level>(), Ok(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.name());
            assert_eq!(level.short().len(), 4);
        }
        assert!("loud".parse::<Level>().unwrap_err().to_string().contains("use debug"));
    }

    #[test]
    fn names_are_unique_and_dotted() {
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
        assert!(NAMES.iter().all(|n| n.split('.').count() == 2));
    }

    #[test]
    fn an_event_survives_json() {
        let event = Event::new(Level::Error, AGENT_CRASHED, "counter/a").field("crash_id", "x").hint("look");
        let text = serde_json::to_string(&event).unwrap();
        assert!(text.contains("\"event\":\"agent.crashed\""), "{text}");
        let back: Event = serde_json::from_str(&text).unwrap();
        assert_eq!((back.name, back.fields, back.hint), (event.name, event.fields, event.hint));
    }
}
