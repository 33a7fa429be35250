//! Ends tasks that the store marked as doomed, and notifies their submitters.

use futures_util::{StreamExt as _, stream};

use super::{node::Node, persistence::Outcome, settle::finish, task_cell::is_once};
use crate::{
    JsonRefusal,
    agent::AskError,
    clock,
    model::{
        event::{self, Event, Level},
        id::{Target, TaskId},
        task::{Claimed, POISON, TaskError},
    },
    store::{Doom, Doomed, Finish, FinishOutcome, Guard, Promoted, StoreError, Unit},
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

/// Makes due tasks ready, and tells of those that the store has cancelled by itself.
pub(super) async fn promote(node: &Node) -> Result<Promoted, StoreError> {
    let promoted = node.store.promote(clock::now()).await?;
    for Doomed { id, target, why } in &promoted.cancelled {
        tell_cancelled(node, *id, target, why.reason());
        node.task_moved(*id);
    }
    Ok(promoted)
}

fn tell_cancelled(node: &Node, id: TaskId, target: &Target, reason: &str) {
    if node.logger.wants(Level::Debug, event::TASK_CANCELLED) {
        let event = Event::new(Level::Debug, event::TASK_CANCELLED, format!("task:{id}"));
        node.logger.emit(event.field("target", target.to_string()).field("reason", reason));
    }
}

/// How many doomed tasks are ended side by side: their commits gather.
const ENDED_AT_ONCE: usize = 64;

/// Ends the doomed tasks whose submitters are to be notified; `true`: there were some.
pub(super) async fn end_all_doomed(node: &Node) -> Result<bool, StoreError> {
    let ends = node.store.doomed().await?.into_iter().map(|(id, doom)| end_doomed(node, id, doom));
    // none of them is given up for the failure of another
    let ended: Vec<_> = stream::iter(ends).buffer_unordered(ENDED_AT_ONCE).collect().await;
    ended.into_iter().try_fold(false, |any, ended| Ok(any | ended?))
}

/// Ends a doomed task, so that its submitter is notified. `false`: somebody else has.
async fn end_doomed(node: &Node, id: TaskId, doom: Doom) -> Result<bool, StoreError> {
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
        Doom::ParentFailed | Doom::Expired => (FinishOutcome::Cancelled, doom.reason()),
        Doom::Cancelled | Doom::Poison if is_interrupted(node, &data).await? => {
            (FinishOutcome::OutcomeUnknown { error: unknown() }, "what it had begun takes effect once")
        }
        Doom::Cancelled => (FinishOutcome::Cancelled, doom.reason()),
        Doom::Poison => (failed(POISON, "its node died each time it ran alone"), doom.reason()),
    };
    let (ended, done) = finish(&data, Guard::Idle, outcome);
    let ended = Finish { note: Some(note.to_owned()), ..ended };
    let cancelled = matches!(ended.outcome, FinishOutcome::Cancelled);
    let is_unknown = matches!(ended.outcome, FinishOutcome::OutcomeUnknown { .. });
    let unit = Unit { finished: vec![ended], accepted: done.into_iter().collect(), ..Unit::default() };
    match node.persistence.commit(id.0, unit).await {
        Outcome::Durable | Outcome::Unknown => {
            if is_unknown {
                let event = Event::new(Level::Error, event::TASK_OUTCOME_UNKNOWN, format!("task:{id}"));
                let event = event.field("target", data.target.to_string()).field("error", note);
                node.logger.emit(event.hint(format!("greenroom tasks show {id}")));
            } else if cancelled {
                tell_cancelled(node, id, &data.target, note);
            } else if doom == Doom::Poison {
                let event =
                    Event::new(Level::Error, event::TASK_FAILED, format!("task:{id}")).field("error", note);
                node.logger.emit(event.hint(format!("greenroom tasks show {id}")));
            }
            node.task_moved(id);
            Ok(true)
        }
        Outcome::Refused(_) => Ok(false),
        Outcome::Full(why) | Outcome::Failed(why) => Err(StoreError::NotDone(why)),
    }
}
