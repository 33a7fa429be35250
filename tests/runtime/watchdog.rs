//! A handler that holds up its thread is seen, told of, and kept away from.

use std::{path::Path, sync::Arc, time::Instant};

use greenroom::{Call, Effect, Tool, prelude::*};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::support::{PATIENCE, World, soon, until};

/// Blocks its thread until the test lets it go.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Spin {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Ping {}
message! { Spin -> (); Ping -> () }

#[derive(Default, Serialize, Deserialize)]
struct Top {}
impl Agent for Top {
    const KIND: &'static str = "top";
    type Messages = (Spin, Ping);
    fn policy() -> Policy {
        Policy::default().persistence(greenroom::Persistence::Volatile)
    }
}
impl Handler<Spin> for Top {
    async fn handle(&mut self, _: Spin, turn: &Turn<Self>) -> Result<()> {
        let gate = turn.resource::<Arc<Semaphore>>();
        while gate.try_acquire().is_err() {
            std::thread::yield_now();
        }
        Ok(())
    }
}
impl Handler<Ping> for Top {
    async fn handle(&mut self, _: Ping, _: &Turn<Self>) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_spins_is_named_and_new_ones_come_elsewhere() {
    let gate = Arc::new(Semaphore::new(0));
    let world = World::start(Runtime::builder().agent::<Top>().resource(gate.clone())).await;
    let handle = world.handle();
    let spinning = tokio::spawn(handle.agent::<Top>("culprit").ask(Spin {}));
    let stuck = || async {
        let status = handle.operator().status().await;
        status.reasons.into_iter().find(|r| r.code == "agent_stuck").map(|r| r.message)
    };
    until("it is seen", || async { stuck().await.is_some() }).await;
    assert!(stuck().await.unwrap().contains("top/culprit"));
    // two arbiters, and one of them answers nobody
    for n in 0..64 {
        soon(handle.agent::<Top>(format!("{n}")).ask(Ping {})).await.unwrap();
    }
    gate.add_permits(1);
    soon(spinning).await.unwrap().unwrap();
    until("it is over", || async { stuck().await.is_none() }).await;
}

/// Holds a thread until the test lets it go; its start is told.
struct Mill(Arc<Semaphore>, Arc<Semaphore>);
impl Tool for Mill {
    const NAME: &'static str = "mill";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Spin;
    async fn run(&self, _: Spin, _: &Call) -> Result<()> {
        self.1.add_permits(1);
        while self.0.try_acquire().is_err() {
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// There is no thread left on which the node could look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_that_hold_all_threads_are_named_with_their_tasks() {
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let logs = tempfile::tempdir().unwrap();
    let file = logs.path().join("log.jsonl");
    let program = Runtime::builder().tool(Mill(gate.clone(), begun.clone()));
    let program = program.set("log.level", "critical").set("log.file.level", "info");
    let world = World::start_logged(program.set("log.file.path", &file.to_string_lossy())).await;
    let mill = world.handle().tool::<Mill>();
    let task = soon(mill.submit(Spin {})).await.unwrap();
    let called = tokio::spawn(mill.call(Spin {}).into_future());
    let _held = soon(begun.acquire_many(2)).await.unwrap();
    // no timer comes from here on, and nobody but the watchdog does anything
    let stuck = told(&file, "agent.stuck", 2);
    gate.add_permits(2);
    soon(called).await.unwrap().unwrap();
    let freed = told(&file, "agent.unstuck", 2);
    for records in [stuck, freed] {
        for record in &records {
            assert!(record["subject"] == "tool:mill" && record["message_type"] == "Spin", "{record}");
            assert!(record["stuck_ms"].as_u64().unwrap() >= 1_000, "{record}");
        }
        let tasks: Vec<_> = records.iter().filter_map(|record| record["task"].as_str()).collect();
        assert_eq!(tasks, [task.to_string()]);
    }
}

/// The records of an event, once the log has so many; its writer has a thread of its own.
fn told(file: &Path, event: &str, n: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<Value> = records.filter(|record| record["event"] == event).collect();
        if found.len() >= n {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{n} of {event} are not told: {text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_blocks_a_thread_is_a_reason_while_it_does() {
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let world = World::start(Runtime::builder().tool(Mill(gate.clone(), begun))).await;
    let called = tokio::spawn(world.handle().tool::<Mill>().call(Spin {}).into_future());
    let stuck = || async {
        let status = world.handle().operator().status().await;
        status.reasons.into_iter().find(|reason| reason.code == "tool_stuck").map(|reason| reason.message)
    };
    until("it is seen", || async { stuck().await.is_some() }).await;
    assert!(stuck().await.unwrap().contains("tool:mill"));
    gate.add_permits(1);
    soon(called).await.unwrap().unwrap();
    until("it is over", || async { stuck().await.is_none() }).await;
}
