//! What goes before the rest, how long somebody waits for it, and who still wants it.

use futures_util::future::join_all;
use greenroom::{AgentRef, Persistence, prelude::*, runtime::views::Action};

use crate::support::{Gate, World, soon, until};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Say {
    text: String,
}
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Block {}
/// Waits until nobody wants its answer.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Linger {}
/// Has the other one linger, and gives up on it, or crashes meanwhile.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Delegate {
    crash: bool,
}
/// Has the other one tell what time it is given.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Budget {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct HowLong {}
/// Tells the other one something urgent, and something that is not before it.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Hurry {}
message! { Say -> (); Block -> (); Linger -> (); Delegate -> (); Budget -> u64; HowLong -> u64; Hurry -> () }

#[derive(Default, Serialize, Deserialize)]
struct Clerk {
    done: u64,
}
impl Agent for Clerk {
    const KIND: &'static str = "clerk";
    type Messages = (Say, Block, Linger, Delegate, Budget, HowLong, Hurry);
    fn policy() -> Policy {
        Policy::default()
            .mailbox(64)
            .turn_timeout(Duration::from_secs(20))
            .max_restarts(1_000, Duration::from_secs(60))
    }
}
impl Handler<Say> for Clerk {
    async fn handle(&mut self, say: Say, turn: &Turn<Self>) -> Result<()> {
        self.done += 1;
        turn.resource::<Gate>().note(say.text);
        Ok(())
    }
}
impl Handler<Block> for Clerk {
    async fn handle(&mut self, _: Block, turn: &Turn<Self>) -> Result<()> {
        self.done += 1;
        turn.resource::<Gate>().wait().await;
        Ok(())
    }
}
impl Handler<Linger> for Clerk {
    async fn handle(&mut self, _: Linger, turn: &Turn<Self>) -> Result<()> {
        assert!(!turn.cancelled());
        turn.resource::<Gate>().note("lingers");
        // as people write it: the end is one of several things waited for
        tokio::select! {
            () = turn.cancellation() => {}
            () = std::future::pending() => {}
        }
        assert!(turn.cancelled());
        turn.resource::<Gate>().note("cancelled");
        self.done += 1;
        Ok(())
    }
}
impl Handler<Delegate> for Clerk {
    async fn handle(&mut self, delegate: Delegate, turn: &Turn<Self>) -> Result<()> {
        let ask = turn.agent::<Clerk>("other").ask(Linger {});
        tokio::select! {
            _ = ask => Ok(()),
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                assert!(!delegate.crash, "as told");
                bail!("as told")
            }
        }
    }
}
impl Handler<Budget> for Clerk {
    async fn handle(&mut self, _: Budget, turn: &Turn<Self>) -> Result<u64> {
        Ok(turn.agent::<Clerk>("other").ask(HowLong {}).await?)
    }
}
impl Handler<HowLong> for Clerk {
    async fn handle(&mut self, _: HowLong, turn: &Turn<Self>) -> Result<u64> {
        Ok(turn.deadline().map_or(u64::MAX, |d| d.as_millis() as u64))
    }
}
impl Handler<Hurry> for Clerk {
    async fn handle(&mut self, _: Hurry, turn: &Turn<Self>) -> Result<()> {
        turn.agent::<Clerk>("other").tell(Say { text: "calm".to_owned() });
        turn.agent::<Clerk>("other").urgent().tell(Say { text: "urgent".to_owned() });
        Ok(())
    }
}

/// Its turns are not durable, so that nothing has it look up between them but itself.
#[derive(Default, Serialize, Deserialize)]
struct Porter {}
impl Agent for Porter {
    const KIND: &'static str = "porter";
    type Messages = (Say, Block);
    fn policy() -> Policy {
        Policy::default().persistence(Persistence::Volatile)
    }
}
impl Handler<Say> for Porter {
    async fn handle(&mut self, say: Say, turn: &Turn<Self>) -> Result<()> {
        turn.resource::<Gate>().note(say.text);
        Ok(())
    }
}
impl Handler<Block> for Porter {
    async fn handle(&mut self, _: Block, turn: &Turn<Self>) -> Result<()> {
        turn.resource::<Gate>().note("block");
        turn.resource::<Gate>().wait().await;
        Ok(())
    }
}

async fn world() -> (World, Gate) {
    let gate = Gate::default();
    let program = Runtime::builder().agent::<Clerk>().agent::<Porter>();
    (World::start(program.resource(gate.clone())).await, gate)
}

/// A porter at the first of nine long turns, after so many short ones.
async fn at_long_turns(world: &World, gate: &Gate, key: &str, short: usize) -> AgentRef<Porter> {
    let porter = world.handle().agent::<Porter>(key);
    porter.try_tell(Block {}).unwrap();
    gate.arrival().await;
    for _ in 0..short {
        porter.try_tell(say("short")).unwrap();
    }
    for _ in 0..9 {
        porter.try_tell(Block {}).unwrap();
    }
    gate.open(1);
    gate.arrival().await;
    gate.notes.lock().clear();
    porter
}

fn say(text: impl Into<String>) -> Say {
    Say { text: text.into() }
}

