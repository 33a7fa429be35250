//! A node's lease: what the node may assume about its ownership, by its own clock alone.
//!
//! ```text
//!            renewed                         2/3 of it without a renewal        all of it
//! (begun) ──► Held ──────────────────────────────► Doubtful ─────────────────────► Ended
//!              ▲                                        │ renewed                    │ renewed: the
//!              ╰────────────────────────────────────────┴────────────────────────────╯ store decides
//! ```
//!
//! Held: turns run. Doubtful and ended: no turn is started and nothing is claimed; what the store
//! has confirmed meanwhile is still true. Whether another node has taken over is the store's word:
//! only its answer (a lease that cannot be renewed, an epoch that is another) fences a node.
//!
//! Times are durations since any fixed moment of a monotonic clock. A renewal counts from *before* it
//! was asked for: the store cannot have granted it any later than that, so this clock never gives
//! the node more time than the store does. (A clock that stands still while the machine sleeps may;
//! the epochs that every commit names are the guard, the lease saves useless work.)

use std::time::Duration;

/// What a node may believe about what it owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody else can own it.
    Held,
    /// It may soon be somebody else's: start no turn.
    Doubtful,
    /// It may be somebody else's.
    Ended,
}

/// A node's lease.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    length: Duration,
    /// Before the last request that was granted.
    granted: Duration,
}

impl Lease {
    /// A lease of this length that was asked for at `asked`.
    pub fn begun(length: Duration, asked: Duration) -> Self {
        Self { length, granted: asked }
    }

    /// The store has renewed it, and was asked at `asked`. An answer that comes late changes nothing.
    pub fn renewed(&mut self, asked: Duration) {
        self.granted = self.granted.max(asked);
    }

    /// What may be believed at `now`.
    pub fn standing(&self, now: Duration) -> Standing {
        let age = now.saturating_sub(self.granted);
        if age >= self.length {
            Standing::Ended
        } else if age >= self.length / 3 * 2 {
            Standing::Doubtful
        } else {
            Standing::Held
        }
    }

    /// When it is to be renewed next: after a third of it, and again after each failure.
    pub fn due(&self, failed_at: Option<Duration>) -> Duration {
        let due = self.granted + self.length / 3;
        failed_at.map_or(due, |failed| due.max(failed + self.pause()))
    }

    /// When the standing changes next, if nothing is renewed.
    pub fn turns_at(&self, now: Duration) -> Option<Duration> {
        match self.standing(now) {
            Standing::Held => Some(self.granted + self.length / 3 * 2),
            Standing::Doubtful => Some(self.granted + self.length),
            Standing::Ended => None,
        }
    }

    /// A new lease of the same length.
    fn begin_anew(&mut self, asked: Duration) {
        *self = Self::begun(self.length, asked);
    }

    /// Between two tries: a dozen of them in a lease, and never so long that its return is missed.
    fn pause(&self) -> Duration {
        (self.length / 12).min(Duration::from_millis(500))
    }
}

/// A node's hold on what it owns: its lease, and what it is to ask the store for next.
///
/// A lease that has ended, by the store's word, is never renewed: the node joins anew. What it owned is
/// not given up before it has heard who owns it now.
#[derive(Debug, Clone, Copy)]
pub struct Tenure {
    lease: Lease,
    /// By the store's word.
    ended: bool,
    failed_at: Option<Duration>,
}

impl Tenure {
    /// The store has let the node join, and was asked to at `asked`.
    pub fn begun(length: Duration, asked: Duration) -> Self {
        Self { lease: Lease::begun(length, asked), ended: false, failed_at: None }
    }

    /// Whether no turn may be started and nothing claimed.
    pub fn in_doubt(&self, now: Duration) -> bool {
        self.ended || self.lease.standing(now) != Standing::Held
    }

    /// When that, or what else is believed of the lease, changes next if nothing is renewed.
    pub fn turns_at(&self, now: Duration) -> Option<Duration> {
        self.lease.turns_at(now)
    }

