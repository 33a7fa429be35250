//! The lane: an agent's mailbox, and its identity.
//!
//! Cells attach to it and detach from it; a lane lives on across crashes and passivation, so a
//! handle stays valid and nothing that waits is lost. A cell detaches only when the lane is empty,
//! under its lock, so there is no race with a sender. The queue is swapped out whole, and the cell
//! is woken once a batch (after the lock is released).

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::{Agent, messages::EnvelopeOf};
use crate::model::id::AgentId;

/// Who an agent is.
#[derive(Debug)]
pub(crate) struct Name {
    pub kind: Arc<str>,
    pub key: Arc<str>,
    pub id: AgentId,
}

impl Name {
    pub(crate) fn subject(&self) -> String {
        format!("{}/{}", self.kind, self.key)
    }
}

/// Starts a cell for a lane that has work and no cell.
pub(crate) trait Activator<A: Agent>: Send + Sync {
    fn activate(&self, lane: Arc<Lane<A>>);
}

/// What senders meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entrance {
    Open,
    /// Messages wait, to the bound; no cell is started.
    Paused,
    /// Messages are refused, for this reason.
    Shut(Arc<str>),
    /// The node is going down: nothing is taken any more.
    Closing,
}

/// Why a letter was not taken; it comes back.
pub(crate) enum NotTaken {
    Full,
    Shut(Arc<str>),
    Closing,
}

struct Queue<E> {
    letters: VecDeque<E>,
    entrance: Entrance,
    attached: bool,
    cell: Option<Waker>,
    senders: VecDeque<Waker>,
}

/// An agent's mailbox.
pub struct Lane<A: Agent> {
    pub(crate) name: Name,
    capacity: usize,
    /// A full mailbox gives the message back in place of making the sender wait.
    rejects: bool,
    queue: Mutex<Queue<EnvelopeOf<A>>>,
    activator: Arc<dyn Activator<A>>,
}

