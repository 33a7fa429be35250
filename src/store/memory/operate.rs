//! Operators' actions on agents and tasks.

use std::sync::Arc;

use super::{
    state::{Agent, State},
    task::Task,
};
use crate::{
    model::{
        id::{AgentId, Target, TaskId},
        task::{DeadTask, TaskInput, TaskState, next},
    },
    store::{
        AgentRow, CancelFound, StoreError, StoredStatus,
        told::{self, DISMISSED},
        values::{Micros, micros},
    },
};

impl State {
    /// Keeps a lasting status.
    pub(super) fn set_status(
        &mut self,
        id: AgentId,
        kind: &str,
        key: &str,
        epoch: i64,
        status: StoredStatus,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        if self.epoch_of(id.partition()) != Some(epoch) {
            return Err(StoreError::Refused("fenced: another node owns the agent".to_owned()));
        }
        let reason = reason.map(str::to_owned);
        if let Some(known) = self.agents.get_mut(&id) {
            if known.row.status != status {
                known.row.held_at = Some(self.now);
            }
            (known.row.status, known.row.reason) = (status, reason);
            return Ok(());
        }
        let row = AgentRow {
            id,
            kind: kind.to_owned(),
            key: key.to_owned(),
            status,
            reason,
            held_at: None,
            epoch,
            version: 0,
            schema_version: 0,
            bytes: Vec::new(),
            created_at: self.now,
            updated_at: self.now,
        };
        self.agents.insert(id, Agent { row, state: Arc::default() });
        Ok(())
    }

    /// Pauses a queue, or lets it go on; says whether that changed anything.
    pub(super) fn pause(&mut self, queue: &str, paused: bool) -> bool {
        let known = self.paused.has(&queue.to_owned());
        match (paused, known) {
            (true, false) => self.paused.insert(queue.to_owned(), self.now),
            (false, true) => drop(self.paused.remove(&queue.to_owned())),
            _ => {}
        }
        paused != known
    }

    /// Parks the ready and scheduled tasks of a target.
    pub(super) fn park(&mut self, target: &str) -> u64 {
        let waiting = [TaskState::Ready, TaskState::Scheduled];
        let waits = |t: &super::task::Task| waiting.contains(&t.state) && t.doom.is_none();
        let found = self.hot.some(usize::MAX, |t| waits(t) && t.new.target.to_string() == target);
        for id in &found {
            self.hot.get_mut(id).into_iter().for_each(|task| task.state = TaskState::Parked);
        }
        found.len() as u64
    }

    /// Makes the parked tasks of a target ready, and scheduled those whose time has not come, in their old order.
    pub(super) fn unpark(&mut self, target: &str) -> u64 {
        let parked = self.hot.iter().map(|(_, task)| task).filter(|t| t.state == TaskState::Parked);
        let mut found: Vec<(i64, TaskId)> =
            parked.filter(|t| t.new.target.to_string() == target).map(|t| (t.seq, t.new.id)).collect();
        found.sort_unstable();
        for (_, id) in &found {
            let (seq, now) = (self.next_seq(), self.now);
            let Some(task) = self.hot.get_mut(id) else { continue };
            let later = task.new.run_at.is_some_and(|at| at > now);
            (task.state, task.seq) = (if later { TaskState::Scheduled } else { TaskState::Ready }, seq);
        }
        found.len() as u64
    }

    /// The targets of parked tasks behind one.
    pub(super) fn parked(&self, after: Option<&str>, limit: usize) -> Vec<Target> {
        let parked = self.hot.iter().filter(|(_, task)| task.state == TaskState::Parked);
        let targets = parked.map(|(_, task)| (task.new.target.to_string(), &task.new.target));
        let behind = targets.filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
        let all: std::collections::BTreeMap<_, _> = behind.collect();
        all.into_values().take(limit).cloned().collect()
    }

    /// Looks a task up for cancellation, and flags it where it runs.
    pub(super) fn cancel(&mut self, id: TaskId) -> Option<CancelFound> {
        let Some(task) = self.hot.get_mut(&id) else {
            return self.archive.get(&id).map(|task| CancelFound::Final(task.state));
        };
        if task.state != TaskState::Running {
            return Some(CancelFound::Idle);
        }
        let attempt = task.attempt;
        if !std::mem::replace(&mut task.cancel, true) {
            self.event(id, "cancel_requested", attempt, None, None);
        }
        Some(CancelFound::Running)
    }

