//! Timers under the test's clock.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use greenroom::{prelude::*, testkit};

/// Adds one more an hour after each addition.
#[derive(Default, Serialize, Deserialize, Debug, PartialEq)]
struct Echo {
    words: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Say {
    n: u64,
}
message!(Say -> u64);

impl Agent for Echo {
    const KIND: &'static str = "echo";
    type Messages = Say;
}
impl Handler<Say> for Echo {
    async fn handle(&mut self, say: Say, turn: &Turn<Self>) -> Result<u64> {
        turn.timer("again", Duration::from_secs(3_600), Say { n: 1 });
        self.words += say.n;
        Ok(self.words)
    }
}

#[test]
fn a_timer_rings_when_the_test_lets_its_time_come() -> Result<()> {
    testkit::run(Runtime::builder().agent::<Echo>(), async |kit| {
        kit.agent::<Echo>("a").ask(Say { n: 2 }).await?;
        kit.advance(Duration::from_secs(3_599)).await;
        assert_eq!(kit.state::<Echo>("a")?.words, 2);
        kit.advance(Duration::from_secs(1)).await;
        assert_eq!(kit.state::<Echo>("a")?.words, 3);
        Ok(())
    })
}

/// Writes down when its timers ring, and sets and cancels them as it is told.
#[derive(Default, Serialize, Deserialize, Debug, PartialEq)]
struct Clock {
    rung: Vec<String>,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Ring {
    name: String,
}
/// So many seconds from now; 0: it is cancelled.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Set {
    name: String,
    after: u64,
}
message! { Ring -> (); Set -> () }

impl Agent for Clock {
    const KIND: &'static str = "clock";
    type Messages = (Ring, Set);
}
impl Handler<Ring> for Clock {
    async fn handle(&mut self, ring: Ring, _: &Turn<Self>) -> Result<()> {
        self.rung.push(ring.name);
        Ok(())
    }
}
impl Handler<Set> for Clock {
    async fn handle(&mut self, Set { name, after }: Set, turn: &Turn<Self>) -> Result<()> {
        match after {
            0 => turn.cancel_timer(&name),
            after => turn.timer(&name, Duration::from_secs(after), Ring { name: name.clone() }),
        }
        Ok(())
    }
}

#[test]
fn one_of_the_same_name_replaces_it_and_a_cancelled_one_does_not_ring() -> Result<()> {
    testkit::run(Runtime::builder().agent::<Clock>(), async |kit| {
        let clock = kit.agent::<Clock>("a");
        let set = |name: &str, after| clock.ask(Set { name: name.into(), after });
        for (name, after) in [("later", 20), ("later", 60), ("sooner", 90), ("sooner", 30), ("cancelled", 40)]
        {
            set(name, after).await?;
        }
        set("cancelled", 0).await?;
        let mut rung = Vec::new();
        for (seconds, name) in [(30, "sooner"), (60, "later")] {
            kit.advance(Duration::from_secs(29)).await;
            assert_eq!(kit.state::<Clock>("a")?.rung, rung, "before second {seconds}");
            kit.advance(Duration::from_secs(1)).await;
            rung.push(name.to_owned());
            assert_eq!(kit.state::<Clock>("a")?.rung, rung);
        }
        kit.advance(Duration::from_secs(60)).await;
        assert_eq!(kit.state::<Clock>("a")?.rung, rung);
        Ok(())
    })
}

/// A timer outlives its agent's crashes, also that of its own turn: it is in memory from the commit on that sets it.
#[test]
fn a_timer_rings_wherever_a_turn_is_cut_off() -> Result<()> {
    testkit::for_each_crash_point(
        || Runtime::builder().agent::<Echo>(),
        async |kit| {
            let echo = kit.agent::<Echo>("docs");
            let id = echo.submit(Say { n: 2 }).idempotency_key("a").await?;
            kit.settle().await;
            kit.advance(Duration::from_secs(3_600)).await;
            kit.crash::<Echo>("docs").await;
            assert_eq!(kit.state::<Echo>("docs")?, Echo { words: 3 });
            let _ = id;
            Ok(())
        },
    )
}

static BLASTS: AtomicUsize = AtomicUsize::new(0);

#[derive(Default, Serialize, Deserialize)]
struct Mine {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Lay {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Blow {}
message! { Lay -> (); Blow -> () }
impl Agent for Mine {
    const KIND: &'static str = "mine";
    type Messages = (Lay, Blow);
}
impl Handler<Lay> for Mine {
    async fn handle(&mut self, _: Lay, turn: &Turn<Self>) -> Result<()> {
        turn.timer("blow", Duration::from_secs(60), Blow {});
        Ok(())
    }
}
impl Handler<Blow> for Mine {
    async fn handle(&mut self, _: Blow, _: &Turn<Self>) -> Result<()> {
        BLASTS.fetch_add(1, SeqCst);
        panic!("as always")
    }
}

#[test]
fn a_message_of_a_timer_that_always_crashes_does_so_twice() -> Result<()> {
    testkit::run(Runtime::builder().agent::<Mine>(), async |kit| {
        let mine = kit.agent::<Mine>("a");
        mine.ask(Lay {}).await?;
        kit.advance(Duration::from_secs(600)).await;
        assert_eq!(BLASTS.load(SeqCst), 2);
        mine.ask(Lay {}).await?;
        Ok(())
    })
}
