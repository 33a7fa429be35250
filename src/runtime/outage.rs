//! Whether the store answers: known to all parts of the node, told once when it is gone and once when
//! it is back.
//!
//! A failure that is over within a moment is nobody's business: its commit is tried again. One that
//! lasts is *known*: new messages are turned away at once, with the cause, in place of waiting behind
//! what cannot be written. A full disk turns nobody away: each commit learns by itself that there is
//! no room, and has its answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::node::Node;
use crate::{
    log::Logger,
    model::event::{self, Event, Level},
    store::{Cause, StoreError},
};

/// A failure that is over by then was a blip.
const BLIP: Duration = Duration::from_millis(300);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A commit that takes longer than this is looked into.
const SLOW: Duration = Duration::from_millis(500);
/// A store that does not answer a question within this time does not answer.
const PATIENCE: Duration = Duration::from_millis(400);

/// An outage, for people.
#[derive(Debug, Clone)]
pub(crate) struct Down {
    pub since: Timestamp,
    pub cause: Cause,
    pub error: String,
    begun: Instant,
    told: bool,
    /// Callers cannot be answered while it lasts.
    blocks: bool,
}

/// Whether the store answers.
pub(crate) struct Outage {
    logger: Logger,
    down: Mutex<Option<Down>>,
    /// It lasts: new messages are turned away.
    known: AtomicBool,
    /// Since when each writer has been at its present commit, retries included.
    writing: Mutex<Vec<Option<Instant>>>,
}

impl Outage {
    pub(crate) fn new(logger: Logger) -> Arc<Self> {
        Arc::new(Self {
            logger,
            down: Mutex::default(),
            known: AtomicBool::new(false),
            writing: Mutex::default(),
        })
    }

    /// Whether new messages are to be turned away.
    #[inline]
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// What is wrong, once that has been told.
    pub(crate) fn down(&self) -> Option<Down> {
        self.down.lock().clone().filter(|down| down.told)
    }

    /// A writer begins a commit.
    pub(crate) fn begins(&self, writer: usize) {
        let mut writing = self.writing.lock();
        if writing.len() <= writer {
            writing.resize(writer + 1, None);
        }
        if let Some(since) = writing.get_mut(writer) {
            *since = Some(Instant::now());
        }
    }

    /// A writer's commit has its outcome. `well`: the store took it.
    pub(crate) fn ends(&self, writer: usize, well: bool) {
        if let Some(since) = self.writing.lock().get_mut(writer) {
            *since = None;
        }
        if well {
            self.is_back();
        }
    }

    /// A call has failed.
    pub(crate) fn failed(&self, error: &StoreError) {
        match error {
            StoreError::Full(_) => self.note(error, false),
            StoreError::NotDone(_) | StoreError::Unknown(_) => self.note(error, true),
            StoreError::Fatal(_) | StoreError::Corrupt(_) | StoreError::Refused(_) => {}
        }
    }

    fn note(&self, error: &StoreError, blocks: bool) {
        let mut down = self.down.lock();
        let found = down.get_or_insert_with(|| Down {
            since: Timestamp::now(),
            cause: error.cause(),
            error: error.to_string(),
            begun: Instant::now(),
            told: false,
            blocks,
        });
        found.blocks |= blocks;
        if !blocks {
            self.tell(found);
        }
    }

    fn tell(&self, down: &mut Down) {
        if std::mem::replace(&mut down.told, true) {
            return;
        }
        let event = Event::new(Level::Error, event::STORE_DOWN, "store")
            .field("cause", down.cause.name())
            .field("error", down.error.clone());
        self.logger.emit(event.hint(format!(
            "{}; nothing acknowledged is lost, and it is tried again by itself",
            down.cause.remedy()
        )));
    }

    /// The store has answered as it should.
    fn is_back(&self) {
        if self.known.load(Ordering::Acquire) || self.down.lock().is_some() {
            let down = self.down.lock().take();
            self.known.store(false, Ordering::Release);
            if let Some(down) = down.filter(|down| down.told) {
                let event = Event::new(Level::Info, event::STORE_UP, "store")
                    .field("cause", down.cause.name())
                    .field("down_ms", super::millis(down.begun.elapsed()));
                self.logger.emit(event);
            }
        }
    }

