//! The clock: the only place that reads it.
//!
//! Durable times (when a task is due, when a key expires) follow the wall clock. A test that pauses its runtime's
//! clock advances that one, and durable times must advance with it: so a thread can be set to follow its runtime's
//! clock from where the wall clock stood.
//!
//! Nodes that share a store act on each other's tasks, so they go by one clock: the store's. What is heard of that
//! corrects this process's own, by no more than it proves wrong: clocks that agree are left alone, however late the
//! answers come.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::atomic::{AtomicI64, Ordering::Relaxed},
};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// How far the shared clock is ahead of this process's own, in microseconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static FOLLOWED: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
}

/// Now.
pub(crate) fn now() -> Timestamp {
    match FOLLOWED.get() {
        None => ahead(Timestamp::now(), AHEAD.load(Relaxed)),
        Some((then, at)) => then.checked_add(at.elapsed()).unwrap_or(Timestamp::MAX),
    }
}

fn ahead(own: Timestamp, by: i64) -> Timestamp {
    own.checked_add(SignedDuration::from_micros(by)).unwrap_or(own)
}

/// The shared clock said `there` at some moment between two of this process's own clock.
pub(crate) fn heard(before: Timestamp, there: Timestamp, after: Timestamp) {
    let _ = AHEAD.fetch_update(Relaxed, Relaxed, |by| Some(corrected(by, before, there, after)));
}

/// By how much the own clock is corrected from then on.
fn corrected(by: i64, before: Timestamp, there: Timestamp, after: Timestamp) -> i64 {
    let [before, there, after] = [before, there, after].map(Timestamp::as_microsecond);
    let (least, most) = (there - after, there - before);
    // the own clock may have been set back meanwhile
    if least <= most { by.clamp(least, most) } else { by }
}

/// Has this thread follow its runtime's clock, for as long as the answer is kept.
pub(crate) fn follow() -> Following {
    Following { before: FOLLOWED.replace(Some((Timestamp::now(), Instant::now()))), _here: PhantomData }
}

/// This thread follows its runtime's clock.
#[must_use = "it ends when this is dropped"]
pub(crate) struct Following {
    before: Option<(Timestamp, Instant)>,
    /// It means this thread, and stays on it.
    _here: PhantomData<*const ()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        FOLLOWED.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_shared_clock_corrects_by_no_more_than_it_proves_wrong() {
        let at = |ms: i64| Timestamp::from_millisecond(1_000_000 + ms).unwrap();
        let second = 1_000_000;
        assert_eq!(corrected(0, at(0), at(5), at(10)), 0, "they may agree");
        assert_eq!(corrected(0, at(0), at(0), at(60_000)), 0, "however late the answer comes");
        let behind = corrected(0, at(600_000), at(0), at(602_000));
        assert_eq!(behind, -600 * second, "as little as can be");
        assert_eq!(corrected(behind, at(700_000), at(99_000), at(700_010)), -601 * second, "and better then");
        assert_eq!(corrected(0, at(0), at(600_000), at(1_000)), 599 * second);
        assert_eq!(
            corrected(-600 * second, at(0), at(5), at(10)),
            -second / 200,
            "the own clock was set right"
        );
        assert_eq!(corrected(7, at(10), at(5), at(0)), 7, "nothing is learned from a clock that went back");
        assert_eq!(ahead(at(0), -second), at(-1_000));
        assert_eq!(ahead(Timestamp::MAX, second), Timestamp::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_follows_its_runtimes_clock_for_as_long_as_it_is_told() {
        let day = Duration::from_secs(86_400);
        {
            let _following = follow();
            let before = now();
            assert_eq!(now(), before, "it stands still");
            tokio::time::advance(day).await;
            assert_eq!(now(), before + day);
            let elsewhere = std::thread::spawn(now);
            assert!(elsewhere.join().unwrap() < before + day, "another thread has its own");
        }
        assert!(now() < Timestamp::now() + day, "and back");
    }
}
