//! A turn, as a handler sees it: the only door to side effects.
//!
//! What a turn tells and submits waits in its outbox and leaves with its commit. What it asks and
//! calls leaves at once, but only when the agent's earlier turns are durable (the *gate*).

use std::{
    any::TypeId,
    collections::HashMap,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Agent, Handler,
    answer::{AskError, Done, Joined},
    host::{Host, directory},
    lane::{Lane, Name},
    letter::{Letter, Meta, ReplyTo},
    message::Message,
    messages::Accepts,
    reference::{Address, Ask, Pending, request_hash},
};
use crate::{
    Settings,
    model::{
        id::{Target, TaskId},
        task::{NewBatch, NewTask, Notify},
    },
    tool::{Effect, Out, Refusal, Tool, call_tool},
};

/// At most so many tasks may leave one turn, one by one.
const MAX_TASKS: usize = 1_000;
/// At most so many inputs may leave one turn through `submit_all`.
const MAX_BATCH: usize = 100_000;
/// At most so many bytes of inputs may leave one turn one by one.
const MAX_OUTBOX_BYTES: usize = 4 << 20;

/// What leaves with the commit.
#[derive(Default)]
pub(crate) struct Outbox {
    pub tells: Vec<Box<dyn FnOnce() + Send>>,
    pub tasks: Vec<NewTask>,
    pub batches: Vec<NewBatch>,
    pub bytes: usize,
    /// Of `tasks`, those that came one by one, and their bytes.
    singles: (usize, usize),
    pub retire: bool,
    /// Why the turn must fail although its handler answered.
    pub fault: Option<String>,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.tells.is_empty() && self.tasks.is_empty() && !self.retire && self.fault.is_none()
    }

    /// Takes in what a later turn of the same commit leaves.
    pub(crate) fn append(&mut self, mut later: Outbox) {
        self.tells.append(&mut later.tells);
        self.tasks.append(&mut later.tasks);
        self.batches.append(&mut later.batches);
        self.bytes += later.bytes;
        self.retire |= later.retire;
    }

    fn push(&mut self, task: NewTask, single: bool) {
        let bytes = task.input.get().len();
        self.bytes += bytes;
        if single {
            self.singles.0 += 1;
            self.singles.1 += bytes;
            if self.singles.0 > MAX_TASKS || self.singles.1 > MAX_OUTBOX_BYTES {
                self.refuse(
                    "a turn may submit 1,000 tasks or 4 MiB one by one: use `submit_all`, or split the work",
                );
            }
        }
        self.tasks.push(task);
    }

    fn refuse(&mut self, why: impl Into<String>) {
        self.fault.get_or_insert_with(|| why.into());
    }
}

/// Whether a turn may reach outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Passage {
    /// Every earlier turn is durable.
    Clear = 0,
    /// Earlier turns wait for their commit.
    Blocked = 1,
}

#[derive(Default)]
pub(crate) struct Gate {
    passage: AtomicU8,
    asked: AtomicBool,
    passed: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Gate {
    pub(crate) fn set(&self, passage: Passage) {
        self.passage.store(passage as u8, Ordering::Release);
        if passage == Passage::Clear && self.asked.load(Ordering::Acquire) {
            let waiting = std::mem::take(&mut *self.waiting.lock());
            for waker in waiting {
                waker.wake();
            }
        }
    }

    fn is_clear(&self) -> bool {
        self.passage.load(Ordering::Acquire) == Passage::Clear as u8
    }

    /// Whether the turn stands at the gate and it is not clear.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire) && !self.is_clear()
    }

    /// Whether the turn stands at the gate, clear or not.
    pub(crate) fn is_standing(&self) -> bool {
        self.asked.load(Ordering::Acquire) && !self.is_passed()
    }

    /// Whether the turn has reached outside.
    pub(crate) fn is_passed(&self) -> bool {
        self.passed.load(Ordering::Acquire)
    }

    async fn pass(&self) {
        std::future::poll_fn(|cx| {
            if self.is_clear() {
                self.passed.store(true, Ordering::Release);
                return Poll::Ready(());
            }
            self.waiting.lock().push(cx.waker().clone());
            self.asked.store(true, Ordering::Release);
            if self.is_clear() {
                cx.waker().wake_by_ref()
            }
            Poll::Pending
        })
        .await;
    }
}

