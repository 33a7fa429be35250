//! Tasks that a node has claimed, and that have not begun.

use futures_util::future::try_join_all;
use greenroom::{Call, Effect, Handle, Limits, prelude::*};
use jiff::Timestamp;

use crate::{
    postgres::Database,
    support::{Gate, World, outcome, soon, task_in, until},
};

/// Waits at the gate.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Stand {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Note {
    text: String,
}
message! { Stand -> (); Note -> () }

fn note(text: &str) -> Note {
    Note { text: text.to_owned() }
}

#[derive(Default, Serialize, Deserialize)]
struct Porter {
    done: u64,
}
impl Agent for Porter {
    const KIND: &'static str = "porter";
    type Messages = (Stand, Note);
    fn policy() -> Policy {
        // nothing but the gate ends it
        Policy::default().turn_timeout(Duration::from_secs(3_600))
    }
}
impl Handler<Stand> for Porter {
    async fn handle(&mut self, _: Stand, turn: &Turn<Self>) -> Result<()> {
        self.done += 1;
        turn.resource::<Gate>().wait().await;
        Ok(())
    }
}
impl Handler<Note> for Porter {
    async fn handle(&mut self, note: Note, turn: &Turn<Self>) -> Result<()> {
        self.done += 1;
        turn.resource::<Gate>().note(note.text);
        Ok(())
    }
}

/// Waits at the gate, one call at a time.
struct Winch(Gate);
impl Tool for Winch {
    const NAME: &'static str = "winch";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Note;
    fn limits(&self) -> Limits {
        let timeout = Some(Duration::from_secs(3_600));
        Limits { concurrency: Some(1), timeout, ..Limits::default() }
    }
    async fn run(&self, note: Note, _: &Call) -> Result<()> {
        self.0.wait().await;
        self.0.note(note.text);
        Ok(())
    }
}

fn program(gate: &Gate) -> greenroom::Builder {
    Runtime::builder().agent::<Porter>().tool(Winch(gate.clone())).resource(gate.clone())
}

async fn passes(at: Timestamp) {
    until("its time passes", || async { Timestamp::now() > at }).await;
}

