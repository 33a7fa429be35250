//! Ten thousand agents: started, told in turn, found by their names, against the peers' actors.

use std::{sync::Arc, time::Instant};

use actix::{Actor as _, Addr};
use greenroom::prelude::*;

use super::{
    ground::{Ground, Place, Where, directory},
    measure::{Better, Peer, Plan, Row, Unit, rounds_among},
    peers::{Counts, Named, actix::Plain, ended, kameo, ractor},
    volatile::{Counter, Leave, rate},
};

const CROWD: usize = 10_000;
/// How often a round tells each of them.
const TIMES: usize = 40;

const FAN_OUT: &str = "fan-out to 10,000 agents, tells";
const BY_NAME: &str = "tell by kind and key, 10,000 agents";
const START: &str = "start of a volatile agent, its first message handled";

pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    if ![FAN_OUT, BY_NAME, START].iter().any(|name| plan.wants(name)) {
        return Ok(());
    }
    let data = directory()?;
    let ground = Ground::new(data.path())?;
    if plan.wants(FAN_OUT) {
        fan_out(plan, &ground)?;
    }
    if plan.wants(BY_NAME) {
        by_name(plan, &ground)?;
    }
    if plan.wants(START) {
        start(plan, &ground)?;
    }
    ground.end()
}

/// Runs a sender on the multi-thread runtime, where the peers' actors are as well.
fn run(ground: &Ground, sender: impl Future<Output = f64> + Send + 'static) -> anyhow::Result<f64> {
    ground.at(Place::MultiThread, "", sender)
}

fn fan_out(plan: &mut Plan, ground: &Ground) -> anyhow::Result<()> {
    let times = plan.scaled(TIMES) as u64;
    let ours: Vec<_> = (0..CROWD).map(|n| ground.handle.agent::<Counter>(format!("fan-{n}"))).collect();
    let home = ground.runtime.block_on(ours[0].ask(Where {}))?;
    let plain: Vec<_> = [Place::SameArbiter, Place::OtherArbiter]
        .into_iter()
        .map(|half| {
            let start = || (0..CROWD / 2).map(|_| Plain::default().start()).collect::<Vec<_>>();
            ground.at(half, &home, async move { start() })
        })
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let kameo = started::<kameo::Door>(ground, &vec![None; CROWD])?;
    let ractor = started::<ractor::Door>(ground, &vec![None; CROWD])?;
    let [of_actix, of_kameo, of_ractor, ours] = rounds_among(
        plan.rounds(),
        [
            &mut || run(ground, fanned(plain.clone(), times)),
            &mut || run(ground, fanned(kameo.clone(), times)),
            &mut || run(ground, fanned(ractor.clone(), times)),
            &mut || run(ground, fanned(ours.clone(), times)),
        ],
    )?;
    stop(kameo);
    stop(ractor);
    let peers = vec![
        Peer::new(Addr::NAME, of_actix, None),
        Peer::new(kameo::Door::NAME, of_kameo, Some(2.0)),
        Peer::new(ractor::Door::NAME, of_ractor, Some(2.0)),
    ];
    let (name, unit, better) = (FAN_OUT.to_owned(), Unit::MillionsPerSecond, Better::More);
    plan.add(Row { name, unit, better, peers, ours, goal: None, note: String::new() });
    Ok(())
}

fn by_name(plan: &mut Plan, ground: &Ground) -> anyhow::Result<()> {
    let times = plan.scaled(TIMES / 2) as u64;
    let mut names: Vec<String> = (0..CROWD).map(|n| format!("agent-{n:08}")).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut names);
    let names: Arc<[String]> = names.into();
    let some: Vec<_> = names.iter().map(|name| Some(name.as_str())).collect();
    let kameo = started::<kameo::Door>(ground, &some)?;
    let ractor = started::<ractor::Door>(ground, &some)?;
    let [of_kameo, of_ractor, ours] = rounds_among(
        plan.rounds(),
        [
            &mut || run(ground, found(names.clone(), kameo::Door::find, times)),
            &mut || run(ground, found(names.clone(), ractor::Door::find, times)),
            &mut || {
                let handle = ground.handle.clone();
                let find = move |name: &str| Some(handle.agent::<Counter>(name));
                run(ground, found(names.clone(), find, times))
            },
        ],
    )?;
    stop(kameo);
    stop(ractor);
    let peers = vec![
        Peer::new(kameo::Door::NAME, of_kameo, Some(2.0)),
        Peer::new(ractor::Door::NAME, of_ractor, Some(2.0)),
    ];
    let (name, unit, better) = (BY_NAME.to_owned(), Unit::MillionsPerSecond, Better::More);
    plan.add(Row { name, unit, better, peers, ours, goal: None, note: String::new() });
    Ok(())
}

