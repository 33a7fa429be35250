//! One turn: what commits together, and what a failing one may harm: itself.

use futures_util::future::join_all;
use greenroom::prelude::*;

use crate::support::{World, soon};

#[derive(Default, Serialize, Deserialize)]
struct Purse {
    coins: i64,
    ratio: f64,
    padding: String,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    n: i64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Get {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Spend {
    n: i64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Grab {
    n: i64,
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("only {left} left")]
struct Broke {
    left: i64,
}
/// Changes the state, submits, and then goes wrong in one of several ways.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Bad {
    how: How,
}
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
enum How {
    Error,
    Panic,
    PanicWithoutText,
    Late,
    NotANumber,
    TooLarge,
    Hoard,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Give {
    n: i64,
}

message! {
    Add -> i64;
    Get -> i64;
    Spend -> i64 | Broke;
    Grab -> i64 | Broke;
    Bad -> i64;
    Give -> TaskId;
}

impl Agent for Purse {
    const KIND: &'static str = "purse";
    type Messages = (Add, Get, Spend, Grab, Bad, Give);
    fn policy() -> Policy {
        Policy::default()
            .max_restarts(100_000, Duration::from_secs(60))
            .backoff(Duration::ZERO, Duration::ZERO)
            .turn_timeout(Duration::from_millis(300))
            .mailbox(20_000)
    }
}
impl Handler<Add> for Purse {
    async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<i64> {
        self.coins += add.n;
        Ok(self.coins)
    }
}
impl Query<Get> for Purse {
    async fn query(&self, _: Get, _: &Turn<Self>) -> Result<i64> {
        Ok(self.coins)
    }
}
impl Handler<Spend> for Purse {
    fn check(&self, spend: &Spend) -> Result<(), Broke> {
        if spend.n > self.coins { Err(Broke { left: self.coins }) } else { Ok(()) }
    }
    async fn handle(&mut self, spend: Spend, _: &Turn<Self>) -> Result<i64> {
        self.coins -= spend.n;
        Ok(self.coins)
    }
}
impl Handler<Grab> for Purse {
    async fn handle(&mut self, grab: Grab, _: &Turn<Self>) -> Result<i64> {
        self.coins -= grab.n;
        if self.coins < 0 {
            return Err(Grab::refuse(Broke { left: self.coins + grab.n }));
        }
        Ok(self.coins)
    }
}
impl Handler<Bad> for Purse {
    async fn handle(&mut self, bad: Bad, turn: &Turn<Self>) -> Result<i64> {
        self.coins += 1_000_000;
        turn.agent::<Purse>("heir").submit(Add { n: 1 });
        turn.agent::<Purse>("heir").tell(Add { n: 1 });
        match bad.how {
            How::Error => bail!("no"),
            How::Panic => panic!("as told"),
            How::PanicWithoutText => std::panic::panic_any(7u8),
            How::Late => std::future::pending::<()>().await,
            How::NotANumber => self.ratio = f64::NAN,
            How::TooLarge => self.padding = "x".repeat(200_000),
            How::Hoard => {
                self.coins = i64::MAX;
                self.padding = "x".repeat(200_000);
                return Ok(0);
            }
        }
        Ok(self.coins)
    }
}
impl Handler<Give> for Purse {
    async fn handle(&mut self, give: Give, turn: &Turn<Self>) -> Result<TaskId> {
        self.coins -= give.n;
        Ok(turn.agent::<Purse>("heir").submit(Add { n: give.n }).id())
    }
}

async fn world() -> World {
    World::start(Runtime::builder().agent::<Purse>().set("limits.state_bytes", "64KiB")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_what_the_store_holds() {
    let mut world = world().await;
    let handle = world.handle();
    let purse = handle.agent::<Purse>("a");
    for n in 1..=20 {
        assert_eq!(soon(purse.ask(Add { n: 1 })).await.unwrap(), n);
        let stored = handle.operator().state("purse", "a", None).await.unwrap();
        assert_eq!(stored.state["coins"], n, "answered before it was durable");
        assert_eq!(stored.version, n, "one version a commit");
    }
    world.end().await;
    world.start_again(Runtime::builder().agent::<Purse>()).await;
    assert_eq!(soon(world.handle().agent::<Purse>("a").ask(Get {})).await.unwrap(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn state_and_tasks_and_reply_commit_together() {
    let world = world().await;
    let handle = world.handle();
    let purse = handle.agent::<Purse>("a");
    let ids = join_all((0..300).map(|_| purse.ask(Give { n: 1 })));
    for id in soon(ids).await {
        // An id that was answered is known.
        handle.operator().task(id.unwrap()).await.unwrap();
    }
    assert_eq!(soon(purse.ask(Get {})).await.unwrap(), -300);
    let heir = handle.agent::<Purse>("heir");
    crate::support::until("the heir has it all", || async { heir.ask(Get {}).await.unwrap() == 300 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_typed_and_changes_nothing() {
    let world = world().await;
    let purse = world.handle().agent::<Purse>("a");
    soon(purse.ask(Add { n: 5 })).await.unwrap();
    assert_eq!(soon(purse.ask(Spend { n: 9 })).await, Err(AskError::Refused(Broke { left: 5 })));
    assert_eq!(soon(purse.ask(Grab { n: 9 })).await, Err(AskError::Refused(Broke { left: 5 })));
    assert_eq!(soon(purse.ask(Spend { n: 2 })).await, Ok(3));
    assert_eq!(soon(purse.ask(Grab { n: 3 })).await, Ok(0));
    let json = world.handle().ask_json("purse/a", "Spend", serde_json::json!({"n": 1})).await.unwrap_err();
    assert_eq!(json.code(), "refused");
}

/// Each way to fail, among 200 neighbours on the same agent, all at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_turn_undoes_itself_and_no_neighbour() {
    for (how, code) in [
        (How::Error, "handler_failed"),
        (How::Panic, "handler_crashed"),
        (How::PanicWithoutText, "handler_crashed"),
        (How::Late, "timed_out"),
        (How::NotANumber, "handler_failed"),
        (How::TooLarge, "too_large"),
    ] {
        let world = world().await;
        let handle = world.handle();
        let purse = handle.agent::<Purse>("a");
        let good = (0..200).map(|_| purse.ask(Add { n: 1 }));
        let asks = async {
            let (mut before, rest): (Vec<_>, Vec<_>) = good.enumerate().partition(|(n, _)| n % 2 == 0);
            let before = join_all(before.drain(..).map(|(_, ask)| ask));
            let bad = join_all((0..3).map(|_| purse.ask(Bad { how })));
            let after = join_all(rest.into_iter().map(|(_, ask)| ask));
            tokio::join!(before, bad, after)
        };
        let (before, bad, after) = soon(asks).await;
        for bad in bad {
            assert_eq!(bad.unwrap_err().code(), code);
        }
        let mut totals: Vec<i64> = before.into_iter().chain(after).map(Result::unwrap).collect();
        totals.sort_unstable();
        assert_eq!(totals, (1..=200).collect::<Vec<_>>(), "{code}: each neighbour sees exactly its own sum");
        assert_eq!(soon(purse.ask(Get {})).await.unwrap(), 200, "{code}");
        let stored = handle.operator().state("purse", "a", None).await.unwrap();
        assert_eq!(stored.state["coins"], 200, "{code}");
        assert_eq!(
            soon(handle.agent::<Purse>("heir").ask(Get {})).await.unwrap(),
            0,
            "{code}: its outputs left"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_poisons_among_ten_thousand_asks_crash_for_ten_callers() {
    let world = world().await;
    let handle = world.handle();
    let purse = handle.agent::<Purse>("a");
    let asks = (0..10_000).map(|n| {
        let purse = purse.clone();
        tokio::spawn(async move {
            match n % 1_000 {
                500 => purse.ask(Bad { how: How::Panic }).await,
                _ => purse.ask(Add { n: 1 }).await,
            }
        })
    });
    let (mut good, mut crashed) = (Vec::new(), Vec::new());
    for answer in soon(join_all(asks)).await {
        match answer.unwrap() {
            Ok(total) => good.push(total),
            Err(AskError::Failed(fault)) => crashed.push(fault.crash_id.unwrap()),
            Err(other) => panic!("{other:?}"),
        }
    }
    good.sort_unstable();
    assert_eq!(good, (1..=9_990).collect::<Vec<_>>());
    crashed.sort_unstable();
    crashed.dedup();
    assert_eq!(crashed.len(), 10);
    assert_eq!(handle.operator().crashes().len(), 10, "one report a crash");
    assert_eq!(soon(purse.ask(Get {})).await.unwrap(), 9_990);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_not_judged_by_a_state_that_never_was() {
    let world = world().await;
    let purse = world.handle().agent::<Purse>("a");
    for _ in 0..10 {
        // The first leaves i64::MAX coins and a state that is too large to keep.
        let hoard = purse.ask(Bad { how: How::Hoard });
        let adds = join_all((0..5).map(|_| purse.ask(Add { n: 1 })));
        let spend = purse.ask(Spend { n: 1_000_000 });
        let (hoard, adds, spend) = soon(async { tokio::join!(hoard, adds, spend) }).await;
        assert_eq!(hoard.unwrap_err().code(), "too_large");
        assert!(adds.iter().all(Result::is_ok), "{adds:?}");
        assert_eq!(spend.unwrap_err().code(), "refused");
    }
    assert_eq!(soon(purse.ask(Get {})).await.unwrap(), 50);
    assert!(world.handle().operator().crashes().is_empty());
}

/// A crash and a state that cannot be kept in one window: the crash happens once.
#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_turn_does_not_run_again_when_its_neighbours_do() {
    let world = world().await;
    let handle = world.handle();
    let purse = handle.agent::<Purse>("a");
    for _ in 0..10 {
        let how = [How::Panic, How::NotANumber, How::Panic, How::TooLarge, How::Panic];
        let bad = join_all(how.map(|how| purse.ask(Bad { how })));
        let good = join_all((0..20).map(|_| purse.ask(Add { n: 1 })));
        let (bad, good) = soon(async { tokio::join!(bad, good) }).await;
        assert!(bad.iter().all(Result::is_err) && good.iter().all(Result::is_ok));
    }
    assert_eq!(handle.operator().crashes().len(), 30, "a crash is reported once");
    assert_eq!(soon(purse.ask(Get {})).await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_ask_whose_time_is_up_never_runs() {
    let world = world().await;
    let purse = world.handle().agent::<Purse>("a");
    let slow = purse.ask(Bad { how: How::Late });
    let late = purse.ask(Add { n: 1 }).timeout(Duration::from_millis(50));
    let (slow, late) = soon(async { tokio::join!(slow, late) }).await;
    assert_eq!((slow, late), (Err(AskError::TimedOut), Err(AskError::TimedOut)));
    assert_eq!(soon(purse.ask(Get {})).await.unwrap(), 0);
}

/// An agent whose hooks, default, drop and serialisation misbehave on demand.
mod brittle {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    static DEFAULT: AtomicUsize = AtomicUsize::new(0);
    static START: AtomicUsize = AtomicUsize::new(0);
    /// Held by the test that runs: what is spent belongs to all agents of the process.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    fn spends(from: &AtomicUsize) -> bool {
        from.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok()
    }

    #[derive(Serialize, Deserialize)]
    struct Brittle {
        n: u64,
        #[serde(serialize_with = "brittle_bytes")]
        brittle: bool,
        drops_badly: bool,
    }
    fn brittle_bytes<S: serde::Serializer>(brittle: &bool, to: S) -> Result<S::Ok, S::Error> {
        assert!(!brittle, "serialised while brittle");
        to.serialize_bool(*brittle)
    }
    impl Default for Brittle {
        fn default() -> Self {
            assert!(!spends(&DEFAULT), "no default today");
            Self { n: 0, brittle: false, drops_badly: false }
        }
    }
    impl Drop for Brittle {
        fn drop(&mut self) {
            if self.drops_badly && !std::thread::panicking() {
                panic!("dropped badly");
            }
        }
    }
    #[derive(Clone, Serialize, Deserialize, JsonSchema)]
    struct Bump {}
    #[derive(Clone, Serialize, Deserialize, JsonSchema)]
    struct Break {}
    #[derive(Clone, Serialize, Deserialize, JsonSchema)]
    struct DropBadly {}
    #[derive(Clone, Serialize, Deserialize, JsonSchema)]
    struct Odd {}
    /// A reply that cannot be written.
    #[derive(Clone, Debug, Deserialize, JsonSchema)]
    struct Unwritable;
    impl Serialize for Unwritable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("no words")
        }
    }
    #[derive(Clone, Serialize, Deserialize, JsonSchema)]
    struct Quiet {}
    message! { Bump -> u64; Break -> (); DropBadly -> (); Odd -> std::collections::BTreeMap<(u8, u8), u8>; Quiet -> Unwritable }

    impl Agent for Brittle {
        const KIND: &'static str = "brittle";
        type Messages = (Bump, Break, DropBadly, Odd, Quiet);
        fn policy() -> Policy {
            Policy::default().idle_timeout(Duration::from_secs(1)).backoff(Duration::ZERO, Duration::ZERO)
        }
        async fn on_start(&mut self, _: &Turn<Self>) -> Result<()> {
            assert!(!spends(&START), "no start today");
            Ok(())
        }
        async fn on_stop(&mut self, _: &Turn<Self>) -> Result<()> {
            panic!("never stops well")
        }
    }
    impl Handler<Bump> for Brittle {
        async fn handle(&mut self, _: Bump, turn: &Turn<Self>) -> Result<u64> {
            self.n += 1;
            if turn.key() == "retiring" {
                turn.retire();
            }
            Ok(self.n)
        }
    }
    impl Handler<Break> for Brittle {
        async fn handle(&mut self, _: Break, _: &Turn<Self>) -> Result<()> {
            self.brittle = true;
            Ok(())
        }
    }
    impl Handler<DropBadly> for Brittle {
        async fn handle(&mut self, _: DropBadly, _: &Turn<Self>) -> Result<()> {
            self.drops_badly = true;
            Ok(())
        }
    }
    impl Handler<Odd> for Brittle {
        async fn handle(
            &mut self,
            _: Odd,
            _: &Turn<Self>,
        ) -> Result<std::collections::BTreeMap<(u8, u8), u8>> {
            self.n += 100;
            Ok([((1, 2), 3)].into())
        }
    }
    impl Handler<Quiet> for Brittle {
        async fn handle(&mut self, _: Quiet, _: &Turn<Self>) -> Result<Unwritable> {
            self.n += 100;
            Ok(Unwritable)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn panics_outside_of_handlers_are_contained() {
        let _alone = ALONE.lock().await;
        let mut world = World::start(Runtime::builder().agent::<Brittle>()).await;
        let handle = world.handle();
        let agent = handle.agent::<Brittle>("a");

        START.store(2, SeqCst);
        assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 1, "it starts at the third attempt");
        assert_eq!(handle.operator().crashes().len(), 2);

        let error = soon(agent.ask(Break {})).await.unwrap_err();
        assert!(error.to_string().contains("serialised while brittle"), "{error}");
        assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 2);

        // Its drop panics whenever it is dropped, and its end as well.
        let _ = soon(agent.ask(DropBadly {})).await;
        assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 3);
        let retiring = handle.agent::<Brittle>("retiring");
        for n in 1..=5 {
            assert_eq!(soon(retiring.ask(Bump {})).await.unwrap(), n);
        }

        DEFAULT.store(1, SeqCst);
        assert_eq!(
            soon(handle.agent::<Brittle>("b").ask(Bump {})).await.unwrap(),
            1,
            "at the second attempt"
        );
        world.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reply_that_cannot_be_written_undoes_its_turn() {
        let _alone = ALONE.lock().await;
        let world = World::start(Runtime::builder().agent::<Brittle>()).await;
        let handle = world.handle();
        let agent = handle.agent::<Brittle>("c");
        soon(agent.ask(Bump {})).await.unwrap();
        for message in ["Odd", "Quiet"] {
            let error = soon(handle.ask_json("brittle/c", message, serde_json::json!({}))).await.unwrap_err();
            assert!(error.code().starts_with("handler_"), "{message}: {error:?}");
        }
        assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 2, "the turn was undone, as its caller was told");
        // As a task it must not happen once an attempt.
        let odd = soon(agent.submit(Odd {})).await.unwrap();
        let quiet = soon(agent.submit(Quiet {})).await.unwrap();
        for id in [odd, quiet] {
            crate::support::until("an attempt was recorded", || async {
                handle.operator().task(id).await.unwrap().error.is_some()
            })
            .await;
        }
        assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 3);
    }
}
