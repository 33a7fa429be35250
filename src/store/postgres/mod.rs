//! The store on Postgres.
//!
//! What must happen together is one statement: a call of one of our functions, which the server
//! carries out whole or not at all, whatever becomes of the client. So no connection ever comes back
//! with a transaction open, and the group commit costs one round trip.

mod acts;
mod call;
mod commit;
mod connect;
mod crashes;
mod deletions;
mod doctor;
mod durable;
mod ends;
mod entities;
mod error;
mod families;
mod journal;
mod listen;
mod migrate;
mod pool;
mod queues;
mod read;
mod schedules;
mod settings;
mod states;
mod submissions;
mod subscriptions;
mod tls;
mod tokens;
mod url;
mod verify;
mod waves;
mod wire;
mod work;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio_postgres::Client;
use uuid::Uuid;

use self::{connect::Source, pool::Pools, url::Url};
use super::{
    AgentFilter, AgentRow, CancelFound, ClaimRequest, ConversationFilter, Counts, CrashFilter, Doom,
    Durability, Engine, Entities, Families, Forgotten, Hint, Journals, KeyRow, Kin, Member, MessagePage,
    Migrations, NodeRow, Oldest, Ownership, Past, PoolStatus, Promoted, Schedules, Shared, SignalFound,
    StateReader, Store, StoreError, StoreOptions, StoredStatus, TaskFilter, TaskPage, Unit, Verdict,
    VerifyReport, Watch, history, rows, told, values,
};
use crate::clock;
use crate::model::{
    conversation::{Conversation, ConversationId, MessageId, StoredMessage},
    crash_group::CrashGroup,
    id::{AgentId, TOOL_PARTITION, Target, TaskId},
    journal::{Journal, LogLine, Signal, TaskNotes, Wait},
    schedule::Schedule,
    session::Session,
    task::{ClaimId, Claimed, DeadTask, HeldClaim, Prerequisite, TaskEvent, TaskState, TaskView},
    topic::Subscriber,
};
use commit::Keeping;
use ends::Sweeper;
use history::History;

/// How many group commits run side by side: more bring nothing.
const WRITERS: usize = 2;

/// The store in a Postgres database.
pub(super) struct PostgresStore {
    pools: Pools,
    keeping: Keeping,
    sweeper: Arc<Sweeper>,
}

