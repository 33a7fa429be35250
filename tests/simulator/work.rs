//! What agents, tools and task functions of a simulated world do.

use std::{sync::Arc, time::Duration};

use greenroom::model::{
    id::{Target, TaskId},
    task::{Advice, ClaimId, Claimed, NewTask},
};
use serde_json::value::RawValue;

use crate::world::Pid;

/// The kind of all agents.
pub const KIND: &str = "tally";
/// Their keys: each in another partition.
pub const KEYS: [&str; 4] = ["a", "b", "c", "d"];
/// The queue of the tool whose effect happens once.
pub const TOOL: &str = "tool:pay";
/// The queue of the task functions.
pub const FLOW: &str = "tool:flow";
/// How many attempts of a task may fail.
pub const MAX_ATTEMPTS: u32 = 3;
/// How often a task may be lost while it runs alone.
pub const MAX_LOST: u32 = 3;
/// What the task that tells of the end of a batch is called; its effect stands behind it.
const JOINED: &str = "Joined ";

/// How the handling of a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Well.
    Plain,
    /// Well, and it submits a task with this effect.
    Submits(u32),
    /// Well, and it submits a batch: so many tasks with the effects from this one on, and the effect after
    /// them is that of the task that hears of their end.
    FansOut(u32, u32),
    /// By an error, so often.
    Errs(u32),
    /// By an error, so often, that says when the next attempt is.
    Later(u32),
    /// By an error that says that there is no other attempt.
    Never,
    /// By a panic, so often.
    Panics(u32),
    /// It kills the process.
    Poison,
}

impl Script {
    /// The code and the advice of the error by which this attempt ends; `None`: it ends well.
    pub fn error(self, attempt: u32) -> Option<(&'static str, Option<Advice>)> {
        match self {
            Self::Errs(n) if attempt <= n => Some(("handler_failed", None)),
            Self::Later(n) if attempt <= n => {
                Some(("handler_failed", Some(Advice::After(Duration::from_millis(1_500)))))
            }
            Self::Never => Some(("handler_failed", Some(Advice::Never))),
            Self::Panics(n) if attempt <= n => Some(("handler_crashed", None)),
            _ => None,
        }
    }

    /// Whether its task may end as a dead letter after so many attempts that failed.
    pub fn fails_after(self, failures: u32) -> bool {
        match self {
            Self::Errs(n) | Self::Later(n) | Self::Panics(n) => n >= MAX_ATTEMPTS && failures == MAX_ATTEMPTS,
            Self::Never => failures == 1,
            Self::Plain | Self::Submits(_) | Self::FansOut(..) | Self::Poison => false,
        }
    }
}

/// Who hears of it.
#[derive(Debug, Clone)]
pub enum Via {
    /// A client that waits.
    Ask,
    /// A client that asks under an idempotency key, again and again until it has heard.
    Keyed,
    /// A task function, in this run, under this key.
    Call(Pid, ClaimId, Arc<str>),
    /// A task, under this claim.
    Task(Arc<Claimed>),
}

/// A message for an agent. Its effect is a number in the agent's state.
#[derive(Debug, Clone)]
pub struct Work {
    pub key: &'static str,
    pub effect: u32,
    pub script: Script,
    pub via: Via,
}

impl Work {
    pub fn claim(&self) -> Option<&Arc<Claimed>> {
        match &self.via {
            Via::Ask | Via::Keyed | Via::Call(..) => None,
            Via::Task(claim) => Some(claim),
        }
    }

    /// The idempotency key under which it is asked.
    pub fn asked_under(&self) -> Option<String> {
        match &self.via {
            Via::Ask | Via::Task(_) => None,
            Via::Keyed => Some(self.effect.to_string()),
            Via::Call(_, _, key) => Some(key.to_string()),
        }
    }

    /// Which handling of it this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.claim().map_or(1, |claim| claim.attempt.saturating_sub(claim.lost))
    }
}

/// The task with an effect.
pub fn task(id: TaskId, target: Target, effect: u32) -> NewTask {
    NewTask { id, ..NewTask::new(target, "Add", input(effect), MAX_ATTEMPTS) }
}

/// The input of a task with an effect.
pub fn input(effect: u32) -> Box<RawValue> {
    RawValue::from_string(effect.to_string()).expect("a number is JSON")
}

/// What the task is called by which an agent hears of the end of a batch.
pub fn joined(effect: u32) -> String {
    format!("{JOINED}{effect}")
}

/// The effect of a task.
pub fn effect_of(message: &str, input: &RawValue) -> u32 {
    let text = message.strip_prefix(JOINED).unwrap_or(input.get());
    text.parse().expect("its effect stands in its name or its input")
}

/// The target of a queue's tasks, where that is a tool.
pub fn tool(queue: &str) -> Target {
    Target::Tool(queue.trim_start_matches("tool:").to_owned())
}

/// One of [`KEYS`].
pub fn key_of(target: &Target) -> Option<&'static str> {
    let Target::Agent { key, .. } = target else { return None };
    KEYS.into_iter().find(|known| *known == key.as_str())
}

/// A step of a task function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reads what is another each time.
    Reads,
    /// Calls a tool that knows a repetition by its key, with this effect.
    Calls(u32),
    /// Calls a tool whose effect happens once.
    Pays(u32),
    /// Asks an agent for this effect.
    Asks(&'static str, u32),
    /// Submits a task with this effect.
    Submits(u32),
    /// Waits for a signal of this name, perhaps not for ever.
    Waits(&'static str, Option<Duration>),
    /// The same, and it fails where none comes in time.
    Needs(&'static str, Duration),
    /// It kills the process while its task was lost less often than this.
    Kills(u32),
}

/// The names of signals.
pub const SIGNALS: [&str; 2] = ["approved", "paid"];

impl Step {
    /// The target and the input of the call that it is; `None`: it is none.
    pub fn asks(self) -> Option<(String, String)> {
        Some(match self {
            Self::Reads => ("tool:clock".to_owned(), String::new()),
            Self::Calls(effect) => ("tool:call".to_owned(), effect.to_string()),
            Self::Pays(effect) => (TOOL.to_owned(), effect.to_string()),
            Self::Asks(key, effect) => (format!("{KIND}/{key} Add"), effect.to_string()),
            Self::Submits(effect) => ("submit".to_owned(), effect.to_string()),
            Self::Waits(name, _) | Self::Needs(name, _) => (format!("wait {name}"), String::new()),
            Self::Kills(_) => return None,
        })
    }

    /// The name of the signal that it waits for.
    pub fn waits_for(self) -> Option<&'static str> {
        match self {
            Self::Waits(name, _) | Self::Needs(name, _) => Some(name),
            _ => None,
        }
    }

    /// What must have happened when it is done.
    pub fn effect(self) -> Option<u32> {
        match self {
            Self::Calls(effect) | Self::Pays(effect) | Self::Asks(_, effect) => Some(effect),
            Self::Reads | Self::Submits(_) | Self::Waits(..) | Self::Needs(..) | Self::Kills(_) => None,
        }
    }
}

/// What a task function does.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// So many attempts end by an error …
    pub errs: u32,
    /// … in place of this step.
    pub at: usize,
}
