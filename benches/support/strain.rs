//! What clients that cost a node without using it do to those who use it: how long callers wait beside them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

use super::{
    ground::directory,
    measure::{Better, Peer, Plan, Row, Unit, rounds_among},
    program::{Connection, Program},
};

const CALLERS: usize = 8;
/// How often each of them asks.
const PACE: Duration = Duration::from_millis(10);
const STREAMS: usize = 10_000;
const SLOW: usize = 4_000;
/// A node that nobody is connected to has fewer files open.
const FEW_FILES: usize = 200;
/// How long a crowd may take to come in, or to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

const BESIDE_STREAMS: &str = "HTTP beside 10,000 idle event streams, p99";
const BESIDE_SLOW: &str = "HTTP beside 4,000 clients that send a byte a second, p99";

/// On SQLite.
pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    if ![BESIDE_STREAMS, BESIDE_SLOW].iter().any(|name| plan.wants(name)) {
        return Ok(());
    }
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let enough = maximum.is_none_or(|most| most >= 2 * STREAMS as u64);
    ensure!(enough, "{} files have to be allowed (ulimit -Hn), not {maximum:?}", 2 * STREAMS);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let data = directory()?;
    let program = Program::start(data.path(), None)?;
    // The crowd is not to hold up the clock of those who are measured.
    let crowd = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let callers = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stretch = plan.stretch() * 4;
    let waits = || callers.block_on(p99(&program, Instant::now() + stretch));
    if plan.wants(BESIDE_STREAMS) {
        let streams = || async {
            let mut open = Vec::with_capacity(STREAMS);
            let request = program.request("GET /api/v1/events", "");
            for _ in 0..STREAMS {
                let mut stream = program.connect().await?;
                stream.open(&request).await?;
                open.push(stream);
            }
            anyhow::Ok(open)
        };
        let beside = || {
            let open: Vec<Connection> = crowd.block_on(streams())?;
            let took = waits();
            drop(open);
            alone(&program)?;
            took
        };
        add(plan, BESIDE_STREAMS, &waits, &beside)?;
    }
    if plan.wants(BESIDE_SLOW) {
        let beside = || {
            let (mut slow, connected) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
            for n in 0..SLOW {
                slow.spawn_on(dribble(program.address.clone(), n, connected.clone()), crowd.handle());
            }
            let begun = Instant::now();
            while connected.load(Ordering::Relaxed) < SLOW {
                ensure!(begun.elapsed() < PATIENCE, "only {connected:?} have come in");
                std::thread::sleep(Duration::from_millis(10));
            }
            let took = waits();
            crowd.block_on(slow.shutdown());
            alone(&program)?;
            took
        };
        add(plan, BESIDE_SLOW, &waits, &beside)?;
    }
    Ok(())
}

fn add(
    plan: &mut Plan,
    name: &str,
    alone: &dyn Fn() -> anyhow::Result<f64>,
    beside: &dyn Fn() -> anyhow::Result<f64>,
) -> anyhow::Result<()> {
    let [alone, ours] = rounds_among(plan.rounds(), [&mut || alone(), &mut || beside()])?;
    plan.add(Row {
        name: name.to_owned(),
        unit: Unit::Millis,
        better: Better::Less,
        peers: vec![Peer::new("without them", alone, None)],
        ours,
        goal: Some(50.0),
        note: format!("{CALLERS} callers, one request each in {} ms", PACE.as_millis()),
    });
    Ok(())
}

/// Waits until the node has closed what it had open for a crowd that has left: the next round is not to pay for it.
fn alone(program: &Program) -> anyhow::Result<()> {
    let begun = Instant::now();
    while program.open_files()? > FEW_FILES {
        ensure!(begun.elapsed() < PATIENCE, "the crowd does not leave");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Sends the head of a request by bytes, again whenever the node has had enough of it; `connected` counts those who
/// have come in.
async fn dribble(address: String, n: usize, connected: Arc<AtomicUsize>) {
    tokio::time::sleep(Duration::from_micros(n as u64 * 250)).await;
    let mut known = false;
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await {
            if !std::mem::replace(&mut known, true) {
                connected.fetch_add(1, Ordering::Relaxed);
            }
            for byte in b"GET /api/v1/status HTTP/1.1\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'a')) {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The 99th percentile, in milliseconds, of what callers wait who ask at a steady pace: a durable ask, a query, the
/// node's status.
async fn p99(program: &Program, until: Instant) -> anyhow::Result<f64> {
    let callers = (0..CALLERS).map(|n| caller(program, n, until));
    let mut took = futures_util::future::try_join_all(callers).await?.concat();
    took.sort();
    let at = took.len().saturating_sub(1) * 99 / 100;
    Ok(took.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3))
}

async fn caller(program: &Program, n: usize, until: Instant) -> anyhow::Result<Vec<Duration>> {
    let agent = format!("/api/v1/agents/counter/{n}");
    let requests = [
        program.request(&format!("POST {agent}/messages/Add"), r#"{"n":1}"#),
        program.request(&format!("POST {agent}/messages/Get"), "{}"),
        program.request("GET /api/v1/status", ""),
    ];
    let mut connection = program.connect().await?;
    let mut took = Vec::new();
    let mut ticks = tokio::time::interval(PACE);
    for request in requests.iter().cycle() {
        // how long it waited, counted from when it was to be sent
        let due = ticks.tick().await.into_std();
        if due >= until {
            break;
        }
        connection.ask(request).await?;
        took.push(due.elapsed());
    }
    Ok(took)
}
