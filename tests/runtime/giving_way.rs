//! Who waits for whom in one mailbox: answers do not wait for what runs behind them, what is urgent waits
//! for one turn alone, and what gave way runs once.

use std::sync::Arc;

use futures_util::{FutureExt, future::join_all};
use greenroom::{Persistence, model::id::AgentId, prelude::*, runtime::views::Action, store::Refusal};
use parking_lot::{Condvar, Mutex};

use crate::{
    faulty::Faults,
    support::{Gate, World, soon, until},
};

/// Rung by the test; waited for by code that blocks its thread.
#[derive(Clone, Default)]
struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    fn ring(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    /// `false`: nobody has rung it.
    fn wait(&self) -> bool {
        let mut rung = self.0.0.lock();
        self.0.1.wait_while_for(&mut rung, |rung| !*rung, Duration::from_secs(10));
        *rung
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Write {
    text: String,
}
/// Takes longer than a cell's slice.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Doze {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Read {}
/// Tells another one something, if it is to, and waits at the gate.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Wait {
    telling: bool,
}
/// Blocks its arbiter until the bell is rung.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Stall {}
/// Has blocking code wait for the bell.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Dig {}
/// Keeps its thread for a moment and tells itself the same, for ever.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Churn {}
message! { Churn -> (); Write -> (); Doze -> (); Read -> u64; Wait -> (); Stall -> bool; Dig -> bool }

const TELLING: Wait = Wait { telling: true };

macro_rules! scribe {
    ($agent:ident, $kind:literal, $persistence:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $agent {
            done: u64,
        }
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Write, Doze, Read, Wait, Stall, Dig, Churn);
            fn policy() -> Policy {
                Policy::default().turn_timeout(Duration::from_secs(20)).persistence($persistence)
            }
        }
        impl Handler<Write> for $agent {
            async fn handle(&mut self, write: Write, turn: &Turn<Self>) -> Result<()> {
                self.done += 1;
                turn.resource::<Gate>().note(write.text);
                Ok(())
            }
        }
        impl Handler<Doze> for $agent {
            async fn handle(&mut self, _: Doze, _: &Turn<Self>) -> Result<()> {
                self.done += 1;
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            }
        }
        impl Handler<Churn> for $agent {
            async fn handle(&mut self, _: Churn, turn: &Turn<Self>) -> Result<()> {
                self.done += 1;
                std::thread::sleep(Duration::from_millis(1));
                turn.agent::<Self>("a").tell(Churn {});
                Ok(())
            }
        }
        impl Query<Read> for $agent {
            async fn query(&self, _: Read, _: &Turn<Self>) -> Result<u64> {
                Ok(self.done)
            }
        }
        impl Handler<Wait> for $agent {
            async fn handle(&mut self, wait: Wait, turn: &Turn<Self>) -> Result<()> {
                self.done += 1;
                if wait.telling {
                    turn.agent::<Self>("other").tell(Write { text: "told".to_owned() });
                }
                turn.resource::<Gate>().wait().await;
                Ok(())
            }
        }
        impl Handler<Stall> for $agent {
            async fn handle(&mut self, _: Stall, turn: &Turn<Self>) -> Result<bool> {
                self.done += 1;
                Ok(turn.resource::<Bell>().wait())
            }
        }
        impl Handler<Dig> for $agent {
            async fn handle(&mut self, _: Dig, turn: &Turn<Self>) -> Result<bool> {
                self.done += 1;
                let (gate, bell) = (turn.resource::<Gate>().clone(), turn.resource::<Bell>().clone());
                let dig = move || {
                    gate.note("dug");
                    bell.wait()
                };
                turn.blocking(dig).await
            }
        }
    };
}
scribe!(Scribe, "scribe", Persistence::EveryTurn);
scribe!(Fleeting, "fleeting", Persistence::Volatile);

struct Desk {
    world: World,
    faults: Faults,
    gate: Gate,
    bell: Bell,
}

async fn desk() -> Desk {
    let (faults, gate, bell) = (Faults::default(), Gate::default(), Bell::default());
    let program = Runtime::builder().agent::<Scribe>().agent::<Fleeting>();
    let world = World::start(faults.under(program.resource(gate.clone()).resource(bell.clone()))).await;
    Desk { world, faults, gate, bell }
}

impl Desk {
    fn scribe(&self) -> greenroom::AgentRef<Scribe> {
        self.world.handle().agent("a")
    }

    /// Waits until so many messages wait for it.
    async fn queued(&self, kind: &str, n: usize) {
        let operator = self.world.handle().operator().clone();
        let depth = async || operator.agent(kind, "a").await.unwrap().mailbox.depth;
        until("they wait", || async { depth().await == n }).await;
    }

    /// Has the scribe write, and the store hang with it: until that is taken back nothing is durable.
    async fn written_and_not_durable(&self) -> tokio::task::JoinHandle<Result<(), AskError>> {
        soon(self.scribe().ask(Read {})).await.unwrap();
        self.faults.hang(true);
        let written = tokio::spawn(self.scribe().ask(write("a")));
        until("it ran", || async { self.gate.count("a") == 1 }).await;
        written
    }

    /// Has the scribe find both of these in one batch.
    async fn together<A: Send + 'static, B: Send + 'static>(
        &self,
        first: impl Future<Output = A> + Send + 'static,
        second: impl Future<Output = B> + Send + 'static,
    ) -> (tokio::task::JoinHandle<A>, tokio::task::JoinHandle<B>) {
        let operator = self.world.handle().operator().clone();
        soon(operator.act("scribe", "a", Action::Pause)).await.unwrap();
        let first = tokio::spawn(first);
        self.queued("scribe", 1).await;
        let second = tokio::spawn(second);
        self.queued("scribe", 2).await;
        soon(operator.act("scribe", "a", Action::Resume)).await.unwrap();
        (first, second)
    }
}

