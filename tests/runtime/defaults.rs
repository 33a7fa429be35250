//! What the three kinds of functions declare of their tasks, proved by what runs: retries, time-out, priority,
//! concurrency and rate.

use greenroom::{Call, Limits, Tool, prelude::*, runtime::views::TaskRequest};
use serde_json::json;

use crate::support::{Gate, World, soon, task_in};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Try {
    /// It fails, or hangs, or stands at the gate.
    end: String,
}
message! { Try -> () }

async fn work(work: Try, gate: &Gate) -> Result<()> {
    gate.note(&work.end);
    match &*work.end {
        "fails" => bail!("as told"),
        "hangs" => std::future::pending().await,
        "waits" => gate.wait().await,
        _ => {}
    }
    Ok(())
}

/// Its attempts, time-out and priority.
#[derive(Default, Serialize, Deserialize)]
struct Few {}
impl Agent for Few {
    const KIND: &'static str = "few";
    type Messages = Try;
    fn policy() -> Policy {
        let policy = Policy::default().max_attempts(2).priority(7).turn_timeout(TIMEOUT);
        policy.retry_backoff(Duration::ZERO, Duration::ZERO).max_restarts(1_000, Duration::from_secs(60))
    }
}
impl Handler<Try> for Few {
    async fn handle(&mut self, message: Try, turn: &Turn<Self>) -> Result<()> {
        work(message, turn.resource::<Gate>()).await
    }
}
/// How many run at once.
#[derive(Default, Serialize, Deserialize)]
struct Narrow {}
impl Agent for Narrow {
    const KIND: &'static str = "narrow";
    type Messages = Try;
    fn policy() -> Policy {
        Policy::default().concurrency(1)
    }
}
impl Handler<Try> for Narrow {
    async fn handle(&mut self, message: Try, turn: &Turn<Self>) -> Result<()> {
        work(message, turn.resource::<Gate>()).await
    }
}
/// How often one begins.
#[derive(Default, Serialize, Deserialize)]
struct Seldom {}
impl Agent for Seldom {
    const KIND: &'static str = "seldom";
    type Messages = Try;
    fn policy() -> Policy {
        Policy::default().rate(1, HOUR)
    }
}
impl Handler<Try> for Seldom {
    async fn handle(&mut self, message: Try, turn: &Turn<Self>) -> Result<()> {
        work(message, turn.resource::<Gate>()).await
    }
}

const HOUR: Duration = Duration::from_secs(3_600);
const TIMEOUT: Duration = Duration::from_millis(50);

fn few() -> Limits {
    Limits {
        timeout: Some(TIMEOUT),
        priority: Some(7),
        max_attempts: Some(2),
        retry_backoff: Some((Duration::ZERO, Duration::ZERO)),
        ..Limits::default()
    }
}
fn narrow() -> Limits {
    Limits { concurrency: Some(1), ..Limits::default() }
}
fn seldom() -> Limits {
    Limits { rate: Some((1, HOUR)), ..Limits::default() }
}

macro_rules! tools {
    ($($name:ident = $text:literal, $limits:ident;)*) => {$(
        struct $name(Gate);
        impl Tool for $name {
            const NAME: &'static str = $text;
            const EFFECT: Effect = Effect::Idempotent;
            type Input = Try;
            fn limits(&self) -> Limits {
                $limits()
            }
            async fn run(&self, input: Try, _: &Call) -> Result<()> {
                work(input, &self.0).await
            }
        }
    )*};
}
tools! {
    FewTool = "typed.few", few;
    NarrowTool = "typed.narrow", narrow;
    SeldomTool = "typed.seldom", seldom;
}

fn program(gate: &Gate) -> greenroom::Builder {
    let function = || {
        let gate = gate.clone();
        move |input: Try, _: Call| {
            let gate = gate.clone();
            async move { work(input, &gate).await }
        }
    };
    Runtime::builder()
        .agent::<Few>()
        .agent::<Narrow>()
        .agent::<Seldom>()
        .tool(FewTool(gate.clone()))
        .tool(NarrowTool(gate.clone()))
        .tool(SeldomTool(gate.clone()))
        .tool_fn_with("function.few", Effect::Idempotent, few(), function())
        .tool_fn_with("function.narrow", Effect::Idempotent, narrow(), function())
        .tool_fn_with("function.seldom", Effect::Idempotent, seldom(), function())
        .tool_fn("plain", Effect::Idempotent, function())
        .resource(gate.clone())
        .set("supervision.backoff_min", "1ms")
}

async fn submits(world: &World, target: &str, end: &str) -> TaskId {
    let request = TaskRequest {
        target: target.into(),
        message: (!target.starts_with("tool:")).then(|| "Try".into()),
        input: Some(json!({"end": end})),
        ..TaskRequest::default()
    };
    soon(world.handle().operator().submit(request)).await.unwrap().0.id
}

/// Other work goes on, and with it whatever could begin has begun.
async fn others_run(world: &World) {
    for _ in 0..3 {
        let id = submits(world, "tool:plain", "plain").await;
        task_in(&world.handle(), id, "succeeded").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_time_out_and_priority_are_as_each_kind_of_function_declares() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    for (n, target) in ["tool:function.few", "tool:typed.few", "few/a"].into_iter().enumerate() {
        let failed = submits(&world, target, "fails").await;
        let failed = task_in(&world.handle(), failed, "failed").await;
        assert_eq!((failed.attempt, failed.max_attempts, failed.priority), (2, 2, 7), "{target}");
        assert_eq!(gate.count("fails"), (n + 1) * 2, "{target}");
        let hung = submits(&world, target, "hangs").await;
        let hung = task_in(&world.handle(), hung, "failed").await;
        assert_eq!((&*hung.error.unwrap().code, hung.attempt), ("timed_out", 2), "{target}");
    }
    let plain = submits(&world, "tool:plain", "plain").await;
    let plain = task_in(&world.handle(), plain, "succeeded").await;
    assert_eq!((plain.max_attempts, plain.priority), (5, 0), "what is declared of one is not of others");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_and_rate_are_as_each_kind_of_function_declares() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    for (n, (narrow, seldom)) in [
        ("tool:function.narrow", "tool:function.seldom"),
        ("tool:typed.narrow", "tool:typed.seldom"),
        ("narrow/", "seldom/"),
    ]
    .into_iter()
    .enumerate()
    {
        let target = |name: &str, key: &str| match name.starts_with("tool:") {
            true => name.to_owned(),
            false => format!("{name}{key}"),
        };
        let first = submits(&world, &target(narrow, "a"), "waits").await;
        gate.arrival().await;
        let second = submits(&world, &target(narrow, "b"), "waits").await;
        others_run(&world).await;
        assert_eq!(gate.count("waits"), 2 * n + 1, "{narrow}");
        gate.open(2);
        for id in [first, second] {
            task_in(&world.handle(), id, "succeeded").await;
        }
        gate.arrival().await;
        let first = submits(&world, &target(seldom, "a"), "seldom").await;
        task_in(&world.handle(), first, "succeeded").await;
        let second = submits(&world, &target(seldom, "b"), "seldom").await;
        others_run(&world).await;
        assert_eq!(gate.count("seldom"), n + 1, "{seldom}");
        task_in(&world.handle(), second, "ready").await;
    }
}
