//! Whether the node is drained: an operator wants it to begin no tasks. A restart ends it.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// Since when the node is drained, if it is.
#[derive(Debug, Default)]
pub(crate) struct Draining(AtomicI64);

impl Draining {
    /// Whether it is: asked before tasks are claimed.
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// Since when.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            millis => Timestamp::from_millisecond(millis).ok(),
        }
    }

    /// Begins at `now`, or ends it; says whether that changed anything.
    pub(crate) fn set(&self, on: bool, now: Timestamp) -> bool {
        let (from, to) =
            if on { (0, now.as_millisecond().max(1)) } else { (self.0.load(Ordering::Acquire), 0) };
        from != to && self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_once_and_ends_once() {
        let (draining, now) = (Draining::default(), Timestamp::from_second(1_000).unwrap());
        assert!(!draining.set(false, now) && draining.set(true, now));
        assert!(!draining.set(true, Timestamp::from_second(2_000).unwrap()), "it has begun");
        assert_eq!((draining.is_on(), draining.since()), (true, Some(now)));
        assert!(draining.set(false, now) && !draining.is_on() && draining.since().is_none());
    }
}
