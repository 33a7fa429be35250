//! A letter: one message in transit, with the destination of its answer.
//!
//! A kept letter can be run again (its message is cloned for each run), and its answer is staged in it until the
//! commit that covers the turn is durable: the effects of an undone turn are never visible.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    Agent, Handler,
    answer::{AskError, Fault},
    chain::Chain,
    drops::discard,
    guard::guard,
    message::{JsonRefusal, Message, Refused},
    slot::ReplyTx,
    turn::Turn,
};
use crate::model::task::Claimed;

/// What an asker gets.
pub(crate) type Answer<M> = Result<<M as Message>::Reply, AskError<<M as Message>::Error>>;

/// What the JSON door gets: the reply as JSON text, with the receipt of its turn.
pub(crate) type JsonAnswer = Result<JsonReply, AskError<JsonRefusal>>;

/// A reply through the JSON door.
#[derive(Debug, Clone)]
pub struct JsonReply {
    /// The reply as JSON text.
    pub body: Box<RawValue>,
    /// The version of the agent's state that covers the turn; 0 for a tool or a volatile agent.
    pub version: i64,
    /// The id of the turn that answered; absent for a tool and for a replay.
    pub turn: Option<Uuid>,
    /// The idempotency key had been used for the same request: this is the first outcome.
    pub replayed: bool,
}

/// Where an answer goes.
pub(crate) enum ReplyTo<M: Message> {
    /// A tell: nowhere.
    Nobody,
    /// A timer's: nowhere. It comes once more if its turn crashes.
    Timer,
    Ask(ReplyTx<Answer<M>>),
    Json(ReplyTx<JsonAnswer>),
}

impl<M: Message> ReplyTo<M> {
    #[inline]
    fn is_somebody(&self) -> bool {
        matches!(self, Self::Ask(_) | Self::Json(_))
    }
}

/// An idempotency key as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub text: String,
    /// A hash of the message's name and body.
    pub request: [u8; 16],
}

/// What most letters do not have: kept apart so that a tell stays small.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    pub id: Option<Uuid>,
    pub deadline: Option<Instant>,
    pub key: Option<Key>,
    /// The task that this letter is an attempt of.
    pub claim: Option<Arc<Claimed>>,
    /// Asks the turn to end with that task.
    pub cancel: Option<CancellationToken>,
    /// Its turn is not to begin any more: the task goes back.
    pub recall: Option<CancellationToken>,
    /// Who waits for this turn.
    pub chain: Chain,
    /// The size of the body where it came as JSON.
    pub bytes: usize,
    /// Handled before letters that are not.
    pub urgent: bool,
}

enum Staged<M: Message> {
    Nothing,
    Reply(M::Reply),
    /// A reply that is wanted as JSON, and could be written.
    Text(Box<RawValue>),
    /// Boxed: it is rare and large, and a letter is moved often.
    Error(Box<AskError<M::Error>>),
}

/// One message on its way.
pub struct Letter<M: Message> {
    message: Option<M>,
    to: ReplyTo<M>,
    staged: Staged<M>,
    meta: Option<Box<Meta>>,
}

/// What a run left behind. A word wide: a value that has one byte and seven of padding is copied in
/// pieces, each of which waits for the one before it, and every turn hands this one up several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Ran {
    /// The handler answered; the state may have changed.
    Done,
    /// Refused before anything had changed.
    Declined,
    /// The handler returned an error; the state may have changed and is to be undone.
    Failed,
}

impl<M: Message> Letter<M> {
    pub(crate) fn new(message: M, to: ReplyTo<M>, meta: Option<Box<Meta>>) -> Self {
        Self { message: Some(message), to, staged: Staged::Nothing, meta }
    }

    pub(crate) async fn run<A: Handler<M>>(&mut self, agent: &mut A, turn: &Turn<A>, keep: bool) -> Ran {
        let message = if keep { self.message.clone() } else { self.message.take() };
        let Some(message) = message else {
            self.stage_error(AskError::Unavailable("the message was consumed".to_owned()));
            return Ran::Declined;
        };
        if turn.is_double {
            return Box::pin(self.run_double(message, turn)).await;
        }
        if let Err(error) = agent.check(&message) {
            self.stage_refusal(error);
            return Ran::Declined;
        }
        let mut handling = std::pin::pin!(agent.handle(message, turn));
        let result = std::future::poll_fn(|cx| self.poll_watched(handling.as_mut(), turn, cx)).await;
        self.take_result(result)
    }

