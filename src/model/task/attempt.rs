//! What an attempt that did not succeed makes of its task.

use jiff::Timestamp;

use super::{Claimed, retry_delay};

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

impl Claimed {
    /// Decides what an error, by its code in the contract, makes of this task.
    ///
    /// `jitter` is from 0 to 1.
    pub fn after_error(&self, code: &str, now: Timestamp, jitter: f64) -> AfterError {
        if code == "outcome_unknown" {
            return AfterError::OutcomeUnknown;
        }
        let failures = self.attempt.saturating_sub(self.lost);
        // where the store has no room, the task is not to blame, however often it is tried
        let is_spent = failures >= self.max_attempts && code != "full";
        if is_spent || !may_retry(code) {
            return AfterError::Failed;
        }
        let run_at = now.checked_add(retry_delay(failures.max(1), jitter)).unwrap_or(Timestamp::MAX);
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
