//! Durable tasks: accepted from many callers, worked off from a full queue, picked up from an empty one; and
//! families of them (a chain of generations, a fan-out with its join) of growing size.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use greenroom::{
    Call, Effect, TaskId,
    model::{
        id::Target,
        task::{NewTask, TaskState},
    },
    prelude::*,
    store::{self, Store, StoreOptions, Unit},
};
use serde_json::value::RawValue;

use super::{
    ground::{Ground, directory, runtime},
    measure::{Better, Peer, Plan, Rival, Row, Unit as Figure, median, p50, rounds_beside},
    phase::processor_us,
    postgres::{STORE, Server},
    queues::Queues,
};

const CALLERS: usize = 64;
const PEER: &str = "an insert a transaction, pool of 16";
/// So many tasks are in the queue that is worked off, where there is time.
const FULL: [usize; 2] = [20_000, 200_000];
/// So many are picked up from an idle queue in a round.
const PICKED: usize = 100;
/// Between two of them, as the peers have it.
const PAUSE: Duration = Duration::from_millis(10);
/// So many are worked off before it is seen what became of the store.
const PAST: usize = 1_000_000;
/// How many tasks a node may have in hand while it works many off: graphile_worker keeps 5,000.
const SLOTS: u32 = 4_096;
/// Sizes of families.
const FAMILIES: [usize; 3] = [1_000, 10_000, 100_000];
/// Sizes of families that one call submits.
const AT_ONCE: [usize; 3] = [1_000, 10_000, 20_000];
/// So many tasks are of one generation.
const WIDE: usize = 10;

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Nothing {
    #[serde(default)]
    payload: String,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Hold {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Fan {
    n: usize,
}
message! { Nothing -> (); Hold -> (); Fan -> () }

/// What the tools tell the bench.
#[derive(Clone, Default)]
struct Seen {
    done: Arc<AtomicUsize>,
    began: Arc<Mutex<Option<Instant>>>,
    joined: Arc<AtomicUsize>,
}

/// Submits many, and is told of their end.
#[derive(Default, Serialize, Deserialize)]
struct Fanner {}
impl Agent for Fanner {
    const KIND: &'static str = "fanner";
    type Messages = (Fan, Joined<Nothing>);
}
struct Noop(Seen);
impl greenroom::Tool for Noop {
    const NAME: &'static str = "noop";
    const EFFECT: Effect = Effect::Pure;
    type Input = Nothing;
    async fn run(&self, _: Nothing, _: &Call) -> Result<()> {
        self.0.began.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        self.0.done.fetch_add(1, Ordering::Release);
        Ok(())
    }
}
impl Handler<Fan> for Fanner {
    async fn handle(&mut self, fan: Fan, turn: &Turn<Self>) -> Result<()> {
        let works = (0..fan.n).map(|_| Nothing { payload: String::new() });
        turn.tool::<Noop>().submit_all(works).notify_joined();
        Ok(())
    }
}
impl Handler<Joined<Nothing>> for Fanner {
    async fn handle(&mut self, _: Joined<Nothing>, turn: &Turn<Self>) -> Result<()> {
        turn.resource::<Seen>().joined.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// Where a queue is kept: a data directory, and perhaps a database of its own, beside the queues of others.
struct Place<'s> {
    server: Option<&'s Server>,
    queues: Option<Queues<'s>>,
    made: Cell<usize>,
}

impl<'s> Place<'s> {
    fn on(server: Option<&'s Server>) -> Self {
        Self { server, queues: server.and_then(Queues::on), made: Cell::new(0) }
    }

    fn rivals<'a>(&'a self, what: &'a [String], goal: f64) -> Vec<Rival<'a>> {
        self.queues.as_ref().map_or(Vec::new(), |queues| queues.rivals(what, Some(goal)))
    }

    fn store(&self) -> &'static str {
        if self.server.is_some() { STORE } else { "" }
    }

    /// A fresh store: its URL.
    fn fresh(&self, data: &std::path::Path) -> String {
        self.made.set(self.made.get() + 1);
        match self.server {
            None => format!("sqlite://{}", data.join("greenroom.db").display()),
            Some(server) => {
                let name = format!("tasks_{}", self.made.get());
                server.psql(&format!("CREATE DATABASE {name}"));
                format!("{}/{name}", server.url().trim_end_matches("/postgres"))
            }
        }
    }
}

fn names(store: &str) -> Vec<String> {
    let drains = FULL.iter().map(|n| drain_name(store, *n));
    let families = ["generations", "fan-out"]
        .into_iter()
        .flat_map(|what| FAMILIES.iter().map(move |n| format!("{store}{what} of {n} tasks")));
    [submit_name(store), pick_up_name(store), past_name(store)]
        .into_iter()
        .chain(drains)
        .chain(families)
        .chain(AT_ONCE.map(|n| at_once_name(store, n)))
        .collect()
}

fn submit_name(store: &str) -> String {
    format!("{store}submit, {CALLERS} callers")
}

fn pick_up_name(store: &str) -> String {
    format!("{store}pick-up on an idle queue, p50")
}

fn past_name(store: &str) -> String {
    format!("{store}after {PAST} tasks: drain of {}", FULL[0])
}

fn at_once_name(store: &str, n: usize) -> String {
    format!("{store}{n} tasks in generations, submitted at once")
}

fn drain_name(store: &str, n: usize) -> String {
    format!("{store}drain {n} no-op tasks")
}

pub fn is_wanted_on_postgres(plan: &Plan) -> bool {
    names(STORE).iter().any(|name| plan.wants(name))
}

pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    all(plan, &Place::on(None))
}

pub fn on_postgres(plan: &mut Plan, server: &Server) -> anyhow::Result<()> {
    all(plan, &Place::on(Some(server)))
}

fn all(plan: &mut Plan, place: &Place<'_>) -> anyhow::Result<()> {
    submits(plan, place)?;
    for n in FULL {
        drain(plan, place, n)?;
    }
    pick_up(plan, place)?;
    past(plan, place)?;
    for n in FAMILIES {
        generations(plan, place, n)?;
        fan_out(plan, place, n)?;
    }
    for n in AT_ONCE {
        at_once(plan, place, n)?;
    }
    Ok(())
}

fn ground(data: &std::path::Path, url: &str, slots: &str, seen: &Seen) -> anyhow::Result<Ground> {
    let sets = [("store.url", url), ("tasks.slots", slots), ("tasks.max_attempts", "3")];
    let resource = seen.clone();
    Ground::on(runtime()?, data, &sets, |builder| {
        let held = |_: Hold, call: Call| async move {
            call.until_cancelled().await;
            Ok(())
        };
        builder
            .agent::<Fanner>()
            .tool(Noop(resource.clone()))
            .tool_fn("held", Effect::Pure, held)
            .resource(resource)
    })
}

/// Submissions from many callers, while nothing is worked off: the only slot is held.
fn submits(plan: &mut Plan, place: &Place<'_>) -> anyhow::Result<()> {
    let name = submit_name(place.store());
    if !plan.wants(&name) {
        return Ok(());
    }
    let (data, seen) = (directory()?, Seen::default());
    let url = place.fresh(data.path());
    let ground = ground(data.path(), &url, "1", &seen)?;
    let held = hold(&ground)?;
    let (stretch, took) = (plan.stretch() * 2, Mutex::new(Vec::new()));
    let ours = || {
        let tool = ground.handle.tool::<Noop>();
        callers(&ground.runtime, stretch, &took, move || {
            let tool = tool.clone();
            async move { tool.submit(payload()).await.map(drop).map_err(anyhow::Error::from) }
        })
    };
    let inserts = match place.server {
        None => None,
        Some(_) => Some(ground.runtime.block_on(Inserts::new(&url))?),
    };
    let what = ["submit".to_owned(), CALLERS.to_string(), stretch.as_millis().to_string()];
    let mut rivals = place.rivals(&what, 10.0);
    rivals.extend(inserts.as_ref().map(|inserts| Rival {
        name: PEER,
        goal: None,
        side: Box::new(|| inserts.rate(&ground.runtime, stretch)),
    }));
    let (peers, ours) = rounds_beside(plan.rounds(), rivals, ours)?;
    let note = format!(
        "p50 {:.1} ms",
        p50(std::mem::take(&mut *took.lock().unwrap_or_else(PoisonError::into_inner))) / 1e3
    );
    plan.add(Row { name, unit: Figure::PerSecond, better: Better::More, peers, ours, goal: None, note });
    ground.runtime.block_on(ground.handle.operator().cancel(held))?;
    drop(inserts);
    ground.end()
}

/// Takes the only slot, so that nothing is worked off before the task is cancelled.
fn hold(ground: &Ground) -> anyhow::Result<TaskId> {
    let held = r#"{"target":"tool:held","timeout":"10m","max_attempts":1}"#;
    let request = serde_json::from_str(held)?;
    Ok(ground.runtime.block_on(ground.handle.operator().submit(request))?.0.id)
}

fn payload() -> Nothing {
    Nothing { payload: "x".repeat(200) }
}

/// Runs `work` from as many callers for a while: how often a second.
fn callers<F>(
    runtime: &tokio::runtime::Runtime,
    stretch: Duration,
    took: &Mutex<Vec<Duration>>,
    work: impl Fn() -> F + Clone + Send + 'static,
) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let begun = Instant::now();
    let all = (0..CALLERS).map(|_| {
        let work = work.clone();
        runtime.spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < stretch {
                let began = Instant::now();
                work().await?;
                took.push(began.elapsed());
            }
            Ok::<_, anyhow::Error>(took)
        })
    });
    let ended = runtime.block_on(futures_util::future::join_all(all));
    let spent = begun.elapsed().as_secs_f64();
    let mut n = 0;
    for one in ended {
        let one = one??;
        n += one.len();
        took.lock().unwrap_or_else(PoisonError::into_inner).extend(one);
    }
    Ok(n as f64 / spent)
}

