//! Durable turns on SQLite: many agents, one hot agent, and one ask at a time.

use std::{
    cell::RefCell,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use greenroom::AgentRef;

use super::{
    bare::Bare,
    doc::{Bump, Doc},
    ground::{Ground, directory},
    measure::{Better, Disk, Peer, Plan, Row, Unit, median, p50, probed, rounds},
};

const CALLERS: usize = 256;
const AGENTS: usize = 256;
/// How many rows the batching peer writes in one transaction.
const BATCH: usize = 200;

pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    let data = directory()?;
    let ground = Ground::new(&data.path().join("node"))?;
    let mut bare = Bare::new(&data.path().join("bare.db"), AGENTS)?;
    let many: Vec<_> = (0..AGENTS).map(|n| ground.handle.agent::<Doc>(n.to_string())).collect();
    let stretch = plan.stretch();
    let disk = RefCell::new(Disk::new(data.path())?);

    for batched in [false, true] {
        let peer = if batched { "bare loop, 200 to a commit" } else { "bare loop, one commit each" };
        let name = format!("durable turns, {CALLERS} callers, {AGENTS} agents, against the {peer}");
        if !plan.wants(&name) {
            continue;
        }
        let mut spent = Spent::default();
        let (theirs, ours) = rounds(
            plan.rounds(),
            || {
                probed(&mut disk.borrow_mut(), || {
                    if batched { bare.batched(BATCH, stretch) } else { bare.one_by_one(stretch) }
                })
            },
            || probed(&mut disk.borrow_mut(), || turns(&ground, &many, CALLERS, stretch, &mut spent)),
        )?;
        let goal = Some(if batched { 0.5 } else { 15.0 });
        let (unit, better, peers) = (Unit::PerSecond, Better::More, vec![Peer::new(peer, theirs, goal)]);
        let note = spent.note(&mut disk.borrow_mut());
        plan.add(Row { name, unit, better, peers, ours, goal: None, note });
    }

    let name = format!("durable turns, {CALLERS} callers, one hot agent");
    if plan.wants(&name) {
        let mut spent = Spent::default();
        let hot = [ground.handle.agent::<Doc>("hot")];
        let (theirs, ours) = rounds(
            plan.rounds(),
            || probed(&mut disk.borrow_mut(), || bare.one_by_one(stretch)),
            || probed(&mut disk.borrow_mut(), || turns(&ground, &hot, CALLERS, stretch, &mut spent)),
        )?;
        let (unit, better) = (Unit::PerSecond, Better::More);
        let peers = vec![Peer::new("bare loop, one commit each", theirs, Some(30.0))];
        let note = spent.note(&mut disk.borrow_mut());
        plan.add(Row { name, unit, better, peers, ours, goal: None, note });
    }

    let name = "durable ask, one by one, p50".to_owned();
    if plan.wants(&name) {
        // short rounds, so that the disk keeps its pace within one
        let n = plan.scaled(200);
        let one = ground.handle.agent::<Doc>("one");
        let (theirs, ours) = rounds(
            plan.rounds() * 4,
            || probed(&mut disk.borrow_mut(), || bare.commit_p50(n)),
            || {
                let asks = one_by_one(one.clone(), n);
                probed(&mut disk.borrow_mut(), || ground.runtime.block_on(ground.runtime.spawn(asks))?)
            },
        )?;
        let (unit, better) = (Unit::Micros, Better::Less);
        let peers = vec![Peer::new("one bare commit", theirs, Some(1.5))];
        let note = disk.borrow_mut().note();
        plan.add(Row { name, unit, better, peers, ours, goal: None, note });
    }
    ground.end()
}

/// What the rounds cost the disk.
#[derive(Default)]
pub struct Spent {
    turns: u64,
    commits: u64,
    units: u64,
    bytes: u64,
    p50: Vec<f64>,
}

impl Spent {
    pub fn note(&self, disk: &mut Disk) -> String {
        format!("{}; {}", self.told(), disk.note())
    }

    pub fn told(&self) -> String {
        let per = |n: u64, of: u64| n as f64 / of.max(1) as f64;
        format!(
            "p50 {:.1} ms; {} commits, {:.1} MB of state for {} turns: {:.0} turns a commit, {:.0} agents a \
             commit, {:.0} B a turn",
            median(self.p50.clone()) / 1e3,
            self.commits,
            self.bytes as f64 / 1e6,
            self.turns,
            per(self.turns, self.commits),
            per(self.units, self.commits),
            per(self.bytes, self.turns),
        )
    }
}

/// Turns a second: each caller asks its agent again and again.
pub fn turns(
    ground: &Ground,
    agents: &[AgentRef<Doc>],
    callers: usize,
    stretch: Duration,
    spent: &mut Spent,
) -> anyhow::Result<f64> {
    asks(ground, agents, callers, stretch, spent, |agent| async move { agent.ask(Bump {}).await })
}

/// As [`turns`], with whatever is asked; the answers must rise.
pub fn asks<A, R>(
    ground: &Ground,
    agents: &[AgentRef<A>],
    callers: usize,
    stretch: Duration,
    spent: &mut Spent,
    ask: fn(AgentRef<A>) -> R,
) -> anyhow::Result<f64>
where
    A: greenroom::Agent,
    R: Future<Output = Result<u64, greenroom::AskError>> + Send + 'static,
{
    let stats = ground.handle.operator().commits();
    let read = || (stats.commits.load(Relaxed), stats.units.load(Relaxed), stats.bytes.load(Relaxed));
    let before = read();
    let begun = Instant::now();
    let asked = ground.runtime.block_on(async {
        let callers: Vec<_> = agents
            .iter()
            .cycle()
            .take(callers)
            .map(|agent| tokio::spawn(ask_for(agent.clone(), begun + stretch, ask)))
            .collect();
        let mut asked = Vec::new();
        for caller in callers {
            asked.extend(caller.await??);
        }
        anyhow::Ok(asked)
    })?;
    let rate = asked.len() as f64 / begun.elapsed().as_secs_f64();
    let after = read();
    spent.turns += asked.len() as u64;
    spent.commits += after.0 - before.0;
    spent.units += after.1 - before.1;
    spent.bytes += after.2 - before.2;
    spent.p50.push(p50(asked));
    Ok(rate)
}

async fn ask_for<A, R>(
    agent: AgentRef<A>,
    until: Instant,
    ask: fn(AgentRef<A>) -> R,
) -> anyhow::Result<Vec<Duration>>
where
    A: greenroom::Agent,
    R: Future<Output = Result<u64, greenroom::AskError>>,
{
    let (mut took, mut last) = (Vec::new(), 0);
    let mut now = Instant::now();
    while now < until {
        let turn = ask(agent.clone()).await?;
        anyhow::ensure!(turn > last, "turn {turn} was answered after turn {last}");
        last = turn;
        let then = Instant::now();
        took.push(then - now);
        now = then;
    }
    Ok(took)
}

async fn one_by_one(agent: AgentRef<Doc>, n: usize) -> anyhow::Result<f64> {
    let mut took = Vec::with_capacity(n);
    for _ in 0..n {
        let begun = Instant::now();
        agent.ask(Bump {}).await?;
        took.push(begun.elapsed());
    }
    Ok(p50(took))
}