impl<A: Agent> Lane<A> {
    pub(crate) fn new(
        name: Name,
        capacity: usize,
        rejects: bool,
        entrance: Entrance,
        activator: Arc<dyn Activator<A>>,
    ) -> Self {
        let queue = Queue {
            letters: VecDeque::new(),
            entrance,
            attached: false,
            cell: None,
            senders: VecDeque::new(),
        };
        Self { name, capacity: capacity.max(1), rejects, queue: Mutex::new(queue), activator }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn depth(&self) -> usize {
        self.queue.lock().letters.len()
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.queue.lock().attached
    }

    /// Puts a letter in, and starts a cell where there is none.
    pub(crate) fn push(self: &Arc<Self>, letter: EnvelopeOf<A>) -> Result<(), (NotTaken, EnvelopeOf<A>)> {
        let (wake, start) = {
            let mut q = self.queue.lock();
            match &q.entrance {
                Entrance::Open | Entrance::Paused if q.letters.len() >= self.capacity => {
                    return Err((NotTaken::Full, letter));
                }
                Entrance::Open | Entrance::Paused => {}
                Entrance::Shut(why) => return Err((NotTaken::Shut(why.clone()), letter)),
                Entrance::Closing => return Err((NotTaken::Closing, letter)),
            }
            q.letters.push_back(letter);
            if q.attached {
                (q.cell.take(), false)
            } else {
                q.attached = q.entrance == Entrance::Open;
                (None, q.attached)
            }
        };
        if let Some(waker) = wake {
            waker.wake();
        }
        if start {
            self.activator.activate(self.clone());
        }
        Ok(())
    }

    /// As [`Lane::push`], waiting for room where the policy waits; the letter stays in `slot` until
    /// it is taken.
    pub(crate) fn poll_push(
        self: &Arc<Self>,
        slot: &mut Option<EnvelopeOf<A>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), NotTaken>> {
        let Some(letter) = slot.take() else { return Poll::Ready(Ok(())) };
        match self.push(letter) {
            Ok(()) => Poll::Ready(Ok(())),
            Err((NotTaken::Full, letter)) if !self.rejects => {
                *slot = Some(letter);
                let mut q = self.queue.lock();
                if q.letters.len() < self.capacity {
                    drop(q);
                    cx.waker().wake_by_ref();
                } else {
                    q.senders.push_back(cx.waker().clone());
                }
                Poll::Pending
            }
            Err((other, letter)) => {
                *slot = Some(letter);
                Poll::Ready(Err(other))
            }
        }
    }

    /// For the cell: swaps the waiting letters into an empty `batch`. `false`: there are none, and
    /// the waker is kept.
    pub(crate) fn poll_batch(&self, batch: &mut VecDeque<EnvelopeOf<A>>, cx: &mut Context<'_>) -> bool {
        let mut q = self.queue.lock();
        if q.letters.is_empty() || q.entrance == Entrance::Paused {
            match &q.cell {
                Some(w) if w.will_wake(cx.waker()) => {}
                _ => q.cell = Some(cx.waker().clone()),
            }
            return false;
        }
        std::mem::swap(&mut q.letters, batch);
        let senders = if q.senders.is_empty() { VecDeque::new() } else { std::mem::take(&mut q.senders) };
        drop(q);
        for waker in senders {
            waker.wake();
        }
        true
    }

    /// For the cell: lets go of the lane if it is empty or not open. `false`: there is work, stay.
    pub(crate) fn detach(&self) -> bool {
        let mut q = self.queue.lock();
        if q.entrance == Entrance::Open && !q.letters.is_empty() {
            return false;
        }
        q.attached = false;
        q.cell = None;
        if q.letters.is_empty() {
            q.letters.shrink_to_fit();
        }
        true
    }

    /// For a cell that goes without its own will: gives back what it had taken, in front, and
    /// starts another cell where there is work.
    pub(crate) fn abandon(self: &Arc<Self>, batch: &mut VecDeque<EnvelopeOf<A>>) {
        let start = {
            let mut q = self.queue.lock();
            while let Some(letter) = batch.pop_back() {
                q.letters.push_front(letter);
            }
            q.cell = None;
            q.attached = q.entrance == Entrance::Open && !q.letters.is_empty();
            q.attached
        };
        if start {
            self.activator.activate(self.clone());
        }
    }

    /// Gives a batch back to the front of the queue.
    pub(crate) fn put_back(&self, batch: &mut VecDeque<EnvelopeOf<A>>) {
        let mut q = self.queue.lock();
        while let Some(letter) = batch.pop_back() {
            q.letters.push_front(letter);
        }
    }

    /// Changes what senders meet. Shutting hands back what waited; opening starts a cell where
    /// there is work.
    pub(crate) fn set_entrance(self: &Arc<Self>, entrance: Entrance) -> VecDeque<EnvelopeOf<A>> {
        let (handed_back, wakers, start) = {
            let mut q = self.queue.lock();
            q.entrance = entrance;
            let shut = matches!(q.entrance, Entrance::Shut(_) | Entrance::Closing);
            let handed_back = if matches!(q.entrance, Entrance::Shut(_)) {
                std::mem::take(&mut q.letters)
            } else {
                VecDeque::new()
            };
            let mut wakers = VecDeque::new();
            if shut {
                wakers = std::mem::take(&mut q.senders);
            }
            wakers.extend(q.cell.take());
            let start = q.entrance == Entrance::Open && !q.attached && !q.letters.is_empty();
            q.attached |= start;
            (handed_back, wakers, start)
        };
        for waker in wakers {
            waker.wake();
        }
        if start {
            self.activator.activate(self.clone());
        }
        handed_back
    }

    pub(crate) fn entrance(&self) -> Entrance {
        self.queue.lock().entrance.clone()
    }

    /// Wakes the cell, if one waits.
    pub(crate) fn wake(&self) {
        let waker = self.queue.lock().cell.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
