//! The last events, for those clients that follow them.
//!
//! Levels and limits keep the log short for reading. The stream feeds live displays, so neither applies to it:
//!
//! - While a client listens for an event, it is recorded, whatever the log's levels and however many there are.
//! - Otherwise events from `info` up are recorded, a few of each site per period; `debug` events, among them most
//!   of a task's, are not even created. The check costs one atomic load.
//! - A client that disconnects still counts as listening for a while, so that it misses nothing if it returns with
//!   the number of its last event. After that, events may have been left out: one number is skipped, and earlier
//!   numbers are reported as unknown.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::limit::{self, Limiter};
use crate::model::{event::Level, interest::Interest};

/// How many events are kept.
pub const KEPT: usize = 8_192;
/// How long somebody who has gone is waited for.
const LINGER: Duration = Duration::from_secs(60);
/// How many different interests are told apart; with more than these, everything is wanted.
const TOLD_APART: usize = 32;

/// An event of the stream.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its number; later events have higher ones, mostly the next.
    pub number: u64,
    /// The event's name.
    pub event: Arc<str>,
    /// Whom it is about.
    pub subject: Arc<str>,
    /// Its JSON line, without a line break.
    pub json: Arc<str>,
}

/// The last events and those to come. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Stream(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kept: RwLock<Kept>,
    /// What is told while nobody listens.
    limiter: Mutex<Limiter>,
    ears: RwLock<Vec<Ear>>,
    /// How many there are of those: asked before each event.
    listening: AtomicUsize,
    news: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    /// The number of the last one that is not kept any more.
    gone: u64,
    events: VecDeque<Told>,
}

/// An interest, and how many share it.
#[derive(Debug)]
struct Ear {
    interest: Interest,
    listeners: usize,
    /// When the last of them went.
    silent: Instant,
}

/// As long as it is kept, the events that it is interested in are told.
#[derive(Debug)]
pub struct Listener {
    stream: Stream,
    interest: Interest,
}

/// What [`Listener::read`] found.
#[derive(Debug)]
pub struct Heard {
    /// The number to go on from.
    pub upto: u64,
    /// The events, oldest first.
    pub events: Vec<Told>,
}

impl Stream {
    /// Whether somebody listens who may want events of this name.
    #[inline]
    pub(super) fn is_heard(&self, name: &str) -> bool {
        self.0.listening.load(Ordering::Relaxed) > 0 && self.is_wanted(name)
    }

    #[cold]
    fn is_wanted(&self, name: &str) -> bool {
        let ears = self.0.ears.read();
        ears.len() > TOLD_APART || ears.iter().any(|ear| ear.interest.takes_name(name))
    }

    /// Whether an event is to be taken that is about something of this site.
    pub(super) fn admits(&self, level: Level, event: &str, site: &str, at: Timestamp) -> bool {
        if self.is_heard(event) {
            return true;
        }
        // What is counted here is in the log: the counts are for nobody.
        let mut counted = Vec::new();
        level >= Level::Info
            && self.0.limiter.lock().admit(event, site, limit::EVENTS, (Instant::now(), at), &mut counted)
    }

    /// Takes an event.
    pub(super) fn push(&self, event: &str, subject: &str, json: Arc<str>) {
        let (event, subject) = (event.into(), subject.into());
        let mut kept = self.0.kept.write();
        kept.last += 1;
        let number = kept.last;
        if kept.events.len() == KEPT
            && let Some(oldest) = kept.events.pop_front()
        {
            kept.gone = oldest.number;
        }
        kept.events.push_back(Told { number, event, subject, json });
        drop(kept);
        self.0.news.notify_one();
    }

    /// Completes when there was an event since the last time. For one alone, who tells the others.
    pub async fn news(&self) {
        self.0.news.notified().await;
    }

    /// Listens from now on.
    pub fn listen(&self, interest: Interest) -> Listener {
        let now = Instant::now();
        self.forget(now);
        let mut ears = self.0.ears.write();
        match ears.iter_mut().find(|ear| ear.interest == interest) {
            Some(ear) => ear.listeners += 1,
            None => ears.push(Ear { interest: interest.clone(), listeners: 1, silent: now }),
        }
        self.0.listening.store(ears.len(), Ordering::Relaxed);
        Listener { stream: self.clone(), interest }
    }

    /// Forgets those who have been gone for long: what comes now may be left out. To be called now and then.
    pub fn tidy(&self) {
        self.forget(Instant::now());
    }

    fn forget(&self, now: Instant) {
        let mut ears = self.0.ears.write();
        let before = ears.len();
        ears.retain(|ear| ear.listeners > 0 || now.saturating_duration_since(ear.silent) < LINGER);
        if ears.len() < before {
            self.0.kept.write().last += 1;
        }
        self.0.listening.store(ears.len(), Ordering::Relaxed);
    }
}

impl Listener {
    /// Where to go on for somebody who has seen a number, and whether events after it are missing. Of a
    /// number that no event can have had, all that is kept comes after it.
    pub fn resume(&self, seen: u64) -> (u64, bool) {
        let kept = self.stream.0.kept.read();
        if seen > kept.last || seen < kept.gone {
            return (kept.gone, true);
        }
        let since = kept.events.len() - kept.events.partition_point(|told| told.number <= seen);
        (seen, since as u64 != kept.last - seen)
    }

