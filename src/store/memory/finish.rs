//! The end of a task or of one attempt, and what follows from it: the archive, its batch, the tasks that
//! wait for it.

use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    state::{Batch, State, exact},
    task::Task,
};
use crate::{
    model::{
        id::TaskId,
        task::{BatchNotify, OnParentFailed, TaskInput, TaskState, batch_ended, batch_signal, next},
    },
    store::{
        Doom, Finish, FinishOutcome, Guard, Refusal,
        finish::{input_of, joined_task},
    },
};

/// A transition that the machine does not know is the unit's fault.
fn bad(why: impl std::fmt::Display) -> Refusal {
    Refusal::Bad(why.to_string())
}

impl State {
    /// Ends a task or an attempt, under its guard.
    pub(super) fn finish(&mut self, boot: Uuid, finish: &Finish) -> Result<(), Refusal> {
        let id = finish.task;
        let met = |task: &Task| match finish.guard {
            Guard::Running { attempt } => task.is_claimed(boot) && task.attempt == attempt,
            Guard::Idle => task.state != TaskState::Running,
        };
        let Some(task) = self.hot.get_mut(&id).filter(|task| met(task)) else {
            return Err(Refusal::ClaimLost(id));
        };
        let (from, attempt, note) = (task.state, task.attempt, finish.note.as_deref());
        let (started_at, node) = (task.started_at, task.node);
        let to = next(from, input_of(&finish.outcome, finish.guard, from)).map_err(bad)?;
        task.state = to;
        let told = match &finish.outcome {
            FinishOutcome::Succeeded { result } => {
                let text = String::from_utf8(result.clone()).map_err(bad)?;
                task.result = Some(RawValue::from_string(text).map_err(bad)?);
                task.error = None;
                note
            }
            FinishOutcome::Failed { error } => {
                task.error = Some(error.clone());
                note
            }
            FinishOutcome::Cancelled => note,
            FinishOutcome::Retry { run_at, error } => {
                task.new.run_at = Some(exact(*run_at));
                task.error = Some(error.clone());
                task.let_go();
                note.or(Some(&error.message))
            }
            FinishOutcome::OutcomeUnknown { error } => {
                task.error = Some(error.clone());
                (task.node, task.alone, task.doom) = (None, false, None);
                note.or(Some(&error.message))
            }
            FinishOutcome::Parked => {
                if from == TaskState::Running {
                    task.attempt -= 1;
                    task.let_go();
                }
                note
            }
        };
        if to.is_final() {
            if told.is_some() {
                self.event(id, to.name(), attempt, Some(boot), told);
            }
            return self.archive(id);
        }
        let event = if to == TaskState::Scheduled { "retry" } else { to.name() };
        if from == TaskState::Running && to != TaskState::Parked {
            self.began(id, started_at, attempt, node);
        }
        self.event(id, event, attempt, Some(boot), told);
        Ok(())
    }

    /// Puts a task that has come to its end into the archive, and does what follows from that.
    fn archive(&mut self, id: TaskId) -> Result<(), Refusal> {
        let Some(mut task) = self.hot.remove(&id) else { return Ok(()) };
        task.finished_at = Some(self.now);
        if task.state == TaskState::Succeeded {
            task.new.input = RawValue::NULL.to_owned();
        }
        let children = std::mem::take(&mut task.children);
        let (batch, state, max_attempts) = (task.new.batch, task.state, task.new.max_attempts);
        self.archive.insert(id, task);
        if let Some(batch) = batch {
            self.count_in_batch(batch, state == TaskState::Succeeded, max_attempts)?;
        }
        children.into_iter().try_for_each(|child| self.parent_ended(child, state))
    }

    fn count_in_batch(&mut self, id: TaskId, succeeded: bool, max_attempts: u32) -> Result<(), Refusal> {
        let Some(batch) = self.batches.get_mut(&id).filter(|batch| batch.open > 0) else { return Ok(()) };
        batch.open -= 1;
        *(if succeeded { &mut batch.succeeded } else { &mut batch.failed }) += 1;
        let ended = batch.clone();
        if ended.open == 0 { self.joined(&ended, max_attempts) } else { Ok(()) }
    }

    /// Tells whoever waits for a whole batch.
    pub(super) fn joined(&mut self, batch: &Batch, max_attempts: u32) -> Result<(), Refusal> {
        let Some(notify) = &batch.new.notify else { return Ok(()) };
        let id = batch.new.id;
        let body = batch_ended(id, batch.succeeded, batch.failed).map_err(bad)?;
        match notify {
            BatchNotify::Agent(notify) => {
                self.insert(joined_task(notify, body, max_attempts), TaskState::Ready)
            }
            BatchNotify::Function { task } => self.keep_joined(*task, &batch_signal(id, body)),
        }
    }

    /// Tells a child that one of its parents has ended.
    fn parent_ended(&mut self, child: TaskId, ended: TaskState) -> Result<(), Refusal> {
        let Some(task) = self.hot.get_mut(&child).filter(|task| task.state == TaskState::Blocked) else {
            return Ok(());
        };
        task.waits_for = task.waits_for.saturating_sub(1);
        if task.doom.is_some() {
            return Ok(());
        }
        if ended != TaskState::Succeeded && task.new.on_parent_failed == OnParentFailed::Cancel {
            task.doom = Some(Doom::ParentFailed);
            return Ok(());
        }
        if task.waits_for == 0 { self.unblock(child) } else { Ok(()) }
    }

    /// The last parent of a blocked task is done.
    pub(super) fn unblock(&mut self, child: TaskId) -> Result<(), Refusal> {
        let now = self.now;
        let Some(task) = self.hot.get_mut(&child) else { return Ok(()) };
        let later = task.new.run_at.is_some_and(|at| at > now);
        task.state = next(task.state, TaskInput::ParentDone { open: 0, later }).map_err(bad)?;
        Ok(())
    }

    /// Whether this very finish has been committed before.
    pub(super) fn is_finished(&self, boot: Uuid, finish: &Finish) -> bool {
        let (to, wanted) = (finish.outcome.state(), finish.attempt_after());
        let table = if to.is_final() { &self.archive } else { &self.hot };
        table.get(&finish.task).is_some_and(|task| {
            let same =
                |attempt| i64::from(task.attempt) == attempt && (!to.is_final() || task.node == Some(boot));
            task.state == to && wanted.is_none_or(same)
        })
    }

    /// Ends a task that nobody is to be told of.
    pub(super) fn end_doomed(&mut self, id: TaskId, why: &str) -> Result<bool, Refusal> {
        let Some(task) = self.hot.get_mut(&id).filter(|task| task.state != TaskState::Running) else {
            return Ok(false);
        };
        task.state = next(task.state, TaskInput::Cancel).map_err(bad)?;
        let attempt = task.attempt;
        self.event(id, "cancelled", attempt, None, Some(why));
        self.archive(id)?;
        Ok(true)
    }
}
