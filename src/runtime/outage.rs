//! Outages of the store: known to all parts of the node, reported once when one begins and once when it is over.
//!
//! A brief failure is not reported: its commit is retried. A lasting one is *known*: new messages are refused at
//! once, with the cause, instead of waiting behind commits that cannot be written. With a full disk, nothing is
//! refused: each commit finds by itself that there is no room, and is answered so. The disk counts as full until
//! something has been written; without other writes, the watch tries one.
//!
//! ```text
//!            a failure                 it lasts, or there is no room
//!   well ───────────────▶ failing ───────────────────────────────────▶ told
//!    ▲ ▲                     │                                        │    ▲
//!    │ ╰── a write succeeds ─╯                       a write succeeds │    │ a failure
//!    │                                                                ▼    │
//!    ╰────────────────── no failure for a while, told so ────────── calm ──╯
//! ```
//!
//! A store that fails now and then between successful commits (a disk that only has room for small writes) is
//! reported once, not each time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::node::Node;
use crate::{
    clock,
    log::Logger,
    model::event::{self, Event, Level},
    store::{Cause, StoreError},
};

/// A failure that is over by then was a blip.
const BLIP: Duration = Duration::from_millis(300);
/// How often it is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A call of the store that hears nothing for longer than this is looked into.
const SLOW: Duration = Duration::from_millis(250);
/// A store that does not answer a question within this time does not answer. Longer than a blip: there
/// is nothing more to wait for then.
const STORE_TIMEOUT: Duration = Duration::from_millis(400);
/// An answer that came while we had no time to look at it counts.
const GRACE: Duration = Duration::from_millis(20);
/// An outage is over when nothing has failed for so long.
const CALM: Duration = Duration::from_secs(2);
/// A disk that was found full so long ago may have room: it is tried, for nobody else may write while the node
/// is not ready.
const TRY: Duration = Duration::from_secs(2);

/// An outage, for people.
#[derive(Debug, Clone)]
pub(crate) struct Down {
    /// The first failure.
    pub since: Timestamp,
    /// Of the last failure.
    pub cause: Cause,
    /// The last failure.
    pub error: String,
    /// There was no room, and nothing has been written after that.
    full: Option<String>,
    begun: Instant,
    /// The cause that people have been told.
    told: Option<Cause>,
    /// Since when callers cannot be answered.
    blocks: Option<Instant>,
    failed_at: Instant,
    /// Since when the store has answered as it should.
    well: Option<Instant>,
}

/// The store is gone; `then`: what follows from it.
pub(crate) fn down_event(cause: Cause, error: String, then: &str) -> Event {
    Event::new(Level::Error, event::STORE_DOWN, "store")
        .field("cause", cause.name())
        .field("error", error)
        .hint(format!("{}; {then}", cause.remedy()))
}

/// The store is back.
pub(crate) fn up_event(cause: Cause, after: Duration) -> Event {
    Event::new(Level::Info, event::STORE_UP, "store")
        .field("cause", cause.name())
        .field("down_ms", super::millis(after))
}

/// What a writer is at.
#[derive(Debug, Clone, Copy, Default)]
struct Writing {
    /// Since when it has been at its commit, retries included.
    since: Option<Instant>,
    /// A try of it has failed.
    failing: bool,
}

/// How the store has answered that took what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It keeps something that it did not keep before.
    Written,
    /// Nothing was there to be written.
    Read,
}

#[derive(Default)]
struct State {
    down: Option<Down>,
    writers: Vec<Writing>,
    /// When a commit last succeeded.
    well_at: Option<Instant>,
}

/// Whether the store answers.
pub(crate) struct Outage {
    logger: Logger,
    state: Mutex<State>,
    /// It lasts: new messages are turned away.
    known: AtomicBool,
    news: Notify,
}

impl Outage {
    pub(crate) fn new(logger: Logger) -> Arc<Self> {
        Arc::new(Self { logger, state: Mutex::default(), known: AtomicBool::new(false), news: Notify::new() })
    }

    /// Whether new messages are to be turned away.
    #[inline]
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// Waits until new messages are to be turned away.
    pub(crate) async fn lasts(&self) {
        loop {
            let news = self.news.notified();
            if self.is_known() {
                return;
            }
            news.await;
        }
    }

    /// What is wrong, once that has been told and as long as it is so.
    pub(crate) fn down(&self) -> Option<Down> {
        self.state.lock().down.clone().filter(|down| down.told.is_some() && down.well.is_none())
    }

