//! Schedules: each nominal time once, on one node or several, whatever is lost or restarted.

use greenroom::{
    Builder, Handle, Invalid, Misfire, Overlap, ScheduleOptions, Target,
    model::schedule::{Origin, Schedule},
    prelude::*,
    runtime::{
        operator::{OperatorError, TaskQuery},
        views::{ScheduleRequest, ScheduleView},
    },
    store::Store,
};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::json;
use uuid::Uuid;

use crate::{
    faulty::Faults,
    postgres::Database,
    support::{World, soon, until},
};

/// Counts how often it was rung.
#[derive(Default, Serialize, Deserialize)]
struct Bell {
    rung: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Ring {
    times: u64,
}
impl Message for Ring {
    type Reply = u64;
    type Error = Never;
    const NAME: &'static str = "Ring";
    fn validate(&self) -> std::result::Result<(), Invalid> {
        if self.times > 0 { Ok(()) } else { Err(Invalid::at("/times", "never")) }
    }
}
impl Agent for Bell {
    const KIND: &'static str = "bell";
    type Messages = Ring;
}
impl Handler<Ring> for Bell {
    async fn handle(&mut self, ring: Ring, _: &Turn<Self>) -> Result<u64> {
        self.rung += ring.times;
        Ok(self.rung)
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Sweep {}
message!(Sweep -> ());

async fn sweep(_: Sweep, _: Call) -> Result<()> {
    Ok(())
}

fn bell() -> Target<Ring> {
    Target::agent::<Bell, _>("b")
}

fn program() -> Builder {
    Runtime::builder().agent::<Bell>().tool_fn("sweep", Effect::Pure, sweep)
}

/// Rings each second, and makes up for every second that it misses.
fn each_second() -> Builder {
    let options = ScheduleOptions::default().overlap(Overlap::Allow).misfire(Misfire::All);
    program().schedule_with("second", "* * * * * *", bell(), Ring { times: 1 }, options)
}

async fn seen(handle: &Handle, name: &str) -> Option<ScheduleView> {
    soon(handle.operator().schedule(name)).await.ok()
}

/// The nominal times of a schedule that have got tasks, in order: one for each task.
async fn fired(handle: &Handle, name: &str) -> Vec<Timestamp> {
    let query = TaskQuery { limit: Some(1_000), ..TaskQuery::default() };
    let tasks = Mutex::new(Vec::new());
    // a store on a crowded machine may not answer at once
    until("the tasks are told", || async {
        let page = handle.operator().tasks(&query).await;
        page.map(|page| *tasks.lock() = page.items).is_ok()
    })
    .await;
    let prefix = format!("schedule:{name}:");
    let of = |key: String| key.strip_prefix(&prefix).map(|at| at.parse::<Timestamp>().unwrap());
    let tasks = tasks.into_inner().into_iter();
    let mut fired: Vec<_> = tasks.filter_map(|task| of(task.idempotency_key?)).collect();
    fired.sort_unstable();
    fired
}

/// Waits until so many have been fired; each second must be there, and once.
async fn seconds(handle: &Handle, at_least: usize) -> Vec<Timestamp> {
    until("they are fired", || async { fired(handle, "second").await.len() >= at_least }).await;
    let fired = fired(handle, "second").await;
    let follows = |w: &[Timestamp]| w[1].duration_since(w[0]) == SignedDuration::from_secs(1);
    assert!(fired.windows(2).all(follows), "{fired:?}");
    fired
}

async fn rung(handle: &Handle) -> u64 {
    soon(handle.agent::<Bell>("b").ask(Ring { times: 1 })).await.unwrap() - 1
}

fn request(name: &str, cron: &str) -> ScheduleRequest {
    ScheduleRequest {
        name: name.into(),
        cron: cron.into(),
        target: "tool:sweep".into(),
        ..ScheduleRequest::default()
    }
}

/// In the middle of an upgrade, some nodes run a program that declares more, or less, than others'.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_stays_while_a_living_nodes_program_declares_it() {
    let database = Database::new();
    let node = || program().set("store.url", &database.url()).set("node.lease", "3s");
    let with = || node().schedule("weekly", "@weekly", Target::tool("sweep"), Sweep {});
    let mut new = World::start(with()).await;
    let made = seen(&new.handle(), "weekly").await.unwrap().created_at;
    let mut old = World::start(node()).await;
    let announced =
        || async { database.psql("SELECT count(*) FROM greenroom_nodes WHERE queues IS NULL") == "0" };
    until("both have told what they have", announced).await;
    old.end().await;
    old.start_again(node()).await;
    until("it has told it again", announced).await;
    old.end().await;
    assert_eq!(seen(&new.handle(), "weekly").await.map(|kept| kept.created_at), Some(made));
    old.start_again(node()).await;
    until("it has told it again", announced).await;
    new.end().await;
    until("nobody declares it any more", || async { seen(&old.handle(), "weekly").await.is_none() }).await;
    old.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_schedules_are_written_when_it_starts() {
    let first = || program().schedule("nightly", "0  3 * * *  Europe/Berlin", bell(), Ring { times: 1 });
    let weekly = first().schedule("weekly", "@weekly", Target::tool("sweep"), Sweep {});
    let mut world = World::start(weekly).await;
    let (handle, operator) = (world.handle(), world.handle().operator().clone());
    let nightly = seen(&handle, "nightly").await.unwrap();
    assert_eq!((nightly.cron.as_str(), nightly.origin), ("0 3 * * * Europe/Berlin", Origin::Program));
    assert_eq!((nightly.message.as_deref(), nightly.input.get()), (Some("Ring"), r#"{"times":1}"#));
    assert_eq!(nightly.upcoming.len(), 5);
    soon(operator.add_schedule(request("own", "@yearly"))).await.unwrap();
    let removed = soon(operator.remove_schedule("weekly")).await;
    assert!(matches!(removed, Err(OperatorError::Ask(AskError::WrongState(_)))), "the program has it");
    assert!(soon(operator.pause_schedule("nightly", true)).await.unwrap().next_at.is_none());
    world.end().await;

    world.start_again(first()).await;
    let handle = world.handle();
    let same = seen(&handle, "nightly").await.unwrap();
    assert!(same.paused && same.created_at == nightly.created_at, "a person holds it up");
    assert!(seen(&handle, "weekly").await.is_none(), "nobody declares it any more");
    assert_eq!(seen(&handle, "own").await.unwrap().origin, Origin::Operator);
    world.end().await;

    let changed = program().schedule("nightly", "0 4 * * *", bell(), Ring { times: 2 });
    world.start_again(changed.schedule("own", "@weekly", Target::tool("sweep"), Sweep {})).await;
    let handle = world.handle();
    let changed = seen(&handle, "nightly").await.unwrap();
    assert!(changed.paused && changed.created_at == nightly.created_at);
    assert_eq!((changed.cron.as_str(), changed.input.get()), ("0 4 * * *", r#"{"times":2}"#));
    let resumed = soon(handle.operator().pause_schedule("nightly", false)).await.unwrap();
    assert_eq!(resumed.next_at.unwrap().strftime("%H:%M").to_string(), "04:00");
    assert_eq!(seen(&handle, "own").await.unwrap().origin, Origin::Program, "it takes the name");
}

#[tokio::test]
async fn everything_that_is_wrong_with_schedules_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let once = Target::tool("sweep");
    let wrong = Runtime::builder()
        .tool_fn("sweep", Effect::Pure, sweep)
        .set("node.data_dir", &dir.path().to_string_lossy())
        .set("log.level", "critical")
        .schedule("a", "61 * * * *", once, Sweep {})
        .schedule("b", "0 0 30 2 *", Target::tool("sweep"), Sweep {})
        .schedule("c", "@daily", bell(), Ring { times: 0 })
        .schedule("d", "@daily", Target::tool("nobody"), Sweep {})
        .schedule("e", "@daily Europe/Nowhere", Target::tool("sweep"), Sweep {})
        .schedule("e", "@daily", Target::tool("sweep"), Sweep {})
        .schedule("f/g", "@daily", Target::tool("sweep"), Sweep {});
    let Err(error) = soon(wrong.start()).await else { panic!("it starts") };
    let said = error.to_string();
    for told in [
        "schedule `a`: `61 * * * *` cannot be read",
        "schedule `b`: `0 0 30 2 *` names a time that never comes",
        "schedule `c`: its target is of the kind `bell`",
        "schedule `c`: its input is invalid: /times: never",
        "schedule `d`: its target is the tool `nobody`",
        "schedule `e`: `Europe/Nowhere` is no time zone",
        "schedule `e`: it is declared twice",
        "schedule `f/g`:",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
}

#[tokio::test]
async fn an_input_that_its_tool_does_not_take_is_an_error_of_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    async fn ring(_: Ring, _: Call) -> Result<u64> {
        Ok(0)
    }
    let wrong = Runtime::builder()
        .tool_fn("ring", Effect::Pure, ring)
        .set("node.data_dir", &dir.path().to_string_lossy())
        .set("log.level", "critical")
        .schedule("a", "@daily", Target::tool("ring"), Sweep {});
    let Err(error) = soon(wrong.start()).await else { panic!("it starts") };
    assert!(error.to_string().contains("schedule `a`: its input is invalid"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_nominal_time_is_fired_once_across_restarts() {
    let mut world = World::start(each_second()).await;
    let first = seconds(&world.handle(), 2).await;
    world.end().await;
    world.start_again(each_second()).await;
    let all = seconds(&world.handle(), first.len() + 2).await;
    assert_eq!(all[..first.len()], first);
    let last = seen(&world.handle(), "second").await.unwrap();
    assert!(last.last_at.unwrap() >= all[all.len() - 1]);
    let asked = std::sync::atomic::AtomicU64::new(0);
    until("each has rung once", || async {
        // those that ring meanwhile are counted as well, and whoever asks rings too
        let before = fired(&world.handle(), "second").await.len();
        let heard = rung(&world.handle()).await - asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        heard >= before as u64 && heard <= fired(&world.handle(), "second").await.len() as u64
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_fire_nothing_twice() {
    let faults = Faults::default();
    let world = World::start(faults.under(each_second())).await;
    for n in 1..=4 {
        faults.lose_replies(2);
        seconds(&world.handle(), n).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_nominal_time_is_fired_once_by_two_nodes() {
    let database = Database::new();
    let node = || each_second().set("store.url", &database.url()).set("node.lease", "3s");
    let (mut first, mut second) = (World::start(node()).await, World::start(node()).await);
    let both = seconds(&second.handle(), 4).await;
    first.end().await;
    let one = seconds(&second.handle(), both.len() + 2).await;
    first.start_again(node()).await;
    second.end().await;
    seconds(&first.handle(), one.len() + 2).await;
    first.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_fires_what_another_one_has_added() {
    let database = Database::new();
    let node = || program().set("store.url", &database.url()).set("node.lease", "3s");
    let (mut first, mut second) = (World::start(node()).await, World::start(node()).await);
    soon(first.handle().operator().add_schedule(request("own", "* * * * * *"))).await.unwrap();
    first.end().await;
    let before = fired(&second.handle(), "own").await.len();
    until("the second goes on", || async { fired(&second.handle(), "own").await.len() > before + 1 }).await;
    second.end().await;
}

/// As a node finds it that was down, or whose clock was set forward.
async fn overdue(store: &dyn Store, name: &str, by: SignedDuration) -> Timestamp {
    let old = store.schedule(name).await.unwrap().unwrap();
    let next = old.next_at.unwrap() - by;
    let late = Schedule { next_at: Some(next), revision: Uuid::now_v7(), ..old.clone() };
    assert!(store.put_schedule(&late, Some(&old)).await.unwrap());
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_treated_as_the_schedule_says() {
    let faults = Faults::default();
    let with = |misfire| ScheduleOptions::default().misfire(misfire).overlap(Overlap::Allow);
    let mut program = program();
    for (name, misfire) in [("once", Misfire::Once), ("skip", Misfire::Skip), ("all", Misfire::All)] {
        // half a year away, so that nothing but what is missed is fired
        let month = if *Timestamp::now().strftime("%m").to_string() < *"07" { 12 } else { 6 };
        let cron = format!("*/10 * 28 {month} *");
        program = program.schedule_with(name, &cron, Target::tool("sweep"), Sweep {}, with(misfire));
    }
    let world = World::start(faults.under(program)).await;
    let handle = world.handle();
    let day = SignedDuration::from_hours(366 * 24);
    for name in ["once", "skip", "all"] {
        let next = seen(&handle, name).await.unwrap().next_at.unwrap();
        overdue(&**faults.store(), name, day).await;
        until("it has moved on", || async { seen(&handle, name).await.unwrap().next_at == Some(next) }).await;
        let fired = fired(&handle, name).await;
        let expected = match name {
            "once" => 1,
            "skip" => 0,
            _ => 100,
        };
        assert_eq!(fired.len(), expected, "{name}: {fired:?}");
        let late = fired
            .iter()
            .all(|at| *at < Timestamp::now() && *at >= next - day - SignedDuration::from_hours(24));
        assert!(late, "{name}: {fired:?}");
    }
    // an input is checked as for any task
    let odd = ScheduleRequest { input: Some(json!([1])), ..request("odd", "0 0 30 2 *") };
    let Err(OperatorError::Ask(AskError::Invalid(Invalid(told)))) = handle.operator().add_schedule(odd).await
    else {
        panic!("it is taken")
    };
    assert!(told.len() > 1 && told[0].0 == "/cron", "{told:?}");
}
