//! The tool cell: the actix actor of one tool. It keeps the tool's limits, runs calls beside each
//! other on the multi-thread runtime, and survives whatever they do.

use std::{
    any::Any,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context as Cx, Poll},
    time::Duration,
};

use tokio::time::Instant;

use actix::prelude::*;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    crashes::{dropped_badly, guard},
    node::Node,
    pace::{Begin, Pace},
    views::ToolInfo,
};
use crate::{
    agent::{
        AskError, Fault, JsonRefusal, JsonReply, Message as Typed, Refused, Shape,
        letter::{Answer, JsonAnswer},
        messages::decode,
        slot::ReplyTx,
    },
    clock,
    model::{
        supervision::{CrashKind, CrashReason, CrashReport, Decision},
        task::{Bounds, TaskTerms},
    },
    tool::{
        Call, CallMeta, Effect, Invocation, InvocationReply, Limits, ToolPort, TypedPort,
        course::{Course, Halt},
    },
};

/// How long a call may take when its tool does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a call that is asked to end may take for it, before it is dropped.
const GRACE: Duration = Duration::from_secs(1);
/// At most so many calls wait for a tool.
const MAX_WAITING: usize = 4_096;

pub(crate) type Run<M> =
    dyn Fn(M, Call) -> BoxFuture<'static, anyhow::Result<<M as Typed>::Reply>> + Send + Sync;

/// What a tool is, whatever its type was.
pub(crate) struct Spec<M: Typed> {
    pub name: &'static str,
    pub effect: Effect,
    pub limits: Limits,
    pub terms: TaskTerms,
    pub run: Arc<Run<M>>,
}

#[derive(Default)]
struct Figures {
    running: AtomicU64,
    waiting: AtomicU64,
    calls: AtomicU64,
    failed: AtomicU64,
    crashed: AtomicU64,
}

/// A registered tool at run time: the way to its cell, and what is seen of it.
pub(crate) struct ToolHandle<M: Typed> {
    spec: Arc<Spec<M>>,
    shape: Shape,
    figures: Arc<Figures>,
    addr: Arc<OnceLock<Addr<ToolCell<M>>>>,
    node: Weak<Node>,
    port: TypedPort<M>,
}

/// A tool, whatever its input is.
pub(crate) trait AnyTool: ToolPort {
    fn effect(&self) -> Effect;
    /// How the attempts at its tasks follow upon each other.
    fn terms(&self) -> TaskTerms;
    /// What bounds its tasks, and all its calls.
    fn bounds(&self) -> Bounds;
    fn info(&self) -> ToolInfo;
    fn shape(&self) -> &Shape;
    /// Decodes the input and sends it to the cell; `cancel` drops the call.
    fn invoke(
        &self,
        body: &RawValue,
        meta: CallMeta,
        tx: ReplyTx<JsonAnswer>,
    ) -> Result<(), AskError<JsonRefusal>>;
    /// Starts the cell, on the current arbiter.
    fn start(&self);
}

impl<M: Typed> ToolHandle<M> {
    pub(crate) fn new(spec: Spec<M>, node: Weak<Node>) -> Arc<Self> {
        let addr: Arc<OnceLock<Addr<ToolCell<M>>>> = Arc::default();
        let there = addr.clone();
        let port = TypedPort(Box::new(move |invocation: Invocation<M>| {
            // A cell that is not there drops the invocation, which tells its caller.
            if let Some(addr) = there.get() {
                let _ = addr.try_send(Invoke(invocation)).map_err(|e| match e {
                    SendError::Full(invoke) | SendError::Closed(invoke) => refuse(invoke.0, overloaded()),
                });
            }
        }));
        Arc::new(Self {
            shape: Shape::of::<M>(spec.effect == Effect::Pure),
            spec: Arc::new(spec),
            figures: Arc::default(),
            addr,
            node,
            port,
        })
    }
}

fn overloaded() -> AskError {
    AskError::Overloaded {
        what: "too many calls wait for the tool".to_owned(),
        retry_after: Duration::from_secs(1),
    }
}

