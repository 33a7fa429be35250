//! Everything crashes at once.
//!
//! `GREENROOM_STORM=full` makes it a hundred thousand agents.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use greenroom::{AskError, Persistence, prelude::*, runtime::operator::CrashQuery};
use serde_json::Value;

use crate::support::World;

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    n: i64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Get {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Crash {}
message! { Add -> i64; Get -> i64; Crash -> () }

macro_rules! crowd {
    ($agent:ident, $kind:literal, $policy:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $agent {
            total: i64,
        }
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Add, Get, Crash);
            fn policy() -> Policy {
                $policy
            }
        }
        impl Handler<Add> for $agent {
            async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<i64> {
                self.total += add.n;
                Ok(self.total)
            }
        }
        impl Query<Get> for $agent {
            async fn query(&self, _: Get, _: &Turn<Self>) -> Result<i64> {
                Ok(self.total)
            }
        }
        impl Handler<Crash> for $agent {
            async fn handle(&mut self, _: Crash, turn: &Turn<Self>) -> Result<()> {
                self.total = -1;
                panic!("{} was told to", turn.key())
            }
        }
    };
}
crowd!(Light, "light", Policy::default().persistence(Persistence::Volatile));
crowd!(Heavy, "heavy", Policy::default());

/// Within this time all are healed.
const HEALED: Duration = Duration::from_secs(15);

fn is_full() -> bool {
    std::env::var("GREENROOM_STORM").is_ok_and(|size| size == "full")
}

fn sized(small: usize, full: usize) -> usize {
    if is_full() { full } else { small }
}

fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// The records of a log file.
fn records(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All crash at once; then each answers again. How long that took.
async fn storm<C, G>(n: usize, crash: impl Fn(usize) -> C, get: impl Fn(usize) -> G, healed: i64) -> Duration
where
    C: IntoFuture<Output = Result<(), AskError>>,
    G: IntoFuture<Output = Result<i64, AskError>>,
{
    let began = Instant::now();
    let crashed = join_all((0..n).map(|i| crash(i).into_future())).await;
    assert!(crashed.iter().all(|end| end.as_ref().is_err_and(|e| e.code() == "handler_crashed")));
    let answers = join_all((0..n).map(|i| get(i).into_future())).await;
    assert!(answers.into_iter().all(|answer| answer == Ok(healed)));
    began.elapsed()
}

macro_rules! storm_of {
    ($name:ident, $agent:ident, $n:expr, $healed:literal) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let n = $n;
            let logs = tempfile::tempdir().unwrap();
            let file = logs.path().join("log.jsonl");
            let program = || {
                let file = file.to_string_lossy();
                Runtime::builder().agent::<$agent>().set("log.file.path", &file).set("log.format", "compact")
            };
            let mut world = World::start_logged(program()).await;
            let agents: Vec<_> = (0..n).map(|i| world.handle().agent::<$agent>(format!("a{i}"))).collect();
            for some in agents.chunks(1_000) {
                let added = join_all(some.iter().map(|agent| agent.ask(Add { n: 1 }).into_future())).await;
                assert!(added.into_iter().all(|total| total == Ok(1)));
            }

            let (crash, get) = (|i: usize| agents[i].ask(Crash {}), |i: usize| agents[i].ask(Get {}));
            let first = storm(n, crash, get, $healed).await;
            let before = rss();
            let second = storm(n, crash, get, $healed).await;
            let grown = rss().saturating_sub(before);
            let operator = world.handle().operator().clone();
            let groups = operator.crash_groups(&CrashQuery::default()).await.unwrap().items;
            assert_eq!((groups.len(), groups[0].count), (1, 2 * n as u64), "{groups:?}");
            assert!(operator.crashes().len() <= 1_024);
            let shown = operator.crash(&groups[0].report.id).await.unwrap();
            drop((agents, operator));
            world.end().await;

            let records = records(&file);
            let of = |event: &str| records.iter().filter(|r| r["event"] == event).collect::<Vec<_>>();
            let written = of("agent.crashed").len();
            let counts = of("log.suppressed").into_iter().filter(|r| r["of"] == "agent.crashed");
            let suppressed: u64 = counts.map(|r| r["count"].as_u64().unwrap()).sum();
            assert_eq!(written as u64 + suppressed, 2 * n as u64, "none is forgotten");
            // people read each crash in four lines
            let lines = records.len() + 3 * written;
            println!("{n} agents: {first:?}, {second:?}; {lines} lines; {grown} bytes more");
            assert!(lines < 200, "{lines} lines");
            assert!(first < HEALED && second < HEALED, "{first:?}, {second:?}");
            // in a small run other tests share the process
            assert!(!is_full() || grown < 64 << 20, "{grown} bytes more");

            world.start_again(program()).await;
            let after = world.handle().operator().crash(&shown.report.id).await.unwrap();
            assert_eq!((&after.report.id, after.group.unwrap().count), (&shown.report.id, 2 * n as u64));
        }
    };
}
storm_of!(volatile_agents_that_crash_at_once_are_healed_in_few_lines_of_log, Light, sized(2_000, 100_000), 0);
storm_of!(durable_agents_that_crash_at_once_are_healed_in_few_lines_of_log, Heavy, sized(500, 100_000), 1);
