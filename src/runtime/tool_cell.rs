//! The tool cell: the actix actor of one tool. It keeps the tool's limits, runs calls beside each
//! other on the multi-thread runtime, and survives whatever they do.
//!
//! A child of the root: a cell that has ended all the same is brought back. Calls that wait in it are answered, as
//! they have not begun; those that run go on, and are bounded together with those of the next cell.

use std::{
    any::Any,
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
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
    running: AtomicUsize,
    waiting: AtomicU64,
    calls: AtomicU64,
    failed: AtomicU64,
    crashed: AtomicU64,
    /// Crashes since the last call that ended well.
    streak: AtomicU32,
    /// How many cells there have been.
    cells: AtomicU64,
}

/// What outlives a tool's cell.
pub(super) struct Shared<M: Typed> {
    pub spec: Spec<M>,
    figures: Figures,
    pace: Mutex<Pace>,
    /// `None`: it has not started.
    cell: RwLock<Option<Addr<ToolCell<M>>>>,
    pub node: Weak<Node>,
}

/// A registered tool at run time: the way to its cell, and what is seen of it.
pub(crate) struct ToolHandle<M: Typed> {
    shared: Arc<Shared<M>>,
    shape: Shape,
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
    /// Starts the cell, on the current arbiter; in the place of one that has ended.
    fn start(&self);
    /// Whether the cell takes calls.
    fn is_up(&self) -> bool;
    /// Ends the cell as a defect would.
    #[cfg(test)]
    fn break_cell(&self);
}

impl<M: Typed> ToolHandle<M> {
    pub(crate) fn new(spec: Spec<M>, node: Weak<Node>) -> Arc<Self> {
        let shape = Shape::of::<M>(spec.effect == Effect::Pure);
        let pace = Mutex::new(Pace::of(spec.limits.rate));
        let shared =
            Arc::new(Shared { spec, figures: Figures::default(), pace, cell: RwLock::default(), node });
        let there = shared.clone();
        let port = TypedPort(Box::new(move |invocation| {
            // A cell that is not there drops the invocation, which tells its caller.
            if let Some(cell) = there.cell.read().as_ref()
                && let Err(SendError::Full(mut invoke)) = cell.try_send(Invoke(Some(invocation)))
            {
                invoke.0.take().into_iter().for_each(|invocation| refuse(invocation, overloaded()));
            }
        }));
        Arc::new(Self { shared, shape, port })
    }
}

impl<M: Typed> Shared<M> {
    /// A call has come to its end, whichever cell it was of.
    pub(super) fn ended(&self, ended: Ended) {
        let figures = &self.figures;
        figures.running.fetch_sub(1, Ordering::AcqRel);
        if ended.failed {
            figures.failed.fetch_add(1, Ordering::Relaxed);
        }
        match ended.crash {
            Some((id, message, site)) => self.crashed(id, message.unwrap_or_default(), site),
            None if !ended.failed => figures.streak.store(0, Ordering::Relaxed),
            None => {}
        }
        if let Some(cell) = self.cell.read().as_ref() {
            cell.do_send(Look);
        }
    }

    /// A tool keeps no state: the call is answered as a crash, and the tool goes on.
    fn crashed(&self, id: String, message: String, site: Option<String>) {
        self.figures.crashed.fetch_add(1, Ordering::Relaxed);
        let repeat = self.figures.streak.fetch_add(1, Ordering::Relaxed).saturating_add(1);
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
            repeat,
            version: None,
            lost: Some("nothing: a tool keeps no state".to_owned()),
            decision: Decision::Restart { attempt: repeat, delay: Duration::ZERO },
            max_restarts: supervision.max_restarts,
            within: supervision.within,
        });
    }
}

/// Why a call has not begun whose cell has ended.
fn has_ended() -> AskError {
    AskError::Unavailable("the tool has ended: the call has not begun".to_owned())
}

/// Why a task's call does not begin any more.
fn expired() -> AskError {
    AskError::Unavailable("the task has expired: the call has not begun".to_owned())
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
    if late || !awaited {
        return Some(AskError::TimedOut);
    }
    invocation.meta.task.as_ref().filter(|task| task.has_expired(clock::now())).map(|_| expired())
}

impl<M: Typed> ToolPort for ToolHandle<M> {
    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        &self.port
    }
}

impl<M: Typed> AnyTool for ToolHandle<M> {
    fn effect(&self) -> Effect {
        self.shared.spec.effect
    }

    fn terms(&self) -> TaskTerms {
        self.shared.spec.terms
    }

    fn bounds(&self) -> Bounds {
        self.shared.spec.limits.bounds()
    }

