//! The store on SQLite: one file, one writer, concurrent readers.
//!
//! Every write goes through one connection behind a mutex; transactions begin `IMMEDIATE`, so that
//! none fails for having read first. `commit` blocks the thread that calls it (the runtime gives it
//! one of its own); the other writes run on tokio's blocking threads.

mod acts;
mod backup;
mod claim;
mod clean;
mod commit;
mod connect;
mod crashes;
mod deletions;
mod entities;
mod error;
mod families;
mod finish;
mod forget;
mod journal;
mod nodes;
mod operate;
mod plain;
mod read;
mod schedules;
mod settings;
mod subscriptions;
mod tokens;
mod tx;
mod verify;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use diesel::SqliteConnection;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use uuid::Uuid;

pub(super) use self::backup::backup;
use self::{
    connect::{Role, connect},
    history::History,
    tx::Writer,
};
use super::{
    AgentFilter, AgentRow, CancelFound, ClaimRequest, ConversationFilter, Counts, CrashFilter, Doom,
    Durability, Entities, Forgotten, Journals, KeyRow, Member, MessagePage, Migrations, NodeRow, Oldest,
    Ownership, Past, Promoted, Schedules, Shared, SignalFound, StateReader, Store, StoreError, StoreOptions,
    StoredStatus, TaskFilter, TaskPage, Unit, Verdict, VerifyReport, history, rows, told, values,
};
use crate::model::{
    conversation::{Conversation, ConversationId, MessageId, StoredMessage},
    crash_group::CrashGroup,
    id::{AgentId, PARTITIONS, TOOL_PARTITION, Target, TaskId},
    journal::{Journal, LogLine, Signal, TaskNotes, Wait},
    schedule::Schedule,
    session::Session,
    task::{ClaimId, Claimed, DeadTask, HeldClaim, TaskEvent, TaskState, TaskView},
    topic::Subscriber,
};

/// Loads of up to so many agents are read in place: they take less time than a change of threads.
const IN_PLACE: usize = 8;

/// The store in one SQLite file.
pub(super) struct SqliteStore {
    rooms: Arc<Rooms>,
}

struct Rooms {
    writer: Mutex<Writer>,
    /// For short reads by key: never held up by a listing.
    quick: Mutex<SqliteConnection>,
    /// For everything else that only reads.
    slow: Mutex<SqliteConnection>,
}

impl SqliteStore {
    /// Opens the file, creating it and its tables where they are missing.
    pub(super) fn open(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let mut conn = connect(path, Role::Writer(options.durability))?;
        connect::migrate(&mut conn)?;
        let writer = Writer {
            conn,
            path: path.to_owned(),
            history: History::new(options.history_every, options.history),
            full: options.durability == Durability::Full,
            kept: None,
        };
        let rooms = Rooms {
            writer: Mutex::new(writer),
            quick: Mutex::new(connect(path, Role::Reader)?),
            slow: Mutex::new(connect(path, Role::Reader)?),
        };
        Ok(Self { rooms: Arc::new(rooms) })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let rooms = Arc::clone(&self.rooms);
        aside(move || work(&mut rooms.writer.lock())).await
    }

    /// A durable write of a few statements.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write(move |w| w.transaction(tx::Sync::Full, Timestamp::now(), |tx| work(tx.conn))).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let rooms = Arc::clone(&self.rooms);
        aside(move || work(&mut rooms.slow.lock())).await
    }
}

async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(StoreError::NotDone(e.to_string())),
    }
}

/// Brings the tables of the file up to date.
pub(super) fn migrate(path: &Path) -> Result<Vec<String>, StoreError> {
    connect::migrate(&mut connect(path, Role::Writer(Durability::Full))?)
}

/// Which migrations the file has seen.
pub(super) fn migration_status(path: &Path) -> Result<Migrations, StoreError> {
    if !path.exists() {
        return connect::nothing_applied();
    }
    connect::status(&mut connect(path, Role::Writer(Durability::Full))?)
}

/// What reads and writes the file, with its version: it is a part of this program.
pub(super) fn name() -> String {
    let version = libsqlite3_sys::SQLITE_VERSION.to_bytes();
    format!("sqlite {}", String::from_utf8_lossy(version))
}

/// Reads everything in the file.
pub(super) fn verify<'r>(path: &Path, reader: &'r mut StateReader<'r>) -> Result<VerifyReport, StoreError> {
    if !path.exists() {
        return Err(StoreError::Refused(format!("there is no store at {}", path.display())));
    }
    verify::verify(&mut connect(path, Role::Reader)?, reader)
}

