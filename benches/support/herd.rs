//! A hundred thousand agents: start, activation, restore, memory.
//!
//! What is measured once in a process (memory above all) is measured in a process of its own.

use std::{
    collections::HashMap,
    iter::Peekable,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use greenroom::AgentRef;

use super::{
    bare,
    doc::{Bump, Doc, Turns},
    ground::{Ground, directory},
    measure::{Better, Plan, Row, Unit, p50},
    million,
    volatile::{Add, Counter},
};

pub const HERD: usize = 100_000;
/// How many are asked at once.
const CALLERS: usize = 1_000;
/// How many are activated one by one.
const SAMPLE: usize = 2_000;
/// The argument by which the program calls itself.
pub const PHASE: &str = "--phase";

/// What a process of its own measures.
pub enum Phase {
    /// Starts a node, activates some agents one by one.
    Activate,
    /// Starts a node, asks all agents a query.
    Restore,
    /// Starts all agents of a kind that is not kept.
    Volatile,
    /// Starts a node on a million agents, and works until it is killed.
    Start,
}

impl Phase {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Restore => "restore",
            Self::Volatile => "volatile",
            Self::Start => "start",
        }
    }

    /// The phase that this process is to measure, if it is one of its own.
    pub fn asked_for(arguments: &mut Peekable<impl Iterator<Item = String>>) -> Option<Self> {
        arguments.next_if(|a| a == PHASE)?;
        let name = arguments.next()?;
        [Self::Activate, Self::Restore, Self::Volatile, Self::Start].into_iter().find(|p| p.name() == name)
    }

    /// Measures, and prints what came out.
    pub fn run(self, mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
        let data = PathBuf::from(arguments.next().context("no data directory")?);
        if let Self::Start = self {
            return million::start(&data, arguments.next());
        }
        let begun = Instant::now();
        let ground = Ground::new(&data)?;
        println!("start_ms {}", begun.elapsed().as_secs_f64() * 1e3);
        match self {
            Self::Activate => activate(&ground, &data)?,
            Self::Restore => restore(&ground, &data)?,
            Self::Volatile => volatile(&ground)?,
            Self::Start => {}
        }
        ground.end()
    }

    /// The figures of a process of its own.
    fn figures(&self, data: &Path) -> anyhow::Result<HashMap<String, f64>> {
        let output = Command::new(std::env::current_exe()?).args([PHASE, self.name()]).arg(data).output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), "{}: {err}", self.name());
        let figure = |line: &str| {
            let (name, figure) = line.split_once(' ')?;
            Some((name.to_owned(), figure.parse().ok()?))
        };
        Ok(out.lines().filter_map(figure).collect())
    }
}

pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    let names = [
        "start to ready, 100,000 stored agents",
        "first ask of a stored agent, p50",
        "restore 100,000 stored agents, all asked once",
        "memory of a passivated agent that has been spoken to",
        "memory of an idle live agent, durable, 512-byte state",
        "memory of an idle live agent, volatile",
    ];
    if !names.iter().any(|name| plan.wants(name)) {
        return Ok(());
    }
    let data = directory()?;
    let begun = Instant::now();
    let ground = Ground::new(data.path())?;
    every(
        &ground,
        |key| ground.handle.agent::<Doc>(key),
        |doc| async move { doc.ask(Bump {}).await.is_ok() },
    )?;
    ground.end()?;
    eprintln!("stored {HERD} agents in {:.1} s", begun.elapsed().as_secs_f64());

    let rounds = if plan.rounds() > 3 { 5 } else { 1 };
    let (mut activated, mut restored, mut volatile) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        activated.push(Phase::Activate.figures(data.path())?);
        restored.push(Phase::Restore.figures(data.path())?);
    }
    volatile.push(Phase::Volatile.figures(data.path())?);
    let of = |all: &[HashMap<String, f64>], name: &str| -> Vec<f64> {
        all.iter().map(|figures| figures.get(name).copied().unwrap_or(f64::NAN)).collect()
    };
    let [start, first, restore, passive, live, live_volatile] = names;
    let row = |name: &str, unit, ours, peer, goal| Row {
        name: name.to_owned(),
        unit,
        better: Better::Less,
        peer,
        ours,
        goal,
        note: String::new(),
    };
    let rows = [
        row(start, Unit::Millis, of(&activated, "start_ms"), None, Some(300.0)),
        row(
            first,
            Unit::Micros,
            of(&activated, "first_us"),
            Some(("bare read by key and parse", of(&activated, "bare_us"))),
            None,
        ),
        row(
            restore,
            Unit::Millis,
            of(&restored, "restore_ms"),
            Some(("bare reads by key and parse, one thread", of(&restored, "bare_ms"))),
            None,
        ),
        row(passive, Unit::Bytes, of(&restored, "passive_bytes"), None, None),
        row(live, Unit::Bytes, of(&restored, "live_bytes"), None, None),
        row(live_volatile, Unit::Bytes, of(&volatile, "live_bytes"), None, None),
    ];
    for row in rows {
        if plan.wants(&row.name) {
            plan.add(row);
        }
    }
    Ok(())
}

