//! Settings that change while the node runs: all of a change or nothing, at once where no restart is needed.

use greenroom::{
    AskError, Builder,
    prelude::*,
    runtime::{Applied, operator::OperatorError, views::TaskRequest},
};
use serde_json::{Value, json};

use crate::{
    postgres::Database,
    support::{Gate, World, soon, until},
};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Shop {
    greeting: String,
    most: u32,
}
impl Default for Shop {
    fn default() -> Self {
        Self { greeting: "hello".into(), most: 10 }
    }
}
impl Settings for Shop {
    const SECTION: &'static str = "shop";
    fn validate(&self) -> Result<()> {
        ensure!(self.most < 100, "most is at most 99");
        Ok(())
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Clerk;
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Greet;
message!(Greet -> String);
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Trip;
message!(Trip -> ());

impl Agent for Clerk {
    const KIND: &'static str = "clerk";
    type Messages = (Greet, Trip);
}
impl Handler<Greet> for Clerk {
    async fn handle(&mut self, _: Greet, turn: &Turn<Self>) -> Result<String> {
        let shop = turn.settings::<Shop>();
        Ok(format!("{} {}", shop.greeting, shop.most))
    }
}
impl Handler<Trip> for Clerk {
    async fn handle(&mut self, _: Trip, _: &Turn<Self>) -> Result<()> {
        panic!("over the doorstep")
    }
}

fn program() -> Builder {
    Runtime::builder().settings::<Shop>().agent::<Clerk>()
}

/// Where each finding points, of a change that is refused.
async fn refused(handle: &Handle, patch: Value) -> Vec<String> {
    match soon(handle.operator().configure(&patch, None, false)).await {
        Err(OperatorError::Ask(AskError::Invalid(invalid))) => {
            invalid.0.into_iter().map(|(at, _)| at).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn value(handle: &Handle, key: &str) -> Value {
    let view = handle.operator().configuration();
    view.items.iter().find(|item| item.key == key).map_or(Value::Null, |item| item.value.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_programs_own_changes_for_the_next_turn() {
    let mut world = World::start(program()).await;
    let handle = world.handle();
    let clerk = handle.agent::<Clerk>("a");
    assert_eq!(soon(clerk.ask(Greet)).await.unwrap(), "hello 10");
    let change = json!({"app": {"shop": {"greeting": "good evening"}}});
    let applied = soon(handle.operator().configure(&change, None, false)).await.unwrap();
    assert_eq!((applied.generation, applied.applied), (1, vec!["app.shop.greeting".to_owned()]));
    assert_eq!(soon(clerk.ask(Greet)).await.unwrap(), "good evening 10");
    // it is kept
    world.end().await;
    world.start_again(program()).await;
    let handle = world.handle();
    assert_eq!(soon(handle.agent::<Clerk>("a").ask(Greet)).await.unwrap(), "good evening 10");
    let back = json!({"app": {"shop": null}});
    soon(handle.operator().configure(&back, None, false)).await.unwrap();
    assert_eq!(soon(handle.agent::<Clerk>("a").ask(Greet)).await.unwrap(), "hello 10");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_taken_whole_or_not_at_all() {
    let world = World::start(program()).await;
    let handle = world.handle();
    let before = handle.operator().configuration();
    let bad = json!({
        "app": {"shop": {"greeting": "x", "most": 5}},
        "tasks": {"slots": "many", "slts": 3},
        "node": {"threads": 9},
    });
    assert_eq!(refused(&handle, bad).await, ["/node/threads", "/tasks/slots", "/tasks/slts"]);
    assert_eq!(refused(&handle, json!({"app": {"shop": {"most": 100}}})).await, ["/app/shop"]);
    assert_eq!(refused(&handle, json!({"app": {"shop": {"mots": 1}}})).await, ["/app/shop/mots"]);
    assert_eq!(refused(&handle, json!({"http": {"token": "x"}})).await, ["/http/token"], "no secrets");
    assert_eq!(refused(&handle, json!(3)).await, [""]);
    let after = handle.operator().configuration();
    assert_eq!((after.tag, after.items), (before.tag, before.items));
    assert_eq!(soon(handle.agent::<Clerk>("a").ask(Greet)).await.unwrap(), "hello 10");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_told_and_waits_for_it() {
    let mut world = World::start(program()).await;
    let operator = world.handle().operator().clone();
    let change = json!({"agents.default.mailbox": 7, "tasks": {"slots": 3}, "log.level": "debug"});
    let dry = soon(operator.configure(&change, None, true)).await.unwrap();
    assert_eq!(value(&world.handle(), "tasks.slots"), json!(64), "a dry run changes nothing");
    let applied = soon(operator.configure(&change, None, false)).await.unwrap();
    assert_eq!((&*dry.tag, &*applied.tag), ("0", "1"), "it names what it was made upon");
    assert_eq!(applied, Applied { tag: applied.tag.clone(), ..dry });
    assert_eq!(applied.applied, ["tasks.slots"]);
    assert_eq!(applied.needs_restart, ["agents.default.mailbox"]);
    assert_eq!(applied.overruled.len(), 1, "the test's program sets log.level itself: {applied:?}");
    assert_eq!(
        (&*applied.overruled[0].key, applied.overruled[0].by.to_string()),
        ("log.level", "program".into())
    );
    let handle = world.handle();
    assert_eq!(
        (value(&handle, "tasks.slots"), value(&handle, "agents.default.mailbox")),
        (json!(3), json!(1024))
    );
    assert_eq!(operator.configuration().needs_restart, ["agents.default.mailbox"]);
    drop((operator, handle));
    world.end().await;
    world.start_again(program()).await;
    let handle = world.handle();
    assert_eq!(value(&handle, "agents.default.mailbox"), json!(7));
    assert_eq!(handle.operator().configuration().needs_restart, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_for_what_was_changed_since_is_refused() {
    let world = World::start(program()).await;
    let operator = world.handle().operator().clone();
    let seen = operator.configuration().tag;
    let slots = |n: u32| json!({"tasks": {"slots": n}});
    soon(operator.configure(&slots(3), Some(&seen), false)).await.unwrap();
    let stale = soon(operator.configure(&slots(4), Some(&seen), false)).await.unwrap_err();
    assert_eq!(stale.code(), "precondition_failed");
    let now = operator.configuration().tag;
    let same = soon(operator.configure(&slots(3), Some(&now), false)).await.unwrap();
    assert_eq!((same.generation, same.changed), (1, Vec::new()), "nothing was changed");
    assert_eq!(operator.configuration().tag, now);
}

/// A limit of restarts that is lowered while an agent lives holds for its next crash.
#[tokio::test(flavor = "multi_thread")]
async fn supervision_changes_for_agents_that_run() {
    let world = World::start(program()).await;
    let handle = world.handle();
    let clerk = handle.agent::<Clerk>("a");
    soon(clerk.ask(Trip)).await.unwrap_err();
    assert!(soon(clerk.ask(Greet)).await.is_ok(), "ten restarts are the default");
    let none = json!({"supervision": {"max_restarts": 0}});
    soon(handle.operator().configure(&none, None, false)).await.unwrap();
    soon(clerk.ask(Trip)).await.unwrap_err();
    until("it is stopped", || async {
        handle.operator().agent("clerk", "a").await.is_ok_and(|agent| agent.status == "stopped")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_is_told_the_others_take_over() {
    let database = Database::new();
    let (mut one, mut other) = (World::idle(), World::idle());
    one.start_again(program().set("store.url", &database.url())).await;
    other.start_again(program().set("store.url", &database.url())).await;
    let change = json!({"app": {"shop": {"greeting": "moin"}}, "tasks": {"slots": 3}});
    soon(one.handle().operator().configure(&change, None, false)).await.unwrap();
    let there = other.handle();
    until("the other one has it", || async { value(&there, "tasks.slots") == json!(3) }).await;
    assert_eq!(value(&there, "app.shop.greeting"), json!("moin"));
    let (a, b) = (one.handle().operator().clone(), there.operator().clone());
    // both change at once: neither is lost
    let (x, y) = (json!({"tasks": {"max_backlog": 5}}), json!({"app": {"shop": {"most": 6}}}));
    let (x, y) = tokio::join!(a.configure(&x, None, false), b.configure(&y, None, false));
    x.unwrap();
    y.unwrap();
    for world in [&one, &other] {
        let handle = world.handle();
        until("both have both", || async {
            value(&handle, "tasks.max_backlog") == json!(5) && value(&handle, "app.shop.most") == json!(6)
        })
        .await;
    }
}

/// What a tag names is what the store keeps, whoever has read it last.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_means_the_same_on_every_node() {
    let database = Database::new();
    let (mut one, mut other) = (World::idle(), World::idle());
    one.start_again(program().set("store.url", &database.url())).await;
    other.start_again(program().set("store.url", &database.url())).await;
    let (one, other) = (one.handle().operator().clone(), other.handle().operator().clone());
    let slots = |n: u32| json!({"tasks": {"slots": n}});
    let seen = other.configuration().tag;
    assert_eq!(seen, one.configuration().tag);
    soon(one.configure(&slots(3), Some(&seen), false)).await.unwrap();
    // whether or not it knows already
    let stale = soon(other.configure(&slots(4), Some(&seen), false)).await.unwrap_err();
    assert_eq!(stale.code(), "precondition_failed");
    soon(other.configure(&slots(5), Some(&one.configuration().tag), false)).await.unwrap();
}

/// More slots are used by what waits already.
#[tokio::test(flavor = "multi_thread")]
async fn slots_change_for_tasks_that_wait() {
    #[derive(Clone, Serialize, Deserialize, JsonSchema)]
    struct Stand;
    message!(Stand -> ());
    let gate = Gate::default();
    let there = gate.clone();
    let stand = move |_: Stand, _: Call| {
        let gate = there.clone();
        async move {
            gate.wait().await;
            Ok(())
        }
    };
    let mut world = World::idle();
    world.start_again(program().tool_fn("stand", Effect::Idempotent, stand)).await;
    let handle = world.handle();
    let one = json!({"tasks": {"slots": 1}});
    soon(handle.operator().configure(&one, None, false)).await.unwrap();
    for _ in 0..3 {
        soon(handle.operator().submit(TaskRequest { target: "tool:stand".into(), ..Default::default() }))
            .await
            .unwrap();
    }
    soon(gate.arrival()).await;
    let running = || async { handle.operator().status().await.tasks.get("running").copied() };
    assert_eq!(running().await, Some(1), "there is one slot");
    let three = json!({"tasks": {"slots": 3}});
    soon(handle.operator().configure(&three, None, false)).await.unwrap();
    soon(gate.arrival()).await;
    soon(gate.arrival()).await;
    assert_eq!(running().await, Some(3));
    gate.open(3);
}
