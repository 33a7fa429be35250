//! The order in which agents stop and start, where one of them takes too long.

use std::sync::Arc;

use greenroom::{Strategy, prelude::*, testkit};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Who has stopped and started, and in which second.
#[derive(Clone)]
struct Lives(Arc<Mutex<Vec<String>>>, Arc<Mutex<Option<Instant>>>);
impl Lives {
    fn note(&self, sign: &str, key: &str) {
        let since = self.1.lock().map_or(0, |since| since.elapsed().as_secs());
        self.0.lock().push(format!("{sign}{key} {since}"));
    }

    /// Forgets all, and counts from now.
    fn begin(&self) {
        self.0.lock().clear();
        *self.1.lock() = Some(Instant::now());
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Touch {}
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Sleep {
    seconds: u64,
}
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Crash {}
/// Its next start, or stop, takes so long.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Slow {
    start: u64,
    stop: u64,
}
message! { Touch -> u64; Sleep -> (); Crash -> (); Slow -> () }

macro_rules! member {
    ($agent:ident, $kind:literal, $policy:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $agent {
            touched: u64,
            start: u64,
            stop: u64,
        }
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Touch, Sleep, Crash, Slow);
            fn policy() -> Policy {
                $policy.group("house").backoff(Duration::ZERO, Duration::ZERO)
            }
            async fn on_start(&mut self, turn: &Turn<Self>) -> Result<()> {
                tokio::time::sleep(Duration::from_secs(self.start)).await;
                turn.resource::<Lives>().note("+", turn.key());
                Ok(())
            }
            async fn on_stop(&mut self, turn: &Turn<Self>) -> Result<()> {
                tokio::time::sleep(Duration::from_secs(self.stop)).await;
                turn.resource::<Lives>().note("-", turn.key());
                Ok(())
            }
        }
        impl Handler<Touch> for $agent {
            async fn handle(&mut self, _: Touch, _: &Turn<Self>) -> Result<u64> {
                self.touched += 1;
                Ok(self.touched)
            }
        }
        impl Handler<Sleep> for $agent {
            async fn handle(&mut self, sleep: Sleep, _: &Turn<Self>) -> Result<()> {
                tokio::time::sleep(Duration::from_secs(sleep.seconds)).await;
                Ok(())
            }
        }
        impl Handler<Crash> for $agent {
            async fn handle(&mut self, _: Crash, _: &Turn<Self>) -> Result<()> {
                panic!("as told")
            }
        }
        impl Handler<Slow> for $agent {
            async fn handle(&mut self, slow: Slow, _: &Turn<Self>) -> Result<()> {
                (self.start, self.stop) = (slow.start, slow.stop);
                Ok(())
            }
        }
    };
}
member!(Feed, "feed", Policy::default());
member!(Desk, "desk", Policy::default());
member!(Brisk, "brisk", Policy::default().stop_timeout(Duration::from_secs(1)));

/// Runs a scenario with `a` and `b`, and `c` and `d` behind them; what went on in it and at its end.
fn play(scenario: impl AsyncFnOnce(&testkit::Kit, &Lives) -> Result<()>) -> Result<Vec<String>> {
    let lives = Lives(Arc::default(), Arc::default());
    let program = Runtime::builder()
        .group("house", Strategy::OneForAll, 9, Duration::from_secs(60))
        .agent::<Feed>()
        .agent::<Desk>()
        .resource(lives.clone());
    testkit::run(program, async |kit| {
        for key in ["a", "b"] {
            kit.agent::<Feed>(key).ask(Touch {}).await?;
        }
        for key in ["c", "d"] {
            kit.agent::<Desk>(key).ask(Touch {}).await?;
        }
        scenario(kit, &lives).await
    })?;
    Ok(std::mem::take(&mut lives.0.lock()))
}

/// The turn of `c` is cut short after five seconds, and undone; it stops without more ado.
#[test]
fn who_does_not_stop_in_time_does_not_hold_up_the_order() -> Result<()> {
    play(async |kit, lives| {
        lives.begin();
        kit.agent::<Desk>("c").tell(Sleep { seconds: 20 }).await?;
        assert!(kit.agent::<Feed>("b").ask(Crash {}).await.is_err());
        kit.settle().await;
        assert_eq!(*lives.0.lock(), ["-d 0", "-a 5", "+a 5", "+b 5", "+c 5", "+d 5"]);
        assert_eq!(kit.agent::<Desk>("c").ask(Touch {}).await?, 2);
        Ok(())
    })
    .map(drop)
}

