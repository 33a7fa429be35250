//! Panics in odd places: caught, told with their site, and the agent goes on.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use greenroom::{
    Call, Tool,
    model::{supervision::CrashKind, task::TaskState},
    prelude::*,
    runtime::views::Action,
};
use serde_json::Value;

use crate::support::{Gate, World, soon, until};

static DEFAULT: AtomicUsize = AtomicUsize::new(0);
static START: AtomicUsize = AtomicUsize::new(0);
static STOP: AtomicUsize = AtomicUsize::new(0);

fn spends(from: &AtomicUsize) -> bool {
    from.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok()
}

/// Panics when it is dropped, if it is armed, also while another panic unwinds.
#[derive(Debug, Default, Clone, Serialize, Deserialize, JsonSchema)]
struct Fuse {
    armed: bool,
}
impl Drop for Fuse {
    fn drop(&mut self) {
        assert!(!self.armed, "it went off");
    }
}

/// Thrown, it panics when it is dropped.
struct Thrown(#[allow(dead_code, reason = "held for its drop")] Fuse);

#[derive(Serialize, Deserialize)]
struct Odd {
    n: u64,
    /// Set in a turn that panics, so that it is never kept.
    #[serde(skip)]
    fuse: Fuse,
}
impl Default for Odd {
    fn default() -> Self {
        assert!(!spends(&DEFAULT), "no default");
        Self { n: 0, fuse: Fuse::default() }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Bump {}
/// Panics, and its agent does when it is dropped.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Twice {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Throw {}
/// Holds a fuse: the handler takes it, or keeps the sender waiting first.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Carry {
    fuse: Fuse,
}
/// Waits at the gate, then replies with what panics when it is dropped.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Give {}
/// The same, and changes nothing.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Peek {}
/// Panics, and a local value does while that unwinds.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Nest {}
/// Sends, publishes, broadcasts and sets as a timer what panics when it is dropped; and fails, if it is to.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Leave {
    fails: bool,
}
/// Sets a timer that holds such a one, or takes it back.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Wind {
    back: bool,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Refuse {}
/// Panics when it is told.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Sour {}
impl std::fmt::Display for Sour {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("too sour")
    }
}
impl std::error::Error for Sour {}
message! { Refuse -> () | Sour; Bump -> u64; Twice -> (); Throw -> (); Carry -> (); Give -> Fuse; Peek -> Fuse; Nest -> (); Leave -> (); Wind -> () }

static FUSES: Topic<Carry> = Topic::new("fuses");
const FAR: Duration = Duration::from_secs(3_600);

fn armed() -> Carry {
    Carry { fuse: Fuse { armed: true } }
}

impl Agent for Odd {
    const KIND: &'static str = "odd";
    type Messages = (Bump, Twice, Throw, Carry, Give, Peek, Nest, Leave, Wind, Refuse);
    fn policy() -> Policy {
        Policy::default().backoff(Duration::ZERO, Duration::ZERO)
    }
    // Before there is a future.
    fn on_start(&mut self, _: &Turn<Self>) -> impl Future<Output = Result<()>> + Send {
        assert!(!spends(&START), "no start");
        std::future::ready(Ok(()))
    }
    fn on_stop(&mut self, _: &Turn<Self>) -> impl Future<Output = Result<()>> + Send {
        assert!(!spends(&STOP), "no stop");
        std::future::ready(Ok(()))
    }
}
impl Handler<Refuse> for Odd {
    async fn handle(&mut self, _: Refuse, _: &Turn<Self>) -> Result<()> {
        Err(Refuse::refuse(Sour {}))
    }
}
impl Handler<Bump> for Odd {
    async fn handle(&mut self, _: Bump, _: &Turn<Self>) -> Result<u64> {
        self.n += 1;
        Ok(self.n)
    }
}
impl Handler<Twice> for Odd {
    async fn handle(&mut self, _: Twice, _: &Turn<Self>) -> Result<()> {
        self.n += 100;
        self.fuse.armed = true;
        panic!("the first of two")
    }
}
impl Handler<Throw> for Odd {
    async fn handle(&mut self, _: Throw, _: &Turn<Self>) -> Result<()> {
        self.n += 100;
        std::panic::panic_any(Thrown(Fuse { armed: true }))
    }
}
impl Handler<Carry> for Odd {
    async fn handle(&mut self, _: Carry, _: &Turn<Self>) -> Result<()> {
        self.n += 100;
        Ok(())
    }
}
impl Handler<Give> for Odd {
    async fn handle(&mut self, _: Give, turn: &Turn<Self>) -> Result<Fuse> {
        self.n += 1;
        turn.resource::<Gate>().wait().await;
        Ok(Fuse { armed: true })
    }
}
impl Query<Peek> for Odd {
    async fn query(&self, _: Peek, turn: &Turn<Self>) -> Result<Fuse> {
        turn.resource::<Gate>().wait().await;
        Ok(Fuse { armed: true })
    }
}
impl Handler<Nest> for Odd {
    async fn handle(&mut self, _: Nest, _: &Turn<Self>) -> Result<()> {
        let _local = Fuse { armed: true };
        panic!("the outer one")
    }
}

