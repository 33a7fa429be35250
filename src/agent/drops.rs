//! Guards against panics in `Drop` of user values.
//!
//! A letter is dropped by its last holder: a cell, a writer thread, the orchestrator. A panic in its message must
//! not end that thread. It does not count as a crash of the agent; it is noted here, and reported by the runtime.

use parking_lot::Mutex;

use super::guard::guard;
use crate::model::event::{Event, Level};

/// How many may wait to be reported: a storm of them has one cause, and the log would only count them.
const MAX_NOTED: usize = 64;

static NOTED: Mutex<Vec<Event>> = Mutex::new(Vec::new());

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

/// A user's value in transit: a panic in its `Drop` does not reach the thread that drops it.
pub(crate) struct Guarded<T> {
    of: &'static str,
    /// `None`: it is dropped.
    value: Option<T>,
}

impl<T> Guarded<T> {
    /// `of`: the message or kind that it belongs to.
    pub(crate) fn new(of: &'static str, value: T) -> Self {
        Self { of, value: Some(value) }
    }

    /// The value; there is one until this is dropped.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Takes it out.
    pub(crate) fn into_inner(mut self) -> Option<T> {
        self.value.take()
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            discard(self.of, value);
        }
    }
}

/// Notes that something of this message's or agent's has panicked when it was dropped.
#[cold]
pub(crate) fn note(of: &str, panic: (String, Option<String>)) {
    let mut noted = NOTED.lock();
    if noted.len() < MAX_NOTED {
        noted.push(drop_panicked(of.to_owned(), panic));
    }
}

/// The event that tells of one: what it said, and where.
pub(crate) fn drop_panicked(subject: String, (message, site): (String, Option<String>)) -> Event {
    Event::new(Level::Warn, "agent.drop_panicked", subject).field("message", message).field_opt("site", site)
}

/// Takes what was noted of those whom `ours` knows by their message or kind: a process may have several
/// nodes.
pub(crate) fn take_noted(ours: impl Fn(&str) -> bool) -> Vec<Event> {
    NOTED.lock().extract_if(.., |event| ours(&event.subject)).collect()
}
