//! What turns say of the tasks that they are attempts of.

use greenroom::{
    model::{event::Level, task::TaskView},
    prelude::*,
    runtime::views::{TaskLine, TaskRequest},
};
use serde_json::{Value, json};

use crate::support::{Gate, World, soon, task_in, until};

#[derive(Default, Serialize, Deserialize)]
struct Clerk {
    counted: u64,
}

/// Says how far it is, at the gate; then comes to this end.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Count {
    end: End,
}
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum End {
    Well,
    Error,
    Panic,
}
message!(Count -> u64);

impl Agent for Clerk {
    const KIND: &'static str = "clerk";
    type Messages = Count;
    fn policy() -> Policy {
        Policy::default().retry_backoff(Duration::from_millis(1), Duration::from_millis(1))
    }
}
impl Handler<Count> for Clerk {
    async fn handle(&mut self, count: Count, turn: &Turn<Self>) -> Result<u64> {
        let gate: &Gate = turn.resource();
        turn.progress(0.25, "a quarter");
        turn.partial(&json!({"rows": 1}))?;
        turn.log(Level::Warn, "one");
        gate.wait().await;
        turn.progress(1.0, "done");
        turn.log(Level::Info, "two");
        self.counted += 1;
        match count.end {
            End::Well => Ok(self.counted),
            End::Error => bail!("it does not add up"),
            End::Panic => panic!("it cannot count"),
        }
    }
}

fn program(gate: &Gate) -> greenroom::Builder {
    Runtime::builder().agent::<Clerk>().resource(gate.clone()).set("supervision.backoff_min", "1ms")
}

impl World {
    async fn counted_by(&self, key: &str, end: End, max_attempts: u32) -> TaskId {
        let request = TaskRequest {
            target: format!("clerk/{key}"),
            message: Some("Count".into()),
            input: Some(json!({ "end": end })),
            max_attempts: Some(max_attempts),
            ..TaskRequest::default()
        };
        soon(self.handle().operator().submit(request)).await.unwrap().0.id
    }

    async fn says(&self, id: TaskId) -> Value {
        soon(self.handle().operator().task(id)).await.unwrap().progress.unwrap_or_default()
    }

    async fn lines_of(&self, id: TaskId) -> Vec<(Level, String)> {
        let lines = soon(self.handle().operator().task_logs(id, None, None)).await.unwrap().items;
        lines.into_iter().map(|TaskLine { level, text, .. }| (level, text)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_turn_says_of_its_task_is_seen_before_its_commit_and_stays_however_it_ends() {
    let gate = Gate::default();
    let mut world = World::start(program(&gate)).await;
    let mut ended: Vec<TaskView> = Vec::new();
    for (end, state) in [(End::Well, "succeeded"), (End::Error, "failed"), (End::Panic, "failed")] {
        let id = world.counted_by("a", end, 1).await;
        gate.arrival().await;
        let quarter = json!({"fraction": 0.25, "text": "a quarter", "partial": {"rows": 1}});
        assert_eq!(world.says(id).await, quarter);
        until("it is written down", || async { world.lines_of(id).await == [(Level::Warn, "one".into())] })
            .await;
        assert_eq!(world.says(id).await, quarter);
        gate.open(1);
        ended.push(task_in(&world.handle(), id, state).await);
        let both = [(Level::Warn, "one".to_owned()), (Level::Info, "two".to_owned())];
        assert_eq!(world.lines_of(id).await, both, "all of it is there when it has ended");
        let said = world.says(id).await;
        assert_eq!(said, json!({"fraction": 1.0, "text": "done", "partial": {"rows": 1}}));
    }
    world.end().await;
    world.start_again(program(&gate)).await;
    for task in ended {
        assert_eq!(world.says(task.id).await["text"], "done", "it is in the store");
        assert_eq!(world.lines_of(task.id).await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_says_it_again() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let id = world.counted_by("a", End::Error, 2).await;
    gate.open(2);
    let task = task_in(&world.handle(), id, "failed").await;
    let lines: Vec<String> = world.lines_of(id).await.into_iter().map(|(_, text)| text).collect();
    assert_eq!((task.attempt, lines), (2, ["one", "two", "one", "two"].map(str::to_owned).to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_no_tasks_has_nobody_to_tell() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    gate.open(1);
    assert_eq!(soon(world.handle().agent::<Clerk>("a").ask(Count { end: End::Well })).await, Ok(1));
    // The task after it is told from it.
    let id = world.counted_by("a", End::Well, 1).await;
    gate.arrival().await;
    gate.arrival().await;
    assert_eq!(world.says(id).await["text"], "a quarter");
    gate.open(1);
    task_in(&world.handle(), id, "succeeded").await;
    assert_eq!(world.lines_of(id).await.len(), 2);
}
