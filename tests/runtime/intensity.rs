//! Restart intensity, where crashes are hard to count: in turns that run again, and across lives in memory.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use greenroom::{Builder, Restart, model::supervision::Decision, prelude::*, runtime::views::Action};

use crate::{
    faulty::Faults,
    support::{World, soon, status, until},
};

/// Panics when it runs for the second time.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Relapse {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Fail {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Crash {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Leave {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {}
message! { Relapse -> u64; Fail -> (); Crash -> (); Leave -> (); Add -> u64 }

/// How often `Relapse` has run, and how often agents have started.
#[derive(Clone, Default)]
struct Runs(Arc<AtomicUsize>, Arc<AtomicUsize>);

macro_rules! agent {
    ($Agent:ident, $kind:literal, $policy:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $Agent {
            n: u64,
        }
        impl Agent for $Agent {
            const KIND: &'static str = $kind;
            type Messages = (Relapse, Fail, Crash, Leave, Add);
            fn policy() -> Policy {
                $policy.backoff(Duration::ZERO, Duration::ZERO)
            }
            async fn on_start(&mut self, turn: &Turn<Self>) -> Result<()> {
                turn.resource::<Runs>().1.fetch_add(1, SeqCst);
                Ok(())
            }
        }
        impl Handler<Relapse> for $Agent {
            async fn handle(&mut self, _: Relapse, turn: &Turn<Self>) -> Result<u64> {
                self.n += 100;
                assert!(turn.resource::<Runs>().0.fetch_add(1, SeqCst) != 1, "once more");
                Ok(self.n)
            }
        }
        impl Handler<Fail> for $Agent {
            async fn handle(&mut self, _: Fail, _: &Turn<Self>) -> Result<()> {
                self.n += 1_000;
                bail!("as told")
            }
        }
        impl Handler<Crash> for $Agent {
            async fn handle(&mut self, _: Crash, _: &Turn<Self>) -> Result<()> {
                panic!("as told")
            }
        }
        impl Handler<Leave> for $Agent {
            async fn handle(&mut self, _: Leave, turn: &Turn<Self>) -> Result<()> {
                turn.retire();
                Ok(())
            }
        }
        impl Handler<Add> for $Agent {
            async fn handle(&mut self, _: Add, _: &Turn<Self>) -> Result<u64> {
                self.n += 1;
                Ok(self.n)
            }
        }
    };
}
fn at_most(n: u32) -> Policy {
    Policy::default().max_restarts(n, Duration::from_secs(600))
}
agent!(Glass, "glass", at_most(0));
agent!(Wood, "wood", at_most(2));
agent!(Paper, "paper", at_most(0).restart(Restart::Temporary));

fn program(runs: &Runs) -> Builder {
    Runtime::builder().agent::<Glass>().agent::<Wood>().agent::<Paper>().resource(runs.clone())
}

async fn world() -> (World, Runs) {
    let runs = Runs::default();
    (World::start(program(&runs)).await, runs)
}

/// The turn that fails is not the one that crashes: that has run before it, and runs again without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_a_turn_that_runs_again_stops_whom_it_must() {
    let (runs, faults) = (Runs::default(), Faults::default());
    let world = World::start(faults.under(program(&runs))).await;
    let (operator, glass) = (world.handle().operator().clone(), world.handle().agent::<Glass>("a"));
    assert_eq!(soon(glass.ask(Add {})).await, Ok(1));
    // While a commit is under way, what runs behind it is not durable.
    faults.hang(true);
    let tried = faults.tried();
    let mut under_way = glass.ask(Add {});
    assert!(futures_util::poll!(&mut under_way).is_pending());
    until("it is under way", || async { faults.tried() > tried }).await;
    let (mut before, mut relapse, mut fails) = (glass.ask(Add {}), glass.ask(Relapse {}), glass.ask(Fail {}));
    assert!(futures_util::poll!(&mut before).is_pending());
    assert!(futures_util::poll!(&mut relapse).is_pending() && futures_util::poll!(&mut fails).is_pending());
    until("it has run again", || async { runs.0.load(SeqCst) == 2 }).await;
    faults.hang(false);
    assert_eq!(soon(relapse).await.unwrap_err().code(), "handler_crashed");
    assert_eq!(soon(fails).await.unwrap_err().code(), "handler_failed");
    assert_eq!((soon(under_way).await, soon(before).await), (Ok(2), Ok(3)));
    assert_eq!(runs.0.load(SeqCst), 2);
    let report = operator.crashes().remove(0);
    assert_eq!(report.decision, Decision::Exceeded { attempts: 0 });
    until("it is stopped", || async { status(&world.handle(), "glass", "a").await == "stopped" }).await;
    assert_eq!(operator.state("glass", "a", None).await.unwrap().state["n"], 3, "its neighbour is kept");
    operator.act("glass", "a", Action::Restart).await.unwrap();
    assert_eq!(soon(glass.ask(Add {})).await, Ok(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_count_although_their_agent_has_left_memory_in_between() {
    let (world, _) = world().await;
    let (operator, wood) = (world.handle().operator().clone(), world.handle().agent::<Wood>("a"));
    for _ in 0..2 {
        soon(wood.ask(Crash {})).await.unwrap_err();
        soon(wood.ask(Leave {})).await.unwrap();
        until("it leaves", || async { status(&world.handle(), "wood", "a").await == "passivated" }).await;
    }
    assert_eq!(soon(wood.ask(Add {})).await, Ok(1));
    soon(wood.ask(Crash {})).await.unwrap_err();
    until("it is stopped", || async { status(&world.handle(), "wood", "a").await == "stopped" }).await;
    // Whoever takes it back forgives it.
    operator.act("wood", "a", Action::Restart).await.unwrap();
    soon(wood.ask(Crash {})).await.unwrap_err();
    assert_eq!(soon(wood.ask(Add {})).await, Ok(2));
}

/// Nobody needs it until its next message comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_agent_that_has_crashed_does_not_start_for_nothing() {
    let (world, runs) = world().await;
    let paper = world.handle().agent::<Paper>("a");
    for round in 1..=3 {
        assert_eq!(soon(paper.ask(Add {})).await, Ok(round));
        assert_eq!(runs.1.load(SeqCst) as u64, round);
        soon(paper.ask(Crash {})).await.unwrap_err();
        until("it leaves", || async { status(&world.handle(), "paper", "a").await == "passivated" }).await;
        assert_eq!(runs.1.load(SeqCst) as u64, round);
    }
}
