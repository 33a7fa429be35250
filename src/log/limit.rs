//! Limits equal records: repeated records of one site are counted, not written.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// How long repeats are counted before they are reported.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// How many events of one site are written in full in a window.
pub(super) const EVENTS: u32 = 5;
/// No limit.
pub(super) const ALL: u32 = u32::MAX;
/// How many agents of one kind are told one by one in a window not to be started again.
pub(super) const MAX_FINAL: u32 = 200;
/// How many records of other code are written in full, for one site in a window.
pub(super) const RECORDS: u32 = 50;
/// How many sites are told apart; what comes beyond them shares one count for each event.
const SITES: usize = 1024;

/// Records that were counted instead of written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suppressed {
    pub(super) event: String,
    pub(super) site: String,
    pub(super) count: u64,
    /// When the first of them came.
    pub(super) since: Timestamp,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    written: u32,
    suppressed: Option<(u64, Timestamp)>,
}

/// Counts by event and site.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    windows: HashMap<(String, String), Window>,
}

impl Limiter {
    /// Whether a record is to be written in full; `done` takes the counts of a window that has ended.
    pub(super) fn admit(
        &mut self,
        event: &str,
        site: &str,
        limit: u32,
        (now, at): (Instant, Timestamp),
        done: &mut Vec<Suppressed>,
    ) -> bool {
        let mut key = (event.to_owned(), site.to_owned());
        if self.windows.len() >= SITES && !self.windows.contains_key(&key) {
            self.due(now, done);
            if self.windows.len() >= SITES {
                key.1 = "…".to_owned();
            }
        }
        let fresh = || Window { began: now, written: 0, suppressed: None };
        let window = self.windows.entry(key.clone()).or_insert_with(fresh);
        if now.saturating_duration_since(window.began) >= WINDOW {
            let ended = std::mem::replace(window, fresh());
            done.extend(summary(key, &ended));
        }
        if window.written < limit {
            window.written += 1;
            return true;
        }
        let (count, _) = window.suppressed.get_or_insert((0, at));
        *count += 1;
        false
    }

    /// Closes the windows that have ended.
    pub(super) fn due(&mut self, now: Instant, done: &mut Vec<Suppressed>) {
        self.close(|window| now.saturating_duration_since(window.began) >= WINDOW, done);
    }

    /// Closes all windows.
    pub(super) fn all(&mut self, done: &mut Vec<Suppressed>) {
        self.close(|_| true, done);
    }

    fn close(&mut self, ended: impl Fn(&Window) -> bool, done: &mut Vec<Suppressed>) {
        let keys: Vec<_> = self.windows.iter().filter(|(_, w)| ended(w)).map(|(k, _)| k.clone()).collect();
        for key in keys {
            if let Some(window) = self.windows.remove(&key) {
                done.extend(summary(key, &window));
            }
        }
    }
}

fn summary((event, site): (String, String), window: &Window) -> Option<Suppressed> {
    window.suppressed.map(|(count, since)| Suppressed { event, site, count, since })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_five_lines_and_one_count_a_window() {
        let (mut limiter, mut done) = (Limiter::default(), Vec::new());
        let (start, at) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let mut written = 0;
        for n in 0..10_000u64 {
            let now = start + Duration::from_millis(n * 2);
            written += u32::from(limiter.admit("agent.crashed", "a.rs:1", EVENTS, (now, at), &mut done));
        }
        assert_eq!((written, done.len()), (10, 1));
        assert_eq!(done[0].count, 4_995);
        assert!(limiter.admit("agent.crashed", "b.rs:1", EVENTS, (start, at), &mut done));
        limiter.due(start + Duration::from_secs(60), &mut done);
        assert_eq!(done.iter().map(|s| s.count).sum::<u64>() + u64::from(written), 10_000);
        assert!(limiter.windows.is_empty());
    }

    #[test]
    fn many_sites_do_not_grow_without_bound() {
        let (mut limiter, mut done) = (Limiter::default(), Vec::new());
        let clock = (Instant::now(), Timestamp::UNIX_EPOCH);
        let written =
            (0..10_000).filter(|n| limiter.admit("e", &format!("s{n}"), EVENTS, clock, &mut done)).count();
        assert!(limiter.windows.len() <= SITES + 1);
        assert_eq!(written, SITES + EVENTS as usize);
        limiter.all(&mut done);
        assert_eq!(done.len(), 1);
    }
}
