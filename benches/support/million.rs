//! A million agents and 200,000 ended tasks in the tables: start to ready, and again after a kill.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Context as _;
use diesel::connection::SimpleConnection as _;

use super::{
    bare,
    doc::{Bump, Doc},
    ground::{Ground, directory},
    measure::{Better, Plan, Row, Unit},
    phase::{PHASE, Phase},
    postgres::{STORE, Server},
};

const NAME: &str = "start to ready, 1,000,000 stored agents, 200,000 ended tasks, after a kill";

/// The rows, as the store would have written them: what start-up reads of them is the same.
const ON_POSTGRES: &str = "
    INSERT INTO greenroom_agents (id, partition, kind, key, epoch, version, schema_version, state)
    SELECT gen_random_uuid(), i % 64, 'doc', 'stored-' || i, 1, 1, 0, decode(repeat('7b', 60), 'hex')
      FROM generate_series(1, 1000000) AS i;
    INSERT INTO greenroom_task_archive (id, seq, target, message, state, priority, attempt, lost, max_attempts,
        run_after_failure, created_at, input)
    SELECT gen_random_uuid(), i, 'doc/stored-' || i, 'Bump', 10 + i % 3, 0, 1, 0, 5, false, now(), '{}'
      FROM generate_series(1, 200000) AS i;";
const ON_SQLITE: &str = "
    BEGIN IMMEDIATE;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
    INSERT INTO greenroom_agents (id, partition, kind, key, status, epoch, version, schema_version, created_at,
        updated_at, state)
    SELECT randomblob(16), i % 64, 'doc', 'stored-' || i, 0, 1, 1, 0, 0, 0, zeroblob(60) FROM n;
    UPDATE greenroom_counts SET n = n + 1000000 WHERE id = 100;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
    INSERT INTO greenroom_task_archive (id, seq, target, message, state, priority, attempt, lost, max_attempts,
        run_after_failure, created_at, finished_at, input)
    SELECT randomblob(16), i, 'doc/stored-' || i, 'Bump', 10 + i % 3, 0, 1, 0, 5, 0, 0, 0, x'7b7d' FROM n;
    COMMIT;";

pub fn is_wanted_on_postgres(plan: &Plan) -> bool {
    plan.wants(&format!("{STORE}{NAME}"))
}

pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    if !plan.wants(NAME) {
        return Ok(());
    }
    let data = directory()?;
    Ground::new(data.path())?.end()?;
    bare::connect(&data.path().join("greenroom.db"))?.batch_execute(ON_SQLITE)?;
    starts(plan, "", data.path(), None)
}

pub fn on_postgres(plan: &mut Plan, server: &Server) -> anyhow::Result<()> {
    let data = directory()?;
    Ground::with(data.path(), &[("store.url", &server.url())])?.end()?;
    server.psql(ON_POSTGRES);
    starts(plan, STORE, data.path(), Some(&server.url()))
}

/// Starts, works, is killed, again and again.
fn starts(plan: &mut Plan, store: &str, data: &Path, url: Option<&str>) -> anyhow::Result<()> {
    let mut figures = (Vec::new(), Vec::new());
    for _ in 0..=plan.rounds() {
        let (start, first) = killed(data, url)?;
        figures.0.push(start);
        figures.1.push(first);
    }
    let at_rest = figures.0.remove(0);
    let first = super::measure::median(figures.1);
    let note =
        format!("{at_rest:.0} ms after a start in good order; the first turn after {first:.1} ms more");
    let (name, unit, better) = (format!("{store}{NAME}"), Unit::Millis, Better::Less);
    plan.add(Row { name, unit, better, peers: Vec::new(), ours: figures.0, goal: Some(1_000.0), note });
    Ok(())
}

/// A process of its own, killed in the middle of its work: its start and its first turn, in milliseconds.
fn killed(data: &Path, url: Option<&str>) -> anyhow::Result<(f64, f64)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([PHASE, Phase::Start.name()])
        .arg(data)
        .args(url)
        .stdout(Stdio::piped())
        .spawn()?;
    let out = BufReader::new(child.stdout.take().context("no output")?);
    let mut figures = out.lines().map_while(|line| line.ok()?.parse::<f64>().ok());
    let found = figures.next().zip(figures.next());
    std::thread::sleep(std::time::Duration::from_millis(200));
    child.kill()?;
    child.wait()?;
    found.context("the node did not start")
}

/// The process: says how long it took, and works on.
pub fn start(data: &Path, url: Option<String>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let sets: Vec<_> = url.iter().map(|url| ("store.url", url.as_str())).collect();
    let ground = Ground::with(data, &sets)?;
    println!("{}", begun.elapsed().as_secs_f64() * 1e3);
    let begun = Instant::now();
    let doc = ground.handle.agent::<Doc>("asked");
    ground.runtime.block_on(doc.ask(Bump {}))?;
    println!("{}", begun.elapsed().as_secs_f64() * 1e3);
    loop {
        ground.runtime.block_on(doc.ask(Bump {}))?;
    }
}
