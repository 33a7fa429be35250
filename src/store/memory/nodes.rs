//! Joining and leaving: who owns the store, and what the boot before was running.

use jiff::Timestamp;
use uuid::Uuid;

use super::{state::State, task::Lane};
use crate::{
    model::{
        id::{PARTITIONS, TOOL_PARTITION, TaskId},
        task::{TaskInput, TaskState, next},
    },
    store::{Doom, Member, NodeRow, Ownership, StoreError},
};

/// A boot that has joined.
pub(super) struct Boot {
    id: Uuid,
    name: String,
    url: Option<String>,
    started_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
}

impl State {
    /// Takes everything under a new epoch and rescues what another boot was running.
    pub(super) fn join(&mut self, member: &Member) -> Result<Ownership, StoreError> {
        let boot = member.boot;
        if self.owner != Some(boot) {
            self.epoch += 1;
            self.owner = Some(boot);
        }
        self.boots.retain(|b| b.id != boot);
        for other in self.boots.iter_mut().filter(|b| b.ended_at.is_none()) {
            other.ended_at = Some(self.now);
        }
        let (name, url) = (member.name.clone(), member.url.clone());
        self.boots.push(Boot { id: boot, name, url, started_at: self.now, ended_at: None });
        let rescued = self.rescue(boot)?;
        let poison = self.find_poison(member.max_lost);
        Ok(Ownership { epochs: self.epochs(), rescued, poison })
    }

    /// What a boot owns; `None`: a later one has taken over.
    pub(super) fn owned(&self, boot: Uuid) -> Option<Ownership> {
        (self.owner == Some(boot)).then(|| Ownership { epochs: self.epochs(), ..Ownership::default() })
    }

    fn epochs(&self) -> Vec<i64> {
        (0..PARTITIONS).map(|_| self.epoch).collect()
    }

    /// The epoch of a partition.
    pub(super) fn epoch_of(&self, partition: i16) -> Option<i64> {
        match partition {
            0..PARTITIONS => Some(self.epoch),
            TOOL_PARTITION => Some(0),
            _ => None,
        }
    }

    pub(super) fn leave(&mut self, boot: Uuid) {
        self.owner = self.owner.filter(|owner| *owner != boot);
        for left in self.boots.iter_mut().filter(|b| b.id == boot && b.ended_at.is_none()) {
            left.ended_at = Some(self.now);
        }
    }

    pub(super) fn nodes(&self) -> Vec<NodeRow> {
        let row = |b: &Boot| NodeRow {
            boot: b.id,
            name: b.name.clone(),
            url: b.url.clone(),
            started_at: b.started_at,
            lease_until: None,
            partitions: if self.owner == Some(b.id) { (0..PARTITIONS).collect() } else { Vec::new() },
        };
        self.boots.iter().filter(|b| b.ended_at.is_none()).map(row).collect()
    }

    fn rescue(&mut self, boot: Uuid) -> Result<u64, StoreError> {
        let lost = self.hot.some(usize::MAX, |t| t.state == TaskState::Running && t.node != Some(boot));
        for id in &lost {
            let Some(task) = self.hot.get_mut(id) else { continue };
            task.state = next(task.state, TaskInput::Lost).map_err(|e| StoreError::Corrupt(e.to_string()))?;
            task.lost += 1;
            task.lost_alone += u32::from(task.alone);
            let (attempt, node) = (task.attempt, task.node);
            task.let_go();
            self.event(*id, "rescued", attempt, node, Some("its node ended without a word"));
        }
        Ok(lost.len() as u64)
    }

    fn find_poison(&mut self, max_lost: u32) -> Vec<TaskId> {
        for id in self.hot.some(usize::MAX, |t| t.is_ready(Lane::Alone) && t.lost_alone >= max_lost) {
            if let Some(task) = self.hot.get_mut(&id) {
                task.doom = Some(Doom::Poison);
            }
        }
        self.hot.some(usize::MAX, |t| t.doom == Some(Doom::Poison))
    }
}
