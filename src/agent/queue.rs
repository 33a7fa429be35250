//! The queue of a lane, kept under the lane's lock.

use std::{collections::VecDeque, sync::Arc, task::Waker};

use crate::model::supervision::Budget;

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

/// What waits in a lane.
#[expect(clippy::box_collection, reason = "a word in place of four, for the many that never have one")]
pub(super) struct Queue<E> {
    pub letters: VecDeque<E>,
    /// The high lane; most never have one.
    pub urgent: Option<Box<VecDeque<E>>>,
    pub entrance: Entrance,
    /// How often an operator has decided on the entrance: a cell must not undo what it has not seen.
    pub decided: u64,
    pub attached: bool,
    pub cell: Option<Waker>,
    /// Who waits for room, in the order of their coming; most never have anybody.
    pub senders: Option<Box<VecDeque<Waker>>>,
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

/// Wakes all who waited for room.
#[inline]
#[expect(clippy::box_collection, reason = "as it comes")]
pub(super) fn wake_all(waiting: Option<Box<VecDeque<Waker>>>) {
    if let Some(waiting) = waiting {
        waiting.into_iter().for_each(Waker::wake);
    }
}