fn start(plan: &mut Plan, ground: &Ground) -> anyhow::Result<()> {
    let mut round = 0;
    let [of_kameo, of_ractor, ours] = rounds_among(
        plan.rounds(),
        [
            &mut || run(ground, starts(|_| kameo::Door::start(None), Named::stop)),
            &mut || run(ground, starts(|_| ractor::Door::start(None), Named::stop)),
            &mut || {
                round += 1;
                let keys: Vec<_> = (0..CROWD).map(|n| format!("{round}-{n}")).collect();
                let handle = ground.handle.clone();
                let start = move |n: usize| {
                    let agent = handle.agent::<Counter>(keys[n].as_str());
                    std::future::ready(Ok(agent))
                };
                run(ground, starts(start, |agent| drop(agent.try_tell(Leave {}))))
            },
        ],
    )?;
    let peers =
        vec![Peer::new(kameo::Door::NAME, of_kameo, None), Peer::new(ractor::Door::NAME, of_ractor, None)];
    let (name, unit, better) = (START.to_owned(), Unit::Micros, Better::Less);
    plan.add(Row { name, unit, better, peers, ours, goal: Some(3.0), note: String::new() });
    Ok(())
}

/// A crowd of a peer's, with their names.
fn started<N: Named>(ground: &Ground, names: &[Option<&str>]) -> anyhow::Result<Vec<N>> {
    ground.runtime.block_on(async {
        let mut crowd = Vec::with_capacity(names.len());
        for name in names {
            crowd.push(N::start(*name).await?);
        }
        Ok(crowd)
    })
}

fn stop<N: Named>(crowd: Vec<N>) {
    crowd.into_iter().for_each(Named::stop);
}

/// Tells each of the crowd in turn, again and again: messages a second that have been handled.
async fn fanned<C: Counts>(crowd: Vec<C>, times: u64) -> f64 {
    let begun = Instant::now();
    for n in 0..times {
        for counter in &crowd {
            counter.tell(n).await;
        }
        tokio::task::yield_now().await;
    }
    for counter in &crowd {
        counter.end().await;
    }
    ended(crowd.len()).await;
    rate((times + 1) * crowd.len() as u64, begun)
}

/// As [`fanned`], looking each of them up each time.
async fn found<C: Counts>(
    names: Arc<[String]>,
    find: impl Fn(&str) -> Option<C> + Send + Sync,
    times: u64,
) -> f64 {
    let begun = Instant::now();
    for n in 0..times {
        for name in &*names {
            if let Some(counter) = find(name) {
                counter.tell(n).await;
            }
        }
        tokio::task::yield_now().await;
    }
    for counter in names.iter().filter_map(|name| find(name)) {
        counter.end().await;
    }
    ended(names.len()).await;
    rate((times + 1) * names.len() as u64, begun)
}

/// Starts a crowd, and has each of it handle a message: how long one took, in microseconds.
async fn starts<C: Counts, F>(start: impl Fn(usize) -> F + Send, stop: fn(C)) -> f64
where
    F: Future<Output = anyhow::Result<C>> + Send,
{
    let mut crowd = Vec::with_capacity(CROWD);
    let begun = Instant::now();
    for n in 0..CROWD {
        if let Ok(counter) = start(n).await {
            counter.end().await;
            crowd.push(counter);
        }
    }
    ended(crowd.len()).await;
    let each = begun.elapsed().as_secs_f64() * 1e6 / crowd.len() as f64;
    crowd.into_iter().for_each(stop);
    each
}
