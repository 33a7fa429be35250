//! Tasks that a node has claimed, and that have not begun.

use greenroom::{Call, Effect, Limits, prelude::*};
use jiff::Timestamp;

use crate::support::{Gate, World, outcome, soon, task_in, until};

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
