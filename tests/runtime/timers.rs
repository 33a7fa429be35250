//! Timers: messages that an agent sends itself later.

use futures_util::future::join_all;
use greenroom::{prelude::*, runtime::views::Action};

use crate::faulty::Faults;
use crate::support::{Gate, World, soon, status, until};

/// Sets a timer by name; `fail`: and does not succeed. `every`: again and again.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Set {
    name: String,
    after_ms: u64,
    every: bool,
    then: Then,
}
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
enum Then {
    Succeed,
    Fail,
    Crash,
    Retire,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Cancel {
    name: String,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Ring {
    name: String,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Rung {}
/// Panics where it is cloned for its first time.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Brittle {}
impl Clone for Brittle {
    fn clone(&self) -> Self {
        panic!("as told")
    }
}
message! { Set -> (); Cancel -> (); Ring -> (); Rung -> Vec<String>; Brittle -> (); Spoil -> () }
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Spoil {}

macro_rules! clock {
    ($agent:ident, $kind:literal, $persistence:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $agent {
            rung: Vec<String>,
        }
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Set, Cancel, Ring, Rung, Brittle, Spoil);
            fn policy() -> Policy {
                Policy::default().idle_timeout(Duration::from_secs(1)).persistence($persistence)
            }
            async fn on_start(&mut self, turn: &Turn<Self>) -> Result<()> {
                if turn.key() == "punctual" {
                    turn.every("tick", Duration::from_millis(30), Ring { name: "tick".to_owned() });
                }
                Ok(())
            }
            async fn on_stop(&mut self, turn: &Turn<Self>) -> Result<()> {
                turn.resource::<Gate>().note("left");
                Ok(())
            }
        }
        impl Handler<Set> for $agent {
            async fn handle(&mut self, set: Set, turn: &Turn<Self>) -> Result<()> {
                turn.resource::<Gate>().note("set");
                let (after, ring) = (Duration::from_millis(set.after_ms), Ring { name: set.name.clone() });
                if set.every {
                    turn.every(&set.name, after, ring);
                } else {
                    turn.timer(&set.name, after, ring);
                }
                match set.then {
                    Then::Succeed => Ok(()),
                    Then::Fail => bail!("as told"),
                    Then::Crash => panic!("as told"),
                    Then::Retire => {
                        turn.retire();
                        Ok(())
                    }
                }
            }
        }
        impl Handler<Cancel> for $agent {
            async fn handle(&mut self, cancel: Cancel, turn: &Turn<Self>) -> Result<()> {
                turn.cancel_timer(&cancel.name);
                Ok(())
            }
        }
        impl Handler<Ring> for $agent {
            async fn handle(&mut self, ring: Ring, turn: &Turn<Self>) -> Result<()> {
                self.rung.push(ring.name.clone());
                turn.resource::<Gate>().note(ring.name);
                Ok(())
            }
        }
        impl Query<Rung> for $agent {
            async fn query(&self, _: Rung, _: &Turn<Self>) -> Result<Vec<String>> {
                Ok(self.rung.clone())
            }
        }
        impl Handler<Brittle> for $agent {
            async fn handle(&mut self, _: Brittle, _: &Turn<Self>) -> Result<()> {
                Ok(())
            }
        }
        impl Handler<Spoil> for $agent {
            async fn handle(&mut self, _: Spoil, turn: &Turn<Self>) -> Result<()> {
                turn.timer("brittle", Duration::ZERO, Brittle {});
                Ok(())
            }
        }
    };
}
clock!(Clock, "clock", greenroom::Persistence::EveryTurn);
clock!(Watch, "watch", greenroom::Persistence::Volatile);

fn set(name: &str, after_ms: u64, then: Then) -> Set {
    Set { name: name.to_owned(), after_ms, every: false, then }
}

async fn world() -> (World, Gate) {
    let gate = Gate::default();
    let program = Runtime::builder().agent::<Clock>().agent::<Watch>().resource(gate.clone());
    (World::start(program).await, gate)
}

async fn rings(gate: &Gate, name: &str, times: usize) {
    until("it rings", || async { gate.count(name) >= times }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_ring_in_their_order_and_what_they_bring_is_durable() {
    let (mut world, gate) = world().await;
    let (clock, watch) = (world.handle().agent::<Clock>("a"), world.handle().agent::<Watch>("a"));
    soon(clock.ask(set("second", 60, Then::Succeed))).await.unwrap();
    soon(clock.ask(set("first", 5, Then::Succeed))).await.unwrap();
    soon(watch.ask(set("volatile", 5, Then::Succeed))).await.unwrap();
    rings(&gate, "second", 1).await;
    rings(&gate, "volatile", 1).await;
    assert_eq!(soon(clock.ask(Rung {})).await.unwrap(), ["first", "second"]);
    world.end().await;
    world.start_again(Runtime::builder().agent::<Clock>().resource(gate.clone())).await;
    assert_eq!(soon(world.handle().agent::<Clock>("a").ask(Rung {})).await.unwrap(), ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_did_not_happen_sets_no_timer() {
    let (world, gate) = world().await;
    for kind in 0..2 {
        let ask = async |then: Then| {
            let (handle, never) = (world.handle(), set("never", 0, then));
            match kind {
                0 => soon(handle.agent::<Clock>("a").ask(never)).await,
                _ => soon(handle.agent::<Watch>("a").ask(never)).await,
            }
        };
        assert!(matches!(ask(Then::Fail).await, Err(AskError::Failed(_))));
        assert!(matches!(ask(Then::Crash).await, Err(AskError::Failed(_))));
    }
    let clock = world.handle().agent::<Clock>("a");
    soon(clock.ask(set("later", 50, Then::Succeed))).await.unwrap();
    rings(&gate, "later", 1).await;
    assert_eq!(gate.count("never"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_timer_outlives_its_agents_crashes_and_keeps_it_in_memory() {
    let (world, gate) = world().await;
    for _ in 0..2 {
        let clock = world.handle().agent::<Clock>("a");
        soon(clock.ask(set("late", 2_500, Then::Succeed))).await.unwrap();
        let _ = soon(clock.ask(set("never", 0, Then::Crash))).await;
        let before = gate.count("late");
        rings(&gate, "late", before + 1).await;
        // only now is it idle
        let left = gate.count("left");
        until("it leaves memory", || async {
            status(&world.handle(), "clock", "a").await == "passivated" && gate.count("left") > left
        })
        .await;
        assert_eq!(gate.count("left"), left + 1, "it left with a timer pending");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_periodic_timer_rings_until_it_is_cancelled() {
    let (world, gate) = world().await;
    let clock = world.handle().agent::<Clock>("a");
    let mut tick = set("tock", 10, Then::Succeed);
    tick.every = true;
    soon(clock.ask(tick)).await.unwrap();
    rings(&gate, "tock", 5).await;
    soon(clock.ask(Cancel { name: "tock".to_owned() })).await.unwrap();
    let rung = gate.count("tock");
    soon(clock.ask(set("end", 60, Then::Succeed))).await.unwrap();
    rings(&gate, "end", 1).await;
    assert!(gate.count("tock") <= rung + 1, "one may have waited when it was cancelled");
}

/// Errors rewind the agent, and each rewind runs `on_start`: a timer that began anew each time would never
/// ring.
#[tokio::test(flavor = "multi_thread")]
async fn what_on_start_sets_is_not_put_off_by_turns_that_fail() {
    let (world, gate) = world().await;
    let clock = world.handle().agent::<Clock>("punctual");
    until("it ticks between failures", || async {
        let _ = soon(clock.ask(set("never", 0, Then::Fail))).await;
        gate.count("tick") >= 3
    })
    .await;
    assert_eq!(gate.count("never"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_retires_or_is_restarted_loses_its_timers() {
    let (world, gate) = world().await;
    let clock = world.handle().agent::<Clock>("a");
    soon(clock.ask(set("lost", 200, Then::Retire))).await.unwrap();
    until("it leaves", || async { gate.count("left") == 1 }).await;
    soon(clock.ask(set("lost", 200, Then::Succeed))).await.unwrap();
    world.handle().operator().act("clock", "a", Action::Restart).await.unwrap();
    until("it is restarted", || async { gate.count("left") == 2 }).await;
    soon(clock.ask(set("end", 400, Then::Succeed))).await.unwrap();
    rings(&gate, "end", 1).await;
    assert_eq!(gate.count("lost"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_panics_when_a_timer_clones_it_ends_nothing() {
    let (world, gate) = world().await;
    let clock = world.handle().agent::<Clock>("a");
    soon(clock.ask(Spoil {})).await.unwrap();
    soon(clock.ask(set("end", 20, Then::Succeed))).await.unwrap();
    rings(&gate, "end", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_timers_fail_the_turn_that_sets_them() {
    let (world, _gate) = world().await;
    let watch = world.handle().agent::<Watch>("a");
    for n in 0..1_000 {
        soon(watch.ask(set(&format!("t{n}"), 3_600_000, Then::Succeed))).await.unwrap();
    }
    let refused = soon(watch.ask(set("one more", 3_600_000, Then::Succeed))).await;
    assert!(matches!(refused, Err(AskError::Failed(f)) if f.message.contains("at most 1000")));
    // One that replaces another is none more, and one that is taken back makes room.
    soon(watch.ask(set("t0", 3_600_000, Then::Succeed))).await.unwrap();
    soon(watch.ask(Cancel { name: "t0".to_owned() })).await.unwrap();
    soon(watch.ask(set("one more", 3_600_000, Then::Succeed))).await.unwrap();
    soon(watch.ask(set("two more", 3_600_000, Then::Succeed))).await.unwrap_err();
}

/// Turns that run ahead of the disk, whose timers are not pending yet.
#[tokio::test(flavor = "multi_thread")]
async fn timers_of_turns_that_are_not_durable_yet_count_too() {
    let gate = Gate::default();
    let faults = Faults::default();
    let program = Runtime::builder().agent::<Clock>().agent::<Watch>().resource(gate.clone());
    let world = World::start(faults.under(program)).await;
    let clock = world.handle().agent::<Clock>("a");
    soon(clock.ask(set("t0", 3_600_000, Then::Fail))).await.unwrap_err();
    let set = |n: usize| clock.ask(set(&format!("t{n}"), 3_600_000, Then::Succeed)).into_future();
    for some in (0..900).collect::<Vec<_>>().chunks(100) {
        for answer in soon(join_all(some.iter().map(|n| set(*n)))).await {
            answer.unwrap();
        }
    }
    faults.hang(true);
    let asks: Vec<_> = (900..1_100).map(|n| tokio::spawn(set(n))).collect();
    until("they have run ahead", || async { gate.count("set") > 901 + 100 }).await;
    faults.hang(false);
    let mut refused = 0;
    for answer in soon(join_all(asks)).await {
        refused += usize::from(answer.unwrap().is_err());
    }
    assert_eq!(refused, 100);
}
