//! Tasks that are counted together, and who hears of their end.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Notify;
use crate::model::{
    id::TaskId,
    journal::{Signal, joined},
};

/// The most tasks of one batch that leave a turn or a task function together.
pub const MAX_BATCH: usize = 100_000;

/// A batch to be accepted.
#[derive(Debug, Clone)]
pub struct NewBatch {
    /// Its identity.
    pub id: TaskId,
    /// How many tasks it counts.
    pub size: u64,
    /// Who hears, once, that the last of them has ended.
    pub notify: Option<BatchNotify>,
}

/// Who hears of the end of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BatchNotify {
    /// An agent, which receives a `Joined<M>` as a task.
    Agent(Notify),
    /// The task function that submitted it, which gets a [signal](batch_signal): also where it has ended
    /// meanwhile, since it may be brought back.
    Function {
        /// Which.
        task: TaskId,
    },
}

impl From<Notify> for BatchNotify {
    fn from(notify: Notify) -> Self {
        Self::Agent(notify)
    }
}

/// What is told of a batch that has ended, as JSON.
pub fn batch_ended(
    batch: TaskId,
    succeeded: impl std::fmt::Display,
    failed: impl std::fmt::Display,
) -> serde_json::Result<Box<RawValue>> {
    RawValue::from_string(format!(r#"{{"batch":"{batch}","succeeded":{succeeded},"failed":{failed}}}"#))
}

/// The signal that a batch has ended.
pub fn batch_signal(batch: TaskId, body: Box<RawValue>) -> Signal {
    Signal { id: batch.0, name: joined(batch), body }
}
