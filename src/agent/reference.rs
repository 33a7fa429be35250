//! Addresses, which are pure data that names an agent, and references, which send to it.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Agent, Invalid,
    answer::AskError,
    chain::Chain,
    host::{Host, directory},
    lane::{Lane, Manner, NotTaken},
    letter::{Answer, Key, Letter, Meta, ReplyTo},
    message::Message,
    messages::{Accepts, EnvelopeOf},
    sender::Sender,
    slot::{ReplyRx, slot},
    submit::{Submit, submit},
};
use crate::model::{id::Target, task::check_idempotency_key};

/// Names an agent. Pure data: it can be stored in state and sent in messages, and cannot send by itself.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(transparent, bound = "")]
#[schemars(transparent, bound = "")]
pub struct Address<A> {
    /// The agent's key.
    pub key: String,
    #[serde(skip)]
    #[schemars(skip)]
    _agent: PhantomData<fn() -> A>,
}

impl<A> Address<A> {
    /// The agent of that key.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), _agent: PhantomData }
    }
}
impl<A> Clone for Address<A> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone())
    }
}
impl<A> PartialEq for Address<A> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
/// `kind/key`.
impl<A: Agent> fmt::Display for Address<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", A::KIND, self.key)
    }
}
impl<A> fmt::Debug for Address<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

/// The message that a full or shut mailbox did not take, or that is [invalid](Full::invalid).
#[derive(Debug, thiserror::Error)]
#[error("the mailbox did not take it")]
pub struct Full<M>(pub M);

impl<M: Message> Full<M> {
    /// What is wrong with the message, where that is why it was not taken: no mailbox ever will.
    pub fn invalid(&self) -> Option<Invalid> {
        self.0.validate().err()
    }
}

/// A reference to one agent, for use outside of a turn. Cheap to clone; it stays valid across crashes,
/// passivation and restarts of the agent.
pub struct AgentRef<A: Agent> {
    /// Its lane; or its key, and why there is no such agent.
    pub(super) lane: Result<Arc<Lane<A>>, Arc<(String, AskError)>>,
    pub(super) urgent: bool,
}

impl<A: Agent> Clone for AgentRef<A> {
    fn clone(&self) -> Self {
        Self { lane: self.lane.clone(), urgent: self.urgent }
    }
}

impl<A: Agent> AgentRef<A> {
    pub(crate) fn new(host: &dyn Host, key: &str) -> Self {
        let lane = directory::<A>(host).and_then(|d| d.lane(key));
        Self { lane: lane.map_err(|e| Arc::new((key.to_owned(), e))), urgent: false }
    }

    fn key(&self) -> &str {
        match &self.lane {
            Ok(lane) => &lane.name.key,
            Err(known) => &known.0,
        }
    }

    fn lane(&self) -> Result<Arc<Lane<A>>, AskError> {
        self.lane.clone().map_err(|known| known.1.clone())
    }

    /// Messages sent through it are handled before those in the normal queue, in the order sent. Its capacity
    /// equals the mailbox's. Tasks have priorities of their own.
    pub fn urgent(&self) -> Self {
        Self { urgent: true, ..self.clone() }
    }

    /// Its address.
    pub fn address(&self) -> Address<A> {
        Address::new(self.key())
    }

    /// Sends `m` and waits for the reply, which arrives when the turn is durable.
    ///
    /// # Errors
    /// See [`AskError`]. Without a timeout nothing bounds the wait in the mailbox; the turn is bounded by
    /// `turn_timeout`, which defaults to `ask_timeout`.
    pub fn ask<M: Message, I>(&self, m: M) -> Ask<A, M, I>
    where
        A: Accepts<M, I>,
    {
        Ask::new(self.lane(), m, self.urgent)
    }

    /// Sends `m` and waits only until the mailbox has room for it. Delivered at most once: lost in a crash.
    ///
    /// # Errors
    /// Returns the message if it is invalid, or the mailbox is closed, or full and the policy is
    /// [`OnFull::Reject`](crate::OnFull).
    pub fn tell<M: Message, I>(&self, m: M) -> Tell<'_, A, M, I>
    where
        A: Accepts<M, I>,
    {
        let lane = self.lane.as_ref().ok().filter(|_| m.validate().is_ok());
        Tell { sender: lane.map(Sender::new), message: Some(m), urgent: self.urgent, _index: PhantomData }
    }

    /// Sends `m` without waiting at all.
    ///
    /// # Errors
    /// Returns the message if it is invalid, or the mailbox is closed or full.
    pub fn try_tell<M: Message, I>(&self, m: M) -> Result<(), Full<M>>
    where
        A: Accepts<M, I>,
    {
        let Some(lane) = self.lane.as_ref().ok().filter(|_| m.validate().is_ok()) else {
            return Err(Full(m));
        };
        let manner = Manner { is_task: false, urgent: self.urgent };
        lane.place(manner, m, |m| A::wrap(Letter::new(m, ReplyTo::Nobody, None))).map_err(|(_, m)| Full(m))
    }

