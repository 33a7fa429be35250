//! What a turn can address: agents, tools, and tasks that it submitted.

use std::{
    collections::VecDeque,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::Turn;
use crate::{
    agent::{
        Agent, Handler,
        answer::{AskError, Done, Joined},
        host::{NOT_TAKEN, directory},
        lane::{Lane, Manner},
        many::plain,
        message::Message,
        messages::Accepts,
        pending::Pending,
        reference::{Address, Ask, check_size},
        submit::task_options,
    },
    model::{
        id::{Target, TaskId},
        task::{NewTask, Notify, TaskOptions},
    },
    tool::{CallMeta, Effect, Out, Refusal, Tool, by, call_tool},
};

/// Another agent, as used from a turn.
pub struct Peer<'c, A: Agent, B> {
    pub(super) turn: &'c Turn<A>,
    pub(super) key: String,
    pub(super) urgent: bool,
    pub(super) _peer: PhantomData<fn() -> B>,
}

impl<'c, A: Agent, B: Agent> Peer<'c, A, B> {
    /// Its address.
    pub fn address(&self) -> Address<B> {
        Address::new(&*self.key)
    }

    /// Tells and asks through it are handled before those in the normal queue. Tasks have priorities of their
    /// own ([`Queued::priority`]).
    pub fn urgent(mut self) -> Self {
        self.urgent = true;
        self
    }

    /// Sends with this turn's commit. At most once: a full mailbox drops the message, which is counted. The turn
    /// fails if the message is invalid.
    pub fn tell<M: Message, I>(&self, m: M)
    where
        B: Accepts<M, I>,
    {
        let Some(lane) = self.lane() else { return };
        self.check(&m);
        let host = self.turn.host.clone();
        let manner = Manner { is_task: false, urgent: self.urgent };
        // In a letter from now on: it may be dropped unsent.
        let letter = plain::<B, M, I>(m);
        self.turn.outbox().tells.push(Box::new(move || {
            if lane.place(manner, letter, |l| l).is_err() {
                host.tells_dropped(&lane.name.kind, &lane.name.key, M::NAME, 1, NOT_TAKEN);
            }
        }));
    }

    /// Sends many tells with this turn's commit, in order; the mailbox is locked, and the agent woken, only
    /// once. Messages that find no room are dropped and counted. The turn fails if one is invalid.
    pub fn send_many<M: Message, I>(&self, ms: impl IntoIterator<Item = M>)
    where
        B: Accepts<M, I>,
    {
        let Some(lane) = self.lane() else { return };
        let (host, urgent) = (self.turn.host.clone(), self.urgent);
        // In letters, as a tell is.
        let checked = ms.into_iter().inspect(|m| self.check(m));
        let mut letters: VecDeque<_> = checked.map(plain::<B, M, I>).collect();
        self.turn.outbox().tells.push(Box::new(move || {
            if lane.place_many(urgent, &mut letters, |l| l).is_err() {
                host.tells_dropped(&lane.name.kind, &lane.name.key, M::NAME, letters.len(), NOT_TAKEN);
            }
        }));
    }

    /// Where it is told; else the turn fails.
    fn lane(&self) -> Option<Arc<Lane<B>>> {
        let found = directory::<B>(&*self.turn.host).and_then(|d| d.lane(&self.key));
        found.map_err(|e| self.refuse(&e)).ok()
    }

    /// Has the turn fail that tells it what is invalid.
    fn check<M: Message>(&self, message: &M) {
        if let Err(e) = message.validate() {
            self.refuse(&e);
        }
    }

    #[cold]
    fn refuse(&self, why: &dyn std::fmt::Display) {
        self.turn.outbox().refuse(format!("cannot tell {}/{}: {why}", B::KIND, self.key));
    }

    /// Submits a durable task with this turn's commit: it takes effect exactly once, or becomes a dead letter.
    pub fn submit<M: Message, I>(&self, m: M) -> Queued<'c, A, M>
    where
        B: Accepts<M, I>,
    {
        self.turn.submit_one(Target::agent(B::KIND, &*self.key), M::NAME, &m)
    }