    /// Brings a task back, with a new place in the order and nothing counted against it.
    pub(super) fn retry(&mut self, id: TaskId) -> Option<Result<(), TaskState>> {
        let ended = self.archive.has(&id);
        let back = self.revive(id);
        if ended && back == Some(Ok(())) {
            self.wait_again(&[id]);
        }
        back
    }

    fn revive(&mut self, id: TaskId) -> Option<Result<(), TaskState>> {
        let known = self.task(id)?.clone();
        let Ok(to) = next(known.state, TaskInput::RetryByPerson) else { return Some(Err(known.state)) };
        let (attempt, ended) = (known.attempt, known.state.is_final());
        if ended {
            self.ended_at(&known);
        }
        let mut task = known;
        task.seq = self.next_seq();
        task.state = to;
        (task.attempt, task.lost, task.lost_alone, task.cancel) = (0, 0, 0, false);
        (task.new.run_at, task.new.expires_at) = (Some(self.now), None);
        if ended {
            (task.doom, task.node, task.error) = (None, None, None);
            (task.started_at, task.finished_at) = (None, None);
            task.new.batch = task.new.batch.filter(|batch| self.count_out_of_batch(*batch));
        }
        let how = if ended { "an operator brought it back" } else { "an operator confirmed another attempt" };
        self.forget_begun(id);
        self.archive.remove(&id);
        self.hot.insert(id, task);
        self.event(id, "retried", attempt, None, Some(how));
        Some(Ok(()))
    }

    /// Brings those back that stand as they were seen; says how many.
    pub(super) fn retry_many(&mut self, dead: &[DeadTask]) -> u64 {
        let stands = |s: &Self, d: &DeadTask| s.archive.get(&d.id).is_some_and(|task| task.state == d.state);
        let back = dead.iter().filter(|d| stands(self, d) && self.revive(d.id) == Some(Ok(())));
        let back: Vec<TaskId> = back.map(|dead| dead.id).collect();
        self.wait_again(&back);
        back.len() as u64
    }

    /// Those that came back wait for what they come after, where that has not ended.
    fn wait_again(&mut self, back: &[TaskId]) {
        for id in back {
            let Some(task) = self.hot.get(id).filter(|task| task.state == TaskState::Ready) else { continue };
            let mut parents = task.new.after.clone();
            parents.sort_unstable();
            parents.dedup();
            let mut open = 0;
            for parent in parents {
                if let Some(parent) = self.hot.get_mut(&parent) {
                    if !parent.children.contains(id) {
                        parent.children.push(*id);
                    }
                    open += 1;
                }
            }
            if let (1.., Some(task)) = (open, self.hot.get_mut(id)) {
                task.waits_for = open;
                task.state = next(task.state, TaskInput::WaitsAgain).unwrap_or(task.state);
            }
        }
    }

    /// Cancels those that have failed and stand as they were seen; says how many.
    pub(super) fn dismiss_many(&mut self, dead: &[DeadTask]) -> u64 {
        dead.iter().filter(|seen| self.dismiss(seen)).count() as u64
    }

    fn dismiss(&mut self, seen: &DeadTask) -> bool {
        let now = self.now;
        let Some(task) = self.archive.get_mut(&seen.id).filter(|task| task.state == seen.state) else {
            return false;
        };
        let Ok(to) = next(task.state, TaskInput::Dismissed) else { return false };
        let was = task.clone();
        (task.state, task.finished_at) = (to, Some(now));
        self.ended_at(&was);
        self.event(seen.id, to.name(), was.attempt, None, Some(DISMISSED));
        true
    }

    /// Writes down when its last attempt began, and when and why it had ended, unless that is written.
    fn ended_at(&mut self, task: &Task) {
        let why = task.error.as_ref().map(|error| error.message.as_str());
        let lines = [(task.started_at, told::STARTED, None), (task.finished_at, task.state.name(), why)];
        for (at, event, detail) in lines {
            if let Some(at) = at.map(micros).filter(|at| !self.has_event(task.new.id, event, *at)) {
                self.event_at(task.new.id, at, event, task.attempt, task.node, detail);
            }
        }
    }

    fn has_event(&self, task: TaskId, event: &str, at: Micros) -> bool {
        self.events.get(&task).into_iter().flatten().any(|line| line.0 == at && line.1 == event)
    }

    /// A task that comes back is open again in its batch, unless that has been told to have ended.
    fn count_out_of_batch(&mut self, batch: TaskId) -> bool {
        let open = self.batches.get_mut(&batch).filter(|batch| batch.open > 0);
        open.map(|batch| (batch.open, batch.failed) = (batch.open + 1, batch.failed.saturating_sub(1)))
            .is_some()
    }
}
