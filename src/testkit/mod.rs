//! Tests of your agents: the real runtime on one thread, a store in memory, and simulated time.
//!
//! ```
//! use greenroom::{prelude::*, testkit};
//!
//! /// Counts the words it is sent.
//! #[derive(Default, Serialize, Deserialize, Debug, PartialEq)]
//! struct Tally {
//!     words: u64,
//! }
//!
//! #[derive(Clone, Serialize, Deserialize, JsonSchema)]
//! struct Add {
//!     n: u64,
//! }
//! message!(Add -> u64);
//!
//! impl Agent for Tally {
//!     const KIND: &'static str = "tally";
//!     type Messages = Add;
//! }
//!
//! impl Handler<Add> for Tally {
//!     async fn handle(&mut self, add: Add, turn: &Turn<Self>) -> Result<u64> {
//!         if add.n > 1 {
//!             turn.agent::<Tally>(turn.key()).submit(Add { n: 1 }).run_in(Duration::from_secs(3_600));
//!         }
//!         self.words += add.n;
//!         Ok(self.words)
//!     }
//! }
//!
//! // in a plain #[test]
//! # fn main() -> Result<()> {
//! testkit::for_each_crash_point(
//!     || Runtime::builder().agent::<Tally>(),
//!     async |kit| {
//!         kit.agent::<Tally>("docs").submit(Add { n: 2 }).await?;
//!         kit.settle().await;
//!         assert_eq!(kit.state::<Tally>("docs")?, Tally { words: 2 });
//!         kit.advance(Duration::from_secs(3_600)).await;
//!         assert_eq!(kit.state::<Tally>("docs")?, Tally { words: 3 });
//!         Ok(())
//!     },
//! )
//! # }
//! ```
//!
//! [`run`] runs a scenario once. [`for_each_crash_point`] counts the crash points between the steps of its turns
//! (before a handler; after it, before the commit; after the commit, before its release; after that), and repeats
//! the scenario once for each of them with a crash right there. What your agents guarantee must hold across these
//! too.
//!
//! # Probes
//!
//! A [`Probe`] takes the place of one agent, so that another one can be tested alone: it gets the messages, and says
//! how they are answered. A [`TopicProbe`] sees what is published to a topic.
//!
//! ```
//! use greenroom::{prelude::*, testkit};
//! # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Price { item: String }
//! # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Ship { item: String }
//! # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Order { item: String }
//! # message! { Price -> u64; Ship -> (); Order -> u64 }
//! # /// Knows the prices, and ships.
//! # #[derive(Default, Serialize, Deserialize)] struct Store {}
//! # impl Agent for Store { const KIND: &'static str = "store"; type Messages = (Price, Ship); }
//! # impl Handler<Price> for Store {
//! #     async fn handle(&mut self, _: Price, _: &Turn<Self>) -> Result<u64> { bail!("not in this test") }
//! # }
//! # impl Handler<Ship> for Store {
//! #     async fn handle(&mut self, _: Ship, _: &Turn<Self>) -> Result<()> { bail!("not in this test") }
//! # }
//! # #[derive(Default, Serialize, Deserialize)] struct Shop {}
//! # impl Agent for Shop { const KIND: &'static str = "shop"; type Messages = Order; }
//! impl Handler<Order> for Shop {
//!     async fn handle(&mut self, order: Order, turn: &Turn<Self>) -> Result<u64> {
//!         let store = turn.agent::<Store>("main");
//!         let price = store.ask(Price { item: order.item.clone() }).await?;
//!         store.submit(Ship { item: order.item });
//!         Ok(price)
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! testkit::run(Runtime::builder().agent::<Shop>().agent::<Store>(), async |kit| {
//!     let mut store = kit.probe::<Store>("main");
//!     store.answer(|price: &Price| Ok(price.item.len() as u64));
//!     assert_eq!(kit.agent::<Shop>("a").ask(Order { item: "tea".into() }).await?, 3);
//!     assert_eq!(store.expect::<Price>().await?.item, "tea");
//!     assert_eq!(store.expect::<Ship>().await?.item, "tea"); // its task has succeeded
//!     store.expect_none(Duration::from_secs(3_600)).await
//! })
//! # }
//! ```
//!
//! # What is real
//!
//! Everything but the store, the threads and the clock: orchestrator, cells, dispatcher, group commit, tools and
//! their limits, supervision. The configuration is that of [`Builder::start`](crate::Builder::start); there is no
//! data directory, no HTTP and no log. The store in memory passes the same conformance tests as the others.
//! Jitter is the same in each run; ids are not.
//!
//! # Time
//!
//! The clock stands still while there is work, and advances only while everything waits: [`Kit::advance`] lets
//! that much time pass, and every timer, retry and scheduled task on the way happens at its time. Awaiting
//! something in a scenario advances the clock as far as needed. `turn.now()`, the store's clock and tokio's timers
//! agree; the standard library's clocks, and so `Timestamp::now()`, do not follow. A simulated hour takes a tenth
//! of a second, for the node's own upkeep. Blocking code (`turn.blocking`) has threads of its own, and the clock
//! waits for it.
//!
//! # What fails a scenario
//!
//! Its own error or panic; a committed state from which the agent cannot be restored; an agent or a call of a tool that
//! still runs when the node has ended; a fake or a probe for what is not registered; work that does not become idle
//! within ten minutes of its time.

mod kit;
mod points;
mod probe;

use std::{any::Any, collections::BTreeSet, future::Future, panic::AssertUnwindSafe, sync::Arc};

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::FutureExt as _;

pub use kit::Kit;
pub use probe::{Probe, Received, TopicProbe};

use crate::{
    app::{Builder, Stage},
    runtime,
    store::MemoryStore,
};
use points::{Crash, Watch};

/// Runs a scenario on a node of its own.
///
/// Call it from a plain `#[test]`: it blocks the thread and runs everything on it.
///
/// # Errors
/// The scenario's own error; a program that cannot start; and what [the module](self) lists.
///
/// # Panics
/// If the scenario panics.
pub fn run(builder: Builder, scenario: impl AsyncFnOnce(&Kit) -> Result<()>) -> Result<()> {
    perform(builder, None, scenario)?.plain().map(drop)
}

/// Runs a scenario, and repeats it for each point at which one of its turns can be interrupted, with a crash
/// there: as with a panic, the agent's cell dies, and supervision restarts it.
///
/// Between a commit and its release there is no panic, but a process may end there: callers do not hear of the
/// turn, and its tells and timers are lost, as tells and timers may be. (What must happen is submitted.)
///
/// Tasks are retried, so a scenario that submits should end the same way each time. An interrupted ask returns an
/// error, [`AskError::Unknown`](crate::AskError::Unknown) if its turn is durable; the scenario must do what real
/// callers do, and ask again under the same idempotency key.
///
/// # Errors
/// As [`run`]; the error names the crash point, by number and in words, also for a panic there. A scenario that
/// does not reach a crash point which it reached before, because it is not deterministic.
///
/// # Panics
/// If the scenario panics without any crash.
pub fn for_each_crash_point(
    builder: impl Fn() -> Builder,
    scenario: impl AsyncFn(&Kit) -> Result<()>,
) -> Result<()> {
    let places = perform(builder(), None, &scenario)?.plain()?;
    for place in 1..=places {
        let played = perform(builder(), Some(place), &scenario)?;
        let what = match &played.crash {
            Some(Crash(what)) => what,
            None => "to which it did not come this time",
        };
        let at = || format!("with a crash at place {place} of {places}, {what}");
        match played.outcome {
            Ok(outcome) => outcome.with_context(at)?,
            Err(panic) => bail!("{}: the scenario panicked: {}", at(), text_of(&*panic)),
        }
        if played.crash.is_none() {
            bail!("{}: what it does must be the same each time", at());
        }
    }
    Ok(())
}

/// The result of a scenario.
struct Played {
    /// The outer error is a panic.
    outcome: Result<Result<()>, Box<dyn Any + Send>>,
    /// How many places its turns came to.
    places: usize,
    /// The crash that it met.
    crash: Option<Crash>,
}

impl Played {
    /// Without a crash, its panics are its caller's.
    fn plain(self) -> Result<usize> {
        match self.outcome {
            Ok(outcome) => outcome.map(|()| self.places),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(not a text)")
}

fn perform(
    builder: Builder,
    crash_at: Option<usize>,
    scenario: impl AsyncFnOnce(&Kit) -> Result<()>,
) -> Result<Played> {
    // Jitter is the same each time.
    fastrand::seed(7);
    runtime::alone(Box::pin(play(builder, crash_at, scenario)) as std::pin::Pin<Box<dyn Future<Output = _>>>)?
}

async fn play(
    builder: Builder,
    crash_at: Option<usize>,
    scenario: impl AsyncFnOnce(&Kit) -> Result<()>,
) -> Result<Played> {
    let store = Arc::new(MemoryStore::new());
    let (watch, stand_ins) = (Arc::new(Watch::new(store.clone(), crash_at)), Arc::default());
    let stage = Stage { store: store.clone(), probe: watch.clone(), stand_ins: Arc::clone(&stand_ins) };
    let running = builder.rehearse(stage).await?;
    let kit = Kit::new(&running, store, watch.clone(), stand_ins);
    let ended = AssertUnwindSafe(scenario(&kit)).catch_unwind().await;
    let places = watch.rest();
    let node = running.node.clone();
    drop(kit);
    let at_work = || {
        let tools = node.tools.iter().filter(|(_, tool)| tool.info().running > 0);
        tools.map(|(name, _)| format!("tool:{name}")).collect::<Vec<_>>()
    };
    let before = at_work();
    let clean = running.shutdown().await;
    let left = node.kinds.iter().flat_map(|kind| {
        let name = kind.name();
        kind.page(None, 8, &|_| true).into_iter().map(move |(key, _)| format!("{name}/{key}"))
    });
    // what was broken off had not ended
    let broken = if node.breaks_off.is_cancelled() { before } else { Vec::new() };
    let left: BTreeSet<String> = left.chain(at_work()).chain(broken).collect();
    let left: Vec<String> = left.into_iter().collect();
    let outcome = ended.map(|outcome| {
        outcome.and_then(|()| {
            let problems = watch.problems();
            if !problems.is_empty() {
                return Err(anyhow!(problems.join("; ")));
            }
            if !clean || !left.is_empty() {
                bail!("the node has ended, and these still run: {}", left.join(", "));
            }
            Ok(())
        })
    });
    Ok(Played { outcome, places, crash: watch.crash() })
}
