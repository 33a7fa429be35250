//! Agents that ask each other: their keys, their circles, their time, and what may not be sent at all.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use greenroom::{AskError, Call, Effect, Full, Invalid, Outcome, Tool, prelude::*, runtime::views::Action};

use crate::{
    faulty::Faults,
    support::{Gate, World, dropped, outcome, soon, status, until},
};

#[derive(Default, Serialize, Deserialize)]
struct Relay {
    passed: u64,
}
/// Asks along the route; the number of those who were asked.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Pass {
    route: Vec<String>,
}
/// Asks that relay, unless its own gate is opened before it has answered.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Glance {
    at: String,
}
/// Waits at the gate, then asks the relay, and writes down what it is told.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct AskBack {
    whom: String,
}
/// Asks the relay through the tool.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Detour {
    to: String,
}
/// Whether its caller has 30 seconds or less.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct IsTimed {}
/// Not more than a hundred, please.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Count {
    n: u64,
    #[serde(default)]
    text: String,
}
/// Tells another one to count.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Spread {
    n: Vec<u64>,
    at_once: bool,
}
message! {
    Pass -> u64; Glance -> (); AskBack -> (); Detour -> bool; IsTimed -> bool; Spread -> ();
}
impl Message for Count {
    type Reply = u64;
    type Error = greenroom::Never;
    const NAME: &'static str = "Count";
    fn validate(&self) -> Result<(), Invalid> {
        if self.n > 100 { Err(Invalid::at("/n", "at most 100")) } else { Ok(()) }
    }
}

/// The gates of a test, and whether the first relay crashes once it has its answer.
#[derive(Clone, Default)]
struct Stage {
    asker: Gate,
    asked: Gate,
    crashes: Arc<AtomicBool>,
}

impl Agent for Relay {
    const KIND: &'static str = "hop";
    type Messages = (Pass, Glance, AskBack, Detour, IsTimed, Count, Spread);
    fn policy() -> Policy {
        Policy::default().max_restarts(1_000, Duration::from_secs(60)).backoff(Duration::ZERO, Duration::ZERO)
    }
}
impl Handler<Pass> for Relay {
    async fn handle(&mut self, pass: Pass, turn: &Turn<Self>) -> Result<u64> {
        self.passed += 1;
        assert!(turn.idempotency_key().len() <= 255);
        let Some((next, rest)) = pass.route.split_first() else { return Ok(1) };
        let behind = turn.agent::<Relay>(next).ask(Pass { route: rest.to_vec() }).await?;
        if turn.key().ends_with("first") {
            assert!(!turn.resource::<Stage>().crashes.swap(false, SeqCst), "as told");
        }
        Ok(behind + 1)
    }
}
impl Handler<Glance> for Relay {
    async fn handle(&mut self, glance: Glance, turn: &Turn<Self>) -> Result<()> {
        let whom = turn.key().to_owned();
        tokio::select! {
            answer = turn.agent::<Relay>(glance.at).ask(AskBack { whom }) => Ok(answer?),
            () = turn.resource::<Stage>().asker.wait() => Ok(()),
        }
    }
}
impl Handler<AskBack> for Relay {
    async fn handle(&mut self, back: AskBack, turn: &Turn<Self>) -> Result<()> {
        let stage = turn.resource::<Stage>();
        stage.asked.wait().await;
        let told = match turn.agent::<Relay>(back.whom).ask(Count { n: 1, text: String::new() }).await {
            Ok(n) => n.to_string(),
            Err(error) => error.to_string(),
        };
        stage.asked.note(told);
        Ok(())
    }
}
impl Handler<Detour> for Relay {
    async fn handle(&mut self, detour: Detour, turn: &Turn<Self>) -> Result<bool> {
        Ok(turn.tool::<Envoy>().call(Carry { to: detour.to }).await?)
    }
}
impl Query<IsTimed> for Relay {
    async fn query(&self, _: IsTimed, turn: &Turn<Self>) -> Result<bool> {
        Ok(turn.deadline().is_some_and(|left| left <= Duration::from_secs(30)))
    }
}
impl Handler<Count> for Relay {
    async fn handle(&mut self, count: Count, _: &Turn<Self>) -> Result<u64> {
        self.passed += count.n;
        Ok(self.passed)
    }
}
impl Handler<Spread> for Relay {
    async fn handle(&mut self, spread: Spread, turn: &Turn<Self>) -> Result<()> {
        let peer = turn.agent::<Relay>("peer");
        let mut counts = spread.n.into_iter().map(|n| Count { n, text: String::new() });
        if spread.at_once {
            peer.send_many(counts);
        } else {
            counts.by_ref().for_each(|count| peer.tell(count));
        }
        Ok(())
    }
}