    /// Submits many durable tasks as one batch; at most 100,000.
    pub fn submit_all<M: Message, I>(&self, ms: impl IntoIterator<Item = M>) -> Batch<'c, A, M>
    where
        B: Accepts<M, I>,
    {
        self.turn.submit_many(&Target::agent(B::KIND, &*self.key), M::NAME, ms)
    }

    /// Asks as soon as earlier turns are durable. May be repeated if the turn runs again, under the same
    /// idempotency key. A turn that would wait for itself is refused.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask<M: Message, I>(&self, m: M) -> Pending<'c, M::Reply, AskError<M::Error>>
    where
        B: Accepts<M, I>,
        I: 'c,
    {
        let (turn, key, urgent) = (self.turn, self.key.clone(), self.urgent);
        Pending::new(move |options| async move {
            let lane = directory::<B>(&*turn.host).and_then(|d| d.lane(&key)).map_err(AskError::widen)?;
            let callee = lane.name.subject();
            let (chain, _waiting) = turn.chain();
            chain.admits(&callee).map_err(AskError::Cycle)?;
            turn.gate.pass().await.map_err(AskError::widen)?;
            let dedupe = (!<B as Handler<M>>::READ_ONLY).then(|| {
                let body = serde_json::to_string(&m).unwrap_or_default();
                turn.call_key(&callee, M::NAME, &body)
            });
            let mut ask = Ask::<B, M, I>::new(Ok(lane), m, urgent).with_chain(chain);
            if let Some(key) = options.key.or(dedupe) {
                ask = ask.idempotency_key(key);
            }
            let budget = turn.budget();
            AssertSend(ask.timeout(options.timeout.map_or(budget, |own| own.min(budget)))).await
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

/// A tool, as used from a turn.
pub struct ToolPeer<'c, A: Agent, T> {
    pub(super) turn: &'c Turn<A>,
    pub(super) _tool: PhantomData<fn() -> T>,
}

impl<'c, A: Agent, T: Tool> ToolPeer<'c, A, T> {
    /// Calls the tool as soon as earlier turns are durable. May be repeated if the turn runs again, under the
    /// same idempotency key. A `once` tool cannot be called: submit it.
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
            turn.gate.pass().await.map_err(AskError::widen)?;
            let body = serde_json::to_string(&input).unwrap_or_default();
            check_size(&*turn.host, &body).map_err(AskError::widen)?;
            let key = options.key.unwrap_or_else(|| turn.call_key(T::NAME, "", &body));
            let budget = turn.budget();
            let budget = options.timeout.map_or(budget, |own| own.min(budget));
            let (chain, _waiting) = turn.chain();
            let deadline = by(Some(budget));
            call_tool::<T>(turn.host.clone(), input, CallMeta { key, deadline, chain, ..CallMeta::default() })
                .await
        })
    }

    /// Submits a durable task for the tool with this turn's commit.
    pub fn submit(&self, input: T::Input) -> Queued<'c, A, T::Input> {
        self.turn.submit_one(Target::Tool(T::NAME.to_owned()), "", &input)
    }

    /// Submits many durable tasks for the tool as one batch; at most 100,000.
    pub fn submit_all(&self, inputs: impl IntoIterator<Item = T::Input>) -> Batch<'c, A, T::Input> {
        self.turn.submit_many(&Target::Tool(T::NAME.to_owned()), "", inputs)
    }
}

/// A task in the turn's outbox; it leaves when the turn commits.
pub struct Queued<'c, A: Agent, M> {
    pub(super) turn: &'c Turn<A>,
    pub(super) id: TaskId,
    pub(super) options: TaskOptions,
    pub(super) _message: PhantomData<fn() -> M>,
}

