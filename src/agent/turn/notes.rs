//! What a turn says of the task that it is an attempt of.

use std::sync::Arc;

use serde::Serialize;

use super::Turn;
use crate::{
    agent::{Agent, host::Host},
    clock,
    model::{event::Level, id::TaskId},
    tool::notes::Notes,
};

/// The voice of a turn: it is heard until this is dropped.
pub(super) struct Voice {
    host: Arc<dyn Host>,
    task: TaskId,
    notes: Arc<Notes>,
}

impl Voice {
    fn new(host: &Arc<dyn Host>, task: TaskId) -> Self {
        let notes = Arc::default();
        host.speaks(task, &notes);
        Self { host: host.clone(), task, notes }
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.host.fell_silent(self.task, &self.notes);
    }
}

/// What [`Call`](crate::Call) offers to tools. A turn that is no attempt of a task has nobody to tell: there, and in
/// hooks, these do nothing. None of it waits for the commit, is part of it or is taken back with it: a turn that
/// fails has said it all the same, and one that runs again says it again.
impl<A: Agent> Turn<A> {
    /// Reports progress of the task: a fraction from 0 to 1, and a text (at most 1,000 characters are kept). The
    /// last report counts; it is stored about twice a second.
    pub fn progress(&self, fraction: f32, text: impl Into<String>) {
        if let Some(voice) = self.voice() {
            voice.notes.progress(fraction, text.into());
            self.host.noted();
        }
    }

    /// Publishes a partial result of the task; the last one counts.
    ///
    /// # Errors
    /// It cannot be serialised to JSON, or exceeds `limits.message_bytes`.
    pub fn partial(&self, part: &impl Serialize) -> anyhow::Result<()> {
        if let Some(voice) = self.voice() {
            voice.notes.partial(part, self.host.message_bytes())?;
            self.host.noted();
        }
        Ok(())
    }

    /// Writes a line to the task's own log (`tasks show`). The last 1,000 unwritten lines of a turn are kept, and
    /// 4,000 characters of each.
    pub fn log(&self, level: Level, text: impl Into<String>) {
        if let Some(voice) = self.voice() {
            voice.notes.log(clock::now(), level, text.into());
            self.host.noted();
        }
    }

    fn voice(&self) -> Option<&Voice> {
        let task = self.task()?;
        Some(self.aside().voice.get_or_init(|| Voice::new(&self.host, task)))
    }

    /// For the cell: the turn has ended.
    pub(crate) fn fall_silent(&mut self) {
        if let Some(aside) = self.aside.get_mut() {
            drop(aside.voice.take());
        }
    }
}
