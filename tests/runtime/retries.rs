//! How often tasks are attempted, how long they wait between, and what an error says of that.

use greenroom::{Retry, model::task::TaskView, prelude::*};
use jiff::Timestamp;

use crate::support::{World, soon, task_in};

const HOUR: Duration = Duration::from_secs(3_600);

/// What is to become of an attempt.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
enum Try {
    Fail,
    Later,
    Never,
}
message!(Try -> ());

fn attempt(how: &Try) -> Result<()> {
    match how {
        Try::Fail => bail!("no"),
        Try::Later => Err(Retry::after(2 * HOUR, anyhow!("the bank is busy"))).context("charging"),
        Try::Never => Err(Retry::never(anyhow!("the card is no card")).into()),
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Clerk {}
impl Agent for Clerk {
    const KIND: &'static str = "clerk";
    type Messages = Try;
    fn policy() -> Policy {
        Policy::default().max_attempts(2).retry_backoff(HOUR, HOUR).priority(7)
    }
}
impl Handler<Try> for Clerk {
    async fn handle(&mut self, how: Try, _: &Turn<Self>) -> Result<()> {
        attempt(&how)
    }
}

struct Bank;
impl Tool for Bank {
    const NAME: &'static str = "bank.charge";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Try;
    fn limits(&self) -> greenroom::Limits {
        let retry_backoff = Some((HOUR, HOUR));
        greenroom::Limits { priority: Some(-3), max_attempts: Some(2), retry_backoff, ..Default::default() }
    }
    async fn run(&self, how: Try, _: &Call) -> Result<()> {
        attempt(&how)
    }
}

fn program() -> greenroom::Builder {
    Runtime::builder().agent::<Clerk>().tool(Bank)
}

/// The task of an agent, and that of a tool, once they have come to this.
async fn both(world: &World, how: Try, state: &str) -> [TaskView; 2] {
    let handle = world.handle();
    let by_agent = soon(handle.agent::<Clerk>("a").submit(how.clone())).await.unwrap();
    let by_tool = soon(handle.tool::<Bank>().submit(how)).await.unwrap();
    [task_in(&handle, by_agent, state).await, task_in(&handle, by_tool, state).await]
}

/// For how long a task waits, in minutes.
fn minutes(task: &TaskView) -> i64 {
    task.run_at.unwrap().duration_since(Timestamp::now()).as_mins()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_has_the_priority_of_its_kind_or_tool_unless_its_submitter_says_another() {
    let world = World::start(program().set("tools.bank.charge.priority", "-5")).await;
    let [by_agent, by_tool] = both(&world, Try::Fail, "scheduled").await;
    assert_eq!((by_agent.priority, by_tool.priority), (7, -5), "the configuration overrides the code");
    let handle = world.handle();
    for (said, priority) in [("", 7), (r#","priority":0"#, 0), (r#","priority":9"#, 9)] {
        let request = format!(r#"{{"target":"clerk/a","message":"Try","input":"Never"{said}}}"#);
        let task = handle.operator().submit(serde_json::from_str(&request).unwrap()).await.unwrap().0;
        assert_eq!(task.priority, priority, "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_and_a_tool_say_how_their_tasks_are_tried_again() {
    let world = World::start(program()).await;
    for task in both(&world, Try::Fail, "scheduled").await {
        assert_eq!((task.attempt, task.max_attempts), (1, 2), "{task:?}");
        assert!((43..=60).contains(&minutes(&task)), "{task:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_says_it_above_the_code() {
    let program = program()
        .set("agents.clerk.max_attempts", "1")
        .set("tools.bank.charge.max_attempts", "3")
        .set("tools.bank.charge.retry_min", "10m")
        .set("tools.bank.charge.retry_max", "20m");
    let world = World::start(program).await;
    let handle = world.handle();
    let by_agent = soon(handle.agent::<Clerk>("a").submit(Try::Fail)).await.unwrap();
    assert_eq!(task_in(&handle, by_agent, "failed").await.attempt, 1);
    let by_tool = soon(handle.tool::<Bank>().submit(Try::Fail)).await.unwrap();
    let task = task_in(&handle, by_tool, "scheduled").await;
    assert_eq!(task.max_attempts, 3);
    assert!((6..=10).contains(&minutes(&task)), "{task:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_when_its_task_is_tried_again() {
    let world = World::start(program()).await;
    for task in both(&world, Try::Later, "scheduled").await {
        assert!((118..=120).contains(&minutes(&task)), "{task:?}");
        let error = task.error.unwrap();
        assert_eq!((error.message.as_str(), error.chain), ("charging", vec!["the bank is busy".to_owned()]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_that_its_task_is_not_tried_again() {
    let world = World::start(program()).await;
    for task in both(&world, Try::Never, "failed").await {
        assert_eq!((task.attempt, task.max_attempts), (1, 2));
        assert_eq!(task.error.unwrap().message, "the card is no card");
    }
}
