//! Job queues on Postgres, measured as Greenroom's own are: the same jobs, the same callers, one server.
//!
//! `cargo build --release --manifest-path benches/queues/Cargo.toml`, then
//! `GREENROOM_QUEUES=benches/queues/target/release/queues cargo bench -- "postgres: submit" "postgres: drain"`:
//! the benchmark runs this program in each of its rounds, on its server, in a fresh database.
//!
//! ```text
//! queues graphile|apalis submit CALLERS MILLIS   jobs a second, one in each call
//! queues graphile|apalis drain N                 jobs a second, until the database holds none that is open
//! queues graphile|apalis pick-up N               microseconds from the call to the handler's start, a line each
//! ```
//!
//! `DATABASE_URL` names the database. Each queue has Greenroom's allocator, and the settings that its
//! documentation recommends for throughput, and that were the fastest of those tried: graphile_worker claims
//! 5,000 jobs into its local queue, runs 500 at once and completes in batches of 5 ms; apalis fetches 1,000 at a
//! time, runs 1,000 at once and does not lock each.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use apalis::prelude::*;
use apalis_postgres::{Config, PostgresStorage};
use futures_util::future::try_join_all;
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext, WorkerOptions,
};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const QUEUE: &str = "noop";
/// Connections of those who submit.
const POOL: u32 = 16;
/// Jobs that one statement puts into the queue before it is drained.
const CHUNK: usize = 1_000;
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(100);
/// Between two jobs on an idle queue.
const PAUSE: Duration = Duration::from_millis(10);

static DONE: AtomicUsize = AtomicUsize::new(0);
/// When the first job began: from then on a drain is measured, here as in Greenroom.
static FIRST: OnceLock<Instant> = OnceLock::new();
static STARTED: OnceLock<UnboundedSender<Instant>> = OnceLock::new();

#[derive(Clone, Serialize, Deserialize, Debug)]
struct Noop {
    payload: String,
}

impl Noop {
    fn new() -> Self {
        Self { payload: "x".repeat(200) }
    }
}

/// What each handler does.
fn work() {
    FIRST.get_or_init(Instant::now);
    if let Some(started) = STARTED.get() {
        let _ = started.send(Instant::now());
    }
    DONE.fetch_add(1, Ordering::Release);
}

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = QUEUE;
    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        work();
        Ok::<(), String>(())
    }
}

async fn apalis_noop(_: Noop) -> Result<(), BoxDynError> {
    work();
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let url = std::env::var("DATABASE_URL").context("DATABASE_URL names the database")?;
    match arguments[..] {
        ["graphile", "submit", callers, millis] => {
            let utils = graphile(&url).init().await?.create_utils();
            submit(callers.parse()?, millis.parse()?, move || {
                let utils = utils.clone();
                async move { Ok(utils.add_job(Noop::new(), JobSpec::default()).await.map(drop)?) }
            })
            .await?;
        }
        ["graphile", "drain", n] => graphile_drain(&url, n.parse()?).await?,
        ["graphile", "pick-up", n] => {
            let worker = Arc::new(graphile(&url).concurrency(4).init().await?);
            let utils = worker.create_utils();
            let started = started();
            tokio::spawn(async move { worker.run().await });
            pick_up(n.parse()?, started, async || {
                Ok(utils.add_job(Noop::new(), JobSpec::default()).await.map(drop)?)
            })
            .await?;
        }
        ["apalis", "submit", callers, millis] => {
            let storage = storage(&apalis_pool(&url).await?, Config::default());
            submit(callers.parse()?, millis.parse()?, move || {
                let mut storage = storage.clone();
                async move { Ok(storage.push(Noop::new()).await?) }
            })
            .await?;
        }
        ["apalis", "drain", n] => apalis_drain(&url, n.parse()?).await?,
        ["apalis", "pick-up", n] => {
            let pool = apalis_pool(&url).await?;
            let backend = storage(&pool, Config::default()).with_pubsub();
            let mut sender = storage(&pool, Config::default());
            let started = started();
            let worker = WorkerBuilder::new("worker").backend(backend).build(apalis_noop);
            tokio::spawn(async move { worker.run().await });
            pick_up(n.parse()?, started, async || Ok(sender.push(Noop::new()).await?)).await?;
        }
        _ => bail!("usage: queues graphile|apalis submit CALLERS MILLIS | drain N | pick-up N"),
    }
    std::process::exit(0)
}

