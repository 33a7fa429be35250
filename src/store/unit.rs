//! A unit: commits as a whole or not at all, with its verdict.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::model::{
    conversation::{ConversationId, ConversationWrite, NewMessage},
    id::{AgentId, TaskId},
    journal::JournalWrite,
    schedule::ScheduleMove,
    session::{SessionChange, SessionWrite},
    task::{ClaimId, NewBatch, NewTask, TaskError},
    topic::SubscriptionWrite,
};

/// An agent's new state, guarded by epoch and version.
#[derive(Debug, Clone)]
pub struct StateWrite {
    /// Whose.
    pub id: AgentId,
    /// Its kind.
    pub kind: Arc<str>,
    /// Its key.
    pub key: Arc<str>,
    /// The epoch under which the writer owns the agent's partition.
    pub epoch: i64,
    /// The version that the state was built upon: 0 for an agent that has never committed.
    /// The commit stores `base_version + 1`.
    pub base_version: i64,
    /// The schema version of the state ([`crate::Agent::VERSION`]).
    pub schema_version: u32,
    /// The framed snapshot ([`crate::model::snapshot`]); opaque to the store.
    pub bytes: Arc<Vec<u8>>,
    /// Whether the state that it overwrites is kept however lately one was: it is a person who writes, and
    /// may want it back.
    pub keeps_base: bool,
}

/// The end of a task, or of one attempt.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Which task.
    pub task: TaskId,
    /// What must still be true of it.
    pub guard: Guard,
    /// How it ended.
    pub outcome: FinishOutcome,
    /// A line for its history, where the normal story does not tell it.
    pub note: Option<String>,
}

/// What must be true of a task for a [`Finish`] to count; else the unit is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// It runs here, and this is its attempt.
    ///
    /// A claim that went back leaves its attempt to the next one, so the attempt alone does not tell them
    /// apart; whoever sends ends does. A claim of which an end was sent does not go back before it is known
    /// what became of that; and a node begins a claim when the one before it has ended. A commit that comes
    /// late all the same has its agent's version to fail at.
    Running {
        /// The attempt that was claimed.
        attempt: u32,
    },
    /// It is not running, and not final.
    Idle,
}

/// How a task, or an attempt, ended.
#[derive(Debug, Clone)]
pub enum FinishOutcome {
    /// It goes to the archive with its reply (JSON text).
    Succeeded {
        /// The reply as JSON text.
        result: Vec<u8>,
    },
    /// It goes to the archive as a dead letter.
    Failed {
        /// Why.
        error: TaskError,
    },
    /// It stays, scheduled for another attempt.
    Retry {
        /// When.
        run_at: Timestamp,
        /// Why this attempt failed.
        error: TaskError,
    },
    /// It goes to the archive.
    Cancelled,
    /// A `once` effect was interrupted: it stays until a person resolves it.
    OutcomeUnknown {
        /// What is known.
        error: TaskError,
    },
    /// It stays, parked until its target may run again. The attempt is given back.
    Parked,
}

/// An idempotency key, settled in the same commit as what it stands for.
#[derive(Debug, Clone)]
pub struct KeyWrite {
    /// The target's scope ([`crate::model::id::Target::scope`]), or that of all batches.
    pub scope: Uuid,
    /// The caller's key.
    pub key: String,
    /// A hash of the request; another request under the same key is a conflict.
    pub request: [u8; 16],
    /// The task it stands for, when it was submitted; the first one of a batch.
    pub task: Option<TaskId>,
    /// The encoded outcome, when it was asked; all tasks of a batch of several.
    pub reply: Option<Vec<u8>>,
    /// When it may be forgotten.
    pub expires_at: Timestamp,
}

/// A stored idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// The hash of the first request.
    pub request: [u8; 16],
    /// The task it stands for.
    pub task: Option<TaskId>,
    /// The encoded outcome.
    pub reply: Option<Vec<u8>>,
}

/// What commits together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    /// The partition and epoch that the writer must still own. Absent for submissions from outside.
    pub owner: Option<(i16, i64)>,
    /// An agent's new state.
    pub state: Option<StateWrite>,
    /// Tasks that it ended.
    pub finished: Vec<Finish>,
    /// Tasks that it submitted.
    pub accepted: Vec<NewTask>,
    /// Batches that it opened; their tasks are in `accepted`.
    pub batches: Vec<NewBatch>,
    /// Idempotency keys that it settled.
    pub keys: Vec<KeyWrite>,
    /// Conversations that it made and deleted: each made, and each deleted, at most once.
    pub conversations: Vec<ConversationWrite>,
    /// Messages that it appended. Those of one conversation get its next places in their order here; one
    /// whose id is known there already is left out, and takes none.
    pub messages: Vec<NewMessage>,
    /// Sessions that it wrote, each at most once. A unit of nothing but these needs a key of its own:
    /// by that it is known where it is sent again after another has written.
    pub sessions: Vec<SessionWrite>,
    /// Subscriptions that it began and ended: for each topic and agent at most one.
    pub subscriptions: Vec<SubscriptionWrite>,
    /// What a running task function has come to. A unit with it has nothing else.
    pub journal: Option<JournalWrite>,
    /// The schedule that it moves on. Such a unit submits the task that it fires, and does nothing else.
    pub schedule: Option<ScheduleMove>,
    /// Whether the store may claim the task that it submits for the boot, in the same commit, so that it begins at
    /// once. A store may always leave that to the next claim; and does, where the unit does anything else.
    pub begin: bool,
}

