//! The store in memory, for the test kit: plain maps behind one lock, no thread and no file.
//!
//! It keeps every rule of `tests/conformance`, but for the one that a store is there for: what it has
//! acknowledged ends with it. So no URL opens it, and no configuration can ask for it.
//!
//! [`state::State`] holds the tables; what a call does to them stands in the file of its noun, as for the
//! other stores. Within a unit the tables remember what they held ([`table`]), so that a refused one
//! leaves no trace.

mod acts;
mod claim;
mod clean;
mod commit;
mod crashes;
mod deletions;
mod entities;
mod families;
mod finish;
mod journal;
mod nodes;
mod operate;
mod read;
mod schedules;
mod state;
mod subscriptions;
mod table;
mod task;
mod tokens;
mod verify;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use uuid::Uuid;

use self::{nodes::Tenancy, state::State};
use super::{
    AgentFilter, AgentRow, CancelFound, ClaimRequest, ConversationFilter, Counts, CrashFilter, Doom,
    Entities, Families, Forgotten, Journals, KeptSettings, KeyRow, Kin, Member, MessagePage, NodeRow, Oldest,
    Ownership, Past, Promoted, Schedules, SettingsShelf, Shared, SignalFound, StateReader, Store, StoreError,
    StoreOptions, StoredStatus, TaskFilter, TaskPage, Unit, Verdict, VerifyReport,
};
use crate::clock;
use crate::model::{
    conversation::{Conversation, ConversationId, MessageId, StoredMessage},
    crash_group::CrashGroup,
    id::{AgentId, Target, TaskId},
    journal::{Journal, LogLine, Signal, TaskNotes, Wait},
    schedule::Schedule,
    session::Session,
    task::{ClaimId, Claimed, DeadTask, HeldClaim, Prerequisite, TaskEvent, TaskState, TaskView},
    topic::Subscriber,
};

/// A store in memory, for tests: it ends with its value. Every boot that joins takes it over from the one
/// before, as with SQLite; or several [share](Self::shared_by_clock) it, as with Postgres.
pub struct MemoryStore {
    state: Mutex<State>,
    clock: Clock,
}

