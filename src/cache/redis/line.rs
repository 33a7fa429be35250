//! The line to a server: the current link, if any, and the circuit breaker.
//!
//! ```text
//!            answers, takes what was missed
//!   open ─────────────────────────────────────► closed
//!    ▲ │ tried again after 50 ms … 1 s            │ a call or a beat that is not answered in time,
//!    └─┘                                          │ a connection that ends
//!    ▲────────────────────────────────────────────┘
//! ```
//!
//! While the breaker is open no call waits: reads are misses. Writes are noted, because the server may hold older
//! entries in their place; those are deleted before anything is read there again.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    dial::Server,
    link::{Failed, Link},
    wire::Place,
};
use crate::cache::options::{CacheOptions, OnChange};

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// A link that lived for so long was a good one: the next one is made without much delay.
const GOOD: Duration = Duration::from_secs(5);
/// So many entries are forgotten one by one; when more were missed, all are.
const MAX_MISSED: usize = 10_000;

/// The line.
pub(super) struct Line {
    link: RwLock<Option<Arc<Link>>>,
    state: Mutex<State>,
    missed: Mutex<Missed>,
    on_change: Option<OnChange>,
}

/// What is told of it.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) up: bool,
    pub(super) since: Timestamp,
    pub(super) reason: Option<String>,
}

/// What could not be written.
#[derive(Default)]
struct Missed {
    places: HashSet<Place>,
    /// There were too many.
    all: bool,
}

impl Line {
    pub(super) fn new(options: &CacheOptions) -> Arc<Self> {
        Arc::new(Self {
            link: RwLock::new(None),
            state: Mutex::new(State { up: false, since: Timestamp::now(), reason: None }),
            missed: Mutex::default(),
            on_change: options.on_change.clone(),
        })
    }

    /// The link, while it is good.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.read().as_ref().filter(|link| link.is_good()).cloned()
    }

    pub(super) fn state(&self) -> State {
        let state = self.state.lock().clone();
        // Its keeper may not have noticed yet.
        match self.link.read().as_ref().and_then(|link| link.broken().get()) {
            Some((reason, since)) => State { up: false, since: *since, reason: Some(reason.clone()) },
            None => state,
        }
    }

    /// A write to this place has failed, or might have: what stands there may be old. It is
    /// forgotten, at once if there is a link.
    pub(super) async fn missed(&self, place: Place) {
        loop {
            let link = {
                let mut missed = self.missed.lock();
                // Looked at under the lock, as `install` does: nothing falls between the two.
                match self.link() {
                    Some(link) => link,
                    None => {
                        missed.add(place);
                        return;
                    }
                }
            };
            match link.forget(&place).await {
                Ok(()) => return,
                Err(Failed::Broken) => {}
                Err(Failed::Refused(why)) => link.broken().set(format!("it takes nothing: {why}")),
            }
        }
    }

    /// Keeps the line for as long as `stop` is not set.
    pub(super) async fn keep(
        self: Arc<Self>,
        server: Server,
        options: CacheOptions,
        origin: Uuid,
        stop: CancellationToken,
    ) {
        let mut delay = FIRST_DELAY;
        let keeping = async {
            loop {
                let opened = Link::open(&server, &options, origin).await;
                let reason = match opened {
                    Err(reason) => reason,
                    Ok(link) => {
                        let (link, began) = (Arc::new(link), Instant::now());
                        match self.install(&link).await {
                            Err(reason) => reason,
                            Ok(()) => {
                                self.change(None);
                                let reason = link.watch().await;
                                if began.elapsed() > GOOD {
                                    delay = FIRST_DELAY;
                                }
                                reason
                            }
                        }
                    }
                };
                *self.link.write() = None;
                self.change(Some(reason));
                // Nodes that lost the same server do not come back all at once.
                tokio::time::sleep(delay.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
                delay = (delay * 2).min(LONGEST_DELAY);
            }
        };
        tokio::select! {
            () = keeping => {}
            () = stop.cancelled() => {}
        }
        *self.link.write() = None;
    }

    /// Forgets what was missed, and puts the link in use.
    async fn install(&self, link: &Arc<Link>) -> Result<(), String> {
        loop {
            let missed = {
                let mut missed = self.missed.lock();
                if missed.places.is_empty() && !missed.all {
                    *self.link.write() = Some(link.clone());
                    return Ok(());
                }
                std::mem::take(&mut *missed)
            };
            if let Err(reason) = forget(link, &missed).await {
                let mut kept = self.missed.lock();
                kept.all |= missed.all;
                missed.places.into_iter().for_each(|place| kept.add(place));
                return Err(reason);
            }
        }
    }

    /// Notes and tells whether it is up, if that is new.
    fn change(&self, reason: Option<String>) {
        let up = reason.is_none();
        let told = {
            let mut state = self.state.lock();
            // The first link is no recovery; the first failure is a change.
            let first = !state.up && state.reason.is_none();
            let same = state.up == up && !first;
            let since = if same { state.since } else { Timestamp::now() };
            *state = State { up, since, reason };
            let news = !same && (!first || !up);
            news.then(|| state.clone())
        };
        metrics::gauge!("greenroom_cache_up").set(f64::from(u8::from(up)));
        if let (Some(on_change), Some(state)) = (&self.on_change, told) {
            on_change(state.up, state.reason.as_deref());
        }
    }
}

impl Missed {
    fn add(&mut self, place: Place) {
        if self.all {
            return;
        }
        self.places.insert(place);
        if self.places.len() > MAX_MISSED {
            *self = Self { places: HashSet::new(), all: true };
        }
    }
}

async fn forget(link: &Link, missed: &Missed) -> Result<(), String> {
    if missed.all {
        link.purge().await?;
    }
    let places: Vec<_> = missed.places.iter().collect();
    for some in places.chunks(100) {
        for done in join_all(some.iter().map(|place| link.forget(place))).await {
            match done {
                Ok(()) => {}
                Err(Failed::Broken) => return Err(link.broken().wait().await),
                Err(Failed::Refused(why)) => return Err(format!("it takes nothing: {why}")),
            }
        }
    }
    Ok(())
}
