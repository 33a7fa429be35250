//! Operators who stop, restart or pause an agent and clear its mailbox: who waited hears so, and no task is
//! lost.

use greenroom::{
    prelude::*,
    runtime::{operator::OperatorError, views::Action},
};
use tokio::task::JoinHandle;

use crate::support::{Gate, World, soon, status, task_in, until};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    n: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Block {}
message! { Add -> u64; Block -> u64 }

#[derive(Default, Serialize, Deserialize)]
struct Desk {
    total: u64,
}
impl Agent for Desk {
    const KIND: &'static str = "desk";
    type Messages = (Add, Block);
}
impl Handler<Add> for Desk {
    async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<u64> {
        self.total += add.n;
        Ok(self.total)
    }
}
impl Handler<Block> for Desk {
    async fn handle(&mut self, _: Block, turn: &Turn<Self>) -> Result<u64> {
        turn.resource::<Gate>().wait().await;
        self.total += 100;
        Ok(self.total)
    }
}

type Asked = JoinHandle<Result<u64, AskError>>;

/// A desk in the midst of a turn, with asks that its cell has taken already, others in the mailbox, and a
/// task behind them.
struct Stage {
    world: World,
    gate: Gate,
    blocked: Asked,
    waiting: Vec<Asked>,
    task: TaskId,
}

impl Stage {
    async fn start() -> Self {
        let gate = Gate::default();
        let world = World::start(Runtime::builder().agent::<Desk>().resource(gate.clone())).await;
        let (handle, desk) = (world.handle(), world.handle().agent::<Desk>("a"));
        let depth = async |n| {
            until("so many wait", || async {
                handle.operator().agent("desk", "a").await.is_ok_and(|desk| desk.mailbox.depth == n)
            })
            .await;
        };
        // All that waits at a pause's end is taken at once.
        handle.operator().act("desk", "a", Action::Pause).await.unwrap();
        let blocked = tokio::spawn(desk.ask(Block {}).into_future());
        depth(1).await;
        let add = || tokio::spawn(desk.ask(Add { n: 1 }).into_future());
        let mut waiting = vec![add(), add()];
        depth(3).await;
        handle.operator().act("desk", "a", Action::Resume).await.unwrap();
        gate.arrival().await;
        waiting.extend([add(), add()]);
        depth(2).await;
        let task = soon(desk.submit(Add { n: 10 })).await.unwrap();
        depth(3).await;
        Self { world, gate, blocked, waiting, task }
    }

    async fn act_and_clear(&self, action: Action) -> Result<(), OperatorError> {
        self.world.handle().operator().act_and_clear("desk", "a", action).await
    }

    /// The turn that ran goes on to its end; those that waited hear that they were cleared.
    async fn is_cleared(&mut self) {
        // Those in the mailbox need not wait for the turn.
        for asked in self.waiting.drain(2..) {
            hears_of_it(asked).await;
        }
        self.gate.open(1);
        for asked in self.waiting.drain(..) {
            hears_of_it(asked).await;
        }
        assert_eq!(soon(&mut self.blocked).await.unwrap(), Ok(100));
    }

    async fn goes_on(&self) {
        let handle = self.world.handle();
        let done = task_in(&handle, self.task, "succeeded").await;
        assert_eq!(done.attempt, 1, "being put aside is no attempt");
        assert_eq!(soon(handle.agent::<Desk>("a").ask(Add { n: 1 })).await.unwrap(), 111);
    }
}

async fn hears_of_it(asked: Asked) {
    let error = soon(asked).await.unwrap().unwrap_err();
    assert!(error.code() == "wrong_state" && error.to_string().contains("cleared"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_clears_answers_who_waits_and_runs_the_tasks() {
    let mut stage = Stage::start().await;
    stage.act_and_clear(Action::Restart).await.unwrap();
    stage.is_cleared().await;
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_does_not_clear_runs_all_that_waits() {
    let stage = Stage::start().await;
    stage.world.handle().operator().act("desk", "a", Action::Restart).await.unwrap();
    stage.gate.open(1);
    let mut answers = Vec::new();
    for asked in stage.waiting {
        answers.push(soon(asked).await.unwrap().unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, [101, 102, 103, 104]);
    task_in(&stage.world.handle(), stage.task, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cleared_by_a_stop_or_a_pause_is_answered_and_tasks_are_parked() {
    for (action, back) in [(Action::Stop, Action::Restart), (Action::Pause, Action::Resume)] {
        let mut stage = Stage::start().await;
        stage.act_and_clear(action).await.unwrap();
        stage.is_cleared().await;
        let handle = stage.world.handle();
        let parked = task_in(&handle, stage.task, "parked").await;
        assert_eq!(parked.attempt, 0);
        let lasting = if action == Action::Stop { "stopped" } else { "paused" };
        assert_eq!(status(&handle, "desk", "a").await, lasting);
        handle.operator().act("desk", "a", back).await.unwrap();
        stage.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_clears_nothing_says_so() {
    let stage = Stage::start().await;
    for action in [Action::Resume, Action::Release, Action::Quarantine] {
        let error = stage.act_and_clear(action).await.unwrap_err();
        assert!(error.code() == "malformed" && error.to_string().contains("`restart`"), "{error}");
    }
    stage.gate.open(1);
    for asked in stage.waiting {
        assert!(soon(asked).await.unwrap().is_ok());
    }
}