/// Tells a store what time it is.
type Clock = Box<dyn Fn() -> Timestamp + Send + Sync>;

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store that samples earlier states as the others do.
    pub fn new() -> Self {
        Self::with_options(&StoreOptions::default())
    }

    /// An empty store. Of the options only those about earlier states mean something to it.
    pub fn with_options(options: &StoreOptions) -> Self {
        Self { state: Mutex::new(State::new(options, Tenancy::Sole)), clock: Box::new(clock::now) }
    }

    /// An empty store that several nodes share: each has a lease by this clock, and what it owned and ran
    /// is taken over by the first that joins or renews its own after that has ended.
    ///
    /// The clock is the store's own in all that it does; only [`Store::promote`], [`Store::clean`] and
    /// [`Entities::forget`] are told another's.
    pub fn shared_by_clock(
        options: &StoreOptions,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self { state: Mutex::new(State::new(options, Tenancy::Leased)), clock: Box::new(clock) }
    }

    /// Reads all that is kept: every state against its row, every payload.
    pub fn verify(&self) -> VerifyReport {
        self.verify_with(&mut |_| {})
    }

    /// The same, showing each sound state to `reader`.
    pub fn verify_with<'r>(&self, reader: &'r mut StateReader<'r>) -> VerifyReport {
        self.read(|state| verify::verify(state, reader))
    }

    /// Whether no task is under way or due. A retry is under way; what waits for a later moment, a person
    /// or another task is not.
    pub fn is_at_rest(&self, now: Timestamp) -> bool {
        self.read(|s| s.is_at_rest(now))
    }

    fn read<T>(&self, work: impl FnOnce(&State) -> T) -> T {
        work(&self.state.lock())
    }

    /// Runs `work` at one moment; nobody sees it half done.
    fn write<T>(&self, now: Timestamp, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        state.begin(now);
        let done = work(&mut state);
        state.keep();
        done
    }

    fn write_now<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        self.write((self.clock)(), work)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn name(&self) -> String {
        "memory (for tests)".to_owned()
    }

    fn writers(&self) -> usize {
        1
    }

    fn blocks(&self) -> bool {
        false
    }

    fn shared(&self) -> Option<&dyn Shared> {
        None
    }

    async fn join(&self, member: &Member) -> Result<Ownership, StoreError> {
        self.write_now(|s| s.join(member))
    }

    async fn renew(&self, member: &Member) -> Result<Option<Ownership>, StoreError> {
        self.write_now(|s| s.renew(member))
    }

    async fn leave(&self, boot: Uuid) -> Result<(), StoreError> {
        self.write_now(|s| s.leave(boot));
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        Ok(self.read(State::nodes))
    }

    async fn commit(&self, boot: Uuid, units: &[Unit]) -> Result<Vec<Verdict>, StoreError> {
        Ok(self.write_now(|s| units.iter().map(|unit| s.unit(boot, unit)).collect()))
    }

    async fn load(&self, ids: &[AgentId]) -> Result<Vec<Option<AgentRow>>, StoreError> {
        Ok(self.read(|s| s.load(ids)))
    }

    async fn heads(&self, ids: &[AgentId]) -> Result<Vec<Option<AgentRow>>, StoreError> {
        Ok(self.read(|s| s.heads(ids)))
    }

    async fn agents(&self, filter: &AgentFilter) -> Result<Vec<AgentRow>, StoreError> {
        Ok(self.read(|s| s.agents(filter)))
    }

    async fn snapshots(&self, id: AgentId) -> Result<Vec<(i64, Timestamp, Vec<u8>)>, StoreError> {
        Ok(self.read(|s| s.snapshots(id)))
    }

    async fn set_status(
        &self,
        id: AgentId,
        kind: &str,
        key: &str,
        epoch: i64,
        status: StoredStatus,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        self.write_now(|s| s.set_status(id, kind, key, epoch, status, reason))
    }

    async fn key(&self, scope: Uuid, key: &str) -> Result<Option<KeyRow>, StoreError> {
        let now = (self.clock)();
        Ok(self.read(|s| s.stored_key(scope, key, now)))
    }

    async fn claim(&self, boot: Uuid, request: &ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        Ok(self.write_now(|s| s.claim(boot, request)))
    }

    async fn promote(&self, now: Timestamp) -> Result<Promoted, StoreError> {
        self.write(now, State::promote)
    }

    async fn doomed(&self) -> Result<Vec<(TaskId, Doom)>, StoreError> {
        Ok(self.read(|s| s.doomed(false)).into_iter().map(|task| (task.id, task.why)).collect())
    }

    async fn give_back(&self, boot: Uuid, claims: &[(TaskId, ClaimId)]) -> Result<(), StoreError> {
        self.write_now(|s| s.give_back(boot, claims, false));
        Ok(())
    }

    async fn break_off(&self, boot: Uuid, claims: &[(TaskId, ClaimId)]) -> Result<(), StoreError> {
        self.write_now(|s| s.give_back(boot, claims, true));
        Ok(())
    }

    async fn running(&self, boot: Uuid) -> Result<Vec<HeldClaim>, StoreError> {
        Ok(self.read(|s| s.running(boot)))
    }

    async fn pause(&self, queue: &str, paused: bool) -> Result<bool, StoreError> {
        Ok(self.write_now(|s| s.pause(queue, paused)))
    }

    async fn ready_queues(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        Ok(self.read(State::ready_queues))
    }
    async fn paused(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        Ok(self.read(|s| s.paused.iter().map(|(queue, at)| (queue.clone(), *at)).collect()))
    }

    async fn park(&self, target: &str, park: bool) -> Result<u64, StoreError> {
        Ok(self.write_now(|s| if park { s.park(target) } else { s.unpark(target) }))
    }

    async fn parked(&self, after: Option<&str>, limit: usize) -> Result<Vec<Target>, StoreError> {
        Ok(self.read(|s| s.parked(after, limit)))
    }

    async fn task(&self, id: TaskId) -> Result<Option<TaskView>, StoreError> {
        Ok(self.read(|s| s.task(id).map(task::Task::view)))
    }

    async fn task_data(&self, id: TaskId) -> Result<Option<Claimed>, StoreError> {
        Ok(self.read(|s| s.task(id).map(task::Task::claimed)))
    }

    async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, StoreError> {
        Ok(self.read(|s| s.tasks(filter)))
    }

    async fn history(&self, id: TaskId) -> Result<Vec<TaskEvent>, StoreError> {
        Ok(self.read(|s| s.history_of(id)))
    }

    async fn cancel(&self, id: TaskId) -> Result<Option<CancelFound>, StoreError> {
        Ok(self.write_now(|s| s.cancel(id)))
    }

    async fn retry(&self, id: TaskId) -> Result<Option<Result<(), TaskState>>, StoreError> {
        Ok(self.write_now(|s| s.retry(id)))
    }

    async fn dead(&self, before: Option<TaskId>, limit: usize) -> Result<Vec<DeadTask>, StoreError> {
        Ok(self.read(|s| s.dead(before.as_ref(), limit)))
    }

    async fn retry_many(&self, dead: &[DeadTask]) -> Result<u64, StoreError> {
        Ok(self.write_now(|s| s.retry_many(dead)))
    }

    async fn dismiss_many(&self, dead: &[DeadTask]) -> Result<u64, StoreError> {
        Ok(self.write_now(|s| s.dismiss_many(dead)))
    }

    async fn subscribers(&self, topic: &str, limit: usize) -> Result<(Vec<Subscriber>, u64), StoreError> {
        Ok(self.read(|s| s.subscribers(topic, limit)))
    }

    async fn first_subscribers(&self, topic: &str, limit: usize) -> Result<Vec<Subscriber>, StoreError> {
        Ok(self.read(|s| s.subscribers(topic, limit)).0)
    }

    async fn suspects(&self, boot: Uuid) -> Result<Vec<Target>, StoreError> {
        Ok(self.read(|s| s.suspects(boot)))
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        Ok(self.read(State::counts))
    }

    async fn held(&self) -> Result<Vec<(String, StoredStatus, u64)>, StoreError> {
        Ok(self.read(State::held))
    }

    async fn oldest(&self) -> Result<Oldest, StoreError> {
        Ok(self.read(State::oldest))
    }

    async fn note_crashes(&self, groups: &[CrashGroup]) -> Result<(), StoreError> {
        self.write_now(|s| s.note_crashes(groups));
        Ok(())
    }

    async fn crash_groups(&self, filter: &CrashFilter) -> Result<Vec<CrashGroup>, StoreError> {
        Ok(self.read(|s| s.crash_groups(filter)))
    }

    async fn clean(&self, now: Timestamp, past: Past) -> Result<u64, StoreError> {
        Ok(self.write(now, |s| s.clean(past)))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl Schedules for MemoryStore {
    async fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        Ok(self.read(State::schedules))
    }

    async fn schedule(&self, name: &str) -> Result<Option<Schedule>, StoreError> {
        Ok(self.read(|s| s.schedules.get(&name.to_owned()).cloned()))
    }

    async fn due_schedules(&self, now: Timestamp) -> Result<(Vec<Schedule>, Option<Timestamp>), StoreError> {
        Ok(self.read(|s| s.due_schedules(now)))
    }

    async fn put_schedule(&self, schedule: &Schedule, over: Option<&Schedule>) -> Result<bool, StoreError> {
        Ok(self.write_now(|s| s.put_schedule(schedule, over)))
    }

    async fn remove_schedule(&self, name: &str, revision: Uuid) -> Result<bool, StoreError> {
        Ok(self.write_now(|s| s.remove_schedule(name, revision)))
    }
}

