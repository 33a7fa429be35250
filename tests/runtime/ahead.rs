//! Turns that run ahead of the disk, and the gate that those stand at which reach outside.

use futures_util::future::join_all;
use greenroom::prelude::*;

use crate::support::{Gate, World, soon};

#[derive(Default, Serialize, Deserialize)]
struct Relay {
    turns: u64,
    heard: u64,
}

/// Counts, and nothing else.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Count {}
/// Asks `hops` further relays, one through the other, along `route`.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Pass {
    route: Vec<String>,
}
/// Asks all of these at once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Gather {
    from: Vec<String>,
}
/// Counts, calls the tool, then fails.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct CallAndCrash {}
/// Submits a task for itself, then counts.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct SubmitToSelf {}
/// What the store holds of `relay/KEY`, for the tool.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Stored {
    key: String,
}
message! { Count -> u64; Pass -> Vec<String>; Gather -> u64; CallAndCrash -> u64; SubmitToSelf -> u64; Stored -> u64 }

macro_rules! relay {
    ($agent:ident, $kind:literal, $persistence:expr) => {
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Count, Pass, Gather, CallAndCrash, SubmitToSelf);
            fn policy() -> Policy {
                Policy::default()
                    .persistence($persistence)
                    .max_restarts(1_000, Duration::from_secs(60))
                    .backoff(Duration::ZERO, Duration::ZERO)
            }
        }
        impl Handler<Count> for $agent {
            async fn handle(&mut self, _: Count, _: &Turn<Self>) -> Result<u64> {
                self.turns += 1;
                Ok(self.turns)
            }
        }
        impl Handler<Pass> for $agent {
            async fn handle(&mut self, pass: Pass, turn: &Turn<Self>) -> Result<Vec<String>> {
                self.turns += 1;
                let mut seen = vec![turn.key().to_owned()];
                if let Some((next, rest)) = pass.route.split_first() {
                    let asked = turn.agent::<$agent>(next).ask(Pass { route: rest.to_vec() }).await?;
                    seen.extend(asked);
                }
                Ok(seen)
            }
        }
        impl Handler<Gather> for $agent {
            async fn handle(&mut self, gather: Gather, turn: &Turn<Self>) -> Result<u64> {
                self.turns += 1;
                let asks = gather.from.iter().map(|key| turn.agent::<$agent>(key).ask(Count {}));
                for answer in join_all(asks).await {
                    self.heard += answer?;
                }
                // What the tool sees of this agent was durable before the turn began.
                let stored = turn.tool::<Mirror>().call(Stored { key: turn.key().to_owned() }).await?;
                ensure!(stored + 1 >= self.turns, "{stored} turns are durable, and {} were run", self.turns);
                Ok(self.heard)
            }
        }
        impl Handler<CallAndCrash> for $agent {
            async fn handle(&mut self, _: CallAndCrash, turn: &Turn<Self>) -> Result<u64> {
                self.turns += 1_000_000;
                turn.tool::<Mirror>().call(Stored { key: turn.key().to_owned() }).await?;
                panic!("after the call")
            }
        }
        impl Handler<SubmitToSelf> for $agent {
            async fn handle(&mut self, _: SubmitToSelf, turn: &Turn<Self>) -> Result<u64> {
                turn.agent::<$agent>(turn.key()).submit(Count {});
                self.turns += 1;
                Ok(self.turns)
            }
        }
    };
}
use greenroom::Persistence;
relay!(Relay, "relay", Persistence::EveryTurn);

#[derive(Default, Serialize, Deserialize)]
struct Fleeting {
    turns: u64,
    heard: u64,
}
relay!(Fleeting, "fleeting", Persistence::Volatile);

#[derive(Default, Serialize, Deserialize)]
struct Lazy {
    turns: u64,
    heard: u64,
}
relay!(Lazy, "lazy", Persistence::Relaxed { turns: 1_000_000, every: Duration::from_secs(3_600) });

/// Answers with what the store holds.
#[derive(Clone)]
struct Mirror(std::sync::Arc<std::sync::OnceLock<Handle>>, Gate);
impl Tool for Mirror {
    const NAME: &'static str = "mirror";
    const EFFECT: Effect = Effect::Pure;
    type Input = Stored;
    async fn run(&self, stored: Stored, _: &Call) -> Result<u64> {
        self.1.note("called");
        let Some(handle) = self.0.get() else { bail!("not yet") };
        let state = handle.operator().state("relay", &stored.key, None).await;
        Ok(state.map_or(u64::MAX / 2, |s| s.state["turns"].as_u64().unwrap_or(0)))
    }
}

