//! A million agents that are not kept and have nothing to do: their memory, live and after they left it.
//!
//! Anonymous resident memory of a process of its own, before and after, divided by the agents: what the
//! allocator keeps is in it, and so are the tables that know the agents.

use std::time::Instant;

use super::{
    ground::{Ground, directory},
    herd::key,
    measure::{Better, Plan, Row, Unit},
    peers::{Counts as _, ended},
    phase::{Phase, processor_us, resident},
    volatile::{Counter, Leave},
};

const AGENTS: usize = 1_000_000;
/// So many agents at most are on their way into memory or out of it.
const WAVE: usize = 1_000;

const LIVE: &str = "memory of an idle volatile agent";
const LEFT: &str = "memory of a volatile agent that has left it";
const ALL: &str = "memory of a node with a million idle volatile agents";
const START: &str = "start of a volatile agent, one of a million";

pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    if ![LIVE, LEFT, ALL, START].iter().any(|name| plan.wants(name)) {
        return Ok(());
    }
    let data = directory()?;
    let n = plan.scaled(AGENTS);
    let (rest, left) = (Phase::Idle.figures(data.path(), n)?, Phase::Left.figures(data.path(), n)?);
    // the short form has a quarter of them
    let all = rest.of("resident") * AGENTS as f64 / n as f64;
    let note = format!("{n} agents, {:.1} µs of processor time to start each", rest.of("processor_us"));
    for (name, unit, figure, goal) in [
        (LIVE, Unit::Bytes, rest.of("live_bytes"), 2_048.0),
        (LEFT, Unit::Bytes, left.of("left_bytes"), 512.0),
        (ALL, Unit::Mebibytes, all, 2_048.0 * 1_048_576.0),
        (START, Unit::Micros, rest.of("start_us"), 3.0),
    ] {
        if plan.wants(name) {
            let (name, better, note) = (name.to_owned(), Better::Less, note.clone());
            plan.add(Row {
                name,
                unit,
                better,
                peers: Vec::new(),
                ours: vec![figure],
                goal: Some(goal),
                note,
            });
        }
    }
    Ok(())
}

/// The process that starts them and leaves them alone.
pub fn rest(ground: &Ground, n: usize) -> anyhow::Result<()> {
    ground.runtime.block_on(async {
        ground.handle.agent::<Counter>("first").ask(super::volatile::Add(1)).await?;
        let (empty, begun, processor) = (resident()?, Instant::now(), processor_us()?);
        for wave in 0..n / WAVE {
            for at in 0..WAVE {
                ground.handle.agent::<Counter>(key(wave * WAVE + at)).end().await;
            }
            ended(WAVE).await;
        }
        println!("start_us {}", begun.elapsed().as_secs_f64() * 1e6 / n as f64);
        println!("processor_us {}", (processor_us()? - processor) / n as f64);
        println!("live_bytes {}", (resident()? - empty) / n as f64);
        println!("resident {}", resident()?);
        Ok(())
    })
}

/// The process whose agents leave memory as soon as they have been told something.
pub fn leave(ground: &Ground, n: usize) -> anyhow::Result<()> {
    ground.runtime.block_on(async {
        ground.handle.agent::<Counter>("first").ask(super::volatile::Add(1)).await?;
        let empty = resident()?;
        for wave in 0..n / WAVE {
            for at in 0..WAVE {
                let agent = ground.handle.agent::<Counter>(key(wave * WAVE + at));
                let _ = agent.tell(Leave {}).await;
            }
            ended(WAVE).await;
        }
        println!("left_bytes {}", (resident()? - empty) / n as f64);
        Ok(())
    })
}
