//! Only so many agents of a kind stay in memory: the longest idle leave.

use futures_util::future::join_all;
use greenroom::prelude::*;

use crate::support::{Gate, World, soon, status, until};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Block {}
/// Sets a timer that does not ring in this test's time.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Remind {}
message! { Add -> u64; Block -> (); Remind -> () }

#[derive(Default, Serialize, Deserialize)]
struct Guest {
    visits: u64,
}
impl Agent for Guest {
    const KIND: &'static str = "guest";
    type Messages = (Add, Block, Remind);
    fn policy() -> Policy {
        Policy::default().max_live(4)
    }
}
impl Handler<Add> for Guest {
    async fn handle(&mut self, _: Add, _: &Turn<Self>) -> Result<u64> {
        self.visits += 1;
        Ok(self.visits)
    }
}
impl Handler<Block> for Guest {
    async fn handle(&mut self, _: Block, turn: &Turn<Self>) -> Result<()> {
        turn.resource::<Gate>().wait().await;
        Ok(())
    }
}
impl Handler<Remind> for Guest {
    async fn handle(&mut self, _: Remind, turn: &Turn<Self>) -> Result<()> {
        turn.timer("later", Duration::from_secs(86_400), Add {});
        self.visits += 1;
        Ok(())
    }
}

async fn world() -> (World, Gate) {
    let gate = Gate::default();
    (World::start(Runtime::builder().agent::<Guest>().resource(gate.clone())).await, gate)
}

async fn add(handle: &Handle, key: &str) -> u64 {
    soon(handle.agent::<Guest>(key).ask(Add {})).await.unwrap()
}

/// Waits until the guest sits idle: its answer comes before that.
async fn rests(handle: &Handle, key: &str) {
    until("it rests", || async { status(handle, "guest", key).await == "idle" }).await;
}

async fn has_left(handle: &Handle, key: &str) {
    until("it has left", || async { status(handle, "guest", key).await == "passivated" }).await;
}

/// Which of these are in memory.
async fn present<'a>(handle: &Handle, keys: &[&'a str]) -> Vec<&'a str> {
    let mut present = Vec::new();
    for key in keys {
        if status(handle, "guest", key).await != "passivated" {
            present.push(*key);
        }
    }
    present
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_idle_leaves_when_one_too_many_comes() {
    let (world, _) = world().await;
    let handle = world.handle();
    for key in ["a", "b", "c", "d"] {
        add(&handle, key).await;
        rests(&handle, key).await;
    }
    // The first has been used since: it is not the one.
    assert_eq!(add(&handle, "a").await, 2);
    rests(&handle, "a").await;
    add(&handle, "e").await;
    has_left(&handle, "b").await;
    rests(&handle, "e").await;
    add(&handle, "f").await;
    has_left(&handle, "c").await;
    assert_eq!(present(&handle, &["a", "b", "c", "d", "e", "f"]).await, ["a", "d", "e", "f"]);
    assert_eq!(add(&handle, "b").await, 2, "it is back as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_works_or_has_a_timer_stays_and_others_leave_in_its_place() {
    let (world, gate) = world().await;
    let handle = world.handle();
    soon(handle.agent::<Guest>("timed").ask(Remind {})).await.unwrap();
    rests(&handle, "timed").await;
    let busy = tokio::spawn(handle.agent::<Guest>("busy").ask(Block {}).into_future());
    gate.arrival().await;
    for key in ["a", "b", "c", "d"] {
        add(&handle, key).await;
        rests(&handle, key).await;
    }
    has_left(&handle, "a").await;
    has_left(&handle, "b").await;
    assert_eq!(present(&handle, &["timed", "busy", "c", "d"]).await, ["timed", "busy", "c", "d"]);
    gate.open(1);
    soon(busy).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_comes_and_goes_loses_nothing() {
    let (world, _) = world().await;
    let handle = world.handle();
    let keys: Vec<String> = (0..60).map(|n| format!("k{n}")).collect();
    for round in 1..=10 {
        let visits = keys.iter().map(|key| add(&handle, key));
        assert_eq!(join_all(visits).await, vec![round; keys.len()]);
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    until("all but a few have left", || async { present(&handle, &keys).await.len() <= 4 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_says_how_many() {
    let program = Runtime::builder().agent::<Guest>().resource(Gate::default());
    let world = World::start(program.set("agents.guest.max_live", "0")).await;
    let handle = world.handle();
    let keys = ["a", "b", "c", "d", "e", "f"];
    for key in keys {
        add(&handle, key).await;
        rests(&handle, key).await;
    }
    assert_eq!(present(&handle, &keys).await, keys, "any number");
}