    /// When what fails now began to, told or not.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.state.lock().down.as_ref().map(|down| down.since)
    }

    /// A writer begins a commit.
    pub(crate) fn begins(&self, writer: usize) {
        let writers = &mut self.state.lock().writers;
        if writers.len() <= writer {
            writers.resize(writer + 1, Writing::default());
        }
        if let Some(writing) = writers.get_mut(writer) {
            *writing = Writing { since: Some(Instant::now()), failing: false };
        }
    }

    /// A try of a writer's commit has failed.
    pub(crate) fn fails(&self, writer: usize, error: &StoreError) {
        if let Some(writing) = self.state.lock().writers.get_mut(writer) {
            writing.failing = true;
        }
        self.failed(error);
    }

    /// A writer's commit has its outcome. `answer`: the store took it.
    pub(crate) fn ends(&self, writer: usize, answer: Option<Answer>) {
        let mut state = self.state.lock();
        if let Some(writing) = state.writers.get_mut(writer) {
            *writing = Writing::default();
        }
        if let Some(answer) = answer {
            state.well_at = Some(Instant::now());
            self.is_back(state, answer);
        }
    }

    /// A call has failed.
    pub(crate) fn failed(&self, error: &StoreError) {
        match error {
            StoreError::Full(_) => self.note(error, None),
            StoreError::NotDone(_) | StoreError::Unknown(_) => self.note(error, Some(Duration::ZERO)),
            StoreError::Fatal(_) | StoreError::Corrupt(_) | StoreError::Refused(_) => {}
        }
    }

    /// `blocks`: for how long callers have not been answered, where they cannot be.
    fn note(&self, error: &StoreError, blocks: Option<Duration>) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let down = state.down.get_or_insert_with(|| Down {
            since: clock::now(),
            cause: Cause::Other,
            error: String::new(),
            full: None,
            begun: now,
            told: None,
            blocks: None,
            failed_at: now,
            well: None,
        });
        (down.cause, down.error) = (error.cause(), error.to_string());
        (down.failed_at, down.well) = (now, None);
        if matches!(error, StoreError::Full(_)) {
            down.full = Some(error.to_string());
        }
        match blocks {
            Some(since) => {
                let since = now.checked_sub(since).unwrap_or(now);
                down.blocks = Some(down.blocks.map_or(since, |known| known.min(since)));
            }
            None => self.tell(down),
        }
    }

    fn tell(&self, down: &mut Down) {
        if down.told.is_some() {
            return;
        }
        down.told = Some(down.cause);
        let event = down_event(
            down.cause,
            down.error.clone(),
            "nothing acknowledged is lost, and it is tried again by itself",
        );
        self.logger.emit(event);
    }

    /// The store has answered as it should.
    fn is_back(&self, mut state: parking_lot::MutexGuard<'_, State>, answer: Answer) {
        if state.down.is_none() {
            return;
        }
        self.known.store(false, Ordering::Release);
        // what another writer meets is not over
        if state.writers.iter().any(|writing| writing.failing) {
            return;
        }
        match &mut state.down {
            Some(Down { full: Some(full), cause, error, blocks, .. }) if answer == Answer::Read => {
                (*cause, *error, *blocks) = (Cause::DiskFull, full.clone(), None);
            }
            Some(down) if down.told.is_some() => {
                down.full = None;
                down.blocks = None;
                down.well.get_or_insert_with(Instant::now);
            }
            down => *down = None,
        }
    }

    /// Tells that an outage is over, once it has been for a while.
    fn settle(&self) {
        let mut state = self.state.lock();
        let over = |down: &mut Down| down.well.is_some() && down.failed_at.elapsed() >= CALM;
        let Some(down) = state.down.take_if(over) else { return };
        drop(state);
        if let (Some(cause), Some(well)) = (down.told, down.well) {
            self.logger.emit(up_event(cause, well.saturating_duration_since(down.begun)));
        }
    }

    /// Whether calls have failed that block others: the store is to be asked how it is.
    fn is_blocked(&self) -> bool {
        self.state.lock().down.as_ref().is_some_and(|down| down.blocks.is_some())
    }

    /// Whether a commit has been under way for so long that somebody should ask how the store is.
    fn is_slow(&self) -> bool {
        let state = self.state.lock();
        state.writers.iter().filter_map(|writing| writing.since).any(|since| since.elapsed() >= SLOW)
    }

    /// The store has answered a question. A commit that is still tried again knows better.
    fn answered(&self) {
        let state = self.state.lock();
        if state.writers.iter().all(|writing| writing.since.is_none()) {
            self.is_back(state, Answer::Read);
        }
    }

    /// Whether it is to be tried if there is room again: there was none, and nobody has written for a while.
    fn is_to_be_tried(&self) -> bool {
        let state = self.state.lock();
        state.down.as_ref().is_some_and(|down| down.full.is_some() && down.failed_at.elapsed() >= TRY)
    }

    /// Something could be written that needed room.
    fn has_room(&self) {
        let mut state = self.state.lock();
        state.well_at = Some(Instant::now());
        self.is_back(state, Answer::Written);
    }

    /// A failure that lasts becomes known; tells whether it has just done so.
    fn ripen(&self) -> bool {
        let mut state = self.state.lock();
        let works = state.well_at.is_some_and(|at| at.elapsed() < BLIP);
        let Some(down) = &mut state.down else { return false };
        if down.blocks.is_none_or(|since| since.elapsed() < BLIP) {
            return false;
        }
        self.tell(down);
        // where others' commits succeed, newcomers' may
        if works || self.known.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.news.notify_waiters();
        true
    }
}