/// Prints how many jobs a second so many callers submit, one in each call.
async fn submit<F>(
    callers: usize,
    millis: u64,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (begun, stretch) = (Instant::now(), Duration::from_millis(millis));
    let all = (0..callers).map(|_| {
        let call = call.clone();
        tokio::spawn(async move {
            let mut n = 0;
            while begun.elapsed() < stretch {
                call().await?;
                n += 1;
            }
            Ok::<_, anyhow::Error>(n)
        })
    });
    let counts = try_join_all(all).await?.into_iter().collect::<anyhow::Result<Vec<i32>>>()?;
    println!("{:.1}", f64::from(counts.iter().sum::<i32>()) / begun.elapsed().as_secs_f64());
    Ok(())
}

/// Is told of each start from now on.
fn started() -> UnboundedReceiver<Instant> {
    let (sender, receiver) = unbounded_channel();
    STARTED.get_or_init(|| sender);
    receiver
}

/// Prints how long each job waited, one at a time.
async fn pick_up(
    n: usize,
    mut started: UnboundedReceiver<Instant>,
    mut push: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // The first ones wait for the worker to have come up.
    for i in 0..n + 10 {
        let asked = Instant::now();
        push().await?;
        let began = tokio::time::timeout(PATIENCE, started.recv()).await?.context("a worker")?;
        if i >= 10 {
            println!("{:.1}", began.saturating_duration_since(asked).as_secs_f64() * 1e6);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Prints how many jobs a second were done since the first began, when `open` counts none any more.
async fn drained(pool: &PgPool, n: usize, open: &'static str) -> anyhow::Result<()> {
    let since = Instant::now();
    while DONE.load(Ordering::Acquire) < n {
        tokio::time::sleep(Duration::from_millis(1)).await;
        ensure!(since.elapsed() < PATIENCE, "{} of {n} were done", DONE.load(Ordering::Acquire));
    }
    while sqlx::query_scalar::<_, i64>(open).fetch_one(pool).await? > 0 {
        ensure!(since.elapsed() < PATIENCE, "some stayed open");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let first = FIRST.get().context("nothing ran")?;
    println!("{:.1}", n as f64 / first.elapsed().as_secs_f64());
    Ok(())
}

fn graphile(url: &str) -> WorkerOptions {
    WorkerOptions::default().database_url(url).max_pg_conn(POOL).define_job::<Noop>()
}

async fn graphile_drain(url: &str, n: usize) -> anyhow::Result<()> {
    let worker = graphile(url)
        .concurrency(500)
        .local_queue(LocalQueueConfig::default().with_size(5_000))
        .complete_job_batch_delay(Duration::from_millis(5))
        .init()
        .await?;
    let utils = worker.create_utils();
    let payload = serde_json::to_value(Noop::new())?;
    let job = || RawJobSpec { identifier: QUEUE.into(), payload: payload.clone(), spec: JobSpec::default() };
    for first in (0..n).step_by(CHUNK) {
        let jobs: Vec<_> = (first..n.min(first + CHUNK)).map(|_| job()).collect();
        utils.add_raw_jobs(&jobs).await?;
    }
    let pool = PgPool::connect(url).await?;
    sqlx::raw_sql("VACUUM ANALYZE graphile_worker._private_jobs").execute(&pool).await?;
    tokio::spawn(async move { worker.run().await });
    drained(&pool, n, "SELECT count(*) FROM graphile_worker._private_jobs").await
}

async fn apalis_pool(url: &str) -> anyhow::Result<PgPool> {
    let pool = PgPoolOptions::new().max_connections(POOL).connect(url).await?;
    PostgresStorage::setup(&pool).await?;
    Ok(pool)
}

fn storage(pool: &PgPool, config: Config) -> PostgresStorage<Noop> {
    PostgresStorage::new(pool).with_config(config.queue(QUEUE))
}

async fn apalis_drain(url: &str, n: usize) -> anyhow::Result<()> {
    let pool = apalis_pool(url).await?;
    let job = serde_json::to_vec(&Noop::new())?;
    for first in (0..n).step_by(CHUNK) {
        let jobs = (first..n.min(first + CHUNK)).map(|_| TaskBuilder::new(job.clone()).build()).collect();
        let mut conn = pool.acquire().await?;
        apalis_postgres::queries::push_tasks(&mut *conn, QUEUE, jobs).await?;
    }
    // Its due times have whole seconds: all of them are due in the next.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    sqlx::raw_sql("VACUUM ANALYZE apalis.jobs").execute(&pool).await?;
    let config = Config::default().batch_size(1_000).lock_tasks(false).persist_results(true);
    let backend = storage(&pool, config);
    let worker = WorkerBuilder::new("worker").backend(backend).concurrency(1_000).build(apalis_noop);
    tokio::spawn(async move { worker.run().await });
    drained(&pool, n, "SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'").await
}
