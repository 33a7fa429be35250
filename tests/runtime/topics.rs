//! Topics, broadcasts and many messages at once: told with the commit, to whoever is subscribed, or not at
//! all.

use std::time::Instant;

use futures_util::future::join_all;
use greenroom::{Full, Invalid, OnFull, Persistence, model::id::AgentId, prelude::*};
use parking_lot::Mutex;

use crate::{
    faulty::Faults,
    postgres::Database,
    support::{Gate, World, dropped, soon, status, until},
};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Price {
    cents: i64,
}
/// Subscribes to the prices of a pair, and ends as it is told.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Follow {
    pair: String,
    end: End,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Unfollow {
    pair: String,
}
/// What it has heard, in order.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Heard {}
/// Publishes these prices, and ends as it is told.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Quote {
    pair: String,
    cents: Vec<i64>,
    end: End,
}
/// Broadcasts a price to all running desks.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Cry {
    cents: i64,
    end: End,
}
/// Sends `stall/KEY` so many prices at once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Flood {
    to: String,
    n: i64,
}
/// Waits at the gate.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Hold {}
/// Leaves memory.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Retire {}
/// Publishes where no topic is.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Nowhere {
    key: String,
}
message! { Follow -> (); Unfollow -> (); Heard -> Vec<i64>; Quote -> (); Cry -> (); Flood -> (); Hold -> (); Retire -> (); Nowhere -> () }

impl Message for Price {
    type Reply = ();
    type Error = Never;
    const NAME: &'static str = "Price";
    fn validate(&self) -> std::result::Result<(), Invalid> {
        if self.cents >= 0 { Ok(()) } else { Err(Invalid::at("/cents", "less than nothing")) }
    }
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
enum End {
    Well,
    Failed,
    Crashed,
}

impl End {
    fn take(self) -> Result<()> {
        match self {
            Self::Well => Ok(()),
            Self::Failed => bail!("no"),
            Self::Crashed => panic!("as told"),
        }
    }
}

static PRICES: Topic<Price> = Topic::new("prices");

/// Follows prices.
#[derive(Default, Serialize, Deserialize)]
struct Desk {
    heard: Vec<i64>,
}

fn lenient() -> Policy {
    Policy::default().max_restarts(1_000, Duration::from_secs(60)).backoff(Duration::ZERO, Duration::ZERO)
}

impl Agent for Desk {
    const KIND: &'static str = "desk";
    type Messages = (Price, Follow, Unfollow, Heard, Retire);
    fn policy() -> Policy {
        lenient()
    }
}
impl Handler<Price> for Desk {
    async fn handle(&mut self, price: Price, _: &Turn<Self>) -> Result<()> {
        self.heard.push(price.cents);
        Ok(())
    }
}
impl Handler<Follow> for Desk {
    async fn handle(&mut self, follow: Follow, turn: &Turn<Self>) -> Result<()> {
        turn.subscribe(&PRICES.keyed(follow.pair));
        follow.end.take()
    }
}
impl Handler<Unfollow> for Desk {
    async fn handle(&mut self, unfollow: Unfollow, turn: &Turn<Self>) -> Result<()> {
        turn.unsubscribe(&PRICES.keyed(unfollow.pair));
        Ok(())
    }
}
impl Query<Heard> for Desk {
    async fn query(&self, _: Heard, _: &Turn<Self>) -> Result<Vec<i64>> {
        Ok(self.heard.clone())
    }
}
impl Handler<Retire> for Desk {
    async fn handle(&mut self, _: Retire, turn: &Turn<Self>) -> Result<()> {
        turn.retire();
        Ok(())
    }
}

/// Others who follow prices, each with a policy of its own.
macro_rules! follower {
    ($agent:ident, $kind:literal, $policy:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $agent {
            heard: Vec<i64>,
        }
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Follow, Heard, Price, Hold);
            fn policy() -> Policy {
                $policy
            }
        }
        impl Handler<Price> for $agent {
            async fn handle(&mut self, price: Price, _: &Turn<Self>) -> Result<()> {
                self.heard.push(price.cents);
                Ok(())
            }
        }
        impl Handler<Follow> for $agent {
            async fn handle(&mut self, follow: Follow, turn: &Turn<Self>) -> Result<()> {
                turn.subscribe(&PRICES.keyed(follow.pair));
                follow.end.take()
            }
        }
        impl Query<Heard> for $agent {
            async fn query(&self, _: Heard, _: &Turn<Self>) -> Result<Vec<i64>> {
                Ok(self.heard.clone())
            }
        }
        impl Handler<Hold> for $agent {
            async fn handle(&mut self, _: Hold, turn: &Turn<Self>) -> Result<()> {
                turn.resource::<Gate>().wait().await;
                Ok(())
            }
        }
    };
}
follower!(Ticker, "ticker", lenient().persistence(Persistence::Volatile));
follower!(Stall, "stall", Policy::default().mailbox(4));
follower!(Strict, "strict", Policy::default().mailbox(4).on_full(OnFull::Reject));
follower!(Roamer, "roamer", Policy::default());
follower!(Wanderer, "wanderer", Policy::default());

