//! Who is restarted, who is stopped, who is quarantined, and that all of it lasts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection};
use futures_util::future::join_all;
use greenroom::{Persistence, Restart, model::supervision::Decision, prelude::*, runtime::views::Action};

use crate::support::{World, outcome, soon, status, task_in, until};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    n: i64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Get {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Crash {}
message! { Add -> i64; Get -> i64; Crash -> () }

macro_rules! actor {
    ($agent:ident { $($field:tt)* }, $kind:literal, $version:literal, $policy:expr, { $($more:tt)* }) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $agent { $($field)* total: i64 }
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            const VERSION: u32 = $version;
            type Messages = (Add, Get, Crash);
            fn policy() -> Policy { $policy.backoff(Duration::ZERO, Duration::ZERO) }
            $($more)*
        }
        impl Handler<Add> for $agent {
            async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<i64> {
                self.total += add.n;
                Ok(self.total)
            }
        }
        impl Query<Get> for $agent {
            async fn query(&self, _: Get, _: &Turn<Self>) -> Result<i64> { Ok(self.total) }
        }
        impl Handler<Crash> for $agent {
            async fn handle(&mut self, _: Crash, _: &Turn<Self>) -> Result<()> {
                self.total = -1;
                panic!("as told")
            }
        }
    };
}

fn thrice() -> Policy {
    Policy::default().max_restarts(3, Duration::from_secs(60))
}

static START_FAILS: AtomicBool = AtomicBool::new(false);
static MIGRATIONS: AtomicUsize = AtomicUsize::new(0);

actor!(Frail {}, "frail", 1, thrice(), {});
actor!(Single {}, "single", 1, Policy::default().restart(Restart::Temporary), {});
actor!(Shy {}, "shy", 1, thrice(), {
    async fn on_start(&mut self, _: &Turn<Self>) -> Result<()> {
        ensure!(!START_FAILS.load(SeqCst), "not today");
        Ok(())
    }
});
actor!(Stubborn {}, "stubborn", 1, thrice(), {
    async fn on_start(&mut self, _: &Turn<Self>) -> Result<()> {
        bail!("never")
    }
});
actor!(Light {}, "light", 1, thrice().persistence(Persistence::Volatile), {});
// `Frail`, as a newer program has it.
actor!(Newer { #[serde(default)] extra: Option<String>, }, "frail", 2, thrice(), {
    fn migrate(old: Stored) -> Result<Self> {
        MIGRATIONS.fetch_add(1, SeqCst);
        match old.version() {
            1 => Ok(Self { extra: Some("migrated".into()), total: old.value()?["total"].as_i64().context("total")? }),
            _ => old.refuse(),
        }
    }
});

fn program() -> greenroom::Builder {
    Runtime::builder().agent::<Frail>().agent::<Single>().agent::<Shy>().agent::<Light>()
}

