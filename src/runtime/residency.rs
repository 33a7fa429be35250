//! Bounds how many agents of a kind stay in memory (`max_live`).
//!
//! Finding the agents that have been idle the longest means looking at all idle ones. To keep the average cost
//! of an activation low, each search unloads more than the surplus, and the next one follows only when that room
//! is used up.

use std::sync::{Arc, atomic::Ordering};

use super::inbox::{Control, Inbox, Phase};

/// For each 16 agents that may be in memory, one more than the surplus is unloaded.
const SLACK: usize = 16;

/// How many agents of a kind may be in memory; 0: any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Residency {
    max: usize,
}

impl Residency {
    pub(crate) fn of(max: usize) -> Self {
        Self { max }
    }

    /// Whether there is a bound.
    #[inline]
    pub(crate) fn is_bounded(self) -> bool {
        self.max > 0
    }

    /// Whether that exceeds the bound.
    #[inline]
    pub(crate) fn is_over(self, running: usize) -> bool {
        self.max > 0 && running > self.max
    }

    /// How many to unload.
    pub(crate) fn surplus(self, running: usize) -> usize {
        if self.is_over(running) { running - self.max + self.max / SLACK } else { 0 }
    }

    /// Whether there is so much room again that the next search is worth its cost once it is used up.
    #[inline]
    pub(crate) fn is_eased(self, running: usize) -> bool {
        self.max > 0 && running <= self.max - self.max / (2 * SLACK)
    }
}

impl Residency {
    /// If more run than may, unloads those of `all` that have been idle the longest.
    pub(crate) fn thin_out<I: Iterator<Item = Arc<Inbox>>>(self, running: usize, all: impl Fn() -> I) {
        let is_told = |inbox: &Arc<Inbox>| inbox.control() >= Control::Passivate;
        let surplus = match self.surplus(running) {
            0 => return,
            surplus => surplus.saturating_sub(all().filter(is_told).count()),
        };
        let idle = || all().filter(|inbox| inbox.phase() == Phase::Idle && !is_told(inbox));
        let rank = |inbox: &Inbox| (inbox.used_at.load(Ordering::Relaxed), inbox.started);
        let mut ranks: Vec<(u32, u64)> = idle().map(|inbox| rank(&inbox)).collect();
        let Some(at) = surplus.min(ranks.len()).checked_sub(1) else { return };
        let (_, last, _) = ranks.select_nth_unstable(at);
        let last = *last;
        idle().filter(|inbox| rank(inbox) <= last).for_each(|inbox| inbox.tell(Control::Passivate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_bound_nobody_leaves() {
        let residency = Residency::of(0);
        assert!(!residency.is_over(1_000_000) && !residency.is_eased(0));
        assert_eq!(residency.surplus(1_000_000), 0);
    }

    #[test]
    fn one_too_many_makes_room_for_several() {
        let residency = Residency::of(3_200);
        assert!(!residency.is_over(3_200) && residency.is_over(3_201));
        assert_eq!((residency.surplus(3_200), residency.surplus(3_201)), (0, 201));
        assert!(!residency.is_eased(3_101) && residency.is_eased(3_100));
    }

    #[test]
    fn a_small_bound_unloads_no_more_than_it_must() {
        let residency = Residency::of(4);
        assert_eq!((residency.surplus(5), residency.surplus(7)), (1, 3));
        assert!(residency.is_eased(4) && !residency.is_eased(5));
    }
}