    /// Has a test's double handle the message in place of its agent.
    async fn run_double<A: Agent>(&mut self, message: M, turn: &Turn<A>) -> Ran {
        let Some(double) = turn.double() else {
            self.stage_error(AskError::Unavailable("its probe has gone".to_owned()));
            return Ran::Declined;
        };
        let mut handling =
            std::pin::pin!(double.handle(message, self.to.is_somebody() || self.is_recorded()));
        match std::future::poll_fn(|cx| self.poll_watched(handling.as_mut(), turn, cx)).await {
            Some(result) => self.take_result(result),
            None => Ran::Done,
        }
    }

    /// Keeps what a handler came to.
    #[inline]
    fn take_result(&mut self, result: anyhow::Result<M::Reply>) -> Ran {
        match result {
            // A plain tell: nobody will want it.
            Ok(_) if !self.to.is_somebody() && !self.is_recorded() => Ran::Done,
            Ok(reply) => match self.stage(reply) {
                Ok(staged) => {
                    self.staged = staged;
                    Ran::Done
                }
                Err(error) => {
                    self.stage_error(error.widen());
                    Ran::Failed
                }
            },
            Err(error) => {
                match error.downcast::<Refused<M::Error>>() {
                    Ok(Refused(refusal)) => self.stage_refusal(refusal),
                    Err(error) => self.stage_error(AskError::Failed(Fault::from(&error))),
                }
                Ran::Failed
            }
        }
    }

    /// Runs a handler, and lets its turn know when nobody waits for the answer any more.
    fn poll_watched<A: Agent, F: Future>(
        &self,
        mut handling: Pin<&mut F>,
        turn: &Turn<A>,
        cx: &mut Context<'_>,
    ) -> Poll<F::Output> {
        loop {
            if let Poll::Ready(result) = handling.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            let abandoned = match &self.to {
                ReplyTo::Nobody | ReplyTo::Timer => false,
                ReplyTo::Ask(tx) => tx.poll_abandoned(cx),
                ReplyTo::Json(tx) => tx.poll_abandoned(cx),
            };
            if !turn.hears_of_its_end(abandoned) {
                return Poll::Pending;
            }
        }
    }

    /// Whether its outcome is written down: a task's end, a key's.
    fn is_recorded(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.claim.is_some() || meta.key.is_some())
    }

    /// Keeps the refusal. Where it will be wanted as JSON it must be writable now, while a panic ends its turn alone.
    fn stage_refusal(&mut self, refusal: M::Error) {
        if matches!(self.to, ReplyTo::Json(_)) || self.is_recorded() {
            drop(AskError::Refused(refusal.clone()).written());
        }
        self.stage_error(AskError::Refused(refusal));
    }

    fn stage_error(&mut self, error: AskError<M::Error>) {
        self.staged = Staged::Error(Box::new(error));
    }

    /// Keeps the reply. Where it will be wanted as JSON it must be writable now, while its turn can
    /// still be undone.
    fn stage(&self, reply: M::Reply) -> Result<Staged<M>, AskError> {
        match &self.to {
            ReplyTo::Json(_) => to_raw(&reply).map(Staged::Text),
            _ if self.meta.as_ref().is_some_and(|m| m.key.is_some()) => {
                to_raw(&reply).map(|_| Staged::Reply(reply))
            }
            _ => Ok(Staged::Reply(reply)),
        }
    }

    /// Takes the message back out.
    #[cfg(test)]
    pub(crate) fn into_message(mut self) -> Option<M> {
        self.message.take()
    }
}

/// Whoever has it last: the user's values must not take them along.
impl<M: Message> Drop for Letter<M> {
    #[inline]
    fn drop(&mut self) {
        if std::mem::needs_drop::<M>()
            && let Some(message) = self.message.take()
        {
            discard(M::NAME, message);
        }
        if !matches!(self.staged, Staged::Nothing) {
            discard(M::NAME, std::mem::replace(&mut self.staged, Staged::Nothing));
        }
    }
}