#[async_trait]
impl Store for SqliteStore {
    fn name(&self) -> String {
        name()
    }

    fn writers(&self) -> usize {
        1
    }

    fn blocks(&self) -> bool {
        true
    }

    fn shared(&self) -> Option<&dyn Shared> {
        None
    }

    async fn join(&self, member: &Member) -> Result<Ownership, StoreError> {
        let member = member.clone();
        self.write(move |w| w.join(&member)).await
    }

    /// The lock on the data directory is the lease: what is owned stays owned.
    async fn renew(&self, member: &Member) -> Result<Option<Ownership>, StoreError> {
        let boot = member.boot;
        self.read(move |c| nodes::owned(c, boot)).await
    }

    async fn leave(&self, boot: Uuid) -> Result<(), StoreError> {
        self.write(move |w| w.leave(boot)).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.read(nodes::nodes).await
    }

    async fn commit(&self, boot: Uuid, units: &[Unit]) -> Result<Vec<Verdict>, StoreError> {
        self.rooms.writer.lock().commit(boot, units)
    }

    async fn load(&self, ids: &[AgentId]) -> Result<Vec<Option<AgentRow>>, StoreError> {
        if ids.len() <= IN_PLACE {
            return read::load(&mut self.rooms.quick.lock(), ids);
        }
        let ids = ids.to_owned();
        self.read(move |c| read::load(c, &ids)).await
    }

    async fn heads(&self, ids: &[AgentId]) -> Result<Vec<Option<AgentRow>>, StoreError> {
        if ids.len() <= IN_PLACE {
            return read::heads(&mut self.rooms.quick.lock(), ids);
        }
        let ids = ids.to_owned();
        self.read(move |c| read::heads(c, &ids)).await
    }

    async fn agents(&self, filter: &AgentFilter) -> Result<Vec<AgentRow>, StoreError> {
        let filter = filter.clone();
        self.read(move |c| read::agents(c, &filter)).await
    }

    async fn snapshots(&self, id: AgentId) -> Result<Vec<(i64, Timestamp, Vec<u8>)>, StoreError> {
        self.read(move |c| read::snapshots(c, id)).await
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
        let (kind, key, reason) = (kind.to_owned(), key.to_owned(), reason.map(str::to_owned));
        self.write(move |w| w.set_status(id, &kind, &key, epoch, status, reason.as_deref())).await
    }

    async fn key(&self, scope: Uuid, key: &str) -> Result<Option<KeyRow>, StoreError> {
        read::key(&mut self.rooms.quick.lock(), scope, key)
    }

    async fn subscribers(&self, topic: &str, limit: usize) -> Result<(Vec<Subscriber>, u64), StoreError> {
        let topic = topic.to_owned();
        self.read(move |c| read::subscribers(c, &topic, limit)).await
    }

    async fn first_subscribers(&self, topic: &str, limit: usize) -> Result<Vec<Subscriber>, StoreError> {
        let topic = topic.to_owned();
        self.read(move |c| read::first_subscribers(c, &topic, limit)).await
    }

    async fn claim(&self, boot: Uuid, request: &ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        let request = request.clone();
        self.write(move |w| w.claim(boot, &request)).await
    }

    async fn promote(&self, now: Timestamp) -> Result<Promoted, StoreError> {
        self.write(move |w| w.promote(now)).await
    }

    async fn doomed(&self) -> Result<Vec<(TaskId, Doom)>, StoreError> {
        let doomed = self.read(|c| read::doomed(c, false).map_err(|e| error::of_statement(&e))).await?;
        Ok(doomed.into_iter().map(|task| (task.id, task.why)).collect())
    }

    async fn give_back(&self, boot: Uuid, claims: &[(TaskId, ClaimId)]) -> Result<(), StoreError> {
        let claims = claims.to_owned();
        self.write(move |w| w.give_back(boot, &claims, false)).await
    }

    async fn break_off(&self, boot: Uuid, claims: &[(TaskId, ClaimId)]) -> Result<(), StoreError> {
        let claims = claims.to_owned();
        self.write(move |w| w.give_back(boot, &claims, true)).await
    }

    async fn running(&self, boot: Uuid) -> Result<Vec<HeldClaim>, StoreError> {
        self.read(move |c| read::running(c, boot)).await
    }

    async fn pause(&self, queue: &str, paused: bool) -> Result<bool, StoreError> {
        let queue = queue.to_owned();
        self.write(move |w| w.pause(&queue, paused)).await
    }

