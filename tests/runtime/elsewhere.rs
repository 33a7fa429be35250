//! Tasks that another node runs.

use greenroom::{
    Call, Effect, Limits, Tool,
    prelude::*,
    runtime::views::{Reason, TaskRequest},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    postgres::Database,
    support::{Gate, World, soon, task_in, until},
};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Dig {}
message!(Dig -> ());

/// Waits at the gate.
struct Digger(Gate);
impl Tool for Digger {
    const NAME: &'static str = "dig";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Dig;
    fn limits(&self) -> Limits {
        // nothing but the cancellation ends it
        Limits { timeout: Some(Duration::from_secs(3_600)), ..Limits::default() }
    }
    async fn run(&self, _: Dig, _: &Call) -> Result<()> {
        self.0.wait().await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_reaches_the_node_that_runs_the_task() {
    let (database, gate) = (Database::new(), Gate::default());
    let node = || Runtime::builder().set("store.url", &database.url()).set("node.lease", "3s");
    let mut digs = World::start(node().tool(Digger(gate.clone()))).await;
    let mut asks =
        World::start(node().tool_fn("other", Effect::Pure, |_: Dig, _: Call| async { Ok(()) })).await;
    let dug = soon(digs.handle().tool::<Digger>().submit(Dig {})).await.unwrap();
    gate.arrival().await;
    soon(asks.handle().operator().cancel(dug)).await.unwrap();
    task_in(&asks.handle(), dug, "cancelled").await;
    asks.end().await;
    digs.end().await;
}

/// A node that polls comes for each of them five seconds after the last one.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_has_no_room_for_begins_on_another_one_without_a_poll() {
    let (database, gate) = (Database::new(), Gate::default());
    let url = database.url();
    let sets = [("store.url", &*url), ("tasks.slots", "1"), ("node.lease", "3s")];
    let node = || sets.iter().fold(Runtime::builder(), |program, (key, value)| program.set(key, value));
    let quick = |program: greenroom::Builder| {
        program.tool_fn("quick", Effect::Pure, |_: Dig, _: Call| async { Ok(()) })
    };
    let mut full = World::start(quick(node().tool(Digger(gate.clone())))).await;
    let dug = soon(full.handle().tool::<Digger>().submit(Dig {})).await.unwrap();
    gate.arrival().await;
    let mut idle = World::start(quick(node())).await;
    until("they know each other", || async {
        full.handle().operator().nodes().await.is_ok_and(|nodes| nodes.len() == 2)
    })
    .await;
    let begun = tokio::time::Instant::now();
    for _ in 0..8 {
        let request =
            TaskRequest { target: "tool:quick".into(), input: Some(json!({})), ..Default::default() };
        let id = soon(full.handle().operator().submit(request)).await.unwrap().0.id;
        task_in(&full.handle(), id, "succeeded").await;
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    gate.open(1);
    task_in(&full.handle(), dug, "succeeded").await;
    idle.end().await;
    full.end().await;
}

/// One of two begins where both are submitted, and takes the only slot; the other one begins beside it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_for_a_node_begins_on_another_one_without_a_poll() {
    let (database, gate) = (Database::new(), Gate::default());
    let url = database.url();
    let sets = [("store.url", &*url), ("tasks.slots", "1"), ("node.lease", "3s")];
    let node = || {
        let program = Runtime::builder().tool(Digger(gate.clone()));
        sets.iter().fold(program, |program, (key, value)| program.set(key, value))
    };
    let (mut one, mut other) = (World::start(node()).await, World::start(node()).await);
    let begun = tokio::time::Instant::now();
    for _ in 0..6 {
        let dig = || TaskRequest { target: "tool:dig".into(), input: Some(json!({})), ..Default::default() };
        let (tasks, _) = soon(one.handle().operator().submit_batch(vec![dig(), dig()], None)).await.unwrap();
        gate.arrival().await;
        gate.arrival().await;
        gate.open(2);
        for task in tasks {
            task_in(&one.handle(), task.id, "succeeded").await;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    other.end().await;
    one.end().await;
}

/// A node that has lost a claim does not say how the task ended: another one knows better.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_not_recorded_is_not_told() {
    let (database, gate, logs) = (Database::new(), Gate::default(), TempDir::new().unwrap());
    let file = logs.path().join("log");
    let door = gate.clone();
    let fails = move |_: Dig, _: Call| {
        let door = door.clone();
        async move {
            door.wait().await;
            anyhow::bail!("the ground is too hard")
        }
    };
    let program = Runtime::builder()
        .set("store.url", &database.url())
        .set("log.file.path", &file.to_string_lossy())
        .tool_fn("dig_alone", Effect::Pure, fails);
    let mut world = World::start_logged(program).await;
    let submit = || TaskRequest {
        target: "tool:dig_alone".into(),
        input: Some(json!({})),
        max_attempts: Some(1),
        ..Default::default()
    };
    let lost = soon(world.handle().operator().submit(submit())).await.unwrap().0.id;
    gate.arrival().await;
    database.psql("UPDATE greenroom_tasks SET attempt = attempt + 1");
    let kept = soon(world.handle().operator().submit(submit())).await.unwrap().0.id;
    gate.arrival().await;
    gate.open(2);
    task_in(&world.handle(), kept, "failed").await;
    let runs = |id: TaskId| {
        let handle = world.handle();
        async move { format!("{:?}", handle.operator().tree().await).contains(&id.to_string()) }
    };
    until("it has left", || async { !runs(lost).await }).await;
    world.end().await;
    let log = std::fs::read_to_string(&file).unwrap();
    let told = |id: TaskId| {
        log.lines().filter(|line| line.contains("task.failed") && line.contains(&id.to_string())).count()
    };
    assert_eq!((told(lost), told(kept)), (0, 1), "{log}");
}

/// One of two tasks runs; the other waits.
fn seldom(program: greenroom::Builder) -> greenroom::Builder {
    let limits = Limits { rate: Some((1, Duration::from_secs(3_600))), ..Limits::default() };
    program.tool_fn_with("seldom", Effect::Pure, limits, |_: Dig, _: Call| async { Ok(()) })
}

async fn leave_one_ready(world: &World) -> TaskId {
    let request =
        || TaskRequest { target: "tool:seldom".into(), input: Some(json!({})), ..Default::default() };
    let first = soon(world.handle().operator().submit(request())).await.unwrap().0.id;
    task_in(&world.handle(), first, "succeeded").await;
    soon(world.handle().operator().submit(request())).await.unwrap().0.id
}

async fn nodeless(world: &World) -> Vec<Reason> {
    let reasons = soon(world.handle().operator().status()).await.reasons;
    reasons.into_iter().filter(|reason| reason.code == "no_node_for").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_for_a_tool_that_is_not_there_any_more_are_told() {
    let mut world = World::start(seldom(Runtime::builder())).await;
    let left = leave_one_ready(&world).await;
    assert_eq!(nodeless(&world).await.len(), 0, "it is only slow");
    world.end().await;
    world.start_again(Runtime::builder()).await;
    let told = nodeless(&world).await;
    assert!(told.len() == 1 && told[0].message.contains("tasks of tool:seldom are ready"), "{told:?}");
    let ready_at = soon(world.handle().operator().task(left)).await.unwrap().created_at;
    assert_eq!(told[0].since.as_second(), ready_at.as_second());
    soon(world.handle().operator().cancel(left)).await.unwrap();
    assert_eq!(nodeless(&world).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_only_another_node_can_run_are_told_when_that_has_gone() {
    let database = Database::new();
    let node = || Runtime::builder().set("store.url", &database.url()).set("node.lease", "3s");
    let mut digs = World::start(seldom(node())).await;
    let mut asks = World::start(node()).await;
    leave_one_ready(&digs).await;
    for _ in 0..3 {
        assert_eq!((nodeless(&asks).await.len(), nodeless(&digs).await.len()), (0, 0));
    }
    digs.end().await;
    until("it is told", || async { nodeless(&asks).await.len() == 1 }).await;
    digs.start_again(seldom(node())).await;
    until("it is over", || async { nodeless(&asks).await.is_empty() }).await;
    asks.end().await;
    digs.end().await;
}
