//! How much of a kind's or a tool's tasks is under way: bounds, rates, turns, and pauses.

use futures_util::future::join_all;
use greenroom::{TaskId, prelude::*};
use serde_json::json;

use crate::support::{Gate, World, outcome, soon, task_in, until};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Work {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Ping {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Put {
    n: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct All {}
message! { Work -> (); Ping -> (); Put -> (); All -> Vec<u64> }

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

/// Keeps numbers in the order in which they came; the first of each hundred waits at the gate.
#[derive(Default, Serialize, Deserialize)]
struct Row {
    numbers: Vec<u64>,
}
impl Agent for Row {
    const KIND: &'static str = "row";
    type Messages = (Put, All);
}
impl Handler<Put> for Row {
    async fn handle(&mut self, put: Put, turn: &Turn<Self>) -> Result<()> {
        if put.n.is_multiple_of(100) {
            turn.resource::<Gate>().wait().await;
        }
        self.numbers.push(put.n);
        Ok(())
    }
}
impl Query<All> for Row {
    async fn query(&self, _: All, _: &Turn<Self>) -> Result<Vec<u64>> {
        Ok(self.numbers.clone())
    }
}

fn program(gate: &Gate) -> greenroom::Builder {
    let (flood, single) = (gate.clone(), gate.clone());
    Runtime::builder()
        .agent::<Slow>()
        .agent::<Quick>()
        .agent::<Row>()
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
        soon(world.handle().operator().submit_batch(tasks)).await.unwrap();
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

/// What had not begun goes back while the agent works on: none of it may be overtaken by what was accepted later.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_does_not_mix_up_the_tasks_of_an_agent() {
    let (world, gate) = start(&[]).await;
    let (handle, row) = (world.handle(), world.handle().agent::<Row>("r"));
    for round in 0..5 {
        let mut last = None;
        for n in 0..100 {
            last = Some(soon(row.submit(Put { n: round * 100 + n })).await.unwrap());
        }
        gate.arrival().await;
        gate.open(1);
        for paused in [true, false] {
            soon(handle.operator().pause_kind("row", paused)).await.unwrap();
        }
        task_in(&handle, last.unwrap(), "succeeded").await;
    }
    let numbers = soon(row.ask(All {})).await.unwrap();
    assert!(numbers.iter().copied().eq(0..500), "{numbers:?}");
}