/// What the runtime does with a letter whatever its message is.
pub trait AnyLetter: Send {
    /// The message's wire name.
    fn name(&self) -> &'static str;
    #[doc(hidden)]
    fn details(&self) -> Details<'_>;
    /// Sends the staged answer; `version` is the state's version that covers the turn.
    fn release(&mut self, version: i64);
    /// Stages an error in place of an answer.
    fn fail(&mut self, error: AskError);
    /// The staged answer as JSON text.
    ///
    /// # Errors
    /// The staged error, or why the reply cannot be written as JSON.
    fn outcome(&self) -> Result<Vec<u8>, AskError<JsonRefusal>>;
    /// Stages an outcome that an earlier request with the same idempotency key had.
    fn replay(&mut self, outcome: Result<Box<RawValue>, AskError<JsonRefusal>>);
    /// Begins the turn. `false`: the asker has withdrawn, and nothing may happen.
    fn start(&self) -> bool;
    /// The size of the message as JSON, in bytes; 0 where it was consumed.
    fn size(&self) -> usize;
    /// Marks it as urgent.
    fn hurry(&mut self);
    /// Gives it an id, if it has none.
    fn name_it(&mut self, id: Uuid);
    /// Whether it does.
    fn is_urgent(&self) -> bool {
        self.details().0.is_some_and(|meta| meta.urgent)
    }
    /// Whether nobody will hear what becomes of it.
    fn is_tell(&self) -> bool;
    /// Of a turn that has crashed: whether it is to run once more. It says so once.
    fn comes_again(&mut self) -> bool;
    /// Whether it is an attempt of a task.
    fn is_task(&self) -> bool {
        self.details().0.is_some_and(|meta| meta.claim.is_some())
    }
}

/// The rarely used part of a letter.
pub struct Details<'a>(pub(crate) Option<&'a Meta>);

impl<M: Message> AnyLetter for Letter<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn details(&self) -> Details<'_> {
        Details(self.meta.as_deref())
    }

    #[inline]
    fn release(&mut self, version: i64) {
        let staged = std::mem::replace(&mut self.staged, Staged::Nothing);
        let turn = self.meta.as_ref().and_then(|m| m.id);
        let json = |body| JsonReply { body, version, turn, replayed: false };
        match (std::mem::replace(&mut self.to, ReplyTo::Nobody), staged) {
            // In all other cases the dropped sender tells the asker. An answer whose asker has gone ends
            // with its letter.
            (ReplyTo::Ask(tx), Staged::Reply(reply)) => {
                if let Some(Ok(reply)) = tx.send(Ok(reply)) {
                    self.staged = Staged::Reply(reply);
                }
            }
            (ReplyTo::Ask(tx), Staged::Error(error)) => {
                if let Some(Err(error)) = tx.send(Err(*error)) {
                    self.stage_error(error);
                }
            }
            (ReplyTo::Json(tx), Staged::Text(body)) => drop(tx.send(Ok(json(body)))),
            (ReplyTo::Json(tx), Staged::Error(error)) => drop(tx.send(Err(error.into_json()))),
            _ => {}
        }
    }

    fn fail(&mut self, error: AskError) {
        self.stage_error(error.widen());
    }

    fn outcome(&self) -> Result<Vec<u8>, AskError<JsonRefusal>> {
        // The user's values were written once before; they may panic all the same.
        let written = guard(|| match &self.staged {
            Staged::Reply(reply) => serde_json::to_vec(reply).map_err(|e| unwritable(&e.to_string())),
            Staged::Text(body) => Ok(body.get().as_bytes().to_vec()),
            Staged::Error(error) => Err(AskError::clone(error).written()),
            Staged::Nothing => Err(AskError::Unknown),
        });
        written.unwrap_or_else(|(why, _)| Err(unwritable(&why)))
    }

    fn replay(&mut self, outcome: Result<Box<RawValue>, AskError<JsonRefusal>>) {
        match std::mem::replace(&mut self.to, ReplyTo::Nobody) {
            ReplyTo::Nobody | ReplyTo::Timer => {}
            ReplyTo::Json(tx) => {
                drop(tx.send(outcome.map(|body| JsonReply { body, version: 0, turn: None, replayed: true })));
            }
            ReplyTo::Ask(tx) => drop(tx.send(match outcome {
                Ok(body) => serde_json::from_str(body.get()).map_err(|e| {
                    AskError::Failed(Fault::new(format!("the first outcome cannot be read: {e}")))
                }),
                Err(error) => Err(from_json(error)),
            })),
        }
    }

    fn start(&self) -> bool {
        match &self.to {
            ReplyTo::Nobody | ReplyTo::Timer => true,
            ReplyTo::Ask(tx) => tx.start(),
            ReplyTo::Json(tx) => tx.start(),
        }
    }

    fn is_tell(&self) -> bool {
        !self.to.is_somebody() && self.meta.as_ref().is_none_or(|meta| meta.claim.is_none())
    }

    fn comes_again(&mut self) -> bool {
        let again = matches!(self.to, ReplyTo::Timer) && self.message.is_some();
        if again {
            self.to = ReplyTo::Nobody;
        }
        again
    }

    fn hurry(&mut self) {
        self.meta.get_or_insert_default().urgent = true;
    }

    fn name_it(&mut self, id: Uuid) {
        self.meta.get_or_insert_default().id.get_or_insert(id);
    }

    fn size(&self) -> usize {
        match (&self.meta, &self.message) {
            (Some(meta), _) if meta.bytes > 0 => meta.bytes,
            (_, Some(message)) => serde_json::to_vec(message).map_or(0, |v| v.len()),
            _ => 0,
        }
    }
}

