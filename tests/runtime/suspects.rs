//! Tasks that were lost twice: they run alone, and still come to their end.

use std::time::Duration;

use greenroom::{
    Call, Effect, Limits, Tool,
    model::{
        id::Target,
        task::{Claimed, NewTask, Notify},
    },
    prelude::*,
    runtime::views::TaskRequest,
    store::{self, ClaimRequest, Member, Store, StoreOptions, Unit, Verdict},
};
use serde_json::{json, value::RawValue};
use uuid::Uuid;

use crate::{
    faulty::Faults,
    support::{Gate, World, outcome, soon, task_in, until},
};

#[derive(Default, Serialize, Deserialize)]
struct Novice {}
/// Fails once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Try {}
message!(Try -> ());

impl Agent for Novice {
    const KIND: &'static str = "novice";
    type Messages = Try;
}
impl Handler<Try> for Novice {
    async fn handle(&mut self, _: Try, turn: &Turn<Self>) -> Result<()> {
        let gate = turn.resource::<Gate>();
        gate.note("tried");
        if gate.count("tried") == 1 {
            bail!("not the first time");
        }
        Ok(())
    }
}

/// A boot that claims what is ready, and is not heard of again.
async fn claims_and_dies(store: &dyn Store) -> Vec<Claimed> {
    let (boot, instance) = (Uuid::now_v7(), Uuid::now_v7());
    let lease = Duration::from_secs(30);
    let member = Member { boot, instance, name: "dead".to_owned(), url: None, lease, max_lost: 3 };
    store.join(&member).await.unwrap();
    let request = ClaimRequest { agents: 9, tools: 9, ..ClaimRequest::default() };
    store.claim(boot, &request).await.unwrap()
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Fire {}
message!(Fire -> ());

struct Cannon(Gate);
impl Tool for Cannon {
    const NAME: &'static str = "cannon";
    const EFFECT: Effect = Effect::Once;
    type Input = Fire;
    async fn run(&self, _: Fire, _: &Call) -> Result<()> {
        self.0.note("fired");
        Ok(())
    }
}

/// The store of a world whose node does not run.
async fn store_of(world: &World) -> std::sync::Arc<dyn Store> {
    let url = format!("sqlite://{}", world.dir().join("greenroom.db").display());
    store::open(&url, &StoreOptions::default()).await.unwrap()
}

async fn submits(store: &dyn Store, target: Target, message: &str) -> TaskId {
    let task = NewTask::new(target, message, RawValue::from_string("{}".to_owned()).unwrap(), 5);
    let id = task.id;
    store.commit(Uuid::now_v7(), &[Unit { accepted: vec![task], ..Unit::default() }]).await.unwrap();
    id
}

/// Its node died while it ran: it may have fired.
#[tokio::test(flavor = "multi_thread")]
async fn cancelling_what_happens_once_and_was_lost_does_not_say_that_it_did_not_happen() {
    let gate = Gate::default();
    let program = || Runtime::builder().agent::<Novice>().resource(gate.clone()).tool(Cannon(gate.clone()));
    let mut world = World::start(program()).await;
    world.end().await;
    let store = store_of(&world).await;
    let cannon = || Target::Tool("cannon".into());
    // one while it runs, and one that waits since its tool is paused
    let flagged = submits(&*store, cannon(), "").await;
    assert_eq!(claims_and_dies(&*store).await.len(), 1);
    store.cancel(flagged).await.unwrap();
    store.pause("tool:cannon", true).await.unwrap();
    let waiting = submits(&*store, cannon(), "").await;
    store.pause("tool:cannon", false).await.unwrap();
    assert_eq!(claims_and_dies(&*store).await.len(), 1);
    store.pause("tool:cannon", true).await.unwrap();
    drop(store);
    world.start_again(program()).await;
    let handle = world.handle();
    task_in(&handle, flagged, "outcome_unknown").await;
    task_in(&handle, waiting, "ready").await;
    let operator = handle.operator();
    assert_eq!(operator.cancel(waiting).await.unwrap().state.name(), "outcome_unknown");
    assert_eq!(operator.cancel(waiting).await.unwrap().state.name(), "cancelled", "a person says so");
    assert_eq!(gate.count("fired"), 0);
}

/// Another node may have it, or this one's next version.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_for_what_this_node_does_not_have_waits_for_one_that_has_it() {
    let gate = Gate::default();
    let without = || Runtime::builder().resource(gate.clone());
    let with = || without().agent::<Novice>().tool(Cannon(gate.clone()));
    let mut world = World::start(with()).await;
    world.end().await;
    let store = store_of(&world).await;
    let fired = submits(&*store, Target::Tool("cannon".into()), "").await;
    let tried = submits(&*store, Target::agent("novice", "a"), "Try").await;
    drop(store);
    world.start_again(without().tool_fn("other", Effect::Pure, |_: Fire, _: Call| async { Ok(()) })).await;
    let handle = world.handle();
    let request =
        TaskRequest { target: "tool:other".to_owned(), input: Some(json!({})), ..TaskRequest::default() };
    let other = soon(handle.operator().submit(request)).await.unwrap().0.id;
    drop(handle);
    task_in(&world.handle(), other, "succeeded").await;
    for id in [fired, tried] {
        task_in(&world.handle(), id, "ready").await;
    }
    world.end().await;
    world.start_again(with()).await;
    task_in(&world.handle(), fired, "succeeded").await;
    assert_eq!(outcome::<Try>(&world.handle(), tried).await, Outcome::Succeeded(()));
}

