//! An atomic flag that remembers when it was set.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// An atomic flag that remembers when it was set.
#[derive(Debug, Default)]
pub(crate) struct Since(AtomicI64);

impl Since {
    /// Whether it is set.
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// When it was set.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            millis => Timestamp::from_millisecond(millis).ok(),
        }
    }

    /// Sets it as of `at`, or clears it; says whether that changed anything.
    pub(crate) fn set(&self, on: bool, at: Timestamp) -> bool {
        let (from, to) =
            if on { (0, at.as_millisecond().max(1)) } else { (self.0.load(Ordering::Acquire), 0) };
        from != to && self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_once_and_ends_once() {
        let (since, now) = (Since::default(), Timestamp::from_second(1_000).unwrap());
        assert!(!since.set(false, now) && since.set(true, now));
        assert!(!since.set(true, Timestamp::from_second(2_000).unwrap()), "it has begun");
        assert_eq!((since.is_on(), since.since()), (true, Some(now)));
        assert!(since.set(false, now) && !since.is_on() && since.since().is_none());
    }
}