impl Handler<Leave> for Odd {
    async fn handle(&mut self, leave: Leave, turn: &Turn<Self>) -> Result<()> {
        turn.agent::<Few>("a").send_many((0..4).map(|_| armed()));
        turn.publish(&FUSES, armed());
        turn.broadcast::<Few, _, _>(armed());
        if leave.fails {
            turn.timer("far", FAR, armed());
            turn.timer("far", FAR, armed());
            bail!("no");
        }
        Ok(())
    }
}
impl Handler<Wind> for Odd {
    async fn handle(&mut self, wind: Wind, turn: &Turn<Self>) -> Result<()> {
        if wind.back {
            turn.cancel_timer("far");
        } else {
            turn.timer("far", FAR, armed());
        }
        Ok(())
    }
}

struct Grump;
impl Tool for Grump {
    const NAME: &'static str = "grump";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Refuse;
    async fn run(&self, _: Refuse, _: &Call) -> Result<()> {
        Err(Refuse::refuse(Sour {}))
    }
}

/// Has room for one message, and waits at the gate.
#[derive(Default, Serialize, Deserialize)]
struct Few {}
impl Agent for Few {
    const KIND: &'static str = "few";
    type Messages = (Carry, Bump);
    fn policy() -> Policy {
        Policy::default().mailbox(1)
    }
}
impl Handler<Carry> for Few {
    async fn handle(&mut self, carry: Carry, _: &Turn<Self>) -> Result<()> {
        std::mem::forget(carry);
        Ok(())
    }
}
impl Handler<Bump> for Few {
    async fn handle(&mut self, _: Bump, turn: &Turn<Self>) -> Result<u64> {
        turn.resource::<Gate>().wait().await;
        Ok(0)
    }
}

fn program(gate: &Gate) -> greenroom::Builder {
    Runtime::builder()
        .agent::<Odd>()
        .agent::<Few>()
        .tool(Grump)
        .resource(gate.clone())
        .set("log.format", "compact")
}

/// The record of a log file in which this stands.
fn told(file: &Path, event: &str, what: &str) -> Option<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records.find(|record| record["event"] == event && record.to_string().contains(what))
}

fn is_here(site: &Value) -> bool {
    site.as_str().is_some_and(|site| site.starts_with("tests/runtime/panics.rs:"))
}

struct Stage {
    world: World,
    gate: Gate,
    logs: tempfile::TempDir,
}

impl Stage {
    async fn start() -> Self {
        let (gate, logs) = (Gate::default(), tempfile::tempdir().unwrap());
        let file = logs.path().join("log.jsonl");
        let program = program(&gate).set("log.file.path", &file.to_string_lossy());
        Self { world: World::start_logged(program).await, gate, logs }
    }

    /// Waits until the log tells of it, with a site in this file.
    async fn tells(&self, event: &str, what: &str) {
        let file = self.logs.path().join("log.jsonl");
        until(what, || async { told(&file, event, what).is_some() }).await;
        let record = told(&file, event, what).unwrap();
        let site = if event == "agent.crashed" { &record["reason"]["site"] } else { &record["site"] };
        assert!(is_here(site), "{record}");
    }
}