    /// When the store is to be asked next.
    pub fn due(&self) -> Duration {
        self.lease.due(self.failed_at)
    }

    /// Whether it is to be asked to join, and not to renew.
    pub fn joins(&self) -> bool {
        self.ended
    }

    /// The store has granted what it was asked for at `asked`.
    pub fn granted(&mut self, asked: Duration) {
        self.failed_at = None;
        match std::mem::take(&mut self.ended) {
            true => self.lease.begin_anew(asked),
            false => self.lease.renewed(asked),
        }
    }

    /// The store says that the lease has ended.
    pub fn ended(&mut self) {
        self.ended = true;
    }

    /// The store did not answer, or not well.
    pub fn failed(&mut self, now: Duration) {
        self.failed_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_is_held_then_doubtful_then_ended() {
        let mut lease = Lease::begun(LENGTH, at(100));
        assert_eq!(lease.standing(at(119)), Standing::Held);
        assert_eq!(
            (lease.standing(at(120)), lease.standing(at(129))),
            (Standing::Doubtful, Standing::Doubtful)
        );
        assert_eq!(lease.standing(at(130)), Standing::Ended);
        lease.renewed(at(125));
        assert_eq!((lease.standing(at(130)), lease.turns_at(at(130))), (Standing::Held, Some(at(145))));
    }

    #[test]
    fn an_answer_that_comes_late_does_not_shorten_it() {
        let mut lease = Lease::begun(LENGTH, at(100));
        lease.renewed(at(110));
        lease.renewed(at(105));
        assert_eq!(lease.standing(at(129)), Standing::Held);
    }

    #[test]
    fn it_is_renewed_by_a_third_and_tried_again_soon() {
        let lease = Lease::begun(LENGTH, at(100));
        assert_eq!(lease.due(None), at(110));
        assert_eq!(lease.due(Some(at(111))), at(111) + Duration::from_millis(500));
        assert_eq!(lease.due(Some(at(101))), at(110), "one failure early does not hurry");
    }

    #[test]
    fn a_node_whose_lease_has_ended_joins_anew_and_starts_nothing_before() {
        let mut tenure = Tenure::begun(LENGTH, at(100));
        assert!(!tenure.in_doubt(at(119)) && tenure.in_doubt(at(120)));
        tenure.ended();
        assert!(tenure.in_doubt(at(101)) && tenure.joins(), "the store knows better than the clock");
        tenure.failed(at(140));
        assert_eq!(tenure.due(), at(140) + Duration::from_millis(500));
        tenure.granted(at(141));
        assert!(!tenure.in_doubt(at(160)) && !tenure.joins());
        assert_eq!(tenure.due(), at(151));
        // an answer to what was asked before the last one
        tenure.granted(at(135));
        assert!(!tenure.in_doubt(at(160)));
    }

    proptest! {
        /// Two nodes and one store, whose lease counts from when it grants: while this node believes
        /// that it holds its lease, the store has not let it end.
        #[test]
        fn nobody_believes_longer_than_the_store(
            length in 3u64..100,
            // How long after the one before it is asked for, on the way there, on the way back; lost.
            tries in prop::collection::vec((0u64..40, 0u64..40, 0u64..40, any::<bool>()), 1..30),
            look in 0u64..200,
        ) {
            let mut lease = Lease::begun(at(length), at(0));
            let (mut now, mut until) = (at(0), at(length));
            for (wait, there, back, lost) in tries {
                let asked = now + at(wait);
                let granted = asked + at(there);
                if granted >= until {
                    break; // ended: it is never renewed again
                }
                until = granted + at(length);
                now = granted + at(back);
                if !lost {
                    lease.renewed(asked);
                }
                for moment in [now, now + at(look)] {
                    if lease.standing(moment) != Standing::Ended {
                        prop_assert!(moment < until);
                    }
                    if let Some(turn) = lease.turns_at(moment) {
                        prop_assert!(turn > moment && lease.standing(turn) != lease.standing(moment));
                    }
                }
            }
        }
    }
}
