//! A sender at a lane, which waits for room where the policy waits.

use std::{
    borrow::Borrow,
    collections::VecDeque,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    Agent,
    lane::{Lane, Manner, NotTaken},
    messages::EnvelopeOf,
};

/// A sender at a lane that it holds or borrows. It is woken when there is room; once dropped it does not wait.
pub(crate) struct Sender<A: Agent, L: Borrow<Arc<Lane<A>>>> {
    lane: L,
    /// Its place among those that wait for room; 0: it has never waited.
    ticket: u64,
    _agent: PhantomData<fn() -> A>,
}

impl<A: Agent, L: Borrow<Arc<Lane<A>>>> Sender<A, L> {
    #[inline]
    pub(crate) fn new(lane: L) -> Self {
        Self { lane, ticket: 0, _agent: PhantomData }
    }

    /// As [`Lane::place`], of a letter that is no task's; its parts stay in `slot` until it is taken.
    #[inline]
    pub(crate) fn poll_place<P>(
        &mut self,
        urgent: bool,
        slot: &mut Option<P>,
        make: impl FnOnce(P) -> EnvelopeOf<A>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), NotTaken>> {
        let Some(parts) = slot.take() else { return Poll::Ready(Ok(())) };
        let lane: &Arc<Lane<A>> = self.lane.borrow();
        match lane.place(Manner { is_task: false, urgent }, parts, make) {
            Ok(()) => Poll::Ready(Ok(())),
            Err((NotTaken::Full, parts)) if !lane.rejects => {
                *slot = Some(parts);
                lane.wait_for_room(urgent, &mut self.ticket, cx);
                Poll::Pending
            }
            Err((other, parts)) => {
                *slot = Some(parts);
                Poll::Ready(Err(other))
            }
        }
    }

    /// As [`Lane::place_many`].
    pub(crate) fn poll_place_many<P>(
        &mut self,
        urgent: bool,
        parts: &mut VecDeque<P>,
        make: impl FnMut(P) -> EnvelopeOf<A>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), NotTaken>> {
        let lane: &Arc<Lane<A>> = self.lane.borrow();
        match lane.place_many(urgent, parts, make) {
            Err(NotTaken::Full) if !lane.rejects => {
                lane.wait_for_room(urgent, &mut self.ticket, cx);
                Poll::Pending
            }
            done => Poll::Ready(done),
        }
    }
}

impl<A: Agent, L: Borrow<Arc<Lane<A>>>> Drop for Sender<A, L> {
    #[inline]
    fn drop(&mut self) {
        if self.ticket > 0 {
            self.lane.borrow().leave(self.ticket);
        }
    }
}
