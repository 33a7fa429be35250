//! The gate: a turn has external effects only once its agent's earlier turns are durable.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
    task::{Poll, Waker},
};

use parking_lot::Mutex;

use crate::agent::AskError;

/// Whether a turn may reach outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Passage {
    /// Every earlier turn is durable.
    Clear = 0,
    /// Earlier turns wait for their commit.
    Blocked = 1,
    /// A hook, which is no turn: it may not reach other agents, and has no turn before it to wait for.
    Hook = 2,
}

/// What stands between a turn and the world outside of its agent.
#[derive(Default)]
#[expect(clippy::box_collection, reason = "a word in place of three: an agent at rest has a gate too")]
pub(crate) struct Gate {
    passage: AtomicU8,
    asked: AtomicBool,
    passed: AtomicBool,
    waiting: Mutex<Option<Box<Vec<Waker>>>>,
}

impl Gate {
    /// Makes it ready for the next turn.
    #[inline]
    pub(super) fn reset(&mut self, passage: Passage) {
        *self.passage.get_mut() = passage as u8;
        *self.passed.get_mut() = false;
        if std::mem::take(self.asked.get_mut()) {
            *self.waiting.get_mut() = None;
        }
    }

    pub(crate) fn set(&self, passage: Passage) {
        self.passage.store(passage as u8, Ordering::Release);
        if passage == Passage::Clear && self.asked.load(Ordering::Acquire) {
            let waiting = self.waiting.lock().take();
            waiting.into_iter().flat_map(|all| *all).for_each(Waker::wake);
        }
    }

    /// Whether it stands before a hook.
    pub(super) fn is_hooks(&self) -> bool {
        self.passage.load(Ordering::Acquire) == Passage::Hook as u8
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

    /// Whether the turn has reached outside, or wants to.
    pub(crate) fn is_standing_or_passed(&self) -> bool {
        self.asked.load(Ordering::Acquire) || self.is_passed()
    }

    /// Whether the turn has reached outside.
    #[inline]
    pub(crate) fn is_passed(&self) -> bool {
        self.passed.load(Ordering::Acquire)
    }

    /// Waits until the turn may reach outside. The error: it is a hook, which never may.
    pub(super) async fn pass(&self) -> Result<(), AskError> {
        std::future::poll_fn(|cx| {
            if self.is_clear() {
                self.passed.store(true, Ordering::Release);
                return Poll::Ready(Ok(()));
            }
            if self.is_hooks() {
                let why = "a hook may not ask, call tools or read the store: do that in a handler";
                return Poll::Ready(Err(AskError::WrongState(why.to_owned())));
            }
            self.waiting.lock().get_or_insert_default().push(cx.waker().clone());
            self.asked.store(true, Ordering::Release);
            if self.is_clear() {
                cx.waker().wake_by_ref()
            }
            Poll::Pending
        })
        .await
    }
}
