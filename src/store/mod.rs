//! The store, behind one trait: group commits, reads, claims and repairs.
//!
//! [`Store`] is an internal extension point, not pluggable from a program yet. Its implementations are SQLite,
//! Postgres and, for tests, one in memory; `tests/conformance` holds the rules that each must keep.
//!
//! A [`Unit`] commits as a whole: at most one agent's new state, the tasks it ended and submitted, the
//! idempotency keys it settled, its writes to conversations and sessions, the subscriptions it began and ended,
//! the schedule it advanced; or else, alone, the progress of a running task function.
//! The units of one call share a transaction, but each gets its own [`Verdict`].

mod acts;
mod cause;
mod commit_retry;
mod crashes;
mod deletions;
mod entities;
mod families;
mod finish;
mod history;
mod journal;
mod lists;
mod member;
mod memory;
mod open;
mod postgres;
mod read;
mod retention;
mod rows;
mod schedules;
mod schema;
mod settings;
mod shared;
mod sql_text;
mod sqlite;
mod talk_check;
mod tokens;
mod told;
mod unit;
mod values;
mod verify;

pub use acts::{ActFilter, Acts};
pub use cause::Cause;
pub use commit_retry::Tries;
pub use crashes::{CrashFilter, MAX_CRASH_GROUPS};
pub use deletions::{Deletion, Deletions};
pub use entities::{ConversationFilter, Entities, Forgotten, MAX_PAGE_BYTES, MessagePage};
pub use families::{Families, Kin};
pub use journal::{Journals, SignalFound};
pub use member::{Member, NodeRow, Ownership};
pub use memory::MemoryStore;
pub use open::{
    Durability, StoreOptions, VerifyReport, backup, migrate, migration_status, open, verify, verify_with,
};
pub use retention::Past;
pub use schedules::Schedules;
pub use settings::{KeptSettings, SettingsShelf};
pub use shared::{Hint, PoolStatus, Shared, Watch};
pub use tokens::Tokens;
pub(crate) use unit::MIXED;
pub use unit::{Finish, FinishOutcome, Guard, KeyRow, KeyWrite, Refusal, StateWrite, Unit, Verdict};
pub use verify::{SeenState, StateReader};

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use crate::model::{
    crash_group::CrashGroup,
    id::{AgentId, Target, TaskId},
    targets::Targets,
    task::{ClaimId, Claimed, DeadTask, Queue, TaskEvent, TaskState, TaskView},
    topic::Subscriber,
};

/// Why a whole call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing happened; the call may be repeated.
    #[error("the store did not take it: {0}")]
    NotDone(String),
    /// The call may or may not have taken effect: send the same units again.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// No room is left on the device.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The device failed to keep a commit: the process must end.
    #[error("the device failed to keep a commit: {0}")]
    Fatal(String),
    /// The stored data cannot be read.
    #[error("the stored data cannot be read: {0}")]
    Corrupt(String),
    /// Another process uses it, or it was made by a newer version.
    #[error("{0}")]
    Refused(String),
}

/// Operators' lasting decisions about an agent; everything else of its status is memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i16)]
pub enum StoredStatus {
    /// It runs when it is needed.
    #[default]
    Normal = 0,
    /// Messages wait.
    Paused = 1,
    /// Messages are refused, tasks parked.
    Stopped = 2,
    /// Its state could not be read.
    Quarantined = 3,
    /// A person has deleted it: a later message starts it anew. In no listing.
    Deleted = 4,
}

impl StoredStatus {
    /// Whether an agent with it runs nothing until a person lets it.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Paused | Self::Stopped | Self::Quarantined)
    }

    /// Whether an agent with it has ended: it takes no messages until a person brings it back.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Stopped | Self::Quarantined)
    }
}

/// An agent's row.
#[derive(Debug, Clone)]
pub struct AgentRow {
    /// Its identity.
    pub id: AgentId,
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// Its lasting status.
    pub status: StoredStatus,
    /// Why it has that status, for a person.
    pub reason: Option<String>,
    /// The epoch of its last commit.
    pub epoch: i64,
    /// The version of its last commit; 0 where only a status is stored.
    pub version: i64,
    /// The schema version of its state.
    pub schema_version: u32,
    /// The framed snapshot; empty in listings and where `version` is 0.
    pub bytes: Vec<u8>,
    /// First commit.
    pub created_at: Timestamp,
    /// Last commit.
    pub updated_at: Timestamp,
}

impl AgentRow {
    /// Its state, as it is shown to whoever can read it.
    pub(crate) fn seen(&self) -> SeenState<'_> {
        SeenState {
            id: self.id,
            kind: &self.kind,
            key: &self.key,
            epoch: self.epoch,
            version: self.version,
            schema_version: self.schema_version,
            is_current: true,
            bytes: &self.bytes,
        }
    }
}

