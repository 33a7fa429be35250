//! Claims that go back, and are claimed again before anybody hears of it.

use greenroom::{model::id::AgentId, prelude::*};

use crate::{
    faulty::{Faults, Returns},
    support::{Gate, World, outcome, soon, until},
};

#[derive(Default, Serialize, Deserialize)]
struct Porter {
    carried: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Carry {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Rest {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Ping {}
message! { Carry -> u64; Rest -> (); Ping -> () }

impl Agent for Porter {
    const KIND: &'static str = "porter";
    type Messages = (Carry, Rest, Ping);
}
impl Handler<Carry> for Porter {
    async fn handle(&mut self, _: Carry, _: &Turn<Self>) -> Result<u64> {
        self.carried += 1;
        Ok(self.carried)
    }
}
impl Handler<Rest> for Porter {
    async fn handle(&mut self, _: Rest, turn: &Turn<Self>) -> Result<()> {
        turn.resource::<Gate>().wait().await;
        Ok(())
    }
}
impl Query<Ping> for Porter {
    async fn query(&self, _: Ping, _: &Turn<Self>) -> Result<()> {
        Ok(())
    }
}

/// A task is turned away, and its claim goes back; it is claimed again before that is heard, and waits
/// behind a turn. It must not be handed out a third time then: both would run.
async fn is_handed_out_once_more(returns: Returns) {
    let (faults, gate) = (Faults::default(), Gate::default());
    let program = Runtime::builder().agent::<Porter>().resource(gate.clone()).set("node.lease", "3s");
    let world = World::start(faults.under(program)).await;
    let (porter, others) = (world.handle().agent::<Porter>("a"), world.handle().agent::<Porter>("b"));
    let partition = AgentId::of("porter", "a").partition();
    assert_ne!(partition, AgentId::of("porter", "b").partition());
    faults.revoke(partition, "http://10.0.0.2:7710");
    until("it is another's", || async { soon(porter.ask(Ping {})).await.is_err() }).await;
    faults.returns(returns);
    let task = soon(porter.submit(Carry {})).await.unwrap();
    until("it is claimed", || async { faults.claims_of(task) == 1 }).await;
    faults.restore(partition);
    until("it is ours", || async { soon(porter.ask(Ping {})).await.is_ok() }).await;
    let resting = tokio::spawn(porter.ask(Rest {}));
    gate.arrival().await;
    // each wakes the dispatcher
    let stir = || async { soon(others.submit(Carry {})).await.unwrap() };
    until("it is claimed again", || async {
        stir().await;
        faults.claims_of(task) == 2
    })
    .await;
    faults.returns(Returns::Heard);
    let looks = faults.looks();
    until("the dispatcher has looked at its claims", || async {
        stir().await;
        faults.looks() > looks + 2
    })
    .await;
    assert_eq!(faults.claims_of(task), 2);
    gate.open(1);
    soon(resting).await.unwrap().unwrap();
    assert!(matches!(outcome::<Carry>(&world.handle(), task).await, Outcome::Succeeded(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_return_was_heard_of_late_is_not_taken_from_its_next_holder() {
    is_handed_out_once_more(Returns::Late).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_return_was_never_heard_of_is_not_taken_from_its_next_holder() {
    is_handed_out_once_more(Returns::Lost).await;
}
