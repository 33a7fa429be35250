//! Who comes after whom: children run when their parents have ended, and as their policy has it.

use std::collections::BTreeSet;

use greenroom::model::{
    id::TaskId,
    task::{BatchNotify, Claimed, NewTask, TaskState},
};

use super::{Commit, Ledger};
use crate::{op::short, work::effect_of};

/// A batch that was accepted.
pub struct Batch {
    members: BTreeSet<TaskId>,
    /// Those that have not ended.
    open: BTreeSet<TaskId>,
    /// The effect of the task that hears of its end.
    pub effect: u32,
}

impl Ledger {
    /// Batches that were opened.
    pub(super) fn joins(&mut self, commit: Commit<'_>) {
        for unit in commit.durable() {
            for new in &unit.batches {
                let effect = new.notify.as_ref().and_then(|notify| match notify {
                    BatchNotify::Agent(notify) => Some(effect_of(&notify.message, &crate::work::input(0))),
                    BatchNotify::Function { .. } => None,
                });
                let members = unit.accepted.iter().filter(|task| task.batch == Some(new.id));
                let members: BTreeSet<TaskId> = members.map(|task| task.id).collect();
                let batch = Batch { open: members.clone(), members, effect: effect.unwrap_or(u32::MAX) };
                self.batches.entry(new.id).or_insert(batch);
            }
        }
    }

    /// A task begins that may tell of the end of a batch.
    pub(super) fn joined_in_time(&mut self, claim: &Claimed) {
        let effect = effect_of(&claim.message, &claim.input);
        let Some(batch) = self.batches.values().find(|batch| batch.effect == effect) else {
            return;
        };
        let open = batch.open.len();
        self.must(open == 0, || {
            format!("t{} tells of the end of a batch: {open} are open", short(claim.id.0))
        });
        if claim.attempt == 1 {
            self.note("batches joined");
        }
    }

    /// A task waits for its parents, if they have not ended.
    pub(super) fn waits_for(&mut self, task: &NewTask) {
        let (mut open, mut doomed) = (BTreeSet::new(), false);
        for parent in &task.after {
            match self.tasks.get(parent).and_then(|known| known.ended) {
                None => drop(open.insert(*parent)),
                Some((state, _)) => doomed |= state != TaskState::Succeeded,
            }
        }
        let Some(known) = self.tasks.get_mut(&task.id) else { return };
        known.doomed = doomed && known.with_parents;
        known.after = open;
    }

    /// A task has been brought back: its batch waits for it again, unless that has been told to have ended.
    pub(super) fn open_again(&mut self, id: TaskId) {
        for batch in self.batches.values_mut().filter(|batch| !batch.open.is_empty()) {
            batch.open.extend(batch.members.get(&id));
        }
    }

    /// A task has ended: its children wait for one less.
    pub(super) fn parent_ended(&mut self, id: TaskId, state: TaskState) {
        let mut released = 0;
        for known in self.tasks.values_mut() {
            if known.after.remove(&id) {
                known.doomed |= state != TaskState::Succeeded && known.with_parents;
                released += u64::from(known.after.is_empty() && !known.doomed);
            }
        }
        *self.busy.entry("children released").or_default() += released;
        for batch in self.batches.values_mut() {
            batch.open.remove(&id);
        }
    }
}
