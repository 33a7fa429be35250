//! States of many sizes on Postgres, compressed and as they are: which are worth it.

use greenroom::store::{self, StoreOptions};

use super::{
    doc::{Doc, Grow},
    durable::{Spent, turns},
    ground::{Ground, directory, runtime},
    measure::{Better, Peer, Plan, Row, Unit, median, rounds},
    postgres::{STORE, Server, wal},
};

const SIZES: [usize; 8] = [256, 512, 1_024, 1_536, 2_048, 4_096, 8_192, 16_384];
const AGENTS: usize = 256;

fn name(size: usize) -> String {
    format!("{STORE}turns of {size} B of state, {AGENTS} callers, {AGENTS} agents, compressed")
}

pub fn is_wanted(plan: &Plan) -> bool {
    SIZES.iter().any(|size| plan.wants(&name(*size)))
}

/// A node on a database of its own that compresses from a size on.
struct Side {
    ground: Ground,
    database: &'static str,
    spent: Spent,
    /// Bytes of the server's log a turn, by round.
    wal: Vec<f64>,
    _data: tempfile::TempDir,
}

impl Side {
    fn new(server: &Server, database: &'static str, packed_from: usize) -> anyhow::Result<Self> {
        server.psql(&format!("CREATE DATABASE {database}"));
        let url = server.url();
        let url = url.rsplit_once('/').map_or(url.clone(), |(server, _)| format!("{server}/{database}"));
        let (data, runtime) = (directory()?, runtime()?);
        let options = StoreOptions { packed_from, ..StoreOptions::default() };
        let store = runtime.block_on(store::open(&url, &options))?;
        let sets = [("store.url", url.as_str())];
        let ground = Ground::on(runtime, data.path(), &sets, |builder| builder.wrap_store(|_| store))?;
        Ok(Self { ground, database, spent: Spent::default(), wal: Vec::new(), _data: data })
    }

    fn agents(&self, size: usize) -> Vec<greenroom::AgentRef<Doc>> {
        (0..AGENTS).map(|n| self.ground.handle.agent::<Doc>(format!("{size}-{n}"))).collect()
    }

    fn grow(&self, size: usize) -> anyhow::Result<()> {
        self.ground.runtime.block_on(async {
            for agent in self.agents(size) {
                agent.ask(Grow { bytes: size }).await?;
            }
            Ok(())
        })
    }

    fn turns(&mut self, server: &Server, size: usize, stretch: std::time::Duration) -> anyhow::Result<f64> {
        let before = wal(server)?;
        let agents = self.agents(size);
        let rate = turns(&self.ground, &agents, AGENTS, stretch, &mut self.spent)?;
        self.wal.push((wal(server)? - before) / (rate * stretch.as_secs_f64()));
        Ok(rate)
    }

    /// What the rounds of a size cost.
    fn told(&mut self, server: &Server, size: usize) -> String {
        let (wal, spent) = (median(std::mem::take(&mut self.wal)), std::mem::take(&mut self.spent));
        let query =
            format!("SELECT round(avg(octet_length(state))) FROM greenroom_agents WHERE key LIKE '{size}-%'");
        let stored = server.psql_in(self.database, &query);
        format!("{wal:.0} B of WAL a turn, {stored} B stored, {}", spent.told())
    }
}

pub fn measure(plan: &mut Plan, server: &Server) -> anyhow::Result<()> {
    let stretch = plan.stretch();
    let plain = std::cell::RefCell::new(Side::new(server, "plain", usize::MAX)?);
    let packed = std::cell::RefCell::new(Side::new(server, "packed", 0)?);
    for size in SIZES {
        let name = name(size);
        if !plan.wants(&name) {
            continue;
        }
        plain.borrow().grow(size)?;
        packed.borrow().grow(size)?;
        let (theirs, ours) = rounds(
            plan.rounds(),
            || plain.borrow_mut().turns(server, size, stretch),
            || packed.borrow_mut().turns(server, size, stretch),
        )?;
        let (unit, better) = (Unit::PerSecond, Better::More);
        let told = (packed.borrow_mut().told(server, size), plain.borrow_mut().told(server, size));
        let note = format!("{}; as it is: {}", told.0, told.1);
        let peers = vec![Peer::new("as it is", theirs, None)];
        plan.add(Row { name, unit, better, peers, ours, goal: None, note });
    }
    plain.into_inner().ground.end()?;
    packed.into_inner().ground.end()
}
