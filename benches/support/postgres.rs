//! Durable turns on Postgres, against what one would write without Greenroom: the same guarded row,
//! the same statement prepared, one transaction a turn, through a pool of 16 connections. The server is
//! the benchmark's own, and keeps what it acknowledges (`fsync` and `synchronous_commit` are on).

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use diesel::{
    QueryResult,
    pg::Pg,
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Text},
};
use diesel_async::{
    AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _,
    pooled_connection::{AsyncDieselConnectionManager, deadpool::Pool},
};
use tokio::sync::Mutex;

use super::{
    doc::{Bump, Doc, Turns},
    durable::{Spent, turns},
    ground::{Ground, directory},
    herd, http,
    measure::{self, Better, Plan, Row, Unit, median, p50, rounds},
    million, packed, talk, tasks,
};

#[path = "../../tests/support/postgres.rs"]
mod server;
pub use server::Server;

/// How the rows of this store begin.
pub const STORE: &str = "postgres: ";
const PEER: &str = "a transaction a turn, pool of 16";

/// The connections of the peer.
const POOL: usize = 16;

/// Callers, agents, and how many times the peer's rate we want to reach.
const LOADS: [(usize, usize, f64); 3] = [(1_000, 1_000, 7.0), (64, 64, 3.0), (256, 1, 50.0)];

/// What the server is given: not much, and no checkpoint in the middle of a round.
const SETTINGS: &[&str] = &["shared_buffers=256MB", "max_wal_size=4GB", "wal_level=replica"];

const RESTORE: &str = "postgres: restore 100,000 stored agents, all asked once";
/// The same, by what the store takes for it: of reads side by side each counts.
const LOADS_OF_RESTORE: &str = "postgres: restore 100,000 stored agents, time with the store";

pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    let loads: Vec<_> =
        LOADS.into_iter().map(|load| (load, name(load))).filter(|(_, name)| plan.wants(name)).collect();
    let restores = plan.wants(RESTORE) || plan.wants(LOADS_OF_RESTORE);
    let talks =
        plan.wants(&talk::name(STORE, PEER)) || plan.wants(&talk::name(STORE, "turns that append nothing"));
    let (sizes, starts) = (packed::is_wanted(plan), million::is_wanted_on_postgres(plan));
    let queues = tasks::is_wanted_on_postgres(plan);
    let through_http = plan.wants(&http::name(STORE));
    if loads.is_empty() && !restores && !talks && !through_http && !sizes && !starts && !queues {
        return Ok(());
    }
    let server = Server::start_with(SETTINGS);
    for ((callers, agents, goal), name) in loads {
        load(plan, &server, (callers, agents, goal), name)?;
    }
    if restores {
        restore(plan, &server)?;
    }
    if talks {
        talking(plan, &server)?;
    }
    if through_http {
        server.psql("CREATE DATABASE through_http");
        http::row(plan, STORE, Some(format!("{}/through_http", server.url().trim_end_matches("/postgres"))))?;
    }
    if sizes {
        packed::measure(plan, &server)?;
    }
    if queues {
        tasks::on_postgres(plan, &server)?;
    }
    if starts {
        million::on_postgres(plan, &server)?;
    }
    Ok(())
}

/// Turns that append a message.
fn talking(plan: &mut Plan, server: &Server) -> anyhow::Result<()> {
    const AGENTS: usize = 256;
    let data = directory()?;
    let ground = Ground::with(data.path(), &[("store.url", &server.url())])?;
    let peer = ground.runtime.block_on(Peer::new(&server.url(), AGENTS))?;
    let (stretch, took) = (plan.stretch() * 2, RefCell::default());
    let mut theirs = || ground.runtime.block_on(peer.turns::<true>(AGENTS, AGENTS, stretch, &took));
    let note = || format!("peer's p50 {:.1} ms", median(took.borrow().clone()) / 1e3);
    talk::row(plan, &ground, talk::name(STORE, PEER), (PEER, &mut theirs), &note)?;
    talk::silent(plan, &ground, STORE)?;
    ground.end()
}

