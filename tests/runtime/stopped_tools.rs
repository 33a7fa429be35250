//! The restart intensity of tools: what stops one, what does not, and what becomes of its calls and tasks.

use greenroom::{
    AskError, Call, Effect, Limits, Tool,
    model::{supervision::Decision, task::TaskState},
    prelude::*,
    runtime::{
        operator::{OperatorError, SendOptions},
        views::{Reason, TreeNode},
    },
};

use crate::support::{Gate, World, outcome, soon, task_in, until};

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
enum How {
    Well,
    Fails,
    Crashes,
    /// It crashes when the test lets it.
    CrashesLater,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Use {
    how: How,
}
message!(Use -> ());

macro_rules! tool {
    ($Tool:ident, $name:literal, $effect:ident, $limits:expr) => {
        struct $Tool(Gate);
        impl Tool for $Tool {
            const NAME: &'static str = $name;
            const EFFECT: Effect = Effect::$effect;
            type Input = Use;
            fn limits(&self) -> Limits {
                $limits
            }
            async fn run(&self, input: Use, _: &Call) -> Result<()> {
                match input.how {
                    How::Well => Ok(()),
                    How::Fails => bail!("as told"),
                    How::Crashes => panic!("as told"),
                    How::CrashesLater => {
                        self.0.wait().await;
                        panic!("as told")
                    }
                }
            }
        }
    };
}
/// Restarted at once, and at most so often.
fn at_most(n: u32) -> Limits {
    Limits {
        max_restarts: Some((n, Duration::from_secs(600))),
        restart_backoff: Some((Duration::ZERO, Duration::ZERO)),
        ..Limits::default()
    }
}
tool!(Brick, "brick", Idempotent, at_most(2));
tool!(Twig, "twig", Idempotent, Limits { concurrency: Some(1), ..at_most(0) });
tool!(Bolt, "bolt", Once, at_most(0));
tool!(Reed, "reed", Idempotent, Limits::default());

fn program(gate: &Gate) -> greenroom::Builder {
    let builder = Runtime::builder().tool(Brick(gate.clone())).tool(Twig(gate.clone()));
    builder.tool(Bolt(gate.clone())).tool(Reed(gate.clone()))
}

async fn world() -> (World, Gate) {
    let gate = Gate::default();
    (World::start(program(&gate)).await, gate)
}

async fn call<T: Tool<Input = Use>>(world: &World, how: How) -> Result<(), AskError> {
    soon(world.handle().tool::<T>().call(Use { how })).await
}

async fn crash<T: Tool<Input = Use>>(world: &World) {
    assert_eq!(call::<T>(world, How::Crashes).await.unwrap_err().code(), "handler_crashed");
}

async fn status(world: &World, tool: &str) -> String {
    world.handle().operator().tool(tool).await.unwrap().status
}

async fn reason(world: &World) -> Option<Reason> {
    let reasons = soon(world.handle().operator().status()).await.reasons;
    reasons.into_iter().find(|reason| reason.code == "tool_stopped")
}

async fn shown(world: &World, tool: &str) -> TreeNode {
    let tree = soon(world.handle().operator().tree()).await;
    tree.children.into_iter().find(|child| child.role == "tool" && child.name == tool).unwrap()
}

async fn resume(world: &World, tool: &str) {
    soon(world.handle().operator().pause_kind(&format!("tool:{tool}"), false)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_crashes_at_every_call_is_stopped_until_an_operator_resumes_it() {
    let (world, _) = world().await;
    let operator = world.handle().operator().clone();
    for _ in 0..3 {
        assert_eq!(reason(&world).await.map(|reason| reason.message), None);
        crash::<Brick>(&world).await;
    }
    let decisions: Vec<_> = operator.crashes().iter().rev().map(|crash| crash.decision).collect();
    let again = |attempt| Decision::Restart { attempt, delay: Duration::ZERO };
    assert_eq!(decisions, [again(1), again(2), Decision::Exceeded { attempts: 2 }]);
    // who calls is refused at once, and told what to do
    let refused = call::<Brick>(&world, How::Well).await.unwrap_err();
    let AskError::WrongState(told) = refused else { panic!("{refused:?}") };
    assert!(told.contains("tool:brick is stopped: it crashed more than 2 times"), "{told}");
    assert!(told.ends_with("greenroom kinds resume tool:brick"), "{told}");
    let input = serde_json::to_vec(&Use { how: How::Well }).unwrap();
    for key in [None, Some("k".to_owned())] {
        let options = SendOptions { idempotency_key: key, ..SendOptions::default() };
        let refused = soon(operator.call("brick", &input, options)).await.unwrap_err();
        assert!(matches!(refused, OperatorError::Ask(AskError::WrongState(_))), "{refused}");
    }
    // it is seen everywhere
    let reason = reason(&world).await.unwrap();
    assert!(reason.message.contains("tool:brick is stopped"), "{reason:?}");
    assert_eq!(reason.remedy, "greenroom kinds resume tool:brick");
    let shown = shown(&world, "brick").await;
    assert!(shown.status == "stopped" && shown.current.unwrap().contains("crashed more than"));
    assert_eq!(status(&world, "brick").await, "stopped");
    assert!(soon(operator.ready()).await.is_ok(), "the node serves all the same");
    assert_eq!(call::<Reed>(&world, How::Well).await, Ok(()));
    // whoever takes it back forgives it
    resume(&world, "brick").await;
    assert!(self::reason(&world).await.is_none() && status(&world, "brick").await == "idle");
    for _ in 0..2 {
        crash::<Brick>(&world).await;
    }
    assert_eq!(call::<Brick>(&world, How::Well).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_repeats_a_call_under_its_key_is_answered_although_its_tool_is_stopped() {
    let (world, _) = world().await;
    let operator = world.handle().operator().clone();
    let call_under = async |key: &str| {
        let input = serde_json::to_vec(&Use { how: How::Well }).unwrap();
        let options = SendOptions { idempotency_key: Some(key.to_owned()), ..SendOptions::default() };
        soon(operator.call("twig", &input, options)).await
    };
    assert!(!call_under("a").await.unwrap().1);
    crash::<Twig>(&world).await;
    assert_eq!(status(&world, "twig").await, "stopped");
    assert!(call_under("a").await.unwrap().1, "it had been done");
    assert!(call_under("b").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_wait_while_their_tool_is_stopped_and_none_is_lost() {
    let (mut world, gate) = world().await;
    // one runs, one waits for it, and one comes when the tool is stopped
    let twig = world.handle().tool::<Twig>();
    let running = tokio::spawn(twig.call(Use { how: How::CrashesLater }).into_future());
    gate.arrival().await;
    let caller = tokio::spawn(twig.call(Use { how: How::Well }).into_future());
    let before = soon(twig.submit(Use { how: How::Well })).await.unwrap();
    let waiting = || async { world.handle().operator().tool("twig").await.unwrap().waiting };
    until("they wait", || async { waiting().await == 2 }).await;
    gate.open(1);
    assert_eq!(soon(running).await.unwrap().unwrap_err().code(), "handler_crashed");
    assert_eq!(soon(caller).await.unwrap().unwrap_err().code(), "wrong_state");
    let after = soon(twig.submit(Use { how: How::Well })).await.unwrap();
    for task in [before, after] {
        task_in(&world.handle(), task, "ready").await;
    }
    // another's go on
    let other = soon(world.handle().tool::<Reed>().submit(Use { how: How::Well })).await.unwrap();
    assert_eq!(outcome::<Use>(&world.handle(), other).await, Outcome::Succeeded(()));
    for task in [before, after] {
        let state = world.handle().operator().task(task).await.unwrap().state;
        assert_eq!(state, TaskState::Ready, "it is not claimed again and again");
    }
    resume(&world, "twig").await;
    for task in [before, after] {
        assert_eq!(outcome::<Use>(&world.handle(), task).await, Outcome::Succeeded(()));
        assert_eq!(world.handle().operator().task(task).await.unwrap().attempt, 1, "it had not begun");
    }
    // what takes effect once has not begun either; and a new node begins anew
    let bolt = soon(world.handle().tool::<Bolt>().submit(Use { how: How::Crashes })).await.unwrap();
    task_in(&world.handle(), bolt, "outcome_unknown").await;
    assert_eq!(status(&world, "bolt").await, "stopped");
    let bolt = soon(world.handle().tool::<Bolt>().submit(Use { how: How::Well })).await.unwrap();
    task_in(&world.handle(), bolt, "ready").await;
    drop(twig);
    world.end().await;
    world.start_again(program(&gate)).await;
    assert_eq!(outcome::<Use>(&world.handle(), bolt).await, Outcome::Succeeded(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_what_a_tool_cannot_take_does_not_stop_it_for_the_others() {
    let (world, gate) = world().await;
    for _ in 0..20 {
        crash::<Brick>(&world).await;
        crash::<Brick>(&world).await;
        assert_eq!(call::<Brick>(&world, How::Well).await, Ok(()));
    }
    assert!(world.handle().operator().crashes().iter().all(|crash| crash.repeat <= 2));
    // an error is no crash, and shows nothing
    crash::<Brick>(&world).await;
    assert_eq!(call::<Brick>(&world, How::Fails).await.unwrap_err().code(), "handler_failed");
    crash::<Brick>(&world).await;
    // calls that meet one fault together are one crash
    assert_eq!(call::<Brick>(&world, How::Well).await, Ok(()));
    let brick = world.handle().tool::<Brick>();
    let calls: Vec<_> =
        (0..20).map(|_| tokio::spawn(brick.call(Use { how: How::CrashesLater }).into_future())).collect();
    for _ in &calls {
        gate.arrival().await;
    }
    gate.open(calls.len());
    for call in calls {
        assert_eq!(soon(call).await.unwrap().unwrap_err().code(), "handler_crashed");
    }
    assert_eq!(call::<Brick>(&world, How::Well).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_sets_no_intensity_has_that_of_the_configuration() {
    let (world, _) = world().await;
    for max in [1, 0] {
        let change = serde_json::json!({"supervision": {"max_restarts": max}});
        soon(world.handle().operator().configure(&change, None, false)).await.unwrap();
        for _ in 0..=max {
            assert_ne!(status(&world, "reed").await, "stopped");
            crash::<Reed>(&world).await;
        }
        assert_eq!(status(&world, "reed").await, "stopped");
        let report = world.handle().operator().crashes().remove(0);
        assert_eq!((report.max_restarts, report.within), (max, Duration::from_secs(60)));
        resume(&world, "reed").await;
    }
}
