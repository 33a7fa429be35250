//! The commit of a unit: all of it or nothing, with a verdict.

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    state::{Agent, Batch, Key, Snapshot, State, exact},
    task::Task,
};
use crate::{
    model::{
        id::AgentId,
        task::{NewTask, OnParentFailed, TaskState},
    },
    store::{
        AgentRow, Doom, KeyRow, KeyWrite, MIXED, Refusal, StateWrite, StoredStatus, Unit, Verdict,
        finish::is_own, values::micros,
    },
};

impl State {
    /// Commits a unit. A refused one leaves no trace, and its neighbours do not notice.
    pub(super) fn unit(&mut self, boot: Uuid, unit: &Unit) -> Verdict {
        match self.apply(boot, unit) {
            Ok(()) => {
                self.keep();
                Verdict::Durable
            }
            Err(refusal) => {
                self.undo();
                if self.is_durable(boot, unit) { Verdict::Durable } else { Verdict::Refused(refusal) }
            }
        }
    }

    fn apply(&mut self, boot: Uuid, unit: &Unit) -> Result<(), Refusal> {
        if unit.is_mixed() {
            return Err(Refusal::Bad(MIXED.to_owned()));
        }
        if let Some(journal) = &unit.journal {
            return self.record(boot, journal);
        }
        let owned = |partition: i16, epoch| self.epoch_of(partition) == Some(epoch);
        let mine = unit.owner.is_none_or(|(partition, epoch)| owned(partition, epoch))
            && unit.state.as_ref().is_none_or(|s| owned(s.id.partition(), s.epoch));
        if !mine {
            return Err(Refusal::Fenced);
        }
        if let Some(state) = &unit.state {
            self.state(state)?;
        }
        unit.finished.iter().try_for_each(|finish| self.finish(boot, finish))?;
        unit.keys.iter().try_for_each(|key| self.key(key))?;
        self.accept(&unit.accepted)?;
        for new in &unit.batches {
            let batch =
                Batch { new: new.clone(), open: new.size, succeeded: 0, failed: 0, created_at: self.now };
            if new.size == 0 {
                self.joined(&batch, 5)?;
            }
            self.batches.insert(new.id, batch);
        }
        self.entities(unit)?;
        self.subscribe(&unit.subscriptions);
        unit.schedule.as_ref().map_or(Ok(()), |to| self.move_schedule(to))
    }

    fn state(&mut self, write: &StateWrite) -> Result<(), Refusal> {
        let known = self.agents.get(&write.id).cloned();
        if known.as_ref().map_or(0, |agent| agent.row.version) != write.base_version {
            return Err(Refusal::Fenced);
        }
        if let Some(old) = known.as_ref().filter(|agent| agent.row.version > 0)
            && self.history.keeps(write, micros(self.now))
        {
            self.keep_earlier(old);
        }
        let known = known.map(|agent| agent.row);
        let row = AgentRow {
            id: write.id,
            kind: write.kind.to_string(),
            key: write.key.to_string(),
            status: known.as_ref().map_or(StoredStatus::Normal, |row| row.status),
            reason: known.as_ref().and_then(|row| row.reason.clone()),
            held_at: known.as_ref().and_then(|row| row.held_at),
            epoch: write.epoch,
            version: write.base_version.saturating_add(1),
            schema_version: write.schema_version,
            bytes: Vec::new(),
            created_at: known.filter(|row| row.version > 0).map_or(self.now, |row| row.created_at),
            updated_at: self.now,
        };
        self.agents.insert(write.id, Agent { row, state: write.bytes.clone() });
        Ok(())
    }

    /// Keeps the state that is about to be overwritten, and forgets the oldest.
    fn keep_earlier(&mut self, old: &Agent) {
        let (id, row) = (old.row.id, &old.row);
        let snapshot = Snapshot { epoch: row.epoch, at: row.updated_at, state: old.state.clone() };
        self.earlier.insert((id, row.version), snapshot);
        let kept: Vec<(AgentId, i64)> =
            self.earlier.range((id, i64::MIN)..=(id, i64::MAX)).rev().map(|(key, _)| *key).collect();
        for beyond in kept.iter().skip(self.history.keep) {
            self.earlier.remove(beyond);
        }
    }

