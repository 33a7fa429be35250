//! A store that is down, hangs, is full or forgets to answer: callers are told at once, nothing that
//! was acknowledged is lost, and the node goes on by itself when it is back.

use std::time::Instant;

use futures_util::future::join_all;
use greenroom::{model::task::TaskState, prelude::*};

use crate::{
    faulty::Faults,
    support::{World, outcome, soon, until},
};

#[derive(Default, Serialize, Deserialize)]
struct Till {
    sum: i64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    n: i64,
}
message!(Add -> i64);

impl Agent for Till {
    const KIND: &'static str = "till";
    type Messages = Add;
}
impl Handler<Add> for Till {
    async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<i64> {
        self.sum += add.n;
        Ok(self.sum)
    }
}

async fn world() -> (World, Faults) {
    let faults = Faults::default();
    (World::start(faults.under(Runtime::builder().agent::<Till>())).await, faults)
}

/// Why the node is not ready, by code and message.
async fn trouble(world: &World) -> Option<(String, String)> {
    let reasons = world.handle().operator().ready().await.err()?;
    reasons.into_iter().next().map(|r| (r.code, r.message))
}

async fn is_down(world: &World) {
    until("the outage is known", || async {
        trouble(world).await.is_some_and(|(code, _)| code == "store_down")
    })
    .await;
}

/// Asks until one is turned away, then that all are, and within a second.
async fn everybody_is_turned_away(world: &World) {
    let handle = world.handle();
    let fresh = |n: usize| handle.agent::<Till>(format!("fresh-{n}"));
    let known = handle.agent::<Till>("a");
    until("asks are turned away", || async {
        let ask = handle.agent::<Till>("probe").ask(Add { n: 0 }).timeout(Duration::from_millis(300));
        matches!(soon(ask).await, Err(AskError::Unavailable(_)))
    })
    .await;
    let begun = Instant::now();
    let answers = soon(join_all((0..50).map(|n| fresh(n).ask(Add { n: 1 })))).await;
    assert!(answers.iter().all(|a| matches!(a, Err(AskError::Unavailable(_)))), "{answers:?}");
    assert!(matches!(soon(known.ask(Add { n: 100 })).await, Err(AskError::Unavailable(_))));
    assert!(matches!(soon(known.submit(Add { n: 100 })).await, Err(AskError::Unavailable(_))));
    let error = soon(handle.operator().tell("till", "a", "Add", br#"{"n":100}"#, false)).await.unwrap_err();
    assert_eq!(error.code(), "unavailable");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_down_callers_are_told_at_once_and_what_is_under_way_is_kept() {
    let (world, faults) = world().await;
    let handle = world.handle();
    let agent = handle.agent::<Till>("a");
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 1);

    faults.fail(Some("FATAL: sorry, too many clients already"));
    let under_way = tokio::spawn({
        let agent = agent.clone();
        async move { agent.ask(Add { n: 1 }).await }
    });
    is_down(&world).await;
    let (_, message) = trouble(&world).await.unwrap();
    assert!(message.contains("too_many_connections"), "{message}");
    everybody_is_turned_away(&world).await;
    let status = soon(handle.operator().status()).await;
    assert_eq!(serde_json::to_value(status.verdict).unwrap(), "down");
    assert!(!under_way.is_finished(), "its outcome is not known yet");

    let back = Instant::now();
    faults.fail(None);
    assert_eq!(soon(under_way).await.unwrap().unwrap(), 2);
    until("it is ready again", || async { trouble(&world).await.is_none() }).await;
    until("it serves again", || async { agent.ask(Add { n: 0 }).await.is_ok() }).await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 3, "who was turned away did nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_is_one_that_is_down() {
    let (world, faults) = world().await;
    let agent = world.handle().agent::<Till>("a");
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 1);
    faults.hang(true);
    let under_way = tokio::spawn({
        let agent = agent.clone();
        async move { agent.ask(Add { n: 1 }).await }
    });
    is_down(&world).await;
    everybody_is_turned_away(&world).await;
    faults.hang(false);
    assert_eq!(soon(under_way).await.unwrap().unwrap(), 2);
    until("it serves again", || async { agent.ask(Add { n: 0 }).await.is_ok() }).await;
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_node_notices_that_the_store_is_back() {
    let (world, faults) = world().await;
    faults.fail(Some("connection refused"));
    // Nobody has a commit to try again: an activation alone has met the outage.
    let answer = soon(world.handle().agent::<Till>("a").ask(Add { n: 1 })).await;
    assert!(matches!(answer, Err(AskError::Unavailable(_))), "{answer:?}");
    is_down(&world).await;
    faults.fail(None);
    until("it is ready again", || async { trouble(&world).await.is_none() }).await;
    assert_eq!(soon(world.handle().agent::<Till>("a").ask(Add { n: 1 })).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_turns_nobody_away_who_has_not_tried() {
    let (world, faults) = world().await;
    let agent = world.handle().agent::<Till>("a");
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 1);
    faults.fill(true);
    for _ in 0..3 {
        assert!(matches!(soon(agent.ask(Add { n: 1 })).await, Err(AskError::NoRoom(_))));
    }
    let (code, message) = trouble(&world).await.unwrap();
    assert!(code == "store_down" && message.contains("disk_full"), "{message}");
    faults.fill(false);
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 2);
    assert_eq!(trouble(&world).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_wait_for_the_store_and_run_once() {
    let (world, faults) = world().await;
    let handle = world.handle();
    let agent = handle.agent::<Till>("a");
    let ids = soon(join_all((0..20).map(|_| agent.submit(Add { n: 1 })))).await;
    faults.fail(Some("the database system is shutting down"));
    is_down(&world).await;
    faults.fail(None);
    for id in ids {
        soon(handle.wait::<Add>(id.unwrap())).await.unwrap();
    }
    let late = soon(async {
        loop {
            if let Ok(id) = agent.submit(Add { n: 1 }).await {
                return id;
            }
        }
    })
    .await;
    outcome::<Add>(&handle, late).await;
    assert_eq!(handle.operator().task(late).await.unwrap().state, TaskState::Succeeded);
    assert_eq!(soon(agent.ask(Add { n: 0 })).await.unwrap(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_doubles_nothing() {
    let (world, faults) = world().await;
    let agent = world.handle().agent::<Till>("a");
    for n in 1..=20 {
        faults.lose_replies(usize::try_from(n).unwrap() % 3);
        assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), n);
    }
}

/// Of a commit that may have happened nobody says that it did not, whatever the store says next.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_is_not_made_good_by_a_full_disk() {
    let (world, faults) = world().await;
    let till = world.handle().agent::<Till>("a");
    assert_eq!(soon(till.ask(Add { n: 1 })).await, Ok(1));
    faults.lose_reply_and_fill();
    assert_eq!(soon(till.ask(Add { n: 10 })).await, Err(AskError::Unknown));
    faults.fill(false);
    until("there is room again", || async { soon(till.ask(Add { n: 100 })).await == Ok(111) }).await;
}
