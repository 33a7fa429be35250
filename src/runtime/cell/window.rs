//! The window: turns that have run and are not durable yet, and the commit in flight.

use std::{any::Any, sync::Arc, time::Duration};

use super::super::{
    crashes::{dropped_badly, guard},
    inbox::{Cargo, Inbox},
    lost_tells,
    persistence::Outcome,
};
use crate::agent::{Agent, AskError, Envelope, Ran, lane::Lane, messages::EnvelopeOf, turn::Outbox};

/// A turn that has run.
pub(super) struct Entry<A: Agent> {
    pub letter: EnvelopeOf<A>,
    pub ran: Ran,
}

/// A commit under way. What it will release lies in the inbox: whoever first knows that it is durable
/// sends it.
pub(super) struct Flight {
    /// Whether it raises the version.
    pub writes: bool,
    /// The idempotency keys that it settles.
    pub keys: Vec<String>,
}

/// What a commit under way will release.
pub(super) struct Load<A: Agent> {
    pub entries: Vec<Entry<A>>,
    pub tells: Vec<Box<dyn FnOnce() + Send>>,
    pub version: i64,
}

impl<A: Agent> Cargo for Load<A> {
    fn version(&self) -> i64 {
        self.version
    }

    fn release(self: Box<Self>) {
        release(self.entries, self.tells, self.version);
    }

    fn release_unanswered(self: Box<Self>) {
        let letters = self.entries.into_iter().map(|entry| entry.letter);
        // A task hears nothing: its claim is looked at.
        let asked = letters.filter(|letter| !letter.letter().is_task());
        answer::<A>(asked, &AskError::Unknown);
        release::<A>([], self.tells, self.version);
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Turns that have run since the last flush.
pub(super) struct Window<A: Agent> {
    pub entries: Vec<Entry<A>>,
    /// `None`: they have left nothing.
    pub outbox: Option<Box<Outbox>>,
    /// Whether the state may differ from the last image.
    pub changed: bool,
    /// Whether an entry must be durable before it is answered.
    pub urgent: bool,
}

impl<A: Agent> Default for Window<A> {
    fn default() -> Self {
        Self { entries: Vec::new(), outbox: None, changed: false, urgent: false }
    }
}

impl<A: Agent> Window<A> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.outbox.is_none()
    }

    /// Whether a later turn that reaches outside would show what is not on its way to the store.
    #[inline]
    pub(super) fn is_uncovered(&self) -> bool {
        self.changed || self.outbox.is_some()
    }
}

/// What is in the air: at most one commit, and what it is built on.
pub(super) struct Air {
    pub inbox: Arc<Inbox>,
    pub flight: Option<Flight>,
    /// The last image handed to the store; `None`: the state before any commit.
    pub image: Option<Arc<Vec<u8>>>,
    /// The last durable version.
    pub version: i64,
    /// How often in a row a commit was refused for a key or a session that another had written.
    pub contended: u32,
    /// How long the last turn took, where it waited for something.
    pub waited: Option<Duration>,
}

impl Air {
    /// Takes in the outcome of the flight: releases what is durable.
    ///
    /// # Errors
    /// The outcome, where it is not durable; the flight is left as it is.
    pub(super) fn land(&mut self, outcome: Outcome) -> Result<(), Outcome> {
        if !matches!(outcome, Outcome::Durable) {
            return Err(outcome);
        }
        self.contended = 0;
        if let Some(flight) = self.flight.take() {
            self.version += i64::from(flight.writes);
            self.inbox.release();
        }
        Ok(())
    }

    /// Takes back the turns of a flight that is not durable.
    pub(super) fn recall<A: Agent>(&mut self) -> Vec<Entry<A>> {
        self.flight = None;
        let cargo = self.inbox.unload().map(Cargo::into_any);
        let load = cargo.and_then(|any| any.downcast::<Load<A>>().ok());
        load.map(|load| load.entries).unwrap_or_default()
    }
}

/// Sends staged answers and tells, in their order.
pub(super) fn release<A: Agent>(
    entries: impl IntoIterator<Item = Entry<A>>,
    tells: Vec<Box<dyn FnOnce() + Send>>,
    version: i64,
) {
    let mut entries = entries.into_iter();
    // Messages and replies are user values: one that cannot be dropped must not keep the others.
    while !contained::<A>(|| {
        entries.by_ref().for_each(|mut entry| entry.letter.letter_mut().release(version))
    }) {}
    for tell in tells {
        // A message that finds its mailbox shut is dropped here.
        contained::<A>(tell);
    }
}

/// Answers letters of this lane with an error, and counts those that nobody waits for.
pub(super) fn fail<A: Agent>(
    lane: &Lane<A>,
    letters: impl IntoIterator<Item = EnvelopeOf<A>>,
    error: &AskError,
) {
    let letters: Vec<_> = letters.into_iter().collect();
    lost_tells::count(lane, &letters, error);
    answer::<A>(letters, error);
}

fn answer<A: Agent>(letters: impl IntoIterator<Item = EnvelopeOf<A>>, error: &AskError) {
    let mut letters = letters.into_iter();
    let answer = |mut letter: EnvelopeOf<A>| {
        letter.letter_mut().fail(error.clone());
        letter.letter_mut().release(0);
    };
    while !contained::<A>(|| letters.by_ref().for_each(answer)) {}
}

/// Runs what drops values of the user's. `false`: one of them panicked.
fn contained<A: Agent>(drops: impl FnOnce()) -> bool {
    guard(drops).map_err(|panic| dropped_badly(A::KIND, panic)).is_ok()
}
