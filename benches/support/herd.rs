//! A hundred thousand stored agents: start, activation, restore, memory.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use greenroom::AgentRef;

use super::{
    bare,
    doc::{Bump, Doc, Turns},
    ground::{Ground, directory},
    measure::{Better, Peer, Plan, Row, Unit, p50},
    phase::{Figures, Phase, resident},
};

pub const HERD: usize = 100_000;
/// How many are asked at once.
const CALLERS: usize = 1_000;
/// How many are activated one by one.
const SAMPLE: usize = 2_000;

pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    let names = [
        "start to ready, 100,000 stored agents",
        "first ask of a stored agent, p50",
        "restore 100,000 stored agents, all asked once",
        "memory of an idle live agent, durable, 512-byte state",
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
    let (mut activated, mut restored) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        activated.push(Phase::Activate.figures(data.path(), HERD)?);
        restored.push(Phase::Restore.figures(data.path(), HERD)?);
    }
    let of =
        |all: &[Figures], name: &str| -> Vec<f64> { all.iter().map(|figures| figures.of(name)).collect() };
    let [start, first, restore, live] = names;
    let row = |name: &str, unit, ours, peers, goal| Row {
        name: name.to_owned(),
        unit,
        better: Better::Less,
        peers,
        ours,
        goal,
        note: String::new(),
    };
    let rows = [
        row(start, Unit::Millis, of(&activated, "start_ms"), Vec::new(), Some(300.0)),
        row(
            first,
            Unit::Micros,
            of(&activated, "first_us"),
            vec![Peer::new("bare read by key and parse", of(&activated, "bare_us"), None)],
            None,
        ),
        row(
            restore,
            Unit::Millis,
            of(&restored, "restore_ms"),
            vec![Peer::new("bare reads by key and parse, one thread", of(&restored, "bare_ms"), None)],
            None,
        ),
        row(live, Unit::Bytes, of(&restored, "live_bytes"), Vec::new(), None),
    ];
    for row in rows {
        if plan.wants(&row.name) {
            plan.add(row);
        }
    }
    Ok(())
}

pub fn key(n: usize) -> String {
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

pub fn activate(ground: &Ground, data: &Path) -> anyhow::Result<()> {
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

pub fn restore(ground: &Ground, data: &Path) -> anyhow::Result<()> {
    let empty = resident()?;
    let begun = Instant::now();
    every(
        ground,
        |key| ground.handle.agent::<Doc>(key),
        |doc| async move { doc.ask(Turns {}).await.is_ok() },
    )?;
    println!("restore_ms {}", begun.elapsed().as_secs_f64() * 1e3);
    println!("live_bytes {}", (resident()? - empty) / HERD as f64);
    let mut conn = bare::connect(&data.join("greenroom.db"))?;
    let took: Duration = bare::read(&mut conn, (0..HERD).map(key))?.iter().sum();
    println!("bare_ms {}", took.as_secs_f64() * 1e3);
    Ok(())
}
