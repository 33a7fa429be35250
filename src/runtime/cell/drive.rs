//! Drives one turn to its end: catches panics, keeps the deadline, and takes in outcomes of commits meanwhile.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::window::Air;
use crate::{
    agent::{
        Agent, Envelope, Ran, Turn,
        messages::EnvelopeOf,
        turn::{Activation as _, Passage},
    },
    model::supervision::{CrashKind, CrashReason},
    runtime::{
        crashes::{error_text, guard},
        inbox::{Control, Current, Inbox},
        persistence::Outcome,
    },
};

/// A turn that waits for so long takes long: others are not to wait for it. Several times what a commit
/// takes, so that it costs little to wait for one first.
pub(super) const LONG: Duration = Duration::from_millis(5);

/// How long a turn may go on whose task was cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// Why a turn is to end before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The task that it is an attempt of was cancelled.
    Cancelled,
    /// Its agent was stopped, restarted or quarantined.
    Stopped,
}

/// How a turn ended. The rare ends are boxed, since every turn copies its own.
pub(super) enum End {
    Ran(Ran),
    Crashed(Box<CrashReason>),
    /// It did not end although it was asked to.
    Cut(Cut),
    /// It wants to reach outside, or takes long, and turns that it saw are not even on their way to the
    /// store. It is undone and begins again when they are durable.
    Blocked,
    /// A commit under its feet was not durable: it never happened.
    Lost(Box<Outcome>),
}

impl End {
    pub(super) fn panicked(message: String, site: Option<String>) -> Self {
        Self::Crashed(Box::new(CrashReason { kind: CrashKind::Panic, message, site }))
    }

    fn timed_out() -> Self {
        let message = "the turn ran past its deadline".to_owned();
        Self::Crashed(Box::new(CrashReason { kind: CrashKind::Timeout, message, site: None }))
    }
}

/// What a turn is given.
pub(super) struct Terms {
    /// The message may be needed again: the turn gets a copy.
    pub keep: bool,
    /// Earlier turns have left something that is not on its way to the store.
    pub uncovered: bool,
    /// Somebody waits for answers of earlier turns, which a flush would release.
    pub awaited: bool,
    pub budget: Duration,
    /// How long it may go on once its agent is stopped.
    pub stop_timeout: Duration,
    /// When it began, where it is timed.
    pub begun: Option<Instant>,
    /// Cancelled with the task that it is an attempt of.
    pub cancel: Option<CancellationToken>,
}

/// Runs `letter` on `agent`.
pub(super) async fn drive<A: Agent>(
    agent: &mut A,
    letter: &mut EnvelopeOf<A>,
    turn: &Turn<A>,
    air: &mut Air,
    terms: &Terms,
) -> End {
    let name = letter.wire_name();
    let mut work = pin!(Some(letter.run(agent, turn, terms.keep)));
    // Most wait for nothing, and need none of what follows.
    match std::future::poll_fn(|cx| Poll::Ready(step(work.as_mut(), cx))).await {
        Some(End::Ran(ran)) => End::Ran(ran),
        first => Box::pin(wait(work, first, name, turn, air, terms)).await,
    }
}

/// A handler at work; `None`: it has been dropped.
type Work<'a, F> = Pin<&'a mut Option<F>>;

/// Has a handler go on. `None`: it waits for something.
#[inline]
fn step<F: Future<Output = Ran>>(work: Work<'_, F>, cx: &mut Context<'_>) -> Option<End> {
    let future = work.as_pin_mut()?;
    match guard(|| future.poll(cx)) {
        Err((message, site)) => Some(End::panicked(message, site)),
        Ok(Poll::Ready(ran)) => Some(End::Ran(ran)),
        Ok(Poll::Pending) => None,
    }
}

