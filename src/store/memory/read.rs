//! Reads of agents and tasks.

use std::{cmp::Reverse, collections::BTreeMap};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    state::{Agent, State},
    task::{Lane, Task},
};
use crate::{
    model::{
        id::{AgentId, Target, TaskId},
        task::{DeadTask, HeldClaim, TaskEvent, TaskState, queue_of},
    },
    store::{
        AgentFilter, AgentRow, Counts, Oldest, StoredStatus, TaskFilter, TaskPage, read::MAX_PAGE, told,
        values::moment,
    },
};

impl State {
    pub(super) fn load(&self, ids: &[AgentId]) -> Vec<Option<AgentRow>> {
        let whole = |agent: &Agent| AgentRow { bytes: agent.state.to_vec(), ..agent.row.clone() };
        ids.iter().map(|id| self.agents.get(id).map(whole)).collect()
    }

    pub(super) fn heads(&self, ids: &[AgentId]) -> Vec<Option<AgentRow>> {
        ids.iter().map(|id| self.agents.get(id).map(|agent| agent.row.clone())).collect()
    }

    pub(super) fn agents(&self, filter: &AgentFilter) -> Vec<AgentRow> {
        let wanted = |row: &&AgentRow| {
            filter.kind.as_ref().is_none_or(|kind| *kind == row.kind)
                && filter.status.map_or(row.status != StoredStatus::Deleted, |status| status == row.status)
                && (!filter.held || row.status != StoredStatus::Normal)
                && filter.after.as_ref().is_none_or(|(kind, key)| (&row.kind, &row.key) > (kind, key))
        };
        let mut rows: Vec<&AgentRow> =
            self.agents.iter().map(|(_, agent)| &agent.row).filter(wanted).collect();
        rows.sort_unstable_by_key(|row| (&row.kind, &row.key));
        rows.into_iter().take(filter.limit.clamp(1, MAX_PAGE)).cloned().collect()
    }

    /// The current state and the kept earlier ones, newest first.
    pub(super) fn snapshots(&self, id: AgentId) -> Vec<(i64, Timestamp, Vec<u8>)> {
        let current = self.agents.get(&id).filter(|agent| agent.row.version > 0);
        let current = current.map(|a| (a.row.version, a.row.updated_at, a.state.to_vec()));
        let earlier = self.earlier.range((id, i64::MIN)..=(id, i64::MAX)).rev();
        current
            .into_iter()
            .chain(earlier.map(|((_, version), s)| (*version, s.at, s.state.to_vec())))
            .collect()
    }

    /// A task, hot or ended.
    pub(super) fn task(&self, id: TaskId) -> Option<&Task> {
        self.hot.get(&id).or_else(|| self.archive.get(&id))
    }

    pub(super) fn tasks(&self, filter: &TaskFilter) -> TaskPage {
        let wanted = |task: &&Task| {
            filter.state.is_none_or(|state| state == task.state)
                && filter.target.as_ref().is_none_or(|targets| targets.takes(&task.new.target))
                && filter.tag.as_ref().is_none_or(|tag| task.new.tags.contains(tag))
        };
        let (before, limit) = (filter.before.as_ref(), filter.limit.clamp(1, MAX_PAGE));
        let hot = self.hot.before(before).rev().map(|(_, task)| task).filter(wanted).take(limit);
        let ended = self.archive.before(before).rev().map(|(_, task)| task).filter(wanted).take(limit);
        let mut found: Vec<&Task> = hot.chain(ended).collect();
        found.sort_unstable_by_key(|task| Reverse(task.new.id));
        TaskPage { items: found.into_iter().take(limit).map(Task::listed).collect(), looked_to: None }
    }

    /// One look at what failed or was cancelled, newest first.
    pub(super) fn dead(&self, before: Option<&TaskId>, limit: usize) -> Vec<DeadTask> {
        let ended = self.archive.before(before).rev().map(|(_, task)| task);
        let dead = ended.filter(|task| task.state >= TaskState::Failed).take(limit.clamp(1, MAX_PAGE));
        dead.map(|task| DeadTask {
            id: task.new.id,
            state: task.state,
            target: task.new.target.clone(),
            tags: task.new.tags.clone(),
            code: task.error.as_ref().map(|error| error.code.clone()),
        })
        .collect()
    }

    pub(super) fn history_of(&self, id: TaskId) -> Vec<TaskEvent> {
        let Some(task) = self.task(id) else { return Vec::new() };
        told::told(&task.view(), self.events.get(&id).cloned().unwrap_or_default())
    }

    pub(super) fn running(&self, boot: Uuid) -> Vec<HeldClaim> {
        let mine = |t: &&Task| t.state == TaskState::Running && t.node == Some(boot);
        let held = |t: &Task| HeldClaim { id: t.new.id, claim: t.claim, cancel: t.cancel };
        self.hot.iter().map(|(_, task)| task).filter(mine).map(held).collect()
    }

    pub(super) fn suspects(&self, boot: Uuid) -> Vec<Target> {
        let claimable = |t: &Task| {
            t.is_ready(Lane::Alone)
                && self.may_claim(boot, t.partition)
                && !self.paused.has(&queue_of(&t.new.target))
        };
        let suspects = self.hot.iter().map(|(_, task)| task).filter(|task| claimable(task));
        suspects.map(|task| task.new.target.clone()).collect()
    }

    /// Whether nothing is under way or due: only what waits for a later moment, a person or another task
    /// is left. A retry is under way.
    pub(super) fn is_at_rest(&self, now: Timestamp) -> bool {
        self.hot.iter().all(|(_, task)| match task.state {
            TaskState::Ready | TaskState::Running => false,
            _ if task.doom.is_some() => false,
            TaskState::Scheduled => task.attempt == 0 && task.new.run_at.is_some_and(|at| at > now),
            _ => true,
        })
    }

    pub(super) fn held(&self) -> Vec<(String, StoredStatus, u64)> {
        let mut counts = BTreeMap::new();
        for (_, agent) in self.agents.iter().filter(|(_, agent)| agent.row.status.is_held()) {
            *counts.entry((agent.row.kind.to_string(), agent.row.status as i16)).or_default() += 1;
        }
        told::held_of(counts.into_iter().map(|((kind, status), n)| (kind, status, n)).collect())
    }

    pub(super) fn oldest(&self) -> Oldest {
        let held = |agent: &Agent| agent.row.held_at.unwrap_or(agent.row.updated_at);
        let quarantined = self.agents.iter().filter(|(_, a)| a.row.status == StoredStatus::Quarantined);
        let unknown = self.hot.iter().filter(|(_, task)| task.state == TaskState::OutcomeUnknown);
        let told = |id: &TaskId| {
            let events = self.events.get(id)?.iter().rev();
            events.clone().find(|(_, event, ..)| event == "outcome_unknown").map(|(at, ..)| moment(*at))
        };
        Oldest {
            quarantined: quarantined.map(|(_, agent)| held(agent)).min(),
            outcome_unknown: unknown.filter_map(|(id, _)| told(id)).min(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let tasks = || self.hot.iter().chain(self.archive.iter()).map(|(_, task)| task.state);
        let statuses = || self.agents.iter().map(|(_, agent)| agent.row.status);
        let kept =
            [StoredStatus::Normal, StoredStatus::Paused, StoredStatus::Stopped, StoredStatus::Quarantined];
        Counts {
            tasks: TaskState::ALL.map(|s| (s, tasks().filter(|state| *state == s).count() as u64)).to_vec(),
            agents: kept.map(|s| (s, statuses().filter(|status| *status == s).count() as u64)).to_vec(),
        }
    }
}