/// One turn of an agent. Handlers and hooks get it by reference; it is `Send + Sync`, so several
/// asks may be awaited together.
pub struct Turn<A: Agent> {
    host: Arc<dyn Host>,
    lane: Arc<Lane<A>>,
    pub(crate) outbox: Mutex<Outbox>,
    pub(crate) gate: Gate,
    pub(crate) is_new: bool,
    now: AtomicI64,
    message: Option<Uuid>,
    task: Option<TaskId>,
    deadline: Option<Instant>,
    chain: Vec<String>,
    given_key: Option<String>,
    key: OnceLock<String>,
    calls: Mutex<HashMap<[u8; 16], u32>>,
    cancel: Option<CancellationToken>,
}

impl<A: Agent> Turn<A> {
    pub(crate) fn new(host: Arc<dyn Host>, lane: Arc<Lane<A>>) -> Self {
        Self {
            host,
            lane,
            outbox: Mutex::default(),
            gate: Gate::default(),
            is_new: true,
            now: AtomicI64::new(0),
            message: None,
            task: None,
            deadline: None,
            chain: Vec::new(),
            given_key: None,
            key: OnceLock::new(),
            calls: Mutex::default(),
            cancel: None,
        }
    }

    /// For the cell: makes it ready for the next message.
    pub(crate) fn begin(&mut self, meta: Option<&Meta>, passage: Passage) {
        *self.gate.passage.get_mut() = passage as u8;
        if *self.gate.asked.get_mut() {
            *self.gate.asked.get_mut() = false;
            *self.gate.passed.get_mut() = false;
            self.gate.waiting.get_mut().clear();
            self.calls.get_mut().clear();
        } else if *self.gate.passed.get_mut() {
            *self.gate.passed.get_mut() = false;
            self.calls.get_mut().clear();
        }
        *self.now.get_mut() = 0;
        if self.key.get().is_some() {
            self.key = OnceLock::new();
        }
        if let Some(meta) = meta {
            self.message = meta.id;
            self.task = meta.claim.as_ref().map(|c| c.id);
            self.deadline = meta.deadline;
            self.chain.clone_from(&meta.chain);
            self.given_key = meta.key.as_ref().map(|k| k.text.clone());
        } else if self.message.is_some()
            || self.deadline.is_some()
            || !self.chain.is_empty()
            || self.given_key.is_some()
            || self.task.is_some()
        {
            self.message = None;
            self.task = None;
            self.deadline = None;
            self.chain.clear();
            self.given_key = None;
        }
    }

    /// For the cell: what the turn leaves behind.
    pub(crate) fn take_outbox(&mut self) -> Option<Outbox> {
        let outbox = self.outbox.get_mut();
        if outbox.is_empty() { None } else { Some(std::mem::take(outbox)) }
    }

    /// For the cell: whether the turn leaves anything behind.
    pub(crate) fn has_outbox(&mut self) -> bool {
        !self.outbox.get_mut().is_empty()
    }

    pub(crate) fn set_cancel(&mut self, cancel: CancellationToken) {
        self.cancel = Some(cancel);
    }

    fn name(&self) -> &Name {
        &self.lane.name
    }

    /// The agent's key.
    pub fn key(&self) -> &str {
        &self.name().key
    }

    /// The agent's own address.
    pub fn me(&self) -> Address<A> {
        Address::new(&*self.name().key)
    }