    fn key(&mut self, write: &KeyWrite) -> Result<(), Refusal> {
        if let Some(row) = self.stored_key(write.scope, &write.key, self.now) {
            // if it is this unit's own, of an earlier try, `is_durable` will find out
            return Err(Refusal::KeyTaken(row));
        }
        let row = KeyRow { request: write.request, task: write.task, reply: write.reply.clone() };
        self.keys.insert((write.scope, write.key.clone()), Key { row, expires_at: write.expires_at });
        Ok(())
    }

    /// A key that has not expired by `now`.
    pub(super) fn stored_key(&self, scope: Uuid, key: &str, now: Timestamp) -> Option<KeyRow> {
        let found = self.keys.get(&(scope, key.to_owned()))?;
        (found.expires_at > now).then(|| found.row.clone())
    }

    fn accept(&mut self, tasks: &[NewTask]) -> Result<(), Refusal> {
        for task in tasks {
            let mut task = task.clone();
            task.max_attempts = task.max_attempts.max(1);
            task.run_at = task.run_at.map(exact);
            task.expires_at = task.expires_at.map(exact);
            let state = if !task.after.is_empty() {
                TaskState::Blocked
            } else if task.run_at.is_some_and(|at| at > self.now) {
                TaskState::Scheduled
            } else {
                TaskState::Ready
            };
            self.insert(task, state)?;
        }
        // only now, since a parent may stand behind its child
        tasks.iter().filter(|task| !task.after.is_empty()).try_for_each(|task| self.wait_for_parents(task))
    }

    pub(super) fn insert(&mut self, new: NewTask, state: TaskState) -> Result<(), Refusal> {
        let id = new.id;
        if self.task(id).is_some() {
            return Err(Refusal::Bad(format!("there is a task {id} already")));
        }
        let seq = self.next_seq();
        self.hot.insert(id, Task::accepted(new, seq, state, self.now));
        Ok(())
    }

    fn wait_for_parents(&mut self, new: &NewTask) -> Result<(), Refusal> {
        let mut parents = new.after.clone();
        parents.sort_unstable();
        parents.dedup();
        let (mut open, mut failed) = (0, false);
        for parent in parents {
            if let Some(task) = self.hot.get_mut(&parent) {
                task.children.push(new.id);
                open += 1;
                continue;
            }
            match self.archive.get(&parent).map(|task| task.state) {
                None => return Err(Refusal::ParentUnknown(parent)),
                Some(TaskState::Succeeded) => {}
                Some(_) => failed |= new.on_parent_failed == OnParentFailed::Cancel,
            }
        }
        if let Some(task) = self.hot.get_mut(&new.id) {
            task.waits_for = open;
            task.doom = failed.then_some(Doom::ParentFailed);
        }
        if open == 0 && !failed { self.unblock(new.id) } else { Ok(()) }
    }

    /// Whether this very unit has been committed before.
    fn is_durable(&self, boot: Uuid, unit: &Unit) -> bool {
        if let Some(write) = &unit.state {
            let next = (write.epoch, write.base_version.saturating_add(1));
            // an operator may have written that version too
            let is_it = |a: &Agent| (a.row.epoch, a.row.version) == next && a.state == write.bytes;
            return self.agents.get(&write.id).is_some_and(is_it);
        }
        if !unit.accepted.is_empty() {
            return unit.accepted.iter().all(|task| self.task(task.id).is_some());
        }
        if let Some(to) = &unit.schedule {
            return self.is_moved(to);
        }
        let own = |key: &KeyWrite| {
            self.stored_key(key.scope, &key.key, self.now).is_some_and(|row| is_own(&row, key))
        };
        let named = !(unit.finished.is_empty() && unit.keys.is_empty() && unit.messages.is_empty());
        named
            && unit.finished.iter().all(|finish| self.is_finished(boot, finish))
            && unit.keys.iter().all(own)
            && unit.messages.iter().all(|message| self.is_appended(message))
    }
}