    /// Submits `m` as a durable task: once this returns, its effect on the agent happens exactly
    /// once, or it ends visibly as a dead letter.
    ///
    /// # Errors
    /// See [`AskError`]. Nothing was accepted, except perhaps with [`AskError::Unknown`].
    pub fn submit<M: Message, I>(&self, m: M) -> Submit
    where
        A: Accepts<M, I>,
    {
        let target = Target::agent(A::KIND, self.key());
        let lane = self.lane();
        Submit::new(move |options| async move {
            let host = lane?.host().ok_or_else(node_has_ended)?;
            submit(host, target, m, options).await
        })
    }
}

/// A message as the input of a task, if it may be one.
pub(crate) fn as_input<M: Message>(host: &dyn Host, message: &M) -> Result<Box<RawValue>, AskError> {
    message.validate().map_err(AskError::Invalid)?;
    let input = serde_json::value::to_raw_value(message)
        .map_err(|e| AskError::Invalid(Invalid::at("", e.to_string())))?;
    check_size(host, input.get())?;
    Ok(input)
}

/// Whether a message may be as large as this, which is its JSON.
pub(crate) fn check_size(host: &dyn Host, body: &str) -> Result<(), AskError> {
    let (bytes, most) = (body.len(), host.message_bytes());
    if bytes > most {
        let why = format!("the message has {bytes} bytes, more than limits.message_bytes ({most})");
        return Err(AskError::TooLarge(why));
    }
    Ok(())
}

/// A hash that tells requests under one idempotency key apart.
pub(crate) fn request_hash(name: &str, body: &str) -> [u8; 16] {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(name.as_bytes());
    hasher.update(&[0]);
    hasher.update(body.as_bytes());
    hasher.digest128().to_be_bytes()
}

/// How much longer an ask or a call waits for what had begun when its timeout elapsed.
pub(crate) const GRACE: Duration = Duration::from_millis(500);

enum AskStage<A: Agent, M: Message> {
    Start(Result<Arc<Lane<A>>, Box<AskError>>, M),
    Sending(Sender<A, Arc<Lane<A>>>, Option<EnvelopeOf<A>>, ReplyRx<Answer<M>>),
    Waiting(ReplyRx<Answer<M>>),
    Over,
}

/// An ask in progress: awaiting it gives the reply.
#[must_use = "nothing is sent until it is awaited"]
pub struct Ask<A: Agent, M: Message, I> {
    stage: AskStage<A, M>,
    timeout: Option<Duration>,
    meta: Option<Box<Meta>>,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
    graced: bool,
    urgent: bool,
    _index: PhantomData<fn() -> I>,
}

impl<A: Agent, M: Message, I> Unpin for Ask<A, M, I> {}

impl<A: Accepts<M, I>, M: Message, I> Ask<A, M, I> {
    pub(crate) fn new(lane: Result<Arc<Lane<A>>, AskError>, message: M, urgent: bool) -> Self {
        Self {
            stage: AskStage::Start(lane.map_err(Box::new), message),
            timeout: None,
            meta: None,
            timer: None,
            graced: false,
            urgent,
            _index: PhantomData,
        }
    }

    /// Gives up after this time. The rest of it is the budget of the receiver's turn.
    pub fn timeout(mut self, d: Duration) -> Self {
        self.timeout = Some(d);
        self
    }

    /// Sets the idempotency key: a repetition with the same key and request returns the first outcome. At most
    /// 255 bytes, scoped to the agent, kept for `limits.idempotency_ttl`.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        let text = key.into();
        self.meta.get_or_insert_default().key = Some(Key { text, request: [0; 16] });
        self
    }

    pub(crate) fn with_chain(mut self, chain: Chain) -> Self {
        if !chain.is_empty() {
            self.meta.get_or_insert_default().chain = chain;
        }
        self
    }

    fn begin(&mut self, lane: Arc<Lane<A>>, message: M) -> Result<(), AskError<M::Error>> {
        message.validate().map_err(AskError::Invalid)?;
        if let Some(timeout) = self.timeout {
            self.meta.get_or_insert_default().deadline = Some(Instant::now() + timeout);
            self.timer = Some(Box::pin(tokio::time::sleep(timeout)));
        }
        if let Some(key) = self.meta.as_mut().and_then(|m| m.key.as_mut()) {
            check_key_text(&key.text).map_err(AskError::widen)?;
            let body = serde_json::to_string(&message)
                .map_err(|e| AskError::Invalid(Invalid::at("", e.to_string())))?;
            let host = lane.host().ok_or_else(|| node_has_ended().widen())?;
            check_size(&*host, &body).map_err(AskError::widen)?;
            key.request = request_hash(M::NAME, &body);
        }
        let (tx, rx) = slot();
        let make = |(message, tx, meta)| A::wrap(Letter::new(message, ReplyTo::Ask(tx), meta));
        let manner = Manner { is_task: false, urgent: self.urgent };
        self.stage = match lane.place(manner, (message, tx, self.meta.take()), make) {
            Ok(()) => AskStage::Waiting(rx),
            Err((_, parts)) => AskStage::Sending(Sender::new(lane), Some(make(parts)), rx),
        };
        Ok(())
    }
}

