//! Fan-out of a task function: it submits many tasks, waits for the end of all without a slot, and reads what they
//! came to; each once, however often it runs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use greenroom::{
    Call, Fanout, NoSignal, Tool, model::task::TaskWait, prelude::*, runtime::views::TaskRequest,
};
use serde_json::{Value, json};

use crate::{
    faulty::Faults,
    postgres::Database,
    support::{Gate, World, soon, task_in, until},
};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Square {
    n: u64,
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("unlucky")]
struct Unlucky;
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Sum {
    of: u64,
}
message! { Square -> u64 | Unlucky; Sum -> Value }

/// Refuses 13, fails at 7, and waits at the gate with 0.
struct Squares(Gate);
impl Tool for Squares {
    const NAME: &'static str = "square";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Square;
    async fn run(&self, square: Square, _: &Call) -> Result<u64> {
        self.0.note(format!("square {}", square.n));
        match square.n {
            13 => Err(Square::refuse(Unlucky)),
            7 => bail!("seven"),
            0 => {
                self.0.wait().await;
                Ok(0)
            }
            n => Ok(n * n),
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Abacus {}
impl Agent for Abacus {
    const KIND: &'static str = "abacus";
    type Messages = Square;
}
impl Handler<Square> for Abacus {
    async fn handle(&mut self, square: Square, _: &Turn<Self>) -> Result<u64> {
        Ok(square.n * square.n)
    }
}

#[derive(Clone, Default)]
struct Stage {
    gate: Gate,
    /// So many runs fail behind the fan-out.
    fails: Arc<AtomicUsize>,
}

fn squares(of: u64) -> impl Iterator<Item = Square> {
    (1..=of).map(|n| Square { n })
}

async fn sum(call: &Call, fanout: &Fanout<Square>) -> Result<u64> {
    let mut sum = 0;
    for task in fanout.tasks() {
        if let Outcome::Succeeded(square) = call.outcome::<Square>(*task).await? {
            sum += square;
        }
    }
    Ok(sum)
}

async fn sums(input: Sum, call: Call, stage: Stage) -> Result<Value> {
    stage.gate.note("run");
    let fanout = call.submit_all::<Squares>(squares(input.of)).max_attempts(1).tag("part").await?;
    let left = stage.fails.load(SeqCst);
    if left > 0 {
        stage.fails.store(left - 1, SeqCst);
        bail!("not yet");
    }
    let early = match fanout.tasks().last() {
        Some(task) => call.outcome::<Square>(*task).await.err().map(|e| e.code()),
        None => None,
    };
    ensure!(early.is_none_or(|code| code == "wrong_state"), "{early:?}");
    let ended = call.join(&fanout).await?;
    stage.gate.note("joined");
    let again = call.join(&fanout).await?;
    ensure!(ended.batch == fanout.id() && again.failed == ended.failed, "{ended:?} {again:?}");
    let others = call.agent::<Abacus>("a").submit_all(squares(3)).await?;
    ensure!(call.join(&others).await?.succeeded == 3, "the agent's");
    Ok(json!([ended.succeeded, ended.failed, sum(&call, &fanout).await?, sum(&call, &others).await?]))
}

fn program(stage: &Stage) -> greenroom::Builder {
    let of = stage.clone();
    Runtime::builder()
        .agent::<Abacus>()
        .tool(Squares(stage.gate.clone()))
        .tool_fn("sums", Effect::Idempotent, move |input, call| sums(input, call, of.clone()))
        .set("supervision.backoff_min", "1ms")
        .set("tasks.retry_min", "1ms")
        .set("tasks.slots", "1")
}

async fn on_both(test: impl AsyncFn(&mut World, &dyn Fn(&Stage) -> greenroom::Builder)) {
    test(&mut World::idle(), &|stage| program(stage)).await;
    let database = Database::new();
    let mut world = World::idle();
    test(&mut world, &|stage| program(stage).set("store.url", &database.url())).await;
    world.end().await;
}

impl World {
    async fn fans_out(&self, tool: &str, of: u64) -> TaskId {
        let request = TaskRequest {
            target: format!("tool:{tool}"),
            input: Some(json!({"of": of})),
            ..TaskRequest::default()
        };
        soon(self.handle().operator().submit(request)).await.unwrap().0.id
    }

    /// What it came to.
    async fn sums(&self, id: TaskId) -> Value {
        let handle = self.handle();
        let task = soon(handle.operator().wait(id, Duration::from_secs(30))).await.unwrap();
        let result = task.result.as_ref().unwrap_or_else(|| panic!("{task:?}"));
        serde_json::from_str(result.get()).unwrap()
    }

    async fn parts(&self) -> usize {
        let query =
            greenroom::runtime::operator::TaskQuery { tag: Some("part".into()), ..Default::default() };
        soon(self.handle().operator().tasks(&query)).await.unwrap().items.len()
    }
}

/// The sum of the squares of 1 to 20, without those of 7 and 13.
const TWENTY: u64 = 2_870 - 49 - 169;

/// The one slot is the function's, while it does not wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_fans_out_joins_without_a_slot_and_reads_what_its_tasks_came_to() {
    on_both(async |world, program| {
        let stage = Stage::default();
        stage.fails.store(2, SeqCst);
        world.start_again(program(&stage)).await;
        let id = world.fans_out("sums", 20).await;
        assert_eq!(world.sums(id).await, json!([18, 2, TWENTY, 14]));
        assert_eq!((world.parts().await, stage.gate.count("square 5")), (20, 1));
        let none = world.fans_out("sums", 0).await;
        assert_eq!(world.sums(none).await, json!([0, 0, 0, 14]));
    })
    .await;
}

/// The batch is there, and that it was submitted is recorded nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_a_fan_out_and_its_record_submits_nothing_twice() {
    on_both(async |world, program| {
        let stage = Stage::default();
        for writes in 1..=3 {
            let faults = Faults::default();
            world.start_again(faults.under(program(&stage))).await;
            faults.die_after(Some(writes));
            let request = TaskRequest {
                target: "tool:sums".into(),
                input: Some(json!({"of": 20})),
                idempotency_key: Some(format!("at {writes}")),
                ..TaskRequest::default()
            };
            let _ = soon(world.handle().operator().submit(request.clone())).await;
            until("it dies", || async { faults.is_dead() }).await;
            world.crash().await;
            world.start_again(program(&stage)).await;
            let id = soon(world.handle().operator().submit(request)).await.unwrap().0.id;
            assert_eq!(world.sums(id).await, json!([18, 2, TWENTY, 14]), "{writes}");
            assert_eq!(world.parts().await, writes * 20, "{writes}");
            world.end().await;
        }
        world.start_again(program(&stage)).await;
    })
    .await;
}

/// It got another place than the first, and each of its tasks was there twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_that_is_not_waited_for_and_is_made_again_is_the_same() {
    on_both(async |world, program| {
        let (stage, faults) = (Stage::default(), Faults::default());
        let (hangs, seen) = (faults.clone(), stage.clone());
        let impatient = move |_: Sum, call: Call| {
            let (hangs, stage) = (hangs.clone(), seen.clone());
            async move {
                call.agent::<Abacus>("a").ask(Square { n: 1 }).await?;
                let fan_out = || call.submit_all::<Squares>(squares(3)).tag("part");
                hangs.hang(true);
                let in_time = fan_out().within(Duration::from_millis(50)).await;
                hangs.hang(false);
                let fanout = match in_time {
                    Err(AskError::Unknown) => {
                        stage.gate.note("unknown");
                        fan_out().await
                    }
                    known => known,
                };
                Ok(json!(call.join(&fanout?).await?.succeeded))
            }
        };
        let program = program(&stage).tool_fn("impatient", Effect::Idempotent, impatient);
        world.start_again(faults.under(program)).await;
        let id = world.fans_out("impatient", 0).await;
        assert_eq!(world.sums(id).await, json!(3));
        assert_eq!((stage.gate.count("unknown"), world.parts().await), (1, 3));
    })
    .await;
}

