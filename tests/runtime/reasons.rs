//! What `status` says is wrong: each reason with its beginning, which stays where it is however often somebody
//! asks; and no longer than it is so.

use std::sync::Arc;

use greenroom::{
    AskError, Call, Persistence,
    prelude::*,
    runtime::{operator::Resolution, views::Action},
};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::{
    faulty::Faults,
    postgres::Database,
    support::{Gate, World, soon, task_in, until},
};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Work {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Block {}
/// Blocks its thread until the test lets it go.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Spin {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Crash {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Fire {}
message! { Work -> (); Block -> (); Spin -> (); Crash -> (); Fire -> () }

#[derive(Default, Serialize, Deserialize)]
struct Clerk {}
impl Agent for Clerk {
    const KIND: &'static str = "clerk";
    type Messages = (Work, Block, Crash);
    fn policy() -> Policy {
        Policy::default().mailbox(8)
    }
}
impl Handler<Work> for Clerk {
    async fn handle(&mut self, _: Work, _: &Turn<Self>) -> Result<()> {
        Ok(())
    }
}
impl Handler<Block> for Clerk {
    async fn handle(&mut self, _: Block, turn: &Turn<Self>) -> Result<()> {
        turn.resource::<Gate>().wait().await;
        Ok(())
    }
}
impl Handler<Crash> for Clerk {
    async fn handle(&mut self, _: Crash, _: &Turn<Self>) -> Result<()> {
        panic!("as asked")
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Top {}
impl Agent for Top {
    const KIND: &'static str = "reasons_top";
    type Messages = Spin;
    fn policy() -> Policy {
        Policy::default().persistence(Persistence::Volatile)
    }
}
impl Handler<Spin> for Top {
    async fn handle(&mut self, _: Spin, turn: &Turn<Self>) -> Result<()> {
        let gate = turn.resource::<Arc<Semaphore>>();
        while gate.try_acquire().is_err() {
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// Its cannon fires when the gate opens, and not twice.
fn bare(gate: &Gate) -> greenroom::Builder {
    let fire = {
        let gate = gate.clone();
        move |_: Fire, _: Call| {
            let gate = gate.clone();
            async move {
                gate.wait().await;
                anyhow::Ok(())
            }
        }
    };
    Runtime::builder().agent::<Clerk>().resource(gate.clone()).tool_fn("cannon", Effect::Once, fire)
}

fn program(gate: &Gate) -> greenroom::Builder {
    bare(gate).set("tasks.max_backlog", "2").set("supervision.max_restarts", "1")
}

/// Since when status says that.
async fn since(world: &World, code: &str) -> Option<Timestamp> {
    let reasons = soon(world.handle().operator().status()).await.reasons;
    reasons.into_iter().find(|reason| reason.code == code).map(|reason| reason.since)
}

/// Waits until it is said, and looks whether it says that it began behind `from` and stays there.
async fn began(world: &World, code: &str, from: Timestamp) -> Timestamp {
    until(code, || async { since(world, code).await.is_some() }).await;
    let first = since(world, code).await.unwrap();
    let ms = |at: Timestamp| at.as_millisecond();
    assert!(ms(from) <= ms(first) && first <= Timestamp::now(), "{code}: {from} <= {first}");
    until("a moment passes", || async { ms(Timestamp::now()) > ms(first) + 20 }).await;
    let later = since(world, code).await.unwrap();
    // what is told by one clock first and by another later may differ by a little, and less than has passed
    assert!((ms(later) - ms(first)).abs() <= 10, "{code}: it has begun, and begins no more: {first} {later}");
    first
}

async fn is_over(world: &World, code: &str) {
    until(&format!("{code} is over"), || async { since(world, code).await.is_none() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_in_doubt_since_it_was_not_renewed_in_time() {
    let (gate, faults) = (Gate::default(), Faults::default());
    let world = World::start(faults.under(program(&gate)).set("node.lease", "3s")).await;
    let from = Timestamp::now();
    faults.no_renewals(true);
    let first = began(&world, "lease_in_doubt", from).await;
    faults.no_renewals(false);
    is_over(&world, "lease_in_doubt").await;
    let from = Timestamp::now();
    faults.no_renewals(true);
    assert!(began(&world, "lease_in_doubt", from).await > first, "another doubt");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_stuck_since_its_thread_was_last_free() {
    let gate = Arc::new(Semaphore::new(0));
    let world = World::start(Runtime::builder().agent::<Top>().resource(gate.clone())).await;
    let from = Timestamp::now();
    let spinning = tokio::spawn(world.handle().agent::<Top>("a").ask(Spin {}));
    until("it is seen", || async { since(&world, "agent_stuck").await.is_some() }).await;
    let (seen, first) = (Timestamp::now(), since(&world, "agent_stuck").await.unwrap());
    // its heart may have beaten for the last time a beat earlier; and it is told of after a second
    let beat = Duration::from_millis(250);
    assert!(first + beat >= from && first + Duration::from_millis(900) <= seen, "{from} {first} {seen}");
    assert_eq!(since(&world, "agent_stuck").await, Some(first));
    gate.add_permits(1);
    soon(spinning).await.unwrap().unwrap();
    is_over(&world, "agent_stuck").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_is_full_since_it_was_seen_so() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let agent = world.handle().agent::<Clerk>("a");
    let blocked = tokio::spawn(agent.ask(Block {}).into_future());
    gate.arrival().await;
    let from = Timestamp::now();
    for _ in 0..8 {
        assert!(soon(agent.tell(Work {})).await.is_ok());
    }
    began(&world, "mailbox_full", from).await;
    gate.open(1);
    soon(blocked).await.unwrap().unwrap();
    is_over(&world, "mailbox_full").await;
}

async fn quarantines_and_unknown_outcomes_have_their_beginnings(
    gate: Gate,
    program: impl Fn() -> greenroom::Builder,
) {
    let mut world = World::start(program()).await;
    let operator = world.handle().operator().clone();
    for key in ["a", "b"] {
        soon(world.handle().agent::<Clerk>(key).ask(Work {})).await.unwrap();
    }
    let from = Timestamp::now();
    for key in ["a", "b"] {
        operator.act("clerk", key, Action::Quarantine).await.unwrap();
    }
    let quarantined = began(&world, "agents_quarantined", from).await;

    // an effect is interrupted by the end of the node
    let fired =
        soon(world.handle().operator().submit(
            serde_json::from_value(serde_json::json!({"target": "tool:cannon", "input": {}})).unwrap(),
        ))
        .await
        .unwrap()
        .0
        .id;
    gate.arrival().await;
    let from = Timestamp::now();
    drop(operator);
    world.end().await;
    world.start_again(program()).await;
    let operator = world.handle().operator().clone();
    task_in(&world.handle(), fired, "outcome_unknown").await;
    let unknown = began(&world, "outcome_unknown", from).await;
    assert_eq!(since(&world, "agents_quarantined").await, Some(quarantined), "a restart changes nothing");

    operator.act("clerk", "a", Action::Release).await.unwrap();
    let later = since(&world, "agents_quarantined").await.unwrap();
    assert!(later > quarantined, "that of the other one");
    operator.act("clerk", "b", Action::Release).await.unwrap();
    is_over(&world, "agents_quarantined").await;
    assert_eq!(since(&world, "outcome_unknown").await, Some(unknown));
    operator.resolve(fired, Resolution::Succeeded(serde_json::Value::Null)).await.unwrap();
    is_over(&world, "outcome_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantines_and_unknown_outcomes_have_their_beginnings_in_a_file() {
    let gate = Gate::default();
    quarantines_and_unknown_outcomes_have_their_beginnings(gate.clone(), || bare(&gate)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantines_and_unknown_outcomes_have_their_beginnings_on_postgres() {
    let database = Database::new();
    let gate = Gate::default();
    let program = || bare(&gate).set("store.url", &database.url());
    quarantines_and_unknown_outcomes_have_their_beginnings(gate.clone(), program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_full_since_it_was_and_not_since_somebody_asked() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let (handle, operator) = (world.handle(), world.handle().operator().clone());
    operator.pause_kind("clerk", true).await.unwrap();
    let paused = Timestamp::now();
    let mut tasks = Vec::new();
    for _ in 0..2 {
        tasks.push(soon(handle.agent::<Clerk>("a").submit(Work {})).await.unwrap());
    }
    let refused = soon(handle.agent::<Clerk>("a").submit(Work {})).await;
    assert!(matches!(refused, Err(AskError::Overloaded { .. })), "{refused:?}");
    let told = Timestamp::now();
    // nobody has asked for the status yet
    let first = began(&world, "backlog_full", paused).await;
    assert!(first <= told, "since somebody was refused: {first} {told}");
    assert!(since(&world, "kind_paused").await.unwrap() <= paused);
    operator.pause_kind("clerk", false).await.unwrap();
    for task in tasks {
        task_in(&handle, task, "succeeded").await;
    }
    is_over(&world, "backlog_full").await;
    is_over(&world, "kind_paused").await;
}

/// Nobody is refused and nobody asks: the node looks by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_others_fill_is_noticed_by_the_node_itself() {
    let (gate, faults) = (Gate::default(), Faults::default());
    let world = World::start(faults.under(program(&gate))).await;
    let operator = world.handle().operator().clone();
    operator.pause_kind("clerk", true).await.unwrap();
    for _ in 0..2 {
        soon(world.handle().agent::<Clerk>("a").submit(Work {})).await.unwrap();
    }
    let (filled, counts) = (Timestamp::now(), faults.counts());
    until("the node has counted", || async { faults.counts() > counts + 1 }).await;
    let counted = Timestamp::now();
    let first = since(&world, "backlog_full").await.unwrap();
    assert!(first <= counted, "{filled} {first} {counted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_is_so_since_it_was_drained() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let (operator, from) = (world.handle().operator().clone(), Timestamp::now());
    operator.drain(true).await.unwrap();
    began(&world, "draining", from).await;
    operator.drain(false).await.unwrap();
    is_over(&world, "draining").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_stopped_since_it_was_given_up() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let agent = world.handle().agent::<Clerk>("a");
    let from = Timestamp::now();
    until("it is given up", || async {
        let _ = soon(agent.ask(Crash {})).await;
        since(&world, "agent_stopped").await.is_some()
    })
    .await;
    began(&world, "agent_stopped", from).await;
    world.handle().operator().act("clerk", "a", Action::Restart).await.unwrap();
    is_over(&world, "agent_stopped").await;
}

/// After a restart all was well, and the tasks of the agent stayed parked.
#[tokio::test(flavor = "multi_thread")]
async fn that_an_agent_was_given_up_is_told_also_after_a_restart() {
    let gate = Gate::default();
    let mut world = World::start(program(&gate)).await;
    let agent = world.handle().agent::<Clerk>("a");
    let from = Timestamp::now().as_millisecond();
    until("it is given up", || async {
        let _ = soon(agent.ask(Crash {})).await;
        since(&world, "agent_stopped").await.is_some()
    })
    .await;
    soon(world.handle().agent::<Clerk>("b").ask(Work {})).await.unwrap();
    world.handle().operator().act("clerk", "b", Action::Stop).await.unwrap();
    let given_up = Timestamp::now().as_millisecond();
    drop(agent);
    world.end().await;
    world.start_again(program(&gate)).await;
    let status = soon(world.handle().operator().status()).await;
    let told: Vec<_> = status.reasons.iter().filter(|reason| reason.code == "agent_stopped").collect();
    assert_eq!(told.len(), 1, "who an operator has stopped is no news: {told:?}");
    assert!(told[0].message.starts_with("clerk/a is stopped: it crashed more than"), "{told:?}");
    let since = told[0].since.as_millisecond();
    assert!(from <= since && since <= given_up, "{from} <= {since} <= {given_up}");
    world.handle().operator().act("clerk", "a", Action::Restart).await.unwrap();
    is_over(&world, "agent_stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_down_since_its_first_failure() {
    let (gate, faults) = (Gate::default(), Faults::default());
    let world = World::start(faults.under(program(&gate))).await;
    let from = Timestamp::now();
    faults.fail(Some("connection refused"));
    // whoever asks first is the first to meet it
    let first = since(&world, "store_down").await.unwrap();
    assert!(from <= first, "{from} {first}");
    assert_eq!(began(&world, "store_down", from).await, first);
    until("it is known", || async {
        let answer = soon(world.handle().agent::<Clerk>("a").ask(Work {})).await;
        matches!(answer, Err(AskError::Unavailable(_)))
    })
    .await;
    assert_eq!(since(&world, "store_down").await, Some(first));
    faults.fail(None);
    is_over(&world, "store_down").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_full_until_something_was_written_again() {
    let (gate, faults) = (Gate::default(), Faults::default());
    let world = World::start(faults.under(program(&gate))).await;
    let agent = world.handle().agent::<Clerk>("a");
    let from = Timestamp::now();
    faults.fill(true);
    assert!(matches!(soon(agent.ask(Work {})).await, Err(AskError::NoRoom(_))));
    let first = began(&world, "store_down", from).await;
    // nobody sends anything more: the node tries it by itself
    let tried = faults.trials();
    until("it has been tried", || async { faults.trials() > tried + 1 }).await;
    assert_eq!(since(&world, "store_down").await, Some(first));
    assert!(matches!(soon(agent.ask(Work {})).await, Err(AskError::NoRoom(_))));
    assert_eq!(since(&world, "store_down").await, Some(first), "the same spell");
    faults.fill(false);
    assert_eq!(since(&world, "store_down").await, Some(first), "room alone tells nobody");
    is_over(&world, "store_down").await;
    assert!(world.handle().operator().ready().await.is_ok());
}
