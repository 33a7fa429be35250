//! A task, unfinished or ended.

use jiff::Timestamp;
use uuid::Uuid;

use super::state::exact;
use crate::{
    model::{
        id::{Target, TaskId},
        task::{ClaimId, Claimed, NewTask, OnParentFailed, TaskError, TaskState, TaskView, has_begun},
    },
    store::{Doom, listed::error_in_list, values::SUSPECT_FROM},
};
use serde_json::value::RawValue;

/// Who may claim a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Agents,
    Tools,
    /// It was lost twice or more: it runs alone.
    Alone,
}

/// A task with all that has become of it.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// As it was accepted; its time, its expiry and its batch move on.
    pub(super) new: NewTask,
    /// Where it is claimed.
    pub(super) partition: i16,
    pub(super) seq: i64,
    pub(super) state: TaskState,
    pub(super) attempt: u32,
    /// Which claim was its last.
    pub(super) claim: ClaimId,
    pub(super) lost: u32,
    pub(super) lost_alone: u32,
    /// Whether the claim under way is the only one of its node.
    pub(super) alone: bool,
    /// It is to be ended, and nobody may claim it.
    pub(super) doom: Option<Doom>,
    /// How many parents are still open.
    pub(super) waits_for: u32,
    /// Who waits for it.
    pub(super) children: Vec<TaskId>,
    /// It was asked to end while it ran.
    pub(super) cancel: bool,
    pub(super) node: Option<Uuid>,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) result: Option<Box<RawValue>>,
    pub(super) error: Option<TaskError>,
}

impl Task {
    pub(super) fn accepted(new: NewTask, seq: i64, state: TaskState, now: Timestamp) -> Self {
        Self {
            partition: new.target.partition(),
            new,
            seq,
            state,
            attempt: 0,
            claim: ClaimId::default(),
            lost: 0,
            lost_alone: 0,
            alone: false,
            doom: None,
            waits_for: 0,
            children: Vec::new(),
            cancel: false,
            node: None,
            created_at: now,
            started_at: None,
            finished_at: None,
            result: None,
            error: None,
        }
    }

    /// Who may claim it when it is ready; `None`: nobody.
    pub(super) fn lane(&self) -> Option<Lane> {
        match (self.doom, &self.new.target) {
            (Some(_), _) => None,
            _ if i64::from(self.lost) >= SUSPECT_FROM => Some(Lane::Alone),
            (None, Target::Agent { .. }) => Some(Lane::Agents),
            (None, Target::Tool(_)) => Some(Lane::Tools),
        }
    }

    /// Whether it may be claimed from this lane.
    pub(super) fn is_ready(&self, lane: Lane) -> bool {
        self.state == TaskState::Ready && self.lane() == Some(lane)
    }

    /// Whether it is not to begin any more.
    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.new.expires_at.is_some_and(|at| at <= now) && !self.has_begun()
    }

    /// Whether it has begun, and so does not expire.
    pub(super) fn has_begun(&self) -> bool {
        has_begun(self.partition < 0, self.attempt, self.lost)
    }

    /// Whether this boot runs it.
    pub(super) fn is_claimed(&self, boot: Uuid) -> bool {
        self.state == TaskState::Running && self.node == Some(boot)
    }

    /// Its claim has ended without its end; whoever was asked to end it meanwhile has it ended.
    pub(super) fn let_go(&mut self) {
        (self.node, self.alone) = (None, false);
        if self.cancel {
            self.doom = Some(Doom::Cancelled);
        }
    }

    pub(super) fn claimed(&self) -> Claimed {
        let new = self.new.clone();
        Claimed {
            id: new.id,
            seq: self.seq,
            target: new.target,
            message: new.message,
            input: new.input,
            priority: new.priority,
            attempt: self.attempt,
            claim: self.claim,
            lost: self.lost,
            max_attempts: new.max_attempts,
            timeout: new.timeout,
            notify: new.notify,
            batch: new.batch,
            due: new.run_at,
            expires_at: new.expires_at,
        }
    }

    pub(super) fn view(&self) -> TaskView {
        TaskView { result: self.result.clone(), error: self.error.clone(), ..self.listed() }
    }

    /// As lists show it.
    pub(super) fn listed(&self) -> TaskView {
        let new = &self.new;
        let runs = self.state == TaskState::Running || self.state.is_final();
        TaskView {
            id: new.id,
            target: new.target.clone(),
            message: Some(new.message.clone()).filter(|m| !m.is_empty()),
            state: self.state,
            attempt: self.attempt,
            lost: self.lost,
            max_attempts: new.max_attempts,
            priority: new.priority,
            run_at: Some(new.run_at.unwrap_or(self.created_at)),
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            input: None,
            result: None,
            error: self.error.as_ref().and_then(error_in_list),
            progress: None,
            parent: new.parent,
            batch: new.batch,
            waiting_for: (self.state == TaskState::Blocked).then_some(self.waits_for),
            prerequisites: Vec::new(),
            waits: Vec::new(),
            node: self.node.filter(|_| runs).map(|n| n.to_string()),
            idempotency_key: new.idempotency_key.clone(),
            tags: new.tags.clone(),
            timeout_ms: new.timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            expires_at: new.expires_at.filter(|_| !self.state.is_final()).map(exact),
            on_parent_failed: Some(new.on_parent_failed).filter(|how| *how == OnParentFailed::Run),
            notify: new.notify.clone(),
        }
    }
}
