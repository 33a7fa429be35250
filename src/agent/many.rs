//! Sending many messages to one agent from outside of any turn.

use std::{
    collections::VecDeque,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    Agent,
    drops::discard,
    lane::Lane,
    letter::{Letter, ReplyTo},
    message::Message,
    messages::Accepts,
    reference::{AgentRef, Full},
    sender::Sender,
};

impl<A: Agent> AgentRef<A> {
    /// Sends many messages, in order, and waits only until the mailbox has taken them all: it is locked, and
    /// the agent woken, once for as many as there is room for. At most once: lost in a crash.
    ///
    /// # Errors
    /// Returns the messages that were not taken, if the mailbox is closed, or full and the policy rejects; all of
    /// them, if one is invalid.
    pub fn send_many<M: Message, I>(&self, ms: impl IntoIterator<Item = M>) -> SendMany<'_, A, M, I>
    where
        A: Accepts<M, I>,
    {
        let messages: VecDeque<M> = ms.into_iter().collect();
        let valid = |_: &&Arc<Lane<A>>| messages.iter().all(|m| m.validate().is_ok());
        let sender = self.lane.as_ref().ok().filter(valid).map(Sender::new);
        SendMany { sender, urgent: self.urgent, messages, _index: PhantomData }
    }
}

/// Many tells in progress: awaiting it waits for room in the mailbox.
#[must_use = "nothing is sent until it is awaited"]
pub struct SendMany<'r, A: Agent, M: Message, I> {
    /// `None`: there is no such agent, or it must not have one of them.
    sender: Option<Sender<A, &'r Arc<Lane<A>>>>,
    urgent: bool,
    messages: VecDeque<M>,
    _index: PhantomData<fn() -> I>,
}

impl<A: Agent, M: Message, I> Unpin for SendMany<'_, A, M, I> {}

/// Two messages that panic when they are dropped would end the process.
impl<A: Agent, M: Message, I> Drop for SendMany<'_, A, M, I> {
    fn drop(&mut self) {
        self.messages.drain(..).for_each(|message| discard(M::NAME, message));
    }
}

impl<A: Accepts<M, I>, M: Message, I> Future for SendMany<'_, A, M, I> {
    type Output = Result<(), Full<Vec<M>>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let taken = match &mut this.sender {
            Some(sender) => sender.poll_place_many(this.urgent, &mut this.messages, plain::<A, M, I>, cx),
            None if this.messages.is_empty() => return Poll::Ready(Ok(())),
            None => return Poll::Ready(Err(Full(std::mem::take(&mut this.messages).into()))),
        };
        taken.map(|taken| taken.map_err(|_| Full(std::mem::take(&mut this.messages).into())))
    }
}

/// The letter of a tell.
pub(crate) fn plain<A: Accepts<M, I>, M: Message, I>(message: M) -> super::messages::EnvelopeOf<A> {
    A::wrap(Letter::new(message, ReplyTo::Nobody, None))
}
