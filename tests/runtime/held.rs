//! Agents whose state is not kept start without the store, and never against what it says of them.

use futures_util::future::join_all;
use greenroom::{
    Persistence,
    model::id::AgentId,
    prelude::*,
    runtime::views::Action,
    store::{Member, StoredStatus},
};
use uuid::Uuid;

use crate::{
    faulty::Faults,
    support::{World, soon, status, until},
};

#[derive(Default, Serialize, Deserialize)]
struct Lamp;
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Blink {}
message!(Blink -> ());

impl Agent for Lamp {
    const KIND: &'static str = "lamp";
    type Messages = Blink;
    fn policy() -> Policy {
        Policy::default().persistence(Persistence::Volatile)
    }
}
impl Handler<Blink> for Lamp {
    async fn handle(&mut self, _: Blink, _: &Turn<Self>) -> Result<()> {
        Ok(())
    }
}

/// The same, kept: its commits tell a node that another has taken over.
#[derive(Default, Serialize, Deserialize)]
struct Lantern {
    lit: u64,
}
impl Agent for Lantern {
    const KIND: &'static str = "lantern";
    type Messages = Blink;
}
impl Handler<Blink> for Lantern {
    async fn handle(&mut self, _: Blink, _: &Turn<Self>) -> Result<()> {
        self.lit += 1;
        Ok(())
    }
}

fn program() -> greenroom::Builder {
    Runtime::builder().agent::<Lamp>().agent::<Lantern>()
}

#[tokio::test(flavor = "multi_thread")]
async fn volatile_agents_start_without_asking_the_store() {
    let faults = Faults::default();
    let world = World::start(faults.under(program())).await;
    soon(world.handle().agent::<Lamp>("first").ask(Blink {})).await.unwrap();
    let loads = faults.loads();
    for n in 0..100 {
        soon(world.handle().agent::<Lamp>(n.to_string()).ask(Blink {})).await.unwrap();
    }
    assert_eq!(faults.loads(), loads);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volatile_agent_that_was_stopped_or_paused_is_so_when_the_node_starts_again() {
    let mut world = World::start(program()).await;
    world.handle().operator().act("lamp", "stopped", Action::Stop).await.unwrap();
    world.handle().operator().act("lamp", "paused", Action::Pause).await.unwrap();
    world.end().await;

    world.start_again(program()).await;
    let handle = world.handle();
    soon(handle.agent::<Lamp>("lit").ask(Blink {})).await.unwrap();
    let stopped = handle.agent::<Lamp>("stopped");
    assert_eq!(soon(stopped.ask(Blink {})).await.unwrap_err().code(), "wrong_state");
    handle.operator().act("lamp", "stopped", Action::Restart).await.unwrap();
    soon(stopped.ask(Blink {})).await.unwrap();
    let waits = tokio::spawn(handle.agent::<Lamp>("paused").ask(Blink {}));
    until("it is found paused", || async { status(&handle, "lamp", "paused").await == "paused" }).await;
    assert!(!waits.is_finished());
    handle.operator().act("lamp", "paused", Action::Resume).await.unwrap();
    soon(waits).await.unwrap().unwrap();
}

/// More than a page of them.
#[tokio::test(flavor = "multi_thread")]
async fn of_thousands_that_are_held_none_starts_and_they_are_read_once_for_all_who_come() {
    const HELD: usize = 1_005;
    let mut world = World::start(program()).await;
    let operator = world.handle().operator().clone();
    let stop = async |n: usize| operator.act("lamp", &format!("k{n}"), Action::Stop).await;
    for stopped in soon(join_all((0..HELD).map(stop))).await {
        stopped.unwrap();
    }
    drop(operator);
    world.end().await;

    let faults = Faults::default();
    world.start_again(faults.under(program())).await;
    faults.hang(true);
    let ask = |n: usize| world.handle().agent::<Lamp>(format!("k{n}")).ask(Blink {}).into_future();
    let asks: Vec<_> = (0..HELD + 50).map(|n| tokio::spawn(ask(n))).collect();
    until("the list is asked for", || async { faults.lists() > 0 }).await;
    faults.hang(false);
    for (n, answer) in soon(join_all(asks)).await.into_iter().enumerate() {
        match answer.unwrap() {
            Ok(()) => assert!(n >= HELD, "{n} is held"),
            Err(e) => assert!(n < HELD && e.code() == "wrong_state", "{n}: {e}"),
        }
    }
    // Of the stopped there are a page and some, and of the others none.
    assert_eq!(faults.lists(), 2 + 1 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_who_come_while_the_list_cannot_be_read_each_does_not_wait_for_the_next() {
    let faults = Faults::default();
    let world = World::start(faults.under(program())).await;
    faults.hang(true);
    faults.fail(Some("server closed the connection unexpectedly"));
    let ask =
        |n: usize| tokio::spawn(world.handle().agent::<Lamp>(n.to_string()).ask(Blink {}).into_future());
    let asks: Vec<_> = (0..200).map(ask).collect();
    until("the list is asked for", || async { faults.lists() > 0 }).await;
    faults.hang(false);
    for answer in soon(join_all(asks)).await {
        assert_eq!(answer.unwrap().unwrap_err().code(), "unavailable");
    }
    // Each tries six times; those who stood in line share the failure of one.
    let lists = faults.lists();
    assert!(lists < 200 * 6, "{lists} reads");
    faults.fail(None);
    until("it starts", || async { world.handle().agent::<Lamp>("0").ask(Blink {}).await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_owner_has_stopped_is_not_started_when_its_partition_is_back() {
    let faults = Faults::default();
    let world = World::start(faults.under(program()).set("node.lease", "30s")).await;
    let (lamp, lantern) = (world.handle().agent::<Lamp>("a"), world.handle().agent::<Lantern>("a"));
    soon(lamp.ask(Blink {})).await.unwrap();

    let (store, id) = (faults.store(), AgentId::of("lamp", "a"));
    let member = Member {
        boot: Uuid::now_v7(),
        instance: Uuid::now_v7(),
        name: "other".to_owned(),
        url: None,
        lease: Duration::from_secs(30),
        max_lost: 3,
    };
    let epoch = store.join(&member).await.unwrap().epochs[usize::try_from(id.partition()).unwrap()];
    store.set_status(id, "lamp", "a", epoch, StoredStatus::Stopped, Some("as told")).await.unwrap();

    soon(lantern.ask(Blink {})).await.unwrap_err();
    until("it has joined anew", || async { lantern.ask(Blink {}).await.is_ok() }).await;
    until("the lamp is found stopped", || async {
        lamp.ask(Blink {}).await.is_err_and(|e| e.code() == "wrong_state")
    })
    .await;
}