/// A refusal that went through JSON, typed again.
fn from_json<E: serde::de::DeserializeOwned + std::error::Error + 'static>(
    error: AskError<JsonRefusal>,
) -> AskError<E> {
    if let AskError::Refused(refusal) = &error
        && let Ok(typed) = serde_json::from_value::<E>(refusal.value.clone())
    {
        return AskError::Refused(typed);
    }
    match error {
        AskError::Refused(refusal) => AskError::Failed(Fault::new(refusal.message)),
        AskError::Failed(x) => AskError::Failed(x),
        AskError::TooLarge(x) => AskError::TooLarge(x),
        other => AskError::Failed(Fault::new(other.to_string())),
    }
}

fn to_raw<T: Serialize>(value: &T) -> Result<Box<RawValue>, AskError> {
    serde_json::value::to_raw_value(value).map_err(|e| unwritable(&e.to_string()))
}

#[cold]
fn unwritable<E: std::error::Error + 'static>(why: &str) -> AskError<E> {
    AskError::Failed(Fault::new(format!("the answer cannot be written as JSON: {why}")))
}

/// A letter for one of the messages of an agent: an enum for each arity of `Messages`.
pub trait Envelope<A: Agent>: Send + Sized + 'static {
    #[doc(hidden)]
    fn letter(&self) -> &dyn AnyLetter;
    #[doc(hidden)]
    fn letter_mut(&mut self) -> &mut dyn AnyLetter;
    /// Whether the message only reads.
    fn read_only(&self) -> bool;
    /// Whether it says nothing beside its message.
    fn is_plain(&self) -> bool;
    /// As [`AnyLetter::name`].
    fn wire_name(&self) -> &'static str;
    /// As [`AnyLetter::release`].
    fn answer(&mut self, version: i64);
    #[doc(hidden)]
    fn run<'a>(
        &'a mut self,
        agent: &'a mut A,
        turn: &'a Turn<A>,
        keep: bool,
    ) -> impl Future<Output = Ran> + Send + 'a;
}

impl<A: Handler<M>, M: Message> Envelope<A> for Letter<M> {
    fn letter(&self) -> &dyn AnyLetter {
        self
    }
    fn letter_mut(&mut self) -> &mut dyn AnyLetter {
        self
    }
    fn read_only(&self) -> bool {
        <A as Handler<M>>::READ_ONLY
    }
    #[inline]
    fn is_plain(&self) -> bool {
        self.meta.is_none()
    }
    #[inline]
    fn wire_name(&self) -> &'static str {
        M::NAME
    }
    #[inline]
    fn answer(&mut self, version: i64) {
        if self.to.is_somebody() {
            self.release(version);
        }
    }
    fn run<'a>(
        &'a mut self,
        agent: &'a mut A,
        turn: &'a Turn<A>,
        keep: bool,
    ) -> impl Future<Output = Ran> + Send + 'a {
        Letter::run(self, agent, turn, keep)
    }
}