fn load(
    plan: &mut Plan,
    server: &Server,
    (callers, agents, goal): (usize, usize, f64),
    name: String,
) -> anyhow::Result<()> {
    let data = directory()?;
    let ground = Ground::with(data.path(), &[("store.url", &server.url())])?;
    let peer = ground.runtime.block_on(Peer::new(&server.url(), agents))?;
    let doors: Vec<_> = (0..agents).map(|n| ground.handle.agent::<Doc>(format!("{agents}-{n}"))).collect();
    let stretch = plan.stretch() * 2;
    let (mut spent, took) = (Spent::default(), RefCell::new(Vec::new()));
    let (mut ours_wal, mut theirs_wal) = (0.0, 0.0);
    let (theirs, ours) = rounds(
        plan.rounds(),
        || {
            let before = wal(server)?;
            let rate = ground.runtime.block_on(peer.turns::<false>(callers, agents, stretch, &took))?;
            theirs_wal = (wal(server)? - before) / (rate * stretch.as_secs_f64());
            Ok(rate)
        },
        || {
            let before = wal(server)?;
            let rate = turns(&ground, &doors, callers, stretch, &mut spent)?;
            ours_wal = (wal(server)? - before) / (rate * stretch.as_secs_f64());
            Ok(rate)
        },
    )?;
    let theirs_p50 = median(took.take()) / 1e3;
    let note = format!(
        "peer's p50 {theirs_p50:.1} ms; {}; {ours_wal:.0} B of WAL a turn, the peer's {theirs_wal:.0}",
        spent.told()
    );
    let (unit, better) = (Unit::PerSecond, Better::More);
    let peers = vec![measure::Peer::new(PEER, theirs, Some(goal))];
    plan.add(Row { name, unit, better, peers, ours, goal: None, note });
    ground.end()
}

/// How far the server's log has got, in bytes.
pub fn wal(server: &Server) -> anyhow::Result<f64> {
    Ok(server.psql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").trim().parse()?)
}

/// A herd comes back after a restart of its node.
fn restore(plan: &mut Plan, server: &Server) -> anyhow::Result<()> {
    let data = directory()?;
    let start = || Ground::with(data.path(), &[("store.url", &server.url())]);
    let ground = start()?;
    herd::every(
        &ground,
        |key| ground.handle.agent::<Doc>(key),
        |doc| async move { doc.ask(Bump {}).await.is_ok() },
    )?;
    ground.end()?;
    let (mut theirs, mut ours, mut with_store, mut note) =
        (Vec::new(), Vec::new(), Vec::new(), String::new());
    for _ in 0..plan.rounds().min(5) {
        let ground = start()?;
        theirs.push(ground.runtime.block_on(bare_pages(&server.url()))?);
        let begun = Instant::now();
        herd::every(
            &ground,
            |key| ground.handle.agent::<Doc>(key),
            |doc| async move { doc.ask(Turns {}).await.is_ok() },
        )?;
        ours.push(begun.elapsed().as_secs_f64() * 1e3);
        let stats = ground.handle.operator().loads();
        let (reads, agents) = (stats.reads.load(Ordering::Relaxed), stats.agents.load(Ordering::Relaxed));
        with_store.push(stats.took_us.load(Ordering::Relaxed) as f64 / 1e3);
        note = format!("{agents} agents in {reads} reads");
        ground.end()?;
    }
    let (unit, better, goal) = (Unit::Millis, Better::Less, Some(3_000.0));
    let peers = vec![measure::Peer::new("bare pages of 1,000 in the order of keys, parsed", theirs, None)];
    let row = |name: &str, peers, ours, goal, note| Row {
        name: name.to_owned(),
        unit,
        better,
        peers,
        ours,
        goal,
        note,
    };
    plan.add(row(RESTORE, peers, ours, None, note.clone()));
    plan.add(row(LOADS_OF_RESTORE, Vec::new(), with_store, goal, note));
    Ok(())
}

#[derive(diesel::QueryableByName)]
struct Page {
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = Binary)]
    state: Vec<u8>,
}

/// The herd's documents, read page by page and parsed: how long it took, in milliseconds.
async fn bare_pages(url: &str) -> anyhow::Result<f64> {
    let mut conn = AsyncPgConnection::establish(url).await?;
    let (begun, mut after, mut n) = (Instant::now(), String::new(), 0);
    loop {
        let page = diesel::sql_query(
            "SELECT key, state FROM greenroom_agents WHERE kind = 'doc' AND key > $1 ORDER BY key LIMIT 1000",
        );
        let page: Vec<Page> =
            diesel_async::RunQueryDsl::load(page.bind::<Text, _>(&after), &mut conn).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.key);
        n += page.len();
        for row in page {
            let body = row.state.get(greenroom::model::snapshot::HEADER_BYTES..).unwrap_or_default();
            std::hint::black_box(serde_json::from_slice::<Doc>(body)?);
        }
    }
    anyhow::ensure!(n >= herd::HERD, "agents are missing");
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

