//! Durable asks through HTTP, of the program as it is run: what a caller outside of it gets. The callers
//! share the machine with it, over connections that stay open.

use std::time::{Duration, Instant};

use super::{
    ground::directory,
    measure::{Better, Plan, Row, Unit, median, p50},
    program::Program,
};

const CALLERS: usize = 64;

/// How the row of a store is called.
pub fn name(store: &str) -> String {
    format!("{store}durable asks through HTTP, {CALLERS} callers, {CALLERS} agents")
}

/// On SQLite.
pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    row(plan, "", None)
}

/// One row; `url`: of a Postgres.
pub fn row(plan: &mut Plan, store: &str, url: Option<String>) -> anyhow::Result<()> {
    let name = name(store);
    if !plan.wants(&name) {
        return Ok(());
    }
    let data = directory()?;
    let program = Program::start(data.path(), url)?;
    let callers = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut rates, mut waits) = (Vec::new(), Vec::new());
    for round in 0..=plan.rounds() {
        let begun = Instant::now();
        let took = callers.block_on(asked(&program, begun + plan.stretch() * 2))?;
        // the first one warms up
        if round > 0 {
            rates.push(took.len() as f64 / begun.elapsed().as_secs_f64());
            waits.push(p50(took));
        }
    }
    let note = format!("p50 {:.1} ms", median(waits) / 1e3);
    plan.add(Row {
        name,
        unit: Unit::PerSecond,
        better: Better::More,
        peers: Vec::new(),
        ours: rates,
        goal: None,
        note,
    });
    Ok(())
}

/// How long each ask took that was answered until then.
async fn asked(program: &Program, until: Instant) -> anyhow::Result<Vec<Duration>> {
    let callers = (0..CALLERS).map(|n| caller(program, n, until));
    Ok(futures_util::future::try_join_all(callers).await?.concat())
}

async fn caller(program: &Program, n: usize, until: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut connection = program.connect().await?;
    let request = program.request(&format!("POST /api/v1/agents/counter/{n}/messages/Add"), r#"{"n":1}"#);
    let mut took = Vec::new();
    let mut now = Instant::now();
    while now < until {
        connection.ask(&request).await?;
        let then = Instant::now();
        took.push(then - now);
        now = then;
    }
    Ok(took)
}
