//! Ends tasks that the store marked as doomed, and notifies their submitters.

use super::{node::Node, persistence::Outcome, settle::finish};
use crate::{
    model::{
        event::{self, Event, Level},
        id::TaskId,
        task::{POISON, TaskError},
    },
    store::{Doom, Finish, FinishOutcome, Guard, StoreError, Unit},
};

/// Ends a doomed task, so that its submitter is notified.
pub(super) async fn end_doomed(node: &Node, id: TaskId, doom: Doom) -> Result<(), StoreError> {
    let Some(data) = node.store.task_data(id).await? else { return Ok(()) };
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
        Doom::Cancelled => (FinishOutcome::Cancelled, "it was cancelled while it ran"),
        Doom::Poison => (failed(POISON, "its node died each time it ran alone"), "poison"),
    };
    let (ended, done) = finish(&data, Guard::Idle, outcome);
    let ended = Finish { note: Some(note.to_owned()), ..ended };
    let unit = Unit { finished: vec![ended], accepted: done.into_iter().collect(), ..Unit::default() };
    if doom == Doom::Poison {
        let event = Event::new(Level::Error, event::TASK_FAILED, format!("task:{id}")).field("error", note);
        node.logger.emit(event.hint(format!("greenroom tasks show {id}")));
    }
    match node.persistence.commit(id.0, unit).await {
        Outcome::Durable | Outcome::Refused(_) | Outcome::Unknown => {
            node.task_moved(id);
            Ok(())
        }
        Outcome::Full(why) | Outcome::Failed(why) => Err(StoreError::NotDone(why)),
    }
}
