//! The options of submitted tasks, through each door that code has; and idempotency keys in a turn's outbox.

use futures_util::future::join_all;
use greenroom::{
    Call, Limits, OnParentFailed, Tool, model::task::TaskView, prelude::*, runtime::views::TaskRequest,
};
use jiff::{Timestamp, ToSpan};
use serde_json::json;

use crate::{
    faulty::Faults,
    postgres::Database,
    support::{Gate, World, outcome, soon, task_in, until},
};

/// What is to be done under a key.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
struct Order {
    text: String,
    key: String,
    priority: i16,
}
/// The same, to the desk itself.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Echo {
    key: String,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Turns {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Everything {
    after: TaskId,
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Job {
    text: String,
}
message! { Order -> u64; Echo -> u64; Turns -> u64; Everything -> Vec<TaskId>; Job -> () }

#[derive(Default, Serialize, Deserialize)]
struct Desk {
    turns: u64,
}
impl Agent for Desk {
    const KIND: &'static str = "desk";
    type Messages = (Order, Echo, Turns, Everything, Job);
}
impl Handler<Order> for Desk {
    async fn handle(&mut self, order: Order, turn: &Turn<Self>) -> Result<u64> {
        self.turns += 1;
        let clerk = turn.agent::<Clerk>("c");
        let job = clerk.submit(Job { text: order.text.clone() });
        let job = job.idempotency_key(order.key).priority(order.priority);
        clerk.submit(Job { text: "then".into() }).after(&[job.id()]);
        Ok(self.turns)
    }
}
impl Handler<Echo> for Desk {
    async fn handle(&mut self, echo: Echo, turn: &Turn<Self>) -> Result<u64> {
        turn.agent::<Desk>(turn.key()).submit(Job { text: "echo".into() }).idempotency_key(echo.key);
        Ok(0)
    }
}
impl Handler<Job> for Desk {
    async fn handle(&mut self, _: Job, _: &Turn<Self>) -> Result<()> {
        Ok(())
    }
}
impl Query<Turns> for Desk {
    async fn query(&self, _: Turns, _: &Turn<Self>) -> Result<u64> {
        Ok(self.turns)
    }
}
impl Handler<Everything> for Desk {
    async fn handle(&mut self, all: Everything, turn: &Turn<Self>) -> Result<Vec<TaskId>> {
        let job = || Job { text: "job".into() };
        let one = turn.tool::<Bench>().submit(job());
        let one = one.run_in(HOUR).run_at(at()).priority(3).max_attempts(2).timeout(SECOND).tag("a").tag("b");
        let one = one.after(&[all.after]).on_parent_failed(OnParentFailed::Run).idempotency_key("one").id();
        let batch = turn.agent::<Clerk>("c").submit_all([job(), job()]);
        let batch = batch.run_in(HOUR).priority(-3).max_attempts(2).timeout(SECOND).tag("a").expires_in(HOUR);
        let batch = batch.after(&[one]);
        Ok(vec![one, batch.id()])
    }
}

/// Writes down what it does, and fails where that is to fail.
#[derive(Default, Serialize, Deserialize)]
struct Clerk {}
impl Agent for Clerk {
    const KIND: &'static str = "clerk";
    type Messages = Job;
    fn policy() -> Policy {
        Policy::default().max_attempts(1)
    }
}
impl Handler<Job> for Clerk {
    async fn handle(&mut self, job: Job, turn: &Turn<Self>) -> Result<()> {
        ensure!(job.text != "fails", "as told");
        turn.resource::<Gate>().note(job.text);
        Ok(())
    }
}

struct Bench;
impl Tool for Bench {
    const NAME: &'static str = "bench";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Job;
    fn limits(&self) -> Limits {
        Limits { max_attempts: Some(7), ..Limits::default() }
    }
    async fn run(&self, _: Job, _: &Call) -> Result<()> {
        Ok(())
    }
}

const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

/// Later than all tests.
fn at() -> Timestamp {
    "2100-01-01T00:00:00Z".parse().unwrap()
}

fn job(text: &str) -> Job {
    Job { text: text.into() }
}

/// Submits a task that another function may have submitted, and one of its own; fails once.
async fn submits(_: Order, call: Call) -> Result<u64> {
    let clerk = call.agent::<Clerk>("c");
    clerk.submit(job("job")).run_at(at()).priority(3).tag("a").idempotency_key("of two").await?;
    let other = clerk.submit(job("other")).idempotency_key("of two").await;
    ensure!(other == Err(AskError::Conflict), "{other:?}");
    call.submit::<Bench>(job("x")).run_in(HOUR).expires_at(at()).max_attempts(2).await?;
    ensure!(call.attempt() > 1, "once more");
    Ok(u64::from(call.attempt()))
}

fn program(gate: &Gate) -> greenroom::Builder {
    Runtime::builder()
        .agent::<Desk>()
        .agent::<Clerk>()
        .tool(Bench)
        .tool_fn("submits", Effect::Idempotent, submits)
        .resource(gate.clone())
}

impl World {
    async fn seen(&self, id: TaskId) -> TaskView {
        soon(self.handle().operator().task(id)).await.unwrap()
    }

    async fn all(&self) -> Vec<TaskView> {
        soon(self.handle().operator().tasks(&Default::default())).await.unwrap().items
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_as_its_submitter_in_code_chose() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let handle = world.handle();
    let (clerk, bench) = (handle.agent::<Clerk>("c"), handle.tool::<Bench>());
    let first = soon(clerk.submit(job("later")).run_in(HOUR)).await.unwrap();
    let chosen = bench.submit(job("x")).run_in(HOUR).run_at(at()).priority(3).max_attempts(2);
    let id = soon(chosen.timeout(SECOND).after(&[first]).tag("a").tag("b")).await.unwrap();
    let seen = world.seen(id).await;
    let told = |t: &TaskView| (t.state.name(), t.run_at, t.priority, t.max_attempts, t.tags.join(","));
    assert_eq!(told(&seen), ("blocked", Some(at()), 3, 2, "a,b".into()));
    // What is not chosen is as the target declares it.
    let seen = world.seen(first).await;
    assert_eq!((seen.state.name(), seen.priority, seen.max_attempts), ("scheduled", 0, 1));
    let in_an_hour = Timestamp::now() + 1.hour();
    assert!(seen.run_at.is_some_and(|at| at <= in_an_hour && at > in_an_hour - 1.minute()), "{seen:?}");
    assert_eq!(world.seen(soon(bench.submit(job("x"))).await.unwrap()).await.max_attempts, 7);
    // From a turn: one by one, and many.
    let ids = soon(handle.agent::<Desk>("d").ask(Everything { after: first })).await.unwrap();
    let seen = world.seen(ids[0]).await;
    assert_eq!(told(&seen), ("blocked", Some(at()), 3, 2, "a,b".into()));
    let many: Vec<_> = world.all().await.into_iter().filter(|task| task.batch == Some(ids[1])).collect();
    assert_eq!(many.len(), 2);
    for task in many {
        assert_eq!((task.state.name(), task.priority, task.max_attempts), ("blocked", -3, 2));
        assert_eq!((task.tags, task.waiting_for), (vec!["a".to_owned()], Some(1)));
        assert!(task.run_at.is_some_and(|at| at <= in_an_hour + 1.minute()));
    }
    for refused in [clerk.submit(job("x")).tag("x".repeat(257)), clerk.submit(job("x")).idempotency_key("")] {
        assert_eq!(soon(refused).await.unwrap_err().code(), "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_not_started_in_time_is_cancelled_and_a_failed_parent_is_survived_where_that_is_chosen()
{
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let clerk = world.handle().agent::<Clerk>("c");
    let late = soon(clerk.submit(job("late")).run_in(HOUR).expires_in(Duration::ZERO)).await.unwrap();
    task_in(&world.handle(), late, "cancelled").await;
    let parent = soon(clerk.submit(job("fails"))).await.unwrap();
    let child = || clerk.submit(job("child")).after(&[parent]);
    let runs = soon(child().on_parent_failed(OnParentFailed::Run)).await.unwrap();
    let falls = soon(child().on_parent_failed(OnParentFailed::Cancel)).await.unwrap();
    assert_eq!(outcome::<Job>(&world.handle(), runs).await, Outcome::Succeeded(()));
    assert_eq!(outcome::<Job>(&world.handle(), falls).await, Outcome::Cancelled);
    // An attempt has no longer than its submitter lets it.
    let limits = Limits { max_attempts: Some(1), ..Limits::default() };
    let hangs = |_: Job, _| async move { std::future::pending::<Result<()>>().await };
    let world = World::start(program(&gate).tool_fn_with("hangs", Effect::Pure, limits, hangs)).await;
    let request = TaskRequest {
        target: "tool:hangs".into(),
        input: Some(json!({"text": ""})),
        timeout: Some("10ms".into()),
        ..TaskRequest::default()
    };
    let id = soon(world.handle().operator().submit(request)).await.unwrap().0.id;
    assert_eq!(task_in(&world.handle(), id, "failed").await.error.unwrap().code, "timed_out");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_key_other_options_are_another_request_through_each_door() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let handle = world.handle();
    let submit = || handle.agent::<Clerk>("c").submit(job("x")).idempotency_key("k").run_at(at()).tag("a");
    let id = soon(submit()).await.unwrap();
    assert_eq!(soon(submit()).await, Ok(id));
    assert_eq!(soon(submit().priority(1)).await, Err(AskError::Conflict));
    assert_eq!(soon(submit().tag("b")).await, Err(AskError::Conflict));
    let request = TaskRequest {
        target: "clerk/c".into(),
        message: Some("Job".into()),
        input: Some(json!({"text": "x"})),
        idempotency_key: Some("k".into()),
        run_at: Some(at()),
        tags: vec!["a".into()],
        ..TaskRequest::default()
    };
    let (task, replayed) = soon(handle.operator().submit(request)).await.unwrap();
    assert_eq!((task.id, replayed), (id, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_function_submits_under_a_key_once_for_all_functions() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let request = || TaskRequest {
        target: "tool:submits".into(),
        input: Some(json!(Order::default())),
        ..Default::default()
    };
    for _ in 0..2 {
        let id = soon(world.handle().operator().submit(request())).await.unwrap().0.id;
        let ended = soon(world.handle().operator().wait(id, HOUR)).await.unwrap();
        assert_eq!(ended.result.unwrap().get(), "2");
    }
    let all = world.all().await;
    let of = |target: &str| all.iter().filter(|task| task.target.to_string() == target).collect::<Vec<_>>();
    let (jobs, benches) = (of("clerk/c"), of("tool:bench"));
    assert_eq!((jobs.len(), benches.len()), (1, 2), "{all:?}");
    assert_eq!((jobs[0].run_at, jobs[0].priority, jobs[0].tags.len()), (Some(at()), 3, 1));
    assert!(benches.iter().all(|task| task.max_attempts == 2 && task.state.name() == "scheduled"));
}

async fn on_both(test: impl AsyncFn(&mut World, &dyn Fn(&Gate) -> greenroom::Builder)) {
    test(&mut World::idle(), &|gate| program(gate)).await;
    let database = Database::new();
    let mut world = World::idle();
    test(&mut world, &|gate| program(gate).set("store.url", &database.url())).await;
    world.end().await;
}

fn order(text: &str, key: &str) -> Order {
    Order { text: text.into(), key: key.into(), priority: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_submits_under_a_key_once_and_fails_where_it_stands_for_another_request() {
    on_both(async |world, program| {
        let gate = Gate::default();
        world.start_again(program(&gate)).await;
        let desk = |world: &World| world.handle().agent::<Desk>("d");
        let all = (0..20).map(|_| desk(world).ask(order("x", "k")));
        let mut turns: Vec<u64> = soon(join_all(all)).await.into_iter().map(Result::unwrap).collect();
        turns.sort_unstable();
        assert_eq!(turns, (1..=20).collect::<Vec<_>>(), "the turns commit all the same");
        world.end().await;
        world.start_again(program(&gate)).await;
        assert_eq!(soon(desk(world).ask(order("x", "k"))).await, Ok(21));
        let others = [order("y", "k"), Order { priority: 1, ..order("x", "k") }];
        for other in others {
            let failed = soon(desk(world).ask(other)).await.unwrap_err();
            assert_eq!(failed.code(), "handler_failed");
            assert!(failed.to_string().contains("its key stands for another request"), "{failed}");
        }
        assert_eq!(soon(desk(world).ask(Turns {})).await, Ok(21), "they are undone");
        assert_eq!(soon(desk(world).ask(order("y", "l"))).await, Ok(22));
        let done = || async { gate.count("then") == 22 && gate.count("y") == 1 };
        until("what comes after it runs", done).await;
        assert_eq!(gate.count("x"), 1);
        // From beside it is the same key.
        let clerk = world.handle().agent::<Clerk>("c");
        assert_eq!(soon(clerk.submit(job("z")).idempotency_key("k")).await, Err(AskError::Conflict));
        let bad = soon(desk(world).ask(order("x", "a\nb"))).await.unwrap_err();
        assert!(bad.to_string().contains("/idempotency_key"), "{bad}");
    })
    .await;
}

/// The commit is refused, and the turn runs again: once, not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_whose_key_is_taken_while_it_commits_runs_again() {
    on_both(async |world, program| {
        let (gate, faults) = (Gate::default(), Faults::default());
        world.start_again(faults.under(program(&gate))).await;
        let desk = world.handle().agent::<Desk>("d");
        assert_eq!(soon(desk.ask(order("x", "k"))).await, Ok(1));
        faults.overlook_keys(1);
        assert_eq!(soon(desk.ask(order("x", "k"))).await, Ok(2));
        assert!(faults.sees_keys());
        faults.overlook_keys(1);
        let failed = soon(desk.ask(order("y", "k"))).await.unwrap_err();
        assert!(failed.to_string().contains("its key stands for another request"), "{failed}");
        assert_eq!(soon(desk.ask(order("z", "l"))).await, Ok(3));
        until("they have run", || async { gate.count("then") == 3 && gate.count("z") == 1 }).await;
        assert_eq!((gate.count("x"), gate.count("y")), (1, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_message_and_of_a_task_for_the_same_agent_are_one() {
    on_both(async |world, program| {
        world.start_again(program(&Gate::default())).await;
        let desk = world.handle().agent::<Desk>("d");
        let failed = soon(desk.ask(Echo { key: "k".into() }).idempotency_key("k")).await.unwrap_err();
        assert!(failed.to_string().contains("its key stands for another request"), "{failed}");
        assert_eq!(soon(desk.ask(Echo { key: "l".into() })).await, Ok(0));
        assert_eq!(soon(desk.ask(Turns {}).idempotency_key("l")).await, Ok(0), "a query needs none");
        let order = desk.ask(order("x", "m")).idempotency_key("l");
        assert!(soon(order).await.is_err(), "it stands for a task");
    })
    .await;
}