    /// Whether the agent has never committed.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The time of the turn: the same at each call.
    pub fn now(&self) -> Timestamp {
        let micros = match self.now.load(Ordering::Relaxed) {
            0 => {
                let fresh = Timestamp::now().as_microsecond();
                match self.now.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => fresh,
                    Err(first) => first,
                }
            }
            known => known,
        };
        Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// What is left of the caller's budget, where it gave one.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline.map(|d| d.saturating_duration_since(Instant::now()))
    }

    /// A key that is the same whenever this message is handled again: the task's id, or the key
    /// that the caller gave, or one of this message's own.
    pub fn idempotency_key(&self) -> &str {
        self.key.get_or_init(|| match (&self.task, &self.given_key, &self.message) {
            (Some(task), _, _) => task.to_string(),
            (None, Some(key), _) => format!("{}/{}/{key}", self.name().kind, self.name().key),
            (None, None, Some(message)) => message.to_string(),
            (None, None, None) => Uuid::now_v7().to_string(),
        })
    }

    /// Whether an operator, or a shutdown, asks the turn to end.
    pub fn cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// Another agent, by key.
    pub fn agent<B: Agent>(&self, key: impl Into<String>) -> Peer<'_, A, B> {
        Peer { turn: self, key: key.into(), _peer: PhantomData }
    }

    /// Another agent, by address.
    pub fn at<B: Agent>(&self, to: &Address<B>) -> Peer<'_, A, B> {
        self.agent(to.key.clone())
    }

    /// A tool.
    pub fn tool<T: Tool>(&self) -> ToolPeer<'_, A, T> {
        ToolPeer { turn: self, _tool: PhantomData }
    }

    /// What the builder was given with `.resource(…)`.
    ///
    /// # Panics
    /// When the builder was given none of this type: the turn then crashes, and says so.
    pub fn resource<T: Send + Sync + 'static>(&self) -> &T {
        let found = self.host.resource(TypeId::of::<T>()).and_then(|any| any.downcast_ref::<T>());
        match found {
            Some(resource) => resource,
            None => {
                panic!("no resource `{0}`: add `.resource(…)` to the builder", std::any::type_name::<T>())
            }
        }
    }

    /// The program's own settings, as they are now.
    pub fn settings<S: Settings>(&self) -> Arc<S> {
        crate::tool::settings(&*self.host)
    }

    /// Leaves memory after this turn; the state stays.
    pub fn retire(&self) {
        self.outbox.lock().retire = true;
    }

    /// Runs blocking code off the agent's thread.
    ///
    /// # Errors
    /// When the code panicked.
    pub fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Pending<'_, T, anyhow::Error> {
        Pending::new(move |_| async move {
            let result = Arc::new(Mutex::new(None));
            let there = result.clone();
            let ran = self.host.blocking(Box::new(move || *there.lock() = Some(f()))).await;
            let value = result.lock().take();
            match value {
                Some(value) if ran => Ok(value),
                _ => Err(anyhow::anyhow!("the blocking code panicked")),
            }
        })
    }

    fn own_target(&self) -> Target {
        Target::agent(A::KIND, self.key())
    }

    fn queue<M: Message>(&self, target: Target, name: &str, message: &M) -> Option<NewTask> {
        let input = match message
            .validate()
            .map_err(|e| e.to_string())
            .and_then(|()| serde_json::value::to_raw_value(message).map_err(|e| e.to_string()))
        {
            Ok(input) => input,
            Err(e) => {
                self.outbox.lock().refuse(format!("cannot submit `{}` to {target}: {e}", M::NAME));
                return None;
            }
        };
        if input.get().len() > self.host.message_bytes() {
            self.outbox
                .lock()
                .refuse(format!("cannot submit `{}` to {target}: over limits.message_bytes", M::NAME));
            return None;
        }
        let mut task = NewTask::new(target, name, input, self.host.max_attempts());
        task.parent = self.task;
        Some(task)
    }

    fn submit_one<M: Message, B>(&self, target: Target, name: &str, message: &M) -> Queued<'_, A, B> {
        let made = self.queue(target, name, message);
        let id = made.as_ref().map_or_else(TaskId::fresh, |t| t.id);
        if let Some(task) = made {
            self.outbox.lock().push(task, true);
        }
        Queued { turn: self, id, _message: PhantomData }
    }

    fn submit_many<M: Message, B>(
        &self,
        target: &Target,
        name: &str,
        messages: impl IntoIterator<Item = M>,
    ) -> Batch<'_, A, B> {
        let id = TaskId::fresh();
        let mut size = 0u64;
        for message in messages {
            let Some(mut task) = self.queue(target.clone(), name, &message) else { break };
            task.batch = Some(id);
            size += 1;
            let mut outbox = self.outbox.lock();
            if size as usize > MAX_BATCH {
                outbox.refuse("`submit_all` takes at most 100,000 inputs");
                break;
            }
            outbox.push(task, false);
        }
        self.outbox.lock().batches.push(NewBatch { id, size, notify: None });
        Batch { turn: self, id, _message: PhantomData }
    }

    /// A key for a call out of this turn that is the same when the turn runs again.
    fn call_key(&self, target: &str, name: &str, body: &str) -> String {
        let hash = request_hash(&format!("{target} {name}"), body);
        let nth = {
            let mut calls = self.calls.lock();
            let n = calls.entry(hash).or_default();
            *n += 1;
            *n
        };
        format!("{}:{:032x}:{nth}", self.idempotency_key(), u128::from_be_bytes(hash))
    }
}