/// Waits for a handler that has begun; `first`: how it has ended, if it has.
async fn wait<A: Agent, F: Future<Output = Ran>>(
    mut work: Work<'_, F>,
    first: Option<End>,
    name: &'static str,
    turn: &Turn<A>,
    air: &mut Air,
    terms: &Terms,
) -> End {
    let mut first = Some(first);
    let mut timer: Option<(Instant, Pin<Box<Sleep>>)> = None;
    let mut cancelled = terms.cancel.as_ref().map(|token| Box::pin(token.cancelled()));
    let mut patience: Option<(Cut, Pin<Box<Sleep>>)> = None;
    let end = std::future::poll_fn(|cx| {
        loop {
            if let Some(end) = first.take().unwrap_or_else(|| step(work.as_mut(), cx)) {
                return Poll::Ready(end);
            }
            if turn.gate.is_asked() && terms.uncovered {
                return Poll::Ready(End::Blocked);
            }
            air.inbox.waker.register(cx.waker());
            if turn.hears_of_its_end(false) {
                continue; // somebody asked it to leave before there was a waker to wake
            }
            if cancelled.as_mut().is_some_and(|token| token.as_mut().poll(cx).is_ready()) {
                cancelled = None;
                patience = Some((Cut::Cancelled, Box::pin(tokio::time::sleep(CANCEL_GRACE))));
                if turn.hears_of_its_end(true) {
                    continue;
                }
            }
            if patience.is_none() && matches!(air.inbox.control(), Control::Renew | Control::Cut) {
                patience = Some((Cut::Stopped, Box::pin(tokio::time::sleep(terms.stop_timeout))));
            }
            if let Some((cut, patience)) = &mut patience
                && patience.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(End::Cut(*cut));
            }
            if let Some(outcome) = air.inbox.take_outcome() {
                if let Err(outcome) = air.land(outcome) {
                    return Poll::Ready(End::Lost(Box::new(outcome)));
                }
                if !terms.uncovered {
                    turn.gate.set(Passage::Clear);
                    if turn.gate.is_standing() {
                        continue;
                    }
                }
            }
            // Who waits for what ran before it would wait for this turn as well: it has to give way.
            let yields = terms.awaited && terms.keep && terms.budget > LONG && !turn.gate.is_passed();
            let (since, timer) = timer.get_or_insert_with(|| {
                let since = Instant::now();
                turn.waits(since);
                air.inbox.held.lock().current = Some(Box::new(Current { message: name, since }));
                (since, Box::pin(tokio::time::sleep(if yields { LONG } else { terms.budget })))
            });
            while timer.as_mut().poll(cx).is_ready() {
                if yields {
                    return Poll::Ready(End::Blocked);
                }
                let left = terms.budget.saturating_sub(since.elapsed());
                if left.is_zero() {
                    return Poll::Ready(End::timed_out());
                }
                timer.as_mut().reset(Instant::now() + left);
            }
            return Poll::Pending;
        }
    })
    .await;
    if timer.is_some() {
        let since = air.inbox.held.lock().current.take();
        air.waited = since.map(|current| current.since.elapsed());
    }
    if let End::Ran(_) = end {
        return end; // the handler's future ended, and took its own values with it
    }
    match guard(|| work.set(None)) {
        Ok(()) => end,
        Err((message, site)) => End::panicked(message, site),
    }
}

/// How a hook came to nothing.
pub(super) enum Unhooked {
    /// What it says, or how it panicked and where.
    Failed(String, Option<String>),
    /// It did not end although its agent is to leave.
    Left,
}

/// Runs a hook of the user's, with panics caught and a time limit; once the agent is to leave, it has no more than its
/// stop time-out.
pub(super) async fn hook<A: Agent>(
    future: impl Future<Output = anyhow::Result<()>>,
    turn: &Turn<A>,
    inbox: &Inbox,
    limit: Duration,
    stop_timeout: Duration,
) -> Result<(), Unhooked> {
    let failed = |(message, site)| Unhooked::Failed(message, site);
    let mut slot = pin!(Some(future));
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let mut patience: Option<Pin<Box<Sleep>>> = None;
    let end = std::future::poll_fn(|cx| {
        loop {
            let Some(future) = slot.as_mut().as_pin_mut() else { return Poll::Pending };
            match guard(|| future.poll(cx)) {
                Ok(Poll::Ready(result)) => {
                    return Poll::Ready(result.map_err(|e| failed((error_text(e), None))));
                }
                Err(panic) => return Poll::Ready(Err(failed(panic))),
                Ok(Poll::Pending) => {}
            }
            inbox.waker.register(cx.waker());
            if turn.hears_of_its_end(false) {
                continue; // somebody asked it to leave before there was a waker to wake
            }
            if inbox.is_leaving() {
                let patience = patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(stop_timeout)));
                if patience.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(Unhooked::Left));
                }
            }
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(failed(("it ran past its time limit".to_owned(), None))));
            }
            return Poll::Pending;
        }
    })
    .await;
    guard(|| slot.set(None)).map_err(failed).and(end)
}
