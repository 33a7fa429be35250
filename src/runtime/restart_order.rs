//! The order in which several agents restart, as the children of an OTP supervisor do: they stop one after the other,
//! the last one first, and start one after the other, the first one first.
//!
//! A task of its own leads them, so that nobody else waits. Each has its time to stop, and to start; whoever takes
//! longer is not waited for.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    drain::MOMENT,
    inbox::{Control, Inbox},
};

/// How long one of them is waited for that starts.
const START: Duration = Duration::from_secs(10);
/// How long those that stop, and those that start, are waited for together: of many each has a share.
const TOTAL: Duration = Duration::from_secs(60);

/// A member's own part in a restart. Dropped, it has started, or will not.
pub(crate) struct Part {
    /// Dropped: it has stopped.
    stops: Option<DropGuard>,
    place: CancellationToken,
    _starts: DropGuard,
}

impl Part {
    /// Tells that it has stopped.
    pub(crate) fn stopped(&mut self) {
        self.stops = None;
    }

    /// Waits until it is to start: those before it have. Nobody leads it any more: so it is at once.
    pub(crate) async fn place(&self) {
        self.place.cancelled().await;
    }
}

/// A member's part, in the hands of who leads.
pub(crate) struct Lead {
    stopped: CancellationToken,
    /// Dropped: it is to start.
    place: DropGuard,
    started: CancellationToken,
}

/// One part, and its lead.
pub(crate) fn part() -> (Part, Lead) {
    let (stopped, place, started) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let part = Part {
        stops: Some(stopped.clone().drop_guard()),
        place: place.clone(),
        _starts: started.clone().drop_guard(),
    };
    (part, Lead { stopped, place: place.drop_guard(), started })
}

/// Who is to restart.
pub(crate) enum Member {
    /// It has its stop time-out for the turn that runs, and again for `on_stop`.
    Runs(Arc<Inbox>, Duration),
    /// It has stopped by itself, and waits for its place.
    Waits(Lead),
}

/// Restarts them; they are in the order of their starts.
pub(crate) async fn restart(members: Vec<Member>) {
    let share = TOTAL / u32::try_from(members.len()).unwrap_or(u32::MAX).max(1);
    let mut stopped = Vec::with_capacity(members.len());
    for member in members.into_iter().rev() {
        stopped.push(match member {
            Member::Waits(lead) => lead,
            Member::Runs(inbox, stop_timeout) => {
                let (part, lead) = part();
                inbox.restart(part);
                // of one that leaves memory the part ends with it
                drop(inbox);
                let patience = stop_timeout.saturating_mul(2).saturating_add(MOMENT);
                wait(&lead.stopped, patience.min(share)).await;
                lead
            }
        });
    }
    for Lead { place, started, .. } in stopped.into_iter().rev() {
        drop(place);
        wait(&started, START.min(share)).await;
    }
}

async fn wait(end: &CancellationToken, patience: Duration) {
    let _ = tokio::time::timeout(patience, end.cancelled()).await;
}

impl Inbox {
    /// Has its cell restart in its place among others.
    fn restart(&self, part: Part) {
        self.held.lock().part = Some(Box::new(part));
        self.tell(Control::Renew);
    }
}