impl<A: Agent, M> Queued<'_, A, M> {
    fn change(self, f: impl FnOnce(&mut NewTask)) -> Self {
        let mut outbox = self.turn.outbox();
        if let Some(task) = outbox.tasks.iter_mut().rev().find(|t| t.id == self.id) {
            f(task);
        }
        drop(outbox);
        self
    }

    fn choose(mut self, f: impl FnOnce(&mut TaskOptions)) -> Self {
        f(&mut self.options);
        let (options, now) = (self.options.clone(), self.turn.now());
        if let Err(flaw) = options.check() {
            self.turn.outbox().refuse(format!("cannot submit task {}: {flaw}", self.id));
        }
        if options.idempotency_key.is_some() {
            self.turn.outbox().keep_key(self.id, options.clone());
        }
        self.change(|task| options.apply(task, now))
    }

    /// Its id, known before it is stored. Where its [key](Self::idempotency_key) stands for an earlier task, it is
    /// nobody's.
    pub fn id(&self) -> TaskId {
        self.id
    }

    task_options!();

    /// Sets the idempotency key: 1 to 255 bytes, no control characters. It is scoped to the target, kept for
    /// `limits.idempotency_ttl`, and settled by the turn's own commit. Where it stands for the same request
    /// (message, input and options) already, nothing is submitted, the turn commits all the same, and tasks of
    /// the turn that come [`after`](Self::after) this one come after the first. Where it stands for another
    /// request, the turn fails.
    pub fn idempotency_key(self, key: impl Into<String>) -> Self {
        self.choose(|o| o.idempotency_key = Some(key.into()))
    }

    /// Sends its outcome back to this agent as a [`Done<M>`] message, exactly once. Where its
    /// [key](Self::idempotency_key) stands for an earlier task, it is not submitted, and nothing is sent but what that
    /// one was to send.
    pub fn notify<I>(self) -> Self
    where
        M: Message,
        A: Accepts<Done<M>, I>,
    {
        let target = self.turn.own_target();
        self.change(|t| t.notify = Some(Notify { target, message: Done::<M>::NAME.to_owned() }))
    }
}

/// Many tasks in the turn's outbox; they leave when the turn commits. Options are those of each task.
pub struct Batch<'c, A: Agent, M> {
    pub(super) turn: &'c Turn<A>,
    pub(super) id: TaskId,
    pub(super) options: TaskOptions,
    pub(super) _message: PhantomData<fn() -> M>,
}

impl<A: Agent, M: Message> Batch<'_, A, M> {
    fn change(self, mut f: impl FnMut(&mut NewTask)) -> Self {
        let mut outbox = self.turn.outbox();
        outbox.tasks.iter_mut().rev().take_while(|t| t.batch == Some(self.id)).for_each(&mut f);
        drop(outbox);
        self
    }

    fn choose(mut self, f: impl FnOnce(&mut TaskOptions)) -> Self {
        f(&mut self.options);
        let (options, now) = (self.options.clone(), self.turn.now());
        if let Err(flaw) = options.check() {
            self.turn.outbox().refuse(format!("cannot submit batch {}: {flaw}", self.id));
        }
        self.change(|task| options.apply(task, now))
    }

    /// The batch's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    task_options!();

    /// Sends each outcome back to this agent as a [`Done<M>`] message.
    pub fn notify_each<I>(self) -> Self
    where
        A: Accepts<Done<M>, I>,
    {
        let target = self.turn.own_target();
        self.change(|t| {
            t.notify = Some(Notify { target: target.clone(), message: Done::<M>::NAME.to_owned() })
        })
    }

    /// Sends this agent one [`Joined<M>`] message when all have ended.
    pub fn notify_joined<I>(self) -> Self
    where
        A: Accepts<Joined<M>, I>,
    {
        let notify = Notify { target: self.turn.own_target(), message: Joined::<M>::NAME.to_owned() };
        let mut outbox = self.turn.outbox();
        if let Some(batch) = outbox.batches.iter_mut().rev().find(|b| b.id == self.id) {
            batch.notify = Some(notify.into());
        }
        drop(outbox);
        self
    }
}
