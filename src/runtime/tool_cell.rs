//! The tool cell: the actix actor of one tool. It keeps the tool's limits, runs calls beside each
//! other on the multi-thread runtime, and survives whatever they do.

use std::{
    any::Any,
    collections::VecDeque,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use actix::prelude::*;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;

use super::{
    node::Node,
    pace::{Begin, Pace},
    tool_call::{CallEnd, DEFAULT_TIMEOUT, Ended, answer},
    views::ToolInfo,
};
use crate::{
    agent::{
        AskError, JsonRefusal, Message as Typed, Shape, drops::Guarded, letter::JsonAnswer, messages::decode,
        slot::ReplyTx,
    },
    clock,
    model::{
        supervision::{CrashKind, CrashReason, CrashReport, Decision},
        task::{Bounds, TaskTerms},
    },
    tool::{Call, CallMeta, Effect, Invocation, InvocationReply, Limits, ToolPort, TypedPort},
};

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

/// Why a call is not to begin any more.
fn comes_to_nothing<M: Typed>(invocation: &Invocation<M>, now: Instant) -> Option<AskError> {
    let awaited = match &invocation.reply {
        InvocationReply::Typed(tx) => tx.is_awaited(),
        InvocationReply::Json(tx) => tx.is_awaited(),
    };
    let late = invocation.meta.deadline.is_some_and(|deadline| now >= deadline);
    (late || !awaited).then_some(AskError::TimedOut)
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
        let input = Guarded::new(M::NAME, decode::<M>(body).map_err(AskError::Invalid)?);
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
        while self.spec.limits.concurrency.is_none_or(|n| self.running < n) {
            let now = Instant::now();
            let Some(next) = self.waiting.front() else { break };
            if let Some(error) = comes_to_nothing(next, now) {
                self.waiting.pop_front().into_iter().for_each(|gone| refuse(gone, error.clone()));
                continue;
            }
            match self.pace.begin(now) {
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
            let (spec, host) = (self.spec.clone(), node.clone());
            let end = CallEnd::new(ctx.address(), spec.effect);
            node.runtime.spawn(end.of(spec, invocation, host));
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
