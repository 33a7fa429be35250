//! What queries, relaxed and volatile agents promise.

use futures_util::future::join_all;
use greenroom::{Persistence, prelude::*};

use crate::support::{World, soon};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    n: i64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Get {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Fail {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Crash {}
/// Adds, and submits the same to `to`.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Forward {
    to: String,
}
message! { Add -> i64; Get -> i64; Fail -> (); Crash -> (); Forward -> i64 }

macro_rules! tally {
    ($agent:ident, $kind:literal, $persistence:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $agent {
            total: i64,
        }
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Add, Get, Fail, Crash, Forward);
            fn policy() -> Policy {
                Policy::default().persistence($persistence).backoff(Duration::ZERO, Duration::ZERO)
            }
        }
        impl Handler<Add> for $agent {
            async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<i64> {
                self.total += add.n;
                Ok(self.total)
            }
        }
        impl Query<Get> for $agent {
            async fn query(&self, _: Get, _: &Turn<Self>) -> Result<i64> {
                Ok(self.total)
            }
        }
        impl Handler<Fail> for $agent {
            async fn handle(&mut self, _: Fail, _: &Turn<Self>) -> Result<()> {
                self.total += 1_000;
                bail!("no")
            }
        }
        impl Handler<Crash> for $agent {
            async fn handle(&mut self, _: Crash, _: &Turn<Self>) -> Result<()> {
                self.total += 1_000;
                panic!("as told")
            }
        }
        impl Handler<Forward> for $agent {
            async fn handle(&mut self, forward: Forward, turn: &Turn<Self>) -> Result<i64> {
                self.total += 1;
                turn.agent::<$agent>(forward.to).submit(Add { n: 1 });
                Ok(self.total)
            }
        }
    };
}
tally!(Strict, "strict", Persistence::EveryTurn);
tally!(Relaxed, "relaxed", Persistence::Relaxed { turns: 50, every: Duration::from_millis(200) });
tally!(Volatile, "volatile", Persistence::Volatile);

fn program() -> greenroom::Builder {
    Runtime::builder().agent::<Strict>().agent::<Relaxed>().agent::<Volatile>()
}

async fn stored(world: &World, kind: &str, key: &str) -> Option<i64> {
    let state = world.handle().operator().state(kind, key, None).await.ok()?;
    state.state["total"].as_i64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_answers_only_what_is_durable_and_commits_nothing() {
    let world = World::start(program()).await;
    let agent = world.handle().agent::<Strict>("a");
    let adds = tokio::spawn({
        let agent = agent.clone();
        async move { join_all((0..500).map(|_| agent.ask(Add { n: 1 }))).await }
    });
    let mut seen = 0;
    while seen < 500 {
        seen = soon(agent.ask(Get {})).await.unwrap();
        let stored = stored(&world, "strict", "a").await.unwrap_or(0);
        assert!(stored >= seen, "{seen} was shown, {stored} is durable");
    }
    soon(adds).await.unwrap();
    let version = world.handle().operator().agent("strict", "a").await.unwrap().version;
    for _ in 0..20 {
        soon(agent.ask(Get {})).await.unwrap();
    }
    assert_eq!(world.handle().operator().agent("strict", "a").await.unwrap().version, version);
    assert_eq!(soon(world.handle().agent::<Strict>("never").ask(Get {})).await.unwrap(), 0);
    assert_eq!(stored(&world, "strict", "never").await, None, "an agent exists from its first commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relaxed_agent_is_durable_after_so_many_turns_or_so_much_time() {
    let mut world = World::start(program()).await;
    let agent = world.handle().agent::<Relaxed>("a");
    for n in 1..=50 {
        assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), n);
    }
    crate::support::until("50 turns are kept", || async { stored(&world, "relaxed", "a").await == Some(50) })
        .await;
    soon(agent.ask(Add { n: 1 })).await.unwrap();
    crate::support::until("one turn is kept", || async { stored(&world, "relaxed", "a").await == Some(51) })
        .await;
    // What it submits or ends is never ahead of its state.
    soon(agent.ask(Forward { to: "b".into() })).await.unwrap();
    assert_eq!(stored(&world, "relaxed", "a").await, Some(52));
    let id = soon(agent.submit(Add { n: 8 })).await.unwrap();
    crate::support::outcome::<Add>(&world.handle(), id).await;
    assert_eq!(stored(&world, "relaxed", "a").await, Some(60));
    // Failing turns are undone, and the turns since the snapshot are not.
    soon(agent.ask(Add { n: 1 })).await.unwrap();
    soon(agent.ask(Fail {})).await.unwrap_err();
    soon(agent.ask(Crash {})).await.unwrap_err();
    assert_eq!(soon(agent.ask(Get {})).await.unwrap(), 61);
    // A good end loses nothing.
    soon(agent.ask(Add { n: 1 })).await.unwrap();
    world.end().await;
    world.start_again(program()).await;
    assert_eq!(soon(world.handle().agent::<Relaxed>("a").ask(Get {})).await.unwrap(), 62);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volatile_agent_starts_afresh_but_what_it_submitted_is_kept() {
    let mut world = World::start(program()).await;
    let agent = world.handle().agent::<Volatile>("a");
    soon(agent.ask(Add { n: 5 })).await.unwrap();
    soon(agent.ask(Fail {})).await.unwrap_err();
    assert_eq!(soon(agent.ask(Get {})).await.unwrap(), 1_005, "an error is not undone");
    soon(agent.ask(Crash {})).await.unwrap_err();
    assert_eq!(soon(agent.ask(Get {})).await.unwrap(), 0, "a crash starts it afresh");
    for answer in soon(join_all((0..50).map(|_| agent.ask(Forward { to: "b".into() })))).await {
        answer.unwrap();
    }
    let other = world.handle().agent::<Volatile>("b");
    crate::support::until("its tasks arrive", || async { other.ask(Get {}).await.unwrap() == 50 }).await;
    world.end().await;
    world.start_again(program()).await;
    assert_eq!(soon(world.handle().agent::<Volatile>("a").ask(Get {})).await.unwrap(), 0);
    assert_eq!(stored(&world, "volatile", "a").await, None);
}
