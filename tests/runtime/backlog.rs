//! Too much waits: who is told to come again later, and who never is.

use greenroom::{AskError, Call, TaskId, prelude::*, runtime::views::TaskRequest};
use serde_json::json;

use crate::support::{Gate, World, soon, task_in, until};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Work {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Hand {
    n: usize,
}
message! { Work -> (); Hand -> () }

/// Works where the gate lets it; hands work on to others.
#[derive(Default, Serialize, Deserialize)]
struct Slow {}
impl Agent for Slow {
    const KIND: &'static str = "slow";
    type Messages = (Work, Hand);
}
impl Handler<Work> for Slow {
    async fn handle(&mut self, _: Work, turn: &Turn<Self>) -> Result<()> {
        turn.resource::<Gate>().wait().await;
        Ok(())
    }
}
impl Handler<Hand> for Slow {
    async fn handle(&mut self, hand: Hand, turn: &Turn<Self>) -> Result<()> {
        for n in 0..hand.n {
            turn.agent::<Slow>(format!("of-a-turn-{n}")).submit(Work {});
        }
        Ok(())
    }
}

/// Hands work on as a task function.
async fn hand(hand: Hand, call: Call) -> Result<()> {
    for n in 0..hand.n {
        call.agent::<Slow>(format!("of-a-task-{n}")).submit(Work {}).await?;
    }
    Ok(())
}

/// A node on which two tasks may wait, and none of `slow` begins.
async fn world() -> (World, Gate) {
    let gate = Gate::default();
    let program = Runtime::builder()
        .agent::<Slow>()
        .resource(gate.clone())
        .tool_fn("hand", Effect::Idempotent, hand)
        .set("tasks.max_backlog", "2");
    let world = World::start(program).await;
    soon(world.handle().operator().pause_kind("slow", true)).await.unwrap();
    (world, gate)
}

fn request(target: &str, message: Option<&str>, key: Option<&str>) -> TaskRequest {
    let input = if target.starts_with("tool:") { json!({"n": 3}) } else { json!({}) };
    let request = json!({"target": target, "message": message, "input": input, "idempotency_key": key});
    serde_json::from_value(request).unwrap()
}

async fn submit(world: &World, key: &str) -> std::result::Result<TaskId, AskError> {
    soon(world.handle().agent::<Slow>("a").submit(Work {}).idempotency_key(key)).await
}

async fn fill(world: &World) -> TaskId {
    let first = submit(world, "1").await.unwrap();
    submit(world, "2").await.unwrap();
    first
}

async fn waiting(world: &World) -> u64 {
    soon(world.handle().operator().status()).await.tasks.get("ready").copied().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_submits_from_outside_is_refused_while_too_much_waits() {
    let (world, gate) = world().await;
    let first = fill(&world).await;
    let (handle, operator) = (world.handle(), world.handle().operator().clone());
    let refused = submit(&world, "3").await.unwrap_err();
    let AskError::Overloaded { what, retry_after } = &refused else { panic!("{refused:?}") };
    assert!(what.contains("tasks.max_backlog is 2"), "{what}");
    assert_eq!((refused.code(), *retry_after), ("overloaded", Duration::from_secs(1)));
    for refused in [
        soon(handle.agent::<Slow>("b").submit(Work {})).await.unwrap_err().code(),
        soon(operator.submit(request("slow/a", Some("Work"), None))).await.unwrap_err().code(),
        soon(operator.submit_batch(vec![request("slow/a", Some("Work"), None)], None))
            .await
            .unwrap_err()
            .code(),
    ] {
        assert_eq!(refused, "overloaded");
    }
    assert_eq!(waiting(&world).await, 2, "nothing of it was accepted");
    let reasons = soon(operator.status()).await.reasons;
    assert!(reasons.iter().any(|reason| reason.code == "backlog_full"), "{reasons:?}");

    assert_eq!(submit(&world, "1").await.unwrap(), first, "what was accepted is answered again");

    soon(operator.pause_kind("slow", false)).await.unwrap();
    gate.open(2);
    task_in(&handle, first, "succeeded").await;
    until("there is room", || async { submit(&world, "4").await.is_ok() }).await;
    gate.open(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_work_submits_is_taken_however_much_waits() {
    let (world, gate) = world().await;
    let task = soon(world.handle().operator().submit(request("tool:hand", None, None))).await.unwrap().0;
    // Its children alone are more than may wait.
    task_in(&world.handle(), task.id, "succeeded").await;
    assert_eq!(waiting(&world).await, 3);
    soon(world.handle().agent::<Slow>("a").ask(Hand { n: 4 })).await.unwrap();
    until("all of it waits", || async { waiting(&world).await == 7 }).await;
    assert_eq!(submit(&world, "1").await.unwrap_err().code(), "overloaded");
    soon(world.handle().operator().pause_kind("slow", false)).await.unwrap();
    gate.open(7);
    until("all of it was done", || async { waiting(&world).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_others_or_for_a_person_takes_no_room() {
    let (world, gate) = world().await;
    let operator = world.handle().operator().clone();
    let first = soon(operator.submit(request("slow/a", Some("Work"), None))).await.unwrap().0;
    let after = vec![first.id.to_string(); 1];
    for _ in 0..5 {
        let behind = TaskRequest { after: after.clone(), ..request("slow/a", Some("Work"), None) };
        soon(operator.submit(behind)).await.unwrap();
    }
    let later = TaskRequest { run_in: Some("1h".into()), ..request("slow/a", Some("Work"), None) };
    soon(operator.submit(later)).await.unwrap();
    assert_eq!(submit(&world, "3").await.unwrap_err().code(), "overloaded", "its time waits with the others");
    gate.open(9);
}