#[async_trait]
impl SettingsShelf for MemoryStore {
    async fn settings(&self) -> Result<KeptSettings, StoreError> {
        Ok(self.read(|s| s.settings.clone()))
    }

    async fn keep_settings(&self, next: &KeptSettings) -> Result<bool, StoreError> {
        Ok(self.write_now(|s| {
            if s.settings.generation + 1 == next.generation {
                s.settings = next.clone();
            }
            s.settings == *next
        }))
    }
}

#[async_trait]
impl Entities for MemoryStore {
    async fn conversations(&self, ids: &[ConversationId]) -> Result<Vec<Option<Conversation>>, StoreError> {
        Ok(self.read(|s| ids.iter().map(|id| s.conversation(*id).cloned()).collect()))
    }

    async fn conversation_page(&self, filter: &ConversationFilter) -> Result<Vec<Conversation>, StoreError> {
        Ok(self.read(|s| s.conversation_page(filter)))
    }

    async fn messages(&self, ids: &[MessageId]) -> Result<Vec<Option<StoredMessage>>, StoreError> {
        Ok(self.read(|s| ids.iter().map(|id| s.message(*id).cloned()).collect()))
    }

    async fn message_page(
        &self,
        conversation: ConversationId,
        page: MessagePage,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        Ok(self.read(|s| s.message_page(conversation, page)))
    }