/// Waits at the gate.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Dig {}
message!(Dig -> ());

struct Digger(Gate);
impl Tool for Digger {
    const NAME: &'static str = "dig";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Dig;
    async fn run(&self, _: Dig, _: &Call) -> Result<()> {
        self.0.wait().await;
        Ok(())
    }
}

/// It may yet end the process, and what runs beside it would be lost with it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_begins_while_a_suspect_runs() {
    let gate = Gate::default();
    let program = || Runtime::builder().tool(Digger(gate.clone())).tool(Cannon(gate.clone()));
    let mut world = World::start(program()).await;
    world.end().await;
    let store = store_of(&world).await;
    let dug = submits(&*store, Target::Tool("dig".into()), "").await;
    for _ in 0..2 {
        assert_eq!(claims_and_dies(&*store).await.len(), 1);
    }
    drop(store);
    world.start_again(program()).await;
    gate.arrival().await;
    let handle = world.handle();
    let submits = async |run_in: Option<&str>| {
        let request = TaskRequest {
            target: "tool:cannon".to_owned(),
            input: Some(json!({})),
            run_in: run_in.map(str::to_owned),
            ..TaskRequest::default()
        };
        soon(handle.operator().submit(request)).await.unwrap().0.id
    };
    let mut others = vec![submits(None).await];
    // promotions find no suspect that waits; after the second, what the first has claimed would run
    for _ in 0..3 {
        let later = submits(Some("1ms")).await;
        task_in(&handle, later, "ready").await;
        others.push(later);
    }
    for id in &others {
        assert_eq!(handle.operator().task(*id).await.unwrap().state.name(), "ready");
    }
    assert_eq!(gate.count("fired"), 0);
    gate.open(1);
    task_in(&handle, dug, "succeeded").await;
    for id in others {
        task_in(&handle, id, "succeeded").await;
    }
}

struct Kiln;
impl Tool for Kiln {
    const NAME: &'static str = "kiln";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Fire;
    fn limits(&self) -> Limits {
        Limits { max_restarts: Some((0, Duration::from_secs(600))), ..Limits::default() }
    }
    async fn run(&self, _: Fire, _: &Call) -> Result<()> {
        panic!("too hot")
    }
}

