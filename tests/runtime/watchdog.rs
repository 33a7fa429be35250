//! A handler that holds up its thread is seen, told of, and kept away from.

use std::sync::Arc;

use greenroom::prelude::*;
use tokio::sync::Semaphore;

use crate::support::{World, soon, until};

/// Blocks its thread until the test lets it go.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Spin {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Ping {}
message! { Spin -> (); Ping -> () }

#[derive(Default, Serialize, Deserialize)]
struct Top {}
impl Agent for Top {
    const KIND: &'static str = "top";
    type Messages = (Spin, Ping);
    fn policy() -> Policy {
        Policy::default().persistence(greenroom::Persistence::Volatile)
    }
}
impl Handler<Spin> for Top {
    async fn handle(&mut self, _: Spin, turn: &Turn<Self>) -> Result<()> {
        let gate = turn.resource::<Arc<Semaphore>>();
        while gate.try_acquire().is_err() {
            std::thread::yield_now();
        }
        Ok(())
    }
}
impl Handler<Ping> for Top {
    async fn handle(&mut self, _: Ping, _: &Turn<Self>) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_spins_is_named_and_new_ones_come_elsewhere() {
    let gate = Arc::new(Semaphore::new(0));
    let world = World::start(Runtime::builder().agent::<Top>().resource(gate.clone())).await;
    let handle = world.handle();
    let spinning = tokio::spawn(handle.agent::<Top>("culprit").ask(Spin {}));
    let stuck = || async {
        let status = handle.operator().status().await;
        status.reasons.into_iter().find(|r| r.code == "agent_stuck").map(|r| r.message)
    };
    until("it is seen", || async { stuck().await.is_some() }).await;
    assert!(stuck().await.unwrap().contains("top/culprit"));
    // two arbiters, and one of them answers nobody
    for n in 0..64 {
        soon(handle.agent::<Top>(format!("{n}")).ask(Ping {})).await.unwrap();
    }
    gate.add_permits(1);
    soon(spinning).await.unwrap().unwrap();
    until("it is over", || async { stuck().await.is_none() }).await;
}