/// The peer: a table of jobs, and a transaction for each.
struct Inserts(Arc<tokio::sync::Mutex<Vec<AsyncPgConnection>>>, Arc<tokio::sync::Semaphore>);

impl Inserts {
    const POOL: usize = 16;

    async fn new(url: &str) -> anyhow::Result<Self> {
        let mut pool = Vec::new();
        for _ in 0..Self::POOL {
            pool.push(AsyncPgConnection::establish(url).await?);
        }
        let first = pool.first_mut().context("a pool")?;
        first
            .batch_execute(
                "CREATE TABLE jobs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, queue text NOT NULL,
                 payload bytea NOT NULL, run_at timestamptz NOT NULL DEFAULT now(), attempts int NOT NULL DEFAULT 0);
                 CREATE INDEX jobs_due ON jobs (queue, run_at, id)",
            )
            .await?;
        Ok(Self(Arc::new(tokio::sync::Mutex::new(pool)), Arc::new(tokio::sync::Semaphore::new(Self::POOL))))
    }

    fn rate(&self, runtime: &tokio::runtime::Runtime, stretch: Duration) -> anyhow::Result<f64> {
        let (pool, room) = (self.0.clone(), self.1.clone());
        let took = Mutex::new(Vec::new());
        callers(runtime, stretch, &took, move || {
            let (pool, room) = (pool.clone(), room.clone());
            async move {
                let _room = room.acquire().await?;
                let mut conn = pool.lock().await.pop().context("a connection")?;
                let insert = diesel::sql_query("INSERT INTO jobs (queue, payload) VALUES ('noop', $1)")
                    .bind::<diesel::sql_types::Binary, _>(serde_json::to_vec(&payload())?);
                let done = diesel_async::RunQueryDsl::execute(insert, &mut conn).await;
                pool.lock().await.push(conn);
                done?;
                Ok(())
            }
        })
    }
}