    fn info(&self) -> ToolInfo {
        let (spec, figures) = (&self.shared.spec, &self.shared.figures);
        let figure = |n: &AtomicU64| n.load(Ordering::Relaxed);
        ToolInfo {
            name: spec.name.to_owned(),
            effect: spec.effect,
            input: self.shape.input.clone(),
            output: self.shape.reply.clone(),
            paused: false,
            concurrency: spec.limits.concurrency,
            timeout_ms: super::millis(spec.limits.timeout.unwrap_or(DEFAULT_TIMEOUT)),
            running: figures.running.load(Ordering::Relaxed) as u64,
            waiting: figure(&figures.waiting),
            calls: figure(&figures.calls),
            failed: figure(&figures.failed),
            crashed: figure(&figures.crashed),
            restarts: figure(&figures.cells).saturating_sub(1),
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
        let cell = ToolCell { shared: self.shared.clone(), waiting: VecDeque::new() };
        self.shared.figures.cells.fetch_add(1, Ordering::Relaxed);
        *self.shared.cell.write() = Some(cell.start());
    }

    fn is_up(&self) -> bool {
        self.shared.cell.read().as_ref().is_some_and(Addr::connected)
    }

    #[cfg(test)]
    fn break_cell(&self) {
        let _ = self.shared.cell.read().as_ref().map(|cell| cell.try_send(tests::Break));
    }
}

/// The actor of one tool.
pub(crate) struct ToolCell<M: Typed> {
    shared: Arc<Shared<M>>,
    waiting: VecDeque<Invocation<M>>,
}

// Inputs that wait are moved, never pinned in place.
impl<M: Typed> Unpin for ToolCell<M> {}

impl<M: Typed> Actor for ToolCell<M> {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAX_WAITING);
        // A timer that was set for it has ended with the cell before.
        self.shared.pace.lock().fired();
    }
}

impl<M: Typed> Drop for ToolCell<M> {
    fn drop(&mut self) {
        self.waiting.drain(..).for_each(|invocation| refuse(invocation, has_ended()));
        self.shared.figures.waiting.store(0, Ordering::Relaxed);
    }
}

/// A call on its way to the cell. `None`: it has come there.
#[derive(Message)]
#[rtype(result = "()")]
struct Invoke<M: Typed>(Option<Invocation<M>>);

impl<M: Typed> Drop for Invoke<M> {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|invocation| refuse(invocation, has_ended()));
    }
}

impl<M: Typed> Handler<Invoke<M>> for ToolCell<M> {
    type Result = ();
    fn handle(&mut self, mut invoke: Invoke<M>, ctx: &mut Self::Context) {
        let Some(invocation) = invoke.0.take() else { return };
        if self.waiting.len() >= MAX_WAITING {
            return refuse(invocation, overloaded());
        }
        self.waiting.push_back(invocation);
        self.begin(ctx);
    }
}

/// A call has ended: another one may begin.
#[derive(Message)]
#[rtype(result = "()")]
struct Look;

impl<M: Typed> Handler<Look> for ToolCell<M> {
    type Result = ();
    fn handle(&mut self, _: Look, ctx: &mut Self::Context) {
        self.begin(ctx);
    }
}

impl<M: Typed> ToolCell<M> {
    /// Begins what the limits allow.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        let Some(node) = self.shared.node.upgrade() else { return };
        let figures = &self.shared.figures;
        let has_room = |n: usize| figures.running.load(Ordering::Acquire) < n;
        while self.shared.spec.limits.concurrency.is_none_or(has_room) {
            let now = Instant::now();
            let Some(next) = self.waiting.front() else { break };
            if let Some(error) = comes_to_nothing(next, now) {
                self.waiting.pop_front().into_iter().for_each(|gone| refuse(gone, error.clone()));
                continue;
            }
            match self.shared.pace.lock().begin(now) {
                Begin::Now => {}
                Begin::Timed => break,
                Begin::After(wait) => {
                    ctx.run_later(wait, |this, ctx| {
                        this.shared.pace.lock().fired();
                        this.begin(ctx);
                    });
                    break;
                }
            }
            let Some(invocation) = self.waiting.pop_front() else { break };
            figures.running.fetch_add(1, Ordering::AcqRel);
            figures.calls.fetch_add(1, Ordering::Relaxed);
            node.runtime.spawn(CallEnd::new(self.shared.clone()).of(invocation, node.clone()));
        }
        figures.waiting.store(self.waiting.len() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Message)]
    #[rtype(result = "()")]
    pub(super) struct Break;

    impl<M: Typed> Handler<Break> for ToolCell<M> {
        type Result = ();
        fn handle(&mut self, _: Break, _: &mut Self::Context) {
            panic!("as told")
        }
    }
}
