//! Ends tasks that the store marked as doomed, and notifies their submitters.

use super::{node::Node, persistence::Outcome, settle::finish, task_cell::is_once};
use crate::{
    JsonRefusal,
    agent::AskError,
    model::{
        event::{self, Event, Level},
        id::{Target, TaskId},
        task::{Claimed, POISON, TaskError},
    },
    store::{Doom, Finish, FinishOutcome, Guard, StoreError, Unit},
};

/// The error of a task that has begun what takes effect once, and was not seen to end.
pub(super) fn unknown() -> TaskError {
    AskError::<JsonRefusal>::Unknown.to_task_error()
}

/// Whether a task that does not run has begun what takes effect once, and nobody saw its end: its own effect, or that
/// of a tool that it called.
pub(super) async fn is_interrupted(node: &Node, task: &Claimed) -> Result<bool, StoreError> {
    match &task.target {
        Target::Agent { .. } => Ok(false),
        // of another node's tool nobody knows here
        Target::Tool(name) if is_once(node, name) || !node.has(&task.target) => Ok(task.lost > 0),
        Target::Tool(_) => {
            let journal = node.store.journal(task.id).await?;
            Ok(journal.entries.iter().any(|entry| entry.answer.is_none()))
        }
    }
}

/// Ends a doomed task, so that its submitter is notified. `false`: somebody else has.
pub(super) async fn end_doomed(node: &Node, id: TaskId, doom: Doom) -> Result<bool, StoreError> {
    let Some(data) = node.store.task_data(id).await? else { return Ok(false) };
    let failed = |code: &str, message: &str| FinishOutcome::Failed {
        error: TaskError {
            code: code.to_owned(),
            message: message.to_owned(),
            chain: Vec::new(),
            crash_id: None,
            refusal: None,
        },
    };
    let (outcome, note) = match doom {
        Doom::ParentFailed => (FinishOutcome::Cancelled, "a task that it came after did not succeed"),
        Doom::Expired => (FinishOutcome::Cancelled, "it expired before it started"),
        Doom::Cancelled | Doom::Poison if is_interrupted(node, &data).await? => {
            (FinishOutcome::OutcomeUnknown { error: unknown() }, "what it had begun takes effect once")
        }
        Doom::Cancelled => (FinishOutcome::Cancelled, "it was cancelled while it ran"),
        Doom::Poison => (failed(POISON, "its node died each time it ran alone"), "poison"),
    };
    let (ended, done) = finish(&data, Guard::Idle, outcome);
    let ended = Finish { note: Some(note.to_owned()), ..ended };
    let cancelled = matches!(ended.outcome, FinishOutcome::Cancelled);
    let is_unknown = matches!(ended.outcome, FinishOutcome::OutcomeUnknown { .. });
    if is_unknown {
        let event = Event::new(Level::Error, event::TASK_OUTCOME_UNKNOWN, format!("task:{id}"));
        let event = event.field("target", data.target.to_string()).field("error", note);
        node.logger.emit(event.hint(format!("greenroom tasks show {id}")));
    }
    let unit = Unit { finished: vec![ended], accepted: done.into_iter().collect(), ..Unit::default() };
    if cancelled && node.logger.wants(Level::Debug, event::TASK_CANCELLED) {
        let event = Event::new(Level::Debug, event::TASK_CANCELLED, format!("task:{id}"));
        node.logger.emit(event.field("target", data.target.to_string()).field("reason", note));
    }
    if doom == Doom::Poison && !is_unknown {
        let event = Event::new(Level::Error, event::TASK_FAILED, format!("task:{id}")).field("error", note);
        node.logger.emit(event.hint(format!("greenroom tasks show {id}")));
    }
    match node.persistence.commit(id.0, unit).await {
        Outcome::Durable | Outcome::Unknown => {
            node.task_moved(id);
            Ok(true)
        }
        Outcome::Refused(_) => Ok(false),
        Outcome::Full(why) | Outcome::Failed(why) => Err(StoreError::NotDone(why)),
    }
}
