//! What agents and tools of a simulated world do.

use std::sync::Arc;

use greenroom::model::{
    id::{Target, TaskId},
    task::{Claimed, NewTask},
};
use serde_json::value::RawValue;

/// The kind of all agents.
pub const KIND: &str = "tally";
/// Their keys: each in another partition.
pub const KEYS: [&str; 4] = ["a", "b", "c", "d"];
/// The tool whose effect happens once.
pub const TOOL: &str = "pay";
/// How many attempts of a task may fail.
pub const MAX_ATTEMPTS: u32 = 3;
/// How often a task may be lost while it runs alone.
pub const MAX_LOST: u32 = 3;

/// How the handling of a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Well.
    Plain,
    /// Well, and it submits a task with this effect.
    Submits(u32),
    /// By an error, so often.
    Errs(u32),
    /// By a panic, so often.
    Panics(u32),
    /// It kills the process.
    Poison,
}

/// Who hears of it.
#[derive(Debug, Clone)]
pub enum Via {
    /// A client that waits.
    Ask,
    /// A client that asks under an idempotency key, again and again until it has heard.
    Keyed,
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
            Via::Ask | Via::Keyed => None,
            Via::Task(claim) => Some(claim),
        }
    }

    /// Which handling of it this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.claim().map_or(1, |claim| claim.attempt.saturating_sub(claim.lost))
    }
}

/// The task with an effect.
pub fn task(id: TaskId, target: Target, effect: u32) -> NewTask {
    let input = RawValue::from_string(effect.to_string()).expect("a number is JSON");
    NewTask { id, ..NewTask::new(target, "Add", input, MAX_ATTEMPTS) }
}

/// The effect of a claimed task.
pub fn effect_of(claim: &Claimed) -> u32 {
    claim.input.get().parse().expect("its input is its effect")
}

/// One of [`KEYS`].
pub fn key_of(target: &Target) -> Option<&'static str> {
    let Target::Agent { key, .. } = target else { return None };
    KEYS.into_iter().find(|known| *known == key.as_str())
}