    async fn ready_queues(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        self.read(|conn| claim::ready_queues(conn).map_err(|e| error::of_statement(&e))).await
    }
    async fn paused(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        self.read(read::paused).await
    }

    async fn park(&self, target: &str, park: bool) -> Result<u64, StoreError> {
        let target = target.to_owned();
        self.write(move |w| w.park(&target, park)).await
    }

    async fn parked(&self, after: Option<&str>, limit: usize) -> Result<Vec<Target>, StoreError> {
        let after = after.map(str::to_owned);
        self.read(move |c| read::parked(c, after.as_deref(), limit)).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<TaskView>, StoreError> {
        self.read(move |c| read::task(c, id)).await
    }

    async fn task_data(&self, id: TaskId) -> Result<Option<Claimed>, StoreError> {
        self.read(move |c| read::task_data(c, id)).await
    }

    async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, StoreError> {
        let filter = filter.clone();
        self.read(move |c| read::tasks(c, &filter)).await
    }

    async fn history(&self, id: TaskId) -> Result<Vec<TaskEvent>, StoreError> {
        self.read(move |c| read::history(c, id)).await
    }

    async fn cancel(&self, id: TaskId) -> Result<Option<CancelFound>, StoreError> {
        self.write(move |w| w.cancel(id)).await
    }

    async fn retry(&self, id: TaskId) -> Result<Option<Result<(), TaskState>>, StoreError> {
        self.write(move |w| w.retry(id)).await
    }

    async fn dead(&self, before: Option<TaskId>, limit: usize) -> Result<Vec<DeadTask>, StoreError> {
        self.read(move |c| read::dead(c, before, limit)).await
    }

    async fn retry_many(&self, dead: &[DeadTask]) -> Result<u64, StoreError> {
        let dead = dead.to_owned();
        self.write(move |w| w.retry_many(&dead)).await
    }

    async fn dismiss_many(&self, dead: &[DeadTask]) -> Result<u64, StoreError> {
        let dead = dead.to_owned();
        self.write(move |w| w.dismiss_many(&dead)).await
    }

    async fn suspects(&self, _: Uuid) -> Result<Vec<Target>, StoreError> {
        // it owns them all
        let all: Vec<i16> = (TOOL_PARTITION..PARTITIONS).collect();
        self.read(move |conn| read::suspects(conn, &all)).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.read(read::counts).await
    }

    async fn held(&self) -> Result<Vec<(String, StoredStatus, u64)>, StoreError> {
        self.read(read::held).await
    }

    async fn oldest(&self) -> Result<Oldest, StoreError> {
        self.read(read::oldest).await
    }

    async fn note_crashes(&self, groups: &[CrashGroup]) -> Result<(), StoreError> {
        let groups = groups.to_owned();
        self.write(move |w| w.note_crashes(&groups)).await
    }

    async fn crash_groups(&self, filter: &CrashFilter) -> Result<Vec<CrashGroup>, StoreError> {
        let filter = filter.clone();
        self.read(move |c| crashes::crash_groups(c, &filter)).await
    }

    async fn clean(&self, now: Timestamp, past: Past) -> Result<u64, StoreError> {
        self.write(move |w| w.clean(now, past)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.read(read::ping).await
    }

    async fn try_room(&self) -> Result<(), StoreError> {
        self.write(Writer::try_room).await
    }
}

/// A few by id are read in place, as agents are.
#[async_trait]
impl Entities for SqliteStore {
    async fn conversations(&self, ids: &[ConversationId]) -> Result<Vec<Option<Conversation>>, StoreError> {
        if ids.len() <= IN_PLACE {
            return entities::conversations(&mut self.rooms.quick.lock(), ids);
        }
        let ids = ids.to_owned();
        self.read(move |c| entities::conversations(c, &ids)).await
    }

    async fn conversation_page(&self, filter: &ConversationFilter) -> Result<Vec<Conversation>, StoreError> {
        let filter = filter.clone();
        self.read(move |c| entities::conversation_page(c, &filter)).await
    }

    async fn messages(&self, ids: &[MessageId]) -> Result<Vec<Option<StoredMessage>>, StoreError> {
        if ids.len() <= IN_PLACE {
            return entities::messages(&mut self.rooms.quick.lock(), ids);
        }
        let ids = ids.to_owned();
        self.read(move |c| entities::messages(c, &ids)).await
    }

    async fn message_page(
        &self,
        conversation: ConversationId,
        page: MessagePage,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        self.read(move |c| entities::message_page(c, conversation, page)).await
    }

    async fn sessions(&self, ids: &[String]) -> Result<Vec<Option<Session>>, StoreError> {
        let now = values::micros(Timestamp::now());
        if ids.len() <= IN_PLACE {
            return entities::sessions(&mut self.rooms.quick.lock(), ids, now);
        }
        let ids = ids.to_owned();
        self.read(move |c| entities::sessions(c, &ids, now)).await
    }

    async fn forget(&self, now: Timestamp, idle_since: Option<Timestamp>) -> Result<Forgotten, StoreError> {
        self.write(move |w| w.forget(now, idle_since)).await
    }
}

#[async_trait]
impl Journals for SqliteStore {
    async fn journal(&self, task: TaskId) -> Result<Journal, StoreError> {
        self.read(move |c| journal::journal(c, task)).await
    }

    async fn waits(&self, task: TaskId) -> Result<Vec<Wait>, StoreError> {
        self.read(move |c| journal::waits(c, task)).await
    }

    async fn signal(&self, task: TaskId, signal: &Signal) -> Result<Option<SignalFound>, StoreError> {
        let signal = signal.clone();
        self.write(move |w| w.signal(task, &signal)).await
    }

    async fn note(&self, notes: &[TaskNotes]) -> Result<(), StoreError> {
        let notes = notes.to_owned();
        self.write(move |w| w.note(&notes)).await
    }

    async fn progress(&self, task: TaskId) -> Result<Option<Box<RawValue>>, StoreError> {
        self.read(move |c| journal::progress(c, task)).await
    }

    async fn task_logs(
        &self,
        task: TaskId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, LogLine)>, StoreError> {
        self.read(move |c| journal::task_logs(c, task, after, limit)).await
    }
}

#[async_trait]
impl Schedules for SqliteStore {
    async fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        self.read(schedules::all).await
    }

    async fn schedule(&self, name: &str) -> Result<Option<Schedule>, StoreError> {
        let name = name.to_owned();
        self.read(move |c| schedules::one(c, &name)).await
    }

    async fn due_schedules(&self, now: Timestamp) -> Result<(Vec<Schedule>, Option<Timestamp>), StoreError> {
        self.read(move |c| schedules::due(c, now)).await
    }

    async fn put_schedule(&self, schedule: &Schedule, over: Option<&Schedule>) -> Result<bool, StoreError> {
        let (schedule, over) = (schedule.clone(), over.cloned());
        self.change(move |conn| schedules::put(conn, &schedule, over.as_ref())).await
    }

    async fn remove_schedule(&self, name: &str, revision: Uuid) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.change(move |conn| schedules::remove(conn, &name, revision)).await
    }
}

