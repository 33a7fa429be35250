//! Calls of tools: however they end, their callers hear of it, and the next one has its turn.

use greenroom::{AskError, Call, Effect, Limits, Tool, prelude::*, runtime::views::TaskRequest};

use crate::support::{Gate, World, outcome, soon, until};

/// Panics when it is dropped, if it is armed.
#[derive(Debug, Default, Clone, Serialize, Deserialize, JsonSchema)]
struct Fuse {
    armed: bool,
}
impl Drop for Fuse {
    fn drop(&mut self) {
        assert!(!self.armed, "it went off");
    }
}

/// An error that cannot be told.
#[derive(Debug)]
struct Mute;
impl std::fmt::Display for Mute {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("it has no words")
    }
}
impl std::error::Error for Mute {}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum How {
    Well,
    /// It waits at the gate.
    Waits,
    /// It never ends, and what it holds cannot be dropped.
    Hangs,
    /// It fails, and cannot say why.
    Fails,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Use {
    how: How,
    #[serde(default)]
    fuse: Fuse,
}
message!(Use -> ());

/// One at a time.
struct Frail(Gate);
impl Tool for Frail {
    const NAME: &'static str = "frail";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Use;
    fn limits(&self) -> Limits {
        Limits { concurrency: Some(1), ..Limits::default() }
    }
    async fn run(&self, input: Use, _: &Call) -> Result<()> {
        self.0.note("begun");
        match input.how {
            How::Well => Ok(()),
            How::Waits => {
                self.0.wait().await;
                Ok(())
            }
            How::Hangs => {
                let _held = Fuse { armed: true };
                std::future::pending().await
            }
            How::Fails => Err(Mute.into()),
        }
    }
}

fn using(how: How) -> Use {
    Use { how, fuse: Fuse::default() }
}

async fn world() -> (World, Gate) {
    let gate = Gate::default();
    (World::start(Runtime::builder().tool(Frail(gate.clone()))).await, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_goes_on_whatever_a_call_of_it_drops_or_says() {
    let (world, _) = world().await;
    let frail = world.handle().tool::<Frail>();
    for round in 1..=2 {
        let hangs = frail.call(using(How::Hangs)).timeout(Duration::from_millis(50));
        assert_eq!(soon(hangs).await, Err(AskError::TimedOut));
        let error = soon(frail.call(using(How::Fails))).await.unwrap_err();
        assert!(error.code() == "handler_crashed" && error.to_string().contains("no words"), "{error}");
        soon(frail.call(using(How::Well))).await.unwrap();
        until("both are told", || async { world.handle().operator().crashes().len() == 2 * round }).await;
    }
    let info = world.handle().operator().tool("frail").await.unwrap();
    assert_eq!((info.crashed, info.waiting), (4, 0));
}

/// Cannot be read, not even with an error.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Brittle {
    #[serde(deserialize_with = "breaks")]
    n: u64,
}
message!(Brittle -> ());

fn breaks<'de, D: serde::Deserializer<'de>>(_: D) -> std::result::Result<u64, D::Error> {
    panic!("it breaks")
}

struct Takes;
impl Tool for Takes {
    const NAME: &'static str = "takes";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Brittle;
    async fn run(&self, _: Brittle, _: &Call) -> Result<()> {
        Ok(())
    }
}
#[derive(Default, Serialize, Deserialize)]
struct Taker {}
impl Agent for Taker {
    const KIND: &'static str = "taker";
    type Messages = Brittle;
}
impl Handler<Brittle> for Taker {
    async fn handle(&mut self, _: Brittle, _: &Turn<Self>) -> Result<()> {
        Ok(())
    }
}

/// It is read by the dispatcher, which must not end of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_panics_where_it_is_read_fails_its_task_alone() {
    let world = World::start(Runtime::builder().tool(Takes).agent::<Taker>()).await;
    let handle = world.handle();
    for _ in 0..2 {
        let for_tool = soon(handle.tool::<Takes>().submit(Brittle { n: 1 })).await.unwrap();
        let for_agent = soon(handle.agent::<Taker>("a").submit(Brittle { n: 1 })).await.unwrap();
        for task in [for_tool, for_agent] {
            let Outcome::Failed(fault) = outcome::<Brittle>(&handle, task).await else {
                panic!("it succeeded")
            };
            assert!(fault.message.contains("it breaks"), "{fault}");
        }
    }
    let called = soon(handle.operator().call("takes", br#"{"n":1}"#, Default::default())).await;
    assert!(called.unwrap_err().to_string().contains("it breaks"));
    assert_eq!(handle.operator().fatal(), None);
}

/// It would be given back, and begin again, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_tool_breaks_at_its_end_has_used_an_attempt() {
    let (world, gate) = world().await;
    for how in [How::Fails, How::Hangs] {
        let before = gate.count("begun");
        let request = TaskRequest {
            target: "tool:frail".into(),
            input: Some(serde_json::json!({"how": how})),
            max_attempts: Some(1),
            timeout: Some("100ms".into()),
            ..TaskRequest::default()
        };
        let id = world.handle().operator().submit(request).await.unwrap().0.id;
        assert!(matches!(outcome::<Use>(&world.handle(), id).await, Outcome::Failed(_)));
        assert_eq!(gate.count("begun"), before + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_for_its_tool_ends_in_time_and_does_not_begin_later() {
    let (world, gate) = world().await;
    let frail = world.handle().tool::<Frail>();
    let first = tokio::spawn(frail.call(using(How::Waits)));
    gate.arrival().await;
    let armed = Use { how: How::Well, fuse: Fuse { armed: true } };
    let late = soon(frail.call(armed).timeout(Duration::from_millis(20))).await;
    assert_eq!(late, Err(AskError::TimedOut));
    let gone = tokio::spawn(frail.call(using(How::Well)));
    until("it waits", || async { world.handle().operator().tool("frail").await.unwrap().waiting == 2 }).await;
    gone.abort();
    assert!(soon(gone).await.unwrap_err().is_cancelled());
    gate.open(1);
    soon(first).await.unwrap().unwrap();
    soon(frail.call(using(How::Well))).await.unwrap();
    assert_eq!(gate.count("begun"), 2, "nobody waits for the others");
}
