//! Joining and leaving: ownership with its leases, and rescuing tasks of dead nodes.

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

/// Who may own a part of it beside whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tenancy {
    /// The last boot that has joined owns all of it, until it leaves.
    Sole,
    /// Each boot has a lease; only a later one of its own instance ends it before its time.
    Leased,
}

/// A boot that has joined.
pub(super) struct Boot {
    id: Uuid,
    instance: Uuid,
    name: String,
    url: Option<String>,
    started_at: Timestamp,
    /// `None`: until another joins.
    lease_until: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
}

/// Who owns a partition, or did last, and under which epoch.
#[derive(Clone, Copy, Default)]
pub(super) struct Partition {
    node: Option<Uuid>,
    epoch: i64,
}

impl State {
    /// Begins a lease, or begins it anew, and ends that of the boots before.
    pub(super) fn join(&mut self, member: &Member) -> Result<Ownership, StoreError> {
        let (boot, now) = (member.boot, self.now);
        let leased = self.tenancy == Tenancy::Leased;
        let rival = |b: &Boot| b.id != boot && (!leased || b.instance == member.instance);
        let known = self.boots.iter().position(|b| b.id == boot);
        let later = self.boots.iter().skip(known.unwrap_or(usize::MAX));
        if leased && later.into_iter().any(|b| rival(b) && b.is_live(now)) {
            return Err(StoreError::Refused("a later boot of this instance has joined".to_owned()));
        }
        for other in self.boots.iter_mut().filter(|b| rival(b) && b.ended_at.is_none()) {
            other.ended_at = Some(now);
        }
        let joined = Boot {
            id: boot,
            instance: member.instance,
            name: member.name.clone(),
            url: member.url.clone(),
            started_at: now,
            lease_until: leased.then(|| until(now, member)),
            ended_at: None,
        };
        match known.and_then(|n| self.boots.get_mut(n)) {
            Some(before) => *before = Boot { started_at: before.started_at, ..joined },
            None => self.boots.push(joined),
        }
        self.take_over(member)
    }

    /// Renews a lease that has not ended; `None` where it has, for ever.
    pub(super) fn renew(&mut self, member: &Member) -> Result<Option<Ownership>, StoreError> {
        let now = self.now;
        let Some(me) = self.boots.iter_mut().find(|b| b.id == member.boot && b.is_live(now)) else {
            return Ok(None);
        };
        me.lease_until = me.lease_until.map(|_| until(now, member));
        self.take_over(member).map(Some)
    }

    /// Takes the partitions that nobody owns, all under one new epoch, and makes ready again what dead
    /// boots were running.
    fn take_over(&mut self, member: &Member) -> Result<Ownership, StoreError> {
        let boot = member.boot;
        let free = |p: &Partition| p.node.is_none_or(|node| node != boot && !self.is_live(node));
        let free: Vec<usize> = (0..).zip(&self.partitions).filter(|(_, p)| free(p)).map(|(n, _)| n).collect();
        self.epoch += i64::from(!free.is_empty());
        for n in free {
            let taken = Partition { node: Some(boot), epoch: self.epoch };
            self.partitions.get_mut(n).into_iter().for_each(|p| *p = taken);
        }
        let rescued = self.rescue()?;
        let poison = self.find_poison(member.max_lost);
        let mine = |p: &Partition| if p.node == Some(boot) { p.epoch } else { 0 };
        Ok(Ownership { epochs: self.partitions.iter().map(mine).collect(), rescued, poison })
    }

    /// Whether a boot has a lease.
    pub(super) fn is_live(&self, boot: Uuid) -> bool {
        self.boots.iter().any(|b| b.id == boot && b.is_live(self.now))
    }

    /// The epoch of a partition.
    pub(super) fn epoch_of(&self, partition: i16) -> Option<i64> {
        match partition {
            TOOL_PARTITION => Some(0),
            _ => Some(self.partition(partition)?.epoch),
        }
    }

    /// Whether the tasks of a partition are a boot's to claim.
    pub(super) fn may_claim(&self, boot: Uuid, partition: i16) -> bool {
        partition == TOOL_PARTITION || self.partition(partition).is_some_and(|p| p.node == Some(boot))
    }

    fn partition(&self, n: i16) -> Option<&Partition> {
        self.partitions.get(usize::try_from(n).ok()?)
    }

    pub(super) fn leave(&mut self, boot: Uuid) {
        for left in self.boots.iter_mut().filter(|b| b.id == boot && b.ended_at.is_none()) {
            left.ended_at = Some(self.now);
        }
    }

    pub(super) fn nodes(&self) -> Vec<NodeRow> {
        let owned = |boot| (0..PARTITIONS).zip(&self.partitions).filter(move |(_, p)| p.node == Some(boot));
        let row = |b: &Boot| NodeRow {
            boot: b.id,
            name: b.name.clone(),
            url: b.url.clone(),
            started_at: b.started_at,
            lease_until: b.lease_until,
            drained_at: None,
            partitions: owned(b.id).map(|(n, _)| n).collect(),
        };
        self.boots.iter().filter(|b| b.ended_at.is_none()).map(row).collect()
    }

    fn rescue(&mut self) -> Result<u64, StoreError> {
        let is_lost = |node: Option<Uuid>| node.is_none_or(|node| !self.is_live(node));
        let lost = self.hot.some(usize::MAX, |t| t.state == TaskState::Running && is_lost(t.node));
        for id in &lost {
            let Some(task) = self.hot.get_mut(id) else { continue };
            task.state = next(task.state, TaskInput::Lost).map_err(|e| StoreError::Corrupt(e.to_string()))?;
            task.lost += 1;
            task.lost_alone += u32::from(task.alone);
            let (attempt, started_at, node) = (task.attempt, task.started_at, task.node);
            task.let_go();
            self.began(*id, started_at, attempt, node);
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

impl Boot {
    fn is_live(&self, now: Timestamp) -> bool {
        self.ended_at.is_none() && self.lease_until.is_none_or(|until| until > now)
    }
}

/// Until when a lease goes on that begins now.
fn until(now: Timestamp, member: &Member) -> Timestamp {
    now.checked_add(member.lease).unwrap_or(Timestamp::MAX)
}