/// Publishes prices.
#[derive(Default, Serialize, Deserialize)]
struct Market {
    quotes: u64,
}
impl Agent for Market {
    const KIND: &'static str = "market";
    type Messages = (Quote, Cry, Flood, Nowhere);
    fn policy() -> Policy {
        lenient()
    }
}
impl Handler<Quote> for Market {
    async fn handle(&mut self, quote: Quote, turn: &Turn<Self>) -> Result<()> {
        self.quotes += 1;
        let topic = PRICES.keyed(quote.pair);
        quote.cents.into_iter().for_each(|cents| turn.publish(&topic, Price { cents }));
        quote.end.take()
    }
}
impl Handler<Cry> for Market {
    async fn handle(&mut self, cry: Cry, turn: &Turn<Self>) -> Result<()> {
        turn.broadcast::<Desk, _, _>(Price { cents: cry.cents });
        cry.end.take()
    }
}
impl Handler<Flood> for Market {
    async fn handle(&mut self, flood: Flood, turn: &Turn<Self>) -> Result<()> {
        turn.agent::<Stall>(flood.to).send_many((0..flood.n).map(|cents| Price { cents }));
        Ok(())
    }
}
impl Handler<Nowhere> for Market {
    async fn handle(&mut self, nowhere: Nowhere, turn: &Turn<Self>) -> Result<()> {
        turn.publish(&PRICES.keyed(nowhere.key), Price { cents: 1 });
        Ok(())
    }
}

fn program(gate: &Gate) -> greenroom::Builder {
    let program = Runtime::builder().agent::<Desk>().agent::<Ticker>().agent::<Market>();
    program.agent::<Stall>().agent::<Strict>().agent::<Roamer>().agent::<Wanderer>().resource(gate.clone())
}

/// A node on SQLite, and one on Postgres.
async fn on_both(test: impl AsyncFn(&mut World, &dyn Fn() -> greenroom::Builder)) {
    let on_sqlite = || program(&Gate::default());
    test(&mut World::start(on_sqlite()).await, &on_sqlite).await;
    let database = Database::new();
    let on_postgres = || program(&Gate::default()).set("store.url", &database.url());
    let mut world = World::start(on_postgres()).await;
    test(&mut world, &on_postgres).await;
    world.end().await;
}

fn follow(pair: &str) -> Follow {
    Follow { pair: pair.into(), end: End::Well }
}

fn quote(pair: &str, cents: impl IntoIterator<Item = i64>) -> Quote {
    Quote { pair: pair.into(), cents: cents.into_iter().collect(), end: End::Well }
}

impl World {
    async fn follows(&self, key: &str, pair: &str) {
        soon(self.handle().agent::<Desk>(key).ask(follow(pair))).await.unwrap();
    }

    async fn quotes(&self, pair: &str, cents: impl IntoIterator<Item = i64>) {
        soon(self.handle().agent::<Market>("m").ask(quote(pair, cents))).await.unwrap();
    }

    async fn publishes(&self, pair: &str, cents: i64) {
        soon(self.handle().publish(&PRICES.keyed(pair), Price { cents })).await.unwrap();
    }

    async fn heard(&self, key: &str) -> Vec<i64> {
        soon(self.handle().agent::<Desk>(key).ask(Heard {})).await.unwrap()
    }

