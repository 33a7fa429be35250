//! What rows tell beside themselves: counters, dooms, histories.

use jiff::Timestamp;

use super::{
    Counts, Doom, StoredStatus,
    rows::status_of,
    values::{Id, Micros, count, lane, moment},
};
use crate::model::task::{TaskEvent, TaskState, TaskView};

/// The counters by what they count.
pub(super) fn counts_of(rows: Vec<(i16, i64)>) -> Counts {
    let mut counts = Counts::default();
    for (id, n) in rows {
        let n = u64::try_from(n).unwrap_or(0);
        if let Some(state) = TaskState::from_code(id) {
            counts.tasks.push((state, n));
        } else if let Some(status) =
            status_of(id - 100).ok().filter(|status| *status != StoredStatus::Deleted)
        {
            counts.agents.push((status, n));
        }
    }
    counts
}

/// Agents of each kind by what holds them.
pub(super) fn held_of(rows: Vec<(String, i16, i64)>) -> Vec<(String, StoredStatus, u64)> {
    let held = rows
        .into_iter()
        .filter_map(|(kind, status, n)| Some((kind, status_of(status).ok()?, count(n).into())));
    held.filter(|(_, status, _)| status.is_held()).collect()
}

/// Why a task in a lane from which nobody claims is to be ended.
pub(super) fn doom_of(lane: i16) -> Doom {
    match lane {
        lane::PARENT_FAILED => Doom::ParentFailed,
        lane::EXPIRED => Doom::Expired,
        lane::POISON => Doom::Poison,
        _ => Doom::Cancelled,
    }
}

/// What is written in the history of a task that the store ends by itself; `None`: it may not.
pub(super) fn untold_end(doom: Doom) -> Option<&'static str> {
    (doom != Doom::Poison).then(|| doom.reason())
}

/// What is written in the history of a dead letter that a person dismisses.
pub(super) const DISMISSED: &str = "an operator dismissed the dead letter";

/// What is written in the history of a task that was broken off.
pub(super) const BROKEN_OFF: &str = "its node went down";

/// How the history of a task tells that an attempt began.
pub(super) const STARTED: &str = "started";

/// A line of a task's history as it is stored: when, what, attempt, node, detail.
pub(super) type WrittenEvent = (Micros, String, i64, Option<Id>, Option<String>);

/// The last attempt that has come to an end which was not the task's.
fn ran_to_its_end(written: &[WrittenEvent]) -> Option<u32> {
    let since = written.iter().rev().take_while(|(_, event, ..)| event != "retried");
    let mut ends = since.filter(|(_, event, ..)| matches!(&**event, "retry" | "rescued" | "outcome_unknown"));
    ends.next().map(|(_, _, attempt, ..)| count(*attempt))
}

/// The history of a task: what its columns tell, and what was written down beside them.
pub(super) fn told(view: &TaskView, written: Vec<WrittenEvent>) -> Vec<TaskEvent> {
    let told = |at, event: &str, attempt| TaskEvent {
        at,
        event: event.to_owned(),
        attempt,
        node: view.node.clone().filter(|_| event != "accepted"),
        detail: None,
    };
    let mut events = vec![told(view.created_at, "accepted", 0)];
    // Of an end that a person undid the name may be the same.
    let is_end = |at: Micros, event: &str| event == view.state.name() && view.finished_at == Some(moment(at));
    let ended_by_note = written.iter().any(|(at, event, ..)| is_end(*at, event));
    let is_over = ran_to_its_end(&written).is_some_and(|attempt| attempt >= view.attempt);
    events.extend(written.into_iter().map(|(at, event, attempt, node, detail)| TaskEvent {
        at: moment(at),
        event,
        attempt: count(attempt),
        node: node.map(|n| n.0.to_string()),
        detail,
    }));
    // It is written down where the attempt has ended, and was not the last one; and a claim that went back began none.
    let is_written = |at: &Timestamp| events.iter().any(|e| e.at == *at && e.event == STARTED);
    let started = view.started_at.filter(|at| view.attempt > 0 && !is_over && !is_written(at));
    events.extend(started.map(|at| told(at, STARTED, view.attempt)));
    if !ended_by_note {
        let why = view.error.as_ref().map(|e| e.message.clone());
        events.extend(
            view.finished_at.map(|at| TaskEvent { detail: why, ..told(at, view.state.name(), view.attempt) }),
        );
    }
    events.sort_by_key(|e| e.at);
    events
}
