//! Crashes of an agent that is not kept: how long until the next message is handled, and what is left
//! of a million of them.

use std::time::Instant;

use greenroom::{Persistence, prelude::*, runtime::operator::CrashQuery};

use super::{
    ground::{Ground, directory},
    measure::{Better, Plan, Row, Unit},
    phase::{Phase, resident},
};

const CRASHES: usize = 1_000_000;
const NAME: &str = "crash and restore of a volatile agent, without its back-off";
const GROWTH: &str = "growth of memory over a million crashes";
/// What the pages of an allocator may differ by.
const GROWTH_BYTES: f64 = 1_048_576.0;

/// An agent that panics.
#[derive(Default, Serialize, Deserialize)]
pub struct Brittle;

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Boom {}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Alive {}
message!(Boom -> (); Alive -> ());

impl Agent for Brittle {
    const KIND: &'static str = "brittle";
    type Messages = (Boom, Alive);
    fn policy() -> Policy {
        Policy::default()
            .persistence(Persistence::Volatile)
            .mailbox(4_096)
            .max_restarts(u32::MAX, Duration::from_secs(60))
            .backoff(Duration::ZERO, Duration::ZERO)
    }
}

impl Handler<Boom> for Brittle {
    async fn handle(&mut self, _: Boom, _: &Turn<Self>) -> Result<()> {
        panic!("as told")
    }
}

impl Handler<Alive> for Brittle {
    async fn handle(&mut self, _: Alive, _: &Turn<Self>) -> Result<()> {
        Ok(())
    }
}

pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    if ![NAME, GROWTH].iter().any(|name| plan.wants(name)) {
        return Ok(());
    }
    let data = directory()?;
    let n = if plan.rounds() > 3 { CRASHES } else { CRASHES / 10 };
    let figures = Phase::Crash.figures(data.path(), n)?;
    let (better, note) = (Better::Less, format!("{n} crashes, told in a row"));
    let took: Vec<f64> = (0..ROUNDS).map(|round| figures.of(&format!("crash_us_{round}"))).collect();
    for (name, unit, ours, goal) in
        [(NAME, Unit::Micros, took, 20.0), (GROWTH, Unit::Bytes, vec![figures.of("growth")], GROWTH_BYTES)]
    {
        if plan.wants(name) {
            let (name, note) = (name.to_owned(), note.clone());
            plan.add(Row { name, unit, better, peers: Vec::new(), ours, goal: Some(goal), note });
        }
    }
    Ok(())
}

/// So many rounds, of which each has a fifth of the crashes.
const ROUNDS: usize = 5;

/// The process that crashes.
pub fn crash(ground: &Ground, n: usize) -> anyhow::Result<()> {
    let brittle = ground.handle.agent::<Brittle>("one");
    ground.runtime.block_on(async {
        let crashes = async |n: usize| {
            let begun = Instant::now();
            for _ in 0..n {
                let _ = brittle.tell(Boom {}).await;
            }
            brittle.ask(Alive {}).await?;
            anyhow::Ok(begun.elapsed().as_secs_f64() * 1e6 / n as f64)
        };
        // What is remembered of the last crashes is full after these, and their backtrace has been read.
        let operator = ground.handle.operator();
        let known = async || -> anyhow::Result<bool> {
            let groups = operator.crash_groups(&CrashQuery::default()).await?.items;
            let Some(group) = groups.first() else { return Ok(false) };
            Ok(operator.crash(&group.id.to_string()).await?.backtrace.is_some())
        };
        crashes(n.min(20_000)).await?;
        while !known().await? {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let before = resident()?;
        for round in 0..ROUNDS {
            println!("crash_us_{round} {}", crashes(n / ROUNDS).await?);
        }
        println!("growth {}", resident()? - before);
        Ok(())
    })
}
