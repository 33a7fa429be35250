//! Messages in memory: tell and ask, from every kind of thread, against a plain actix actor.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::Actor as _;
use greenroom::{AgentRef, prelude::*};
use tokio::sync::Semaphore;

use super::{
    ground::{Ground, Place, Where, directory, thread},
    measure::{Better, Plan, Row, Unit, p50, rounds},
    plain::{self, Plain},
};

/// Asks that are under way at once.
const IN_FLIGHT: usize = 256;
/// A sender of tells looks up after so many.
const BURST: u64 = 256;

/// A counter that is not kept.
#[derive(Default, Serialize, Deserialize)]
pub struct Counter {
    sum: u64,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Tick(u64);

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Add(pub u64);
message!(Tick -> (); Add -> u64);

impl Agent for Counter {
    const KIND: &'static str = "counter";
    type Messages = (Tick, Add, Where);
    fn policy() -> Policy {
        Policy::default().persistence(greenroom::Persistence::Volatile).mailbox(4_096)
    }
}

impl Handler<Tick> for Counter {
    async fn handle(&mut self, tick: Tick, _: &Turn<Self>) -> Result<()> {
        self.sum = self.sum.wrapping_add(tick.0);
        Ok(())
    }
}

impl Handler<Add> for Counter {
    async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<u64> {
        self.sum = self.sum.wrapping_add(add.0);
        Ok(self.sum)
    }
}

impl Handler<Where> for Counter {
    async fn handle(&mut self, _: Where, _: &Turn<Self>) -> Result<String> {
        Ok(thread())
    }
}

pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    let data = directory()?;
    let ground = Ground::new(data.path())?;
    let counter = ground.handle.agent::<Counter>("one");
    let home = ground.runtime.block_on(counter.ask(Where {}))?;
    // the peer lives on the same thread as the agent
    let plain = ground.at(Place::SameArbiter, &home, async { Plain::default().start() })?;

    for place in Place::ALL {
        let name = format!("tell, from {}", place.name());
        if plan.wants(&name) {
            let n = plan.scaled(600_000) as u64;
            let (theirs, ours) = rounds(
                plan.rounds(),
                || ground.at(place, &home, actix_tells(plain.clone(), n)),
                || ground.at(place, &home, tells(counter.clone(), n)),
            )?;
            let (unit, better) = (Unit::MillionsPerSecond, Better::More);
            let peer = Some(("actix do_send", theirs));
            plan.add(Row { name, unit, better, peer, ours, goal: Some(1.0), note: String::new() });
        }
    }
    for place in Place::ALL {
        let name = format!("ask, {IN_FLIGHT} in flight, from {}", place.name());
        if plan.wants(&name) {
            let each = plan.scaled(1_200) as u64;
            let (theirs, ours) = rounds(
                plan.rounds(),
                || ground.at(place, &home, actix_asks(place, plain.clone(), each)),
                || ground.at(place, &home, asks(place, counter.clone(), each)),
            )?;
            let (unit, better) = (Unit::MillionsPerSecond, Better::More);
            let peer = Some(("actix send", theirs));
            plan.add(Row { name, unit, better, peer, ours, goal: Some(0.8), note: String::new() });
        }
    }
    for place in [Place::SameArbiter, Place::OtherArbiter, Place::MultiThread] {
        let name = format!("ask, one by one, p50, from {}", place.name());
        if plan.wants(&name) {
            let n = plan.scaled(20_000);
            let (theirs, ours) = rounds(
                plan.rounds(),
                || ground.at(place, &home, actix_one_by_one(plain.clone(), n)),
                || ground.at(place, &home, one_by_one(counter.clone(), n)),
            )?;
            let (unit, better) = (Unit::Micros, Better::Less);
            let peer = Some(("actix send", theirs));
            plan.add(Row { name, unit, better, peer, ours, goal: None, note: String::new() });
        }
    }
    drop(plain);
    ground.end()
}

/// Messages a second; what is told counts when it has been handled.
async fn tells(counter: AgentRef<Counter>, n: u64) -> f64 {
    let begun = Instant::now();
    for i in 0..n {
        let _ = counter.tell(Tick(i)).await;
        if i % BURST == BURST - 1 {
            tokio::task::yield_now().await;
        }
    }
    let _ = counter.ask(Add(0)).await;
    rate(n, begun)
}

async fn actix_tells(plain: actix::Addr<Plain>, n: u64) -> f64 {
    let begun = Instant::now();
    for i in 0..n {
        plain.do_send(plain::Tick(i));
        if i % BURST == BURST - 1 {
            tokio::task::yield_now().await;
        }
    }
    let _ = plain.send(plain::Add(0)).await;
    rate(n, begun)
}

async fn asks(place: Place, counter: AgentRef<Counter>, each: u64) -> f64 {
    let (begun, ended) = (Instant::now(), Arc::new(Semaphore::new(0)));
    for _ in 0..IN_FLIGHT {
        let (counter, ended) = (counter.clone(), ended.clone());
        place.spawn(async move {
            for i in 0..each {
                let _ = counter.ask(Add(i)).await;
            }
            ended.add_permits(1);
        });
    }
    let _ = ended.acquire_many(IN_FLIGHT as u32).await;
    rate(each * IN_FLIGHT as u64, begun)
}

async fn actix_asks(place: Place, plain: actix::Addr<Plain>, each: u64) -> f64 {
    let (begun, ended) = (Instant::now(), Arc::new(Semaphore::new(0)));
    for _ in 0..IN_FLIGHT {
        let (plain, ended) = (plain.clone(), ended.clone());
        place.spawn(async move {
            for i in 0..each {
                let _ = plain.send(plain::Add(i)).await;
            }
            ended.add_permits(1);
        });
    }
    let _ = ended.acquire_many(IN_FLIGHT as u32).await;
    rate(each * IN_FLIGHT as u64, begun)
}

async fn one_by_one(counter: AgentRef<Counter>, n: usize) -> f64 {
    let mut took = Vec::with_capacity(n);
    for i in 0..n {
        let begun = Instant::now();
        let _ = counter.ask(Add(i as u64)).await;
        took.push(begun.elapsed());
    }
    p50(took)
}

async fn actix_one_by_one(plain: actix::Addr<Plain>, n: usize) -> f64 {
    let mut took: Vec<Duration> = Vec::with_capacity(n);
    for i in 0..n {
        let begun = Instant::now();
        let _ = plain.send(plain::Add(i as u64)).await;
        took.push(begun.elapsed());
    }
    p50(took)
}

fn rate(n: u64, begun: Instant) -> f64 {
    n as f64 / begun.elapsed().as_secs_f64()
}