fn name((callers, agents, _): (usize, usize, f64)) -> String {
    match agents {
        1 => format!("postgres: durable turns, {callers} callers, one hot agent"),
        _ => format!("postgres: durable turns, {callers} callers, {agents} agents"),
    }
}

/// The peer: documents in memory, each written by whoever holds it.
struct Peer {
    pool: Pool<AsyncPgConnection>,
    docs: Vec<Arc<Mutex<Doc>>>,
}

/// The guarded row of a turn; `SAID`: and a message, in the same statement.
struct Write<const SAID: bool> {
    id: String,
    version: i64,
    state: Vec<u8>,
}

impl<const SAID: bool> QueryId for Write<SAID> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const SAID: bool> QueryFragment<Pg> for Write<SAID> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if SAID {
            out.push_sql("WITH turned AS (");
        }
        out.push_sql("UPDATE peer SET version = 1 + ");
        out.push_bind_param::<BigInt, _>(&self.version)?;
        out.push_sql(", updated_at = now(), state = ");
        out.push_bind_param::<Binary, _>(&self.state)?;
        out.push_sql(" WHERE id = ");
        out.push_bind_param::<Text, _>(&self.id)?;
        out.push_sql("::uuid AND version = ");
        out.push_bind_param::<BigInt, _>(&self.version)?;
        if SAID {
            out.push_sql(
                " RETURNING id, version) INSERT INTO peer_messages (conversation, seq, id, role, content) \
                 SELECT id, version, gen_random_uuid(), 'assistant', ",
            );
            out.push_bind_param::<Binary, _>(talk::TEXT.as_bytes())?;
            out.push_sql(" FROM turned");
        }
        Ok(())
    }
}

impl Peer {
    async fn new(url: &str, docs: usize) -> anyhow::Result<Self> {
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
        let pool = Pool::builder(manager).max_size(POOL).build()?;
        let mut conn = pool.get().await?;
        conn.batch_execute(
            "DROP TABLE IF EXISTS peer, peer_messages; \
             CREATE TABLE peer_messages (conversation uuid NOT NULL, seq bigint NOT NULL, id uuid NOT NULL UNIQUE, \
             role text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), content bytea NOT NULL, \
             PRIMARY KEY (conversation, seq)); \
             CREATE TABLE peer (id uuid PRIMARY KEY, version bigint NOT NULL, updated_at timestamptz NOT NULL, \
             state bytea NOT NULL) WITH (fillfactor = 70); \
             ALTER TABLE peer ALTER COLUMN state SET STORAGE EXTERNAL;",
        )
        .await?;
        let state = Doc::default().json();
        let hex: String = state.iter().map(|b| format!("{b:02x}")).collect();
        for n in 0..docs {
            let id = uuid(n);
            conn.batch_execute(&format!("INSERT INTO peer VALUES ('{id}', 0, now(), '\\x{hex}')")).await?;
        }
        drop(conn);
        Ok(Self { pool, docs: (0..docs).map(|_| Arc::default()).collect() })
    }

    /// Turns a second: each caller writes its document again and again.
    async fn turns<const SAID: bool>(
        &self,
        callers: usize,
        agents: usize,
        stretch: Duration,
        took: &RefCell<Vec<f64>>,
    ) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let over = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..callers)
            .filter_map(|n| Some((n % agents, self.docs.get(n % agents)?.clone())))
            .map(|(n, doc)| tokio::spawn(ask_for::<SAID>(self.pool.clone(), n, doc, over.clone())))
            .collect();
        tokio::time::sleep(stretch).await;
        over.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for caller in callers {
            all.extend(caller.await??);
        }
        let rate = all.len() as f64 / begun.elapsed().as_secs_f64();
        took.borrow_mut().push(p50(all));
        Ok(rate)
    }
}

async fn ask_for<const SAID: bool>(
    pool: Pool<AsyncPgConnection>,
    n: usize,
    doc: Arc<Mutex<Doc>>,
    over: Arc<AtomicBool>,
) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let mut doc = doc.lock().await;
        let version = doc.bump() as i64 - 1;
        let write = Write::<SAID> { id: uuid(n), version, state: doc.json() };
        let mut conn = pool.get().await?;
        anyhow::ensure!(
            diesel_async::RunQueryDsl::execute(write, &mut conn).await? == 1,
            "the guard was not met"
        );
        took.push(begun.elapsed());
    }
    Ok(took)
}

fn uuid(n: usize) -> String {
    let n = (n as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    let hex = format!("{n:032x}");
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &hex[part]).join("-")
}
