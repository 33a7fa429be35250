//! The back-off of a tool that crashes, in a time that is still.

use futures_util::poll;
use greenroom::{Call, Effect, Limits, Tool, prelude::*, testkit};
use jiff::SignedDuration;

/// Ends well, or crashes.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Burn {
    well: bool,
}
message!(Burn -> ());

/// It waits a second after a crash, by chance up to half of it less, and after each further one twice as long.
struct Hot;
impl Tool for Hot {
    const NAME: &'static str = "hot";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Burn;
    fn limits(&self) -> Limits {
        let backoff = (Duration::from_secs(1), Duration::from_secs(300));
        Limits { restart_backoff: Some(backoff), ..Limits::default() }
    }
    async fn run(&self, input: Burn, _: &Call) -> Result<()> {
        assert!(input.well, "too hot");
        Ok(())
    }
}

#[test]
fn a_tool_begins_nothing_for_a_while_after_a_crash_and_longer_after_each() -> Result<()> {
    let program = Runtime::builder().tool(Hot);
    testkit::run(program, async |kit| {
        let (hot, operator) = (kit.tool::<Hot>(), kit.handle().operator());
        // how long the call waits for its turn
        let waits = async |well: bool| {
            let before = kit.now();
            assert_eq!(hot.call(Burn { well }).await.is_ok(), well);
            kit.now().duration_since(before)
        };
        let within = |waited: SignedDuration, least: i64, most: i64| {
            let bounds = SignedDuration::from_millis(least)..=SignedDuration::from_millis(most + 5);
            assert!(bounds.contains(&waited), "{waited:?}, not {least} to {most} ms");
        };
        assert_eq!(operator.tool("hot").await?.status, "idle");
        within(waits(false).await, 0, 0);
        assert_eq!(operator.tool("hot").await?.status, "restarting");
        within(waits(false).await, 500, 1_000);
        within(waits(false).await, 1_000, 2_000);
        within(waits(true).await, 2_000, 4_000);
        assert_eq!(operator.tool("hot").await?.status, "idle");
        // it has been shown to work: the next crash is a first one
        within(waits(false).await, 0, 0);
        for most in [1_000, 2_000, 4_000] {
            within(waits(false).await, most / 2, most);
        }
        // what waits begins when an operator forgives it, and its crash is a first one too
        let mut waiting = hot.call(Burn { well: false });
        assert!(poll!(&mut waiting).is_pending());
        let before = kit.now();
        operator.pause_kind("tool:hot", false).await?;
        assert!(waiting.await.is_err());
        within(kit.now().duration_since(before), 0, 0);
        within(waits(true).await, 500, 1_000);
        Ok(())
    })
    .map(drop)
}