/// Watches the store until the node ends: makes lasting failures known, notices a store that hangs,
/// and one that is back although nobody had anything to write.
pub(crate) async fn watch(node: Arc<Node>, end: CancellationToken) {
    let outage = node.outage.clone();
    let (mut known, mut asked, mut trial) = (false, None, None);
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = end.cancelled() => return,
        }
        outage.settle();
        if known && !outage.is_known() {
            known = false;
            node.wake_all();
            node.wake_dispatcher(true);
        }
        // Where there is no room, only a write shows whether there is again.
        if outage.is_to_be_tried() && trial.as_ref().is_none_or(JoinHandle::is_finished) {
            trial = Some(tokio::spawn(try_room(node.clone())));
        }
        let hangs = || outage.is_slow() || node.store.silence().is_some_and(|silence| silence >= SLOW);
        if !outage.is_blocked() && !hangs() {
            continue;
        }
        match ask(&node, &mut asked).await {
            Some(Ok(())) => outage.answered(),
            Some(Err(error)) => outage.failed(&error),
            None => {
                let why = format!("the store does not answer within {STORE_TIMEOUT:?}");
                outage.note(&StoreError::Unknown(why), Some(STORE_TIMEOUT));
            }
        }
        if outage.ripen() {
            known = true;
            node.wake_all();
        }
    }
}

async fn try_room(node: Arc<Node>) {
    match node.store.try_room().await {
        Ok(()) => node.outage.has_room(),
        Err(error) => node.outage.failed(&error),
    }
}

