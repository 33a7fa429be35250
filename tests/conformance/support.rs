//! A store of its own for each test, and short ways to say what a test is about.

use std::{path::PathBuf, sync::Arc, time::Duration};

use greenroom::{
    model::{
        id::{AgentId, Target, TaskId},
        snapshot::{self, Codec, Header},
        task::{ClaimId, Claimed, NewTask, TaskError, TaskState, TaskView},
    },
    store::{
        self, ClaimRequest, Durability, Finish, FinishOutcome, Guard, Member, MemoryStore, Refusal,
        StateReader, StateWrite, Store, StoreOptions, Unit, Verdict, VerifyReport,
    },
};
use jiff::Timestamp;
use serde_json::value::RawValue;
use uuid::Uuid;

#[path = "../support/postgres.rs"]
pub mod postgres;
#[path = "../support/weather.rs"]
mod weather;

pub use weather::Proxy;

/// Writes every rule as one test per store.
macro_rules! rules {
    ($($(#[$meta:meta])* async fn $name:ident($world:ident: $mut:ty) $body:block)*) => {$(
        mod $name {
            use super::*;

            $(#[$meta])*
            async fn rule($world: $mut) $body

            #[tokio::test]
            async fn sqlite() {
                rule(&mut World::sqlite().await).await;
            }

            #[tokio::test]
            async fn memory() {
                rule(&mut World::memory().await).await;
            }

            // the connections live on the threads of the runtime, and are to go on while a test waits
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                rule(&mut World::postgres().await).await;
            }
        }
    )*};
}
pub(crate) use rules;

/// Writes every rule as one test per store that several nodes share.
macro_rules! leases {
    ($(async fn $name:ident($world:ident: $mut:ty) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn rule($world: $mut) $body

            #[tokio::test]
            async fn memory() {
                rule(&mut World::shared_memory().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                rule(&mut World::postgres().await).await;
            }
        }
    )*};
}
pub(crate) use leases;

/// A store that a node has joined.
pub struct World {
    pub store: Arc<dyn Store>,
    pub boot: Uuid,
    pub epochs: Vec<i64>,
    /// Empty for the store in memory, which nobody opens.
    pub url: String,
    memory: Option<Arc<MemoryStore>>,
    options: StoreOptions,
    _dir: Option<tempfile::TempDir>,
    database: Option<postgres::Database>,
}

impl World {
    pub async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("greenroom.db").display());
        Self::at(url, Some(dir), None).await
    }

    pub async fn postgres() -> Self {
        // migrated once, then copied
        let tables = concat!(
            include_str!("../../migrations/postgres/00000000000001_ground/up.sql"),
            include_str!("../../migrations/postgres/00000000000002_conversations/up.sql"),
            include_str!("../../migrations/postgres/00000000000003_subscriptions/up.sql"),
            include_str!("../../migrations/postgres/00000000000004_crashes/up.sql"),
            include_str!("../../migrations/postgres/00000000000005_schedules/up.sql"),
            include_str!("../../migrations/postgres/00000000000006_claims/up.sql"),
            include_str!("../../migrations/postgres/00000000000007_journal/up.sql"),
            include_str!("../../migrations/postgres/00000000000008_known_ids/up.sql"),
            include_str!("../../migrations/postgres/00000000000009_dead_letters/up.sql"),
            include_str!("../../migrations/postgres/00000000000010_drain/up.sql"),
            include_str!("../../migrations/postgres/00000000000011_begin/up.sql"),
            include_str!("../../migrations/postgres/00000000000012_access/up.sql"),
        );
        let database = postgres::Database::like("tables", tables, |url| {
            let url = url.to_owned();
            let migrate = move || tokio::runtime::Runtime::new().unwrap().block_on(store::migrate(&url));
            std::thread::spawn(migrate).join().unwrap().unwrap();
        });
        let url = database.url();
        Self::at(url, None, Some(database)).await
    }

    pub async fn memory() -> Self {
        let options = options();
        let memory = MemoryStore::with_options(&options);
        Self::in_memory(memory, options).await
    }

    /// In memory, and with leases.
    pub async fn shared_memory() -> Self {
        let options = options();
        let memory = MemoryStore::shared_by_clock(&options, Timestamp::now);
        Self::in_memory(memory, options).await
    }

    async fn in_memory(memory: MemoryStore, options: StoreOptions) -> Self {
        let memory = Arc::new(memory);
        let mut world = Self {
            store: memory.clone(),
            boot: Uuid::nil(),
            epochs: Vec::new(),
            url: String::new(),
            memory: Some(memory),
            options,
            _dir: None,
            database: None,
        };
        world.join().await;
        world
    }

    /// A node that joins the store at `url`, which goes with it.
    pub async fn at(
        url: String,
        dir: Option<tempfile::TempDir>,
        database: Option<postgres::Database>,
    ) -> Self {
        let options = options();
        let store = store::open(&url, &options).await.unwrap();
        let (boot, epochs) = (Uuid::nil(), Vec::new());
        let mut world = Self { store, boot, epochs, url, memory: None, options, _dir: dir, database };
        world.join().await;
        world
    }

    /// Reaches its Postgres by a proxy from now on.
    pub async fn behind_a_proxy(&mut self) -> Proxy {
        let (proxy, url) = Proxy::before(&self.url);
        self.store = store::open(&url, &self.options).await.unwrap();
        proxy
    }

    /// A statement in the database, for stores on Postgres; what it printed.
    pub fn psql(&self, sql: &str) -> String {
        self.database.as_ref().expect("it is on Postgres").psql(sql)
    }

    /// The path of the database, for stores in files.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(self.url.trim_start_matches("sqlite://"))
    }

    /// Who the node is, under its present boot.
    pub fn member(&self) -> Member {
        Member {
            boot: self.boot,
            instance: Uuid::from_u128(1),
            name: "test".to_owned(),
            url: Some("http://127.0.0.1:7710".to_owned()),
            lease: Duration::from_secs(30),
            max_lost: 3,
        }
    }

    /// A new boot takes over; tells how many tasks it rescued and which are poison.
    pub async fn join(&mut self) -> (u64, Vec<TaskId>) {
        self.boot = Uuid::now_v7();
        let owned = self.store.join(&self.member()).await.unwrap();
        self.epochs = owned.epochs;
        (owned.rescued, owned.poison)
    }

    /// The process ends without a word and starts again. (A store in memory is a database that went on.)
    pub async fn crash(&mut self) -> (u64, Vec<TaskId>) {
        if self.memory.is_none() {
            self.store = store::open(&self.url, &self.options).await.unwrap();
        }
        self.join().await
    }

    /// Reads everything.
    pub async fn verify(&self) -> VerifyReport {
        self.verify_with(&mut |_| {}).await
    }

    /// Reads everything, showing the states to `reader`.
    pub async fn verify_with<'r>(&self, reader: &'r mut StateReader<'r>) -> VerifyReport {
        match &self.memory {
            Some(memory) => memory.verify_with(reader),
            None => store::verify_with(&self.url, reader).await.unwrap(),
        }
    }

    pub fn epoch(&self, id: AgentId) -> i64 {
        self.epochs[id.partition() as usize]
    }

    /// A unit that writes `body` as the state of `tally/key` upon `base`.
    pub fn turn(&self, key: &str, base: i64, body: &str) -> Unit {
        Self::turn_under(&self.epochs, key, base, body)
    }

    /// The same by whoever owns the partitions under these epochs.
    pub fn turn_under(epochs: &[i64], key: &str, base: i64, body: &str) -> Unit {
        let id = AgentId::of("tally", key);
        let epoch = epochs[id.partition() as usize];
        let mut bytes = Vec::new();
        let header = Header { codec: Codec::Json, agent: id, version: base + 1, epoch, schema_version: 1 };
        snapshot::begin(&header, &mut bytes);
        bytes.extend_from_slice(body.as_bytes());
        snapshot::seal(&mut bytes).unwrap();
        let state = StateWrite {
            id,
            kind: "tally".into(),
            key: key.into(),
            epoch,
            base_version: base,
            schema_version: 1,
            bytes: Arc::new(bytes),
            keeps_base: false,
        };
        Unit { owner: Some((id.partition(), epoch)), state: Some(state), ..Unit::default() }
    }

    pub async fn commit(&self, units: &[Unit]) -> Vec<Verdict> {
        self.store.commit(self.boot, units).await.unwrap()
    }

    pub async fn commit_one(&self, unit: Unit) -> Verdict {
        self.commit(&[unit]).await.pop().unwrap()
    }

    pub async fn must(&self, unit: Unit) {
        assert_eq!(self.commit_one(unit).await, Verdict::Durable);
    }

    /// The state of `tally/key`: version and body.
    pub async fn state(&self, key: &str) -> Option<(i64, String)> {
        let row = self.store.load(&[AgentId::of("tally", key)]).await.unwrap().pop().unwrap()?;
        if row.version == 0 {
            return Some((0, String::new()));
        }
        let (header, body) = snapshot::open(&row.bytes).unwrap();
        header.matches(row.id, row.epoch, row.version).unwrap();
        Some((row.version, String::from_utf8(body.to_vec()).unwrap()))
    }

    pub async fn submit(&self, task: NewTask) -> TaskId {
        let id = task.id;
        self.must(accepting([task])).await;
        id
    }

    pub async fn claim(&self, agents: usize) -> Vec<Claimed> {
        let request = ClaimRequest { agents, tools: 0, ..ClaimRequest::default() };
        self.store.claim(self.boot, &request).await.unwrap()
    }

    pub async fn claim_alone(&self) -> Vec<Claimed> {
        let request = ClaimRequest { agents: 9, tools: 9, alone: true, ..ClaimRequest::default() };
        self.store.claim(self.boot, &request).await.unwrap()
    }

    /// What the boot runs, as the store knows it.
    pub async fn claims_held(&self) -> Vec<(TaskId, ClaimId)> {
        let held = self.store.running(self.boot).await.unwrap();
        held.into_iter().map(|held| (held.id, held.claim)).collect()
    }

    /// Submits and claims one task.
    pub async fn running(&self, task: NewTask) -> Claimed {
        let id = self.submit(task).await;
        let claimed = self.claim(1_000).await;
        claimed.into_iter().find(|c| c.id == id).expect("the task is claimed")
    }

    pub async fn end(&self, claimed: &Claimed, outcome: FinishOutcome) -> Verdict {
        self.commit_one(ending(claimed, outcome)).await
    }

    pub async fn view(&self, id: TaskId) -> TaskView {
        self.store.task(id).await.unwrap().expect("the task is known")
    }

    pub async fn state_of(&self, id: TaskId) -> TaskState {
        self.view(id).await.state
    }

    pub async fn promote(&self) -> u64 {
        self.store.promote(Timestamp::now()).await.unwrap().ready
    }

    /// The counters, without the zeros; and they must be what verification counts.
    pub async fn counts(&self) -> Vec<(TaskState, u64)> {
        let report = self.verify().await;
        assert_eq!(report.problems, Vec::<String>::new());
        let counts = self.store.counts().await.unwrap();
        counts.tasks.into_iter().filter(|(_, n)| *n > 0).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // whatever a test did, the store must still be sound
        if let Some(memory) = &self.memory {
            return assert_eq!(memory.verify().problems, Vec::<String>::new());
        }
        let url = self.url.clone();
        let checked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(store::verify(&url)).map(|r| r.problems)
        });
        if let Ok(Ok(problems)) = checked.join() {
            assert_eq!(problems, Vec::<String>::new());
        }
    }
}