fn refuse<M: Typed>(invocation: Invocation<M>, error: AskError) {
    answer(invocation.reply, Err(error.widen()), false);
}

fn answer<M: Typed>(reply: InvocationReply<M>, answer: Answer<M>, once: bool) {
    // The reply may be dropped here, and is the user's value.
    let answered = guard(|| match reply {
        InvocationReply::Typed(tx) => drop(tx.send(answer)),
        InvocationReply::Json(tx) => drop(tx.send(answer.map_err(AskError::into_json).and_then(|reply| {
            let why = match guard(|| serde_json::value::to_raw_value(&reply)) {
                Ok(Ok(body)) => return Ok(JsonReply { body, version: 0, turn: None, replayed: false }),
                Ok(Err(e)) => e.to_string(),
                Err((message, _)) => message,
            };
            // An effect that happens once has happened: its task must not run again by itself.
            let fault = || Fault::new(format!("the reply cannot be written as JSON: {why}"));
            Err(if once { AskError::Unknown } else { AskError::Failed(fault()) })
        }))),
    });
    if let Err(panic) = answered {
        dropped_badly(M::NAME, panic);
    }
}

fn begins<M: Typed>(reply: &InvocationReply<M>) -> bool {
    match reply {
        InvocationReply::Typed(tx) => tx.start(),
        InvocationReply::Json(tx) => tx.start(),
    }
}

impl<M: Typed> ToolPort for ToolHandle<M> {
    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        &self.port
    }
}

impl<M: Typed> AnyTool for ToolHandle<M> {
    fn effect(&self) -> Effect {
        self.spec.effect
    }

    fn terms(&self) -> TaskTerms {
        self.spec.terms
    }

    fn bounds(&self) -> Bounds {
        self.spec.limits.bounds()
    }

