//! The clock: the only place that reads it.
//!
//! Durable times (when a task is due, when a key expires) follow the wall clock. A test that pauses its runtime's
//! clock advances that one, and durable times must advance with it: so a thread can be set to follow its runtime's
//! clock from where the wall clock stood.

use std::{cell::Cell, marker::PhantomData};

use jiff::Timestamp;
use tokio::time::Instant;

thread_local! {
    static FOLLOWED: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
}

/// Now.
pub(crate) fn now() -> Timestamp {
    match FOLLOWED.get() {
        None => Timestamp::now(),
        Some((then, at)) => then.checked_add(at.elapsed()).unwrap_or(Timestamp::MAX),
    }
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