/// They take turns: what panics is a matter of this process.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_panics_where_it_is_made_or_opened_is_tried_again() {
    let _alone = ALONE.lock().await;
    let stage = Stage::start().await;
    let handle = stage.world.handle();
    DEFAULT.store(2, SeqCst);
    START.store(2, SeqCst);
    assert_eq!(soon(handle.agent::<Odd>("a").ask(Bump {})).await.unwrap(), 1, "at the fifth attempt");
    let crashes = handle.operator().crashes();
    let messages: Vec<&str> = crashes.iter().rev().map(|crash| crash.reason.message.as_str()).collect();
    assert_eq!(
        messages,
        ["default: no default", "default: no default", "on_start: no start", "on_start: no start"]
    );
    for crash in &crashes {
        assert_eq!(crash.reason.kind, CrashKind::Start);
        assert!(crash.reason.site.as_ref().is_some_and(|site| site.starts_with("tests/runtime/panics.rs:")));
    }
    stage.tells("agent.crashed", "default: no default").await;
    // one that never can is stopped, not tried for ever
    DEFAULT.store(usize::MAX, SeqCst);
    let error = soon(handle.agent::<Odd>("b").ask(Bump {})).await.unwrap_err();
    DEFAULT.store(0, SeqCst);
    assert!(error.to_string().contains("no default"), "{error}");
    handle.operator().act("odd", "b", Action::Restart).await.unwrap();
    assert_eq!(soon(handle.agent::<Odd>("b").ask(Bump {})).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_panics_where_it_is_closed_or_dropped_is_there_again() {
    let _alone = ALONE.lock().await;
    let stage = Stage::start().await;
    let handle = stage.world.handle();
    let agent = handle.agent::<Odd>("a");
    assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 1);
    STOP.store(1, SeqCst);
    handle.operator().act("odd", "a", Action::Restart).await.unwrap();
    assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 2);
    stage.tells("agent.stopped", "no stop").await;

    // the agent is lent to its handler: its drop comes after the unwinding, and aborts nothing
    let error = soon(agent.ask(Twice {})).await.unwrap_err();
    assert!(error.to_string().contains("the first of two"), "{error}");
    assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 3);
    stage.tells("agent.crashed", "the first of two").await;
    stage.tells("agent.drop_panicked", "it went off").await;
}

/// Its task was given back and claimed again without end, and its cell ended unreported.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_panics_when_it_is_written_is_a_crash_of_its_turn() {
    let _alone = ALONE.lock().await;
    let stage = Stage::start().await;
    let handle = stage.world.handle();
    let (agent, tool) = (handle.agent::<Odd>("a"), handle.tool::<Grump>());
    let refused = soon(agent.ask(Refuse {})).await;
    assert!(matches!(refused, Err(AskError::Refused(Sour {}))), "nobody writes it");
    let ids = [
        soon(agent.submit(Refuse {}).max_attempts(2)).await.unwrap(),
        soon(tool.submit(Refuse {}).max_attempts(2)).await.unwrap(),
    ];
    for id in ids {
        let ended = soon(handle.operator().wait(id, Duration::from_secs(20))).await.unwrap();
        assert_eq!((ended.state, ended.attempt), (TaskState::Failed, 2));
        assert!(ended.error.unwrap().message.contains("too sour"));
    }
    stage.tells("agent.crashed", "too sour").await;
    assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_thrown_may_panic_as_well() {
    let _alone = ALONE.lock().await;
    let stage = Stage::start().await;
    let agent = stage.world.handle().agent::<Odd>("a");
    for n in 1..=5 {
        let error = soon(agent.ask(Throw {})).await.unwrap_err();
        assert!(error.to_string().contains("a panic without a text"), "{error}");
        assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), n);
    }
    stage.tells("agent.crashed", "a panic without a text").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_panics_when_it_is_dropped_undoes_its_turn_alone() {
    let _alone = ALONE.lock().await;
    let stage = Stage::start().await;
    let handle = stage.world.handle();
    let agent = handle.agent::<Odd>("a");
    // at the end of its handler
    let error = soon(agent.ask(Carry { fuse: Fuse { armed: true } })).await.unwrap_err();
    assert_eq!(error.code(), "handler_crashed");
    assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 1);
    stage.tells("agent.crashed", "it went off").await;
    // unread, among others that are answered all the same
    let blocked = tokio::spawn(agent.ask(Give {}).into_future());
    stage.gate.arrival().await;
    let waiting: Vec<_> = [true, false, true, false]
        .map(|armed| tokio::spawn(agent.ask(Carry { fuse: Fuse { armed } }).into_future()))
        .into();
    until("they wait", || async { handle.operator().agent("odd", "a").await.unwrap().mailbox.depth >= 4 })
        .await;
    let stop = handle.operator().act("odd", "a", Action::Stop).await;
    stop.unwrap();
    stage.gate.open(1);
    std::mem::forget(soon(blocked).await.unwrap());
    for answer in waiting {
        assert_eq!(soon(answer).await.unwrap().unwrap_err().code(), "wrong_state");
    }
    stage.tells("agent.drop_panicked", "it went off").await;
    handle.operator().act("odd", "a", Action::Restart).await.unwrap();
    assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_turn_leaves_may_panic_when_nobody_takes_it() {
    let _alone = ALONE.lock().await;
    let stage = Stage::start().await;
    let handle = stage.world.handle();
    let (agent, few) = (handle.agent::<Odd>("a"), handle.agent::<Few>("a"));
    // a turn that fails
    assert_eq!(soon(agent.ask(Leave { fails: true })).await.unwrap_err().code(), "handler_failed");
    assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 1);
    stage.tells("agent.drop_panicked", "it went off").await;
    // a mailbox without room
    let held = tokio::spawn(few.ask(Bump {}).into_future());
    stage.gate.arrival().await;
    for _ in 0..3 {
        soon(agent.ask(Leave { fails: false })).await.unwrap();
    }
    assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 2);
    drop(few.send_many((0..4).map(|_| armed())));
    stage.gate.open(1);
    assert_eq!(soon(held).await.unwrap().unwrap(), 0);
    // a timer that is taken back, and one that is pending when the node ends
    for back in [false, true, false, false] {
        soon(agent.ask(Wind { back })).await.unwrap();
    }
    assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 3);
    assert!(handle.operator().crashes().is_empty());
    let mut stage = stage;
    stage.world.end().await;
}

