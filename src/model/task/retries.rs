//! How often a task is attempted, and how long it waits between.

use std::time::Duration;

/// How the attempts at a kind's or a tool's tasks follow upon each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// How many attempts may fail before the task does, where its submitter does not say; at least 1.
    pub max_attempts: u32,
    /// The pause after the first attempt that failed; it doubles with each …
    pub min: Duration,
    /// … up to this.
    pub max: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { max_attempts: 5, min: Duration::from_millis(200), max: Duration::from_secs(300) }
    }
}

/// What code or configuration says of retries; what it does not say is as for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryTerms {
    /// How many attempts may fail.
    pub max_attempts: Option<u32>,
    /// The first pause.
    pub min: Option<Duration>,
    /// The longest pause.
    pub max: Option<Duration>,
}

impl Retries {
    /// These, with `over` on top.
    #[must_use]
    pub fn with(self, over: RetryTerms) -> Self {
        Self {
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
            let retries = Retries { min, max, ..Retries::default() };
            let delay = retries.delay(failures, jitter);
            prop_assert!(delay <= max);
            prop_assert!(delay >= min.mul_f64(0.75));
            prop_assert!(retries.delay(failures + 1, jitter) >= delay);
            prop_assert!(delay <= retries.delay(failures, 0.0));
        }
    }

    #[test]
    fn the_first_retries_are_quick() {
        let retries = Retries::default();
        assert_eq!(retries.delay(1, 0.0), Duration::from_millis(200));
        assert_eq!(retries.delay(2, 0.0), Duration::from_millis(400));
        assert_eq!(retries.delay(2, 1.0), Duration::from_millis(300));
        assert_eq!(retries.delay(u32::MAX, 0.0), Duration::from_secs(300));
        assert_eq!(retries.delay(0, f64::NAN), Duration::from_millis(175));
    }

    #[test]
    fn what_is_not_said_is_as_for_all() {
        let terms = RetryTerms { min: Some(Duration::from_secs(1)), ..RetryTerms::default() };
        let retries = Retries::default().with(terms);
        assert_eq!(retries, Retries { min: Duration::from_secs(1), ..Retries::default() });
        let none = RetryTerms { max_attempts: Some(0), ..RetryTerms::default() };
        assert_eq!(Retries::default().with(none).max_attempts, 1, "a task is attempted at least once");
    }
}
