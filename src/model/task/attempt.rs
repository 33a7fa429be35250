//! What follows from an attempt that did not succeed.

use std::time::Duration;

use jiff::Timestamp;

use super::{Claimed, TaskTerms};
use crate::model::id::Target;

/// What an error itself says of another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Not before so long.
    After(Duration),
    /// Never: it would end like this one.
    Never,
}

/// What an error makes of the task whose attempt it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterError {
    /// There will be another attempt.
    Retry {
        /// Not before this moment.
        run_at: Timestamp,
    },
    /// It is a dead letter.
    Failed,
    /// A person must say what happened.
    OutcomeUnknown,
}

/// Whether a task has begun, after so many claims of which so many were lost: from then on it does not expire.
///
/// Nobody knows whether a claim that was lost with its node had begun. At an agent's task it counts as not begun: what a
/// turn does commits with the end of its task, so nothing of it has happened. At a tool's it counts as begun.
pub fn has_begun(is_tool: bool, attempt: u32, lost: u32) -> bool {
    attempt > if is_tool { 0 } else { lost }
}

impl Claimed {
    /// Whether this attempt is not to begin any more: the task has expired, and nothing of it has begun.
    ///
    /// The clock is read for those alone that can expire.
    pub fn has_expired(&self, now: impl FnOnce() -> Timestamp) -> bool {
        let is_tool = matches!(self.target, Target::Tool(_));
        let begun = || has_begun(is_tool, self.attempt.saturating_sub(1), self.lost);
        self.expires_at.is_some_and(|at| !begun() && at <= now())
    }

    /// Decides what an error, by its code in the contract and by its own advice, makes of this task.
    ///
    /// `jitter` is from 0 to 1. Advice does not raise the number of attempts.
    pub fn after_error(
        &self,
        code: &str,
        advice: Option<Advice>,
        terms: &TaskTerms,
        now: Timestamp,
        jitter: f64,
    ) -> AfterError {
        if code == "outcome_unknown" {
            return AfterError::OutcomeUnknown;
        }
        let failures = self.attempt.saturating_sub(self.lost);
        // where the store or its tool has no room, nothing of it has begun, however often it is tried
        let is_spent = failures >= self.max_attempts && !matches!(code, "full" | "overloaded");
        if is_spent || !may_retry(code) || advice == Some(Advice::Never) {
            return AfterError::Failed;
        }
        let pause = match advice {
            Some(Advice::After(pause)) => pause,
            _ => terms.delay(failures.max(1), jitter),
        };
        let run_at = now.checked_add(pause).unwrap_or(Timestamp::MAX);
        AfterError::Retry { run_at }
    }
}

/// Whether another attempt could end otherwise.
fn may_retry(code: &str) -> bool {
    !matches!(
        code,
        "refused"
            | "invalid"
            | "too_large"
            | "not_found"
            | "idempotency_conflict"
            | "ask_cycle"
            | "diverged"
            | "poison"
            | "unknown_message"
            | "unknown_kind"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(attempt: u32, lost: u32) -> Claimed {
        Claimed { attempt, lost, ..Claimed::first(Target::agent("porter", "a")) }
    }

    fn after(claim: &Claimed, advice: Option<Advice>) -> AfterError {
        claim.after_error("handler_failed", advice, &TaskTerms::default(), Timestamp::UNIX_EPOCH, 0.0)
    }

    fn so_long(pause: Duration) -> AfterError {
        AfterError::Retry { run_at: Timestamp::UNIX_EPOCH + pause }
    }

    #[test]
    fn an_error_may_say_when_it_is_tried_again_or_that_it_is_not() {
        let hour = Duration::from_secs(3_600);
        assert_eq!(after(&claim(1, 0), None), so_long(Duration::from_millis(200)));
        assert_eq!(after(&claim(1, 0), Some(Advice::After(hour))), so_long(hour));
        assert_eq!(after(&claim(1, 0), Some(Advice::Never)), AfterError::Failed);
        assert_eq!(
            after(&claim(3, 0), Some(Advice::After(hour))),
            AfterError::Failed,
            "its attempts are used up"
        );
        assert_eq!(after(&claim(3, 1), Some(Advice::After(hour))), so_long(hour), "one of them was lost");
    }

    #[test]
    fn what_has_begun_does_not_expire_and_a_lost_turn_has_not() {
        let of = |target: Target, attempt, lost| Claimed {
            attempt,
            lost,
            expires_at: Some(Timestamp::UNIX_EPOCH),
            ..Claimed::first(target)
        };
        let (agent, tool) = (|| Target::agent("porter", "a"), || Target::Tool("t".to_owned()));
        let past = |claim: Claimed| claim.has_expired(|| Timestamp::UNIX_EPOCH);
        assert!(past(of(agent(), 1, 0)) && past(of(tool(), 1, 0)), "its first");
        assert!(past(of(agent(), 3, 2)), "nothing of the lost turns has happened");
        assert!(!past(of(tool(), 2, 1)), "of a lost call something may have");
        assert!(!past(of(agent(), 2, 0)) && !past(of(agent(), 3, 1)), "an attempt of it has failed");
        let early = of(agent(), 1, 0);
        assert!(!early.has_expired(|| Timestamp::UNIX_EPOCH - Duration::from_nanos(1)));
        assert!(!past(Claimed { expires_at: None, ..early }));
    }

    #[test]
    fn no_advice_settles_an_unknown_outcome_or_tries_a_refusal_again() {
        let decide = |code: &str, advice| {
            claim(1, 0).after_error(code, Some(advice), &TaskTerms::default(), Timestamp::UNIX_EPOCH, 0.0)
        };
        assert_eq!(decide("outcome_unknown", Advice::Never), AfterError::OutcomeUnknown);
        assert_eq!(decide("refused", Advice::After(Duration::ZERO)), AfterError::Failed);
    }

    proptest! {
        #[test]
        fn a_task_fails_with_its_last_attempt_and_not_before(attempt in 1u32..20, lost in 0u32..5) {
            let decided = after(&claim(attempt.max(lost), lost), None);
            let is_spent = attempt.max(lost) - lost >= 3;
            prop_assert_eq!(decided == AfterError::Failed, is_spent);
        }
    }
}
