//! Whether the result of a turn is still wanted.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::{Poll, Waker},
};

use parking_lot::Mutex;

/// What a turn knows of its asker's end, and who in the handler waits for it.
#[derive(Default)]
pub(super) struct End {
    near: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl End {
    pub(super) fn is_near(&self) -> bool {
        self.near.load(Ordering::Relaxed)
    }

    pub(super) fn comes(&self) {
        self.near.store(true, Ordering::Relaxed);
    }

    /// Wakes who waits; whether anybody did.
    pub(super) fn wake(&self) -> bool {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let any = !waiting.is_empty();
        for waker in waiting {
            waker.wake();
        }
        any
    }

    /// Waits until `so` holds; it is looked at when the handler is polled.
    pub(super) async fn wait(&self, so: impl Fn() -> bool) {
        std::future::poll_fn(|cx| {
            if so() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.lock();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
