//! Families of tasks, as [`crate::store::Families`] says.

use std::collections::BTreeSet;

use super::{state::State, task::Task};
use crate::{
    model::{
        id::TaskId,
        task::{Prerequisite, TaskView},
    },
    store::families::{Kin, MAX_LOOK},
};

impl State {
    pub(super) fn edges(&self, around: &[TaskId], limit: usize) -> Vec<(TaskId, TaskId)> {
        let tasks = self.hot.iter().chain(self.archive.iter());
        let pairs = tasks.flat_map(|(id, task)| {
            let parents: BTreeSet<TaskId> = task.new.after.iter().copied().collect();
            parents.into_iter().map(|parent| (parent, *id))
        });
        let near = |(parent, child): &(TaskId, TaskId)| around.contains(parent) || around.contains(child);
        pairs.filter(near).take(limit.min(MAX_LOOK)).collect()
    }

    pub(super) fn kin_behind(&self, id: TaskId, limit: usize) -> Vec<Kin> {
        let tasks = self.hot.iter().chain(self.archive.iter()).filter(|(other, _)| **other > id);
        let mut kin: Vec<Kin> =
            tasks.map(|(id, task)| Kin { id: *id, parent: task.new.parent, batch: task.new.batch }).collect();
        kin.sort_unstable_by_key(|kin| kin.id);
        kin.truncate(limit.clamp(1, MAX_LOOK));
        kin
    }

    pub(super) fn relatives(&self, ids: &[TaskId]) -> Vec<TaskView> {
        let ids: BTreeSet<&TaskId> = ids.iter().collect();
        ids.into_iter().filter_map(|id| self.task(*id)).map(Task::listed).collect()
    }

    pub(super) fn prerequisites(&self, of: TaskId, limit: usize) -> Vec<Prerequisite> {
        let parents: BTreeSet<&TaskId> =
            self.hot.get(&of).into_iter().flat_map(|task| &task.new.after).collect();
        let open = parents.into_iter().filter_map(|id| self.hot.get(id));
        let open = open.filter(|parent| parent.children.contains(&of));
        let prerequisite = |task: &Task| Prerequisite {
            id: task.new.id,
            target: task.new.target.clone(),
            state: task.state,
        };
        open.map(prerequisite).take(limit.clamp(1, MAX_LOOK)).collect()
    }
}