/// It waits until its tool is resumed, as one whose tool is paused; the store knows nothing of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_of_a_stopped_tool_holds_up_nobody() {
    let (gate, faults) = (Gate::default(), Faults::default());
    let program = || Runtime::builder().tool(Kiln).tool(Digger(gate.clone())).tool(Cannon(gate.clone()));
    let mut world = World::start(program()).await;
    world.end().await;
    let store = store_of(&world).await;
    let suspect = submits(&*store, Target::Tool("kiln".into()), "").await;
    for _ in 0..2 {
        assert_eq!(claims_and_dies(&*store).await.len(), 1);
    }
    store.pause("tool:kiln", true).await.unwrap();
    drop(store);
    world.start_again(faults.under(program())).await;
    let handle = world.handle();
    assert_eq!(soon(handle.tool::<Kiln>().call(Fire {})).await.unwrap_err().code(), "handler_crashed");
    assert_eq!(handle.operator().tool("kiln").await.unwrap().status, "stopped");
    let submits = async |tool: &str, run_in: Option<&str>| {
        let request = TaskRequest {
            target: format!("tool:{tool}"),
            input: Some(json!({})),
            run_in: run_in.map(str::to_owned),
            ..TaskRequest::default()
        };
        soon(handle.operator().submit(request)).await.unwrap().0.id
    };
    submits("dig", None).await;
    gate.arrival().await;
    faults.store().pause("tool:kiln", false).await.unwrap();
    // each is found by a promotion, which finds the suspect too
    for _ in 0..3 {
        let other = submits("cannon", Some("1ms")).await;
        task_in(&handle, other, "succeeded").await;
    }
    task_in(&handle, suspect, "ready").await;
    gate.open(1);
}

/// The next claim is under way while what the last one brought is handed over: that runs too.
#[tokio::test(flavor = "multi_thread")]
async fn suspects_are_asked_for_when_nothing_else_runs() {
    let (gate, faults) = (Gate::default(), Faults::default());
    let program = || Runtime::builder().agent::<Novice>().resource(gate.clone());
    let mut world = World::start(program()).await;
    world.end().await;
    let store = store_of(&world).await;
    let mut tried = Vec::new();
    for key in ["a", "b", "c"] {
        tried.push(submits(&*store, Target::agent("novice", key), "Try").await);
    }
    for _ in 0..2 {
        assert_eq!(claims_and_dies(&*store).await.len(), 3);
    }
    drop(store);
    world.start_again(faults.under(program())).await;
    for id in tried {
        assert_eq!(outcome::<Try>(&world.handle(), id).await, Outcome::Succeeded(()));
    }
    assert_eq!(faults.alone_beside_others(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_lost_twice_and_then_fails_is_tried_again() {
    let gate = Gate::default();
    let program = || Runtime::builder().agent::<Novice>().resource(gate.clone());
    let mut world = World::start(program()).await;
    world.end().await;
    let store = store_of(&world).await;
    let id = submits(&*store, Target::agent("novice", "a"), "Try").await;
    for _ in 0..2 {
        assert_eq!(claims_and_dies(store.as_ref()).await.len(), 1);
    }
    drop(store);
    world.start_again(program()).await;
    assert_eq!(outcome::<Try>(&world.handle(), id).await, Outcome::Succeeded(()));
    let ended = task_in(&world.handle(), id, "succeeded").await;
    assert_eq!((ended.attempt, ended.lost), (4, 2));
}

/// Nobody on this node can be told, so that what is counted are the ends.
#[tokio::test(flavor = "multi_thread")]
async fn doomed_tasks_whose_submitters_are_to_be_told_end_side_by_side() {
    const CHILDREN: usize = 200;
    let faults = Faults::default();
    let world = World::start(faults.under(Runtime::builder().agent::<Novice>())).await;
    let new = |after: &[TaskId]| {
        let input = RawValue::from_string("{}".to_owned()).unwrap();
        NewTask { after: after.to_vec(), ..NewTask::new(Target::agent("novice", "a"), "Nothing", input, 1) }
    };
    let parent = new(&[]);
    let notify = Some(Notify { target: Target::agent("nobody", "here"), message: "Done".into() });
    let child = |_| NewTask { notify: notify.clone(), ..new(&[parent.id]) };
    let accepted: Vec<NewTask> = (0..CHILDREN).map(child).chain([parent.clone()]).collect();
    let last = accepted[CHILDREN - 1].id;
    let family = Unit { accepted, ..Unit::default() };
    assert_eq!(faults.store().commit(Uuid::nil(), &[family]).await.unwrap(), [Verdict::Durable]);
    task_in(&world.handle(), parent.id, "failed").await;
    let before = faults.commits();
    task_in(&world.handle(), last, "cancelled").await;
    until("all have ended", || async { faults.store().doomed().await.unwrap().is_empty() }).await;
    let commits = faults.commits() - before;
    assert!(commits < CHILDREN / 2, "{commits} commits for the ends of {CHILDREN} tasks");
}
