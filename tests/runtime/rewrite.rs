//! Agents whose state a person edits, rolls back or deletes, on every store; and what is left where the process
//! dies between two steps of that: the agent is as it was or as it is to be, no task is lost, and asking again
//! finishes it.

use std::sync::Arc;

use greenroom::{
    Handle, TaskId,
    prelude::*,
    runtime::operator::{Operator, OperatorError},
    store::MemoryStore,
};

use crate::{
    faulty::Faults,
    postgres::Database,
    support::{Gate, World, soon, status, task_in, until},
};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    n: i64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Block {}
message! { Add -> i64; Block -> i64 }

#[derive(Default, Serialize, Deserialize)]
struct Purse {
    total: i64,
}
impl Agent for Purse {
    const KIND: &'static str = "purse";
    type Messages = (Add, Block);
}
impl Handler<Add> for Purse {
    async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<i64> {
        self.total += add.n;
        Ok(self.total)
    }
}
impl Handler<Block> for Purse {
    async fn handle(&mut self, _: Block, turn: &Turn<Self>) -> Result<i64> {
        turn.resource::<Gate>().wait().await;
        self.total += 100;
        Ok(self.total)
    }
}

/// Where the node keeps what it keeps.
enum Ground {
    File,
    Postgres(Database),
    Memory(Arc<MemoryStore>),
}

impl Ground {
    fn memory() -> Self {
        Self::Memory(Arc::new(MemoryStore::new()))
    }

    /// A program on it, with faults between; a process that starts again has fresh ones.
    fn program(&self, gate: &Gate) -> (greenroom::Builder, Faults) {
        let faults = Faults::default();
        let program = Runtime::builder().agent::<Purse>().resource(gate.clone());
        let program = match self {
            Self::File => faults.under(program),
            Self::Postgres(database) => faults.under(program.set("store.url", &database.url())),
            Self::Memory(store) => faults.over(store.clone(), program),
        };
        (program, faults)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Edit,
    RollBack,
    Delete,
}

impl Act {
    /// Has an operator do it to an agent at version 2; with its version where it has one afterwards.
    async fn ask(self, operator: &Operator, key: &str) -> std::result::Result<i64, OperatorError> {
        match self {
            Self::Edit => operator.edit_state("purse", key, 2, br#"{"total":70}"#).await,
            Self::RollBack => operator.roll_back("purse", key, 1, Some(2)).await,
            Self::Delete => operator.delete_agent("purse", key, true, Some(2)).await.map(|_| 0),
        }
    }

    fn total(self) -> Option<i64> {
        match self {
            Self::Edit => Some(70),
            Self::RollBack => Some(1),
            Self::Delete => None,
        }
    }
}

/// An agent at version 2 with a total of 40, whose first version is kept, and a task for it in an hour.
async fn prepare(world: &World, key: &str) -> TaskId {
    let (handle, operator) = (world.handle(), world.handle().operator().clone());
    let agent = handle.agent::<Purse>(key);
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 1);
    assert_eq!(soon(operator.edit_state("purse", key, 1, br#"{"total":40}"#)).await.unwrap(), 2);
    let later = serde_json::json!({
        "target": format!("purse/{key}"), "message": "Add", "input": {"n": 1000}, "run_in": "1h"
    });
    soon(operator.submit(serde_json::from_value(later).unwrap())).await.unwrap().0.id
}

async fn total(world: &World, key: &str) -> Option<(i64, i64)> {
    let state = soon(world.handle().operator().state("purse", key, None)).await.ok()?;
    Some((state.version, state.state["total"].as_i64().unwrap()))
}

/// It is done: the agent is as it is to be, and takes messages.
async fn is_done(world: &World, key: &str, act: Act, task: TaskId) {
    let state = soon(world.handle().operator().task(task)).await.unwrap().state.name();
    let agent = world.handle().agent::<Purse>(key);
    match act.total() {
        Some(wanted) => {
            assert_eq!(total(world, key).await, Some((3, wanted)));
            assert_eq!(state, "scheduled", "its time has not come");
            assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), wanted + 1);
        }
        None => {
            assert_eq!((total(world, key).await, state), (None, "cancelled"));
            assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 1, "another agent of its name");
        }
    }
}

/// Has the process die before the first, the second, … thing that an act writes, until it gets through.
async fn survives_a_crash_between_any_two_steps(ground: Ground, act: Act) {
    let gate = Gate::default();
    let (program, mut faults) = ground.program(&gate);
    let mut world = World::start(program).await;
    let mut deaths = 0;
    loop {
        let key = format!("k{deaths}");
        let task = prepare(&world, &key).await;
        faults.die_after(Some(deaths));
        let operator = world.handle().operator().clone();
        let done = soon(act.ask(&operator, &key)).await;
        if !faults.is_dead() {
            faults.die_after(None);
            done.unwrap();
            is_done(&world, &key, act, task).await;
            break;
        }
        drop(operator);
        world.crash().await;
        let (program, fresh) = ground.program(&gate);
        faults = fresh;
        world.start_again(program).await;
        let (handle, operator) = (world.handle(), world.handle().operator().clone());

        // one of the states that are told of: as it was, as it is to be, or stopped on its way to its end
        let (found, now) = (total(&world, &key).await, status(&handle, "purse", &key).await);
        let why = format!("{act:?} before write {deaths}: {found:?} {now}");
        match act {
            Act::Delete => match found {
                Some(as_it_was) => {
                    assert!(as_it_was == (2, 40) && matches!(now.as_str(), "passivated" | "stopped"), "{why}")
                }
                None => assert_eq!(now, "unknown", "{why}"),
            },
            _ => {
                assert!(found == Some((2, 40)) || found == act.total().map(|total| (3, total)), "{why}");
                assert_eq!(now, "passivated", "{why}");
            }
        }
        match soon(act.ask(&operator, &key)).await {
            Ok(_) => {}
            // it was done, and whoever asks again is told so
            Err(error) if act == Act::Delete => {
                assert!(error.code() == "not_found" && found.is_none(), "{why}: {error}");
            }
            Err(error) => {
                assert!(error.code() == "precondition_failed" && found != Some((2, 40)), "{why}: {error}");
            }
        }
        is_done(&world, &key, act, task).await;
        deaths += 1;
    }
    // it writes the state and brings its tasks back; or a status, tasks put aside, cancelled and ended, the end,
    // and brings back what came meanwhile
    let least = if act == Act::Delete { 5 } else { 2 };
    assert!(deaths >= least, "it had {deaths} steps");
}

/// While a rollback waits for the end of a turn, a task for the agent is put aside. Wherever the process dies then,
/// the task runs once the agent is served again.
async fn brings_back_what_was_put_aside(ground: Ground) {
    let gate = Gate::default();
    let (program, mut faults) = ground.program(&gate);
    let mut world = World::start(program).await;
    for deaths in 0.. {
        let key = format!("k{deaths}");
        let agent = world.handle().agent::<Purse>(&key);
        prepare(&world, &key).await;
        let blocked = tokio::spawn(agent.ask(Block {}).into_future());
        gate.arrival().await;
        let asked = tokio::spawn({
            let (operator, key) = (world.handle().operator().clone(), key.clone());
            async move { operator.roll_back("purse", &key, 1, None).await }
        });
        let tasks = put_aside(&world, &key).await;
        faults.die_after(Some(deaths));
        gate.open(1);
        let _ = soon(asked).await.unwrap();
        let dead = faults.is_dead();
        if dead {
            drop(agent);
            world.crash().await;
            let _ = soon(blocked).await;
            let (program, fresh) = ground.program(&gate);
            faults = fresh;
            world.start_again(program).await;
        } else {
            faults.die_after(None);
        }
        for task in tasks {
            task_in(&world.handle(), task, "succeeded").await;
        }
        if !dead {
            assert!(deaths >= 2, "it had {deaths} steps");
            return;
        }
    }
}

/// Tasks for an agent at a turn, until one was put aside: from then on its messages wait.
async fn put_aside(world: &World, key: &str) -> Vec<TaskId> {
    let (handle, mut tasks) = (world.handle(), Vec::new());
    loop {
        let id = soon(handle.agent::<Purse>(key).submit(Add { n: 5 })).await.unwrap();
        tasks.push(id);
        until("it is claimed", || async { state_of(&handle, id).await != "ready" }).await;
        if state_of(&handle, id).await == "parked" {
            return tasks;
        }
    }
}

async fn state_of(handle: &Handle, id: TaskId) -> &'static str {
    handle.operator().task(id).await.unwrap().state.name()
}

