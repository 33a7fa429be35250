//! Groups: who is restarted with whom, and where it ends.

use std::sync::Arc;

use greenroom::{Persistence, Restart, Strategy, prelude::*};
use parking_lot::Mutex;

use crate::support::{World, soon, status, until};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Touch {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Crash {}
/// Leaves memory.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Leave {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Close {
    valid: bool,
}
/// Says so to the whole group.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Ring {
    group: String,
    valid: bool,
}
message! { Touch -> u64; Crash -> (); Leave -> (); Ring -> () }
impl Message for Close {
    type Reply = ();
    type Error = greenroom::Never;
    const NAME: &'static str = "Close";
    fn validate(&self) -> Result<(), greenroom::Invalid> {
        if self.valid { Ok(()) } else { Err(greenroom::Invalid::at("/valid", "it is not")) }
    }
}

/// Which agents were started, and stopped.
#[derive(Clone, Default)]
struct Lives(Arc<Mutex<Vec<String>>>);
impl Lives {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

macro_rules! member {
    ($agent:ident, $kind:literal, $persistence:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $agent {
            touched: u64,
        }
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Touch, Crash, Leave, Close, Ring);
            fn policy() -> Policy {
                Policy::default()
                    .group("market")
                    .persistence($persistence)
                    .max_restarts(3, Duration::from_secs(60))
                    .backoff(Duration::ZERO, Duration::from_millis(1))
            }
            async fn on_start(&mut self, turn: &Turn<Self>) -> Result<()> {
                turn.resource::<Lives>().0.lock().push(format!("+{}", turn.key()));
                Ok(())
            }
            async fn on_stop(&mut self, turn: &Turn<Self>) -> Result<()> {
                turn.resource::<Lives>().0.lock().push(format!("-{}", turn.key()));
                Ok(())
            }
        }
        impl Handler<Touch> for $agent {
            async fn handle(&mut self, _: Touch, _: &Turn<Self>) -> Result<u64> {
                self.touched += 1;
                Ok(self.touched)
            }
        }
        impl Handler<Crash> for $agent {
            async fn handle(&mut self, _: Crash, _: &Turn<Self>) -> Result<()> {
                panic!("as told")
            }
        }
        impl Handler<Leave> for $agent {
            async fn handle(&mut self, _: Leave, turn: &Turn<Self>) -> Result<()> {
                turn.retire();
                Ok(())
            }
        }
        impl Handler<Close> for $agent {
            async fn handle(&mut self, _: Close, turn: &Turn<Self>) -> Result<()> {
                turn.resource::<Lives>().0.lock().push(format!("={}", turn.key()));
                Ok(())
            }
        }
        impl Handler<Ring> for $agent {
            async fn handle(&mut self, ring: Ring, turn: &Turn<Self>) -> Result<()> {
                turn.broadcast_to_group(&ring.group, Close { valid: ring.valid });
                Ok(())
            }
        }
    };
}
member!(Feed, "feed", Persistence::EveryTurn);
member!(Desk, "desk", Persistence::Volatile);

async fn world(strategy: Strategy, max: u32) -> (World, Lives) {
    let lives = Lives::default();
    let program = Runtime::builder()
        .group("market", strategy, max, Duration::from_secs(60))
        .agent::<Feed>()
        .agent::<Desk>()
        .resource(lives.clone())
        .set("supervision.max_restarts", "2");
    (World::start(program).await, lives)
}

