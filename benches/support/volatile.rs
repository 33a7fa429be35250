//! Messages in memory: tell and ask, from every kind of thread, against the peers' actors.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor as _, Addr};
use greenroom::{AgentRef, prelude::*};
use tokio::sync::Semaphore;

use super::{
    ground::{Ground, Place, Where, directory, thread},
    measure::{Better, Peer, Plan, Row, Unit, p50, rounds_among},
    peers::{Counts, ENDED, Named, actix::Plain, kameo, ractor},
};

/// Asks that are under way at once.
const IN_FLIGHT: usize = 256;
/// A sender of tells looks up after so many.
pub const BURST: u64 = 256;

/// A counter that is not kept.
#[derive(Default, Serialize, Deserialize)]
pub struct Counter {
    sum: u64,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Tick(u64);

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Add(pub u64);

/// Adds a permit to [`ENDED`].
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct End {}

/// As [`End`], and leaves memory.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Leave {}
message!(Tick -> (); Add -> u64; End -> (); Leave -> ());

impl Agent for Counter {
    const KIND: &'static str = "counter";
    type Messages = (Tick, Add, Where, End, Leave);
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

impl Handler<End> for Counter {
    async fn handle(&mut self, _: End, _: &Turn<Self>) -> Result<()> {
        ENDED.add_permits(1);
        Ok(())
    }
}

impl Handler<Leave> for Counter {
    async fn handle(&mut self, _: Leave, turn: &Turn<Self>) -> Result<()> {
        turn.retire();
        ENDED.add_permits(1);
        Ok(())
    }
}

impl Handler<Where> for Counter {
    async fn handle(&mut self, _: Where, _: &Turn<Self>) -> Result<String> {
        Ok(thread())
    }
}

impl Counts for AgentRef<Counter> {
    const NAME: &'static str = "Greenroom";
    const LOCAL: bool = true;

    async fn tell(&self, n: u64) {
        let _ = AgentRef::tell(self, Tick(n)).await;
    }

    async fn ask(&self, n: u64) -> u64 {
        AgentRef::ask(self, Add(n)).await.unwrap_or_default()
    }

    async fn end(&self) {
        let _ = AgentRef::tell(self, End {}).await;
    }
}

/// What is measured.
#[derive(Clone, Copy)]
enum Work {
    /// So many tells, by one sender: messages a second.
    Tell(u64),
    /// So many asks by each of those in flight: messages a second.
    Ask(u64),
    /// So many asks, one after the other: the median, in microseconds.
    OneByOne(usize),
}

impl Work {
    const ALL: [Self; 3] = [Self::Tell(600_000), Self::Ask(1_200), Self::OneByOne(20_000)];

    fn scaled(self, plan: &Plan) -> Self {
        match self {
            Self::Tell(n) => Self::Tell(plan.scaled(n as usize) as u64),
            Self::Ask(n) => Self::Ask(plan.scaled(n as usize) as u64),
            Self::OneByOne(n) => Self::OneByOne(plan.scaled(n)),
        }
    }

    fn name(self, place: Place) -> String {
        match self {
            Self::Tell(_) => format!("tell, from {}", place.name()),
            Self::Ask(_) => format!("ask, {IN_FLIGHT} in flight, from {}", place.name()),
            Self::OneByOne(_) => format!("ask, one by one, p50, from {}", place.name()),
        }
    }

    /// The ratios to actix, to kameo and to ractor that we should reach.
    fn goals(self, place: Place) -> [Option<f64>; 3] {
        match (self, place) {
            (Self::Tell(_), _) => [Some(1.0), Some(3.0), Some(2.0)],
            (Self::Ask(_), Place::SameArbiter) => [Some(0.8), Some(2.0), Some(2.0)],
            (Self::Ask(_), _) => [Some(0.8), Some(1.3), Some(1.3)],
            (Self::OneByOne(_), Place::SameArbiter) => [None; 3],
            (Self::OneByOne(_), _) => [None, Some(1.0), Some(1.0)],
        }
    }

