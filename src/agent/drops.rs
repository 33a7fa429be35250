//! Values of the user's that panic when they are dropped.
//!
//! A letter is dropped by whoever has it last: a cell, a writer's thread, the orchestrator. What is in it must
//! not take them along. Such a panic is no crash of an agent's; it is noted here, and told by the runtime.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::guard::guard;
use crate::model::event::{Event, Level};

/// How many wait to be told at most: a storm of them is one place, and the log would only count them.
const MOST: usize = 64;

static NOTED: Mutex<Vec<Event>> = Mutex::new(Vec::new());
static NEWS: Notify = Notify::const_new();

/// Drops a value that belongs to this message or agent. Where that panics, it is noted.
#[inline]
pub(crate) fn discard<T>(of: &str, value: T) {
    if !std::mem::needs_drop::<T>() {
        return;
    }
    if let Err(panic) = guard(move || drop(value)) {
        note(of, panic);
    }
}

/// Notes that something of this message's or agent's has panicked when it was dropped.
#[cold]
pub(crate) fn note(of: &str, panic: (String, Option<String>)) {
    let mut noted = NOTED.lock();
    if noted.len() < MOST {
        noted.push(drop_panicked(of.to_owned(), panic));
        NEWS.notify_one();
    }
}

/// The event that tells of one: what it said, and where.
pub(crate) fn drop_panicked(subject: String, (message, site): (String, Option<String>)) -> Event {
    Event::new(Level::Warn, "agent.drop_panicked", subject).field("message", message).field_opt("site", site)
}

/// Waits until something has been noted.
pub(crate) async fn noted() {
    NEWS.notified().await;
}

/// Takes what was noted.
pub(crate) fn take_noted() -> Vec<Event> {
    std::mem::take(&mut *NOTED.lock())
}
