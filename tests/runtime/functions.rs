//! Task functions: what they ask for happens once however often they run, and they wait for days without a slot.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use greenroom::{
    AskError, Call, Effect, Limits, NoSignal, Tool,
    model::{
        event::Level,
        task::{TaskView, TaskWait},
    },
    prelude::*,
    runtime::{operator::Resolution, views::TaskRequest},
};
use serde_json::{Value, json};

use crate::{
    postgres::Database,
    support::{Gate, World, soon, task_in, until},
};

#[derive(Default, Serialize, Deserialize)]
struct Ledger {
    entries: Vec<String>,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Enter {
    text: String,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Entries {}
message! { Enter -> u64 | Closed; Entries -> Vec<String> }

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("closed")]
struct Closed;

impl Agent for Ledger {
    const KIND: &'static str = "ledger";
    type Messages = (Enter, Entries);
}
impl Handler<Enter> for Ledger {
    async fn handle(&mut self, enter: Enter, _: &Turn<Self>) -> Result<u64> {
        if enter.text == "closed" {
            return Err(Enter::refuse(Closed));
        }
        self.entries.push(enter.text);
        Ok(self.entries.len() as u64)
    }
}
impl Query<Entries> for Ledger {
    async fn query(&self, _: Entries, _: &Turn<Self>) -> Result<Vec<String>> {
        Ok(self.entries.clone())
    }
}

/// What the functions of one test share with it.
#[derive(Clone, Default)]
struct Stage {
    gate: Gate,
    /// How many attempts of it fail at its end.
    fails: Arc<AtomicUsize>,
    /// A run was dropped before its end.
    dropped: Arc<AtomicBool>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Stamp {
    text: String,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Pay {
    cents: u64,
}
message! { Stamp -> usize; Pay -> u64 }

/// Tells how often it was used.
struct Stamper(Gate);
impl Tool for Stamper {
    const NAME: &'static str = "stamp";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Stamp;
    async fn run(&self, stamp: Stamp, call: &Call) -> Result<usize> {
        self.0.note(format!("stamp {} {}", stamp.text, call.idempotency_key()));
        self.0.note(format!("stamp {}", stamp.text));
        Ok(self.0.count(&format!("stamp {}", stamp.text)))
    }
}
/// Takes effect once; waits at the gate where it is to pay 0, and fails where it is to pay 1.
struct Payer(Gate);
impl Tool for Payer {
    const NAME: &'static str = "pay";
    const EFFECT: Effect = Effect::Once;
    type Input = Pay;
    async fn run(&self, pay: Pay, _: &Call) -> Result<u64> {
        self.0.note(format!("pay {}", pay.cents));
        if pay.cents == 0 {
            self.0.wait().await;
        }
        ensure!(pay.cents != 1 || self.0.count("pay 1") > 1, "the bank is closed");
        Ok(pay.cents)
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Work {
    #[serde(default)]
    say: String,
}
message! { Work -> Value }

async fn everything(work: Work, call: Call, stage: &Stage) -> Result<Value> {
    stage.gate.note("run");
    let ledger = call.agent::<Ledger>("l");
    let first = ledger.ask(Enter { text: work.say.clone() }).await?;
    let refused = ledger.ask(Enter { text: "closed".into() }).await;
    ensure!(matches!(refused, Err(AskError::Refused(Closed))), "{refused:?}");
    let (a, b) = tokio::join!(
        call.call::<Stamper>(Stamp { text: "a".into() }),
        call.call::<Stamper>(Stamp { text: "b".into() })
    );
    let again = call.call::<Stamper>(Stamp { text: "a".into() }).await?;
    let paid = call.call::<Payer>(Pay { cents: 5 }).await?;
    let child = ledger.submit(Enter { text: format!("{} child", work.say) }).await?;
    let tool_child = call.submit::<Stamper>(Stamp { text: "child".into() }).await?;
    ensure!(child != tool_child, "two tasks");
    let left = stage.fails.load(SeqCst);
    if left > 0 {
        stage.fails.store(left - 1, SeqCst);
        bail!("not yet");
    }
    Ok(json!([first, a?, b?, again, paid]))
}

async fn approval(work: Work, call: Call, stage: &Stage) -> Result<Value> {
    stage.gate.note("run");
    let entered = call.agent::<Ledger>("l").ask(Enter { text: work.say }).await?;
    call.progress(0.5, "asked");
    let (stamped, who) = tokio::join!(
        call.call::<Stamper>(Stamp { text: "asked".into() }),
        call.wait_for::<String>("approved")
    );
    let second: String = call.wait_for("approved").await?;
    Ok(json!([entered, stamped?, who?, second]))
}

fn tool<F>(
    stage: &Stage,
    run: impl Fn(Work, Call, Stage) -> F + Send + Sync + 'static,
) -> impl Fn(Work, Call) -> F + Send + Sync + 'static
where
    F: Future<Output = Result<Value>> + Send + 'static,
{
    let stage = stage.clone();
    move |work, call| run(work, call, stage.clone())
}

fn program(stage: &Stage) -> greenroom::Builder {
    let all = tool(stage, |work, call, stage| async move { everything(work, call, &stage).await });
    let approval = tool(stage, |work, call, stage| async move { approval(work, call, &stage).await });
    Runtime::builder()
        .agent::<Ledger>()
        .tool(Stamper(stage.gate.clone()))
        .tool(Payer(stage.gate.clone()))
        .tool_fn("all", Effect::Idempotent, all)
        .tool_fn("approval", Effect::Idempotent, approval)
        .set("supervision.backoff_min", "1ms")
}

impl World {
    async fn submits(&self, tool: &str, change: impl FnOnce(&mut TaskRequest)) -> TaskId {
        let mut request = TaskRequest {
            target: format!("tool:{tool}"),
            input: Some(json!({"say": "hello"})),
            ..TaskRequest::default()
        };
        change(&mut request);
        soon(self.handle().operator().submit(request)).await.unwrap().0.id
    }

    async fn ends(&self, id: TaskId) -> TaskView {
        let handle = self.handle();
        soon(handle.operator().wait(id, Duration::from_secs(30))).await.unwrap()
    }

    async fn entries(&self) -> Vec<String> {
        soon(self.handle().agent::<Ledger>("l").ask(Entries {})).await.unwrap()
    }

    async fn signals(&self, id: TaskId, name: &str, body: Value) -> TaskView {
        soon(self.handle().operator().signal(id, name, body, None)).await.unwrap()
    }
}

fn result(task: &TaskView) -> Value {
    let result = task.result.as_ref().unwrap_or_else(|| panic!("{task:?}"));
    serde_json::from_str(result.get()).unwrap()
}

async fn on_both(test: impl AsyncFn(&mut World, &dyn Fn(&Stage) -> greenroom::Builder)) {
    let on_sqlite = |stage: &Stage| program(stage);
    test(&mut World::idle(), &on_sqlite).await;
    let database = Database::new();
    let on_postgres = |stage: &Stage| program(stage).set("store.url", &database.url());
    let mut world = World::idle();
    test(&mut world, &on_postgres).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_function_asks_for_happens_once_however_often_it_runs() {
    on_both(async |world, program| {
        let stage = Stage::default();
        stage.fails.store(2, SeqCst);
        world.start_again(program(&stage)).await;
        let id = world.submits("all", |_| {}).await;
        let task = world.ends(id).await;
        assert_eq!(result(&task), json!([1, 1, 1, 2, 5]));
        assert_eq!((task.attempt, stage.gate.count("run")), (3, 3));
        let used = |what: &str| stage.gate.count(what);
        assert_eq!((used("stamp a"), used("stamp b"), used("pay 5")), (2, 1, 1));
        let handle = world.handle();
        until("its children have ended", || async { stage.gate.count("stamp child") == 1 }).await;
        until("its children have ended", || async { world.entries().await.len() == 2 }).await;
        assert_eq!(world.entries().await, ["hello", "hello child"]);
        let tasks = handle.operator().tasks(&Default::default()).await.unwrap().items;
        let parents: Vec<_> = tasks.iter().filter(|task| task.id != id).map(|task| task.parent).collect();
        assert_eq!(parents, [Some(id), Some(id)]);
        // Equal calls have keys of their own.
        let keys: std::collections::BTreeSet<String> =
            stage.gate.notes.lock().iter().filter(|note| note.starts_with("stamp a ")).cloned().collect();
        assert_eq!(keys.len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_waits_for_signals_across_restarts_and_holds_no_slot() {
    on_both(async |world, program| {
        let stage = Stage::default();
        let again = || program(&stage).set("tasks.slots", "1");
        world.start_again(again()).await;
        let id = world.submits("approval", |_| {}).await;
        let waits = task_in(&world.handle(), id, "waiting").await;
        assert_eq!(
            (waits.attempt, waits.node, waits.progress.unwrap()["text"].as_str()),
            (0, None, Some("asked"))
        );
        let approved = TaskWait { signal: Some("approved".into()), batch: None, until: None };
        assert_eq!(waits.waits, [approved]);
        // The one slot is free.
        let other = world.submits("stamp", |request| request.input = Some(json!({"text": "free"}))).await;
        assert_eq!(world.ends(other).await.state.name(), "succeeded");
        world.end().await;
        world.start_again(again()).await;
        world.signals(id, "approved", json!("Ada")).await;
        until("it waits again", || async { stage.gate.count("run") == 2 }).await;
        task_in(&world.handle(), id, "waiting").await;
        world.end().await;
        world.start_again(again()).await;
        assert_eq!(world.signals(id, "unknown", json!(1)).await.state.name(), "waiting");
        world.signals(id, "approved", json!("Bob")).await;
        let task = world.ends(id).await;
        assert_eq!(result(&task), json!([1, 1, "Ada", "Bob"]));
        assert_eq!((task.attempt, stage.gate.count("run"), task.waits), (1, 3, Vec::new()));
        assert_eq!((world.entries().await, stage.gate.count("stamp asked")), (vec!["hello".to_owned()], 1));
        let refused = world.handle().operator().signal(id, "approved", json!(1), None).await.unwrap_err();
        assert_eq!(refused.code(), "wrong_state");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_that_came_before_are_taken_and_the_same_key_is_one_signal() {
    let stage = Stage::default();
    let mut world = World::idle();
    world.start_again(program(&stage)).await;
    let id = world.submits("approval", |request| request.run_in = Some("1h".into())).await;
    let operator = world.handle().operator().clone();
    for (body, key) in [("Ada", Some("k")), ("Ada", Some("k")), ("Bob", None)] {
        soon(operator.signal(id, "approved", json!(body), key)).await.unwrap();
    }
    let events = soon(operator.history(id)).await.unwrap();
    assert_eq!(events.iter().filter(|event| event.event == "signalled").count(), 2);
    soon(operator.cancel(id)).await.unwrap();
    soon(operator.retry(id)).await.unwrap();
    let task = world.ends(id).await;
    assert_eq!(result(&task), json!([1, 1, "Ada", "Bob"]));
    assert_eq!(stage.gate.count("run"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_has_its_end_goes_on_without_the_signal_and_stays_so() {
    let stage = Stage::default();
    stage.fails.store(1, SeqCst);
    let late = tool(&stage, |_, call, stage| async move {
        let error = match call.wait_for::<String>("go").timeout(Duration::from_millis(100)).await {
            Ok(text) => bail!("it came: {text}"),
            Err(e) => e.downcast::<NoSignal>()?,
        };
        if stage.fails.swap(0, SeqCst) > 0 {
            stage.gate.wait().await;
            bail!("once more");
        }
        Ok(json!([error.name, call.wait_for::<String>("go").await?]))
    });
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("late", Effect::Pure, late)).await;
    let id = world.submits("late", |_| {}).await;
    stage.gate.arrival().await;
    // The wait is over: this one is for the next.
    world.signals(id, "go", json!("late")).await;
    stage.gate.open(1);
    assert_eq!(result(&world.ends(id).await), json!(["go", "late"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_by_the_end_of_its_wait_is_not_tried_again() {
    let stage = Stage::default();
    let late = tool(&stage, |_, call, _| async move {
        call.wait_for::<Value>("go").timeout(Duration::from_millis(50)).await.context("waiting")
    });
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("late", Effect::Pure, late)).await;
    let id = world.submits("late", |_| {}).await;
    let task = world.ends(id).await;
    assert_eq!((task.state.name(), task.attempt), ("failed", 1));
    assert_eq!(task.error.unwrap().chain, ["no signal `go` came in time"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_that_happens_once_and_was_interrupted_waits_for_a_person() {
    on_both(async |world, program| {
        let stage = Stage::default();
        let paying = || {
            tool(&stage, |_, call, _| async move { Ok(json!(call.call::<Payer>(Pay { cents: 0 }).await?)) })
        };
        let again = || program(&stage).tool_fn("paying", Effect::Idempotent, paying());
        world.start_again(again()).await;
        let mut ids = Vec::new();
        for _ in 0..2 {
            ids.push(world.submits("paying", |request| request.timeout = Some("300ms".into())).await);
        }
        for id in &ids {
            assert_eq!(world.ends(*id).await.state.name(), "outcome_unknown");
        }
        assert_eq!(stage.gate.count("pay 0"), 2, "it was not paid again");
        let operator = world.handle().operator().clone();
        let task = soon(operator.resolve(ids[0], Resolution::Succeeded(json!(0)))).await.unwrap();
        assert_eq!((task.state.name(), result(&task)), ("succeeded", json!(0)));
        let refused = soon(operator.resolve(ids[0], Resolution::Failed("no".into()))).await.unwrap_err();
        assert_eq!(refused.code(), "wrong_state");
        // A person says that it may be done again.
        stage.gate.open(9);
        soon(operator.retry(ids[1])).await.unwrap();
        assert_eq!(result(&world.ends(ids[1]).await), json!(0));
        assert_eq!(stage.gate.count("pay 0"), 3);
    })
    .await;
}

/// Whatever stops the function, nobody may take the effect for not happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_stopped_in_the_middle_of_what_happens_once_waits_for_a_person() {
    let stage = Stage::default();
    let paying = tool(&stage, |work, call, stage| async move {
        let paid = call.call::<Payer>(Pay { cents: 0 });
        match &*work.say {
            "gives up" => {
                tokio::select! {
                    _ = paid => {}
                    () = stage.gate.arrival() => {}
                }
                bail!("it takes too long")
            }
            _ => Ok(json!(paid.await?)),
        }
    });
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("paying", Effect::Idempotent, paying)).await;
    let handle = world.handle();
    let operator = handle.operator();
    let last = |request: &mut TaskRequest| request.max_attempts = Some(1);
    // cancelled
    let id = world.submits("paying", |_| {}).await;
    stage.gate.arrival().await;
    soon(operator.cancel(id)).await.unwrap();
    task_in(&handle, id, "outcome_unknown").await;
    // out of time in its last attempt
    let id = world
        .submits("paying", |request| {
            last(request);
            request.timeout = Some("200ms".into());
        })
        .await;
    assert_eq!(world.ends(id).await.state.name(), "outcome_unknown");
    stage.gate.arrival().await;
    // by its own error
    let id = world
        .submits("paying", |request| {
            last(request);
            request.input = Some(json!({"say": "gives up"}));
        })
        .await;
    assert_eq!(world.ends(id).await.state.name(), "outcome_unknown");
    assert_eq!(stage.gate.count("pay 0"), 3);
    // A person who does not mind may still end it.
    assert_eq!(soon(operator.cancel(id)).await.unwrap().state.name(), "cancelled");
}

/// It was in the middle of the effect when its node went down, and is cancelled in its next run, before it comes there.
#[tokio::test(flavor = "multi_thread")]
async fn an_effect_of_an_earlier_attempt_is_not_taken_for_undone_by_a_cancellation() {
    let stage = Stage::default();
    let paying = || {
        tool(&stage, |_, call, stage| async move {
            stage.gate.note("run");
            if stage.gate.count("run") > 1 {
                std::future::pending::<()>().await;
            }
            Ok(json!(call.call::<Payer>(Pay { cents: 0 }).await?))
        })
    };
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("paying", Effect::Idempotent, paying())).await;
    let id = world.submits("paying", |_| {}).await;
    stage.gate.arrival().await;
    world.end().await;
    world.start_again(program(&stage).tool_fn("paying", Effect::Idempotent, paying())).await;
    until("it runs again", || async { stage.gate.count("run") == 2 }).await;
    soon(world.handle().operator().cancel(id)).await.unwrap();
    task_in(&world.handle(), id, "outcome_unknown").await;
}

/// Its effect was seen to end: nothing is unknown of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_function_that_comes_to_a_wait_is_cancelled() {
    let stage = Stage::default();
    let paying = tool(&stage, |_, call, _| async move {
        call.call::<Payer>(Pay { cents: 0 }).await?;
        call.wait_for::<Value>("never").await
    });
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("paying", Effect::Idempotent, paying)).await;
    let id = world.submits("paying", |_| {}).await;
    stage.gate.arrival().await;
    let operator = world.handle().operator().clone();
    let cancelling = tokio::spawn(async move { operator.cancel(id).await });
    until("it is asked to end", || async {
        let history = world.handle().operator().history(id).await.unwrap();
        history.iter().any(|line| line.event == "cancel_requested")
    })
    .await;
    stage.gate.open(1);
    soon(cancelling).await.unwrap().unwrap();
    task_in(&world.handle(), id, "cancelled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_function_whose_effect_came_to_its_end_is_cancelled() {
    let stage = Stage::default();
    let paying = tool(&stage, |_, call, stage| async move {
        call.call::<Payer>(Pay { cents: 0 }).await?;
        stage.gate.note("paid");
        std::future::pending().await
    });
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("paying", Effect::Idempotent, paying)).await;
    let id = world.submits("paying", |_| {}).await;
    stage.gate.arrival().await;
    let operator = world.handle().operator().clone();
    stage.gate.open(1);
    until("it is paid", || async { stage.gate.count("paid") == 1 }).await;
    soon(operator.cancel(id)).await.unwrap();
    task_in(&world.handle(), id, "cancelled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_that_happens_once_and_failed_is_tried_again() {
    let stage = Stage::default();
    let paying =
        tool(&stage, |_, call, _| async move { Ok(json!(call.call::<Payer>(Pay { cents: 1 }).await?)) });
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("paying", Effect::Idempotent, paying)).await;
    let id = world.submits("paying", |_| {}).await;
    let task = world.ends(id).await;
    assert_eq!((result(&task), task.attempt), (json!(1), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_that_asks_for_something_else_stops() {
    let stage = Stage::default();
    let fickle = tool(&stage, |_, call, stage| async move {
        stage.gate.note("run");
        let text = format!("at run {}", stage.gate.count("run"));
        call.call::<Stamper>(Stamp { text }).await?;
        bail!("not yet");
    });
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("fickle", Effect::Idempotent, fickle)).await;
    let id = world.submits("fickle", |_| {}).await;
    let task = world.ends(id).await;
    let error = task.error.unwrap();
    assert_eq!((&*error.code, task.attempt), ("diverged", 2));
    assert!(error.message.contains("call 1 to tool:stamp had another input"), "{}", error.message);
    assert_eq!(stage.gate.count("stamp at run 2"), 0);
}

/// How a task came to its end whose two runs go as told.
async fn two_runs<F>(run: impl Fn(usize, Call, Stage) -> F + Send + Sync + 'static) -> (TaskView, Stage)
where
    F: Future<Output = Result<Value>> + Send + 'static,
{
    let stage = Stage::default();
    let function = tool(&stage, move |_, call, stage| {
        stage.gate.note("run");
        run(stage.gate.count("run"), call, stage)
    });
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("function", Effect::Idempotent, function)).await;
    let id = world.submits("function", |_| {}).await;
    let task = world.ends(id).await;
    world.end().await;
    (task, stage)
}

async fn stamps(call: &Call, text: &str) -> Result<usize> {
    Ok(call.call::<Stamper>(Stamp { text: text.into() }).await?)
}

async fn enters(call: &Call, text: &str) -> Result<u64> {
    Ok(call.agent::<Ledger>("l").ask(Enter { text: text.into() }).await?)
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Fill {
    n: usize,
}
message! { Fill -> String }

/// Answers with 8 MiB.
struct Bulk;
impl Tool for Bulk {
    const NAME: &'static str = "bulk";
    const EFFECT: Effect = Effect::Pure;
    type Input = Fill;
    async fn run(&self, _: Fill, _: &Call) -> Result<String> {
        Ok("x".repeat(8 << 20))
    }
}

/// Each of its runs would have to read it all.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_which_too_much_would_be_recorded_fails_for_good() {
    let stage = Stage::default();
    let endless = tool(&stage, |_, call, stage| async move {
        for n in 0.. {
            call.call::<Bulk>(Fill { n }).await?;
            stage.gate.note("filled");
        }
        Ok(Value::Null)
    });
    let mut world = World::idle();
    world.start_again(program(&stage).tool(Bulk).tool_fn("endless", Effect::Idempotent, endless)).await;
    let id = world.submits("endless", |_| {}).await;
    let task = world.ends(id).await;
    let error = task.error.unwrap();
    assert_eq!((&*error.code, task.attempt), ("too_large", 1));
    assert!(error.message.contains("more than 64 MiB are recorded of it"), "{}", error.message);
    assert_eq!(stage.gate.count("filled"), 8);
}

/// What it had begun may have happened, whatever it is stopped for.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_stopped_beside_an_effect_that_happens_once_waits_for_a_person() {
    let stage = Stage::default();
    let strays = tool(&stage, |_, call, stage| async move {
        stage.gate.note("run");
        if stage.gate.count("run") == 1 {
            stamps(&call, "a").await?;
            bail!("not yet");
        }
        tokio::select! {
            paid = call.call::<Payer>(Pay { cents: 0 }) => { paid?; }
            () = stage.gate.arrival() => {}
        }
        Ok(json!(stamps(&call, "b").await?))
    });
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("strays", Effect::Idempotent, strays)).await;
    let id = world.submits("strays", |_| {}).await;
    task_in(&world.handle(), id, "outcome_unknown").await;
    assert_eq!((stage.gate.count("pay 0"), stage.gate.count("stamp b")), (1, 0));
}

/// Whichever target it turns to in its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_that_ends_without_what_was_recorded_stops() {
    let other = async |run: usize, call: &Call| match run {
        1 => enters(call, "a").await.and_then(|_| bail!("not yet")),
        _ => stamps(call, "b").await,
    };
    let nothing = async |run: usize, call: &Call| match run {
        1 => enters(call, "a").await.and_then(|_| bail!("not yet")),
        _ => Ok(0),
    };
    let others = two_runs(move |run, call, _| async move { Ok(json!(other(run, &call).await?)) }).await;
    let nothings = two_runs(move |run, call, _| async move { Ok(json!(nothing(run, &call).await?)) }).await;
    for (task, _) in [others, nothings] {
        let error = task.error.unwrap();
        assert_eq!((&*error.code, task.attempt), ("diverged", 2));
        assert!(error.message.contains("without ledger/l Enter, which"), "{}", error.message);
    }
}

/// Its attempts are counted from 0 again, as if it had never run.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_brought_back_and_asks_for_nothing_stops() {
    on_both(async |world, program| {
        let stage = Stage::default();
        let forgets = tool(&stage, |work, call, stage| async move {
            stage.gate.note("run");
            if stage.gate.count("run") > 1 {
                return Ok(Value::Null);
            }
            enters(&call, &work.say).await?;
            bail!("not yet")
        });
        world.start_again(program(&stage).tool_fn("forgets", Effect::Idempotent, forgets)).await;
        let id = world.submits("forgets", |request| request.max_attempts = Some(1)).await;
        assert_eq!(world.ends(id).await.error.unwrap().code, "handler_failed");
        let operator = world.handle().operator().clone();
        soon(operator.retry(id)).await.unwrap();
        let task = world.ends(id).await;
        let error = task.error.unwrap_or_else(|| panic!("it has forgotten what it had done"));
        assert_eq!((&*error.code, task.attempt, stage.gate.count("run")), ("diverged", 1, 2));
    })
    .await;
}

/// Its attempt is not counted, as if it had not begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_a_shutdown_broke_off_does_not_expire_and_is_known_to_have_begun() {
    on_both(async |world, program| {
        let stage = Stage::default();
        let forgets = || {
            tool(&stage, |work, call, stage| async move {
                stage.gate.note("run");
                if stage.gate.count("run") == 1 {
                    enters(&call, &work.say).await?;
                }
                stage.gate.wait().await;
                Ok(Value::Null)
            })
        };
        let again = || program(&stage).tool_fn("forgets", Effect::Idempotent, forgets());
        world.start_again(again()).await;
        let id = world.submits("forgets", |request| request.expires_in = Some("1h".into())).await;
        stage.gate.arrival().await;
        assert!(soon(world.handle().operator().task(id)).await.unwrap().expires_at.is_some());
        world.end().await;
        world.start_again(again()).await;
        stage.gate.arrival().await;
        assert_eq!(soon(world.handle().operator().task(id)).await.unwrap().expires_at, None);
        stage.gate.open(1);
        let task = world.ends(id).await;
        let error = task.error.unwrap_or_else(|| panic!("it has forgotten what it had done"));
        assert_eq!((&*error.code, task.attempt, task.lost, stage.gate.count("run")), ("diverged", 1, 0, 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_may_do_without_what_came_after_a_call_that_failed_or_was_left() {
    // The first is down: it turns to the second.
    let falls_back = async |run: usize, call: &Call, stage: &Stage| {
        if run == 1 {
            let late = call.call::<Stamper>(Stamp { text: "x".into() }).timeout(Duration::ZERO).await;
            ensure!(late.is_err(), "in no time");
            stamps(call, "second").await?;
            bail!("not yet");
        }
        stage.gate.note("first");
        stamps(call, "x").await
    };
    let (task, stage) =
        two_runs(move |run, call, stage| async move { Ok(json!(falls_back(run, &call, &stage).await?)) })
            .await;
    assert_eq!((task.state.name(), stage.gate.count("first")), ("succeeded", 1), "{task:?}");
    // What is left for something else is not waited for, and its successor may be another.
    let leaves = async |run: usize, call: &Call| {
        if run == 1 {
            let never = call.wait_for::<Value>("never");
            tokio::select! {
                biased;
                _ = never => bail!("it came"),
                entered = enters(call, "a") => drop(entered?),
            }
            stamps(call, "b").await?;
            bail!("not yet");
        }
        Ok(0)
    };
    let (task, stage) =
        two_runs(move |run, call, _| async move { Ok(json!(leaves(run, &call).await?)) }).await;
    assert_eq!((task.state.name(), stage.gate.count("stamp b")), ("succeeded", 1), "{task:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beside_each_other_may_be_recorded_in_any_order() {
    let beside = async |run: usize, call: &Call, stage: &Stage| {
        let slow = async {
            if run > 1 {
                stamps(call, "slow").await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let quick = async {
            enters(call, "quick").await?;
            stage.gate.note("quick");
            // the other was under way when the run ended
            ensure!(run > 1, "not yet");
            Ok(())
        };
        let (slow, quick) = tokio::join!(slow, quick);
        slow.and(quick)
    };
    let (task, stage) =
        two_runs(move |run, call, stage| async move { Ok(json!(beside(run, &call, &stage).await?)) }).await;
    assert_eq!((task.state.name(), stage.gate.count("stamp slow")), ("succeeded", 1), "{task:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_says_of_itself_is_seen_while_it_runs_and_afterwards() {
    let stage = Stage::default();
    let talks = tool(&stage, |_, call, stage| async move {
        call.progress(0.25, "a quarter");
        call.partial(&json!({"rows": 1}))?;
        call.log(Level::Warn, "one");
        stage.gate.wait().await;
        call.progress(1.0, "done");
        call.log(Level::Info, "two");
        Ok(Value::Null)
    });
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("talks", Effect::Pure, talks)).await;
    let id = world.submits("talks", |_| {}).await;
    stage.gate.arrival().await;
    let operator = world.handle().operator().clone();
    let progress = soon(operator.task(id)).await.unwrap().progress.unwrap();
    assert_eq!(progress, json!({"fraction": 0.25, "text": "a quarter", "partial": {"rows": 1}}));
    let lines = async |cursor: Option<&str>| operator.task_logs(id, cursor, Some(1)).await.unwrap();
    until("it is written down", || async { !lines(None).await.items.is_empty() }).await;
    stage.gate.open(1);
    world.ends(id).await;
    let first = lines(None).await;
    assert_eq!((&*first.items[0].text, first.items[0].level), ("one", Level::Warn));
    let after = first.next_cursor.unwrap();
    assert_eq!(lines(Some(&after)).await.items[0].text, "two");
    let progress = soon(operator.task(id)).await.unwrap().progress.unwrap();
    assert_eq!((progress["text"].as_str(), progress["partial"]["rows"].as_u64()), (Some("done"), Some(1)));
}

/// They were written down up to half a second after the end, when whoever had waited for it had gone.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_task_wrote_is_there_when_it_has_ended() {
    let stage = Stage::default();
    let talks = tool(&stage, |_, call, _| async move {
        (0..900).for_each(|n| call.log(Level::Info, format!("line {n}")));
        Ok(Value::Null)
    });
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("talks", Effect::Pure, talks)).await;
    for _ in 0..3 {
        let id = world.submits("talks", |_| {}).await;
        world.ends(id).await;
        let operator = world.handle().operator().clone();
        let first = soon(operator.task_logs(id, None, Some(500))).await.unwrap();
        let rest = soon(operator.task_logs(id, first.next_cursor.as_deref(), Some(500))).await.unwrap();
        let lines: Vec<_> = first.items.iter().chain(&rest.items).map(|line| &*line.text).collect();
        assert_eq!((lines.len(), lines.last().copied()), (900, Some("line 899")));
    }
}

/// Gives a sign of life now and then, if it is to.
struct Patient(Stage);
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Breathe {
    beats: usize,
}
message! { Breathe -> usize }
impl Tool for Patient {
    const NAME: &'static str = "patient";
    const EFFECT: Effect = Effect::Pure;
    type Input = Breathe;
    fn limits(&self) -> Limits {
        Limits { heartbeat: Some(Duration::from_millis(400)), ..Limits::default() }
    }
    async fn run(&self, breathe: Breathe, call: &Call) -> Result<usize> {
        for _ in 0..breathe.beats {
            tokio::time::sleep(Duration::from_millis(100)).await;
            call.heartbeat();
        }
        if breathe.beats == 0 {
            self.0.gate.wait().await;
        }
        Ok(breathe.beats)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_tool_is_taken_for_dead_and_one_that_beats_is_not() {
    let stage = Stage::default();
    let mut world = World::idle();
    world.start_again(program(&stage).tool(Patient(stage.clone()))).await;
    let beats = |beats: usize| {
        move |request: &mut TaskRequest| {
            (request.input, request.max_attempts) = (Some(json!({"beats": beats})), Some(1));
        }
    };
    let (alive, silent) =
        (world.submits("patient", beats(10)).await, world.submits("patient", beats(0)).await);
    assert_eq!(world.ends(silent).await.error.unwrap().code, "timed_out");
    assert_eq!(result(&world.ends(alive).await), json!(10));
}

/// Set when it is dropped.
struct Flag(Arc<AtomicBool>);
impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_is_dropped_or_never_wakes() {
    let stage = Stage::default();
    let hangs = tool(&stage, |_, _, stage| async move {
        let _flag = Flag(stage.dropped.clone());
        stage.gate.wait().await;
        Ok(Value::Null)
    });
    let mut world = World::idle();
    world.start_again(program(&stage).tool_fn("hangs", Effect::Pure, hangs)).await;
    let running = world.submits("hangs", |_| {}).await;
    stage.gate.arrival().await;
    let operator = world.handle().operator().clone();
    assert_eq!(soon(operator.cancel(running)).await.unwrap().state.name(), "cancelled");
    until("its future is dropped", || async { stage.dropped.load(SeqCst) }).await;
    let waiting = world.submits("approval", |_| {}).await;
    task_in(&world.handle(), waiting, "waiting").await;
    assert_eq!(soon(operator.cancel(waiting)).await.unwrap().state.name(), "cancelled");
    let refused = operator.signal(waiting, "approved", json!("x"), None).await.unwrap_err();
    assert_eq!(refused.code(), "wrong_state");
    assert_eq!(stage.gate.count("run"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_no_task_cannot_wait() {
    let stage = Stage::default();
    let mut world = World::idle();
    world.start_again(program(&stage)).await;
    let operator = world.handle().operator().clone();
    let refused = soon(operator.call("approval", br#"{"say": "x"}"#, Default::default())).await.unwrap_err();
    assert!(refused.to_string().contains("only a task can wait"), "{refused}");
    for name in ["", "a b", "a/b"] {
        let id = TaskId::fresh();
        assert_eq!(operator.signal(id, name, json!(1), None).await.unwrap_err().code(), "invalid", "{name}");
    }
    assert_eq!(operator.signal(TaskId::fresh(), "go", json!(1), None).await.unwrap_err().code(), "not_found");
}
