//! A rate limit: so many may begin within a time.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// What begun within the last window, and whether somebody comes back when the next may.
#[derive(Default)]
pub(crate) struct Pace {
    limit: Option<(u32, Duration)>,
    begun: VecDeque<Instant>,
    is_timed: bool,
}

/// Whether one may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// It may, and counts.
    Now,
    /// One may after this time: whoever asked sets a timer.
    After(Duration),
    /// One may when a timer fires that was set before. One is enough, however many ask.
    Timed,
}

impl Pace {
    /// No limit: all may begin.
    pub(crate) fn of(limit: Option<(u32, Duration)>) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(crate) fn begin(&mut self, now: Instant) -> Begin {
        let Some((n, within)) = self.limit else { return Begin::Now };
        while self.begun.front().is_some_and(|t| now.duration_since(*t) >= within) {
            self.begun.pop_front();
        }
        match self.begun.front() {
            Some(first) if self.begun.len() >= n.max(1) as usize => {
                let wait = within.saturating_sub(now.duration_since(*first));
                if std::mem::replace(&mut self.is_timed, true) { Begin::Timed } else { Begin::After(wait) }
            }
            _ => {
                self.begun.push_back(now);
                Begin::Now
            }
        }
    }

    /// The timer has fired.
    pub(crate) fn fired(&mut self) {
        self.is_timed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_timer_is_set_however_many_wait_for_the_rate() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pace = Pace::of(Some((2, second)));
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!([pace.begin(at(0)), pace.begin(at(400))], [Begin::Now, Begin::Now]);
        assert_eq!(pace.begin(at(500)), Begin::After(Duration::from_millis(500)));
        assert!((0..1_000).all(|_| pace.begin(at(600)) == Begin::Timed));
        pace.fired();
        assert_eq!(pace.begin(at(1_000)), Begin::Now);
        assert_eq!(pace.begin(at(1_000)), Begin::After(Duration::from_millis(400)));
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut pace = Pace::of(None);
        assert!((0..1_000).all(|_| pace.begin(Instant::now()) == Begin::Now));
    }
}