impl PostgresStore {
    /// Connects; the tables must be there.
    async fn open(pools: Pools, options: &StoreOptions) -> Result<Self, StoreError> {
        let history = Mutex::new(History::new(options.history_every, options.history));
        let keeping = Keeping { history, packed_from: options.packed_from };
        Ok(Self { pools, keeping, sweeper: Arc::default() })
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn name(&self) -> String {
        name(self.pools.server().version)
    }

    fn writers(&self) -> usize {
        WRITERS
    }

    fn blocks(&self) -> bool {
        false
    }

    fn begins(&self) -> bool {
        true
    }

    fn shared(&self) -> Option<&dyn Shared> {
        Some(self)
    }

    async fn join(&self, member: &Member) -> Result<Ownership, StoreError> {
        self.pools.expect_commits();
        work::join(&mut *self.pools.control().await?, member).await
    }

    async fn renew(&self, member: &Member) -> Result<Option<Ownership>, StoreError> {
        work::renew(&mut *self.pools.control().await?, member).await
    }

    async fn leave(&self, boot: Uuid) -> Result<(), StoreError> {
        work::leave(&mut *self.pools.control().await?, boot).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        read::nodes(&mut *self.pools.control().await?).await
    }

    async fn commit(&self, boot: Uuid, units: &[Unit]) -> Result<Vec<Verdict>, StoreError> {
        let verdicts = commit::commit(&mut *self.pools.writer().await?, &self.keeping, boot, units).await?;
        let ended = |unit: &Unit| unit.finished.iter().filter(|f| f.outcome.state().is_final()).count();
        match units.iter().map(ended).sum() {
            0 => {}
            n => self.sweeper.ended(n, &self.pools),
        }
        Ok(verdicts)
    }

    async fn load(&self, ids: &[AgentId]) -> Result<Vec<Option<AgentRow>>, StoreError> {
        read::load(&mut *self.pools.get().await?, ids, true).await
    }

    async fn heads(&self, ids: &[AgentId]) -> Result<Vec<Option<AgentRow>>, StoreError> {
        read::load(&mut *self.pools.get().await?, ids, false).await
    }

    async fn agents(&self, filter: &AgentFilter) -> Result<Vec<AgentRow>, StoreError> {
        read::agents(&mut *self.pools.get().await?, filter).await
    }

    async fn snapshots(&self, id: AgentId) -> Result<Vec<(i64, Timestamp, Vec<u8>)>, StoreError> {
        read::snapshots(&mut *self.pools.get().await?, id).await
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
        work::set_status(&mut *self.pools.get().await?, id, (kind, key), epoch, status, reason).await
    }

    async fn key(&self, scope: Uuid, key: &str) -> Result<Option<KeyRow>, StoreError> {
        let now = values::micros(clock::now());
        let mut conn = self.pools.get().await?;
        read::stored_key(&mut conn, scope, key, now).await.map_err(|e| error::of_statement(&e))
    }

    async fn subscribers(&self, topic: &str, limit: usize) -> Result<(Vec<Subscriber>, u64), StoreError> {
        read::subscribers(&mut *self.pools.get().await?, topic, limit).await
    }

    async fn first_subscribers(&self, topic: &str, limit: usize) -> Result<Vec<Subscriber>, StoreError> {
        read::first_subscribers(&mut *self.pools.get().await?, topic, limit).await
    }

    async fn claim(&self, boot: Uuid, request: &ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        work::claim(&mut *self.pools.get().await?, boot, request).await
    }

    async fn promote(&self, now: Timestamp) -> Result<Promoted, StoreError> {
        let mut conn = self.pools.get().await?;
        let ready = work::promote(&mut conn, now).await? + journal::end_waits(&mut conn, now).await?;
        let cancelled = ends::end_untold(&mut conn, &self.keeping).await?;
        let next = read::next_due(&mut conn).await.map_err(|e| error::of_statement(&e))?;
        Ok(Promoted { ready, cancelled, next })
    }

    async fn doomed(&self) -> Result<Vec<(TaskId, Doom)>, StoreError> {
        let doomed = read::doomed(&mut *self.pools.get().await?, false).await;
        Ok(doomed.map_err(|e| error::of_statement(&e))?.into_iter().map(|task| (task.id, task.why)).collect())
    }

    async fn give_back(&self, boot: Uuid, claims: &[(TaskId, ClaimId)]) -> Result<(), StoreError> {
        work::give_back(&mut *self.pools.get().await?, boot, claims, false).await
    }

    async fn break_off(&self, boot: Uuid, claims: &[(TaskId, ClaimId)]) -> Result<(), StoreError> {
        work::give_back(&mut *self.pools.get().await?, boot, claims, true).await
    }

    async fn running(&self, boot: Uuid) -> Result<Vec<HeldClaim>, StoreError> {
        read::running(&mut *self.pools.get().await?, boot).await
    }

    async fn pause(&self, queue: &str, paused: bool) -> Result<bool, StoreError> {
        work::pause(&mut *self.pools.get().await?, queue, paused).await
    }

    async fn ready_queues(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        queues::ready(&mut *self.pools.get().await?).await
    }

    async fn paused(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        read::paused(&mut *self.pools.get().await?).await
    }

    async fn park(&self, target: &str, park: bool) -> Result<u64, StoreError> {
        work::park(&mut *self.pools.get().await?, target, park).await
    }

    async fn parked(&self, after: Option<&str>, limit: usize) -> Result<Vec<Target>, StoreError> {
        read::parked(&mut *self.pools.get().await?, after, limit).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<TaskView>, StoreError> {
        read::task(&mut *self.pools.get().await?, id).await
    }

    async fn task_data(&self, id: TaskId) -> Result<Option<Claimed>, StoreError> {
        read::task_data(&mut *self.pools.get().await?, id).await
    }

    async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, StoreError> {
        read::tasks(&mut *self.pools.get().await?, filter).await
    }

    async fn history(&self, id: TaskId) -> Result<Vec<TaskEvent>, StoreError> {
        read::history(&mut *self.pools.get().await?, id).await
    }

    async fn cancel(&self, id: TaskId) -> Result<Option<CancelFound>, StoreError> {
        work::cancel(&mut *self.pools.get().await?, id).await
    }

    async fn retry(&self, id: TaskId) -> Result<Option<Result<(), TaskState>>, StoreError> {
        work::retry(&mut *self.pools.get().await?, id).await
    }

    async fn dead(&self, before: Option<TaskId>, limit: usize) -> Result<Vec<DeadTask>, StoreError> {
        read::dead(&mut *self.pools.get().await?, before, limit).await
    }

    async fn retry_many(&self, dead: &[DeadTask]) -> Result<u64, StoreError> {
        work::retry_many(&mut *self.pools.get().await?, dead).await
    }

    async fn dismiss_many(&self, dead: &[DeadTask]) -> Result<u64, StoreError> {
        work::dismiss_many(&mut *self.pools.get().await?, dead).await
    }

    async fn suspects(&self, boot: Uuid) -> Result<Vec<Target>, StoreError> {
        let mut conn = self.pools.get().await?;
        let mut partitions = read::partitions(&mut conn, boot).await?;
        partitions.push(TOOL_PARTITION);
        read::suspects(&mut conn, &partitions).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        read::counts(&mut *self.pools.get().await?).await
    }

    async fn held(&self) -> Result<Vec<(String, StoredStatus, u64)>, StoreError> {
        read::held(&mut *self.pools.get().await?).await
    }

    async fn oldest(&self) -> Result<Oldest, StoreError> {
        read::oldest(&mut *self.pools.get().await?).await
    }

    async fn note_crashes(&self, groups: &[CrashGroup]) -> Result<(), StoreError> {
        crashes::note(&mut *self.pools.get().await?, groups).await
    }

    async fn crash_groups(&self, filter: &CrashFilter) -> Result<Vec<CrashGroup>, StoreError> {
        crashes::crash_groups(&mut *self.pools.get().await?, filter).await
    }

    async fn clean(&self, now: Timestamp, past: Past) -> Result<u64, StoreError> {
        work::clean(&mut *self.pools.get().await?, now, past).await
    }

    fn silence(&self) -> Option<Duration> {
        self.pools.source().silence()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        read::ping(&mut *self.pools.control().await?).await
    }

    async fn try_room(&self) -> Result<(), StoreError> {
        work::try_room(&mut *self.pools.control().await?).await
    }
}

#[async_trait]
impl Entities for PostgresStore {
    async fn conversations(&self, ids: &[ConversationId]) -> Result<Vec<Option<Conversation>>, StoreError> {
        entities::conversations(&mut *self.pools.get().await?, ids).await
    }

    async fn conversation_page(&self, filter: &ConversationFilter) -> Result<Vec<Conversation>, StoreError> {
        entities::conversation_page(&mut *self.pools.get().await?, filter).await
    }

    async fn messages(&self, ids: &[MessageId]) -> Result<Vec<Option<StoredMessage>>, StoreError> {
        entities::messages(&mut *self.pools.get().await?, ids).await
    }

    async fn message_page(
        &self,
        conversation: ConversationId,
        page: MessagePage,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        entities::message_page(&mut *self.pools.get().await?, conversation, page).await
    }

    async fn sessions(&self, ids: &[String]) -> Result<Vec<Option<Session>>, StoreError> {
        let now = values::micros(clock::now());
        entities::sessions(&mut *self.pools.get().await?, ids, now).await
    }

    async fn forget(&self, now: Timestamp, idle_since: Option<Timestamp>) -> Result<Forgotten, StoreError> {
        entities::forget(&mut *self.pools.get().await?, now, idle_since).await
    }
}

#[async_trait]
impl Families for PostgresStore {
    async fn edges(&self, around: &[TaskId], limit: usize) -> Result<Vec<(TaskId, TaskId)>, StoreError> {
        families::edges(&mut *self.pools.get().await?, around, limit).await
    }

    async fn kin_behind(&self, id: TaskId, limit: usize) -> Result<Vec<Kin>, StoreError> {
        families::kin_behind(&mut *self.pools.get().await?, id, limit).await
    }

    async fn relatives(&self, ids: &[TaskId]) -> Result<Vec<TaskView>, StoreError> {
        families::relatives(&mut *self.pools.get().await?, ids).await
    }

    async fn prerequisites(&self, of: TaskId, limit: usize) -> Result<Vec<Prerequisite>, StoreError> {
        families::prerequisites(&mut *self.pools.get().await?, of, limit).await
    }
}

#[async_trait]
impl Journals for PostgresStore {
    async fn journal(&self, task: TaskId) -> Result<Journal, StoreError> {
        journal::journal(&mut *self.pools.get().await?, task).await
    }

    async fn waits(&self, task: TaskId) -> Result<Vec<Wait>, StoreError> {
        journal::waits(&mut *self.pools.get().await?, task).await
    }

    async fn signal(&self, task: TaskId, signal: &Signal) -> Result<Option<SignalFound>, StoreError> {
        journal::signal(&mut *self.pools.get().await?, task, signal).await
    }

    async fn note(&self, notes: &[TaskNotes]) -> Result<(), StoreError> {
        journal::note(&mut *self.pools.get().await?, notes).await
    }

    async fn progress(&self, task: TaskId) -> Result<Option<Box<RawValue>>, StoreError> {
        journal::progress(&mut *self.pools.get().await?, task).await
    }

    async fn task_logs(
        &self,
        task: TaskId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, LogLine)>, StoreError> {
        journal::task_logs(&mut *self.pools.get().await?, task, after, limit).await
    }
}

#[async_trait]
impl Schedules for PostgresStore {
    async fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        schedules::all(&mut *self.pools.get().await?).await
    }

    async fn schedule(&self, name: &str) -> Result<Option<Schedule>, StoreError> {
        schedules::one(&mut *self.pools.get().await?, name).await
    }

    async fn due_schedules(&self, now: Timestamp) -> Result<(Vec<Schedule>, Option<Timestamp>), StoreError> {
        schedules::due(&mut *self.pools.get().await?, now).await
    }

    async fn put_schedule(&self, schedule: &Schedule, over: Option<&Schedule>) -> Result<bool, StoreError> {
        schedules::put(&mut *self.pools.get().await?, schedule, over).await
    }

    async fn remove_schedule(&self, name: &str, revision: Uuid) -> Result<bool, StoreError> {
        schedules::remove(&mut *self.pools.get().await?, name, revision).await
    }
}

#[async_trait]
impl Shared for PostgresStore {
    fn pool(&self) -> PoolStatus {
        self.pools.status()
    }

