//! A slot for one reply: one lock, no channel, and no allocation if the thread has a slot left from an earlier
//! ask.

use std::{
    any::{Any, TypeId},
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

enum State<T> {
    Empty {
        waker: Option<Waker>,
        /// The turn has begun: the asker cannot withdraw any more.
        started: bool,
        /// The turn that wants to know when the asker is gone.
        turn: Option<Waker>,
    },
    /// The asker is gone, and the turn goes on.
    Abandoned,
    Ready(T),
    /// The sender is gone, or the reply has been taken.
    Closed,
    /// The asker has given up before the turn began.
    Withdrawn,
}

impl<T> State<T> {
    fn new() -> Self {
        Self::Empty { waker: None, started: false, turn: None }
    }
}

struct Slot<T>(Mutex<State<T>>);

/// The end that answers. Dropped unanswered, it tells the other end.
pub(crate) struct ReplyTx<T>(Option<Arc<Slot<T>>>);

/// The end that waits. `None`: nobody will answer.
pub(crate) struct ReplyRx<T: Send + 'static>(Option<Arc<Slot<T>>>);

pub(crate) fn slot<T: Send + 'static>() -> (ReplyTx<T>, ReplyRx<T>) {
    let slot = spare().unwrap_or_else(|| Arc::new(Slot(Mutex::new(State::new()))));
    (ReplyTx(Some(slot.clone())), ReplyRx(Some(slot)))
}

/// A thread keeps at most so many spare slots for a type of reply, …
const MAX_SPARE: usize = 256;
/// … for at most so many types.
const MAX_TYPES: usize = 32;

type Spare = Vec<Arc<dyn Any + Send + Sync>>;

thread_local! {
    static SPARE: RefCell<Vec<(TypeId, Spare)>> = const { RefCell::new(Vec::new()) };
}

/// A slot of an earlier ask of this thread.
fn spare<T: Send + 'static>() -> Option<Arc<Slot<T>>> {
    SPARE.with_borrow_mut(|kept| {
        let (_, slots) = kept.iter_mut().find(|(of, _)| *of == TypeId::of::<T>())?;
        slots.pop()?.downcast().ok()
    })
}

/// Keeps a slot that nobody else holds any more.
fn keep<T: Send + 'static>(mut slot: Arc<Slot<T>>) {
    let Some(alone) = Arc::get_mut(&mut slot) else { return leave(slot) };
    let before = std::mem::replace(alone.0.get_mut(), State::new());
    // nothing of the asker's may be dropped while the spare ones are borrowed
    drop(before);
    let _ = SPARE.try_with(|kept| {
        let Ok(mut kept) = kept.try_borrow_mut() else { return };
        let at = kept.iter().position(|(of, _)| *of == TypeId::of::<T>());
        if let Some((_, slots)) = at.and_then(|at| kept.get_mut(at)) {
            if slots.len() < MAX_SPARE {
                slots.push(slot);
            }
        } else if kept.len() < MAX_TYPES {
            kept.push((TypeId::of::<T>(), vec![slot]));
        }
    });
}

/// Lets a slot go that the turn still holds, and tells the turn.
fn leave<T>(slot: Arc<Slot<T>>) {
    let mut state = slot.0.lock();
    let before = match &*state {
        State::Empty { .. } => std::mem::replace(&mut *state, State::Abandoned),
        _ => return,
    };
    drop(state);
    drop(slot);
    if let State::Empty { turn: Some(turn), .. } = before {
        turn.wake();
    }
}

/// Leaves `next` in the slot, lets it go, and wakes who waits: in this order, so that the one who
/// wakes up finds itself alone with the slot. A value that nobody will ever take comes back.
fn put<T>(slot: Arc<Slot<T>>, next: State<T>) -> Option<T> {
    let before = std::mem::replace(&mut *slot.0.lock(), next);
    let alone = Arc::into_inner(slot);
    if let State::Empty { waker: Some(waker), .. } = before {
        waker.wake();
    }
    match alone?.0.into_inner() {
        State::Ready(value) => Some(value),
        _ => None,
    }
}

impl<T> ReplyTx<T> {
    /// Answers. The value comes back where the asker has gone: its end is the sender's affair.
    pub(crate) fn send(mut self, value: T) -> Option<T> {
        put(self.0.take()?, State::Ready(value))
    }

