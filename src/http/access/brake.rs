//! Delays refusals of wrong tokens, so that guessing is slow.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// Each refusal takes this long, after those before it.
const REFUSAL_DELAY: Duration = Duration::from_millis(50);
/// Nobody waits for longer: an honest mistake is to be told.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// Holds refusals back, one behind the other.
#[derive(Default)]
pub(super) struct Brake(Mutex<Option<Instant>>);

impl Brake {
    /// Waits for its turn.
    pub(super) async fn wait(&self) {
        let at = self.next(Instant::now());
        sleep_until(at).await;
    }

    /// When one that comes now is let go.
    fn next(&self, now: Instant) -> Instant {
        let mut last = self.0.lock();
        let at = last.map_or(now, |last| last.max(now)) + REFUSAL_DELAY;
        let at = at.min(now + MAX_DELAY);
        *last = Some(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_wait_for_each_other_and_not_for_ever() {
        let (brake, now) = (Brake::default(), Instant::now());
        assert_eq!(brake.next(now), now + REFUSAL_DELAY);
        assert_eq!(brake.next(now), now + 2 * REFUSAL_DELAY);
        assert_eq!(brake.next(now + 10 * REFUSAL_DELAY), now + 11 * REFUSAL_DELAY, "it forgets");
        let many = (0..1_000).map(|_| brake.next(now)).last();
        assert_eq!(many, Some(now + MAX_DELAY));
    }
}