/// Another agent, seen from a turn.
pub struct Peer<'c, A: Agent, B> {
    turn: &'c Turn<A>,
    key: String,
    _peer: PhantomData<fn() -> B>,
}

impl<'c, A: Agent, B: Agent> Peer<'c, A, B> {
    /// Leaves with this turn's commit. At most once: a full mailbox drops it, counted.
    pub fn tell<M: Message, I>(&self, m: M)
    where
        B: Accepts<M, I>,
    {
        let lane = match directory::<B>(&*self.turn.host).and_then(|d| d.lane(&self.key)) {
            Ok(lane) => lane,
            Err(e) => {
                return self.turn.outbox.lock().refuse(format!("cannot tell {}/{}: {e}", B::KIND, self.key));
            }
        };
        let host = self.turn.host.clone();
        self.turn.outbox.lock().tells.push(Box::new(move || {
            if lane.push(B::wrap(Letter::new(m, ReplyTo::Nobody, None))).is_err() {
                host.tell_dropped(&lane.name.kind, &lane.name.key, M::NAME);
            }
        }));
    }

    /// Leaves with this turn's commit, as so many tells.
    pub fn send_many<M: Message, I>(&self, ms: impl IntoIterator<Item = M>)
    where
        B: Accepts<M, I>,
    {
        for m in ms {
            self.tell(m);
        }
    }

    /// A durable task that leaves with this turn's commit: exactly once, or a dead letter.
    pub fn submit<M: Message, I>(&self, m: M) -> Queued<'c, A, M>
    where
        B: Accepts<M, I>,
    {
        self.turn.submit_one(Target::agent(B::KIND, &*self.key), M::NAME, &m)
    }

    /// Many durable tasks, counted as one batch; at most 100,000.
    pub fn submit_all<M: Message, I>(&self, ms: impl IntoIterator<Item = M>) -> Batch<'c, A, M>
    where
        B: Accepts<M, I>,
    {
        self.turn.submit_many(&Target::agent(B::KIND, &*self.key), M::NAME, ms)
    }

    /// Leaves at once, when earlier turns are durable; may repeat if the turn runs again, with a
    /// key by which the callee knows it. A turn that waits for itself is refused.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask<M: Message, I>(&self, m: M) -> Pending<'c, M::Reply, AskError<M::Error>>
    where
        B: Accepts<M, I>,
        I: 'c,
    {
        let (turn, key) = (self.turn, self.key.clone());
        Pending::new(move |options| async move {
            let lane = directory::<B>(&*turn.host).and_then(|d| d.lane(&key)).map_err(AskError::widen)?;
            let (me, callee) = (turn.name().subject(), lane.name.subject());
            let mut chain = turn.chain.clone();
            chain.push(me);
            if chain.contains(&callee) {
                chain.push(callee);
                return Err(AskError::Cycle(chain));
            }
            turn.gate.pass().await;
            let dedupe = (!<B as Handler<M>>::READ_ONLY).then(|| {
                let body = serde_json::to_string(&m).unwrap_or_default();
                turn.call_key(&callee, M::NAME, &body)
            });
            let mut ask = Ask::<B, M, I>::new(Ok(lane), m).with_chain(chain);
            if let Some(key) = options.key.or(dedupe) {
                ask = ask.idempotency_key(key);
            }
            let budget = match (options.timeout, turn.deadline()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            if let Some(budget) = budget {
                ask = ask.timeout(budget);
            }
            AssertSend(ask).await
        })
    }
}

/// An `Ask` holds nothing of its index type: only a marker.
struct AssertSend<F>(F);
impl<F: Future + Unpin> Future for AssertSend<F> {
    type Output = F::Output;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// A tool, seen from a turn.
pub struct ToolPeer<'c, A: Agent, T> {
    turn: &'c Turn<A>,
    _tool: PhantomData<fn() -> T>,
}

impl<'c, A: Agent, T: Tool> ToolPeer<'c, A, T> {
    /// Leaves at once, when earlier turns are durable; may repeat if the turn runs again, with a
    /// stable key. A `once` tool cannot be called: submit it.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn call(&self, input: T::Input) -> Pending<'c, Out<T>, AskError<Refusal<T>>> {
        let turn = self.turn;
        Pending::new(move |options| async move {
            if T::EFFECT == Effect::Once {
                return Err(AskError::WrongState(format!(
                    "`{0}` takes effect once, and a turn may run again: `turn.tool::<…>().submit(…)` it instead",
                    T::NAME
                )));
            }
            turn.gate.pass().await;
            let body = serde_json::to_string(&input).unwrap_or_default();
            let key = options.key.unwrap_or_else(|| turn.call_key(T::NAME, "", &body));
            call_tool::<T>(turn.host.clone(), input, key, options.timeout.or_else(|| turn.deadline())).await
        })
    }