/// Runs SQL on the store of a node that is down.
fn sql(world: &World, statement: &str) {
    let path = world.dir().join("greenroom.db");
    let mut store = SqliteConnection::establish(&path.to_string_lossy()).unwrap();
    assert_eq!(diesel::sql_query(statement).execute(&mut store).unwrap(), 1, "{statement}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_crash_too_many_stops_the_agent_until_an_operator_restarts_it() {
    let mut world = World::start(program()).await;
    let handle = world.handle();
    let (frail, other) = (handle.agent::<Frail>("a"), handle.agent::<Frail>("b"));
    let adds = join_all((0..100).map(|_| frail.ask(Add { n: 1 })));
    let crashes = join_all((0..4).map(|_| frail.ask(Crash {})));
    let late = join_all((0..50).map(|_| frail.ask(Add { n: 1 })));
    let (adds, crashes, late) = soon(async { tokio::join!(adds, crashes, late) }).await;
    assert!(crashes.iter().all(|c| c.as_ref().unwrap_err().code() == "handler_crashed"), "{crashes:?}");
    assert!(adds.iter().all(Result::is_ok), "turns before the last crash are durable");
    assert!(late.iter().all(|l| l.as_ref().unwrap_err().code() == "wrong_state"));
    assert_eq!(status(&handle, "frail", "a").await, "stopped");
    assert_eq!(handle.operator().state("frail", "a", None).await.unwrap().state["total"], 100);
    let last = handle.operator().crashes().remove(0);
    assert_eq!(last.decision, Decision::Exceeded { attempts: 3 });
    assert_eq!(soon(other.ask(Add { n: 1 })).await.unwrap(), 1, "others go on");
    let tell = frail.try_tell(Add { n: 9 }).unwrap_err();
    assert_eq!(tell.0.n, 9);
    let task = soon(frail.submit(Add { n: 1 })).await.unwrap();
    task_in(&handle, task, "parked").await;
    drop((frail, other, handle));

    world.end().await;
    world.start_again(program()).await;
    let handle = world.handle();
    let frail = handle.agent::<Frail>("a");
    assert_eq!(soon(frail.ask(Get {})).await.unwrap_err().code(), "wrong_state");
    handle.operator().act("frail", "a", Action::Restart).await.unwrap();
    assert_eq!(outcome::<Add>(&handle, task).await, Outcome::Succeeded(101));
    // The budget is fresh.
    for _ in 0..3 {
        soon(frail.ask(Crash {})).await.unwrap_err();
        assert_eq!(soon(frail.ask(Get {})).await.unwrap(), 101);
    }
    soon(frail.ask(Crash {})).await.unwrap_err();
    assert_eq!(soon(frail.ask(Get {})).await.unwrap_err().code(), "wrong_state");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_agent_is_not_restarted_but_starts_anew_for_the_next_message() {
    let world = World::start(program()).await;
    let handle = world.handle();
    let single = handle.agent::<Single>("a");
    soon(single.ask(Add { n: 2 })).await.unwrap();
    for _ in 0..20 {
        soon(single.ask(Crash {})).await.unwrap_err();
    }
    until("it has left memory", || async { status(&handle, "single", "a").await == "passivated" }).await;
    assert_eq!(soon(single.ask(Add { n: 2 })).await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_start_is_stopped_and_its_callers_are_told() {
    let world = World::start(program()).await;
    let handle = world.handle();
    let shy = handle.agent::<Shy>("a");
    soon(shy.ask(Add { n: 2 })).await.unwrap();
    START_FAILS.store(true, SeqCst);
    handle.operator().act("shy", "a", Action::Restart).await.unwrap();
    let asks = (0..10).map(|_| shy.ask(Add { n: 1 }));
    for answer in soon(join_all(asks)).await {
        assert_eq!(answer.unwrap_err().code(), "wrong_state");
    }
    assert_eq!(status(&handle, "shy", "a").await, "stopped");
    START_FAILS.store(false, SeqCst);
    handle.operator().act("shy", "a", Action::Restart).await.unwrap();
    assert_eq!(soon(shy.ask(Get {})).await.unwrap(), 2);
}

/// One that crashed, and one that cannot start: both wait for an hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_back_off_holds_up_neither_operators_nor_shutdown() {
    let slow = || {
        let sets = ["agents.frail", "agents.stubborn"]
            .map(|kind| [(format!("{kind}.backoff_min"), "1h"), (format!("{kind}.backoff_max"), "2h")]);
        sets.iter()
            .flatten()
            .fold(Runtime::builder().agent::<Frail>().agent::<Stubborn>(), |b, (k, v)| b.set(k, v))
    };
    let mut world = World::start(slow()).await;
    let handle = world.handle();
    let (frail, stubborn) = (handle.agent::<Frail>("a"), handle.agent::<Stubborn>("a"));
    soon(frail.ask(Add { n: 2 })).await.unwrap();
    for round in 0..2 {
        let waiting = tokio::spawn(frail.ask(Crash {}).into_future());
        let crash = soon(async {
            until("it waits", || async { status(&handle, "frail", "a").await == "restarting" }).await;
            handle.operator().act("frail", "a", Action::Restart).await.unwrap();
            waiting.await.unwrap()
        })
        .await;
        assert_eq!(crash.unwrap_err().code(), "handler_crashed");
        assert_eq!(soon(frail.ask(Get {})).await.unwrap(), 2, "{round}");
    }
    let crash = tokio::spawn(frail.ask(Crash {}).into_future());
    let start = tokio::spawn(stubborn.ask(Get {}).into_future());
    until("both wait", || async {
        status(&handle, "frail", "a").await == "restarting"
            && status(&handle, "stubborn", "a").await == "restarting"
    })
    .await;
    let began = std::time::Instant::now();
    world.end().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(soon(crash).await.unwrap().unwrap_err().code(), "handler_crashed");
    assert_eq!(soon(start).await.unwrap().unwrap_err().code(), "unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volatile_agent_is_stopped_as_others_are() {
    let mut world = World::start(program()).await;
    let light = world.handle().agent::<Light>("a");
    for _ in 0..4 {
        soon(light.ask(Crash {})).await.unwrap_err();
    }
    assert_eq!(soon(light.ask(Get {})).await.unwrap_err().code(), "wrong_state");
    drop(light);
    world.end().await;
    world.start_again(program()).await;
    let light = world.handle().agent::<Light>("a");
    assert_eq!(soon(light.ask(Get {})).await.unwrap_err().code(), "wrong_state", "it lasts");
    world.handle().operator().act("light", "a", Action::Restart).await.unwrap();
    assert_eq!(soon(light.ask(Add { n: 1 })).await.unwrap(), 1);
}

/// Damaged in one of several ways while the node was down.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_state_is_quarantined_and_kept_as_it_is() {
    let mut world = World::start(program()).await;
    for key in ["cut", "flipped", "empty", "good"] {
        soon(world.handle().agent::<Frail>(key).ask(Add { n: 7 })).await.unwrap();
    }
    world.end().await;
    let update = |world: &World, key: &str, state: &str| {
        sql(world, &format!("UPDATE greenroom_agents SET state = {state} WHERE key = '{key}'"));
    };
    update(&world, "cut", "substr(state, 1, length(state) - 3)");
    update(&world, "flipped", "CAST(substr(state, 1, length(state) - 2) || x'387d' AS BLOB)");
    update(&world, "empty", "x''");
    world.start_again(program()).await;
    let handle = world.handle();
    for key in ["cut", "flipped", "empty"] {
        let agent = handle.agent::<Frail>(key);
        let task = soon(agent.submit(Add { n: 1 })).await.unwrap();
        let asks = join_all((0..10).map(|_| agent.ask(Add { n: 1 })));
        for answer in soon(asks).await {
            let error = answer.unwrap_err();
            assert!(error.code() == "wrong_state" && error.to_string().contains("quarantined"), "{error}");
        }
        assert_eq!(status(&handle, "frail", key).await, "quarantined");
        task_in(&handle, task, "parked").await;
        let release = handle.operator().act("frail", key, Action::Release).await.unwrap_err();
        assert_eq!(release.code(), "wrong_state", "{key}");
        let restart = handle.operator().act("frail", key, Action::Restart).await.unwrap_err();
        assert_eq!(restart.code(), "wrong_state", "{key}");
    }
    assert_eq!(soon(handle.agent::<Frail>("good").ask(Get {})).await.unwrap(), 7);
    drop(handle);
    // Mended, it is released, and its task runs.
    world.end().await;
    update(&world, "flipped", "CAST(substr(state, 1, length(state) - 2) || x'377d' AS BLOB)");
    world.start_again(program()).await;
    let flipped = world.handle().agent::<Frail>("flipped");
    assert_eq!(soon(flipped.ask(Get {})).await.unwrap_err().code(), "wrong_state", "it lasts");
    world.handle().operator().act("frail", "flipped", Action::Release).await.unwrap();
    until("its task has run", || async { flipped.ask(Get {}).await == Ok(8) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_of_other_programs_are_migrated_or_left_alone() {
    let newer = || Runtime::builder().agent::<Newer>();
    let mut world = World::start(program()).await;
    for key in ["a", "b"] {
        soon(world.handle().agent::<Frail>(key).ask(Add { n: 7 })).await.unwrap();
    }
    world.end().await;
    world.start_again(newer()).await;
    let agent = world.handle().agent::<Newer>("a");
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 8);
    assert!(MIGRATIONS.load(SeqCst) >= 1);
    let state = world.handle().operator().state("frail", "a", None).await.unwrap();
    assert_eq!((state.schema_version, &state.state["extra"]), (2, &"migrated".into()));
    let before = (state.version, state.state.clone());
    drop(agent);
    world.end().await;

    // The older program again: what is newer is left alone, what it knows goes on.
    world.start_again(program()).await;
    let agent = world.handle().agent::<Frail>("a");
    for _ in 0..3 {
        let error = soon(agent.ask(Add { n: 1 })).await.unwrap_err();
        assert!(error.code() == "unavailable" && error.to_string().contains("upgrade"), "{error}");
    }
    let state = world.handle().operator().state("frail", "a", None).await.unwrap();
    assert_eq!((state.version, state.state), before, "nothing was written");
    assert_ne!(status(&world.handle(), "frail", "a").await, "quarantined");
    assert_eq!(soon(world.handle().agent::<Frail>("b").ask(Add { n: 1 })).await.unwrap(), 8);
    drop(agent);
    world.end().await;
    world.start_again(newer()).await;
    assert_eq!(soon(world.handle().agent::<Newer>("a").ask(Add { n: 1 })).await.unwrap(), 9);
}

/// Its message waits for the program that can take it: that costs no attempt, and no storm of tries.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_waits_for_the_program_that_knows_its_agents_state() {
    let newer = || Runtime::builder().agent::<Newer>();
    let mut world = World::start(newer()).await;
    soon(world.handle().agent::<Newer>("later").ask(Add { n: 7 })).await.unwrap();
    world.end().await;

    world.start_again(program()).await;
    let handle = world.handle();
    let task = soon(handle.agent::<Frail>("later").submit(Add { n: 1 })).await.unwrap();
    let first = task_in(&handle, task, "running").await;
    until("it is tried again", || async {
        let now = handle.operator().task(task).await.unwrap();
        now.state.name() == "running" && now.started_at != first.started_at
    })
    .await;
    let again = handle.operator().task(task).await.unwrap();
    assert_eq!((again.attempt, again.lost), (1, 0), "being turned away is no attempt");
    let pause = again.started_at.unwrap().duration_since(first.started_at.unwrap());
    assert!(pause.as_secs() >= 1, "tried again after {pause}");
    drop(handle);
    world.end().await;

    world.start_again(newer()).await;
    let done = task_in(&world.handle(), task, "succeeded").await;
    assert_eq!((done.attempt, done.lost), (1, 0));
    assert_eq!(soon(world.handle().agent::<Newer>("later").ask(Get {})).await.unwrap(), 8);
}

mod renamed {
    use super::*;

    #[derive(Default, Serialize, Deserialize)]
    struct Before {
        total: i64,
        note: String,
    }
    #[derive(Default, Serialize, Deserialize)]
    struct After {
        total: i64,
        #[serde(default)]
        remark: String,
    }
    macro_rules! ledger {
        ($agent:ident) => {
            impl Agent for $agent {
                const KIND: &'static str = "ledger";
                type Messages = Add;
            }
            impl Handler<Add> for $agent {
                async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<i64> {
                    self.total += add.n;
                    Ok(self.total)
                }
            }
        };
    }
    ledger!(Before);
    ledger!(After);

    #[tokio::test(flavor = "multi_thread")]
    async fn a_field_that_the_struct_does_not_have_quarantines() {
        let mut world = World::start(Runtime::builder().agent::<Before>()).await;
        soon(world.handle().agent::<Before>("a").ask(Add { n: 7 })).await.unwrap();
        world.end().await;
        world.start_again(Runtime::builder().agent::<After>()).await;
        let error = soon(world.handle().agent::<After>("a").ask(Add { n: 1 })).await.unwrap_err();
        assert!(error.code() == "wrong_state" && error.to_string().contains("note"), "{error}");
        let state = world.handle().operator().state("ledger", "a", None).await.unwrap();
        assert_eq!(state.state, serde_json::json!({"total": 7, "note": ""}));
    }
}