#[test]
fn who_stops_or_starts_for_long_is_waited_for_but_not_for_ever() -> Result<()> {
    play(async |kit, lives| {
        kit.agent::<Desk>("d").ask(Slow { start: 4, stop: 3 }).await?;
        kit.agent::<Feed>("a").ask(Slow { start: 15, stop: 8 }).await?;
        lives.begin();
        assert!(kit.agent::<Feed>("b").ask(Crash {}).await.is_err());
        kit.advance(Duration::from_secs(30)).await;
        // `on_stop` of `a` is cut short, and its start not waited for to its end.
        assert_eq!(*lives.0.lock(), ["-d 3", "-c 3", "+b 18", "+c 18", "+d 22", "+a 23"].map(str::to_owned));
        Ok(())
    })
    .map(drop)
}

/// The turn, or the hook, of one that has less time; and of one to which the configuration gives more.
#[test]
fn an_agent_has_as_long_to_stop_as_its_kind_and_the_configuration_say() -> Result<()> {
    for (set, seconds) in [(None, 1), (Some("3s"), 3), (Some("0s"), 0)] {
        for hangs_in_its_turn in [true, false] {
            let lives = Lives(Arc::default(), Arc::default());
            let program = Runtime::builder()
                .group("house", Strategy::OneForAll, 9, Duration::from_secs(60))
                .agent::<Feed>()
                .agent::<Brisk>()
                .resource(lives.clone());
            let program = match set {
                Some(set) => program.set("agents.brisk.stop_timeout", set),
                None => program,
            };
            testkit::run(program, async |kit| {
                kit.agent::<Feed>("a").ask(Touch {}).await?;
                let brisk = kit.agent::<Brisk>("b");
                brisk.ask(Slow { start: 0, stop: if hangs_in_its_turn { 0 } else { 20 } }).await?;
                lives.begin();
                if hangs_in_its_turn {
                    brisk.tell(Sleep { seconds: 20 }).await?;
                }
                assert!(kit.agent::<Feed>("a").ask(Crash {}).await.is_err());
                kit.settle().await;
                assert_eq!(*lives.0.lock(), [format!("+a {seconds}"), format!("+b {seconds}")]);
                brisk.ask(Slow { start: 0, stop: 0 }).await?;
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Else it would be stopped, and not deleted.
#[test]
fn who_deletes_an_agent_waits_as_long_as_its_turn_has_to_stop() -> Result<()> {
    let lives = Lives(Arc::default(), Arc::default());
    let house = Runtime::builder().group("house", Strategy::OneForAll, 9, Duration::from_secs(60));
    let program = house.agent::<Brisk>().resource(lives);
    let program = program.set("agents.brisk.stop_timeout", "60s").set("agents.brisk.turn_timeout", "5m");
    testkit::run(program, async |kit| {
        let brisk = kit.agent::<Brisk>("b");
        brisk.ask(Slow { start: 0, stop: 0 }).await?;
        brisk.tell(Sleep { seconds: 100 }).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        kit.handle().operator().delete_agent("brisk", "b", false, None).await?;
        assert_eq!(kit.handle().operator().agent("brisk", "b").await.unwrap_err().code(), "not_found");
        Ok(())
    })
    .map(drop)
}

/// Each waited for members that stood in the other's order: for ten seconds, and again.
#[test]
fn two_restarts_at_once_do_not_wait_for_each_other() -> Result<()> {
    play(async |kit, lives| {
        lives.begin();
        kit.agent::<Desk>("c").tell(Sleep { seconds: 2 }).await?;
        assert!(kit.agent::<Feed>("b").ask(Crash {}).await.is_err());
        kit.advance(Duration::from_millis(500)).await;
        assert!(kit.agent::<Feed>("a").ask(Crash {}).await.is_err());
        kit.settle().await;
        let lives = lives.0.lock().clone();
        for key in ["a", "b", "c", "d"] {
            let last = lives.iter().rfind(|life| life[1..].starts_with(key));
            assert!(last.is_some_and(|life| life.starts_with('+')), "{lives:?}");
        }
        assert!(lives.iter().all(|life| life.ends_with(" 0") || life.ends_with(" 2")), "{lives:?}");
        Ok(())
    })
    .map(drop)
}

#[test]
fn a_kind_that_does_not_stop_in_time_does_not_hold_up_those_before_it() -> Result<()> {
    let lives = play(async |kit, lives| {
        lives.begin();
        kit.agent::<Desk>("c").tell(Sleep { seconds: 8 }).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    })?;
    assert_eq!(lives[0], "-d 0");
    assert_eq!(lives[3], "-c 8");
    assert!(
        lives[1..3].contains(&"-a 5".to_owned()) && lives[1..3].contains(&"-b 5".to_owned()),
        "{lives:?}"
    );
    Ok(())
}
