//! Turns that an operator ends before their time: what is asked to end and does not is cut short and undone,
//! and costs nothing but itself.

use greenroom::{
    Persistence, Policy,
    prelude::*,
    runtime::views::{Action, TaskRequest},
};
use serde_json::json;

use crate::support::{Gate, World, outcome, soon, status, task_in, until};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    n: u64,
}
/// Changes the state, and waits for what never comes.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Hang {}
/// Waits until it is asked to end, and then ends well.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Heed {}
/// Waits until it is asked to end, and gives up.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Yield {}
message! { Add -> u64; Hang -> u64; Heed -> u64; Yield -> () }

macro_rules! desk {
    ($Desk:ident, $kind:literal, $persistence:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $Desk {
            total: u64,
        }
        impl Agent for $Desk {
            const KIND: &'static str = $kind;
            type Messages = (Add, Hang, Heed, Yield);
            fn policy() -> Policy {
                Policy::default().persistence($persistence).turn_timeout(std::time::Duration::from_secs(600))
            }
        }
        impl Handler<Add> for $Desk {
            async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<u64> {
                self.total += add.n;
                Ok(self.total)
            }
        }
        impl Handler<Hang> for $Desk {
            async fn handle(&mut self, _: Hang, turn: &Turn<Self>) -> Result<u64> {
                self.total += 1_000;
                turn.resource::<Gate>().wait().await;
                Ok(self.total)
            }
        }
        impl Handler<Heed> for $Desk {
            async fn handle(&mut self, _: Heed, turn: &Turn<Self>) -> Result<u64> {
                turn.resource::<Gate>().note("heeds");
                turn.cancellation().await;
                self.total += 10;
                Ok(self.total)
            }
        }
        impl Handler<Yield> for $Desk {
            async fn handle(&mut self, _: Yield, turn: &Turn<Self>) -> Result<()> {
                turn.resource::<Gate>().note("yields");
                turn.cancellation().await;
                bail!("it was told to end")
            }
        }
    };
}
desk!(Desk, "desk", Persistence::EveryTurn);
desk!(Fleeting, "fleeting", Persistence::Volatile);

