//! What task functions write: their journals, waits and signals, and what they say of themselves.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::state::{State, exact};
use crate::{
    model::{
        id::TaskId,
        journal::{
            Answer, CallId, Entry, Journal, JournalWrite, LogLine, MAX_SIGNALS, Signal, TaskNotes, Wait,
        },
        task::{TaskInput, TaskState, next},
    },
    store::{Refusal, SignalFound},
};

/// All that a task wrote.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    entries: BTreeMap<CallId, Entry>,
    /// Each with whether it is open.
    waits: Vec<(Wait, bool)>,
    signals: Vec<Signal>,
    progress: Option<Box<RawValue>>,
    logs: Vec<LogLine>,
}

impl Written {
    /// How many signals have answered no wait.
    fn untaken(&self) -> usize {
        let takes = |entry: &Entry| match entry.answer {
            Some(Answer::Signal { id, .. }) => Some(id),
            _ => None,
        };
        let taken: HashSet<Uuid> = self.entries.values().filter_map(takes).collect();
        self.signals.iter().filter(|signal| !taken.contains(&signal.id)).count()
    }

    /// What it waited for is over.
    fn close_waits(&mut self) {
        self.waits.iter_mut().for_each(|(_, open)| *open = false);
    }
}

impl State {
    fn written(&mut self, task: TaskId) -> Option<&mut Written> {
        if !self.written.has(&task) {
            self.written.insert(task, Written::default());
        }
        self.written.get_mut(&task)
    }

    /// Records what a task function has come to, under the guard of its claim.
    pub(super) fn record(&mut self, boot: Uuid, write: &JournalWrite) -> Result<(), Refusal> {
        let claimed =
            self.hot.get(&write.task).is_some_and(|task| task.is_claimed(boot) && task.claim == write.claim);
        if !claimed {
            return Err(Refusal::ClaimLost(write.task));
        }
        let Some(written) = self.written(write.task) else { return Ok(()) };
        for entry in &write.entries {
            let known = written.entries.entry(entry.call).or_insert_with(|| entry.clone());
            if known.answer.is_none() {
                known.answer.clone_from(&entry.answer);
            }
        }
        let begun = |entry: &&mut Entry| entry.answer.is_none();
        for call in &write.undone {
            if written.entries.get_mut(call).filter(begun).is_some() {
                written.entries.remove(call);
            }
        }
        if write.waits.is_empty() { Ok(()) } else { self.wait(write) }
    }

    /// The attempt ends, and is given back: the task waits, or is ready where a signal has come meanwhile.
    fn wait(&mut self, write: &JournalWrite) -> Result<(), Refusal> {
        let id = write.task;
        let Some(written) = self.written(id) else { return Ok(()) };
        let sent = |name: &str| written.signals.iter().filter(|signal| signal.name == name).count();
        let come = write.waits.iter().any(|wait| sent(&wait.name) > wait.seen as usize);
        written.close_waits();
        for wait in &write.waits {
            let same =
                |(known, _): &(Wait, bool)| (&known.name, known.occurrence) == (&wait.name, wait.occurrence);
            written.waits.retain(|known| !same(known));
            let until = wait.until.map(exact);
            written.waits.push((Wait { until, seen: 0, ..wait.clone() }, true));
        }
        let Some(task) = self.hot.get_mut(&id) else { return Ok(()) };
        let (attempt, started_at, node) = (task.attempt, task.started_at, task.node);
        task.state = step(task.state, TaskInput::WaitFor)?;
        task.attempt -= 1;
        task.new.expires_at = None;
        task.let_go();
        if come {
            self.wake(id, TaskInput::Signalled)?;
        }
        let mut names: Vec<&str> = write.waits.iter().map(|wait| &*wait.name).collect();
        names.sort_unstable();
        names.dedup();
        self.began(id, started_at, attempt, node);
        self.event(id, "waiting", attempt, None, Some(&format!("for {}", names.join(", "))));
        Ok(())
    }

    /// A task that waits goes on.
    fn wake(&mut self, id: TaskId, why: TaskInput) -> Result<(), Refusal> {
        let (seq, now) = (self.next_seq(), self.now);
        if let Some(task) = self.hot.get_mut(&id) {
            task.state = step(task.state, why)?;
            (task.seq, task.new.run_at) = (seq, Some(now));
        }
        if let Some(written) = self.written.get_mut(&id) {
            written.close_waits();
        }
        Ok(())
    }

