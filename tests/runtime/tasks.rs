//! Durable tasks: exactly once on an agent, to their end or visibly a dead letter.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures_util::future::join_all;
use greenroom::{
    prelude::*,
    runtime::{views::Action, views::TaskRequest},
};
use serde_json::json;

use crate::{
    faulty::Faults,
    support::{Gate, World, outcome, soon, status, task_in, until},
};

#[derive(Default, Serialize, Deserialize)]
struct Clerk {
    log: Vec<String>,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Write {
    line: String,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Read {}
/// Waits at the gate.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Block {}
/// Fails, or crashes, on its first attempts.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Stumble {
    attempts: u64,
    crash: bool,
}
/// Submits to the tool.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Order {
    works: Vec<Work>,
}
/// Submits a chain of writes to `to`, each after the one before, in reverse.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Chain {
    to: String,
    n: usize,
}
/// Submits one work, and another for after it.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Hope {
    first: Work,
    then: Work,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Later {
    ms: u64,
}
/// Calls the tool that takes effect once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct CallOnce {}
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Work {
    name: String,
    good: bool,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Fire {}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("bad work")]
struct BadWork;
message! {
    Write -> u64; Read -> Vec<String>; Block -> (); Stumble -> u64; Order -> (); Chain -> Vec<TaskId>;
    Later -> TaskId; Hope -> (); CallOnce -> (); Work -> u64 | BadWork; Fire -> ();
}

static STUMBLES: AtomicUsize = AtomicUsize::new(0);

impl Agent for Clerk {
    const KIND: &'static str = "clerk";
    type Messages =
        (Write, Read, Block, Stumble, Order, Chain, Later, Hope, CallOnce, Done<Work>, Joined<Work>);
    fn policy() -> Policy {
        Policy::default()
            .mailbox(16)
            .max_restarts(1_000, Duration::from_secs(60))
            .backoff(Duration::ZERO, Duration::ZERO)
    }
}
impl Handler<Write> for Clerk {
    async fn handle(&mut self, write: Write, _: &Turn<Self>) -> Result<u64> {
        self.log.push(write.line);
        Ok(self.log.len() as u64)
    }
}
impl Query<Read> for Clerk {
    async fn query(&self, _: Read, _: &Turn<Self>) -> Result<Vec<String>> {
        Ok(self.log.clone())
    }
}
impl Handler<Block> for Clerk {
    async fn handle(&mut self, _: Block, turn: &Turn<Self>) -> Result<()> {
        self.log.push("block".into());
        turn.resource::<Gate>().wait().await;
        Ok(())
    }
}
impl Handler<Stumble> for Clerk {
    async fn handle(&mut self, stumble: Stumble, _: &Turn<Self>) -> Result<u64> {
        self.log.push("stumble".into());
        let attempt = STUMBLES.fetch_add(1, SeqCst) as u64 + 1;
        if attempt <= stumble.attempts {
            assert!(!stumble.crash, "as told");
            bail!("attempt {attempt} fails");
        }
        Ok(attempt)
    }
}
impl Handler<Order> for Clerk {
    async fn handle(&mut self, order: Order, turn: &Turn<Self>) -> Result<()> {
        turn.tool::<Worker>().submit_all(order.works).max_attempts(2).notify_each().notify_joined();
        Ok(())
    }
}
impl Handler<Hope> for Clerk {
    async fn handle(&mut self, hope: Hope, turn: &Turn<Self>) -> Result<()> {
        let first = turn.tool::<Worker>().submit(hope.first).max_attempts(1).id();
        turn.tool::<Worker>().submit(hope.then).after(&[first]).notify();
        Ok(())
    }
}
impl Handler<Done<Work>> for Clerk {
    async fn handle(&mut self, done: Done<Work>, _: &Turn<Self>) -> Result<()> {
        self.log.push(match done.outcome {
            Outcome::Succeeded(n) => format!("{} {n}", done.input.name),
            Outcome::Refused(BadWork) => format!("{} refused", done.input.name),
            other => format!("{} {other:?}", done.input.name),
        });
        Ok(())
    }
}
impl Handler<Joined<Work>> for Clerk {
    async fn handle(&mut self, joined: Joined<Work>, _: &Turn<Self>) -> Result<()> {
        self.log.push(format!("joined {} {}", joined.succeeded, joined.failed));
        Ok(())
    }
}
impl Handler<Chain> for Clerk {
    async fn handle(&mut self, chain: Chain, turn: &Turn<Self>) -> Result<Vec<TaskId>> {
        let mut ids: Vec<TaskId> = Vec::new();
        for n in 0..chain.n {
            let task = turn.agent::<Clerk>(&chain.to).submit(Write { line: n.to_string() });
            // The higher priority must not let it overtake what it comes after.
            let task = task.priority(n as i16);
            ids.push(match ids.last() {
                Some(last) => task.after(&[*last]).id(),
                None => task.run_in(Duration::from_millis(50)).id(),
            });
        }
        Ok(ids)
    }
}
impl Handler<Later> for Clerk {
    async fn handle(&mut self, later: Later, turn: &Turn<Self>) -> Result<TaskId> {
        let task = turn.agent::<Clerk>(turn.key()).submit(Write { line: "later".into() });
        Ok(task.run_in(Duration::from_millis(later.ms)).id())
    }
}
impl Handler<CallOnce> for Clerk {
    async fn handle(&mut self, _: CallOnce, turn: &Turn<Self>) -> Result<()> {
        Ok(turn.tool::<Cannon>().call(Fire {}).await?)
    }
}