fn noop(input: &str) -> anyhow::Result<NewTask> {
    Ok(NewTask::new(Target::Tool("noop".to_owned()), "", RawValue::from_string(input.to_owned())?, 3))
}

/// Puts tasks into a store that no node serves.
async fn fill(store: &dyn Store, tasks: Vec<NewTask>) -> anyhow::Result<()> {
    let boot = uuid::Uuid::now_v7();
    for tasks in tasks.chunks(1_000) {
        let unit = Unit { accepted: tasks.to_vec(), ..Unit::default() };
        let verdicts = store.commit(boot, &[unit]).await?;
        anyhow::ensure!(verdicts.iter().all(|v| *v == store::Verdict::Durable), "{verdicts:?}");
    }
    Ok(())
}

/// How a store is left that has been filled.
enum Fill {
    AsItIs,
    /// As the peers' tables are before they are drained.
    Tidy,
}

async fn tidy(url: &str) -> anyhow::Result<()> {
    let mut conn = AsyncPgConnection::establish(url).await?;
    Ok(conn.batch_execute("VACUUM ANALYZE greenroom_tasks").await?)
}

async fn open(url: &str) -> anyhow::Result<Arc<dyn Store>> {
    store::migrate(url).await?;
    Ok(store::open(url, &StoreOptions::default()).await?)
}