    /// The number after which the last `n` wanted events come.
    pub fn before_last(&self, n: usize) -> u64 {
        let kept = self.stream.0.kept.read();
        let wanted = kept.events.iter().rev().filter(|told| self.interest.takes(&told.event, &told.subject));
        wanted.take(n).last().map_or(kept.last, |told| told.number.saturating_sub(1))
    }

    /// The number of the newest event.
    pub fn last(&self) -> u64 {
        self.stream.0.kept.read().last
    }

    /// The wanted events after a number, about `most_bytes` of them; nothing where some of those that came
    /// after it are not kept any more.
    pub fn read(&self, after: u64, most_bytes: usize) -> Option<Heard> {
        let kept = self.stream.0.kept.read();
        if after < kept.gone {
            return None;
        }
        let mut heard = Heard { upto: kept.last, events: Vec::new() };
        let mut bytes = 0;
        for told in kept.events.range(kept.events.partition_point(|told| told.number <= after)..) {
            if bytes >= most_bytes {
                heard.upto = told.number.saturating_sub(1);
                break;
            }
            if self.interest.takes(&told.event, &told.subject) {
                bytes += told.json.len();
                heard.events.push(told.clone());
            }
        }
        Some(heard)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut ears = self.stream.0.ears.write();
        if let Some(ear) = ears.iter_mut().find(|ear| ear.interest == self.interest) {
            ear.listeners = ear.listeners.saturating_sub(1);
            ear.silent = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(stream: &Stream, event: &str, n: u64) {
        stream.push(event, &format!("task:{n}"), format!("{{\"n\":{n}}}").into());
    }

    fn numbers(heard: Option<Heard>) -> Vec<u64> {
        heard.unwrap().events.iter().map(|told| told.number).collect()
    }

    #[test]
    fn a_listener_reads_what_it_wants_from_where_it_was() {
        let stream = Stream::default();
        let listener = stream.listen(Interest::new(Some("task.*"), None));
        for n in 1..=6 {
            push(&stream, if n % 2 == 0 { "task.retry" } else { "agent.started" }, n);
        }
        assert_eq!(numbers(listener.read(0, usize::MAX)), [2, 4, 6]);
        assert_eq!(numbers(listener.read(2, usize::MAX)), [4, 6]);
        assert_eq!(listener.read(6, usize::MAX).unwrap().upto, 6);
        let part = listener.read(0, 1).unwrap();
        assert_eq!((part.upto, part.events.len()), (2, 1));
        assert_eq!((listener.before_last(2), listener.before_last(0), listener.before_last(9)), (3, 6, 1));
    }

    #[test]
    fn who_has_fallen_behind_the_ring_is_told() {
        let stream = Stream::default();
        let listener = stream.listen(Interest::default());
        for n in 1..=KEPT as u64 + 5 {
            push(&stream, "task.retry", n);
        }
        assert!(listener.read(4, usize::MAX).is_none() && listener.read(5, usize::MAX).is_some());
        assert_eq!(listener.resume(4), (5, true));
        assert_eq!(listener.resume(5), (5, false));
        assert_eq!(listener.resume(KEPT as u64 + 6), (5, true), "a number of the future is another boot's");
    }

    #[test]
    fn debug_is_made_only_for_those_who_want_it_and_have_not_been_gone_for_long() {
        let (stream, now) = (Stream::default(), Instant::now());
        let at = Timestamp::UNIX_EPOCH;
        assert!(!stream.is_heard("task.started") && !stream.admits(Level::Debug, "task.started", "task", at));
        let listener = stream.listen(Interest::new(Some("task.*"), None));
        assert!(stream.is_heard("task.started") && !stream.is_heard("agent.started"));
        assert!(stream.admits(Level::Debug, "task.started", "task", at));
        push(&stream, "task.started", 1);
        drop(listener);
        stream.forget(now + LINGER / 2);
        assert!(stream.is_heard("task.started"), "it may come back");
        let back = stream.listen(Interest::new(Some("task.*"), None));
        assert_eq!(back.resume(1), (1, false));
        drop(back);
        stream.forget(Instant::now() + LINGER);
        assert!(!stream.is_heard("task.started"));
        push(&stream, "task.retry", 2);
        let late = stream.listen(Interest::default());
        assert_eq!(late.resume(1), (1, true), "something may have been left out");
        assert_eq!(numbers(late.read(1, usize::MAX)), [3]);
    }

    #[test]
    fn a_storm_that_nobody_follows_is_a_few_events() {
        let (stream, at) = (Stream::default(), Timestamp::UNIX_EPOCH);
        let storm = || (0..1_000).filter(|_| stream.admits(Level::Info, "task.retry", "task", at)).count();
        assert_eq!(storm(), limit::EVENTS as usize);
        let _listener = stream.listen(Interest::default());
        assert_eq!(storm(), 1_000);
    }

    #[test]
    fn many_interests_are_not_told_apart() {
        let stream = Stream::default();
        let all: Vec<_> =
            (0..=TOLD_APART).map(|n| stream.listen(Interest::new(Some(&format!("x.{n}")), None))).collect();
        assert!(stream.is_heard("task.started"));
        drop(all);
    }
}
