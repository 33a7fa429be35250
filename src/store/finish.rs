//! What follows from the end of a task or of an attempt, whatever the database.

use serde_json::value::RawValue;

use super::{Finish, FinishOutcome, Guard, KeyRow, KeyWrite};
use crate::model::task::{NewTask, Notify, TaskInput, TaskState};

/// A message that tells of an end is tried so often at least, however few attempts what has ended was given.
pub(crate) const TELLING_ATTEMPTS: u32 = 5;

/// What an outcome means to the task machine.
pub(super) fn input_of(outcome: &FinishOutcome, guard: Guard, state: TaskState) -> TaskInput {
    let running = matches!(guard, Guard::Running { .. });
    match outcome {
        FinishOutcome::Succeeded { .. } if running => TaskInput::Succeeded,
        FinishOutcome::Succeeded { .. } => TaskInput::ResolvedSucceeded,
        FinishOutcome::Failed { .. } if running => TaskInput::Failed,
        FinishOutcome::Failed { .. } if state == TaskState::OutcomeUnknown => TaskInput::ResolvedFailed,
        FinishOutcome::Failed { .. } => TaskInput::DeadLetter,
        FinishOutcome::Retry { .. } => TaskInput::Retry,
        FinishOutcome::Cancelled if running => TaskInput::CancelSeen,
        FinishOutcome::Cancelled => TaskInput::Cancel,
        FinishOutcome::OutcomeUnknown { .. } => TaskInput::Interrupted,
        FinishOutcome::Parked => TaskInput::TargetStopped,
    }
}

impl FinishOutcome {
    /// The task state this outcome leads to.
    pub(super) fn state(&self) -> TaskState {
        match self {
            Self::Succeeded { .. } => TaskState::Succeeded,
            Self::Failed { .. } => TaskState::Failed,
            Self::Cancelled => TaskState::Cancelled,
            Self::Retry { .. } => TaskState::Scheduled,
            Self::OutcomeUnknown { .. } => TaskState::OutcomeUnknown,
            Self::Parked => TaskState::Parked,
        }
    }
}

impl Finish {
    /// The attempt that the task stands at afterwards, where the guard tells.
    pub(super) fn attempt_after(&self) -> Option<i64> {
        match self.guard {
            Guard::Idle => None,
            Guard::Running { attempt } if matches!(self.outcome, FinishOutcome::Parked) => {
                Some(i64::from(attempt) - 1)
            }
            Guard::Running { attempt } => Some(i64::from(attempt)),
        }
    }
}

/// The task by which an agent hears that a whole batch has ended: tried as often as one that tells of a single task.
pub(super) fn joined_task(notify: &Notify, body: Box<RawValue>, max_attempts: u32) -> NewTask {
    NewTask::new(notify.target.clone(), notify.message.clone(), body, max_attempts.max(TELLING_ATTEMPTS))
}

/// Whether a stored key is the one that this very unit wrote before.
pub(super) fn is_own(row: &KeyRow, write: &KeyWrite) -> bool {
    row.request == write.request && row.task == write.task && row.reply == write.reply
}
