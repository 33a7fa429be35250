//! The bound on waiting tasks: whether one more may be submitted.

use std::time::Duration;

use super::TaskState;

/// How old a count may be before somebody is to look again.
const FRESH: Duration = Duration::from_secs(1);
/// How old one may be by which a submitter is refused.
const SHARP: Duration = Duration::from_millis(50);

/// How many tasks wait, as far as a node knows: what it counted last, and what it took in since.
///
/// What others take in, and what ends, is seen by the next count: so a bound may be passed by what a second
/// brings, and nobody is refused by a count that is older than 50 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// How many waited, and when that was counted.
    counted: Option<(u64, Duration)>,
    /// Taken in since.
    since: u64,
    /// Being taken in.
    coming: u64,
}

/// Whether there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Some,
    /// There is, and somebody should count anew.
    Stale,
    /// Nobody can tell without counting.
    Unknown,
    /// There is none: so many wait.
    None(u64),
}

impl Backlog {
    /// How many of these tasks count: those that wait for their turn, their time, or another attempt. What waits
    /// for other tasks, a signal or a person does not: no worker could shorten that.
    pub fn of(tasks: &[(TaskState, u64)]) -> u64 {
        let waits = |state| matches!(state, TaskState::Ready | TaskState::Scheduled);
        tasks.iter().filter(|(state, _)| waits(*state)).map(|(_, n)| n).sum()
    }

    /// Whether one more may come, at `now` (any clock that only goes forward), where `most` may wait; 0: any
    /// number.
    pub fn room(&self, most: u64, now: Duration) -> Room {
        if most == 0 {
            return Room::Some;
        }
        let Some((counted, at)) = self.counted else { return Room::Unknown };
        let (waiting, age) =
            (counted.saturating_add(self.since).saturating_add(self.coming), now.saturating_sub(at));
        match waiting < most {
            true if age <= FRESH => Room::Some,
            true => Room::Stale,
            false if age <= SHARP => Room::None(waiting),
            false => Room::Unknown,
        }
    }

    /// So many are being taken in.
    pub fn begin(&mut self, n: u64) {
        self.coming = self.coming.saturating_add(n);
    }

    /// They have been taken in, or not: the next count tells.
    pub fn end(&mut self, n: u64) {
        self.coming = self.coming.saturating_sub(n);
        self.since = self.since.saturating_add(n);
    }

    /// What had been taken in since the last count: to be remembered before the next.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// So many wait, counted at `now`; `seen` had been taken in before the counting began.
    pub fn counted(&mut self, n: u64, seen: u64, now: Duration) {
        self.counted = Some((n, now));
        self.since = self.since.saturating_sub(seen);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn what_waits_for_a_worker_counts() {
        let counts: Vec<_> =
            TaskState::ALL.into_iter().filter(|state| Backlog::of(&[(*state, 1)]) == 1).collect();
        assert_eq!(counts, [TaskState::Scheduled, TaskState::Ready]);
    }

    #[test]
    fn nobody_is_refused_by_an_old_count() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.room(0, ms(0)), Room::Some, "no bound, no count");
        assert_eq!(backlog.room(3, ms(0)), Room::Unknown);
        backlog.counted(1, 0, ms(0));
        assert_eq!(backlog.room(3, ms(1_000)), Room::Some);
        assert_eq!(backlog.room(3, ms(1_001)), Room::Stale);
        backlog.begin(2);
        assert_eq!(backlog.room(3, ms(50)), Room::None(3), "what is on its way counts");
        backlog.end(2);
        assert_eq!(backlog.room(3, ms(50)), Room::None(3));
        assert_eq!(backlog.room(3, ms(51)), Room::Unknown);
        backlog.counted(0, backlog.since(), ms(51));
        assert_eq!(backlog.room(3, ms(51)), Room::Some, "all that waited has ended");
    }

    proptest! {
        /// However submissions and counts fall together, what this node takes in stays within the bound.
        #[test]
        fn what_one_node_takes_in_stays_within_the_bound(
            most in 1_u64..6,
            // Somebody comes; one of those who come is done; a count begins; it ends; one that waits has ended.
            steps in prop::collection::vec(0_u8..5, 0..200),
        ) {
            let mut backlog = Backlog::default();
            let (mut waiting, mut coming, mut count) = (0_u64, 0_u64, None);
            for step in steps {
                match step {
                    0 if matches!(backlog.room(most, ms(0)), Room::Some | Room::Stale) => {
                        backlog.begin(1);
                        coming += 1;
                    }
                    1 if coming > 0 => {
                        (coming, waiting) = (coming - 1, waiting + 1);
                        backlog.end(1);
                    }
                    2 if count.is_none() => count = Some((backlog.since(), waiting)),
                    3 => if let Some((seen, n)) = count.take() {
                        backlog.counted(n, seen, ms(0));
                    },
                    4 => waiting = waiting.saturating_sub(1),
                    _ => {}
                }
                prop_assert!(waiting + coming <= most, "{waiting} and {coming} of {most}");
            }
        }
    }
}