async fn world() -> (World, Gate) {
    let gate = Gate::default();
    let program = Runtime::builder().agent::<Desk>().agent::<Fleeting>().resource(gate.clone());
    (World::start(program).await, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_hangs_holds_up_no_stop_and_is_undone() {
    for (action, back) in [
        (Action::Stop, Action::Restart),
        (Action::Quarantine, Action::Release),
        (Action::Restart, Action::Restart),
    ] {
        let (world, gate) = world().await;
        let (operator, desk) = (world.handle().operator().clone(), world.handle().agent::<Desk>("a"));
        assert_eq!(soon(desk.ask(Add { n: 1 })).await.unwrap(), 1);
        let hangs = tokio::spawn(desk.ask(Hang {}).into_future());
        gate.arrival().await;
        operator.act("desk", "a", action).await.unwrap();
        let error = soon(hangs).await.unwrap().unwrap_err();
        assert!(error.code() == "wrong_state" && error.to_string().contains("cut short"), "{error}");
        operator.act("desk", "a", back).await.unwrap();
        assert_eq!(soon(desk.ask(Add { n: 1 })).await.unwrap(), 2, "{action:?}: what it did is undone");
        assert_eq!(operator.crashes().len(), 0, "it is no crash");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_heeds_a_stop_commits_as_any_other() {
    let (world, gate) = world().await;
    let (operator, desk) = (world.handle().operator().clone(), world.handle().agent::<Desk>("a"));
    let heeds = tokio::spawn(desk.ask(Heed {}).into_future());
    until("it waits", || async { gate.count("heeds") == 1 }).await;
    operator.act("desk", "a", Action::Stop).await.unwrap();
    assert_eq!(soon(heeds).await.unwrap(), Ok(10));
    operator.act("desk", "a", Action::Restart).await.unwrap();
    assert_eq!(soon(desk.ask(Add { n: 1 })).await.unwrap(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_waits_for_the_turn() {
    let (world, gate) = world().await;
    let (operator, desk) = (world.handle().operator().clone(), world.handle().agent::<Desk>("a"));
    let hangs = tokio::spawn(desk.ask(Hang {}).into_future());
    gate.arrival().await;
    operator.act("desk", "a", Action::Pause).await.unwrap();
    assert_eq!(status(&world.handle(), "desk", "a").await, "paused");
    gate.open(1);
    assert_eq!(soon(hangs).await.unwrap(), Ok(1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_turn_hangs_is_cancelled_and_its_agent_goes_on() {
    let (world, gate) = world().await;
    let (handle, operator) = (world.handle(), world.handle().operator().clone());
    let desk = handle.agent::<Desk>("a");
    assert_eq!(soon(desk.ask(Add { n: 1 })).await.unwrap(), 1);
    let task = soon(desk.submit(Hang {})).await.unwrap();
    gate.arrival().await;
    let behind = soon(desk.submit(Add { n: 1 })).await.unwrap();
    soon(operator.cancel(task)).await.unwrap();
    assert_eq!(outcome::<Hang>(&handle, task).await, Outcome::Cancelled);
    assert_eq!(outcome::<Add>(&handle, behind).await, Outcome::Succeeded(2));
    assert_eq!(operator.agent("desk", "a").await.unwrap().restarts, 0, "it is no crash");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_heeds_its_cancellation_may_still_succeed() {
    let (world, gate) = world().await;
    let desk = world.handle().agent::<Desk>("a");
    let task = soon(desk.submit(Heed {})).await.unwrap();
    until("it waits", || async { gate.count("heeds") == 1 }).await;
    assert_eq!(soon(world.handle().operator().cancel(task)).await.unwrap().state.name(), "succeeded");
    assert_eq!(soon(desk.ask(Add { n: 1 })).await.unwrap(), 11);
}

/// Its error is its way to obey: no dead letter, also where that was its last attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_with_an_error_when_it_is_cancelled_is_cancelled() {
    let (world, gate) = world().await;
    let request = TaskRequest {
        target: "desk/a".into(),
        message: Some("Yield".into()),
        max_attempts: Some(1),
        ..TaskRequest::default()
    };
    let task = world.handle().operator().submit(request).await.unwrap().0.id;
    until("it waits", || async { gate.count("yields") == 1 }).await;
    assert_eq!(soon(world.handle().operator().cancel(task)).await.unwrap().state.name(), "cancelled");
    assert_eq!(outcome::<Yield>(&world.handle(), task).await, Outcome::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_cut_short_by_a_stop_is_parked_and_runs_again() {
    let (world, gate) = world().await;
    let (handle, operator) = (world.handle(), world.handle().operator().clone());
    let task = soon(handle.agent::<Desk>("a").submit(Hang {})).await.unwrap();
    gate.arrival().await;
    operator.act("desk", "a", Action::Stop).await.unwrap();
    task_in(&handle, task, "parked").await;
    operator.act("desk", "a", Action::Restart).await.unwrap();
    gate.arrival().await;
    gate.open(1);
    assert_eq!(outcome::<Hang>(&handle, task).await, Outcome::Succeeded(1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_cut_short_by_a_restart_runs_again_by_itself() {
    let (world, gate) = world().await;
    let (handle, operator) = (world.handle(), world.handle().operator().clone());
    let task = soon(handle.agent::<Desk>("a").submit(Hang {})).await.unwrap();
    gate.arrival().await;
    operator.act("desk", "a", Action::Restart).await.unwrap();
    gate.arrival().await;
    gate.open(1);
    assert_eq!(outcome::<Hang>(&handle, task).await, Outcome::Succeeded(1_000));
}

/// What was cut short may be tried again with the same key: it did not happen.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_cut_short_leaves_its_key_free() {
    let (world, gate) = world().await;
    let (operator, desk) = (world.handle().operator().clone(), world.handle().agent::<Desk>("a"));
    let hangs = tokio::spawn(desk.ask(Hang {}).idempotency_key("once").into_future());
    gate.arrival().await;
    operator.act("desk", "a", Action::Restart).await.unwrap();
    assert_eq!(soon(hangs).await.unwrap().unwrap_err().code(), "wrong_state");
    gate.open(1);
    assert_eq!(soon(desk.ask(Hang {}).idempotency_key("once")).await.unwrap(), 1_000);
}

/// Nobody knows how far such a turn had come, and nothing of the state is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_volatile_agent_whose_turn_is_cut_short_starts_anew() {
    let (world, gate) = world().await;
    let (handle, operator) = (world.handle(), world.handle().operator().clone());
    let fleeting = handle.agent::<Fleeting>("a");
    assert_eq!(soon(fleeting.ask(Add { n: 5 })).await.unwrap(), 5);
    let task = soon(fleeting.submit(Hang {})).await.unwrap();
    gate.arrival().await;
    soon(operator.cancel(task)).await.unwrap();
    assert_eq!(outcome::<Hang>(&handle, task).await, Outcome::Cancelled);
    assert_eq!(soon(fleeting.ask(Add { n: 1 })).await.unwrap(), 1);
}

/// Turns that have run and are not durable yet when the one behind them is cut short.
#[tokio::test(flavor = "multi_thread")]
async fn neighbours_of_a_turn_that_is_cut_short_are_kept() {
    let (world, gate) = world().await;
    let (operator, desk) = (world.handle().operator().clone(), world.handle().agent::<Desk>("a"));
    operator.act("desk", "a", Action::Pause).await.unwrap();
    let before: Vec<_> = (0..20).map(|_| tokio::spawn(desk.ask(Add { n: 1 }).into_future())).collect();
    until("they wait", || async { operator.agent("desk", "a").await.unwrap().mailbox.depth == 20 }).await;
    let hangs = tokio::spawn(desk.ask(Hang {}).into_future());
    until("it waits", || async { operator.agent("desk", "a").await.unwrap().mailbox.depth == 21 }).await;
    operator.act("desk", "a", Action::Resume).await.unwrap();
    gate.arrival().await;
    operator.act("desk", "a", Action::Stop).await.unwrap();
    assert_eq!(soon(hangs).await.unwrap().unwrap_err().code(), "wrong_state");
    for asked in before {
        assert!(soon(asked).await.unwrap().is_ok());
    }
    let state = operator.state("desk", "a", None).await.unwrap();
    assert_eq!(state.state, json!({"total": 20}));
}