fn key(n: usize) -> String {
    format!("agent-{n:08}")
}

/// Asks all agents of the herd, `CALLERS` at once.
pub fn every<A, F, R>(ground: &Ground, agent: F, ask: fn(AgentRef<A>) -> R) -> anyhow::Result<()>
where
    A: greenroom::Agent,
    F: Fn(String) -> AgentRef<A>,
    R: Future<Output = bool> + Send + 'static,
{
    ground.runtime.block_on(async {
        let mut callers = Vec::new();
        for caller in 0..CALLERS {
            let agents: Vec<_> = (caller..HERD).step_by(CALLERS).map(|n| agent(key(n))).collect();
            callers.push(tokio::spawn(async move {
                for agent in agents {
                    anyhow::ensure!(ask(agent).await, "an agent did not answer");
                }
                Ok(())
            }));
        }
        for caller in callers {
            caller.await??;
        }
        Ok(())
    })
}

fn activate(ground: &Ground, data: &Path) -> anyhow::Result<()> {
    // spread over the file, in an order that is not the file's
    let keys = |from: usize| (0..SAMPLE).map(move |n| key((from + n * 7_919) % HERD));
    let took = ground.runtime.block_on(async {
        let mut took = Vec::with_capacity(SAMPLE);
        for key in keys(1) {
            let begun = Instant::now();
            ground.handle.agent::<Doc>(key).ask(Turns {}).await?;
            took.push(begun.elapsed());
        }
        anyhow::Ok(took)
    })?;
    println!("first_us {}", p50(took));
    let mut conn = bare::connect(&data.join("greenroom.db"))?;
    println!("bare_us {}", p50(bare::read(&mut conn, keys(2))?));
    Ok(())
}

fn restore(ground: &Ground, data: &Path) -> anyhow::Result<()> {
    let empty = resident()?;
    for n in 0..HERD {
        drop(ground.handle.agent::<Doc>(key(n)));
    }
    let passive = resident()?;
    let begun = Instant::now();
    every(
        ground,
        |key| ground.handle.agent::<Doc>(key),
        |doc| async move { doc.ask(Turns {}).await.is_ok() },
    )?;
    println!("restore_ms {}", begun.elapsed().as_secs_f64() * 1e3);
    println!("passive_bytes {}", (passive - empty) / HERD as f64);
    println!("live_bytes {}", (resident()? - empty) / HERD as f64);
    let mut conn = bare::connect(&data.join("greenroom.db"))?;
    let took: Duration = bare::read(&mut conn, (0..HERD).map(key))?.iter().sum();
    println!("bare_ms {}", took.as_secs_f64() * 1e3);
    Ok(())
}

fn volatile(ground: &Ground) -> anyhow::Result<()> {
    let empty = resident()?;
    every(ground, |key| ground.handle.agent::<Counter>(key), |c| async move { c.ask(Add(1)).await.is_ok() })?;
    println!("live_bytes {}", (resident()? - empty) / HERD as f64);
    Ok(())
}

/// Memory of this process that is its own: the file pages that SQLite maps are not.
fn resident() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("memory is read from /proc")?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0)
}
