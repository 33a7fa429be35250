//! In and out of memory, and the bound of the mailbox.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection, connection::SimpleConnection as _};
use futures_util::future::join_all;
use greenroom::{OnFull, prelude::*, runtime::views::Action};

use crate::support::{Gate, World, soon, status, until};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    retire: bool,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Get {}
/// Reads, and leaves memory.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Glance {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Block {}
/// Panics where it is dropped, once armed.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Bomb {}
/// Tells the curt one a bomb.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Plant {}
message! { Add -> u64; Get -> u64; Glance -> u64; Block -> (); Bomb -> (); Plant -> u64 }

static ARMED: AtomicBool = AtomicBool::new(false);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!ARMED.swap(false, SeqCst), "as told");
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Sapper {
    planted: u64,
}
impl Agent for Sapper {
    const KIND: &'static str = "sapper";
    type Messages = Plant;
}
impl Handler<Plant> for Sapper {
    async fn handle(&mut self, _: Plant, turn: &Turn<Self>) -> Result<u64> {
        turn.agent::<Curt>("a").tell(Bomb {});
        ARMED.store(true, SeqCst);
        self.planted += 1;
        Ok(self.planted)
    }
}

/// Runs blocking code in its hooks.
#[derive(Default, Serialize, Deserialize)]
struct Founder {}
impl Agent for Founder {
    const KIND: &'static str = "founder";
    type Messages = (Add, Get);
    async fn on_start(&mut self, turn: &Turn<Self>) -> Result<()> {
        let gate = turn.resource::<Gate>().clone();
        turn.blocking(move || gate.note("opened")).await
    }
    async fn on_stop(&mut self, turn: &Turn<Self>) -> Result<()> {
        let gate = turn.resource::<Gate>().clone();
        turn.blocking(move || gate.note("closed")).await
    }
}
/// Waits for blocking code that takes longer than it may.
impl Query<Get> for Founder {
    async fn query(&self, _: Get, turn: &Turn<Self>) -> Result<u64> {
        let gate = turn.resource::<Gate>().clone();
        let (over, ended) = std::sync::mpsc::channel::<()>();
        let code = move || {
            let _ = ended.recv();
            gate.note("ran on");
        };
        let late = turn.blocking(code).timeout(Duration::from_millis(20)).await.unwrap_err();
        drop(over);
        Ok(late.to_string().contains("took longer").into())
    }
}
impl Handler<Add> for Founder {
    async fn handle(&mut self, _: Add, turn: &Turn<Self>) -> Result<u64> {
        turn.retire();
        Ok(0)
    }
}

static STARTS: AtomicU64 = AtomicU64::new(0);

macro_rules! sleeper {
    ($agent:ident, $kind:literal, $on_full:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $agent {
            total: u64,
        }
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Add, Get, Glance, Block, Bomb);
            fn policy() -> Policy {
                Policy::default().idle_timeout(Duration::from_secs(1)).mailbox(8).on_full($on_full)
            }
            async fn on_start(&mut self, _: &Turn<Self>) -> Result<()> {
                STARTS.fetch_add(1, SeqCst);
                Ok(())
            }
            async fn on_stop(&mut self, _: &Turn<Self>) -> Result<()> {
                tokio::task::yield_now().await;
                Ok(())
            }
        }
        impl Handler<Add> for $agent {
            async fn handle(&mut self, add: Add, turn: &Turn<Self>) -> Result<u64> {
                self.total += 1;
                if add.retire {
                    turn.retire();
                }
                Ok(self.total)
            }
        }
        impl Query<Get> for $agent {
            async fn query(&self, _: Get, _: &Turn<Self>) -> Result<u64> {
                Ok(self.total)
            }
        }
        impl Query<Glance> for $agent {
            async fn query(&self, _: Glance, turn: &Turn<Self>) -> Result<u64> {
                turn.retire();
                Ok(self.total)
            }
        }
        impl Handler<Bomb> for $agent {
            async fn handle(&mut self, _: Bomb, _: &Turn<Self>) -> Result<()> {
                Ok(())
            }
        }
        impl Handler<Block> for $agent {
            async fn handle(&mut self, _: Block, turn: &Turn<Self>) -> Result<()> {
                turn.resource::<Gate>().wait().await;
                Ok(())
            }
        }
    };
}
sleeper!(Patient, "patient", OnFull::Wait);
sleeper!(Curt, "curt", OnFull::Reject);

async fn world() -> (World, Gate) {
    let gate = Gate::default();
    let program = Runtime::builder().agent::<Patient>().agent::<Curt>().agent::<Sapper>();
    let program = program.agent::<Founder>();
    (World::start(program.resource(gate.clone())).await, gate)
}