async fn world() -> (World, Gate) {
    let mirror = Mirror(Default::default(), Gate::default());
    let program =
        Runtime::builder().agent::<Relay>().agent::<Fleeting>().agent::<Lazy>().tool(mirror.clone());
    let world = World::start(program).await;
    let _ = mirror.0.set(world.handle());
    (world, mirror.1.clone())
}

fn route(keys: &[&str]) -> Pass {
    Pass { route: keys.iter().map(|k| (*k).to_owned()).collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hot_agent_shows_outside_is_durable() {
    let (world, _) = world().await;
    let relay = world.handle().agent::<Relay>("hot");
    let counts = join_all((0..2_000).map(|_| relay.ask(Count {})));
    let gathers = join_all((0..10).map(|n| {
        let relay = relay.clone();
        async move { relay.ask(Gather { from: vec![format!("x{n}"), format!("y{n}")] }).await }
    }));
    let (counts, gathers) = soon(async { tokio::join!(counts, gathers) }).await;
    let mut counts: Vec<u64> = counts.into_iter().map(Result::unwrap).collect();
    counts.dedup();
    assert_eq!(counts.len(), 2_000);
    for gathered in gathers {
        gathered.unwrap();
    }
    assert_eq!(soon(relay.ask(Count {})).await.unwrap(), 2_011);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ask_of_oneself_is_refused_as_a_cycle() {
    let (world, _) = world().await;
    let a = world.handle().agent::<Relay>("a");
    let error = soon(a.ask(route(&["a"]))).await.unwrap_err().to_string();
    assert!(error.contains("relay/a asks relay/a"), "{error}");
    let error = soon(a.ask(route(&["b", "a"]))).await.unwrap_err().to_string();
    assert!(error.contains("relay/a asks relay/b asks relay/a"), "{error}");
    let error = soon(a.ask(route(&["b", "c", "b"]))).await.unwrap_err().to_string();
    assert!(error.contains("relay/b asks relay/c asks relay/b"), "{error}");
    assert_eq!(soon(a.ask(route(&["b", "c"]))).await.unwrap(), ["a", "b", "c"]);
    assert_eq!(soon(a.ask(Count {})).await.unwrap(), 2, "the refused ones were undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_turn_may_ask_many_at_once() {
    let (world, _) = world().await;
    let relay = world.handle().agent::<Relay>("a");
    let from: Vec<_> = (0..40).map(|n| format!("peer{n}")).collect();
    assert_eq!(soon(relay.ask(Gather { from: from.clone() })).await.unwrap(), 40);
    assert_eq!(soon(relay.ask(Gather { from })).await.unwrap(), 40 + 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_has_reached_outside_is_not_run_again_silently() {
    let (world, gate) = world().await;
    let relay = world.handle().agent::<Relay>("a");
    let counts = join_all((0..100).map(|_| relay.ask(Count {})));
    let crash = relay.ask(CallAndCrash {});
    let more = join_all((0..100).map(|_| relay.ask(Count {})));
    let (counts, crash, more) = soon(async { tokio::join!(counts, crash, more) }).await;
    assert_eq!(crash.unwrap_err().code(), "handler_crashed");
    assert!(counts.into_iter().chain(more).all(|c| c.is_ok()));
    assert_eq!(gate.count("called"), 1);
    assert_eq!(soon(relay.ask(Count {})).await.unwrap(), 201);
}

/// A volatile agent cannot run a turn again: its message is not kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_volatile_agent_reaches_outside_after_it_has_submitted() {
    let (world, _) = world().await;
    let agent = world.handle().agent::<Fleeting>("a");
    for _ in 0..20 {
        let submit = agent.ask(SubmitToSelf {});
        let gather = agent.ask(Gather { from: vec!["b".into(), "c".into()] });
        let (submit, gather) = soon(async { tokio::join!(submit, gather) }).await;
        submit.unwrap();
        gather.unwrap();
    }
    crate::support::until("20 tasks, 40 turns, and this one", || async {
        agent.ask(Pass { route: vec![] }).await.unwrap();
        agent.ask(Count {}).await.unwrap() >= 60
    })
    .await;
}

/// Nothing makes a relaxed agent wait for its next snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_relaxed_agent_does_not_wait_for_its_snapshot() {
    let (world, _) = world().await;
    let agent = world.handle().agent::<Lazy>("a");
    let began = std::time::Instant::now();
    for answer in soon(join_all((0..5_000).map(|_| agent.ask(Count {})))).await {
        answer.unwrap();
    }
    for _ in 0..20 {
        soon(agent.ask(Count {})).await.unwrap();
        soon(agent.ask(Gather { from: vec!["b".into()] })).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