    fn info(&self) -> ToolInfo {
        let figure = |n: &AtomicU64| n.load(Ordering::Relaxed);
        ToolInfo {
            name: self.spec.name.to_owned(),
            effect: self.spec.effect,
            input: self.shape.input.clone(),
            output: self.shape.reply.clone(),
            paused: false,
            concurrency: self.spec.limits.concurrency,
            timeout_ms: super::millis(self.spec.limits.timeout.unwrap_or(DEFAULT_TIMEOUT)),
            running: figure(&self.figures.running),
            waiting: figure(&self.figures.waiting),
            calls: figure(&self.figures.calls),
            failed: figure(&self.figures.failed),
            crashed: figure(&self.figures.crashed),
        }
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn invoke(
        &self,
        body: &RawValue,
        meta: CallMeta,
        tx: ReplyTx<JsonAnswer>,
    ) -> Result<(), AskError<JsonRefusal>> {
        let input = decode::<M>(body).map_err(AskError::Invalid)?;
        (self.port.0)(Invocation { input, meta, reply: InvocationReply::Json(tx) });
        Ok(())
    }

    fn start(&self) {
        let cell = ToolCell {
            spec: self.spec.clone(),
            figures: self.figures.clone(),
            node: self.node.clone(),
            waiting: VecDeque::new(),
            running: 0,
            pace: Pace::of(self.spec.limits.rate),
            crashes: 0,
        };
        let _ = self.addr.set(cell.start());
    }
}

/// The actor of one tool.
pub(crate) struct ToolCell<M: Typed> {
    spec: Arc<Spec<M>>,
    figures: Arc<Figures>,
    node: Weak<Node>,
    waiting: VecDeque<Invocation<M>>,
    running: usize,
    pace: Pace,
    crashes: u32,
}

// Inputs that wait are moved, never pinned in place.
impl<M: Typed> Unpin for ToolCell<M> {}

impl<M: Typed> Actor for ToolCell<M> {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAX_WAITING);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Invoke<M: Typed>(Invocation<M>);

#[derive(Message)]
#[rtype(result = "()")]
struct Ended {
    failed: bool,
    crash: Option<(String, Option<String>, Option<String>)>,
}

impl<M: Typed> Handler<Invoke<M>> for ToolCell<M> {
    type Result = ();
    fn handle(&mut self, Invoke(invocation): Invoke<M>, ctx: &mut Self::Context) {
        if self.waiting.len() >= MAX_WAITING {
            return refuse(invocation, overloaded());
        }
        self.waiting.push_back(invocation);
        self.begin(ctx);
    }
}

impl<M: Typed> Handler<Ended> for ToolCell<M> {
    type Result = ();
    fn handle(&mut self, ended: Ended, ctx: &mut Self::Context) {
        self.running = self.running.saturating_sub(1);
        self.figures.running.store(self.running as u64, Ordering::Relaxed);
        if ended.failed {
            self.figures.failed.fetch_add(1, Ordering::Relaxed);
        }
        match ended.crash {
            Some((id, message, site)) => self.crashed(id, message.unwrap_or_default(), site),
            None if !ended.failed => self.crashes = 0,
            None => {}
        }
        self.begin(ctx);
    }
}

impl<M: Typed> ToolCell<M> {
    /// Begins what the limits allow.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        let Some(node) = self.node.upgrade() else { return };
        while self.spec.limits.concurrency.is_none_or(|n| self.running < n) && !self.waiting.is_empty() {
            match self.pace.begin(Instant::now()) {
                Begin::Now => {}
                Begin::Timed => break,
                Begin::After(wait) => {
                    ctx.run_later(wait, |this, ctx| {
                        this.pace.fired();
                        this.begin(ctx);
                    });
                    break;
                }
            }
            let Some(invocation) = self.waiting.pop_front() else { break };
            self.running += 1;
            self.figures.calls.fetch_add(1, Ordering::Relaxed);
            let (spec, cell, host) = (self.spec.clone(), ctx.address(), node.clone());
            node.runtime.spawn(async move {
                cell.do_send(run(spec, invocation, host).await);
            });
        }
        self.figures.running.store(self.running as u64, Ordering::Relaxed);
        self.figures.waiting.store(self.waiting.len() as u64, Ordering::Relaxed);
    }

    /// A tool keeps no state: the call is answered as a crash, and the tool goes on.
    fn crashed(&mut self, id: String, message: String, site: Option<String>) {
        self.figures.crashed.fetch_add(1, Ordering::Relaxed);
        self.crashes = self.crashes.saturating_add(1);
        let Some(node) = self.node.upgrade() else { return };
        let settings = node.settings.load();
        let supervision = &settings.supervision;
        node.crashed(CrashReport {
            group: None,
            id,
            at: clock::now(),
            subject: format!("tool:{}", self.spec.name),
            reason: CrashReason { kind: CrashKind::Panic, message, site },
            message_type: Some(M::NAME.to_owned()),
            message_id: None,
            message_bytes: None,
            repeat: self.crashes,
            version: None,
            lost: Some("nothing: a tool keeps no state".to_owned()),
            decision: Decision::Restart { attempt: self.crashes, delay: Duration::ZERO },
            max_restarts: supervision.max_restarts,
            within: supervision.within,
        });
    }
}