    /// Keeps a signal, and wakes the task that waits for it.
    pub(super) fn signal(&mut self, id: TaskId, signal: &Signal) -> Result<Option<SignalFound>, Refusal> {
        let Some((state, attempt)) = self.hot.get(&id).map(|task| (task.state, task.attempt)) else {
            return Ok(self.archive.get(&id).map(|task| SignalFound::Final(task.state)));
        };
        let Some(written) = self.written(id) else { return Ok(None) };
        if written.signals.iter().any(|known| known.id == signal.id) {
            return Ok(Some(SignalFound::Kept(state)));
        }
        if written.untaken() >= MAX_SIGNALS {
            return Ok(Some(SignalFound::TooMany));
        }
        written.signals.push(signal.clone());
        let wanted = written.waits.iter().any(|(wait, open)| *open && wait.name == signal.name);
        self.event(id, "signalled", attempt, None, Some(&signal.name));
        if state == TaskState::Waiting && wanted {
            self.wake(id, TaskInput::Signalled)?;
        }
        Ok(Some(SignalFound::Kept(state)))
    }

    /// Keeps the signal that a batch has ended for the function that submitted it, also where that has ended.
    pub(super) fn keep_joined(&mut self, id: TaskId, signal: &Signal) -> Result<(), Refusal> {
        let state = self.hot.get(&id).map(|task| task.state);
        if state.is_none() && self.archive.get(&id).is_none() {
            return Ok(());
        }
        let Some(written) = self.written(id) else { return Ok(()) };
        if written.signals.iter().all(|known| known.id != signal.id) {
            written.signals.push(signal.clone());
        }
        let wanted = written.waits.iter().any(|(wait, open)| *open && wait.name == signal.name);
        if state == Some(TaskState::Waiting) && wanted { self.wake(id, TaskInput::Signalled) } else { Ok(()) }
    }

    /// Lets tasks go on whose wait has ended without a signal; says how many.
    pub(super) fn end_waits(&mut self) -> Result<u64, Refusal> {
        let now = self.now;
        let over = |(wait, open): &(Wait, bool)| *open && wait.until.is_some_and(|until| until <= now);
        let mut woken = 0;
        for id in self.written.some(usize::MAX, |written| written.waits.iter().any(over)) {
            if self.hot.get(&id).is_some_and(|task| task.state == TaskState::Waiting) {
                self.wake(id, TaskInput::WaitEnded)?;
                woken += 1;
            }
        }
        Ok(woken)
    }

    /// When the next wait of a task ends without a signal.
    pub(super) fn next_wait_end(&self) -> Option<Timestamp> {
        let waits = |id: &TaskId| self.hot.get(id).is_some_and(|task| task.state == TaskState::Waiting);
        let waiting = self.written.iter().filter(|(id, _)| waits(id));
        let ends = |(wait, open): &(Wait, bool)| wait.until.filter(|_| *open);
        waiting.flat_map(|(_, written)| written.waits.iter().filter_map(ends)).min()
    }

    /// Forgets what a task had begun: a person has said that it may be done again.
    pub(super) fn forget_begun(&mut self, id: TaskId) {
        if let Some(written) = self.written.get_mut(&id) {
            written.entries.retain(|_, entry| entry.answer.is_some());
        }
    }

    /// All that is recorded of a task.
    pub(super) fn journal(&self, id: TaskId) -> Journal {
        let written = self.written.get(&id).cloned().unwrap_or_default();
        Journal {
            entries: written.entries.into_values().collect(),
            waits: written.waits.into_iter().map(|(wait, _)| wait).collect(),
            signals: written.signals,
        }
    }

    /// What a task that waits is waiting for.
    pub(super) fn waits(&self, id: TaskId) -> Vec<Wait> {
        let waits = self.written.get(&id).map(|written| &*written.waits).unwrap_or_default();
        waits.iter().filter(|(_, open)| *open).map(|(wait, _)| wait.clone()).collect()
    }

    /// Writes down what a task says of itself.
    pub(super) fn note(&mut self, note: &TaskNotes) {
        if let Some(written) = self.written(note.task) {
            written.progress = note.progress.clone().or(written.progress.take());
            written.logs.extend(note.logs.iter().cloned());
        }
    }

    /// How far a task last said it is.
    pub(super) fn progress(&self, id: TaskId) -> Option<Box<RawValue>> {
        self.written.get(&id)?.progress.clone()
    }

    /// The lines that a task wrote, after a number.
    pub(super) fn task_logs(&self, id: TaskId, after: i64, limit: usize) -> Vec<(i64, LogLine)> {
        let lines = self.written.get(&id).map(|written| &*written.logs).unwrap_or_default();
        (1..).zip(lines).filter(|(n, _)| *n > after).take(limit).map(|(n, line)| (n, line.clone())).collect()
    }
}

fn step(from: TaskState, input: TaskInput) -> Result<TaskState, Refusal> {
    next(from, input).map_err(|e| Refusal::Bad(e.to_string()))
}
