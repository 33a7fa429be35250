//! Where a reply waits for its asker: one allocation, one lock, no channel.

use std::{
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
    },
    Ready(T),
    /// The sender is gone, or the reply has been taken.
    Closed,
    /// The asker has given up before the turn began.
    Withdrawn,
}

struct Slot<T>(Mutex<State<T>>);

/// The end that answers. Dropped unanswered, it tells the other end.
pub(crate) struct ReplyTx<T>(Option<Arc<Slot<T>>>);

/// The end that waits. `None`: nobody will answer.
pub(crate) struct ReplyRx<T>(Arc<Slot<T>>);

pub(crate) fn slot<T>() -> (ReplyTx<T>, ReplyRx<T>) {
    let slot = Arc::new(Slot(Mutex::new(State::Empty { waker: None, started: false })));
    (ReplyTx(Some(slot.clone())), ReplyRx(slot))
}

impl<T> Slot<T> {
    fn put(&self, next: State<T>) {
        let before = std::mem::replace(&mut *self.0.lock(), next);
        if let State::Empty { waker: Some(waker), .. } = before {
            waker.wake();
        }
    }
}

impl<T> ReplyTx<T> {
    pub(crate) fn send(mut self, value: T) {
        if let Some(slot) = self.0.take() {
            slot.put(State::Ready(value));
        }
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

impl<T> Drop for ReplyTx<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            slot.put(State::Closed);
        }
    }
}

impl<T> ReplyRx<T> {
    /// Gives up. `true`: the turn had not begun, and now never will.
    pub(crate) fn withdraw(&self) -> bool {
        let mut state = self.0.0.lock();
        if matches!(*state, State::Empty { started: false, .. }) {
            *state = State::Withdrawn;
            return true;
        }
        false
    }
}

impl<T> Future for ReplyRx<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.0.lock();
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