/// Runs one call to its end.
async fn run<M: Typed>(spec: Arc<Spec<M>>, invocation: Invocation<M>, node: Arc<Node>) -> Ended {
    let Invocation { input, meta, reply } = invocation;
    if !begins(&reply) {
        return Ended { failed: false, crash: None };
    }
    let cancel = CancellationToken::new();
    let guard = cancel.clone().drop_guard();
    let claim = meta.task.as_ref().map(|task| (task.id, task.claim));
    let call = Call::new(node.host(), meta.key, meta.attempt, claim, cancel);
    let task = claim.map(|(task, _)| task);
    if let Some(task) = task {
        node.calls.pin().insert(task, call.clone());
    }
    let limit = spec.limits.timeout.unwrap_or(DEFAULT_TIMEOUT);
    let limit = meta.timeout.map_or(limit, |t| if spec.limits.timeout.is_some() { t.min(limit) } else { t });
    let (begin, own) = (spec.run.clone(), call.clone());
    // The first poll builds the future, so that a panic there is caught too.
    let work = Guarded(Box::pin(async move { begin(input, own).await }));
    let result = tokio::select! {
        biased;
        ended = work => Left::Ended(ended),
        why = halted(&call) => Left::Halted(why),
        () = cancelled_for_long(&call) => Left::OutOfTime,
        () = out_of_time(&call, limit, spec.limits.heartbeat) => Left::OutOfTime,
    };
    drop(guard);
    if let Some(task) = task {
        node.calls.pin().remove(&task);
        node.notes.leave(call.notes().take(task, clock::now()));
    }
    // So does a call that takes effect once, of which the function has not seen the end.
    let interrupted = call.course().is_some_and(Course::close);
    let once = spec.effect == Effect::Once || interrupted;
    let (outcome, crash) = match result {
        Left::Ended(Ok(Ok(value))) => (Ok(value), None),
        Left::Ended(Ok(Err(_))) if interrupted => (Err(AskError::Unknown), None),
        Left::Ended(Ok(Err(error))) => (
            Err(match error.downcast::<Refused<M::Error>>() {
                Ok(Refused(refusal)) => AskError::Refused(refusal),
                Err(error) => AskError::Failed(Fault::from(&error)),
            }),
            None,
        ),
        Left::Halted(Halt::Waits(waits)) => {
            *meta.waits.lock() = waits;
            return Ended { failed: false, crash: None };
        }
        // Whoever holds the claim now ends it.
        Left::Halted(Halt::Over) => return Ended { failed: false, crash: None },
        Left::Halted(Halt::Unknown) => (Err(AskError::Unknown), None),
        Left::Halted(Halt::Diverged(how)) => (Err(AskError::Diverged(how)), None),
        Left::Ended(Err((message, site))) => {
            let id = Uuid::now_v7().to_string();
            let fault = Fault {
                message: format!("crashed: {message}"),
                chain: Vec::new(),
                crash_id: Some(id.clone()),
                advice: None,
            };
            let error = if once { AskError::Unknown } else { AskError::Failed(fault) };
            (Err(error), Some((id, Some(message), site)))
        }
        Left::OutOfTime => (Err(if once { AskError::Unknown } else { AskError::TimedOut }), None),
    };
    let failed = outcome.is_err();
    answer(reply, outcome, once);
    Ended { failed, crash }
}

/// How a call left.
enum Left<T> {
    /// The tool's own end, or its panic.
    Ended(Result<T, (String, Option<String>)>),
    /// A task function stops before its end.
    Halted(Halt),
    OutOfTime,
}

/// Why a task function stops before its end.
async fn halted(call: &Call) -> Halt {
    match call.course() {
        Some(course) => course.halted().await,
        None => std::future::pending().await,
    }
}

/// Waits until a call was asked to end, and has had the time to do so.
async fn cancelled_for_long(call: &Call) {
    call.until_cancelled().await;
    tokio::time::sleep(GRACE).await;
}

/// Waits until a call has had its time, or has given no sign of life for too long.
async fn out_of_time(call: &Call, limit: Duration, heartbeat: Option<Duration>) {
    let begun = Instant::now();
    let end = begun.checked_add(limit);
    loop {
        let silent = heartbeat.and_then(|most| call.notes().last_beat().unwrap_or(begun).checked_add(most));
        let Some(next) = [end, silent].into_iter().flatten().min() else {
            return std::future::pending().await;
        };
        if Instant::now() >= next {
            return;
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Catches panics of the future it polls.
struct Guarded<T>(Pin<Box<dyn Future<Output = T> + Send>>);

impl<T> Future for Guarded<T> {
    type Output = Result<T, (String, Option<String>)>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Self::Output> {
        match guard(|| self.0.as_mut().poll(cx)) {
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