    /// Where the peers live: on the agent's own arbiter, or where their users have them. An ask that
    /// waits alone is to cross threads, and on the multi-thread runtime it would not.
    fn home(self, place: Place) -> Place {
        match (self, place) {
            (Self::Tell(_) | Self::Ask(_), Place::Thread | Place::MultiThread) => Place::MultiThread,
            _ => Place::SameArbiter,
        }
    }

    fn sort(self) -> (Unit, Better) {
        match self {
            Self::Tell(_) | Self::Ask(_) => (Unit::MillionsPerSecond, Better::More),
            Self::OneByOne(_) => (Unit::Micros, Better::Less),
        }
    }

    async fn of<C: Counts>(self, place: Place, counter: C) -> f64 {
        match self {
            Self::Tell(n) => tells(counter, n).await,
            Self::Ask(each) => asks(place, counter, each).await,
            Self::OneByOne(n) => one_by_one(counter, n).await,
        }
    }
}

pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    let data = directory()?;
    let ground = Ground::new(data.path())?;
    let counter = ground.handle.agent::<Counter>("one");
    let home = ground.runtime.block_on(counter.ask(Where {}))?;
    for work in Work::ALL {
        for place in Place::ALL {
            let name = work.name(place);
            if plan.wants(&name) {
                row(plan, &ground, &home, (counter.clone(), work.scaled(plan), place), name)?;
            }
        }
    }
    ground.end()
}

fn row(
    plan: &mut Plan,
    ground: &Ground,
    home: &str,
    (counter, work, place): (AgentRef<Counter>, Work, Place),
    name: String,
) -> anyhow::Result<()> {
    let peers = work.home(place);
    let plain = ground.at(Place::SameArbiter, home, async { Plain::default().start() })?;
    let kameo = kameo::Door::at(ground, peers, home, kameo::Door::start(None))??;
    let ractor = ractor::Door::at(ground, peers, home, ractor::Door::start(None))??;
    let [of_actix, of_kameo, of_ractor, ours] = rounds_among(
        plan.rounds(),
        [
            &mut || Addr::at(ground, place, home, work.of(place, plain.clone())),
            &mut || kameo::Door::at(ground, place, home, work.of(place, kameo.clone())),
            &mut || ractor::Door::at(ground, place, home, work.of(place, ractor.clone())),
            &mut || AgentRef::at(ground, place, home, work.of(place, counter.clone())),
        ],
    )?;
    let [to_actix, to_kameo, to_ractor] = work.goals(place);
    let peers = vec![
        Peer::new(Addr::NAME, of_actix, to_actix),
        Peer::new(kameo::Door::NAME, of_kameo, to_kameo),
        Peer::new(ractor::Door::NAME, of_ractor, to_ractor),
    ];
    let (unit, better) = work.sort();
    plan.add(Row { name, unit, better, peers, ours, goal: None, note: String::new() });
    kameo.stop();
    ractor.stop();
    Ok(())
}

/// Messages a second; what is told counts when it has been handled.
async fn tells<C: Counts>(counter: C, n: u64) -> f64 {
    let begun = Instant::now();
    for i in 0..n {
        counter.tell(i).await;
        if i % BURST == BURST - 1 {
            tokio::task::yield_now().await;
        }
    }
    counter.ask(0).await;
    rate(n, begun)
}

async fn asks<C: Counts>(place: Place, counter: C, each: u64) -> f64 {
    let (begun, ended) = (Instant::now(), Arc::new(Semaphore::new(0)));
    for _ in 0..IN_FLIGHT {
        let (counter, ended) = (counter.clone(), ended.clone());
        C::spawn(place, async move {
            for i in 0..each {
                counter.ask(i).await;
            }
            ended.add_permits(1);
        });
    }
    let _ = ended.acquire_many(IN_FLIGHT as u32).await;
    rate(each * IN_FLIGHT as u64, begun)
}

async fn one_by_one<C: Counts>(counter: C, n: usize) -> f64 {
    let mut took: Vec<Duration> = Vec::with_capacity(n);
    for i in 0..n {
        let begun = Instant::now();
        counter.ask(i as u64).await;
        took.push(begun.elapsed());
    }
    p50(took)
}

pub fn rate(n: u64, begun: Instant) -> f64 {
    n as f64 / begun.elapsed().as_secs_f64()
}