/// Its asker has gone meanwhile, so that the runtime is who drops it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_panics_when_it_is_dropped_harms_nobody() {
    let _alone = ALONE.lock().await;
    let stage = Stage::start().await;
    let agent = stage.world.handle().agent::<Odd>("a");
    for n in 1..=3 {
        let asked = tokio::spawn(agent.ask(Give {}).into_future());
        stage.gate.arrival().await;
        asked.abort();
        assert!(soon(asked).await.unwrap_err().is_cancelled());
        let peeked = tokio::spawn(agent.ask(Peek {}).into_future());
        stage.gate.open(1);
        stage.gate.arrival().await;
        peeked.abort();
        assert!(soon(peeked).await.unwrap_err().is_cancelled());
        stage.gate.open(1);
        assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), n * 2, "both turns happened");
    }
    stage.tells("agent.drop_panicked", "it went off").await;
    assert!(stage.world.handle().operator().crashes().is_empty());
}

/// Rust ends a process in which a drop panics while another panic unwinds. Who looks for the reason finds
/// both sites, and what was acknowledged is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_upon_a_panic_ends_the_process_and_says_where() {
    let _alone = ALONE.lock().await;
    let data = tempfile::tempdir().unwrap();
    let ended = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["panics::the_process_that_ends", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("GREENROOM_TEST_DATA", data.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && ended.status.code().is_none(), "it aborts: {said}");
    let from = said.find("a panic came upon the one at tests/runtime/panics.rs:").expect(&said);
    assert!(said[from..].contains("it went off"), "{said}");

    let gate = Gate::default();
    let program = program(&gate).set("node.data_dir", &data.path().to_string_lossy());
    let runtime = soon(program.set("log.level", "critical").start()).await.unwrap();
    assert_eq!(soon(runtime.handle().agent::<Odd>("a").ask(Bump {})).await.unwrap(), 2);
    soon(runtime.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it aborts its process: another test runs it in one of its own"]
async fn the_process_that_ends() {
    let Some(data) = std::env::var_os("GREENROOM_TEST_DATA") else { return };
    let gate = Gate::default();
    let program = program(&gate).set("node.data_dir", &data.to_string_lossy());
    let runtime = soon(program.start()).await.unwrap();
    let agent = runtime.handle().agent::<Odd>("a");
    assert_eq!(soon(agent.ask(Bump {})).await.unwrap(), 1);
    let _ = soon(agent.ask(Nest {})).await;
    unreachable!("it goes on");
}
