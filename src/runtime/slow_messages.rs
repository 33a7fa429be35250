//! The messages of a kind whose handlers are known to be slow: learned from their turns.

use std::sync::atomic::{AtomicBool, Ordering};

/// A message marked slow that runs fast is unmarked with probability 1/16 per turn.
const FORGET_ONE_IN: u32 = 16;

/// Messages whose handlers reach outside, or wait for something else for long.
#[derive(Default)]
pub(crate) struct SlowMessages {
    names: dashmap::DashSet<&'static str>,
    /// Whether there have been any: asked before each turn.
    any: AtomicBool,
}

impl SlowMessages {
    /// Whether there may be any.
    #[inline]
    pub(super) fn are_known(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn contains(&self, message: &str) -> bool {
        self.are_known() && self.names.contains(message)
    }

    /// The handler was seen to reach outside, or to take long.
    pub(super) fn learn(&self, message: &'static str) {
        self.names.insert(message);
        self.any.store(true, Ordering::Relaxed);
    }

    /// It did neither this time. One that always does but for now and then stays known: to forget it costs
    /// a turn that is undone.
    pub(super) fn doubt(&self, message: &'static str) {
        if self.contains(message) && fastrand::u32(..FORGET_ONE_IN) == 0 {
            self.names.remove(message);
        }
    }
}