/// Which agents to list. Pages go by (kind, key).
#[derive(Debug, Clone, Default)]
pub struct AgentFilter {
    /// Only this kind.
    pub kind: Option<String>,
    /// Only this lasting status.
    pub status: Option<StoredStatus>,
    /// Only those that do not run: paused, stopped, quarantined.
    pub held: bool,
    /// After this (kind, key).
    pub after: Option<(String, String)>,
    /// At most so many; 1 to 1,000.
    pub limit: usize,
}

/// Which tasks to list. Pages go by id, newest first.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Only this state.
    pub state: Option<TaskState>,
    /// Only these targets.
    pub target: Option<Targets>,
    /// Only with this label.
    pub tag: Option<String>,
    /// Older than this id.
    pub before: Option<TaskId>,
    /// At most so many; 1 to 1,000.
    pub limit: usize,
}

impl TaskFilter {
    /// Whether it leaves tasks out: then only so many are looked at.
    pub(crate) fn leaves_out(&self) -> bool {
        self.state.is_some() || self.target.is_some() || self.tag.is_some()
    }
}

/// A page of tasks.
#[derive(Debug, Clone, Default)]
pub struct TaskPage {
    /// The tasks, newest first.
    pub items: Vec<TaskView>,
    /// The oldest one that was looked at, where there are older ones that may be meant as well: no index leads
    /// to a target or a label, since every task would pay for it, and so no call looks at all of them.
    pub looked_to: Option<TaskId>,
}

/// How much to claim.
#[derive(Debug, Clone, Default)]
pub struct ClaimRequest {
    /// At most so many tasks for agents.
    pub agents: usize,
    /// At most so many tasks for tools.
    pub tools: usize,
    /// Targets that have no room now.
    pub except: Vec<String>,
    /// Kinds and tools in their turn, with what each may have; those that are not named come first, and may
    /// have all.
    pub queues: Vec<Queue>,
    /// Tools whose claim may be all that says that an effect has begun: no crash of the store may forget it.
    pub durable: Vec<String>,
    /// Claim one suspect (lost twice or more), and nothing else.
    pub alone: bool,
}

/// What a cancellation met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelFound {
    /// It had not started; it is to be finished by the caller with [`Guard::Idle`].
    Idle,
    /// It runs; it has been flagged.
    Running,
    /// It had ended already.
    Final(TaskState),
}

/// Why a task is to be ended although nobody ran it to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doom {
    /// A prerequisite task did not succeed.
    ParentFailed,
    /// It expired before it started.
    Expired,
    /// It was lost too often while it ran alone: to be made a dead letter.
    Poison,
    /// It was cancelled while it ran, and the attempt ended without saying so.
    Cancelled,
}

/// Figures for `status` and `/metrics`.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Tasks by state.
    pub tasks: Vec<(TaskState, u64)>,
    /// Agents by lasting status (an estimate where an exact count is expensive).
    pub agents: Vec<(StoredStatus, u64)>,
}

/// When the longest-waiting item of each kind began to wait for an operator; `None` if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Oldest {
    /// Quarantined agents.
    pub quarantined: Option<Timestamp>,
    /// Tasks whose outcome is unknown; where there are very many, among the first accepted.
    pub outcome_unknown: Option<Timestamp>,
}

/// What `db status` tells.
#[derive(Debug, Clone)]
pub struct Migrations {
    /// Applied, by name.
    pub applied: Vec<String>,
    /// Known to this program and not applied.
    pub pending: Vec<String>,
    /// Applied, and not known to this program: it is older than the store.
    pub unknown: Vec<String>,
}

