//! An ask to an agent whose neighbour on the same thread is flooded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use actix::{Actor as _, Addr};
use greenroom::AgentRef;

use super::{
    ground::{Ground, Place, Where, directory},
    measure::{Better, Peer, Plan, Row, Unit, rounds_among},
    peers::{Counts, Named, actix::Plain, kameo, ractor},
    volatile::{BURST, Counter},
};

const NAME: &str = "ask beside a flooded neighbour, p99";
const GOAL_US: f64 = 2_000.0;

pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    if !plan.wants(NAME) {
        return Ok(());
    }
    let data = directory()?;
    let ground = Ground::new(data.path())?;
    let (asked, flooded, home) = neighbours(&ground)?;
    let plain = || ground.at(Place::SameArbiter, &home, async { Plain::default().start() });
    let kameo = || kameo::Door::at(&ground, Place::SameArbiter, &home, kameo::Door::start(None));
    let ractor = || ractor::Door::at(&ground, Place::SameArbiter, &home, ractor::Door::start(None));
    let (plain, kameo, ractor) = ((plain()?, plain()?), (kameo()??, kameo()??), (ractor()??, ractor()??));
    let n = plan.scaled(4_000);
    let [of_actix, of_kameo, of_ractor, ours] = rounds_among(
        plan.rounds(),
        [
            &mut || beside(&ground, &plain.0, &plain.1, n),
            &mut || beside(&ground, &kameo.0, &kameo.1, n),
            &mut || beside(&ground, &ractor.0, &ractor.1, n),
            &mut || beside(&ground, &asked, &flooded, n),
        ],
    )?;
    let peers = vec![
        Peer::new(Addr::NAME, of_actix, None),
        Peer::new(kameo::Door::NAME, of_kameo, None),
        Peer::new(ractor::Door::NAME, of_ractor, None),
    ];
    let (name, unit, better) = (NAME.to_owned(), Unit::Micros, Better::Less);
    plan.add(Row { name, unit, better, peers, ours, goal: Some(GOAL_US), note: String::new() });
    ground.end()
}

/// Two agents of one arbiter, and its thread.
fn neighbours(ground: &Ground) -> anyhow::Result<(AgentRef<Counter>, AgentRef<Counter>, String)> {
    let asked = ground.handle.agent::<Counter>("asked");
    let home = ground.runtime.block_on(asked.ask(Where {}))?;
    for n in 0..64 {
        let other = ground.handle.agent::<Counter>(format!("flooded-{n}"));
        if ground.runtime.block_on(other.ask(Where {}))? == home {
            return Ok((asked, other, home));
        }
    }
    anyhow::bail!("no neighbour on the arbiter of the agent that is asked")
}

/// How long an ask takes while the neighbour is told all that it can take, p99 in microseconds. The
/// flood comes from a thread of its own, and keeps the backlog below a bound: else that of a peer
/// without one would take all memory.
fn beside<C: Counts>(ground: &Ground, asked: &C, flooded: &C, n: usize) -> anyhow::Result<f64> {
    let over = Arc::new(AtomicBool::new(false));
    let flood = {
        let (flooded, over) = (flooded.clone(), over.clone());
        let thread = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            thread.block_on(async move {
                while !over.load(Ordering::Relaxed) {
                    // sixteen bursts, and an answer when they have been handled
                    for i in 0..BURST * 16 {
                        flooded.tell(i).await;
                    }
                    flooded.ask(0).await;
                }
            });
        })
    };
    let asked = asked.clone();
    let took = ground.at(Place::MultiThread, "", async move {
        let mut took = Vec::with_capacity(n);
        for i in 0..n {
            let begun = Instant::now();
            asked.ask(i as u64).await;
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        took
    });
    over.store(true, Ordering::Relaxed);
    drop(flood.join());
    let mut took = took?;
    took.sort_by(f64::total_cmp);
    Ok(took.get(took.len() * 99 / 100).copied().unwrap_or(f64::NAN))
}
