//! Hooks that take their time: they hold up nobody who ends their agent, and reach nobody.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use greenroom::{Call, Effect, Tool, prelude::*, runtime::views::Action};

use crate::support::{Gate, World, soon, status};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Touch {}
message!(Touch -> u64);

/// Which hook hangs, and which one reaches out.
#[derive(Clone, Default)]
struct Plan {
    gate: Gate,
    start: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    reaches: Arc<AtomicBool>,
}

#[derive(Default, Serialize, Deserialize)]
struct Slow {
    touched: u64,
}
impl Agent for Slow {
    const KIND: &'static str = "slow";
    type Messages = Touch;
    fn policy() -> Policy {
        Policy::default().turn_timeout(Duration::from_secs(600))
    }
    async fn on_start(&mut self, turn: &Turn<Self>) -> Result<()> {
        let plan = turn.resource::<Plan>();
        if plan.reaches.load(SeqCst) {
            let asked = turn.agent::<Slow>("other").ask(Touch {}).await.unwrap_err();
            plan.gate.note(asked.to_string());
            let called = turn.tool::<Idle>().call(Touch {}).await.unwrap_err();
            plan.gate.note(called.to_string());
        }
        if plan.start.load(SeqCst) {
            plan.gate.wait().await;
        }
        Ok(())
    }
    async fn on_stop(&mut self, turn: &Turn<Self>) -> Result<()> {
        let plan = turn.resource::<Plan>();
        if plan.stop.load(SeqCst) {
            plan.gate.wait().await;
        }
        Ok(())
    }
}
impl Handler<Touch> for Slow {
    async fn handle(&mut self, _: Touch, _: &Turn<Self>) -> Result<u64> {
        self.touched += 1;
        Ok(self.touched)
    }
}

struct Idle;
impl Tool for Idle {
    const NAME: &'static str = "idle";
    const EFFECT: Effect = Effect::Pure;
    type Input = Touch;
    async fn run(&self, _: Touch, _: &Call) -> Result<u64> {
        Ok(0)
    }
}

async fn world() -> (World, Plan) {
    let plan = Plan::default();
    (World::start(Runtime::builder().agent::<Slow>().tool(Idle).resource(plan.clone())).await, plan)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_hangs_holds_up_no_stop_and_is_no_crash() {
    let (world, plan) = world().await;
    let (operator, slow) = (world.handle().operator().clone(), world.handle().agent::<Slow>("a"));
    plan.start.store(true, SeqCst);
    let asked = tokio::spawn(slow.ask(Touch {}).into_future());
    plan.gate.arrival().await;
    operator.act("slow", "a", Action::Stop).await.unwrap();
    assert_eq!(soon(asked).await.unwrap().unwrap_err().code(), "wrong_state");
    assert_eq!(status(&world.handle(), "slow", "a").await, "stopped");
    assert_eq!(operator.crashes().len(), 0);
    plan.start.store(false, SeqCst);
    operator.act("slow", "a", Action::Restart).await.unwrap();
    assert_eq!(soon(slow.ask(Touch {})).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_hangs_holds_up_no_restart_and_no_shutdown() {
    let (mut world, plan) = world().await;
    let slow = world.handle().agent::<Slow>("a");
    assert_eq!(soon(slow.ask(Touch {})).await, Ok(1));
    plan.stop.store(true, SeqCst);
    world.handle().operator().act("slow", "a", Action::Restart).await.unwrap();
    assert_eq!(soon(slow.ask(Touch {})).await, Ok(2));
    plan.gate.arrival().await;
    world.end().await;
    plan.gate.arrival().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_asks_or_calls_is_refused_at_once() {
    let (world, plan) = world().await;
    plan.reaches.store(true, SeqCst);
    assert_eq!(soon(world.handle().agent::<Slow>("a").ask(Touch {})).await, Ok(1));
    let notes = plan.gate.notes.lock().clone();
    assert!(notes.len() == 2 && notes.iter().all(|note| note.contains("a hook may not ask")), "{notes:?}");
}