#[cfg(test)]
mod tests {
    use diesel::prelude::*;

    use super::*;
    use crate::store::ClaimRequest;

    #[derive(QueryableByName)]
    struct Level {
        #[diesel(sql_type = diesel::sql_types::Integer)]
        synchronous: i32,
    }

    fn level(store: &SqliteStore) -> i32 {
        let mut writer = store.rooms.writer.lock();
        let row: Level = diesel::sql_query("PRAGMA synchronous").get_result(&mut writer.conn).unwrap();
        row.synchronous
    }

    #[tokio::test]
    async fn a_lazy_claim_leaves_the_writer_as_durable_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("a.db"), &StoreOptions::default()).unwrap();
        assert_eq!(level(&store), 2);
        let boot = Uuid::now_v7();
        let member = Member {
            boot,
            instance: Uuid::nil(),
            name: "test".to_owned(),
            url: None,
            lease: std::time::Duration::from_secs(30),
            max_lost: 3,
        };
        store.join(&member).await.unwrap();
        store.claim(boot, &ClaimRequest { agents: 5, ..ClaimRequest::default() }).await.unwrap();
        assert_eq!(level(&store), 2);
        let failed: Result<(), StoreError> =
            store.rooms.writer.lock().transaction(tx::Sync::Lazy, Timestamp::now(), |_| {
                Err(StoreError::NotDone("not today".to_owned()))
            });
        assert!(failed.is_err());
        assert_eq!(level(&store), 2);
        let options = StoreOptions { durability: Durability::Relaxed, ..StoreOptions::default() };
        let relaxed = SqliteStore::open(&dir.path().join("b.db"), &options).unwrap();
        relaxed.claim(boot, &ClaimRequest::default()).await.unwrap();
        assert_eq!(level(&relaxed), 1);
    }
}
