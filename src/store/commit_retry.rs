//! Retrying a commit: the same units are sent again until their outcome is known.

use std::time::Duration;

use super::{Refusal, StoreError, Verdict};

/// The first pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest: no more than that is lost when the store is back.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// What is known of a commit after its tries so far.
#[derive(Debug, Clone, Copy)]
pub struct Tries {
    pause: Duration,
    /// A try may have happened although no answer came.
    unsure: bool,
}

impl Default for Tries {
    fn default() -> Self {
        Self { pause: FIRST_PAUSE, unsure: false }
    }
}

impl Tries {
    /// A try has failed. After how long are the same units sent again? `None`: they are not, and nothing
    /// of them is to come.
    pub fn again(&mut self, error: &StoreError) -> Option<Duration> {
        self.unsure |= matches!(error, StoreError::Unknown(_));
        if !matches!(error, StoreError::NotDone(_) | StoreError::Unknown(_)) {
            return None;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(MAX_PAUSE);
        Some(pause)
    }

    /// Whether a try may have happened although no answer came.
    pub(crate) fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// What a verdict on one of the units says. `None`: nothing; an earlier try may have happened, and the
    /// agent has been moved on since, so nobody can tell any more.
    pub fn known(&self, verdict: Verdict) -> Option<Verdict> {
        match verdict {
            Verdict::Refused(Refusal::Fenced) if self.unsure => None,
            known => Some(known),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_units_are_sent_until_it_is_known_what_became_of_them() {
        let mut tries = Tries::default();
        let lost = StoreError::Unknown("connection reset".to_owned());
        let pauses: Vec<_> = (0..8).filter_map(|_| tries.again(&lost)).map(|p| p.as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 500, 500]);
        assert_eq!(tries.again(&StoreError::NotDone("deadlock".to_owned())), Some(MAX_PAUSE));
        assert_eq!(tries.again(&StoreError::Full("no room".to_owned())), None);
    }

    #[test]
    fn a_fence_says_nothing_of_a_try_that_was_not_answered() {
        let fenced = Verdict::Refused(Refusal::Fenced);
        let mut tries = Tries::default();
        assert_eq!(tries.again(&StoreError::NotDone("deadlock".to_owned())), Some(FIRST_PAUSE));
        assert_eq!(tries.known(fenced.clone()), Some(fenced.clone()), "nothing has happened");
        assert!(tries.again(&StoreError::Unknown("connection reset".to_owned())).is_some());
        assert_eq!(tries.known(fenced), None);
        assert_eq!(tries.known(Verdict::Durable), Some(Verdict::Durable));
    }
}