    async fn sessions(&self, ids: &[String]) -> Result<Vec<Option<Session>>, StoreError> {
        let now = (self.clock)();
        Ok(self.read(|s| ids.iter().map(|id| s.session(id, now).cloned()).collect()))
    }

    async fn forget(&self, now: Timestamp, idle_since: Option<Timestamp>) -> Result<Forgotten, StoreError> {
        Ok(self.write(now, |s| s.forget(idle_since)))
    }
}

#[async_trait]
impl Families for MemoryStore {
    async fn edges(&self, around: &[TaskId], limit: usize) -> Result<Vec<(TaskId, TaskId)>, StoreError> {
        Ok(self.read(|s| s.edges(around, limit)))
    }

    async fn kin_behind(&self, id: TaskId, limit: usize) -> Result<Vec<Kin>, StoreError> {
        Ok(self.read(|s| s.kin_behind(id, limit)))
    }

    async fn relatives(&self, ids: &[TaskId]) -> Result<Vec<TaskView>, StoreError> {
        Ok(self.read(|s| s.relatives(ids)))
    }

    async fn prerequisites(&self, of: TaskId, limit: usize) -> Result<Vec<Prerequisite>, StoreError> {
        Ok(self.read(|s| s.prerequisites(of, limit)))
    }
}

#[async_trait]
impl Journals for MemoryStore {
    async fn journal(&self, task: TaskId) -> Result<Journal, StoreError> {
        Ok(self.read(|s| s.journal(task)))
    }

    async fn waits(&self, task: TaskId) -> Result<Vec<Wait>, StoreError> {
        Ok(self.read(|s| s.waits(task)))
    }

    async fn signal(&self, task: TaskId, signal: &Signal) -> Result<Option<SignalFound>, StoreError> {
        self.write_now(|s| s.signal(task, signal)).map_err(|e| StoreError::Corrupt(e.to_string()))
    }

    async fn note(&self, notes: &[TaskNotes]) -> Result<(), StoreError> {
        self.write_now(|s| notes.iter().for_each(|note| s.note(note)));
        Ok(())
    }

    async fn progress(&self, task: TaskId) -> Result<Option<Box<RawValue>>, StoreError> {
        Ok(self.read(|s| s.progress(task)))
    }

    async fn task_logs(
        &self,
        task: TaskId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, LogLine)>, StoreError> {
        Ok(self.read(|s| s.task_logs(task, after, limit)))
    }
}