/// Asks the store how it is; `None`: it does not say. A call that hangs goes on, and is what is waited
/// for the next time.
async fn ask(
    node: &Node,
    asked: &mut Option<JoinHandle<Result<(), StoreError>>>,
) -> Option<Result<(), StoreError>> {
    let call = asked.get_or_insert_with(|| {
        let store = node.store.clone();
        tokio::spawn(async move { store.ping().await })
    });
    let mut answer = tokio::time::timeout(STORE_TIMEOUT, &mut *call).await;
    if answer.is_err() {
        answer = tokio::time::timeout(GRACE, call).await;
    }
    let answer = answer.ok()?;
    *asked = None;
    Some(answer.unwrap_or_else(|_| Err(StoreError::Unknown("asking the store panicked".to_owned()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: Option<Answer> = Some(Answer::Written);

    fn outage() -> (Arc<Outage>, impl Fn() -> Vec<String>) {
        let logger = Logger::quiet(Level::Info);
        let outage = Outage::new(logger.clone());
        (outage, move || logger.recent().iter().map(|l| l.event.to_string()).collect())
    }

    /// As if so much time had passed.
    fn pass(outage: &Outage, time: Duration) {
        let back = |at: &mut Instant| *at = at.checked_sub(time).unwrap();
        let mut state = outage.state.lock();
        state.well_at.iter_mut().for_each(back);
        if let Some(down) = &mut state.down {
            back(&mut down.failed_at);
            down.blocks.iter_mut().chain(&mut down.well).for_each(back);
        }
    }

    fn lost() -> StoreError {
        StoreError::Unknown("connection refused".to_owned())
    }

    fn full() -> StoreError {
        StoreError::Full("no room".to_owned())
    }

    #[test]
    fn an_outage_is_told_once_when_it_lasts_and_once_when_it_is_over() {
        let (outage, told) = outage();
        let lasts = |outage: &Outage| {
            pass(outage, BLIP);
            outage.ripen()
        };
        outage.begins(0);
        outage.fails(0, &lost());
        assert!(!outage.ripen() && !outage.is_known(), "it may be a blip");
        outage.ends(0, WRITTEN);
        pass(&outage, CALM);
        outage.settle();
        assert!(told().is_empty(), "a blip is nobody's business");

        outage.begins(0);
        for _ in 0..3 {
            outage.fails(0, &lost());
        }
        assert!(lasts(&outage) && outage.is_known());
        outage.failed(&lost());
        assert!(!lasts(&outage), "it is known already");
        assert_eq!(outage.down().map(|d| d.cause), Some(Cause::Unreachable));
        outage.ends(0, WRITTEN);
        outage.ends(1, WRITTEN);
        assert!(outage.down().is_none() && !outage.is_known(), "the next message is let in at once");
        outage.settle();
        assert_eq!(told(), [event::STORE_DOWN], "it may fail again in a moment");
        outage.failed(&lost());
        assert!(lasts(&outage) && outage.is_known(), "as it does");
        outage.ends(0, WRITTEN);
        pass(&outage, CALM);
        outage.settle();
        outage.settle();
        assert_eq!(told(), [event::STORE_DOWN, event::STORE_UP]);
    }

    #[test]
    fn a_full_disk_turns_nobody_away_and_is_told_once_though_some_commits_find_room() {
        let (outage, told) = outage();
        for _ in 0..10 {
            outage.begins(0);
            outage.fails(0, &full());
            outage.ends(0, None);
            pass(&outage, BLIP);
            assert!(!outage.ripen() && !outage.is_known());
            assert_eq!(outage.down().map(|d| d.cause), Some(Cause::DiskFull));
            outage.begins(0);
            outage.ends(0, WRITTEN);
            outage.settle();
            assert!(outage.down().is_none());
        }
        pass(&outage, CALM);
        outage.settle();
        assert_eq!(told(), [event::STORE_DOWN, event::STORE_UP]);
    }

    #[test]
    fn a_full_disk_is_full_until_something_was_written_and_since_it_was_found_so() {
        let (outage, _) = outage();
        outage.failed(&full());
        let first = outage.since();
        assert!(!outage.is_to_be_tried(), "somebody has just done so");
        pass(&outage, Duration::from_secs(3_600));
        assert_eq!(outage.down().map(|down| Some(down.since)), Some(first), "nobody has written since");
        assert!(outage.is_to_be_tried());
        outage.failed(&full());
        assert_eq!(outage.since(), first);

        // what reads tell says nothing of room
        outage.failed(&lost());
        outage.answered();
        outage.begins(0);
        outage.ends(0, Some(Answer::Read));
        pass(&outage, CALM);
        outage.settle();
        let down = outage.down();
        assert_eq!(down.map(|down| (down.cause, Some(down.since))), Some((Cause::DiskFull, first)));

        outage.has_room();
        assert!(outage.down().is_none() && !outage.is_to_be_tried());
        outage.failed(&full());
        assert_eq!(outage.since(), first, "it was for a moment");
        outage.has_room();
        pass(&outage, CALM);
        outage.settle();
        assert_eq!(outage.since(), None);
        outage.failed(&full());
        assert!(outage.since() > first, "another spell");
    }

    #[test]
    fn one_writer_that_fails_is_told_of_and_those_whom_another_serves_are_let_in() {
        let (outage, told) = outage();
        outage.begins(0);
        outage.begins(1);
        outage.fails(0, &StoreError::NotDone("canceling statement due to statement timeout".to_owned()));
        pass(&outage, BLIP);
        outage.ends(1, WRITTEN);
        assert!(!outage.ripen() && !outage.is_known());
        assert_eq!(told(), [event::STORE_DOWN]);
        assert_eq!(outage.down().map(|d| d.cause), Some(Cause::StatementTimeout));
        pass(&outage, BLIP);
        assert!(outage.ripen(), "nobody is served any more");
        outage.answered();
        assert!(outage.is_known(), "the commit knows better");
        outage.ends(0, WRITTEN);
        assert!(outage.down().is_none() && !outage.is_known());
    }

    #[test]
    fn people_are_told_of_what_it_is_not_of_how_it_began() {
        let (outage, told) = outage();
        outage.failed(&lost());
        outage.failed(&StoreError::NotDone("sorry, too many clients already".to_owned()));
        pass(&outage, BLIP);
        outage.ripen();
        assert_eq!(told(), [event::STORE_DOWN]);
        assert_eq!(
            outage.down().map(|d| (d.cause, d.told)),
            Some((Cause::TooManyConnections, Some(Cause::TooManyConnections)))
        );
    }

    #[test]
    fn a_store_that_does_not_answer_is_known_at_once() {
        let (outage, _) = outage();
        outage.note(&StoreError::Unknown("the store does not answer".to_owned()), Some(STORE_TIMEOUT));
        assert!(outage.ripen() && outage.is_known());
    }
}