/// It has ended as what was never claimed ends, and did not run.
async fn has_expired(world: &World, id: TaskId) {
    task_in(&world.handle(), id, "cancelled").await;
    let history = soon(world.handle().operator().history(id)).await.unwrap();
    let told: Vec<_> = history.iter().map(|e| (e.event.as_str(), e.attempt, e.detail.as_deref())).collect();
    assert_eq!(told, [("accepted", 0, None), ("cancelled", 0, Some("it expired before it started"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_waits_past_its_tasks_expiry_does_not_begin() {
    let gate = Gate::default();
    let mut world = World::start(program(&gate)).await;
    let handle = world.handle();
    let stand = soon(handle.agent::<Porter>("a").submit(Stand {})).await.unwrap();
    gate.arrival().await;
    let at = Timestamp::now() + Duration::from_secs(2);
    let late = soon(handle.agent::<Porter>("a").submit(note("late")).expires_at(at)).await.unwrap();
    let never = soon(handle.agent::<Porter>("a").submit(note("never late"))).await.unwrap();
    task_in(&handle, late, "running").await;
    passes(at).await;
    gate.open(1);
    has_expired(&world, late).await;
    task_in(&handle, stand, "succeeded").await;
    outcome::<Note>(&handle, never).await;
    assert_eq!(*gate.notes.lock(), ["never late"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_past_its_tasks_expiry_does_not_begin() {
    let gate = Gate::default();
    let mut world = World::start(program(&gate)).await;
    let handle = world.handle();
    let caller = handle.clone();
    let call = tokio::spawn(async move { caller.tool::<Winch>().call(note("direct")).await });
    gate.arrival().await;
    let at = Timestamp::now() + Duration::from_secs(2);
    let late = soon(handle.tool::<Winch>().submit(note("late")).expires_at(at)).await.unwrap();
    task_in(&handle, late, "running").await;
    passes(at).await;
    gate.open(1);
    soon(call).await.unwrap().unwrap();
    has_expired(&world, late).await;
    assert_eq!(*gate.notes.lock(), ["direct"]);
    world.end().await;
}

/// A kind whose tasks wait until they are all there.
async fn submit_together(handle: &Handle, tasks: impl AsyncFnOnce(&Handle)) {
    soon(handle.operator().pause_kind("porter", true)).await.unwrap();
    tasks(handle).await;
    soon(handle.operator().pause_kind("porter", false)).await.unwrap();
}

async fn one_busy_agent(program: greenroom::Builder, gate: &Gate) {
    let mut world = World::start(program).await;
    let handle = world.handle();
    submit_together(&handle, async |handle| {
        soon(handle.agent::<Porter>("hot").submit(Stand {})).await.unwrap();
        let notes = (0..1_400).map(|_| handle.agent::<Porter>("hot").submit(note("hot")).into_future());
        soon(try_join_all(notes)).await.unwrap();
    })
    .await;
    gate.arrival().await;
    let other = soon(handle.agent::<Porter>("other").submit(note("other"))).await.unwrap();
    outcome::<Note>(&handle, other).await;
    let urgent = soon(handle.agent::<Porter>("hot").submit(note("urgent")).priority(5)).await.unwrap();
    gate.open(1);
    outcome::<Note>(&handle, urgent).await;
    until("all is done", || async { gate.notes.lock().len() == 1_402 }).await;
    let before = gate.notes.lock().iter().position(|note| note == "urgent").unwrap();
    assert!(before < 400, "{before} were before what is urgent");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_busy_agent_holds_up_no_other_of_its_kind() {
    let gate = Gate::default();
    one_busy_agent(program(&gate), &gate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_busy_agent_holds_up_no_other_of_its_kind_on_postgres() {
    let (gate, database) = (Gate::default(), Database::new());
    one_busy_agent(program(&gate).set("store.url", &database.url()), &gate).await;
}

async fn a_bound_counts_agents(program: greenroom::Builder, gate: &Gate) {
    let mut world = World::start(program.set("agents.porter.concurrency", "2")).await;
    let handle = world.handle();
    submit_together(&handle, async |handle| {
        for _ in 0..24 {
            soon(handle.agent::<Porter>("hot").submit(Stand {})).await.unwrap();
        }
        soon(handle.agent::<Porter>("second").submit(Stand {})).await.unwrap();
        soon(handle.agent::<Porter>("third").submit(note("third"))).await.unwrap();
    })
    .await;
    // one of the first agent, whatever waits for it, and one of the second
    gate.arrival().await;
    gate.arrival().await;
    assert_eq!(gate.notes.lock().len(), 0, "that would be a third");
    gate.open(25);
    until("all are done", || async { gate.count("third") == 1 }).await;
    for _ in 0..23 {
        gate.arrival().await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_lane_of_an_agent_takes_no_part_of_its_kinds_concurrency() {
    let gate = Gate::default();
    a_bound_counts_agents(program(&gate), &gate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_lane_of_an_agent_takes_no_part_of_its_kinds_concurrency_on_postgres() {
    let (gate, database) = (Gate::default(), Database::new());
    a_bound_counts_agents(program(&gate).set("store.url", &database.url()), &gate).await;
}

/// Has it paused by a node, and looks at what another one had claimed.
async fn what_is_paused_goes_back(world: &World, other: &World, gate: &Gate) {
    let handle = world.handle();
    let stand = soon(handle.agent::<Porter>("a").submit(Stand {})).await.unwrap();
    gate.arrival().await;
    let mut waiting = Vec::new();
    for n in 0..5 {
        let id = soon(handle.agent::<Porter>("a").submit(note(&n.to_string()))).await.unwrap();
        task_in(&handle, id, "running").await;
        waiting.push(id);
    }
    soon(other.handle().operator().pause_kind("porter", true)).await.unwrap();
    for id in &waiting {
        let view = task_in(&handle, *id, "ready").await;
        assert_eq!(view.attempt, 0, "it was no attempt");
    }
    gate.open(1);
    task_in(&handle, stand, "succeeded").await;
    // asks are not affected, and stand behind what was claimed
    soon(handle.agent::<Porter>("a").ask(note("asked"))).await.unwrap();
    assert_eq!(*gate.notes.lock(), ["asked"]);
    for id in &waiting {
        task_in(&handle, *id, "ready").await;
    }
    soon(other.handle().operator().pause_kind("porter", false)).await.unwrap();
    for id in waiting {
        outcome::<Note>(&handle, id).await;
    }
    assert_eq!(*gate.notes.lock(), ["asked", "0", "1", "2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_claimed_of_a_kind_and_has_not_begun_goes_back_when_it_is_paused() {
    let gate = Gate::default();
    let mut world = World::start(program(&gate)).await;
    what_is_paused_goes_back(&world, &world, &gate).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_reaches_the_nodes_that_have_claimed() {
    let (gate, database) = (Gate::default(), Database::new());
    let node = || program(&gate).set("store.url", &database.url()).set("node.lease", "3s");
    // the first one owns the agents
    let mut world = World::start(node()).await;
    let mut other = World::start(node()).await;
    what_is_paused_goes_back(&world, &other, &gate).await;
    other.end().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_in_its_tool_goes_back_when_that_is_paused() {
    let gate = Gate::default();
    let mut world = World::start(program(&gate)).await;
    let handle = world.handle();
    let caller = handle.clone();
    let call = tokio::spawn(async move { caller.tool::<Winch>().call(note("direct")).await });
    gate.arrival().await;
    let task = soon(handle.tool::<Winch>().submit(note("task"))).await.unwrap();
    task_in(&handle, task, "running").await;
    soon(handle.operator().pause_kind("tool:winch", true)).await.unwrap();
    assert_eq!(task_in(&handle, task, "ready").await.attempt, 0);
    gate.open(2);
    soon(call).await.unwrap().unwrap();
    assert_eq!(*gate.notes.lock(), ["direct"]);
    soon(handle.operator().pause_kind("tool:winch", false)).await.unwrap();
    outcome::<Note>(&handle, task).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_tool_has_no_room_for_its_call_has_not_failed() {
    let gate = Gate::default();
    let mut world = World::start(program(&gate)).await;
    let handle = world.handle();
    let calls: Vec<_> = (0..4_200)
        .map(|_| {
            let handle = handle.clone();
            tokio::spawn(async move { handle.tool::<Winch>().call(note("direct")).await.is_ok() })
        })
        .collect();
    gate.arrival().await;
    until("its room is full", || async {
        let tools = handle.operator().tools().await;
        tools.iter().any(|tool| tool.waiting >= 4_096)
    })
    .await;
    let task = soon(handle.tool::<Winch>().submit(note("task")).max_attempts(1)).await.unwrap();
    let view = task_in(&handle, task, "scheduled").await;
    assert_eq!(view.error.map(|error| error.code).as_deref(), Some("overloaded"));
    gate.open(5_000);
    for call in calls {
        soon(call).await.unwrap();
    }
    outcome::<Note>(&handle, task).await;
    assert_eq!(gate.count("task"), 1);
    world.end().await;
}

/// The same kind in the version before, which takes no notes.
mod before {
    use super::*;

    #[derive(Default, Serialize, Deserialize)]
    pub(super) struct Porter {
        done: u64,
    }
    impl Agent for Porter {
        const KIND: &'static str = "porter";
        type Messages = Stand;
    }
    impl Handler<Stand> for Porter {
        async fn handle(&mut self, _: Stand, _: &Turn<Self>) -> Result<()> {
            self.done += 1;
            Ok(())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_message_waits_for_the_nodes_that_take_it() {
    let (gate, database) = (Gate::default(), Database::new());
    let shared =
        |program: greenroom::Builder| program.set("store.url", &database.url()).set("node.lease", "3s");
    // it owns the agents
    let mut old = World::start(shared(Runtime::builder().agent::<before::Porter>())).await;
    let mut new = World::start(shared(program(&gate))).await;
    let task = soon(new.handle().agent::<Porter>("a").submit(note("new"))).await.unwrap();
    task_in(&new.handle(), task, "running").await;
    let view = task_in(&new.handle(), task, "ready").await;
    assert_eq!(view.attempt, 0, "it was no attempt");
    old.end().await;
    outcome::<Note>(&new.handle(), task).await;
    assert_eq!(*gate.notes.lock(), ["new"]);
    // where nobody takes it, it does not wait
    soon(new.handle().operator().pause_kind("porter", true)).await.unwrap();
    let task = soon(new.handle().agent::<Porter>("a").submit(note("none"))).await.unwrap();
    new.end().await;
    let mut old = World::start(shared(Runtime::builder().agent::<before::Porter>())).await;
    soon(old.handle().operator().pause_kind("porter", false)).await.unwrap();
    let view = task_in(&old.handle(), task, "failed").await;
    assert_eq!(view.error.map(|error| error.code).as_deref(), Some("unknown_message"));
    old.end().await;
}