impl Unit {
    /// Whether it could be taken for new where it is sent again.
    pub(crate) fn is_nameless(&self) -> bool {
        let named = self.state.is_some()
            || !self.finished.is_empty()
            || !self.accepted.is_empty()
            || !self.keys.is_empty()
            || !self.messages.is_empty();
        !named && self.sessions.iter().any(|s| !matches!(s.change, SessionChange::Touch))
    }

    /// Whether it says something beside what a task function has come to.
    pub(crate) fn is_mixed(&self) -> bool {
        let Self {
            owner,
            state,
            finished,
            accepted,
            batches,
            keys,
            conversations,
            messages,
            sessions,
            subscriptions,
            journal,
            schedule,
            begin: _,
        } = self;
        journal.is_some()
            && (owner.is_some()
                || state.is_some()
                || !(finished.is_empty() && accepted.is_empty() && batches.is_empty() && keys.is_empty())
                || !(conversations.is_empty() && messages.is_empty() && sessions.is_empty())
                || !subscriptions.is_empty()
                || schedule.is_some())
    }

    /// Whether it is nothing but a submission of tasks that wait for no others.
    pub(crate) fn is_submission_alone(&self) -> bool {
        self.owner.is_none()
            && self.state.is_none()
            && self.finished.is_empty()
            && !self.accepted.is_empty()
            && self.accepted.iter().all(|task| task.after.is_empty())
            && self.batches.is_empty()
            && self.keys.is_empty()
            && !self.has_entities()
            && self.subscriptions.is_empty()
            && self.journal.is_none()
            && self.schedule.is_none()
    }

    /// Whether it touches conversations or sessions.
    pub(crate) fn has_entities(&self) -> bool {
        !(self.conversations.is_empty() && self.messages.is_empty() && self.sessions.is_empty())
    }
}

/// Why a unit that mixes is refused.
pub(crate) const MIXED: &str = "what a task function has come to is committed alone";

/// What became of one unit.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is durable (perhaps since an earlier try).
    Durable,
    /// It is durable, and its task is claimed: [`Unit::begin`].
    Begun {
        /// The task's place in the order of acceptance.
        seq: i64,
        /// The claim.
        claim: ClaimId,
    },
    /// It left no trace.
    Refused(Refusal),
}

/// Why a unit was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The partition's epoch or the agent's version is not what the writer thought.
    #[error("fenced: another activation owns the agent or has moved it on")]
    Fenced,
    /// A task is not claimed by this node in this attempt any more.
    #[error("the claim of task {0} was lost")]
    ClaimLost(TaskId),
    /// An idempotency key is taken.
    #[error("the idempotency key is taken")]
    KeyTaken(KeyRow),
    /// `after` names a task that nobody knows.
    #[error("task {0}, which is to be waited for, does not exist")]
    ParentUnknown(TaskId),
    /// A message is for a conversation that is not there, or was deleted.
    #[error("there is no conversation {0}")]
    ConversationUnknown(ConversationId),
    /// A session is not what the writer expected.
    #[error("the session `{0}` has changed since it was read")]
    SessionMoved(String),
    /// A schedule is not as it was read: another node has moved it on, or a person has changed it.
    #[error("the schedule `{0}` has moved on or changed since it was read")]
    ScheduleMoved(String),
    /// The store cannot take this unit, whatever its neighbours are.
    #[error("the store cannot take it: {0}")]
    Bad(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{conversation::MessageId, session::Expect};

    #[test]
    fn a_unit_of_session_writes_alone_wants_a_name() {
        let write = |change| SessionWrite { id: "s".into(), change };
        let remove = || write(SessionChange::Remove { expect: Expect::Any });
        assert!(!Unit::default().is_nameless());
        let touch = Unit { sessions: vec![write(SessionChange::Touch)], ..Unit::default() };
        assert!(!touch.is_nameless(), "a use may be written down twice");
        let nameless = Unit { sessions: vec![write(SessionChange::Touch), remove()], ..Unit::default() };
        assert!(nameless.is_nameless());
        let content = serde_json::value::RawValue::from_string("1".into()).unwrap_or_default();
        let (id, conversation) = (MessageId::fresh(), ConversationId::fresh());
        let message = NewMessage { id, conversation, role: "user".into(), content };
        let named = Unit { messages: vec![message], ..nameless };
        assert!(!named.is_nameless());
    }
}