    /// A durable task for the tool that leaves with this turn's commit.
    pub fn submit(&self, input: T::Input) -> Queued<'c, A, T::Input> {
        self.turn.submit_one(Target::Tool(T::NAME.to_owned()), "", &input)
    }

    /// Many durable tasks for the tool, counted as one batch; at most 100,000.
    pub fn submit_all(&self, inputs: impl IntoIterator<Item = T::Input>) -> Batch<'c, A, T::Input> {
        self.turn.submit_many(&Target::Tool(T::NAME.to_owned()), "", inputs)
    }
}

/// A task in the turn's outbox; it leaves when the turn commits.
pub struct Queued<'c, A: Agent, M> {
    turn: &'c Turn<A>,
    id: TaskId,
    _message: PhantomData<fn() -> M>,
}

impl<A: Agent, M> Queued<'_, A, M> {
    fn change(self, f: impl FnOnce(&mut NewTask)) -> Self {
        let mut outbox = self.turn.outbox.lock();
        if let Some(task) = outbox.tasks.iter_mut().rev().find(|t| t.id == self.id) {
            f(task);
        }
        drop(outbox);
        self
    }

    /// Its id, known before it is stored.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Not before `d` from now.
    pub fn run_in(self, d: Duration) -> Self {
        let at = self.turn.now().checked_add(d).unwrap_or(Timestamp::MAX);
        self.change(|t| t.run_at = Some(at))
    }

    /// Higher goes first.
    pub fn priority(self, n: i16) -> Self {
        self.change(|t| t.priority = n)
    }

    /// How many attempts may fail; at least 1.
    pub fn max_attempts(self, n: u32) -> Self {
        self.change(|t| t.max_attempts = n.max(1))
    }

    /// How long one attempt may take.
    pub fn timeout(self, d: Duration) -> Self {
        self.change(|t| t.timeout = Some(d))
    }

    /// Not before these tasks have ended.
    pub fn after(self, ids: &[TaskId]) -> Self {
        self.change(|t| t.after.extend_from_slice(ids))
    }

    /// Brings its outcome back as a [`Done<M>`] message: exactly once.
    pub fn notify<I>(self) -> Self
    where
        M: Message,
        A: Accepts<Done<M>, I>,
    {
        let target = self.turn.own_target();
        self.change(|t| t.notify = Some(Notify { target, message: Done::<M>::NAME.to_owned() }))
    }
}

/// Many tasks in the turn's outbox; they leave when the turn commits.
pub struct Batch<'c, A: Agent, M> {
    turn: &'c Turn<A>,
    id: TaskId,
    _message: PhantomData<fn() -> M>,
}

impl<A: Agent, M: Message> Batch<'_, A, M> {
    fn change(self, mut f: impl FnMut(&mut NewTask)) -> Self {
        let mut outbox = self.turn.outbox.lock();
        outbox.tasks.iter_mut().rev().take_while(|t| t.batch == Some(self.id)).for_each(&mut f);
        drop(outbox);
        self
    }

    /// The batch's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// How many attempts each may fail; at least 1.
    pub fn max_attempts(self, n: u32) -> Self {
        self.change(|t| t.max_attempts = n.max(1))
    }

    /// Brings each outcome back as a [`Done<M>`] message.
    pub fn notify_each<I>(self) -> Self
    where
        A: Accepts<Done<M>, I>,
    {
        let target = self.turn.own_target();
        self.change(|t| {
            t.notify = Some(Notify { target: target.clone(), message: Done::<M>::NAME.to_owned() })
        })
    }

    /// Brings one [`Joined<M>`] message when all have ended.
    pub fn notify_joined<I>(self) -> Self
    where
        A: Accepts<Joined<M>, I>,
    {
        let notify = Notify { target: self.turn.own_target(), message: Joined::<M>::NAME.to_owned() };
        let mut outbox = self.turn.outbox.lock();
        if let Some(batch) = outbox.batches.iter_mut().rev().find(|b| b.id == self.id) {
            batch.notify = Some(notify);
        }
        drop(outbox);
        self
    }
}
