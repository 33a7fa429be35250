//! The queue of a lane, kept under the lane's lock.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    task::Waker,
};

use jiff::Timestamp;

use crate::model::supervision::Budget;

/// What senders meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entrance {
    Open,
    /// Messages wait, to the bound; no cell is started.
    Paused,
    /// Messages are refused, for this reason.
    Shut(Arc<Shut>),
    /// The node is going down: nothing is taken any more.
    Closing,
}

/// Why messages are refused, and how many have been.
#[derive(Debug)]
pub(crate) struct Shut {
    pub why: Arc<str>,
    refused: AtomicU64,
    /// In milliseconds; 0: none has been.
    last: AtomicI64,
}

impl Shut {
    /// So many more were refused.
    pub(super) fn refuse(&self, n: usize, now: Timestamp) {
        self.refused.fetch_add(n as u64, Ordering::Relaxed);
        self.last.store(now.as_millisecond(), Ordering::Relaxed);
    }

    /// It was shut before, for another reason: what was refused then counts on.
    pub(super) fn goes_on(&self, before: &Self) {
        self.refused.store(before.refused.load(Ordering::Relaxed), Ordering::Relaxed);
        self.last.store(before.last.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// How many were, and when the last one was.
    pub(crate) fn refused(&self) -> Option<(u64, Timestamp)> {
        let (n, last) = (self.refused.load(Ordering::Relaxed), self.last.load(Ordering::Relaxed));
        Timestamp::from_millisecond(last).ok().filter(|_| n > 0).map(|at| (n, at))
    }
}

impl PartialEq for Shut {
    fn eq(&self, other: &Self) -> bool {
        self.why == other.why
    }
}

impl Eq for Shut {}

impl Entrance {
    /// Messages are refused, for this reason.
    pub(crate) fn shut(why: impl Into<Arc<str>>) -> Self {
        let (refused, last) = (AtomicU64::new(0), AtomicI64::new(0));
        Self::Shut(Arc::new(Shut { why: why.into(), refused, last }))
    }
}

/// Who waits for room, in the order of their coming.
#[derive(Default)]
pub(super) struct Senders {
    /// The last ticket given out. It never begins anew: who was woken still holds the one that it had.
    last: u64,
    waiting: VecDeque<(u64, Waker)>,
}

impl Senders {
    /// Keeps the waker of a sender, in its place if it has one; else `ticket` becomes that of its place. What is
    /// kept no longer comes back: to drop it is the affair of others, and not done under a lock.
    pub fn enter(&mut self, ticket: &mut u64, waker: &Waker) -> Option<Waker> {
        match self.place(*ticket).and_then(|at| self.waiting.get_mut(at)) {
            Some((_, kept)) if kept.will_wake(waker) => None,
            Some((_, kept)) => Some(std::mem::replace(kept, waker.clone())),
            None => {
                self.last += 1;
                *ticket = self.last;
                self.waiting.push_back((self.last, waker.clone()));
                None
            }
        }
    }

    /// Forgets a sender.
    pub fn leave(&mut self, ticket: u64) -> Option<Waker> {
        self.waiting.remove(self.place(ticket)?).map(|(_, waker)| waker)
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    fn place(&self, ticket: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }
}

/// Those who are to be woken once the lock is released.
#[must_use = "nobody wakes them else"]
pub(super) struct Woken(Option<VecDeque<(u64, Waker)>>);

impl Woken {
    #[inline]
    pub fn wake(self) {
        if let Some(woken) = self.0 {
            woken.into_iter().for_each(|(_, waker)| waker.wake());
        }
    }
}

/// What waits in a lane. What is written for each letter stands first: see [`Lane`](super::lane::Lane).
#[repr(C)]
#[expect(clippy::box_collection, reason = "a word in place of four, for the many that never have one")]
pub(super) struct Queue<E> {
    pub letters: VecDeque<E>,
    pub cell: Option<Waker>,
    pub entrance: Entrance,
    pub attached: bool,
    /// The high lane; most never have one.
    pub urgent: Option<Box<VecDeque<E>>>,
    /// How often an operator has decided on the entrance: a cell must not undo what it has not seen.
    pub decided: u64,
    /// Who waits for room; most never have anybody.
    pub senders: Option<Box<Senders>>,
    /// The crashes that count against the agent; most never have one.
    pub budget: Option<Box<Budget>>,
}

impl<E> Queue<E> {
    pub fn new(entrance: Entrance) -> Self {
        Self {
            letters: VecDeque::new(),
            urgent: None,
            entrance,
            decided: 0,
            attached: false,
            cell: None,
            senders: None,
            budget: None,
        }
    }

    pub fn depth(&self, urgent: bool) -> usize {
        if urgent { self.urgent.as_ref().map_or(0, |u| u.len()) } else { self.letters.len() }
    }

    pub fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.depth(true) == 0
    }

    /// All that waits, in the order in which it would be run.
    pub fn take_all(&mut self) -> VecDeque<E> {
        let mut all = self.urgent.take().map(|urgent| *urgent).unwrap_or_default();
        all.append(&mut self.letters);
        all
    }

    /// There is room: all who waited for it.
    #[inline]
    pub fn admit(&mut self) -> Woken {
        Woken(self.senders.as_mut().map(|senders| std::mem::take(&mut senders.waiting)))
    }

    /// After letters were put in: the cell to wake, or whether one is to be started.
    #[inline]
    pub fn taken(&mut self) -> (Option<Waker>, bool) {
        if self.attached {
            (self.cell.take(), false)
        } else {
            self.attached = self.entrance == Entrance::Open;
            (None, self.attached)
        }
    }
}
