//! How much of a kind's or a tool's tasks is under way: bounds, rates, turns, and pauses.

use futures_util::future::join_all;
use greenroom::{TaskId, prelude::*};
use serde_json::json;

use crate::support::{Gate, World, outcome, soon, task_in, until};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Work {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Ping {}
message! { Work -> (); Ping -> () }

/// Works where the gate lets it.
#[derive(Default, Serialize, Deserialize)]
struct Slow {}
impl Agent for Slow {
    const KIND: &'static str = "slow";
    type Messages = (Work, Ping);
}
impl Handler<Work> for Slow {
    async fn handle(&mut self, _: Work, turn: &Turn<Self>) -> Result<()> {
        turn.resource::<Gate>().wait().await;
        Ok(())
    }
}
impl Handler<Ping> for Slow {
    async fn handle(&mut self, _: Ping, _: &Turn<Self>) -> Result<()> {
        Ok(())
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Quick {}
impl Agent for Quick {
    const KIND: &'static str = "quick";
    type Messages = Ping;
}
impl Handler<Ping> for Quick {
    async fn handle(&mut self, _: Ping, _: &Turn<Self>) -> Result<()> {
        Ok(())
    }
}

fn program(gate: &Gate) -> greenroom::Builder {
    let (flood, single) = (gate.clone(), gate.clone());
    Runtime::builder()
        .agent::<Slow>()
        .agent::<Quick>()
        .resource(gate.clone())
        .tool_fn("flood", Effect::Pure, move |_: Work, _| {
            let gate = flood.clone();
            async move {
                gate.note("flood");
                gate.wait().await;
                Ok(())
            }
        })
        .tool_fn("single", Effect::Pure, move |_: Ping, _| {
            single.note("single");
            async { Ok(()) }
        })
}

async fn start(settings: &[(&str, &str)]) -> (World, Gate) {
    let gate = Gate::default();
    let program = settings.iter().fold(program(&gate), |program, (key, value)| program.set(key, value));
    (World::start(program).await, gate)
}

async fn submit(world: &World, target: &str, message: Option<&str>) -> TaskId {
    let request = json!({"target": target, "message": message, "input": {}});
    let request = serde_json::from_value(request).unwrap();
    soon(world.handle().operator().submit(request)).await.unwrap().0.id
}

/// So many tasks for a kind, each for an agent of its own.
async fn submit_for(world: &World, kind: &str, message: &str, n: usize) -> Vec<TaskId> {
    let targets: Vec<String> = (0..n).map(|n| format!("{kind}/{n}")).collect();
    join_all(targets.iter().map(|target| submit(world, target, Some(message)))).await
}

/// How many of the tasks are in this state.
async fn count(world: &World, ids: &[TaskId], state: &str) -> usize {
    let handle = world.handle();
    let views = join_all(ids.iter().map(|id| handle.operator().task(*id))).await;
    views.into_iter().filter(|view| view.as_ref().unwrap().state.name() == state).count()
}

/// The dispatcher has claimed what it would: a task that came later has ended.
async fn settled(world: &World) {
    let id = submit(world, "quick/after", Some("Ping")).await;
    task_in(&world.handle(), id, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_cannot_begin_waits_in_the_store() {
    let (world, gate) = start(&[("tools.flood.concurrency", "2")]).await;
    let ids = join_all((0..6).map(|_| submit(&world, "tool:flood", None))).await;
    gate.arrival().await;
    gate.arrival().await;
    settled(&world).await;
    assert_eq!((count(&world, &ids, "running").await, count(&world, &ids, "ready").await), (2, 4));
    gate.open(6);
    for id in ids {
        assert!(matches!(outcome::<Work>(&world.handle(), id).await, Outcome::Succeeded(())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kinds_tasks_beyond_its_bound_wait_and_its_asks_do_not() {
    let (world, gate) = start(&[("agents.slow.concurrency", "2")]).await;
    let ids = submit_for(&world, "slow", "Work", 5).await;
    gate.arrival().await;
    gate.arrival().await;
    settled(&world).await;
    assert_eq!((count(&world, &ids, "running").await, count(&world, &ids, "ready").await), (2, 3));
    soon(world.handle().agent::<Slow>("other").ask(Ping {})).await.unwrap();
    gate.open(5);
    for id in ids {
        assert!(matches!(outcome::<Work>(&world.handle(), id).await, Outcome::Succeeded(())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_tasks_of_a_kind_begin_within_a_time_than_its_rate() {
    let (world, _) = start(&[("agents.slow.rate", "2/1h")]).await;
    let ids = submit_for(&world, "slow", "Ping", 5).await;
    until("two have run", || async { count(&world, &ids, "succeeded").await == 2 }).await;
    settled(&world).await;
    assert_eq!(count(&world, &ids, "ready").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rate_holds_up_begins_when_its_time_has_come() {
    let (world, _) = start(&[("agents.slow.rate", "2/50ms"), ("tools.single.rate", "1/20ms")]).await;
    let mut ids = submit_for(&world, "slow", "Ping", 9).await;
    ids.extend(join_all((0..5).map(|_| submit(&world, "tool:single", None))).await);
    for id in ids {
        task_in(&world.handle(), id, "succeeded").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_with_many_tasks_does_not_hold_up_the_one_of_another() {
    let (world, gate) = start(&[("tasks.slots", "1")]).await;
    let many = join_all((0..50).map(|_| submit(&world, "tool:flood", None))).await;
    gate.arrival().await;
    let one = submit(&world, "tool:single", None).await;
    gate.open(1);
    task_in(&world.handle(), one, "succeeded").await;
    assert_eq!(count(&world, &many, "succeeded").await, 1, "it had the next turn");
    gate.open(49);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_whose_agents_take_long_leaves_room_for_the_others() {
    let (world, gate) = start(&[]).await;
    let task = |n: usize| json!({"target": format!("slow/{n}"), "message": "Work", "input": {}});
    for from in [0, 800, 1_600] {
        let tasks = (from..from + 800).map(|n| serde_json::from_value(task(n)).unwrap()).collect();
        soon(world.handle().operator().submit_batch(tasks, None)).await.unwrap();
    }
    let are = async |n: u64, state: &str| {
        world.handle().operator().status().await.tasks.get(state).copied().unwrap_or(0) >= n
    };
    until("it has what it may", || are(1_024, "running")).await;
    settled(&world).await;
    gate.open(2_400);
    until("all have run", || are(2_401, "succeeded")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_kind_starts_nothing_and_what_runs_goes_on() {
    let (mut world, gate) = start(&[]).await;
    let running = submit(&world, "slow/running", Some("Work")).await;
    gate.arrival().await;
    for kind in ["slow", "tool:single"] {
        soon(world.handle().operator().pause_kind(kind, true)).await.unwrap();
    }
    let waits = [submit(&world, "slow/a", Some("Ping")).await, submit(&world, "tool:single", None).await];
    settled(&world).await;
    assert_eq!(count(&world, &waits, "ready").await, 2);
    soon(world.handle().agent::<Slow>("a").ask(Ping {})).await.unwrap();
    gate.open(1);
    task_in(&world.handle(), running, "succeeded").await;

    // it is seen, and it lasts
    world.end().await;
    world.start_again(program(&gate)).await;
    let handle = world.handle();
    let operator = handle.operator();
    assert!(operator.kind("slow").await.unwrap().paused && !operator.kind("quick").await.unwrap().paused);
    assert!(operator.tool("single").await.unwrap().paused);
    let reasons = operator.status().await.reasons;
    let paused: Vec<_> = reasons.iter().filter(|reason| reason.code == "kind_paused").collect();
    assert_eq!(paused.len(), 2, "{reasons:?}");
    assert!(paused[0].message.contains("slow") && paused[0].remedy.contains("kinds resume slow"));
    settled(&world).await;
    assert_eq!(count(&world, &waits, "ready").await, 2);

    for kind in ["slow", "tool:single"] {
        soon(operator.pause_kind(kind, false)).await.unwrap();
    }
    for id in waits {
        task_in(&world.handle(), id, "succeeded").await;
    }
    assert!(operator.pause_kind("nobody", true).await.is_err());
    assert!(operator.pause_kind("tool:nobody", true).await.is_err());
}