/// Whether `key` may be an idempotency key.
pub(crate) fn check_key_text(key: &str) -> Result<(), AskError> {
    Ok(check_idempotency_key(key)?)
}

pub(crate) fn not_taken(why: NotTaken) -> AskError {
    match why {
        NotTaken::Full => AskError::Overloaded {
            what: "the agent's mailbox is full".to_owned(),
            retry_after: Duration::from_secs(1),
        },
        NotTaken::Shut(why) => AskError::WrongState(why.to_string()),
        NotTaken::Closing => AskError::Unavailable("the node is going down".to_owned()),
    }
}

pub(crate) fn node_has_ended() -> AskError {
    AskError::Unavailable("the node has ended".to_owned())
}

pub(crate) fn unanswered() -> AskError {
    AskError::Unavailable("the node dropped the message unanswered".to_owned())
}

impl<A: Accepts<M, I>, M: Message, I> Future for Ask<A, M, I> {
    type Output = Answer<M>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.stage {
                AskStage::Start(..) => {
                    let AskStage::Start(lane, message) = std::mem::replace(&mut this.stage, AskStage::Over)
                    else {
                        return Poll::Pending;
                    };
                    let lane = match lane {
                        Ok(lane) => lane,
                        Err(e) => return Poll::Ready(Err(e.widen())),
                    };
                    if let Err(e) = this.begin(lane, message) {
                        return Poll::Ready(Err(e));
                    }
                }
                AskStage::Sending(sender, letter, _) => {
                    match sender.poll_place(this.urgent, letter, |letter| letter, cx) {
                        Poll::Ready(Ok(())) => {
                            let AskStage::Sending(_, _, rx) =
                                std::mem::replace(&mut this.stage, AskStage::Over)
                            else {
                                return Poll::Pending;
                            };
                            this.stage = AskStage::Waiting(rx);
                        }
                        Poll::Ready(Err(why)) => {
                            this.stage = AskStage::Over;
                            return Poll::Ready(Err(not_taken(why).widen()));
                        }
                        Poll::Pending => {
                            if this.expired(cx) {
                                this.stage = AskStage::Over;
                                return Poll::Ready(Err(AskError::TimedOut));
                            }
                            return Poll::Pending;
                        }
                    }
                }
                AskStage::Waiting(rx) => {
                    if let Poll::Ready(answer) = Pin::new(&mut *rx).poll(cx) {
                        this.stage = AskStage::Over;
                        return Poll::Ready(answer.unwrap_or_else(|| Err(unanswered().widen())));
                    }
                    if !this.expired(cx) {
                        return Poll::Pending;
                    }
                    let AskStage::Waiting(rx) = &this.stage else { return Poll::Pending };
                    if rx.withdraw() {
                        this.stage = AskStage::Over;
                        return Poll::Ready(Err(AskError::TimedOut));
                    }
                    if this.graced {
                        this.stage = AskStage::Over;
                        return Poll::Ready(Err(AskError::Unknown));
                    }
                    this.graced = true;
                    this.timer = Some(Box::pin(tokio::time::sleep(GRACE)));
                }
                AskStage::Over => return Poll::Pending,
            }
        }
    }
}

impl<A: Agent, M: Message, I> Ask<A, M, I> {
    fn expired(&mut self, cx: &mut Context<'_>) -> bool {
        self.timer.as_mut().is_some_and(|t| t.as_mut().poll(cx).is_ready())
    }
}

/// A tell in progress: awaiting it waits for room in the mailbox.
#[must_use = "nothing is sent until it is awaited"]
pub struct Tell<'r, A: Agent, M, I> {
    /// `None`: there is no such agent, or it must not have this message.
    sender: Option<Sender<A, &'r Arc<Lane<A>>>>,
    /// The letter is made when the mailbox takes it: until then there is less to move.
    message: Option<M>,
    urgent: bool,
    _index: PhantomData<fn() -> I>,
}

impl<A: Agent, M, I> Unpin for Tell<'_, A, M, I> {}

impl<A: Accepts<M, I>, M: Message, I> Future for Tell<'_, A, M, I> {
    type Output = Result<(), Full<M>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.message.is_none() {
            return Poll::Pending; // it has ended before
        }
        if let Some(sender) = &mut this.sender {
            let make = |m| A::wrap(Letter::new(m, ReplyTo::Nobody, None));
            match sender.poll_place(this.urgent, &mut this.message, make, cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        this.message.take().map_or(Poll::Pending, |m| Poll::Ready(Err(Full(m))))
    }
}