    /// Begins the turn. `false`: the asker has withdrawn, and nothing may happen.
    pub(crate) fn start(&self) -> bool {
        let Some(slot) = &self.0 else { return true };
        match &mut *slot.0.lock() {
            State::Empty { started, .. } => {
                *started = true;
                true
            }
            State::Withdrawn => false,
            _ => true,
        }
    }
}

impl<T> ReplyTx<T> {
    /// Whether somebody waits for the answer.
    pub(crate) fn is_awaited(&self) -> bool {
        self.0.as_ref().is_some_and(|slot| matches!(*slot.0.lock(), State::Empty { .. }))
    }

    /// Whether nobody waits for the answer any more; else `cx` is woken when that is so.
    pub(crate) fn poll_abandoned(&self, cx: &mut Context<'_>) -> bool {
        let Some(slot) = &self.0 else { return true };
        match &mut *slot.0.lock() {
            State::Empty { turn: Some(w), .. } if w.will_wake(cx.waker()) => false,
            State::Empty { turn, .. } => {
                *turn = Some(cx.waker().clone());
                false
            }
            _ => true,
        }
    }
}

impl<T> Drop for ReplyTx<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            put(slot, State::Closed);
        }
    }
}

impl<T: Send + 'static> ReplyRx<T> {
    /// Gives up. `true`: the turn had not begun, and now never will.
    pub(crate) fn withdraw(&self) -> bool {
        let Some(slot) = &self.0 else { return false };
        let mut state = slot.0.lock();
        if matches!(*state, State::Empty { started: false, .. }) {
            *state = State::Withdrawn;
            return true;
        }
        false
    }
}

impl<T: Send + 'static> Drop for ReplyRx<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            keep(slot);
        }
    }
}

impl<T: Send + 'static> Future for ReplyRx<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let Some(slot) = &self.0 else { return Poll::Ready(None) };
        let mut state = slot.0.lock();
        match &mut *state {
            State::Empty { waker, .. } => {
                match waker {
                    Some(w) if w.will_wake(cx.waker()) => {}
                    other => *other = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            _ => match std::mem::replace(&mut *state, State::Closed) {
                State::Ready(value) => Poll::Ready(Some(value)),
                _ => Poll::Ready(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reply_arrives() {
        let (tx, rx) = slot();
        let waiting = tokio::spawn(rx);
        tokio::task::yield_now().await;
        tx.send(7);
        assert_eq!(waiting.await.unwrap(), Some(7));
    }

    #[tokio::test]
    async fn an_unanswered_asker_is_told() {
        let (tx, rx) = slot::<u8>();
        drop(tx);
        assert_eq!(rx.await, None);
    }

    #[tokio::test]
    async fn a_spare_slot_knows_nothing_of_the_ask_before() {
        let (tx, rx) = slot();
        assert!(tx.start());
        tx.send(7_u16);
        assert_eq!(rx.await, Some(7));
        let (tx, rx) = slot::<u16>();
        assert!(rx.withdraw());
        assert!(!tx.start());
        drop((tx, rx));
        let (tx, rx) = slot::<u16>();
        drop(tx);
        assert_eq!(rx.await, None);
    }

    #[test]
    fn what_nobody_waits_for_comes_back() {
        let (tx, rx) = slot();
        drop(rx);
        assert_eq!(tx.send(7), Some(7));
        let (tx, _rx) = slot();
        assert_eq!(tx.send(7), None);
    }

    #[test]
    fn a_slot_that_the_other_end_still_holds_is_not_spare() {
        let (tx, rx) = slot::<u32>();
        drop(rx);
        let (other, _rx) = slot::<u32>();
        tx.send(1);
        assert!(other.start());
    }

    #[tokio::test]
    async fn a_turn_hears_when_its_asker_leaves() {
        let (tx, rx) = slot::<u8>();
        let leaving =
            std::future::poll_fn(|cx| if tx.poll_abandoned(cx) { Poll::Ready(()) } else { Poll::Pending });
        let mut leaving = std::pin::pin!(leaving);
        assert!(futures_util::poll!(leaving.as_mut()).is_pending());
        tokio::spawn(async move { drop(rx) });
        leaving.await;
    }

    #[test]
    fn an_asker_withdraws_only_before_the_turn_begins() {
        let (tx, rx) = slot::<u8>();
        assert!(rx.withdraw());
        assert!(!tx.start());
        let (tx, rx) = slot::<u8>();
        assert!(tx.start());
        assert!(!rx.withdraw());
    }
}
