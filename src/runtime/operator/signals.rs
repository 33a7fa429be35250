//! Signals to tasks, decisions about tasks whose outcome is unknown, and the log lines of tasks.

use serde_json::{Value, value::to_raw_value};
use uuid::Uuid;

use super::{Operator, OperatorError, Result, invalid, not_found, page_limit, wrong_state};
use crate::{
    agent::{
        AskError, Fault,
        reference::{check_key_text, request_hash},
    },
    model::{
        event,
        id::{Target, TaskId},
        journal::{LogLine, MAX_SIGNALS, Signal, check_signal_name},
        task::{TaskError, TaskState, TaskView},
    },
    runtime::{
        persistence::Outcome,
        settle::finish,
        views::{Page, TaskLine},
    },
    store::{FinishOutcome, Guard, SignalFound, Unit},
};

/// A person's decision about a task whose effect was interrupted.
#[derive(Debug, Clone)]
pub enum Resolution {
    /// It took effect, with this result.
    Succeeded(Value),
    /// It did not take effect, or failed, for this reason.
    Failed(String),
}

impl Operator {
    /// Sends a task a signal. One that waits for it goes on; one that does not yet will find it. The same key
    /// again is the same signal.
    ///
    /// # Errors
    /// [`AskError::Conflict`] where the same key brought another body;
    /// [`AskError::WrongState`] where the task has ended, is an agent's, or has 1,000 signals that it has not taken yet;
    /// [`AskError::TooLarge`].
    pub async fn signal(&self, id: TaskId, name: &str, body: Value, key: Option<&str>) -> Result<TaskView> {
        check_signal_name(name).map_err(|e| invalid("/name", e))?;
        let signal = match key {
            None => Uuid::now_v7(),
            Some(key) => {
                check_key_text(key).map_err(AskError::widen)?;
                Uuid::from_bytes(request_hash(name, key))
            }
        };
        let body = to_raw_value(&body).map_err(|e| OperatorError::Malformed(e.to_string()))?;
        let limit = self.node.settings.load().limits.message_bytes;
        if body.get().len() as u64 > limit {
            let what = format!("the signal is over limits.message_bytes ({limit})");
            return Err(AskError::TooLarge(what).into());
        }
        if let Target::Agent { kind, key } = self.bare_task(id).await?.target {
            return Err(wrong_state(format!(
                "task {id} is a message for {kind}/{key}, and waits for no signal"
            )));
        }
        let signal = Signal { id: signal, name: name.to_owned(), body };
        match self.node.store.signal(id, &signal).await? {
            None => Err(not_found(format!("no task {id}"))),
            Some(SignalFound::Final(state)) => {
                Err(wrong_state(format!("task {id} has already {}", state.name())))
            }
            Some(SignalFound::TooMany) => {
                Err(wrong_state(format!("task {id} has {MAX_SIGNALS} signals that nobody has taken")))
            }
            Some(SignalFound::Kept(_)) if key.is_some() && self.has_other(id, &signal).await? => {
                Err(AskError::Conflict.into())
            }
            Some(SignalFound::Kept(_)) => {
                self.node.wake_dispatcher(false);
                self.node.task_moved(id);
                self.task(id).await
            }
        }
    }

    /// Whether what is kept of a task's signal says something else. (When the task has ended nothing is.)
    async fn has_other(&self, task: TaskId, signal: &Signal) -> Result<bool> {
        let kept = self.node.store.journal(task).await?.signals;
        let same = kept.iter().find(|kept| kept.id == signal.id);
        Ok(same.is_some_and(|kept| kept.body.get() != signal.body.get()))
    }

    /// Decides the outcome of a task whose effect was interrupted. Its submitter is notified.
    ///
    /// # Errors
    /// [`AskError::WrongState`] where it is not `outcome_unknown`.
    pub async fn resolve(&self, id: TaskId, resolution: Resolution) -> Result<TaskView> {
        let task = self.bare_task(id).await?;
        if task.state != TaskState::OutcomeUnknown {
            let what =
                format!("task {id} is {}: only one whose outcome is unknown is resolved", task.state.name());
            return Err(wrong_state(what));
        }
        let data = self.node.store.task_data(id).await?.ok_or_else(|| not_found(format!("no task {id}")))?;
        let (outcome, how, note) = match resolution {
            Resolution::Succeeded(result) => {
                let result =
                    serde_json::to_vec(&result).map_err(|e| OperatorError::Malformed(e.to_string()))?;
                (
                    FinishOutcome::Succeeded { result },
                    event::TASK_SUCCEEDED,
                    "an operator said that it had succeeded",
                )
            }
            Resolution::Failed(message) => {
                let error = AskError::<crate::JsonRefusal>::Failed(Fault::new(message)).to_task_error();
                (
                    FinishOutcome::Failed { error: TaskError { code: "resolved".to_owned(), ..error } },
                    event::TASK_FAILED,
                    "an operator said that it had failed",
                )
            }
        };
        let (mut ended, done) = finish(&data, Guard::Idle, outcome);
        ended.note = Some(note.to_owned());
        let unit = Unit { finished: vec![ended], accepted: done.into_iter().collect(), ..Unit::default() };
        match self.node.persistence.commit(id.0, unit).await {
            Outcome::Durable => {
                self.node.task_moved(id);
                self.tell_ended(how, id, &data.target);
                self.task(id).await
            }
            Outcome::Refused(_) => {
                let now = self.bare_task(id).await?.state.name();
                Err(wrong_state(format!("task {id} has moved on meanwhile: it is {now}")))
            }
            Outcome::Full(why) => Err(AskError::NoRoom(why).into()),
            Outcome::Failed(why) => Err(AskError::Unavailable(why).into()),
            Outcome::Unknown => Err(AskError::Unknown.into()),
        }
    }

    /// One page of a task's log lines, oldest first. What a run of this node wrote is among them when it has ended.
    ///
    /// # Errors
    /// [`AskError::NotFound`]; an invalid cursor or limit.
    pub async fn task_logs(
        &self,
        id: TaskId,
        cursor: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Page<TaskLine>> {
        let limit = page_limit(limit)?;
        let wrong = |_| OperatorError::Malformed("`cursor` is not one of ours".to_owned());
        let after = cursor.map(|cursor| cursor.parse::<i64>().map_err(wrong)).transpose()?.unwrap_or(0);
        self.bare_task(id).await?;
        self.node.notes.settle(id).await;
        let lines = self.node.store.task_logs(id, after, limit).await?;
        let next_cursor = lines.last().filter(|_| lines.len() == limit).map(|(n, _)| n.to_string());
        let line = |(n, LogLine { at, level, text })| TaskLine { n, at, level, text };
        Ok(Page { items: lines.into_iter().map(line).collect(), next_cursor })
    }
}