struct Worker(Gate);
impl Tool for Worker {
    const NAME: &'static str = "worker";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Work;
    async fn run(&self, work: Work, call: &Call) -> Result<u64> {
        self.0.note(format!("{} {}", work.name, call.idempotency_key()));
        match (work.name.as_str(), work.good) {
            ("block", _) => {
                self.0.wait().await;
                Ok(0)
            }
            ("crash", _) => panic!("as told"),
            (_, true) => Ok(work.name.len() as u64),
            (_, false) => Err(Work::refuse(BadWork)),
        }
    }
}
struct Cannon(Gate);
impl Tool for Cannon {
    const NAME: &'static str = "cannon";
    const EFFECT: Effect = Effect::Once;
    type Input = Fire;
    async fn run(&self, _: Fire, _: &Call) -> Result<()> {
        self.0.note("fired");
        self.0.wait().await;
        Ok(())
    }
}
/// Runs one at a time.
struct Narrow(Gate);
impl Tool for Narrow {
    const NAME: &'static str = "narrow";
    const EFFECT: Effect = Effect::Once;
    type Input = Work;
    fn limits(&self) -> greenroom::Limits {
        greenroom::Limits { concurrency: Some(1), ..Default::default() }
    }
    async fn run(&self, work: Work, _: &Call) -> Result<u64> {
        self.0.note(work.name);
        self.0.wait().await;
        Ok(1)
    }
}

fn program(gate: &Gate) -> greenroom::Builder {
    let (worker, cannon, narrow) = (Worker(gate.clone()), Cannon(gate.clone()), Narrow(gate.clone()));
    Runtime::builder().agent::<Clerk>().tool(worker).tool(cannon).tool(narrow).resource(gate.clone())
}

async fn world() -> (World, Gate) {
    let gate = Gate::default();
    (World::start(program(&gate)).await, gate)
}

async fn log(world: &World, key: &str) -> Vec<String> {
    soon(world.handle().agent::<Clerk>(key).ask(Read {})).await.unwrap()
}