fn options() -> StoreOptions {
    StoreOptions {
        durability: Durability::Relaxed,
        history: 3,
        history_every: Duration::ZERO,
        pool_size: 4,
        ..StoreOptions::default()
    }
}

pub fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// A task for `tally/key`.
pub fn task(key: &str) -> NewTask {
    NewTask::new(Target::agent("tally", key), "Add", json(r#"{"text":"a b"}"#), 5)
}

/// A child of `parents`.
pub fn child(key: &str, parents: &[TaskId]) -> NewTask {
    NewTask { after: parents.to_vec(), ..task(key) }
}

/// A submission from outside.
pub fn accepting(tasks: impl IntoIterator<Item = NewTask>) -> Unit {
    Unit { accepted: tasks.into_iter().collect(), ..Unit::default() }
}

pub fn finish(claimed: &Claimed, outcome: FinishOutcome) -> Finish {
    Finish { task: claimed.id, guard: Guard::Running { attempt: claimed.attempt }, outcome, note: None }
}

/// A unit that only ends an attempt.
pub fn ending(claimed: &Claimed, outcome: FinishOutcome) -> Unit {
    Unit { finished: vec![finish(claimed, outcome)], ..Unit::default() }
}

/// A unit that ends a task that does not run.
pub fn ending_idle(task: TaskId, outcome: FinishOutcome) -> Unit {
    let finish = Finish { task, guard: Guard::Idle, outcome, note: None };
    Unit { finished: vec![finish], ..Unit::default() }
}

pub fn ok() -> FinishOutcome {
    FinishOutcome::Succeeded { result: br#"{"total":2}"#.to_vec() }
}

pub fn error(message: &str) -> TaskError {
    TaskError {
        code: "handler_failed".into(),
        message: message.into(),
        chain: vec!["because".into()],
        crash_id: None,
        refusal: None,
    }
}

pub fn failed() -> FinishOutcome {
    FinishOutcome::Failed { error: error("it does not work") }
}

pub fn fenced() -> Verdict {
    Verdict::Refused(Refusal::Fenced)
}
