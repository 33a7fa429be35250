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
mod agent_rows;
mod cause;
mod commit_retry;
mod crashes;
mod deletions;
mod doom;
mod entities;
mod error;
mod families;
mod finish;
mod history;
mod journal;
mod listed;
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
pub use doom::{Doom, Doomed, Promoted};
pub use entities::{ConversationFilter, Entities, Forgotten, MAX_PAGE_BYTES, MessagePage};
pub use error::StoreError;
pub use families::{Families, Kin};
pub(crate) use finish::TELLING_ATTEMPTS;
pub use journal::{Journals, SignalFound};
pub use member::{Member, NodeRow, Ownership};
pub use memory::MemoryStore;
pub use open::{
    Durability, Engine, StoreOptions, VerifyReport, backup, engine, migrate, migration_status, open, verify,
    verify_with,
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
    task::{ClaimId, Claimed, DeadTask, HeldClaim, Queue, TaskEvent, TaskState, TaskView},
    topic::Subscriber,
};

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
    /// Since when it has had that status; absent where it was made with it.
    pub held_at: Option<Timestamp>,
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
    /// At most so many tasks for one agent.
    pub each: Option<usize>,
    /// So many tasks of a kind's agents are passed over at most, since their agents have no room or have had their
    /// part: what stands behind more is not found.
    pub look: Option<usize>,
    /// The kinds and tools that the node has, in their turn, with what each may have. Empty: all that there are.
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

    /// Whether [`Store::commit`] blocks its thread, and so needs one of its own.
    fn blocks(&self) -> bool;

    /// Its capabilities for several processes; `None` where only one process can use it.
    fn shared(&self) -> Option<&dyn Shared>;

    /// Begins a lease under a fresh boot id and takes the partitions without an owner: every partition taken
    /// gets a new epoch, and the tasks that a dead boot was running become ready again (`lost + 1`).
    ///
    /// A boot whose lease has ended joins again under the same id, and gets a new lease. A partition
    /// that is still recorded under its id, so that no other node had it meanwhile, may keep its epoch: the
    /// node then continues there without restoring. Tasks that this very boot is running are not rescued.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if a later boot of the same instance is alive: two processes on one
    /// data directory would take everything from each other for ever, so the earlier one ends.
    async fn join(&self, member: &Member) -> Result<Ownership, StoreError>;

    /// Renews the lease by the store's own clock, takes partitions that have lost their owner, and rescues the
    /// tasks of dead boots. `None`: the lease had ended, and can never be renewed again.
    async fn renew(&self, member: &Member) -> Result<Option<Ownership>, StoreError>;

    /// Ends the lease, so that other nodes may take over at once.
    async fn leave(&self, boot: Uuid) -> Result<(), StoreError>;

    /// The nodes that have not ended, with their partitions.
    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError>;

    /// Whether it supports [`Unit::begin`].
    fn begins(&self) -> bool {
        false
    }

    /// Commits units in one transaction, each with its own verdict, in their order.
    ///
    /// # Errors
    /// After [`StoreError::Unknown`] the same units must be sent again: a unit that is already durable is
    /// recognised, with the verdict [`Verdict::Durable`].
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

    /// Stores a lasting status; creates a row (version 0) if there was none. Guarded by the epoch.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the partition has another epoch by now.
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

    /// The subscribers of a topic, by its stored name: the first `limit` of them, by their ids, and how
    /// many more there are.
    async fn subscribers(&self, topic: &str, limit: usize) -> Result<(Vec<Subscriber>, u64), StoreError>;

    /// The first subscribers only, without counting the rest.
    async fn first_subscribers(&self, topic: &str, limit: usize) -> Result<Vec<Subscriber>, StoreError>;

    /// Claims ready tasks for this boot. Free slots are shared between kinds and tools by
    /// [`share_out`](crate::model::task::share_out); of each, tasks are taken and returned by priority, then in
    /// order of acceptance. Nothing of a paused kind or tool is claimed.
    async fn claim(&self, boot: Uuid, request: &ClaimRequest) -> Result<Vec<Claimed>, StoreError>;

    /// Makes due tasks ready, and ends expired and doomed tasks without anybody to notify
    /// ([`Store::doomed`] has the others), a bounded number per call and one generation of dependents.
    async fn promote(&self, now: Timestamp) -> Result<Promoted, StoreError>;

    /// Tasks that the runtime must end with [`Guard::Idle`] (poison failed, the others cancelled)
    /// because somebody must be notified, a bounded number per call. Until then they cannot be claimed.
    /// The store itself ends the others, in [`Store::promote`].
    async fn doomed(&self) -> Result<Vec<(TaskId, Doom)>, StoreError>;

    /// Gives back claims that did not start: the tasks are ready again, `attempt - 1`. A later claim of the same task,
    /// even of the same attempt, is not affected: this call may be late, or be repeated.
    async fn give_back(&self, boot: Uuid, claims: &[(TaskId, ClaimId)]) -> Result<(), StoreError>;

    /// Gives back claims of tools' tasks that may have started, and that the node's end has broken off: as
    /// [`Store::give_back`] does, but they do not expire any more, and could run as of their acceptance, if they have
    /// no such time yet, which tells their function that it may have run before.
    async fn break_off(&self, boot: Uuid, claims: &[(TaskId, ClaimId)]) -> Result<(), StoreError>;

    /// The claims of this boot: more than it knows of, if the answer to a claim was lost.
    async fn running(&self, boot: Uuid) -> Result<Vec<HeldClaim>, StoreError>;

    /// Pauses a queue (a kind, or `tool:NAME`), so that no node claims any of it, or resumes it. Returns whether
    /// that changed anything.
    async fn pause(&self, queue: &str, paused: bool) -> Result<bool, StoreError>;

    /// The queues with ready tasks, and since when the next of each is ready: a seek for each.
    async fn ready_queues(&self) -> Result<Vec<(String, Timestamp)>, StoreError>;
    /// The paused queues by name, and since when.
    async fn paused(&self) -> Result<Vec<(String, Timestamp)>, StoreError>;

    /// Parks the ready and scheduled tasks of a target, or makes its parked ones ready again (scheduled, if their
    /// time has not come); returns how many.
    async fn park(&self, target: &str, park: bool) -> Result<u64, StoreError>;

    /// The targets that have parked tasks, by name: the first `limit` after the given one.
    async fn parked(&self, after: Option<&str>, limit: usize) -> Result<Vec<Target>, StoreError>;

    /// A task, hot or archived.
    async fn task(&self, id: TaskId) -> Result<Option<TaskView>, StoreError>;

    /// A task's data as a claim would give it, hot or archived (for `cancel` and `Done`). The input of what succeeded
    /// goes with its end: it is `null`.
    async fn task_data(&self, id: TaskId) -> Result<Option<Claimed>, StoreError>;

    /// One page of tasks, newest first, hot and archived: without their results, and with bounded errors. With a
    /// filter, about ten thousand are scanned at most.
    async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, StoreError>;

    /// A task's history, oldest first; empty if the task is unknown.
    async fn history(&self, id: TaskId) -> Result<Vec<TaskEvent>, StoreError>;

    /// Looks up a task for cancellation, and flags it if it runs. `None`: unknown.
    async fn cancel(&self, id: TaskId) -> Result<Option<CancelFound>, StoreError>;

    /// Retries a failed or cancelled task with `attempt = lost = 0`, a new place in the order and now as the time
    /// from which it could run; confirms an `outcome_unknown` one. `Ok(Err(state))`: it is in another state.
    async fn retry(&self, id: TaskId) -> Result<Option<Result<(), TaskState>>, StoreError>;

    /// One page of failed and cancelled tasks: the `limit` (1 to 1,000) newest before a task, without their
    /// payloads.
    async fn dead(&self, before: Option<TaskId>, limit: usize) -> Result<Vec<DeadTask>, StoreError>;

    /// Retries those of them that have not changed since they were read, as [`Store::retry`] does, in one
    /// transaction; returns how many.
    async fn retry_many(&self, dead: &[DeadTask]) -> Result<u64, StoreError>;

    /// Dismisses those of them that have failed and have not changed since they were read: they become
    /// cancelled, and keep their error and history, in one transaction; returns how many.
    async fn dismiss_many(&self, dead: &[DeadTask]) -> Result<u64, StoreError>;

    /// The targets of the suspects that this boot may claim: ready, lost twice or more, not of a paused queue.
    async fn suspects(&self, boot: Uuid) -> Result<Vec<Target>, StoreError>;

    /// Counts, without scanning big tables.
    async fn counts(&self) -> Result<Counts, StoreError>;

    /// How many agents of each kind are paused, stopped or quarantined: these are counted one by one, as there
    /// are few of them.
    async fn held(&self) -> Result<Vec<(String, StoredStatus, u64)>, StoreError>;

    /// Since when agents are quarantined and outcomes unknown.
    async fn oldest(&self) -> Result<Oldest, StoreError>;

    /// Merges crash groups into the stored ones, as [`CrashGroup::merge`] does; a power cut may undo it. Each id
    /// occurs once per call.
    ///
    /// # Errors
    /// After [`StoreError::Unknown`], sending them again may count their crashes twice.
    async fn note_crashes(&self, groups: &[CrashGroup]) -> Result<(), StoreError>;

    /// One page of crash groups, those with the latest crashes first.
    async fn crash_groups(&self, filter: &CrashFilter) -> Result<Vec<CrashGroup>, StoreError>;

    /// Deletes expired keys, tasks that ended long enough ago (with their history, journal, signals and logs)
    /// and crash groups (those without recent crashes, and the oldest of more than [`MAX_CRASH_GROUPS`]), a
    /// bounded number per call; returns how many: 0 where there is nothing more to do.
    ///
    /// An idempotency key outlives its task: it is deleted when it expires, since until then it keeps the work
    /// from being done twice.
    async fn clean(&self, now: Timestamp, past: Past) -> Result<u64, StoreError>;

    /// Checks that the store answers, and would take writes.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Overwrites a dummy value of some tens of kilobytes, to find out whether a full disk has room again.
    ///
    /// # Errors
    /// [`StoreError::Full`] if it has not.
    async fn try_room(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How long the longest-waiting call has heard nothing; `None` if no call waits, or the store cannot tell.
    fn silence(&self) -> Option<std::time::Duration> {
        None
    }
}
