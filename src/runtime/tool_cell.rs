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
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use actix::prelude::*;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;

use super::{
    metrics::Calls,
    node::Node,
    pace::{Begin, Pace},
    tool_call::{CallEnd, Crash, DEFAULT_TIMEOUT, answer},
    tool_service::{Entry, Service, Stop},
    views::ToolInfo,
};
use crate::{
    agent::{
        AskError, JsonRefusal, Message as Typed, Shape, chain::Chain, drops::Guarded, letter::JsonAnswer,
        messages::decode, slot::ReplyTx,
    },
    clock,
    config::{self, RestartOverrides},
    model::{
        event::{self, Event, Level},
        supervision::{CrashKind, CrashReason, CrashReport, RestartPolicy, restart_command},
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
    /// What the configuration says of its restarts.
    pub intensity: RestartOverrides,
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
    /// How many cells there have been.
    cells: AtomicU64,
}

/// What outlives a tool's cell.
pub(super) struct Shared<M: Typed> {
    pub spec: Spec<M>,
    figures: Figures,
    pub metrics: Calls,
    service: Service,
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
    /// Whether there is a cell.
    fn is_up(&self) -> bool;
    /// That it takes no calls: it has crashed too often.
    fn stopped(&self) -> Option<Arc<Stop>>;
    /// An operator has it take calls again, and forgives it. `false`: it did take them.
    fn resume(&self) -> bool;
    /// Ends the cell as a defect would.
    #[cfg(test)]
    fn break_cell(&self);
}

impl<M: Typed> ToolHandle<M> {
    pub(crate) fn new(spec: Spec<M>, node: Weak<Node>) -> Arc<Self> {
        let shape = Shape::of::<M>(spec.effect == Effect::Pure);
        let (pace, cell) = (Mutex::new(Pace::of(spec.limits.rate)), RwLock::default());
        let shared = Arc::new(Shared {
            metrics: Calls::of(spec.name),
            spec,
            figures: Figures::default(),
            service: Service::default(),
            pace,
            cell,
            node,
        });
        let there = shared.clone();
        let port = TypedPort(Box::new(move |invocation| {
            if let Some(stop) = there.service.stopped() {
                return turn_away(invocation, &stop);
            }
            if let Err(circle) = there.admits(&invocation.meta.chain) {
                return refuse(invocation, AskError::Cycle(circle));
            }
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
    /// Whether a call may wait for its place. The error: all the places are of calls that wait for it, in a circle.
    fn admits(&self, chain: &Chain) -> Result<(), Vec<String>> {
        match self.spec.limits.concurrency {
            Some(places) if !chain.is_empty() => chain.admits_beside(&self.subject(), places),
            _ => Ok(()),
        }
    }

    /// A call has come to its end, whichever cell it was of.
    pub(super) fn ended(&self, failed: bool) {
        let figures = &self.figures;
        figures.running.fetch_sub(1, Ordering::AcqRel);
        if failed {
            figures.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.look();
    }

    /// Takes in what a call shows of the tool in whose `life` it began. `well`: it has done what it was to do, or waits
    /// for a signal.
    pub(super) fn judge(&self, crash: Option<Crash>, well: bool, life: u64) {
        match crash {
            Some(crash) => self.crashed(crash, life),
            None if well => self.service.works(),
            None => {}
        }
    }

    /// Has the cell look what may begin.
    fn look(&self) {
        if let Some(cell) = self.cell.read().as_ref() {
            cell.do_send(Look);
        }
    }

    /// The call is answered as a crash. A tool keeps no state, so that its restart is a pause: unless it has had too
    /// many of them.
    fn crashed(&self, (id, message, site): Crash, life: u64) {
        self.figures.crashed.fetch_add(1, Ordering::Relaxed);
        self.metrics.crashed();
        let Some(node) = self.node.upgrade() else { return };
        let (subject, policy) = (self.subject(), self.policy(&node.settings.load().supervision));
        let (judged, stop) = self.service.crashed(life, &subject, &policy, &node);
        node.crashed(CrashReport {
            group: None,
            id,
            at: clock::now(),
            subject: subject.clone(),
            reason: CrashReason { kind: CrashKind::Panic, message: message.unwrap_or_default(), site },
            message_type: Some(M::NAME.to_owned()),
            message_id: None,
            message_bytes: None,
            repeat: judged.repeat,
            version: None,
            lost: Some("nothing: a tool keeps no state".to_owned()),
            decision: judged.decision,
            max_restarts: policy.max_restarts,
            within: policy.within,
        });
        if let Some(stop) = stop {
            let hint = format!("its tasks wait; when the cause is mended: {}", restart_command(&subject));
            let event = Event::new(Level::Error, event::AGENT_STOPPED, subject);
            node.logger.emit(event.field("reason", stop.why.clone()).hint(hint));
            // it claims none of them from now on
            node.wake_dispatcher(true);
        }
    }

    fn subject(&self) -> String {
        format!("tool:{}", self.spec.name)
    }

    /// What its configuration says, over its code, over what is in force for all.
    fn policy(&self, all: &config::Supervision) -> RestartPolicy {
        let (limits, mut policy) = (&self.spec.limits, all.policy());
        (policy.max_restarts, policy.within) =
            limits.max_restarts.unwrap_or((policy.max_restarts, policy.within));
        (policy.backoff_min, policy.backoff_max) =
            limits.restart_backoff.unwrap_or((policy.backoff_min, policy.backoff_max));
        let own = self.spec.intensity;
        let policy = own.over(policy);
        // of the two the one gives way that the configuration does not set
        match own.backoff_max {
            Some(max) => RestartPolicy { backoff_min: policy.backoff_min.min(max), ..policy },
            None => RestartPolicy { backoff_max: policy.backoff_max.max(policy.backoff_min), ..policy },
        }
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

/// Refuses a call of a tool that is stopped.
fn turn_away<M: Typed>(invocation: Invocation<M>, stop: &Stop) {
    let error = stop.error(invocation.meta.task.is_some());
    refuse(invocation, error);
}

fn turn_away_all<M: Typed>(waiting: &mut VecDeque<Invocation<M>>, stop: &Stop) {
    waiting.drain(..).for_each(|invocation| turn_away(invocation, stop));
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
    invocation.meta.task.as_ref().filter(|task| task.has_expired(clock::now)).map(|_| expired())
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
        let stop = self.shared.service.stopped();
        let running = figures.running.load(Ordering::Relaxed) as u64;
        let status = match running {
            _ if stop.is_some() => "stopped",
            _ if self.shared.service.backs_off(Instant::now()) => "restarting",
            0 => "idle",
            _ => "active",
        };
        ToolInfo {
            name: spec.name.to_owned(),
            status: status.to_owned(),
            reason: stop.map(|stop| stop.why.clone()),
            effect: spec.effect,
            input: self.shape.input.clone(),
            output: self.shape.reply.clone(),
            paused: false,
            concurrency: spec.limits.concurrency,
            timeout_ms: super::millis(spec.limits.timeout.unwrap_or(DEFAULT_TIMEOUT)),
            running,
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
        let cell = ToolCell { shared: self.shared.clone(), waiting: VecDeque::new(), back_off: None };
        self.shared.figures.cells.fetch_add(1, Ordering::Relaxed);
        *self.shared.cell.write() = Some(cell.start());
    }

    fn is_up(&self) -> bool {
        self.shared.cell.read().as_ref().is_some_and(Addr::connected)
    }

    fn stopped(&self) -> Option<Arc<Stop>> {
        self.shared.service.stopped()
    }

    fn resume(&self) -> bool {
        let was_stopped = self.shared.service.resume();
        self.shared.look();
        was_stopped
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
    /// Has it look again when a back-off has passed.
    back_off: Option<SpawnHandle>,
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
        if let Some(stop) = self.shared.service.stopped() {
            turn_away_all(&mut self.waiting, &stop);
        }
        let has_room = |n: usize| figures.running.load(Ordering::Acquire) < n;
        while self.shared.spec.limits.concurrency.is_none_or(has_room) {
            let now = Instant::now();
            let Some(next) = self.waiting.front() else { break };
            if let Some(error) = comes_to_nothing(next, now) {
                self.waiting.pop_front().into_iter().for_each(|gone| refuse(gone, error.clone()));
                continue;
            }
            let life = match self.shared.service.entry(now) {
                Entry::Now(life) => life,
                Entry::Never(stop) => {
                    turn_away_all(&mut self.waiting, &stop);
                    break;
                }
                Entry::After(wait) => {
                    // an operator may have ended the one that it was set for
                    if let Some(old) = self.back_off.take() {
                        ctx.cancel_future(old);
                    }
                    self.back_off = Some(ctx.run_later(wait, |this, ctx| {
                        this.back_off = None;
                        this.begin(ctx);
                    }));
                    break;
                }
            };
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
            let (tool, task) = (self.shared.spec.name, invocation.meta.task.as_ref().map(|task| task.id));
            let call = Box::pin(CallEnd::new(self.shared.clone(), life).of(invocation, node.clone()));
            let there = node.clone();
            node.runtime.spawn(async move { there.pulses.of(tool, M::NAME, task, call).await });
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