    fn watch(&self, tell: Box<dyn Fn(Hint) + Send + Sync>) -> Watch {
        listen::listen(self.pools.clone(), tell)
    }

    async fn nudge(&self, what: &str) -> Result<(), StoreError> {
        listen::notify(&mut *self.pools.control().await?, what).await
    }

    async fn drain(&self, boot: Uuid, since: Option<Timestamp>) -> Result<(), StoreError> {
        work::drain(&mut *self.pools.control().await?, boot, since).await
    }

    async fn announce(&self, boot: Uuid, queues: &[String]) -> Result<(), StoreError> {
        queues::announce(&mut *self.pools.control().await?, boot, queues).await
    }

    async fn announced(&self) -> Result<Option<Vec<String>>, StoreError> {
        queues::announced(&mut *self.pools.get().await?).await
    }
}

/// Connects, and brings the tables up to date where the database is ours to use.
pub(super) async fn open(url: &str, options: &StoreOptions) -> Result<PostgresStore, StoreError> {
    let pools = Pools::open(Url::parse(url)?, options.durability, options.pool_size).await?;
    let (client, _) = pools.source().client(None).await?;
    migrate::open(&client).await?;
    PostgresStore::open(pools, options).await
}

/// A connection for those who look after the store, whatever the server's durability.
async fn attend(url: &str) -> Result<Client, StoreError> {
    let source = Source::new(Url::parse(url)?, Durability::Relaxed)?;
    Ok(source.client(None).await?.0)
}

/// Brings the tables up to date, whatever else the database holds.
pub(super) async fn migrate(url: &str) -> Result<Vec<String>, StoreError> {
    migrate::migrate(&attend(url).await?).await
}

/// Which migrations the database has seen.
pub(super) async fn migration_status(url: &str) -> Result<Migrations, StoreError> {
    migrate::status(&attend(url).await?).await
}

/// Which server it is, and what its clock says.
pub(super) async fn engine(url: &str) -> Result<Engine, StoreError> {
    let (version, at) = migrate::server(&attend(url).await?).await?;
    Ok(Engine { name: name(version), clock: Some(at) })
}

fn name(version: u32) -> String {
    format!("postgres {}.{}", version / 10_000, version % 10_000)
}

/// Reads everything in the database.
pub(super) async fn verify<'r>(
    url: &str,
    reader: &'r mut StateReader<'r>,
) -> Result<VerifyReport, StoreError> {
    if migration_status(url).await?.applied.is_empty() {
        let shown = Url::parse(url)?;
        return Err(StoreError::Refused(format!("there is no store at {shown}")));
    }
    let pools = Pools::open(Url::parse(url)?, Durability::Relaxed, 1).await?;
    verify::verify(&mut *pools.get().await?, reader).await
}

/// The servers of the tests.
#[cfg(test)]
#[path = "../../../tests/support/postgres.rs"]
mod server;