/// A refusal that came later than its neighbour's answer is known at once in the rerun, which may do without the neighbour.
#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_may_do_without_what_was_answered_beside_a_call_under_way() {
    on_both(async |world, program| {
        let stage = Stage::default();
        let of = stage.clone();
        let beside = move |_: Sum, call: Call| {
            let stage = of.clone();
            async move {
                stage.gate.note("run");
                let slow = call.call::<Squares>(Square { n: 0 });
                if stage.gate.count("run") > 1 {
                    return Ok(json!(slow.await?));
                }
                let quick = async {
                    stage.gate.arrival().await;
                    let answered = call.call::<Squares>(Square { n: 2 }).await;
                    stage.gate.open(1);
                    answered
                };
                let (slow, quick) = tokio::join!(slow, quick);
                bail!("not yet: {slow:?} {quick:?}")
            }
        };
        world.start_again(program(&stage).tool_fn("beside", Effect::Idempotent, beside)).await;
        let id = world.fans_out("beside", 0).await;
        assert_eq!(world.sums(id).await, json!(0));
        assert_eq!((stage.gate.count("run"), stage.gate.count("square 2")), (2, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_lasts_across_restarts_and_ends_in_time() {
    on_both(async |world, program| {
        let stage = Stage::default();
        let waits = |stage: &Stage| {
            let held = stage.clone();
            let waits = move |_: Sum, call: Call| {
                let late = held.fails.load(SeqCst) > 0;
                async move {
                    let fanout = call.submit_all::<Squares>(squares(2)).await?;
                    let joined = call.join(&fanout);
                    if late {
                        let late = joined.timeout(Duration::from_millis(1)).await.unwrap_err();
                        ensure!(late.is::<NoSignal>(), "{late}");
                        return Ok(json!("late"));
                    }
                    Ok(json!(joined.await?.succeeded))
                }
            };
            program(stage).tool_fn("waits", Effect::Idempotent, waits)
        };
        world.start_again(waits(&stage)).await;
        soon(world.handle().operator().pause_kind("tool:square", true)).await.unwrap();
        let id = world.fans_out("waits", 0).await;
        let waiting = task_in(&world.handle(), id, "waiting").await;
        assert_eq!((waiting.attempt, waiting.node), (0, None));
        let [TaskWait { signal: None, batch: Some(joined), until: None }] = waiting.waits[..] else {
            panic!("{:?}", waiting.waits)
        };
        world.end().await;
        world.start_again(waits(&stage)).await;
        task_in(&world.handle(), id, "waiting").await;
        let operator = world.handle().operator().clone();
        let tasks = soon(operator.tasks(&Default::default())).await.unwrap().items;
        let batch = tasks.iter().find_map(|task| task.batch).unwrap();
        assert_eq!(batch, joined);
        // Nobody else tells that it has ended.
        let told = soon(operator.signal(id, &format!("joined {batch}"), json!(1), None)).await;
        assert_eq!(told.unwrap_err().code(), "invalid");
        stage.fails.store(1, SeqCst);
        let late = world.fans_out("waits", 0).await;
        assert_eq!(world.sums(late).await, json!("late"));
        stage.fails.store(0, SeqCst);
        soon(operator.pause_kind("tool:square", false)).await.unwrap();
        assert_eq!(world.sums(id).await, json!(2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_brought_back_joins_what_ended_while_it_was_a_dead_letter() {
    on_both(async |world, program| {
        let stage = Stage::default();
        let gated = |stage: &Stage| {
            let held = stage.clone();
            let falls = move |_: Sum, call: Call| {
                let stage = held.clone();
                async move {
                    let fanout =
                        call.submit_all::<Squares>([Square { n: 0 }, Square { n: 7 }]).max_attempts(1);
                    let fanout = fanout.await?;
                    if stage.fails.load(SeqCst) > 0 {
                        return Err(greenroom::Retry::never(anyhow!("it falls")).into());
                    }
                    let joined = call.join(&fanout).await?;
                    Ok(json!([joined.succeeded, joined.failed]))
                }
            };
            program(stage).tool_fn("falls", Effect::Idempotent, falls)
        };
        world.start_again(gated(&stage)).await;
        stage.fails.store(1, SeqCst);
        let id = world.fans_out("falls", 0).await;
        task_in(&world.handle(), id, "failed").await;
        stage.gate.open(1);
        until("both have ended", || async {
            let tasks = soon(world.handle().operator().tasks(&Default::default())).await.unwrap().items;
            tasks.iter().filter(|t| t.parent == Some(id) && t.state.is_final()).count() == 2
        })
        .await;
        stage.fails.store(0, SeqCst);
        soon(world.handle().operator().retry(id)).await.unwrap();
        assert_eq!(world.sums(id).await, json!([1, 1]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_has_its_bounds() {
    let stage = Stage::default();
    let wide = move |input: Sum, call: Call| async move {
        let many = call.submit_all::<Squares>(squares(input.of)).await;
        Ok(json!(many.err().map(|e| e.code())))
    };
    let world = World::start(program(&stage).tool_fn("wide", Effect::Idempotent, wide)).await;
    let id = world.fans_out("wide", 100_001).await;
    assert_eq!(world.sums(id).await, json!("too_large"));
    assert_eq!(world.parts().await, 0);
    let operator = world.handle().operator().clone();
    assert_eq!(
        soon(operator.call("wide", br#"{"of":1}"#, Default::default())).await.unwrap().0.get(),
        r#""wrong_state""#,
        "no task"
    );
}
