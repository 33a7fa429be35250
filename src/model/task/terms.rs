//! The defaults of a task: its priority, its attempts, and the delays between them.

use std::time::Duration;

/// What holds for a kind's or a tool's tasks that say nothing themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskTerms {
    /// Higher runs first.
    pub priority: i16,
    /// How many attempts may fail before the task does, where its submitter does not say; at least 1.
    pub max_attempts: u32,
    /// The pause after the first attempt that failed; it doubles with each …
    pub min: Duration,
    /// … up to this.
    pub max: Duration,
}

impl Default for TaskTerms {
    fn default() -> Self {
        Self { priority: 0, max_attempts: 5, min: Duration::from_millis(200), max: Duration::from_secs(300) }
    }
}

/// What code or configuration says of them; what it does not say is as for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnTerms {
    /// The priority.
    pub priority: Option<i16>,
    /// How many attempts may fail.
    pub max_attempts: Option<u32>,
    /// The first pause.
    pub min: Option<Duration>,
    /// The longest pause.
    pub max: Option<Duration>,
}

impl TaskTerms {
    /// These, with `over` on top.
    #[must_use]
    pub fn with(self, over: OwnTerms) -> Self {
        Self {
            priority: over.priority.unwrap_or(self.priority),
            max_attempts: over.max_attempts.unwrap_or(self.max_attempts).max(1),
            min: over.min.unwrap_or(self.min),
            max: over.max.unwrap_or(self.max),
        }
    }

    /// How long to wait after `failures` failed attempts (at least 1): the shortest pause, doubled with
    /// each, at most the longest, less up to a quarter by `jitter` (0 to 1) so that those who failed
    /// together do not come back together.
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.min.saturating_mul(1 << doublings).min(self.max);
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.5 };
        whole.mul_f64(1.0 - jitter / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn retries_wait_longer_and_never_too_long(
            min in 0u64..2_000, more in 0u64..1_000_000, failures in 1u32..200, jitter in 0.0f64..1.0,
        ) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(min + more));
            let terms = TaskTerms { min, max, ..TaskTerms::default() };
            let delay = terms.delay(failures, jitter);
            prop_assert!(delay <= max);
            prop_assert!(delay >= min.mul_f64(0.75));
            prop_assert!(terms.delay(failures + 1, jitter) >= delay);
            prop_assert!(delay <= terms.delay(failures, 0.0));
        }
    }

    #[test]
    fn the_first_retries_are_quick() {
        let terms = TaskTerms::default();
        assert_eq!(terms.delay(1, 0.0), Duration::from_millis(200));
        assert_eq!(terms.delay(2, 0.0), Duration::from_millis(400));
        assert_eq!(terms.delay(2, 1.0), Duration::from_millis(300));
        assert_eq!(terms.delay(u32::MAX, 0.0), Duration::from_secs(300));
        assert_eq!(terms.delay(0, f64::NAN), Duration::from_millis(175));
    }

    #[test]
    fn what_is_not_said_is_as_for_all() {
        let first = TaskTerms::default().with(OwnTerms { priority: Some(7), ..OwnTerms::default() });
        assert_eq!(first.with(OwnTerms::default()), TaskTerms { priority: 7, ..TaskTerms::default() });
        let terms = OwnTerms { min: Some(Duration::from_secs(1)), ..OwnTerms::default() };
        let terms = TaskTerms::default().with(terms);
        assert_eq!(terms, TaskTerms { min: Duration::from_secs(1), ..TaskTerms::default() });
        let none = OwnTerms { max_attempts: Some(0), ..OwnTerms::default() };
        assert_eq!(TaskTerms::default().with(none).max_attempts, 1, "a task is attempted at least once");
    }
}