/// Many senders, and an agent that leaves memory all the time.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_retires_under_load_loses_nothing() {
    let (world, _) = world().await;
    let agent = world.handle().agent::<Patient>("a");
    let senders = (0..16).map(|_| {
        let agent = agent.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                soon(agent.ask(Add { retire: n % 3 == 0 })).await.unwrap();
            }
        })
    });
    for sender in soon(join_all(senders)).await {
        sender.unwrap();
    }
    assert_eq!(soon(agent.ask(Get {})).await.unwrap(), 1_600);
    assert!(STARTS.load(SeqCst) > 1, "it did leave memory");
    soon(agent.ask(Add { retire: true })).await.unwrap();
    until("it has left", || async { status(&world.handle(), "patient", "a").await == "passivated" }).await;
    assert_eq!(soon(agent.ask(Get {})).await.unwrap(), 1_601);
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_may_run_blocking_code() {
    let (world, gate) = world().await;
    soon(world.handle().agent::<Founder>("a").ask(Add { retire: true })).await.unwrap();
    until("it has left", || async { gate.count("closed") == 1 }).await;
    assert_eq!(gate.count("opened"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocking_code_is_waited_for_no_longer_than_its_timeout_and_runs_on() {
    let (world, gate) = world().await;
    assert_eq!(soon(world.handle().agent::<Founder>("a").ask(Get {})).await.unwrap(), 1);
    until("it has ended", || async { gate.count("ran on") == 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_leaves_memory_and_comes_back_as_it_was() {
    let (world, _) = world().await;
    let handle = world.handle();
    for n in 0..50 {
        soon(handle.agent::<Patient>(format!("k{n}")).ask(Add { retire: false })).await.unwrap();
    }
    until("all have left", || async {
        for n in 0..50 {
            if status(&handle, "patient", &format!("k{n}")).await != "passivated" {
                return false;
            }
        }
        true
    })
    .await;
    for n in 0..50 {
        let agent = handle.agent::<Patient>(format!("k{n}"));
        assert_eq!(soon(agent.ask(Add { retire: false })).await.unwrap(), 2);
    }
}

/// What is cached is what the row holds: also of an agent that a later boot has only read.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_only_read_comes_back_from_the_cache() {
    let (mut world, gate) = world().await;
    soon(world.handle().agent::<Patient>("a").ask(Add { retire: false })).await.unwrap();
    world.end().await;
    let program = Runtime::builder().agent::<Patient>().agent::<Curt>().resource(gate);
    world.start_again(program).await;
    let handle = world.handle();
    let agent = handle.agent::<Patient>("a");
    let glance = async || {
        assert_eq!(soon(agent.ask(Glance {})).await.unwrap(), 1);
        until("it has left", || async { status(&handle, "patient", "a").await == "passivated" }).await;
    };
    let hits = || async { handle.operator().status().await.cache["hits"].as_u64().unwrap() };
    until("the cache has it", || async {
        glance().await;
        hits().await > 0
    })
    .await;
    // Only the store's copy is spoilt: whoever reads it notices.
    let file = world.dir().join("greenroom.db");
    let mut store = SqliteConnection::establish(&file.to_string_lossy()).unwrap();
    store.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
    let spoilt = diesel::sql_query("UPDATE greenroom_agents SET state = x'' WHERE key = 'a'");
    assert_eq!(spoilt.execute(&mut store).unwrap(), 1);
    glance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_gives_the_message_back() {
    let (world, gate) = world().await;
    let agent = world.handle().agent::<Curt>("a");
    let blocked = tokio::spawn(agent.ask(Block {}).into_future());
    gate.arrival().await;
    let mut taken = 0;
    let back = loop {
        match agent.try_tell(Add { retire: false }) {
            Ok(()) => taken += 1,
            Err(back) => break back.0,
        }
    };
    assert!(!back.retire);
    assert_eq!(taken, 8, "its bound binds");
    assert!(soon(agent.tell(Add { retire: false })).await.is_err());
    assert_eq!(soon(agent.ask(Add { retire: false })).await.unwrap_err().code(), "overloaded");
    let json = world.handle().ask_json("curt/a", "Add", serde_json::json!({"retire": false})).await;
    assert_eq!(json.unwrap_err().code(), "overloaded");
    gate.open(1);
    soon(blocked).await.unwrap().unwrap();
    until("what was taken has run", || async { agent.ask(Get {}).await == Ok(8) }).await;
}

/// What a turn tells leaves on the persistence actor's own threads: their end would be the node's.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_panics_in_a_full_mailboxs_hands_harms_nobody() {
    let (world, gate) = world().await;
    let full = world.handle().agent::<Curt>("a");
    let blocked = tokio::spawn(full.ask(Block {}).into_future());
    gate.arrival().await;
    while full.try_tell(Add { retire: false }).is_ok() {}
    let sapper = world.handle().agent::<Sapper>("s");
    for n in 1..=3 {
        assert_eq!(soon(sapper.ask(Plant {})).await.unwrap(), n);
        until("it went off", || async { !ARMED.load(SeqCst) }).await;
    }
    gate.open(1);
    soon(blocked).await.unwrap().unwrap();
    until("what was taken has run", || async { full.ask(Get {}).await == Ok(8) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_lets_the_patient_wait() {
    let (world, gate) = world().await;
    let agent = world.handle().agent::<Patient>("a");
    let blocked = tokio::spawn(agent.ask(Block {}).into_future());
    gate.arrival().await;
    let asks: Vec<_> =
        (0..100).map(|_| tokio::spawn(agent.ask(Add { retire: false }).into_future())).collect();
    let hasty = agent.ask(Add { retire: false }).timeout(Duration::from_millis(50));
    assert_eq!(soon(hasty).await, Err(AskError::TimedOut));
    gate.open(1);
    soon(blocked).await.unwrap().unwrap();
    for ask in asks {
        soon(ask).await.unwrap().unwrap();
    }
    assert_eq!(soon(agent.ask(Get {})).await.unwrap(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_agent_keeps_its_messages_for_later() {
    let (world, gate) = world().await;
    let handle = world.handle();
    let agent = handle.agent::<Patient>("a");
    soon(agent.ask(Add { retire: false })).await.unwrap();
    let blocked = tokio::spawn(agent.ask(Block {}).into_future());
    gate.arrival().await;
    let mut asks: Vec<_> =
        (0..5).map(|_| tokio::spawn(agent.ask(Add { retire: false }).into_future())).collect();
    handle.operator().act("patient", "a", Action::Pause).await.unwrap();
    asks.extend((0..5).map(|_| tokio::spawn(agent.ask(Add { retire: false }).into_future())));
    gate.open(1);
    soon(blocked).await.unwrap().unwrap();
    until("it is out of memory", || async {
        !handle
            .operator()
            .tree()
            .await
            .children
            .iter()
            .any(|kind| kind.children.iter().any(|a| a.name == "patient/a" && a.status != "paused"))
    })
    .await;
    assert_eq!(status(&handle, "patient", "a").await, "paused");
    let json = handle.operator().ask(
        "patient",
        "a",
        "Get",
        b"",
        greenroom::runtime::operator::SendOptions {
            timeout: Some(Duration::from_millis(100)),
            ..Default::default()
        },
    );
    let code = soon(json).await.unwrap_err().code();
    assert!(code == "timed_out" || code == "overloaded", "{code}");
    handle.operator().act("patient", "a", Action::Resume).await.unwrap();
    for ask in asks {
        soon(ask).await.unwrap().unwrap();
    }
    assert_eq!(soon(agent.ask(Get {})).await.unwrap(), 11);
}

/// Pause, resume, restart: at any moment, as fast as they come.
#[tokio::test(flavor = "multi_thread")]
async fn operators_may_interfere_at_any_moment() {
    let (world, _) = world().await;
    let handle = world.handle();
    let agent = handle.agent::<Patient>("a");
    let sender = tokio::spawn({
        let agent = agent.clone();
        async move {
            for n in 1..=600 {
                assert_eq!(soon(agent.ask(Add { retire: n % 7 == 0 })).await.unwrap(), n);
            }
        }
    });
    let mut n = 0;
    while !sender.is_finished() {
        n += 1;
        let actions = [Action::Pause, Action::Resume, Action::Restart];
        for action in &actions[if n % 2 == 0 { 0 } else { 2 }..] {
            handle.operator().act("patient", "a", *action).await.unwrap_or(());
        }
    }
    soon(sender).await.unwrap();
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Watch {}
message!(Watch -> String);

/// Works until it is asked to end.
#[derive(Default, Serialize, Deserialize)]
struct Watcher {}
impl Agent for Watcher {
    const KIND: &'static str = "watcher";
    type Messages = Watch;
}
impl Handler<Watch> for Watcher {
    async fn handle(&mut self, _: Watch, turn: &Turn<Self>) -> Result<String> {
        turn.resource::<Gate>().wait().await;
        while !turn.cancelled() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok("it was asked to end".to_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_sees_that_it_is_asked_to_end() {
    let gate = Gate::default();
    let mut world = World::start(Runtime::builder().agent::<Watcher>().resource(gate.clone())).await;
    let handle = world.handle();
    for end in [Some(Action::Restart), None] {
        let watcher = handle.agent::<Watcher>("a");
        let asked = tokio::spawn(async move { watcher.ask(Watch {}).await });
        gate.arrival().await;
        gate.open(1);
        match end {
            Some(action) => handle.operator().act("watcher", "a", action).await.unwrap(),
            None => world.end().await,
        }
        assert_eq!(soon(asked).await.unwrap().unwrap(), "it was asked to end");
    }
}

/// Once, a call that came before the supervising actor had begun was dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_tool_answers_as_soon_as_its_node_has_started() {
    async fn echo(get: Get, _: Call) -> Result<u64> {
        let Get {} = get;
        Ok(7)
    }
    let mut world = World::idle();
    for _ in 0..10 {
        world.start_again(Runtime::builder().tool_fn("echo", Effect::Pure, echo)).await;
        let called = soon(world.handle().operator().call("echo", b"{}", Default::default())).await;
        assert_eq!(called.unwrap().0.get(), "7");
        world.end().await;
    }
}
