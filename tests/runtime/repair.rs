//! An agent in quarantine goes on from a state that was kept of earlier.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use greenroom::{
    Accepts,
    prelude::*,
    runtime::{operator::OperatorError, views::Action},
};

use crate::{
    postgres::Database,
    support::{World, soon, status, task_in, until},
};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    n: i64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Get {}
message! { Add -> i64; Get -> i64 }

/// What a kind of account takes for a sum.
struct Limit(AtomicI64);

impl Limit {
    fn check(&self, total: i64) -> Result<()> {
        ensure!(total <= self.0.load(SeqCst), "{total} is too much");
        Ok(())
    }
}

macro_rules! account {
    ($account:ident, $kind:literal, $limit:ident) => {
        static $limit: Limit = Limit(AtomicI64::new(i64::MAX));

        #[derive(Default, Serialize, Deserialize)]
        struct $account {
            total: i64,
        }
        impl Agent for $account {
            const KIND: &'static str = $kind;
            type Messages = (Add, Get);
            fn validate(&self) -> Result<()> {
                $limit.check(self.total)
            }
        }
        impl Handler<Add> for $account {
            async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<i64> {
                self.total += add.n;
                Ok(self.total)
            }
        }
        impl Query<Get> for $account {
            async fn query(&self, _: Get, _: &Turn<Self>) -> Result<i64> {
                Ok(self.total)
            }
        }
        impl Account for $account {
            const LIMIT: &'static Limit = &$limit;
        }
    };
}
/// One for each test: they run side by side.
trait Account: Agent {
    const LIMIT: &'static Limit;
}
account!(InFile, "in_file", IN_FILE);
account!(OnPostgres, "on_postgres", ON_POSTGRES);
account!(Unreadable, "unreadable", UNREADABLE);

async fn a_kept_state_is_the_next_one<A, I, J>(program: greenroom::Builder)
where
    A: Account + Accepts<Add, I> + Accepts<Get, J>,
{
    let world = World::start(program.agent::<A>()).await;
    let (handle, kind) = (world.handle(), A::KIND);
    let (operator, agent) = (handle.operator(), handle.agent::<A>("a"));
    for n in 1..=3 {
        assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), n);
    }
    let code = |error: OperatorError| error.code();
    let early = operator.release_at(kind, "a", 1).await;
    assert_eq!(early.map_err(code), Err("wrong_state"), "it is not quarantined");
    operator.act(kind, "a", Action::Quarantine).await.unwrap();
    let task = soon(agent.submit(Add { n: 10 })).await.unwrap();
    task_in(&handle, task, "parked").await;
    assert_eq!(operator.release_at(kind, "a", 7).await.map_err(code), Err("not_found"));
    A::LIMIT.0.store(0, SeqCst);
    let error = operator.release_at(kind, "a", 1).await.unwrap_err();
    assert!(error.code() == "wrong_state" && error.to_string().contains("1 is too much"), "{error}");
    assert_eq!(operator.state(kind, "a", None).await.unwrap().version, 3, "nothing was written");
    A::LIMIT.0.store(i64::MAX, SeqCst);
    assert_eq!(status(&handle, kind, "a").await, "quarantined");

    operator.release_at(kind, "a", 1).await.unwrap();
    task_in(&handle, task, "succeeded").await;
    assert_eq!(soon(agent.ask(Get {})).await.unwrap(), 11);
    let now = operator.state(kind, "a", None).await.unwrap();
    assert_eq!(
        (now.version, &now.state["total"]),
        (5, &11.into()),
        "written as the fourth, and gone on from"
    );
    let put_aside = operator.state(kind, "a", Some(3)).await.unwrap();
    assert_eq!(put_aside.state["total"], 3, "what was replaced is kept, however lately one was");

    // The present state is one as well, and is not written again.
    operator.act(kind, "a", Action::Quarantine).await.unwrap();
    operator.release_at(kind, "a", 5).await.unwrap();
    assert_eq!(soon(agent.ask(Get {})).await.unwrap(), 11);
    assert_eq!(operator.state(kind, "a", None).await.unwrap().version, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_state_in_a_file_ends_a_quarantine_as_the_next_one() {
    a_kept_state_is_the_next_one::<InFile, _, _>(Runtime::builder()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_state_on_postgres_ends_a_quarantine_as_the_next_one() {
    let database = Database::new();
    a_kept_state_is_the_next_one::<OnPostgres, _, _>(Runtime::builder().set("store.url", &database.url()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_state_became_unreadable_goes_on_from_an_earlier_one() {
    let program = || Runtime::builder().agent::<Unreadable>();
    let mut world = World::start(program()).await;
    for n in [1, 100] {
        soon(world.handle().agent::<Unreadable>("a").ask(Add { n })).await.unwrap();
    }
    world.end().await;
    UNREADABLE.0.store(50, SeqCst);
    world.start_again(program()).await;
    let handle = world.handle();
    let agent = handle.agent::<Unreadable>("a");
    assert_eq!(soon(agent.ask(Get {})).await.unwrap_err().code(), "wrong_state");
    until("it is quarantined", || async { status(&handle, "unreadable", "a").await == "quarantined" }).await;
    let plain = handle.operator().act("unreadable", "a", Action::Release).await.unwrap_err();
    assert!(plain.to_string().contains("101 is too much"), "{plain}");
    handle.operator().release_at("unreadable", "a", 1).await.unwrap();
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 2);
    let aside = handle.operator().state("unreadable", "a", Some(2)).await.unwrap();
    assert_eq!(aside.state["total"], 101, "the unreadable one is not lost");
}