    /// Whether a commit has been under way for so long that somebody should ask how the store is.
    fn is_slow(&self) -> bool {
        self.writing.lock().iter().flatten().any(|since| since.elapsed() >= SLOW)
    }

    fn is_writing(&self) -> bool {
        self.writing.lock().iter().any(Option::is_some)
    }

    /// A failure that lasts becomes known; tells whether it has just done so.
    fn ripen(&self) -> bool {
        let mut down = self.down.lock();
        let Some(found) = down.as_mut().filter(|d| d.blocks && d.begun.elapsed() >= BLIP) else {
            return false;
        };
        self.tell(found);
        !self.known.swap(true, Ordering::AcqRel)
    }
}

/// Watches the store until the node ends: makes lasting failures known, notices a store that hangs,
/// and one that is back although nobody had anything to write.
pub(crate) async fn watch(node: Arc<Node>, end: CancellationToken) {
    let outage = node.outage.clone();
    let (mut known, mut asked) = (false, None);
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = end.cancelled() => return,
        }
        let blocks = outage.down.lock().as_ref().map(|d| d.blocks);
        if known && !outage.is_known() {
            known = false;
            node.wake_all();
            node.wake_dispatcher(true);
        }
        match blocks {
            None if !outage.is_slow() => continue,
            // Only a commit shows whether there is room again.
            Some(false) => continue,
            _ => {}
        }
        match ask(&node, &mut asked).await {
            Err(error) => outage.failed(&error),
            // A commit that is still tried again knows better.
            Ok(()) if !outage.is_writing() => outage.is_back(),
            Ok(()) => {}
        }
        if outage.ripen() {
            known = true;
            node.wake_all();
        }
    }
}

/// Asks the store how it is. A call that hangs goes on, and is what is waited for the next time.
async fn ask(node: &Node, asked: &mut Option<JoinHandle<Result<(), StoreError>>>) -> Result<(), StoreError> {
    let call = asked.get_or_insert_with(|| {
        let store = node.store.clone();
        tokio::spawn(async move { store.ping().await })
    });
    let answer = tokio::time::timeout(PATIENCE, call).await;
    if answer.is_ok() {
        *asked = None;
    }
    match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(StoreError::Unknown("asking the store panicked".to_owned())),
        Err(_) => Err(StoreError::Unknown(format!("the store does not answer within {PATIENCE:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_when_it_lasts_and_once_when_it_is_over() {
        let logger = Logger::quiet(Level::Info);
        let told = || -> Vec<String> { logger.recent().iter().map(|l| l.event.to_string()).collect() };
        let outage = Outage::new(logger.clone());
        let error = StoreError::Unknown("connection refused".to_owned());
        let ripen = |outage: &Outage| {
            if let Some(down) = outage.down.lock().as_mut() {
                down.begun = down.begun.checked_sub(BLIP).unwrap();
            }
            outage.ripen()
        };

        outage.begins(0);
        outage.failed(&error);
        assert!(!outage.ripen() && !outage.is_known(), "it may be a blip");
        outage.ends(0, true);
        assert!(told().is_empty(), "a blip is nobody's business");

        for _ in 0..3 {
            outage.failed(&error);
        }
        assert!(ripen(&outage) && outage.is_known());
        outage.failed(&error);
        assert!(!ripen(&outage), "it is known already");
        assert_eq!(outage.down().map(|d| d.cause), Some(Cause::Unreachable));
        outage.ends(0, true);
        outage.ends(1, true);
        assert_eq!(told(), [event::STORE_DOWN, event::STORE_UP]);
        assert!(outage.down().is_none() && !outage.is_known());

        outage.failed(&StoreError::Full("no room".to_owned()));
        assert!(!ripen(&outage) && !outage.is_known(), "a full disk turns nobody away");
        assert_eq!(outage.down().map(|d| d.cause), Some(Cause::DiskFull));
    }
}
