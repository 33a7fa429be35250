//! Idempotency keys: a repetition gets the first outcome, and nothing happens twice.

use futures_util::future::join_all;
use greenroom::{prelude::*, runtime::operator::SendOptions};

use crate::support::{Gate, World, outcome, soon};

#[derive(Default, Serialize, Deserialize)]
struct Till {
    cents: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Pay {
    cents: u64,
    end: End,
}
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
enum End {
    Well,
    Refused,
    Failed,
    Crashed,
    /// It waits at the gate, and fails.
    Held,
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("declined")]
struct Declined;
message! { Pay -> u64 | Declined }

impl Agent for Till {
    const KIND: &'static str = "till";
    type Messages = Pay;
    fn policy() -> Policy {
        Policy::default().max_restarts(1_000, Duration::from_secs(60)).backoff(Duration::ZERO, Duration::ZERO)
    }
}
impl Handler<Pay> for Till {
    async fn handle(&mut self, pay: Pay, turn: &Turn<Self>) -> Result<u64> {
        turn.resource::<Gate>().note(format!("pay {}", pay.cents));
        self.cents += pay.cents;
        match pay.end {
            End::Well => Ok(self.cents),
            End::Refused => Err(Pay::refuse(Declined)),
            End::Failed => bail!("no"),
            End::Crashed => panic!("as told"),
            End::Held => {
                turn.resource::<Gate>().wait().await;
                bail!("no")
            }
        }
    }
}

fn program(gate: &Gate) -> greenroom::Builder {
    Runtime::builder().agent::<Till>().resource(gate.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_gets_the_first_outcome() {
    let gate = Gate::default();
    let mut world = World::start(program(&gate)).await;
    let till = world.handle().agent::<Till>("a");
    let pay = |cents, end| till.ask(Pay { cents, end }).idempotency_key(format!("k{cents}"));
    assert_eq!(soon(pay(5, End::Well)).await, Ok(5));
    assert_eq!(soon(pay(7, End::Well)).await, Ok(12));
    assert_eq!(soon(pay(5, End::Well)).await, Ok(5));
    assert_eq!(soon(pay(5, End::Failed)).await, Err(AskError::Conflict));
    assert_eq!(soon(pay(11, End::Refused)).await, Err(AskError::Refused(Declined)));
    assert_eq!(soon(pay(11, End::Refused)).await, Err(AskError::Refused(Declined)));
    let failed = soon(pay(13, End::Failed)).await.unwrap_err();
    assert_eq!(soon(pay(13, End::Failed)).await.unwrap_err(), failed);
    for n in [5, 7, 11, 13] {
        assert_eq!(gate.count(&format!("pay {n}")), 1, "{n}");
    }
    // A crash is no outcome: the caller may try again.
    assert_eq!(soon(pay(17, End::Crashed)).await.unwrap_err().code(), "handler_crashed");
    assert_eq!(soon(pay(17, End::Crashed)).await.unwrap_err().code(), "handler_crashed");
    assert_eq!(gate.count("pay 17"), 2);
    // The same through the JSON door, and after a restart.
    world.end().await;
    world.start_again(program(&gate)).await;
    let options = SendOptions { idempotency_key: Some("k5".into()), ..SendOptions::default() };
    let body = br#"{"cents":5,"end":"Well"}"#;
    let reply = soon(world.handle().operator().ask("till", "a", "Pay", body, options)).await.unwrap();
    assert_eq!((reply.body.get(), reply.replayed), ("5", true));
    let till = world.handle().agent::<Till>("a");
    assert_eq!(soon(till.ask(Pay { cents: 7, end: End::Well }).idempotency_key("k7")).await, Ok(12));
    assert_eq!(
        soon(till.ask(Pay { cents: 1, end: End::Well }).idempotency_key("k7")).await,
        Err(AskError::Conflict)
    );
    assert_eq!(gate.count("pay 7"), 1);
    assert_eq!(soon(till.ask(Pay { cents: 1, end: End::Well })).await, Ok(13));
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_at_the_same_time_run_once() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let till = world.handle().agent::<Till>("a");
    let asks = (0..300).map(|n| {
        let ask = till.ask(Pay { cents: n % 10 + 1, end: End::Well });
        tokio::spawn(ask.idempotency_key(format!("k{}", n % 10)).into_future())
    });
    let mut sums: Vec<_> = soon(join_all(asks))
        .await
        .into_iter()
        .enumerate()
        .map(|(n, a)| (n % 10, a.unwrap().unwrap()))
        .collect();
    sums.sort_unstable();
    sums.dedup();
    assert_eq!(sums.len(), 10, "{sums:?}");
    assert_eq!(soon(till.ask(Pay { cents: 0, end: End::Well })).await, Ok(55));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_under_a_key_is_one_task() {
    let gate = Gate::default();
    let mut world = World::start(program(&gate)).await;
    let till = world.handle().agent::<Till>("a");
    let submits = (0..50).map(|_| till.submit(Pay { cents: 3, end: End::Well }).idempotency_key("k"));
    let mut ids: Vec<TaskId> = soon(join_all(submits)).await.into_iter().map(Result::unwrap).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(outcome::<Pay>(&world.handle(), ids[0]).await, Outcome::Succeeded(3));
    let other = till.submit(Pay { cents: 4, end: End::Well }).idempotency_key("k");
    assert_eq!(soon(other).await, Err(AskError::Conflict));
    world.end().await;
    world.start_again(program(&gate)).await;
    let till = world.handle().agent::<Till>("a");
    let again = till.submit(Pay { cents: 3, end: End::Well }).idempotency_key("k");
    assert_eq!(soon(again).await, Ok(ids[0]));
    assert_eq!(gate.count("pay 3"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_fails_while_another_request_takes_its_key_ends() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let till = world.handle().agent::<Till>("a");
    let held = tokio::spawn(till.ask(Pay { cents: 1, end: End::Held }).idempotency_key("k"));
    gate.arrival().await;
    let task = soon(till.submit(Pay { cents: 2, end: End::Well }).idempotency_key("k")).await.unwrap();
    gate.open(1);
    assert_eq!(soon(held).await.unwrap(), Err(AskError::Conflict));
    assert_eq!(outcome::<Pay>(&world.handle(), task).await, Outcome::Succeeded(2));
    assert_eq!(soon(till.ask(Pay { cents: 3, end: End::Well })).await, Ok(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_whose_key_is_none_is_refused() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let till = world.handle().agent::<Till>("a");
    for key in [String::new(), "k".repeat(256), "a\nb".into()] {
        let refused = soon(till.submit(Pay { cents: 2, end: End::Well }).idempotency_key(key)).await;
        assert!(matches!(refused, Err(AskError::Invalid(_))), "{refused:?}");
    }
}