fn write(text: impl Into<String>) -> Write {
    Write { text: text.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_urgent_goes_before_a_batch_that_was_taken_in() {
    let desk = desk().await;
    let agent = desk.world.handle().agent::<Fleeting>("a");
    // Volatile turns run once. All of these are one batch.
    let blocked = tokio::spawn(agent.ask(Wait { telling: false }));
    desk.gate.arrival().await;
    let waiting =
        tokio::spawn(join_all([agent.ask(Wait { telling: false }), agent.ask(Wait { telling: false })]));
    desk.queued("fleeting", 2).await;
    for n in 0..1_000 {
        agent.try_tell(write(format!("{n}"))).unwrap();
    }
    desk.gate.open(1);
    desk.gate.arrival().await;
    // They have been taken in: nothing waits but what comes now.
    desk.queued("fleeting", 0).await;
    for text in ["first", "second"] {
        agent.urgent().try_tell(write(text)).unwrap();
    }
    desk.gate.open(1);
    desk.gate.arrival().await;
    agent.urgent().try_tell(write("third")).unwrap();
    desk.gate.open(1);
    soon(blocked).await.unwrap().unwrap();
    soon(waiting).await.unwrap();
    soon(agent.ask(write("end"))).await.unwrap();
    let notes = desk.gate.notes.lock().clone();
    let at = |text: &str| notes.iter().position(|note| note == text).unwrap();
    assert!(at("first") < at("second") && at("second") < at("third"), "{:?}", &notes[..100]);
    // The look-out costs a few short turns at most.
    assert!(at("second") < 100 && at("third") < 100, "{} {}", at("second"), at("third"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_wait_for_a_turn_that_waits() {
    let desk = desk().await;
    let scribe = desk.scribe();
    let (written, waits) = desk.together(scribe.ask(write("a")), scribe.ask(TELLING)).await;
    soon(written).await.unwrap().unwrap();
    desk.gate.open(2); // it may have come as far as the gate twice: it gave way once
    soon(waits).await.unwrap().unwrap();
    assert_eq!(soon(scribe.ask(Read {})).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_what_changed_nothing_does_not_wait_for_it_either() {
    let desk = desk().await;
    let scribe = desk.scribe();
    let written = desk.written_and_not_durable().await;
    // It is held back, for it has seen what is not durable yet.
    let mut read = Box::pin(scribe.ask(Read {}));
    assert!((&mut read).now_or_never().is_none());
    let waits = tokio::spawn(scribe.ask(TELLING));
    desk.gate.arrival().await;
    desk.faults.hang(false);
    soon(written).await.unwrap().unwrap();
    assert_eq!(soon(read).await.unwrap(), 1);
    desk.gate.open(2);
    soon(waits).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_wait_for_a_turn_that_keeps_its_arbiter() {
    let desk = desk().await;
    let scribe = desk.scribe();
    let (dozed, stalls) = desk.together(scribe.ask(Doze {}), scribe.ask(Stall {})).await;
    soon(dozed).await.unwrap().unwrap();
    desk.bell.ring();
    assert!(soon(stalls).await.unwrap().unwrap(), "the bell was rung before it gave up");
}

/// Its batches are of one message, and the next one is always there.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_always_has_a_message_leaves_room_for_its_neighbours() {
    let program = Runtime::builder().agent::<Fleeting>().resource(Gate::default());
    let world = World::start(program).await;
    let churns = world.handle().agent::<Fleeting>("a");
    assert!(churns.tell(Churn {}).await.is_ok());
    until("it churns", || async { soon(churns.ask(Read {})).await.unwrap() > 3 }).await;
    // Some of them live on its arbiter.
    for neighbour in ["b", "c", "d", "e", "f", "g"] {
        assert_eq!(soon(world.handle().agent::<Fleeting>(neighbour).ask(Read {})).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocking_code_runs_once_although_its_turn_gives_way() {
    let desk = desk().await;
    let scribe = desk.scribe();
    let (written, digs) = desk.together(scribe.ask(write("a")), scribe.ask(Dig {})).await;
    soon(written).await.unwrap().unwrap();
    until("it digs", || async { desk.gate.count("dug") > 0 }).await;
    desk.bell.ring();
    assert!(soon(digs).await.unwrap().unwrap());
    assert_eq!(desk.gate.count("dug"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_turn_would_have_told_is_gone_with_the_commit_under_its_feet() {
    let desk = desk().await;
    let scribe = desk.scribe();
    let written = desk.written_and_not_durable().await;
    let waits = tokio::spawn(scribe.ask(TELLING));
    desk.gate.arrival().await;
    desk.faults.refuse(AgentId::of("scribe", "a"), Refusal::Bad("for once".to_owned()));
    desk.faults.hang(false);
    assert_eq!(soon(written).await.unwrap().unwrap_err().code(), "handler_failed");
    desk.gate.arrival().await;
    desk.gate.open(2);
    soon(waits).await.unwrap().unwrap();
    assert_eq!(soon(scribe.ask(Read {})).await.unwrap(), 1);
    until("it was told", || async { desk.gate.count("told") > 0 }).await;
    assert_eq!(desk.gate.count("told"), 1);
    assert!(desk.world.handle().operator().crashes().is_empty(), "its start has sent nothing");
}