fn write(line: impl ToString) -> Write {
    Write { line: line.to_string() }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_task_takes_effect_once_and_in_the_order_of_acceptance() {
    let (world, _) = world().await;
    let clerk = world.handle().agent::<Clerk>("a");
    let mut ids = Vec::new();
    for n in 0..300 {
        ids.push(soon(clerk.submit(write(n))).await.unwrap());
    }
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(outcome::<Write>(&world.handle(), id).await, Outcome::Succeeded(n as u64 + 1));
    }
    assert_eq!(log(&world, "a").await, (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_brings_back_each_outcome_and_one_sum() {
    let (world, _) = world().await;
    let clerk = world.handle().agent::<Clerk>("a");
    let mut works: Vec<_> = (0..40).map(|n| Work { name: format!("w{n}"), good: n % 4 != 0 }).collect();
    works.push(Work { name: "crash".into(), good: true });
    soon(clerk.ask(Order { works })).await.unwrap();
    until("all are back", || async { log(&world, "a").await.len() >= 42 }).await;
    let mut lines = log(&world, "a").await;
    assert_eq!(lines.iter().filter(|l| *l == "joined 30 11").count(), 1, "{lines:?}");
    assert!(lines.iter().any(|l| l.starts_with("crash Failed")), "{lines:?}");
    lines.retain(|l| !l.starts_with("joined") && !l.starts_with("crash"));
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 40);
    assert_eq!(lines.iter().filter(|l| l.ends_with("refused")).count(), 10);
    soon(clerk.ask(Order { works: vec![] })).await.unwrap();
    until("an empty batch ends too", || async { log(&world, "a").await.contains(&"joined 0 0".to_owned()) })
        .await;
}

/// More at once than a store forgets in one call, and sooner than the next clean-up comes.
#[tokio::test(flavor = "multi_thread")]
async fn all_tasks_that_ended_long_enough_ago_are_forgotten_together() {
    let (mut world, gate) = world().await;
    let works = (0..1_200).map(|n| Work { name: format!("w{n}"), good: true }).collect();
    soon(world.handle().agent::<Clerk>("a").ask(Order { works })).await.unwrap();
    // However slow the machine is, as long as there is progress.
    let mut back = 0;
    while back <= 1_200 {
        until("more are back", || async { log(&world, "a").await.len() > back }).await;
        back = log(&world, "a").await.len();
    }
    world.end().await;
    world.start_again(program(&gate).set("tasks.retention", "0s")).await;
    let left = async || soon(world.handle().operator().status()).await.tasks.values().sum::<u64>();
    let mut rest = u64::MAX;
    while rest > 0 {
        until("more are forgotten", || async { left().await < rest }).await;
        rest = left().await;
    }
}

/// The store ends it by itself, and somebody waits for it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_to_be_told_hears_of_a_task_that_never_began() {
    let (world, _) = world().await;
    let work = |name: &str, good| Work { name: name.into(), good };
    let hope = Hope { first: work("first", false), then: work("then", true) };
    soon(world.handle().agent::<Clerk>("a").ask(hope)).await.unwrap();
    until("it is told", || async { !log(&world, "a").await.is_empty() }).await;
    assert_eq!(log(&world, "a").await, ["then Cancelled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_task_is_tried_again_then_kept_as_a_dead_letter() {
    let (world, _) = world().await;
    let handle = world.handle();
    let clerk = handle.agent::<Clerk>("a");
    STUMBLES.store(0, SeqCst);
    let id = soon(clerk.submit(Stumble { attempts: 2, crash: true })).await.unwrap();
    assert_eq!(outcome::<Stumble>(&handle, id).await, Outcome::Succeeded(3));
    assert_eq!(log(&world, "a").await, ["stumble"], "the attempts that failed left nothing");
    assert_eq!(handle.operator().task(id).await.unwrap().attempt, 3);

    STUMBLES.store(0, SeqCst);
    let request = TaskRequest {
        target: "clerk/a".into(),
        message: Some("Stumble".into()),
        input: Some(json!({"attempts": 2, "crash": false})),
        max_attempts: Some(2),
        ..Default::default()
    };
    let (task, _) = handle.operator().submit(request).await.unwrap();
    let dead = task_in(&handle, task.id, "failed").await;
    assert_eq!((dead.attempt, dead.error.unwrap().code.as_str()), (2, "handler_failed"));
    // A person brings it back, and it succeeds.
    handle.operator().retry(task.id).await.unwrap();
    assert_eq!(outcome::<Stumble>(&handle, task.id).await, Outcome::Succeeded(3));
    assert_eq!(log(&world, "a").await, ["stumble", "stumble"]);
    assert_eq!(handle.operator().retry(task.id).await.unwrap_err().code(), "wrong_state");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_run_after_their_parents_and_not_before_their_time() {
    let (world, _) = world().await;
    let handle = world.handle();
    let clerk = handle.agent::<Clerk>("a");
    let ids = soon(clerk.ask(Chain { to: "b".into(), n: 12 })).await.unwrap();
    for id in &ids {
        assert!(matches!(outcome::<Write>(&handle, *id).await, Outcome::Succeeded(_)));
    }
    assert_eq!(log(&world, "b").await, (0..12).map(|n| n.to_string()).collect::<Vec<_>>());
    let began = std::time::Instant::now();
    let id = soon(clerk.ask(Later { ms: 300 })).await.unwrap();
    outcome::<Write>(&handle, id).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(295) && took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn urgent_tasks_overtake_what_waits() {
    let (world, gate) = world().await;
    let handle = world.handle();
    handle.operator().act("clerk", "a", Action::Pause).await.unwrap();
    let mut ids = Vec::new();
    for priority in [0, 5, -5, 5, 9] {
        let request = TaskRequest {
            target: "clerk/a".into(),
            message: Some("Write".into()),
            input: Some(json!({"line": priority.to_string()})),
            priority: Some(priority),
            ..Default::default()
        };
        ids.push(handle.operator().submit(request).await.unwrap().0.id);
    }
    for id in &ids {
        task_in(&handle, *id, "parked").await;
    }
    handle.operator().act("clerk", "a", Action::Resume).await.unwrap();
    for id in ids {
        outcome::<Write>(&handle, id).await;
    }
    assert_eq!(log(&world, "a").await, ["9", "5", "5", "0", "-5"]);
    drop(gate);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_wait_for_room_in_a_full_mailbox() {
    let (world, gate) = world().await;
    let clerk = world.handle().agent::<Clerk>("a");
    let block = soon(clerk.submit(Block {})).await.unwrap();
    gate.arrival().await;
    let mut ids = Vec::new();
    for n in 0..200 {
        ids.push(soon(clerk.submit(write(n))).await.unwrap());
    }
    // Others do not wait for it.
    let other = soon(world.handle().agent::<Clerk>("b").submit(write(1))).await.unwrap();
    outcome::<Write>(&world.handle(), other).await;
    // One of those that wait for room is cancelled at once.
    let cancelled = world.handle().operator().cancel(ids[100]).await.unwrap();
    assert_eq!(cancelled.state.name(), "cancelled");
    gate.open(1);
    outcome::<Block>(&world.handle(), block).await;
    for (n, id) in ids.iter().enumerate() {
        let ended = outcome::<Write>(&world.handle(), *id).await;
        assert_eq!(ended == Outcome::Cancelled, n == 100, "{n}: {ended:?}");
    }
    let mut expected: Vec<_> = (0..200).filter(|n| *n != 100).map(|n| n.to_string()).collect();
    expected.insert(0, "block".into());
    assert_eq!(log(&world, "a").await, expected);
}

/// Those that wait for room are tried again and again: however many mailboxes are full, by one timer.
#[tokio::test(flavor = "multi_thread")]
async fn several_full_mailboxes_hold_nobody_else_up() {
    let (world, gate) = world().await;
    let handle = world.handle();
    let mut ids = Vec::new();
    for key in ["a", "b", "c", "d"] {
        let clerk = handle.agent::<Clerk>(key);
        soon(clerk.submit(Block {})).await.unwrap();
        gate.arrival().await;
        for n in 0..40 {
            ids.push(soon(clerk.submit(write(n))).await.unwrap());
        }
    }
    // a second is fifty rounds
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let work = Work { name: "w".into(), good: true };
        let id = soon(handle.tool::<Worker>().submit(work)).await.unwrap();
        assert_eq!(outcome::<Work>(&handle, id).await, Outcome::Succeeded(1));
    }
    gate.open(4);
    for id in ids {
        assert!(matches!(outcome::<Write>(&handle, id).await, Outcome::Succeeded(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_brings_nothing_forward() {
    let (world, _) = world().await;
    let handle = world.handle();
    let request = TaskRequest {
        target: "clerk/a".into(),
        message: Some("Write".into()),
        input: Some(json!({"line": "tomorrow"})),
        run_in: Some("24h".into()),
        ..Default::default()
    };
    let id = handle.operator().submit(request).await.unwrap().0.id;
    task_in(&handle, id, "scheduled").await;
    handle.operator().act("clerk", "a", Action::Pause).await.unwrap();
    task_in(&handle, id, "parked").await;
    handle.operator().act("clerk", "a", Action::Resume).await.unwrap();
    task_in(&handle, id, "scheduled").await;
    let now = soon(handle.agent::<Clerk>("a").submit(write("now"))).await.unwrap();
    outcome::<Write>(&handle, now).await;
    assert_eq!(log(&world, "a").await, ["now"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_could_not_be_brought_back_at_once_come_by_themselves() {
    let (gate, faults) = (Gate::default(), Faults::default());
    let world = World::start(faults.under(program(&gate))).await;
    let handle = world.handle();
    handle.operator().act("clerk", "a", Action::Pause).await.unwrap();
    let id = soon(handle.agent::<Clerk>("a").submit(write("x"))).await.unwrap();
    task_in(&handle, id, "parked").await;
    faults.fail_parking(1);
    handle.operator().act("clerk", "a", Action::Resume).await.unwrap_err();
    assert_eq!(outcome::<Write>(&handle, id).await, Outcome::Succeeded(1));
}

/// The store ends them, generation by generation.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_after_a_failure_is_cancelled_down_to_the_last_generation() {
    let (world, gate) = world().await;
    let handle = world.handle();
    let operator = handle.operator();
    let submits = async |run_in: Option<&str>, after| {
        let request = TaskRequest {
            target: "tool:worker".into(),
            input: Some(json!({"name": "x", "good": true})),
            run_in: run_in.map(str::to_owned),
            after,
            ..Default::default()
        };
        soon(operator.submit(request)).await.unwrap().0.id
    };
    let root = submits(Some("1h"), vec![]).await;
    let mut last = root;
    for _ in 0..40 {
        last = submits(None, vec![last.to_string()]).await;
    }
    soon(operator.cancel(root)).await.unwrap();
    task_in(&handle, last, "cancelled").await;
    assert!(gate.notes.lock().is_empty());
}

/// What it did may have happened, and its end is in no store.
#[tokio::test(flavor = "multi_thread")]
async fn a_once_tool_that_ends_as_the_node_leaves_is_not_given_back() {
    let (gate, faults) = (Gate::default(), Faults::default());
    let mut world = World::start(faults.under(program(&gate))).await;
    let fired = soon(world.handle().tool::<Cannon>().submit(Fire {})).await.unwrap();
    gate.arrival().await;
    faults.stay(true);
    let meddle = async {
        soon(faults.is_leaving()).await;
        gate.open(1);
        // it is not given back however long this is
        let given_back = until("it is given back", || async { faults.given_back() > 0 });
        let _ = tokio::time::timeout(Duration::from_millis(500), given_back).await;
        faults.stay(false);
    };
    tokio::join!(world.end(), meddle);
    assert_eq!((faults.given_back(), gate.count("fired")), (0, 1));
    world.start_again(program(&gate)).await;
    task_in(&world.handle(), fired, "outcome_unknown").await;
    assert_eq!(gate.count("fired"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_once_tool_is_refused_in_a_turn_and_never_runs_twice() {
    let (mut world, gate) = world().await;
    let handle = world.handle();
    let error = soon(handle.agent::<Clerk>("a").ask(CallOnce {})).await.unwrap_err();
    assert!(error.to_string().contains("submit"), "{error}");
    assert_eq!(soon(handle.tool::<Cannon>().call(Fire {})).await.unwrap_err().code(), "wrong_state");
    // Cancelled while it runs: only its end tells what happened.
    let fired = soon(handle.tool::<Cannon>().submit(Fire {})).await.unwrap();
    gate.arrival().await;
    let cancelling = tokio::spawn({
        let operator = handle.operator().clone();
        async move { operator.cancel(fired).await }
    });
    until("the call was asked to end", || async {
        tokio::task::yield_now().await;
        handle.operator().task(fired).await.unwrap().state.name() == "running"
    })
    .await;
    gate.open(1);
    assert_eq!(outcome::<Fire>(&handle, fired).await, Outcome::Succeeded(()));
    let _ = soon(cancelling).await;
    // Interrupted by the end of the node: a person says what happened.
    let fired = soon(handle.tool::<Cannon>().submit(Fire {})).await.unwrap();
    gate.arrival().await;
    drop(handle);
    world.end().await;
    world.start_again(program(&gate)).await;
    task_in(&world.handle(), fired, "outcome_unknown").await;
    assert_eq!(gate.count("fired"), 2);
    world.handle().operator().retry(fired).await.unwrap();
    gate.arrival().await;
    gate.open(1);
    outcome::<Fire>(&world.handle(), fired).await;
}

/// It waits for its turn in the tool's own queue when it is cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_that_has_not_begun_never_begins() {
    let (world, gate) = world().await;
    let handle = world.handle();
    let narrow = handle.tool::<Narrow>();
    let first = soon(narrow.submit(Work { name: "first".into(), good: true })).await.unwrap();
    gate.arrival().await;
    // No more are claimed than the tool has room for.
    let second = soon(narrow.submit(Work { name: "second".into(), good: true })).await.unwrap();
    task_in(&handle, second, "ready").await;
    assert_eq!(handle.operator().cancel(second).await.unwrap().state.name(), "cancelled");
    gate.open(2);
    outcome::<Work>(&handle, first).await;
    let third = soon(narrow.submit(Work { name: "third".into(), good: true })).await.unwrap();
    outcome::<Work>(&handle, third).await;
    assert_eq!(*gate.notes.lock(), ["first", "third"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_cancelled_in_any_state_before_its_end() {
    let (world, gate) = world().await;
    let handle = world.handle();
    let operator = handle.operator();
    let clerk = handle.agent::<Clerk>("a");
    // scheduled, and one that comes after it
    let later = soon(clerk.ask(Later { ms: 3_600_000 })).await.unwrap();
    let request = TaskRequest {
        target: "clerk/a".into(),
        message: Some("Write".into()),
        input: Some(json!({"line": "child"})),
        after: vec![later.to_string()],
        ..Default::default()
    };
    let child = operator.submit(request).await.unwrap().0.id;
    assert_eq!(task_in(&handle, child, "blocked").await.state.name(), "blocked");
    assert_eq!(operator.cancel(later).await.unwrap().state.name(), "cancelled");
    task_in(&handle, child, "cancelled").await;
    // in the mailbox, behind a turn that lasts
    let block = soon(clerk.submit(Block {})).await.unwrap();
    gate.arrival().await;
    let waiting = soon(clerk.submit(write("never"))).await.unwrap();
    task_in(&handle, waiting, "running").await;
    until("it is in the mailbox", || async {
        operator.agent("clerk", "a").await.unwrap().mailbox.depth == 1
    })
    .await;
    assert_eq!(operator.cancel(waiting).await.unwrap().state.name(), "cancelled");
    // a turn that runs ends as it ends
    let cancelling = tokio::spawn({
        let operator = operator.clone();
        async move { operator.cancel(block).await }
    });
    gate.open(1);
    assert_eq!(outcome::<Block>(&handle, block).await, Outcome::Succeeded(()));
    let _ = soon(cancelling).await;
    // a tool that runs is dropped
    let work = soon(handle.tool::<Worker>().submit(Work { name: "block".into(), good: true })).await.unwrap();
    gate.arrival().await;
    assert_eq!(operator.cancel(work).await.unwrap().state.name(), "cancelled");
    assert_eq!(operator.cancel(block).await.unwrap_err().code(), "wrong_state");
    assert_eq!(log(&world, "a").await, ["block"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_stopped_agent_are_parked_and_run_when_it_is_back() {
    let (mut world, gate) = world().await;
    let clerk = world.handle().agent::<Clerk>("a");
    let block = soon(clerk.submit(Block {})).await.unwrap();
    gate.arrival().await;
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(soon(clerk.submit(write(n))).await.unwrap());
    }
    world.handle().operator().act("clerk", "a", Action::Stop).await.unwrap();
    ids.push(soon(clerk.submit(write(30))).await.unwrap());
    gate.open(1);
    assert_eq!(outcome::<Block>(&world.handle(), block).await, Outcome::Succeeded(()));
    for id in &ids {
        task_in(&world.handle(), *id, "parked").await;
    }
    drop(clerk);
    world.end().await;
    world.start_again(program(&gate)).await;
    assert_eq!(status(&world.handle(), "clerk", "a").await, "stopped");
    let error = soon(world.handle().agent::<Clerk>("a").ask(Read {})).await.unwrap_err();
    assert_eq!(error.code(), "wrong_state");
    world.handle().operator().act("clerk", "a", Action::Restart).await.unwrap();
    for id in ids {
        assert!(matches!(outcome::<Write>(&world.handle(), id).await, Outcome::Succeeded(_)));
    }
    let mut lines = log(&world, "a").await;
    assert_eq!(lines.remove(0), "block");
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 31);
}

/// Stop and restart, pause and resume, while tasks are on their way: none stays behind.
#[tokio::test(flavor = "multi_thread")]
async fn no_task_is_stranded_by_an_operator_who_changes_their_mind() {
    let (world, _) = world().await;
    let handle = world.handle();
    let operator = handle.operator();
    let mut ids = Vec::new();
    for round in 0..12 {
        for n in 0..25 {
            ids.push(soon(handle.agent::<Clerk>("a").submit(write(n))).await.unwrap());
        }
        let (down, up) =
            if round % 2 == 0 { (Action::Stop, Action::Restart) } else { (Action::Pause, Action::Resume) };
        operator.act("clerk", "a", down).await.unwrap();
        operator.act("clerk", "a", up).await.unwrap();
    }
    for id in ids {
        assert!(matches!(outcome::<Write>(&handle, id).await, Outcome::Succeeded(_)));
    }
    assert_eq!(log(&world, "a").await.len(), 300);
}

/// A paused agent holds no task in its mailbox: neither a shutdown nor others wait for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_agent_holds_up_neither_shutdown_nor_its_tasks_next_life() {
    let (mut world, gate) = world().await;
    world.handle().operator().act("clerk", "a", Action::Pause).await.unwrap();
    let clerk = world.handle().agent::<Clerk>("a");
    let ids = join_all((0..40).map(|n| clerk.submit(write(n))));
    let ids: Vec<TaskId> = soon(ids).await.into_iter().map(Result::unwrap).collect();
    let waiting = tokio::spawn(clerk.ask(Read {}).into_future());
    for id in &ids {
        task_in(&world.handle(), *id, "parked").await;
    }
    let began = std::time::Instant::now();
    world.end().await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(soon(waiting).await.unwrap().unwrap_err().code(), "unavailable");
    world.start_again(program(&gate)).await;
    world.handle().operator().act("clerk", "a", Action::Resume).await.unwrap();
    for id in ids {
        let ended = outcome::<Write>(&world.handle(), id).await;
        assert!(matches!(ended, Outcome::Succeeded(_)), "{ended:?}");
        assert_eq!(world.handle().operator().task(id).await.unwrap().lost, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_in_its_order_and_not_read_task_by_task() {
    let faults = Faults::default();
    let world = World::start(faults.under(program(&Gate::default()))).await;
    let operator = world.handle().operator().clone();
    soon(operator.pause_kind("clerk", true)).await.unwrap();
    let task = |n| json!({"target": format!("clerk/{n}"), "message": "Write", "input": {"line": ""}});
    let tasks = (0..2_500).map(|n| serde_json::from_value(task(n)).unwrap()).collect();
    let before = faults.reads();
    let (accepted, again) = soon(operator.submit_batch(tasks, None)).await.unwrap();
    assert!(!again);
    let reads = faults.reads() - before;
    assert!((1..10).contains(&reads), "{reads} reads");
    let targets: Vec<String> = accepted.iter().map(|task| task.target.to_string()).collect();
    assert_eq!(targets, (0..2_500).map(|n| format!("clerk/{n}")).collect::<Vec<_>>());
    assert!(accepted.iter().all(|task| task.state.name() == "ready"));
}