/// A member that is not restarted.
#[derive(Default, Serialize, Deserialize)]
struct Guest {}
impl Agent for Guest {
    const KIND: &'static str = "guest";
    type Messages = (Touch, Crash);
    fn policy() -> Policy {
        Policy::default().group("market").restart(Restart::Temporary)
    }
    async fn on_stop(&mut self, turn: &Turn<Self>) -> Result<()> {
        turn.resource::<Lives>().0.lock().push(format!("-{}", turn.key()));
        Ok(())
    }
}
impl Handler<Touch> for Guest {
    async fn handle(&mut self, _: Touch, _: &Turn<Self>) -> Result<u64> {
        Ok(0)
    }
}
impl Handler<Crash> for Guest {
    async fn handle(&mut self, _: Crash, _: &Turn<Self>) -> Result<()> {
        panic!("as told")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_member_that_crashes_takes_nobody_along_and_uses_up_nothing() {
    let lives = Lives::default();
    let program = Runtime::builder()
        .group("market", Strategy::OneForAll, 1, Duration::from_secs(60))
        .agent::<Feed>()
        .agent::<Desk>()
        .agent::<Guest>()
        .resource(lives.clone())
        .set("supervision.max_restarts", "0");
    let world = World::start(program).await;
    members(&world, &lives).await;
    let guest = world.handle().agent::<Guest>("g");
    for _ in 0..3 {
        soon(guest.ask(Crash {})).await.unwrap_err();
        until("it leaves", || async { status(&world.handle(), "guest", "g").await != "active" }).await;
        soon(guest.ask(Touch {})).await.unwrap();
    }
    assert_eq!(world.handle().operator().fatal(), None);
    // The orchestrator has heard of all that came before this one.
    crash(&world, "b").await;
    let all = |lives: &Lives| lives.0.lock().iter().filter(|life| life.starts_with('+')).count();
    until("the others are restarted with it", || async { all(&lives) >= 4 }).await;
    assert_eq!(all(&lives), 4, "{:?}", lives.take());
    assert_eq!(world.handle().operator().fatal(), None);
}

/// Four members, in this order.
async fn members(world: &World, lives: &Lives) {
    let handle = world.handle();
    for key in ["a", "b"] {
        soon(handle.agent::<Feed>(key).ask(Touch {})).await.unwrap();
    }
    for key in ["c", "d"] {
        soon(handle.agent::<Desk>(key).ask(Touch {})).await.unwrap();
    }
    assert_eq!(lives.take(), ["+a", "+b", "+c", "+d"]);
}

async fn crash(world: &World, key: &str) {
    let fault = soon(world.handle().agent::<Feed>(key).ask(Crash {})).await;
    assert!(matches!(fault, Err(AskError::Failed(_))), "{fault:?}");
}

/// Who has been restarted: an `on_stop`, but for the one that crashed, and an `on_start`.
async fn restarted(lives: &Lives, crashed: &str, expected: &[&str]) {
    let stopped = expected.iter().rev().filter(|key| **key != crashed).map(|key| format!("-{key}"));
    let all: Vec<_> = stopped.chain(expected.iter().map(|key| format!("+{key}"))).collect();
    until("they are restarted", || async { lives.0.lock().len() >= all.len() }).await;
    assert_eq!(lives.take(), all, "they stop from the last one to the first, and start the other way round");
}

/// The whole group has restarted; the one that crashed may have done so by itself before.
async fn whole(lives: &Lives) {
    until("the group is restarted", || async { lives.0.lock().iter().any(|life| life == "+d") }).await;
    let all = lives.take();
    let of = |sign| all.iter().filter_map(|life| life.strip_prefix(sign)).collect::<Vec<_>>();
    assert!(of('-').starts_with(&["d", "c", "b"]), "{all:?}");
    assert!(of('+').ends_with(&["a", "b", "c", "d"]), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_for_one_restarts_the_one_that_crashed() {
    let (world, lives) = world(Strategy::OneForOne, 10).await;
    members(&world, &lives).await;
    crash(&world, "b").await;
    restarted(&lives, "b", &["b"]).await;
    assert_eq!(soon(world.handle().agent::<Desk>("c").ask(Touch {})).await.unwrap(), 2);
    assert_eq!(lives.take(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_for_all_restarts_all_that_are_in_memory_and_what_was_durable_is_there() {
    let (world, lives) = world(Strategy::OneForAll, 10).await;
    members(&world, &lives).await;
    crash(&world, "b").await;
    restarted(&lives, "b", &["a", "b", "c", "d"]).await;
    assert_eq!(soon(world.handle().agent::<Feed>("a").ask(Touch {})).await.unwrap(), 2, "it is durable");
    assert_eq!(soon(world.handle().agent::<Desk>("c").ask(Touch {})).await.unwrap(), 1, "it is volatile");
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_for_one_restarts_those_behind() {
    let (world, lives) = world(Strategy::RestForOne, 10).await;
    members(&world, &lives).await;
    crash(&world, "b").await;
    restarted(&lives, "b", &["b", "c", "d"]).await;
    // a restart gives nobody another place
    crash(&world, "a").await;
    restarted(&lives, "a", &["a", "b", "c", "d"]).await;
}

/// The others build on it, whenever it came last.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_left_memory_comes_back_to_its_place() {
    let (world, lives) = world(Strategy::RestForOne, 10).await;
    members(&world, &lives).await;
    let a = world.handle().agent::<Feed>("a");
    soon(a.ask(Leave {})).await.unwrap();
    until("it leaves", || async { status(&world.handle(), "feed", "a").await == "passivated" }).await;
    soon(a.ask(Touch {})).await.unwrap();
    assert_eq!(lives.take(), ["-a", "+a"]);
    crash(&world, "a").await;
    restarted(&lives, "a", &["a", "b", "c", "d"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_to_a_group_reaches_all_its_members_that_run() {
    let lives = Lives::default();
    let program = Runtime::builder()
        .group("market", Strategy::OneForOne, 9, Duration::from_secs(60))
        .agent::<Feed>()
        .agent::<Desk>()
        .agent::<Guest>()
        .resource(lives.clone());
    let world = World::start(program).await;
    members(&world, &lives).await;
    let handle = world.handle();
    // It does not take the message, which is its right.
    soon(handle.agent::<Guest>("g").ask(Touch {})).await.unwrap();
    let told = async || {
        until("they are told", || async { lives.0.lock().len() == 4 }).await;
        let mut told = lives.take();
        told.sort();
        assert_eq!(told, ["=a", "=b", "=c", "=d"]);
    };
    let ring = |group: &str, valid| handle.agent::<Feed>("a").ask(Ring { group: group.into(), valid });
    soon(ring("market", true)).await.unwrap();
    told().await;
    soon(handle.broadcast_to_group("market", Close { valid: true })).await.unwrap();
    told().await;
    for (group, valid) in [("market", false), ("nowhere", true)] {
        assert_eq!(soon(ring(group, valid)).await.unwrap_err().code(), "handler_failed");
        soon(handle.broadcast_to_group(group, Close { valid })).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_past_its_intensity_is_restarted_whole_and_a_root_past_its_own_ends_the_node() {
    let (world, lives) = world(Strategy::OneForOne, 2).await;
    members(&world, &lives).await;
    let operator = world.handle().operator().clone();
    for _ in 0..2 {
        crash(&world, "a").await;
        restarted(&lives, "a", &["a"]).await;
        crash(&world, "b").await;
        restarted(&lives, "b", &["b"]).await;
        crash(&world, "a").await;
        whole(&lives).await;
    }
    assert_eq!(operator.fatal(), None);
    for key in ["a", "b", "a"] {
        crash(&world, key).await;
    }
    until("the node ends", || async { operator.fatal().is_some() }).await;
    assert!(operator.fatal().unwrap().contains("market"), "{:?}", operator.fatal());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_past_its_own_intensity_is_the_groups_concern_and_not_stopped() {
    let (world, lives) = world(Strategy::OneForOne, 100).await;
    members(&world, &lives).await;
    for _ in 0..3 {
        crash(&world, "a").await;
        restarted(&lives, "a", &["a"]).await;
    }
    crash(&world, "a").await;
    restarted(&lives, "a", &["a", "b", "c", "d"]).await;
    assert_eq!(soon(world.handle().agent::<Feed>("a").ask(Touch {})).await.unwrap(), 2);
    crash(&world, "a").await;
    assert_eq!(
        soon(world.handle().agent::<Feed>("a").ask(Touch {})).await.unwrap(),
        3,
        "its budget is fresh"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_stop_with_their_node_from_the_last_one_to_the_first() {
    let (mut world, lives) = world(Strategy::OneForOne, 10).await;
    members(&world, &lives).await;
    world.end().await;
    let ends = lives.take();
    let (last, first) = ends.split_at(2);
    assert!(last.iter().all(|end| ["-c", "-d"].contains(&&**end)), "{ends:?}");
    assert!(first.len() == 2 && first.iter().all(|end| ["-a", "-b"].contains(&&**end)), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_declares_groups_too_and_one_that_nobody_declares_is_refused() {
    let program = || Runtime::builder().agent::<Feed>().resource(Lives::default());
    let dir = tempfile::TempDir::new().unwrap();
    let refused = program().set("node.data_dir", &dir.path().to_string_lossy()).start().await;
    let refused = refused.map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("feed") && refused.contains("[supervision.groups.market]"), "{refused}");
    let world = World::start(program().set("supervision.groups.market.strategy", "one_for_all")).await;
    soon(world.handle().agent::<Feed>("a").ask(Touch {})).await.unwrap();
    let tree = serde_json::to_value(world.handle().operator().tree().await).unwrap();
    let children = tree["children"].as_array().unwrap();
    let group = children.iter().find(|c| c["role"] == "group").unwrap();
    assert_eq!((&group["name"], &group["current"]), (&"market".into(), &"one_for_all".into()));
    assert_eq!(group["children"][0]["children"][0]["name"], "feed/a");
}