/// Asks a relay whether it knows its caller's time.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Carry {
    to: String,
}
message!(Carry -> bool);
struct Envoy;
impl Tool for Envoy {
    const NAME: &'static str = "envoy";
    const EFFECT: Effect = Effect::Pure;
    type Input = Carry;
    async fn run(&self, carry: Carry, call: &Call) -> Result<bool> {
        Ok(call.agent::<Relay>(carry.to).ask(IsTimed {}).await?)
    }
}

fn program(stage: &Stage) -> greenroom::Builder {
    Runtime::builder().agent::<Relay>().tool(Envoy).resource(stage.clone())
}

async fn passed(world: &World, key: &str) -> u64 {
    let state = world.handle().operator().state("hop", key, None).await.unwrap();
    state.state["passed"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn asks_nest_however_deep_and_under_however_long_a_key() {
    let stage = Stage::default();
    let world = World::start(program(&stage)).await;
    let keys: Vec<String> =
        std::iter::once("first".into()).chain((1..12).map(|n| format!("{n:0>40}"))).collect();
    let first = world.handle().agent::<Relay>(keys[0].as_str());
    let pass = || first.ask(Pass { route: keys[1..].to_vec() }).idempotency_key("k".repeat(255));
    // The first one crashes when all behind it are done: they know what it asks again by its key.
    stage.crashes.store(true, SeqCst);
    let error = soon(pass()).await.unwrap_err();
    assert_eq!(error.code(), "handler_crashed", "{error}");
    assert_eq!(soon(pass()).await, Ok(12));
    assert_eq!(soon(pass()).await, Ok(12));
    for key in &keys {
        assert_eq!(passed(&world, key).await, 1, "{key}");
    }
}

/// That it waits is over with its turn: whom it had asked may ask it.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_given_up_waiting_can_be_asked() {
    let stage = Stage::default();
    let world = World::start(program(&stage)).await;
    let a = world.handle().agent::<Relay>("a");
    let glance = tokio::spawn(a.ask(Glance { at: "b".into() }).into_future());
    stage.asked.arrival().await;
    stage.asker.arrival().await;
    stage.asker.open(1);
    soon(glance).await.unwrap().unwrap();
    stage.asked.open(1);
    until("it is told", || async { !stage.asked.notes.lock().is_empty() }).await;
    assert_eq!(*stage.asked.notes.lock(), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_refused_with_the_circle() {
    let stage = Stage::default();
    let world = World::start(program(&stage)).await;
    stage.asked.open(1);
    soon(world.handle().agent::<Relay>("a").ask(Glance { at: "b".into() })).await.unwrap();
    let told = stage.asked.notes.lock().join("");
    assert!(told.contains("hop/a") && told.contains("hop/b"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_through_a_tool_is_refused_too() {
    let world = World::start(program(&Stage::default())).await;
    let a = world.handle().agent::<Relay>("a");
    let error = soon(a.ask(Detour { to: "a".into() })).await.unwrap_err().to_string();
    for on_the_way in ["hop/a", "tool:envoy"] {
        assert!(error.contains(on_the_way), "{error}");
    }
    assert_eq!(world.handle().operator().crashes().len(), 0, "it does not wait until it crashes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_caller_is_that_of_whoever_a_tool_asks_for_it() {
    let world = World::start(program(&Stage::default())).await;
    assert_eq!(soon(world.handle().agent::<Relay>("a").ask(Detour { to: "b".into() })).await, Ok(true));
    let envoy = world.handle().tool::<Envoy>();
    let carry = || envoy.call(Carry { to: "b".into() });
    assert_eq!(soon(carry().timeout(Duration::from_secs(9))).await, Ok(true));
    assert_eq!(soon(carry()).await, Ok(true), "it ends when the tool's own time does");
    let task = soon(envoy.submit(Carry { to: "b".into() })).await.unwrap();
    assert_eq!(outcome::<Carry>(&world.handle(), task).await, Outcome::Succeeded(true), "of a task as well");
    assert_eq!(soon(world.handle().agent::<Relay>("b").ask(IsTimed {})).await, Ok(false));
}

/// It had been taken out of the mailbox, and was put back: nothing of it had happened.
#[tokio::test(flavor = "multi_thread")]
async fn an_ask_that_waits_for_a_commit_can_still_be_withdrawn() {
    let (stage, faults) = (Stage::default(), Faults::default());
    let world = World::start(faults.under(program(&stage))).await;
    let a = world.handle().agent::<Relay>("a");
    let detour = || a.ask(Detour { to: "b".into() });
    // From now on it is known to take long: it begins when all before it is durable.
    soon(detour()).await.unwrap();
    faults.hang(true);
    let mut count = a.ask(Count { n: 5, text: String::new() });
    assert!(futures_util::poll!(&mut count).is_pending());
    let withdrawn = soon(detour().timeout(Duration::from_millis(300))).await;
    assert_eq!(withdrawn, Err(AskError::TimedOut), "it is known not to have happened");
    faults.hang(false);
    assert_eq!(soon(count).await, Ok(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_invalid_is_not_told() {
    let world = World::start(program(&Stage::default())).await;
    let (a, peer) = (world.handle().agent::<Relay>("a"), world.handle().agent::<Relay>("peer"));
    let count = |n| Count { n, text: String::new() };
    let why = |refused: Full<Count>| refused.invalid().map(|invalid| invalid.to_string());
    assert!(why(peer.try_tell(count(101)).unwrap_err()).is_some_and(|why| why.contains("at most 100")));
    assert!(why(soon(peer.tell(count(101))).await.unwrap_err()).is_some());
    let Err(Full(back)) = soon(peer.send_many([count(1), count(101)])).await else { panic!("it took them") };
    assert_eq!(back.len(), 2, "all or none");
    for at_once in [false, true] {
        let error = soon(a.ask(Spread { n: vec![1, 101], at_once })).await.unwrap_err();
        assert!(error.code() == "handler_failed" && error.to_string().contains("at most 100"), "{error}");
        soon(a.ask(Spread { n: vec![1, 2], at_once })).await.unwrap();
    }
    soon(peer.tell(count(10))).await.unwrap();
    // Tells leave after the answer of their turn.
    until("what is valid has come", || async { peer.ask(count(0)).await == Ok(16) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ask_under_a_key_is_bounded_as_a_task_is() {
    let world = World::start(program(&Stage::default()).set("limits.message_bytes", "1KiB")).await;
    let a = world.handle().agent::<Relay>("a");
    let count = |bytes| Count { n: 1, text: "x".repeat(bytes) };
    let error = soon(a.ask(count(2_000)).idempotency_key("k")).await.unwrap_err();
    assert_eq!(error.code(), "too_large", "{error}");
    assert_eq!(soon(a.submit(count(2_000))).await.unwrap_err().code(), "too_large");
    assert_eq!(soon(a.ask(count(900)).idempotency_key("k")).await, Ok(1));
}

/// It was taken, and is not handled: nobody is told, so it is counted.
#[tokio::test(flavor = "multi_thread")]
async fn tells_that_a_stop_drops_are_counted() {
    let dropped = dropped("hop");
    let world = World::start(program(&Stage::default())).await;
    let (operator, a) = (world.handle().operator().clone(), world.handle().agent::<Relay>("lost"));
    operator.act("hop", "lost", Action::Pause).await.unwrap();
    for n in 0..3 {
        a.try_tell(Count { n, text: String::new() }).unwrap();
    }
    let asked = tokio::spawn(a.ask(Count { n: 9, text: String::new() }).into_future());
    until("it waits", || async { operator.agent("hop", "lost").await.unwrap().mailbox.depth == 4 }).await;
    operator.act("hop", "lost", Action::Stop).await.unwrap();
    assert_eq!(soon(asked).await.unwrap().unwrap_err().code(), "wrong_state");
    assert_eq!(dropped(), 3, "the one that was asked has been told");
    assert_eq!(status(&world.handle(), "hop", "lost").await, "stopped");
}