/// Waits until nothing is ready or running any more.
async fn drained(store: &dyn Store, seen: &Seen, n: usize) -> anyhow::Result<()> {
    while seen.done.load(Ordering::Acquire) < n {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    loop {
        let counts = store.counts().await?;
        let open = |(state, n): &(TaskState, u64)| !state.is_final() && *n > 0;
        if !counts.tasks.iter().any(open) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn work_off(place: &Place<'_>, tasks: Vec<NewTask>) -> anyhow::Result<Spent> {
    let data = directory()?;
    work_off_at(data.path(), &place.fresh(data.path()), (tasks, Fill::Tidy), place.server)
}

/// What it took to work tasks off.
struct Spent {
    /// From the first that runs to the archive row of the last.
    took: Duration,
    /// Processor time of this process and of the server, in microseconds a task: from the start of the node on.
    processor_us: (f64, f64),
}

fn work_off_at(
    data: &std::path::Path,
    url: &str,
    (tasks, filled): (Vec<NewTask>, Fill),
    server: Option<&Server>,
) -> anyhow::Result<Spent> {
    let (seen, n) = (Seen::default(), tasks.len());
    let own = runtime()?;
    let store = own.block_on(open(url))?;
    own.block_on(fill(&*store, tasks))?;
    if let Fill::Tidy = filled
        && server.is_some()
    {
        own.block_on(tidy(url))?;
    }
    let spent = || Ok::<_, anyhow::Error>((processor_us()?, server.map_or(0.0, Server::processor_us)));
    let before = spent()?;
    let ground = ground(data, url, &SLOTS.to_string(), &seen)?;
    own.block_on(drained(&*store, &seen, n))?;
    let began = seen.began.lock().unwrap_or_else(PoisonError::into_inner).context("nothing ran")?;
    let (took, after) = (began.elapsed(), spent()?);
    ground.end()?;
    let each = |before: f64, after: f64| (after - before) / n as f64;
    Ok(Spent { took, processor_us: (each(before.0, after.0), each(before.1, after.1)) })
}

fn drain(plan: &mut Plan, place: &Place<'_>, n: usize) -> anyhow::Result<()> {
    let name = drain_name(place.store(), n);
    if !plan.wants(&name) {
        return Ok(());
    }
    let (mut here, mut there) = (Vec::new(), Vec::new());
    let round = || {
        let Spent { took, processor_us } = work_off(place, payloads(n)?)?;
        here.push(processor_us.0);
        there.push(processor_us.1);
        Ok(n as f64 / took.as_secs_f64())
    };
    let (rounds, what) = (if n > 100_000 { 3 } else { plan.rounds() }, ["drain".to_owned(), n.to_string()]);
    let (peers, ours) = rounds_beside(rounds, place.rivals(&what, 1.0), round)?;
    let (here, there) = (median(here), median(there));
    let note = format!(
        "dispatch, history and the archive row durable; {SLOTS} slots, claims of up to 1,024; {here:.1} µs of \
         processor time a task here, {there:.1} µs in the server"
    );
    plan.add(Row { name, unit: Figure::PerSecond, better: Better::More, peers, ours, goal: None, note });
    Ok(())
}

fn payloads(n: usize) -> anyhow::Result<Vec<NewTask>> {
    let input = serde_json::to_string(&payload())?;
    (0..n).map(|_| noop(&input)).collect()
}

/// A store through which very many tasks have gone, beside the same one when it was new.
fn past(plan: &mut Plan, place: &Place<'_>) -> anyhow::Result<()> {
    const CHUNK: usize = 100_000;
    let name = past_name(place.store());
    if !plan.wants(&name) {
        return Ok(());
    }
    let (data, n) = (directory()?, FULL[0]);
    let url = place.fresh(data.path());
    let drains = || {
        let drain = || {
            Ok(n as f64
                / work_off_at(data.path(), &url, (payloads(n)?, Fill::AsItIs), place.server)?
                    .took
                    .as_secs_f64())
        };
        (0..plan.rounds()).map(|_| drain()).collect::<anyhow::Result<Vec<f64>>>()
    };
    let new = drains()?;
    for _ in 0..PAST / CHUNK {
        work_off_at(data.path(), &url, (payloads(CHUNK)?, Fill::AsItIs), place.server)?;
    }
    let (unit, better, note) = (Figure::PerSecond, Better::More, String::new());
    let peers = vec![Peer::new("when the store was new", new, Some(0.9))];
    plan.add(Row { name, unit, better, peers, ours: drains()?, goal: None, note });
    Ok(())
}

/// From the call that submits to the start of the handler, one at a time.
fn pick_up(plan: &mut Plan, place: &Place<'_>) -> anyhow::Result<()> {
    let name = pick_up_name(place.store());
    if !plan.wants(&name) {
        return Ok(());
    }
    let (data, seen) = (directory()?, Seen::default());
    let url = place.fresh(data.path());
    let ground = ground(data.path(), &url, "64", &seen)?;
    let tool = ground.handle.tool::<Noop>();
    let mut late = Vec::new();
    let round = || {
        let mut took = Vec::new();
        for _ in 0..PICKED {
            *seen.began.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let done = seen.done.load(Ordering::Acquire);
            let asked = Instant::now();
            let id: TaskId = ground.runtime.block_on(tool.submit(payload()).into_future())?;
            while seen.done.load(Ordering::Acquire) == done {
                std::thread::sleep(Duration::from_micros(50));
            }
            let began = seen.began.lock().unwrap_or_else(PoisonError::into_inner).context("it ran")?;
            took.push(began.duration_since(asked));
            ground.runtime.block_on(ground.handle.operator().wait(id, Duration::from_secs(5)))?;
            std::thread::sleep(PAUSE);
        }
        took.sort_unstable();
        late.extend(took.get(took.len() * 99 / 100).map(|d| d.as_secs_f64() * 1e3));
        Ok(p50(took))
    };
    let what = ["pick-up".to_owned(), PICKED.to_string()];
    let (peers, ours) = rounds_beside(plan.rounds(), place.rivals(&what, 0.5), round)?;
    let note = format!("p99 {:.1} ms", median(late));
    plan.add(Row { name, unit: Figure::Micros, better: Better::Less, peers, ours, goal: None, note });
    ground.end()
}

/// A DAG: generations of ten, each task after two of the generation before.
fn generations(plan: &mut Plan, place: &Place<'_>, n: usize) -> anyhow::Result<()> {
    let name = format!("{}generations of {n} tasks", place.store());
    if !plan.wants(&name) {
        return Ok(());
    }
    let round = || {
        let mut tasks: Vec<NewTask> = Vec::with_capacity(n);
        for i in 0..n {
            let mut task = noop("{}")?;
            if let Some(first) = (i / WIDE).checked_sub(1).map(|before| before * WIDE) {
                let parents = [first + i % WIDE, first + (i + 1) % WIDE];
                task.after = parents.into_iter().filter_map(|p| tasks.get(p)).map(|t| t.id).collect();
            }
            tasks.push(task);
        }
        Ok(n as f64 / work_off(place, tasks)?.took.as_secs_f64())
    };
    let rounds = if n > 10_000 { 1 } else { 3 };
    let ours = (0..rounds).map(|_| round()).collect::<anyhow::Result<_>>()?;
    let note = "ten wide, two parents each".to_owned();
    plan.add(Row {
        name,
        unit: Figure::PerSecond,
        better: Better::More,
        peers: Vec::new(),
        ours,
        goal: None,
        note,
    });
    Ok(())
}

/// The same, submitted by one call of the operator, which `POST /tasks/batch` is, while nothing is worked off.
fn at_once(plan: &mut Plan, place: &Place<'_>, n: usize) -> anyhow::Result<()> {
    let name = at_once_name(place.store(), n);
    if !plan.wants(&name) {
        return Ok(());
    }
    let request = |i: usize| {
        let after: Vec<String> = match (i / WIDE).checked_sub(1).map(|before| before * WIDE) {
            None => Vec::new(),
            Some(first) => [i, i + 1].map(|i| format!("t{}", first + i % WIDE)).to_vec(),
        };
        let task =
            serde_json::json!({"name": format!("t{i}"), "target": "tool:noop", "input": {}, "after": after});
        Ok(serde_json::from_value(task)?)
    };
    let round = || {
        let (data, seen) = (directory()?, Seen::default());
        let url = place.fresh(data.path());
        let ground = ground(data.path(), &url, "1", &seen)?;
        let held = hold(&ground)?;
        let family = (0..n).map(request).collect::<anyhow::Result<_>>()?;
        let operator = ground.handle.operator();
        let begun = Instant::now();
        ground.runtime.block_on(operator.submit_batch(family, None))?;
        let took = begun.elapsed();
        ground.runtime.block_on(operator.cancel(held))?;
        ground.end()?;
        Ok(n as f64 / took.as_secs_f64())
    };
    let ours = (0..plan.rounds()).map(|_| round()).collect::<anyhow::Result<_>>()?;
    let note = "ten wide, two parents each; to the answer with all of them".to_owned();
    let (unit, better, peers) = (Figure::PerSecond, Better::More, Vec::new());
    plan.add(Row { name, unit, better, peers, ours, goal: None, note });
    Ok(())
}

/// One turn submits them all, and is told when the last has ended.
fn fan_out(plan: &mut Plan, place: &Place<'_>, n: usize) -> anyhow::Result<()> {
    let name = format!("{}fan-out of {n} tasks", place.store());
    if !plan.wants(&name) {
        return Ok(());
    }
    let round = || {
        let (data, seen) = (directory()?, Seen::default());
        let url = place.fresh(data.path());
        let ground = ground(data.path(), &url, "1024", &seen)?;
        let begun = Instant::now();
        ground.runtime.block_on(ground.handle.agent::<Fanner>("a").ask(Fan { n }).into_future())?;
        let submitted = begun.elapsed();
        while seen.joined.load(Ordering::Acquire) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = begun.elapsed();
        ground.end()?;
        Ok::<_, anyhow::Error>((n as f64 / took.as_secs_f64(), submitted.as_secs_f64() * 1e3))
    };
    let rounds = if n > 10_000 { 1 } else { 3 };
    let (ours, submitted): (Vec<_>, Vec<_>) =
        (0..rounds).map(|_| round()).collect::<anyhow::Result<Vec<_>>>()?.into_iter().unzip();
    let note = format!("submitted in {:.0} ms, to the join", median(submitted));
    plan.add(Row {
        name,
        unit: Figure::PerSecond,
        better: Better::More,
        peers: Vec::new(),
        ours,
        goal: None,
        note,
    });
    Ok(())
}