/// The durable state of all agents and tasks. Calls may come from any thread; callers never drop one before it
/// has ended (the runtime runs each in a Tokio task of its own).
#[async_trait]
pub trait Store:
    Acts + Deletions + Entities + Families + Journals + Schedules + SettingsShelf + Tokens + Send + Sync + 'static
{
    /// `sqlite` or `postgres`, with its version.
    fn name(&self) -> String;

    /// How many writers may commit side by side: agents are spread over them by id.
    fn writers(&self) -> usize;

    /// Whether [`Store::commit`] blocks its thread, and so wants one of its own.
    fn blocks(&self) -> bool;

    /// Its capabilities for several processes; `None` where only one process can use it.
    fn shared(&self) -> Option<&dyn Shared>;

    /// Begins a lease under a fresh boot id and takes what nobody else owns: every partition taken
    /// gets a new epoch, and what a dead boot was running becomes ready again (`lost + 1`).
    ///
    /// A boot whose lease has ended joins again under the same id, and gets a new lease. A partition
    /// that still stands under its id, so that nobody came between, may keep its epoch: the node then
    /// goes on there without restoring. What this very boot is running is not rescued by it.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where a later boot of the same instance is alive: two processes on one
    /// data directory would take everything from each other for ever, so the earlier one ends.
    async fn join(&self, member: &Member) -> Result<Ownership, StoreError>;

    /// Renews the lease by the store's own clock, takes what has lost its owner, and rescues what
    /// dead boots were running. `None`: the lease had ended, and can never be renewed again.
    async fn renew(&self, member: &Member) -> Result<Option<Ownership>, StoreError>;

    /// Ends the lease, so that other nodes may take over at once.
    async fn leave(&self, boot: Uuid) -> Result<(), StoreError>;

    /// The nodes that have not ended, with what they own.
    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError>;

    /// Whether it takes notice of [`Unit::begin`].
    fn begins(&self) -> bool {
        false
    }

    /// Commits units in one transaction, each with its own verdict, in their order.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] must be answered by sending the same units again: a unit that is
    /// durable already is recognised and judged [`Verdict::Durable`].
    async fn commit(&self, boot: Uuid, units: &[Unit]) -> Result<Vec<Verdict>, StoreError>;

    /// Agents' rows with their states, in the order asked for.
    async fn load(&self, ids: &[AgentId]) -> Result<Vec<Option<AgentRow>>, StoreError>;

    /// Agents' rows in the order asked for; the states may be left out.
    async fn heads(&self, ids: &[AgentId]) -> Result<Vec<Option<AgentRow>>, StoreError> {
        self.load(ids).await
    }

    /// One page of agents, without their states.
    async fn agents(&self, filter: &AgentFilter) -> Result<Vec<AgentRow>, StoreError>;

    /// The kept snapshots of an agent, the current one among them, newest first: version, when,
    /// framed bytes.
    async fn snapshots(&self, id: AgentId) -> Result<Vec<(i64, Timestamp, Vec<u8>)>, StoreError>;

    /// Keeps a lasting status; a row is made (version 0) where there was none. Guarded by the epoch.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where the epoch is not the partition's any more.
    async fn set_status(
        &self,
        id: AgentId,
        kind: &str,
        key: &str,
        epoch: i64,
        status: StoredStatus,
        reason: Option<&str>,
    ) -> Result<(), StoreError>;

    /// An idempotency key that has not expired.
    async fn key(&self, scope: Uuid, key: &str) -> Result<Option<KeyRow>, StoreError>;

    /// Who is subscribed to a topic, by its stored name: the first `limit` of them, by their ids, and how
    /// many there are beyond those.
    async fn subscribers(&self, topic: &str, limit: usize) -> Result<(Vec<Subscriber>, u64), StoreError>;

    /// The first of them alone: nothing is counted.
    async fn first_subscribers(&self, topic: &str, limit: usize) -> Result<Vec<Subscriber>, StoreError>;

    /// Claims ready tasks for this boot. The room is shared between their kinds, and between tools, as
    /// [`share_out`](crate::model::task::share_out) has it; of each the best go first (priority, then order
    /// of acceptance), and so they are answered. Nothing of a paused one is claimed.
    async fn claim(&self, boot: Uuid, request: &ClaimRequest) -> Result<Vec<Claimed>, StoreError>;

    /// Makes due tasks ready, and ends the expired and the doomed of which nobody is to be told
    /// ([`Store::doomed`] has the others), a bounded number a call and one generation of children;
    /// tells how many became ready and when the next one is due or expires.
    async fn promote(&self, now: Timestamp) -> Result<(u64, Option<Timestamp>), StoreError>;

    /// Tasks that the runtime must end with [`Guard::Idle`] (poison failed, the others cancelled)
    /// because somebody is to be told, a bounded number a call. Until then nobody can claim them.
    /// The store itself ends those of which nobody is to be told, in [`Store::promote`].
    async fn doomed(&self) -> Result<Vec<(TaskId, Doom)>, StoreError>;

    /// Gives claims back that did not start: ready again, `attempt - 1`. A later claim of the same task,
    /// and of the same attempt, is left alone: this call may be late, or be repeated.
    async fn give_back(&self, boot: Uuid, claims: &[(TaskId, ClaimId)]) -> Result<(), StoreError>;

    /// What this boot is running, with its claim: more than it knows of where the answer to a claim
    /// was lost.
    async fn running(&self, boot: Uuid) -> Result<Vec<(TaskId, ClaimId)>, StoreError>;

    /// Pauses a queue (a kind, or `tool:NAME`): nothing of it is claimed by anybody until it is resumed. Says
    /// whether that changed anything.
    async fn pause(&self, queue: &str, paused: bool) -> Result<bool, StoreError>;

    /// The paused queues by name, and since when.
    async fn paused(&self) -> Result<Vec<(String, Timestamp)>, StoreError>;

    /// Parks the ready and scheduled tasks of a target, or makes its parked ones ready again, and scheduled those
    /// whose time has not come; says how many.
    async fn park(&self, target: &str, park: bool) -> Result<u64, StoreError>;

    /// The targets that have parked tasks, in the order of their names: the first `limit` behind one.
    async fn parked(&self, after: Option<&str>, limit: usize) -> Result<Vec<Target>, StoreError>;

    /// A task, hot or archived.
    async fn task(&self, id: TaskId) -> Result<Option<TaskView>, StoreError>;

    /// A task's data as a claim would give it, hot or archived (for `cancel` and `Done`).
    async fn task_data(&self, id: TaskId) -> Result<Option<Claimed>, StoreError>;

    /// One page of tasks, newest first, hot and archived. Where the filter leaves some out, no more than
    /// some ten thousand are looked at.
    async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, StoreError>;

    /// A task's history, oldest first; empty where nobody knows it.
    async fn history(&self, id: TaskId) -> Result<Vec<TaskEvent>, StoreError>;

    /// Looks a task up for cancellation; flags it where it runs. `None`: nobody knows it.
    async fn cancel(&self, id: TaskId) -> Result<Option<CancelFound>, StoreError>;

    /// Brings a failed or cancelled task back with `attempt = lost = 0` and a new place in the
    /// order; confirms an `outcome_unknown` one. `Ok(Err(state))`: it is in another state.
    async fn retry(&self, id: TaskId) -> Result<Option<Result<(), TaskState>>, StoreError>;

    /// One look at what failed or was cancelled: the `limit` (1 to 1,000) newest before a task, without their
    /// payloads.
    async fn dead(&self, before: Option<TaskId>, limit: usize) -> Result<Vec<DeadTask>, StoreError>;

    /// Brings those of them back that still stand as they were seen, as [`Store::retry`] does, in one
    /// transaction; says how many.
    async fn retry_many(&self, dead: &[DeadTask]) -> Result<u64, StoreError>;

    /// Lets those of them rest that still stand as they were seen and have failed: they are cancelled now, with
    /// the error and the history that they have, in one transaction; says how many.
    async fn dismiss_many(&self, dead: &[DeadTask]) -> Result<u64, StoreError>;

    /// How many tasks this boot may claim as suspects (ready, lost twice or more, not of a paused queue).
    async fn suspects(&self, boot: Uuid) -> Result<u64, StoreError>;

    /// Figures, without counting big tables.
    async fn counts(&self) -> Result<Counts, StoreError>;

    /// How many agents of each kind are paused, stopped or quarantined: these are counted one by one, as there
    /// are few of them.
    async fn held(&self) -> Result<Vec<(String, StoredStatus, u64)>, StoreError>;

    /// Since when agents are in quarantine and outcomes unknown.
    async fn oldest(&self) -> Result<Oldest, StoreError>;

    /// Merges crash groups into those that are there, as [`CrashGroup::merge`] does; a power cut may take
    /// it back. No id comes twice in a call.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] answered by sending them again may count their crashes twice.
    async fn note_crashes(&self, groups: &[CrashGroup]) -> Result<(), StoreError>;

    /// One page of crash groups, those with the latest crashes first.
    async fn crash_groups(&self, filter: &CrashFilter) -> Result<Vec<CrashGroup>, StoreError>;

    /// Forgets expired keys, what has ended long enough ago (a task with all that is its own: history, journal,
    /// signals, logs) and crash groups (those that have gone quiet, and the longest quiet of more than
    /// [`MAX_CRASH_GROUPS`]), a bounded number a call; says how many.
    ///
    /// An idempotency key outlives its task: it goes when it expires, since until then it keeps the work from
    /// being done twice.
    async fn clean(&self, now: Timestamp, past: Past) -> Result<u64, StoreError>;

    /// Checks that the store answers, and would take writes.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Writes something of no meaning, some tens of kilobytes, where an earlier one stood: whether a disk that was
    /// full has room again.
    ///
    /// # Errors
    /// [`StoreError::Full`] where it has not.
    async fn try_room(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// For how long the call that waits for the longest has heard nothing; `None` where nobody waits, or
    /// the store cannot tell.
    fn silence(&self) -> Option<std::time::Duration> {
        None
    }
}