macro_rules! on_every_store {
    ($($name:ident: $do:ident($($act:expr)?);)*) => {
        mod file {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                $do(Ground::File, $($act)?).await;
            })*
        }
        mod on_postgres {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                $do(Ground::Postgres(Database::new()), $($act)?).await;
            })*
        }
        mod in_memory {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                $do(Ground::memory(), $($act)?).await;
            })*
        }
    };
}

on_every_store! {
    an_edit_survives_a_crash_between_any_two_steps: survives_a_crash_between_any_two_steps(Act::Edit);
    a_rollback_survives_a_crash_between_any_two_steps: survives_a_crash_between_any_two_steps(Act::RollBack);
    a_deletion_survives_a_crash_between_any_two_steps: survives_a_crash_between_any_two_steps(Act::Delete);
    a_task_that_was_put_aside_is_not_stranded_by_a_crash: brings_back_what_was_put_aside();
}

/// Each holds the agent, writes and lets it go on: half way through one another they would write the same version.
#[tokio::test(flavor = "multi_thread")]
async fn several_operators_act_on_an_agent_one_after_the_other() {
    let gate = Gate::default();
    let (program, _) = Ground::memory().program(&gate);
    let world = World::start(program).await;
    prepare(&world, "a").await;
    let operator = world.handle().operator().clone();
    let acts = (0..6).map(|_| operator.roll_back("purse", "a", 1, None));
    let mut versions: Vec<i64> =
        soon(futures_util::future::join_all(acts)).await.into_iter().map(|made| made.unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, [3, 4, 5, 6, 7, 8]);
    let agent = world.handle().agent::<Purse>("a");
    assert_eq!(soon(agent.ask(Add { n: 0 })).await, Ok(1));
}

/// Its version is looked at again once the turn that runs has ended.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_a_turn_has_moved_on_meanwhile_is_not_deleted() {
    let gate = Gate::default();
    let (program, _) = Ground::memory().program(&gate);
    let world = World::start(program).await;
    let (handle, operator) = (world.handle(), world.handle().operator().clone());
    let agent = handle.agent::<Purse>("a");
    soon(agent.ask(Add { n: 1 })).await.unwrap();
    let blocked = tokio::spawn(agent.ask(Block {}).into_future());
    gate.arrival().await;
    let asked = tokio::spawn(async move { operator.delete_agent("purse", "a", false, Some(1)).await });
    until("it is held", || async { status(&handle, "purse", "a").await == "paused" }).await;
    gate.open(1);
    assert_eq!(soon(asked).await.unwrap().unwrap_err().code(), "precondition_failed");
    let total = soon(blocked).await.unwrap().unwrap();
    assert_eq!(soon(agent.ask(Add { n: 0 })).await.unwrap(), total, "it goes on");
}