/// Waits until so many messages wait for an agent.
async fn wait_in_the_mailbox(world: &World, kind: &str, key: &str, n: usize) {
    let handle = world.handle();
    let depth = async || handle.operator().agent(kind, key).await.unwrap().mailbox.depth;
    until("they wait", || async { depth().await == n }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_urgent_goes_before_all_that_waits_in_its_own_order() {
    let (world, gate) = world().await;
    let clerk = world.handle().agent::<Clerk>("a");
    let blocked = tokio::spawn(clerk.ask(Block {}));
    gate.arrival().await;
    for n in 0..50 {
        clerk.try_tell(say(format!("{n}"))).unwrap();
    }
    let urgent = clerk.urgent();
    urgent.try_tell(say("first")).unwrap();
    let asked = tokio::spawn(urgent.ask(say("second")));
    until("it waits too", || async {
        world.handle().operator().agent("clerk", "a").await.unwrap().mailbox.depth == 52
    })
    .await;
    let operator = world.handle().operator().clone();
    operator.tell("clerk", "a", "Say", br#"{"text":"third"}"#, true).await.unwrap();
    gate.open(1);
    soon(blocked).await.unwrap().unwrap();
    soon(asked).await.unwrap().unwrap();
    soon(clerk.ask(say("end"))).await.unwrap();
    let expected: Vec<_> = ["first", "second", "third"].map(str::to_owned).into();
    let expected: Vec<_> = expected.into_iter().chain((0..50).map(|n| n.to_string())).collect();
    assert_eq!(gate.notes.lock()[..53], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_urgent_goes_after_the_turn_that_runs_however_short_those_before_it_were() {
    let (world, gate) = world().await;
    for short in [0, 1, 2, 3, 7, 20, 64, 100] {
        let porter = at_long_turns(&world, &gate, &format!("{short}"), short).await;
        porter.urgent().try_tell(say("urgent")).unwrap();
        gate.open(1);
        gate.arrival().await;
        assert_eq!(*gate.notes.lock(), ["urgent", "block"], "after {short} short turns");
        gate.open(8);
        for _ in 0..7 {
            gate.arrival().await;
        }
        soon(porter.ask(say("end"))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_and_a_stop_come_after_the_turn_that_runs_however_short_those_before_it_were() {
    let (world, gate) = world().await;
    let operator = world.handle().operator().clone();
    for short in [0, 1, 2, 3, 7, 20, 64, 100] {
        let key = format!("paused after {short}");
        let _porter = at_long_turns(&world, &gate, &key, short).await;
        operator.act("porter", &key, Action::Pause).await.unwrap();
        gate.open(1);
        wait_in_the_mailbox(&world, "porter", &key, 8).await;
        assert_eq!(gate.count("block"), 0, "after {short} short turns");

        let key = format!("stopped after {short}");
        let porter = at_long_turns(&world, &gate, &key, short).await;
        let last = tokio::spawn(porter.ask(Block {}).into_future());
        wait_in_the_mailbox(&world, "porter", &key, 1).await;
        operator.act("porter", &key, Action::Stop).await.unwrap();
        gate.open(1);
        assert_eq!(soon(last).await.unwrap().unwrap_err().code(), "wrong_state");
        assert_eq!(gate.count("block"), 0, "after {short} short turns");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_answered_while_slow_ones_wait_behind_it() {
    let (world, gate) = world().await;
    let clerk = world.handle().agent::<Clerk>("a");
    let mut blocked: Vec<_> = (0..5).map(|_| tokio::spawn(clerk.ask(Block {}))).collect();
    gate.arrival().await;
    for _ in 0..4 {
        // Turns that take their time: of one that takes long no more it is forgotten now and then, and the one before
        // it runs again.
        tokio::time::sleep(Duration::from_millis(20)).await;
        gate.open(1);
        gate.arrival().await;
        let any = futures_util::future::select_all(&mut blocked);
        let (answered, at, _) = soon(any).await;
        answered.unwrap().unwrap();
        drop(blocked.swap_remove(at));
    }
    gate.open(1);
    soon(join_all(blocked)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_tells_urgent_things_too() {
    let (world, gate) = world().await;
    let other = world.handle().agent::<Clerk>("other");
    let blocked = tokio::spawn(other.ask(Block {}));
    gate.arrival().await;
    soon(world.handle().agent::<Clerk>("a").ask(Hurry {})).await.unwrap();
    // what a turn tells leaves behind its answer
    wait_in_the_mailbox(&world, "clerk", "other", 2).await;
    gate.open(1);
    soon(blocked).await.unwrap().unwrap();
    until("both were heard", || async { gate.count("calm") == 1 }).await;
    assert_eq!(*gate.notes.lock(), ["urgent", "calm"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callees_budget_is_what_its_caller_has_left() {
    let (world, _gate) = world().await;
    let clerk = world.handle().agent::<Clerk>("a");
    let given = soon(clerk.ask(Budget {}).timeout(Duration::from_secs(5))).await.unwrap();
    assert!((1..=5_000).contains(&given), "{given}");
    let given = soon(clerk.ask(Budget {})).await.unwrap();
    assert!((5_001..=20_000).contains(&given), "its caller's turn ends by itself: {given}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_whose_asker_leaves_hears_of_it_and_may_go_on() {
    let (world, gate) = world().await;
    let clerk = world.handle().agent::<Clerk>("a");
    let asked = tokio::spawn(clerk.ask(Linger {}));
    until("it lingers", || async { gate.count("lingers") == 1 }).await;
    asked.abort();
    until("it hears of it", || async { gate.count("cancelled") == 1 }).await;
    soon(clerk.ask(say("end"))).await.unwrap();
    let state = world.handle().operator().state("clerk", "a", None).await.unwrap();
    assert_eq!(state.state["done"], 2, "what it did is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callee_is_cancelled_with_its_caller() {
    let (world, gate) = world().await;
    let clerk = world.handle().agent::<Clerk>("a");
    let failed = soon(clerk.ask(Delegate { crash: false })).await;
    assert!(failed.is_err(), "{failed:?}");
    until("the callee hears of it", || async { gate.count("cancelled") == 1 }).await;
    let failed = soon(clerk.ask(Delegate { crash: true })).await;
    assert!(failed.is_err(), "{failed:?}");
    until("the callee hears of that too", || async { gate.count("cancelled") == 2 }).await;
}