    /// Waits until the desk has heard so many, and tells what.
    async fn hears(&self, key: &str, n: usize) -> Vec<i64> {
        until("it hears that many", || async { self.heard(key).await.len() >= n }).await;
        self.heard(key).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_of_a_topic_hear_what_is_published_to_it_in_its_order_and_nobody_else_does() {
    on_both(async |world, again| {
        world.follows("a", "EURUSD").await;
        world.follows("b", "EURUSD").await;
        world.follows("c", "GBPUSD").await;
        world.quotes("EURUSD", 0..20).await;
        // A turn's tells leave behind its answer: of two who publish, nobody is promised to be first.
        world.hears("a", 20).await;
        world.hears("b", 20).await;
        for cents in 20..30 {
            world.publishes("EURUSD", cents).await;
        }
        let all: Vec<i64> = (0..30).collect();
        assert_eq!(world.hears("a", 30).await, all);
        assert_eq!(world.hears("b", 30).await, all);
        // The whole is not its parts.
        soon(world.handle().publish(&PRICES, Price { cents: 1 })).await.unwrap();
        world.publishes("GBPUSD", 100).await;
        assert_eq!(world.hears("c", 1).await, [100]);
        // Once subscribed is as often as one likes; unsubscribed is at once.
        world.follows("a", "EURUSD").await;
        soon(world.handle().agent::<Desk>("b").ask(Unfollow { pair: "EURUSD".into() })).await.unwrap();
        world.quotes("EURUSD", [30]).await;
        world.publishes("GBPUSD", 101).await;
        assert_eq!(world.hears("a", 31).await.last(), Some(&30));
        assert_eq!((world.hears("c", 2).await.len(), world.heard("b").await.len()), (2, 30));
        // It outlives the node.
        world.end().await;
        world.start_again(again()).await;
        world.publishes("EURUSD", 31).await;
        world.publishes("GBPUSD", 102).await;
        assert_eq!(world.hears("a", 32).await.last(), Some(&31));
        assert_eq!((world.hears("c", 3).await, world.heard("b").await), (vec![100, 101, 102], all));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_fails_publishes_nothing_and_leaves_no_subscription() {
    on_both(async |world, again| {
        world.follows("a", "EURUSD").await;
        let market = world.handle().agent::<Market>("m");
        // Among turns that run ahead of the disk, so that their neighbours run again.
        let end = |n: i64| match n % 10 {
            3 => End::Failed,
            7 => End::Crashed,
            _ => End::Well,
        };
        let asks = (0..60).map(|n| {
            let quote = Quote { end: end(n), ..quote("EURUSD", [n]) };
            market.ask(quote)
        });
        let answers = soon(join_all(asks)).await;
        let good: Vec<i64> = (0..60).filter(|n| end(*n) == End::Well).collect();
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), good.len());
        assert_eq!(world.hears("a", good.len()).await, good);
        for (key, end) in [("b", End::Failed), ("c", End::Crashed)] {
            let follow = Follow { pair: "EURUSD".into(), end };
            soon(world.handle().agent::<Desk>(key).ask(follow.clone())).await.unwrap_err();
            soon(world.handle().agent::<Ticker>(key).ask(follow)).await.unwrap_err();
        }
        let cry = Cry { cents: 99, end: End::Failed };
        soon(market.ask(cry)).await.unwrap_err();
        world.quotes("EURUSD", [100]).await;
        assert_eq!(world.hears("a", good.len() + 1).await.last(), Some(&100));
        world.end().await;
        world.start_again(again()).await;
        world.quotes("EURUSD", [101]).await;
        assert_eq!(world.hears("a", good.len() + 2).await.last(), Some(&101));
        for key in ["b", "c"] {
            assert_eq!(world.heard(key).await, [0; 0]);
            assert_eq!(soon(world.handle().agent::<Ticker>(key).ask(Heard {})).await.unwrap(), [0; 0]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_subscribers_hear_it_all_and_the_store_is_asked_once() {
    let (faults, gate) = (Faults::default(), Gate::default());
    let mut world = World::start(program(&gate)).await;
    let desks: Vec<_> = (0..1_000).map(|n| world.handle().agent::<Desk>(n.to_string())).collect();
    let follows = join_all(desks.iter().map(|desk| desk.ask(follow("EURUSD"))));
    soon(follows).await.into_iter().for_each(|answer| answer.unwrap());
    world.end().await;
    // Cold: nobody is in memory, nobody is known.
    world.start_again(faults.under(program(&gate))).await;
    let desks: Vec<_> = (0..1_000).map(|n| world.handle().agent::<Desk>(n.to_string())).collect();
    world.quotes("EURUSD", 0..11).await;
    let all: Vec<i64> = (0..11).collect();
    for (n, desk) in desks.iter().enumerate() {
        until("all is heard", || async { desk.ask(Heard {}).await.unwrap().len() == 11 }).await;
        assert_eq!(soon(desk.ask(Heard {})).await.unwrap(), all, "{n}");
    }
    assert_eq!(faults.topic_reads(), 1);
    // A subscription that is committed now is known without asking.
    world.follows("new", "EURUSD").await;
    world.quotes("EURUSD", [11]).await;
    assert_eq!((world.hears("new", 1).await, faults.topic_reads()), (vec![11], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_topics_at_once_few_are_read_at_the_same_time() {
    let faults = Faults::default();
    let world = World::start(faults.under(program(&Gate::default()))).await;
    let handle = world.handle();
    let publish = |n: i64| handle.publish(&PRICES.keyed(n.to_string()), Price { cents: n }).into_future();
    faults.hang(true);
    let publishing: Vec<_> = (0..50).map(|n| tokio::spawn(publish(n))).collect();
    until("the store is asked", || async { faults.topic_reads_at_once() >= 2 }).await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    faults.hang(false);
    for published in soon(join_all(publishing)).await {
        published.unwrap().unwrap();
    }
    assert_eq!((faults.topic_reads(), faults.topic_reads_at_once()), (50, 2));
}

/// Counts where copies of it are made for subscribers.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Traced {}
message!(Traced -> ());

static COPIED_BY: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Clone for Traced {
    fn clone(&self) -> Self {
        COPIED_BY.lock().push(std::thread::current().name().unwrap_or_default().to_owned());
        Self {}
    }
}

/// Hears of [`Traced`]; asked to, it follows them or publishes one.
#[derive(Default, Serialize, Deserialize)]
struct Tracer {
    heard: u32,
    published: u32,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Trace {
    follow: bool,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Count {}
message! { Trace -> (); Count -> u32 }
static TRACES: Topic<Traced> = Topic::new("traces");

impl Agent for Tracer {
    const KIND: &'static str = "tracer";
    type Messages = (Traced, Trace, Count);
}
impl Handler<Traced> for Tracer {
    async fn handle(&mut self, _: Traced, _: &Turn<Self>) -> Result<()> {
        self.heard += 1;
        Ok(())
    }
}
impl Handler<Trace> for Tracer {
    async fn handle(&mut self, trace: Trace, turn: &Turn<Self>) -> Result<()> {
        if trace.follow {
            turn.subscribe(&TRACES);
        } else {
            // A change, so that the store's writer has something to write before it leaves.
            self.published += 1;
            turn.publish(&TRACES, Traced {});
        }
        Ok(())
    }
}
impl Query<Count> for Tracer {
    async fn query(&self, _: Count, _: &Turn<Self>) -> Result<u32> {
        Ok(self.heard)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_past_the_bound_of_a_topic_are_counted_as_dropped() {
    let (faults, dropped) = (Faults::default(), dropped("topic:traces"));
    let world = World::start(faults.under(Runtime::builder().agent::<Tracer>())).await;
    let tracer = world.handle().agent::<Tracer>("a");
    soon(tracer.ask(Trace { follow: true })).await.unwrap();
    faults.crowd(7);
    for n in 1..=2 {
        soon(world.handle().publish(&TRACES, Traced {})).await.unwrap();
        until("it is told", || async { tracer.ask(Count {}).await.unwrap() == n }).await;
        assert_eq!(dropped(), 7 * u64::from(n));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_writer_hands_nothing_out_to_many() {
    let world = World::start(Runtime::builder().agent::<Tracer>()).await;
    let tracers: Vec<_> = (0..50).map(|n| world.handle().agent::<Tracer>(n.to_string())).collect();
    for answer in soon(join_all(tracers.iter().map(|tracer| tracer.ask(Trace { follow: true })))).await {
        answer.unwrap();
    }
    for n in 1..=20 {
        soon(tracers[0].ask(Trace { follow: false })).await.unwrap();
        for tracer in &tracers {
            until("all hear it", || async { tracer.ask(Count {}).await.unwrap() == n }).await;
        }
    }
    let copied_by = COPIED_BY.lock();
    let writers = copied_by.iter().filter(|thread| thread.starts_with("writer-")).count();
    assert_eq!(writers, 0, "of {}", copied_by.len());
    assert!(copied_by.len() >= 20 * 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_has_left_memory_is_woken_and_one_without_state_too() {
    let world = World::start(program(&Gate::default()).set("agents.desk.idle_timeout", "1s")).await;
    world.follows("a", "EURUSD").await;
    let ticker = world.handle().agent::<Ticker>("t");
    soon(ticker.ask(follow("EURUSD"))).await.unwrap();
    let handle = world.handle();
    until("it leaves memory", || async { status(&handle, "desk", "a").await == "passivated" }).await;
    world.publishes("EURUSD", 7).await;
    assert_eq!(world.hears("a", 1).await, [7]);
    until("it is told", || async { ticker.ask(Heard {}).await.unwrap() == [7] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_drops_what_is_published_and_nobody_waits_for_it() {
    let (gate, dropped) = (Gate::default(), dropped("stall"));
    let world = World::start(program(&gate)).await;
    let stall = world.handle().agent::<Stall>("a");
    soon(stall.ask(follow("EURUSD"))).await.unwrap();
    soon(stall.tell(Hold {})).await.unwrap();
    gate.arrival().await;
    for cents in 0..10 {
        world.publishes("EURUSD", cents).await;
    }
    assert_eq!(dropped(), 6, "its mailbox has room for four");
    gate.open(1);
    until("it has heard the rest", || async { stall.ask(Heard {}).await.is_ok_and(|h| h == [0, 1, 2, 3]) })
        .await;
    // The same of many that a turn sends.
    soon(stall.tell(Hold {})).await.unwrap();
    gate.arrival().await;
    let flood = Flood { to: "a".into(), n: 100 };
    soon(world.handle().agent::<Market>("m").ask(flood)).await.unwrap();
    until("what finds no room is dropped", || async { dropped() == 6 + 96 }).await;
    gate.open(1);
    let heard = [0, 1, 2, 3, 0, 1, 2, 3];
    until("it has heard the rest", || async { stall.ask(Heard {}).await.is_ok_and(|h| h == heard) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_mailbox_drops_is_told_as_a_dead_letter() {
    let (gate, logs) = (Gate::default(), tempfile::tempdir().unwrap());
    let file = logs.path().join("log.jsonl");
    let program = program(&gate).set("log.file.path", &file.to_string_lossy()).set("log.format", "json");
    let world = World::start_logged(program).await;
    let stall = world.handle().agent::<Stall>("a");
    soon(stall.ask(follow("EURUSD"))).await.unwrap();
    soon(stall.tell(Hold {})).await.unwrap();
    gate.arrival().await;
    let flood = Flood { to: "a".into(), n: 100 };
    soon(world.handle().agent::<Market>("m").ask(flood)).await.unwrap();
    until("it is told", || async {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut records =
            text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        records.any(|r| {
            r["event"] == "message.dead_letter" && r["subject"] == "stall/a" && r["message_type"].is_string()
        })
    })
    .await;
    gate.open(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_from_outside_wait_for_room_or_come_back() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let prices = |n: i64| (0..n).map(|cents| Price { cents });
    // A mailbox of four, whose agent is busy.
    let (waits, rejects) = (world.handle().agent::<Stall>("b"), world.handle().agent::<Strict>("a"));
    soon(waits.tell(Hold {})).await.unwrap();
    soon(rejects.tell(Hold {})).await.unwrap();
    gate.arrival().await;
    gate.arrival().await;
    let mut sending = std::pin::pin!(waits.send_many(prices(50)));
    assert!(futures_util::poll!(&mut sending).is_pending());
    let Err(Full(back)) = soon(rejects.send_many(prices(6))).await else { panic!("it took them all") };
    assert_eq!(back.iter().map(|price| price.cents).collect::<Vec<_>>(), [4, 5]);
    gate.open(2);
    soon(sending).await.unwrap();
    assert_eq!(soon(waits.ask(Heard {})).await.unwrap(), (0..50).collect::<Vec<_>>());
    until("it has room", || async { rejects.ask(Heard {}).await.is_ok_and(|h| h == [0, 1, 2, 3]) }).await;
    soon(rejects.send_many(prices(0))).await.unwrap();
    soon(world.handle().agent::<Stall>("no/key").send_many(prices(2))).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_of_another_node_are_left_out_and_counted() {
    let (faults, gate, dropped) = (Faults::default(), Gate::default(), dropped("roamer"));
    let world = World::start(faults.under(program(&gate)).set("node.lease", "3s")).await;
    let partition = AgentId::of("roamer", "a").partition();
    let elsewhere = world.handle().agent::<Roamer>("a");
    let keys = (0..).map(|n| format!("k{n}"));
    let here = keys.filter(|key| AgentId::of("roamer", key).partition() != partition).take(1);
    let here: Vec<_> = here.map(|key| world.handle().agent::<Roamer>(key)).collect();
    for roamer in here.iter().chain([&elsewhere]) {
        soon(roamer.ask(follow("EURUSD"))).await.unwrap();
    }
    faults.revoke(partition, "http://127.0.0.1:1");
    until("it is another's", || async { elsewhere.ask(Heard {}).await.is_err() }).await;
    world.publishes("EURUSD", 1).await;
    assert_eq!(soon(here[0].ask(Heard {})).await.unwrap(), [1]);
    assert_eq!(dropped(), 1);
    faults.restore(partition);
    until("it is ours again", || async { elsewhere.ask(Heard {}).await.is_ok() }).await;
    world.publishes("EURUSD", 2).await;
    assert_eq!(soon(elsewhere.ask(Heard {})).await.unwrap(), [2]);
    assert_eq!(dropped(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_takes_a_partition_over_asks_again_who_is_subscribed() {
    let (faults, began) = (Faults::default(), Instant::now());
    let world = World::start(faults.under(program(&Gate::default())).set("node.lease", "3s")).await;
    let (roamer, partition) = (world.handle().agent::<Roamer>("a"), AgentId::of("roamer", "a").partition());
    soon(roamer.ask(follow("CADJPY"))).await.unwrap();
    world.publishes("CADJPY", 1).await;
    // Nothing is left to be committed: only the lease tells what becomes of its partition.
    until("it is told", || async { roamer.ask(Heard {}).await.unwrap() == [1] }).await;
    faults.revoke(partition, "http://127.0.0.1:1");
    until("it is another's", || async { roamer.ask(Heard {}).await.is_err() }).await;
    world.publishes("CADJPY", 2).await;
    assert_eq!(faults.topic_reads(), 1);
    faults.restore(partition);
    until("the store is asked again", || async {
        world.publishes("CADJPY", 3).await;
        faults.topic_reads() == 2
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(25), "it would have been asked in any case");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_reaches_all_that_run_and_wakes_nobody() {
    let world = World::start(program(&Gate::default())).await;
    let handle = world.handle();
    // More than are told at once.
    let desks: Vec<_> = (0..600).map(|n| handle.agent::<Desk>(n.to_string())).collect();
    for answer in soon(join_all(desks.iter().map(|desk| desk.ask(Heard {})))).await {
        answer.unwrap();
    }
    let asleep = handle.agent::<Desk>("asleep");
    soon(asleep.ask(Retire {})).await.unwrap();
    until("it leaves memory", || async { status(&handle, "desk", "asleep").await == "passivated" }).await;
    for cents in [1, 2] {
        soon(handle.broadcast::<Desk, _, _>(Price { cents })).await.unwrap();
    }
    soon(handle.agent::<Market>("m").ask(Cry { cents: 3, end: End::Well })).await.unwrap();
    for desk in &desks {
        until("it is told", || async { desk.ask(Heard {}).await.unwrap() == [1, 2, 3] }).await;
    }
    assert_eq!(status(&handle, "desk", "asleep").await, "passivated");
    assert_eq!(soon(asleep.ask(Heard {})).await.unwrap(), [0; 0]);
    assert_eq!(status(&handle, "desk", "nobody").await, "unknown");
    soon(handle.agent::<Market>("m").ask(Cry { cents: 4, end: End::Well })).await.unwrap();
    until("it is told", || async { asleep.ask(Heard {}).await.unwrap() == [4] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_published_fails_whoever_publishes() {
    let faults = Faults::default();
    let world = World::start(faults.under(program(&Gate::default()))).await;
    let market = world.handle().agent::<Market>("m");
    let refused = soon(market.ask(Nowhere { key: "a/b".into() })).await.unwrap_err();
    assert_eq!(refused.code(), "handler_failed", "{refused}");
    let handle = world.handle();
    soon(handle.publish(&PRICES, Price { cents: -1 })).await.unwrap_err();
    soon(handle.broadcast::<Desk, _, _>(Price { cents: -1 })).await.unwrap_err();
    for name in ["", "Prices", "a b"] {
        soon(handle.publish(&Topic::new(name), Price { cents: 1 })).await.unwrap_err();
    }
    // A store that is down: who is to be told is not known, or known from before.
    world.follows("a", "EURUSD").await;
    world.publishes("EURUSD", 1).await;
    faults.fail(Some("server closed the connection unexpectedly"));
    soon(handle.publish(&PRICES.keyed("GBPUSD"), Price { cents: 1 })).await.unwrap_err();
    world.publishes("EURUSD", 2).await;
    faults.fail(None);
    assert_eq!(world.hears("a", 2).await, [1, 2]);
    soon(handle.publish(&PRICES.keyed("GBPUSD"), Price { cents: 1 })).await.unwrap();
    for cents in [-1, 1] {
        let quoted = soon(market.ask(quote("EURUSD", [cents]))).await;
        let cried = soon(market.ask(Cry { cents, end: End::Well })).await;
        assert_eq!((quoted.is_ok(), cried.is_ok()), (cents > 0, cents > 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_was_lost_subscribes_and_publishes_once() {
    let faults = Faults::default();
    let world = World::start(faults.under(program(&Gate::default()))).await;
    let (desk, ticker) = (world.handle().agent::<Desk>("a"), world.handle().agent::<Ticker>("a"));
    faults.lose_replies(1);
    world.follows("a", "EURUSD").await;
    faults.lose_replies(1);
    soon(ticker.ask(follow("EURUSD"))).await.unwrap();
    for cents in 0..10 {
        faults.lose_replies(1);
        world.quotes("EURUSD", [cents]).await;
    }
    let all: Vec<i64> = (0..10).collect();
    assert_eq!(world.hears("a", 10).await, all);
    assert_eq!(soon(desk.ask(Heard {})).await.unwrap(), all);
    until("it is told", || async { ticker.ask(Heard {}).await.unwrap() == all }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_hears_of_subscriptions_that_another_one_commits() {
    let database = Database::new();
    let node = || program(&Gate::default()).set("store.url", &database.url()).set("node.lease", "3s");
    let (mut first, second) = (World::start(node()).await, World::start(node()).await);
    let dropped = dropped("wanderer");
    // The second owns nobody: what it publishes is dropped for each subscriber that it knows.
    for n in 1..=5 {
        let wanderer = first.handle().agent::<Wanderer>(n.to_string());
        soon(wanderer.ask(follow("EURUSD"))).await.unwrap();
        let began = Instant::now();
        until("the second knows of the subscriber", || async {
            let before = dropped();
            second.publishes("EURUSD", 1).await;
            dropped() - before == n
        })
        .await;
        assert!(began.elapsed() < Duration::from_secs(5), "{n}: {:?}", began.elapsed());
    }
    first.end().await;
    let wanderer = second.handle().agent::<Wanderer>("5");
    until("the second takes over", || async { wanderer.ask(Heard {}).await.is_ok() }).await;
    second.publishes("EURUSD", 2).await;
    assert_eq!(soon(wanderer.ask(Heard {})).await.unwrap(), [2]);
}
