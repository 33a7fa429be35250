//! Dead letters, retried or dismissed in bulk: found by filter, counted, and processed in small steps.

use std::time::Duration;

use tokio::time::Instant;

use super::{Operator, OperatorError, Result, invalid};
use crate::{
    model::{
        id::{NameError, TaskId},
        targets::Targets,
        task::{DeadFilter, DeadTask, TaskState},
    },
    runtime::views::{DismissFilter, DismissRequest, RetryFilter, RetryRequest, Swept},
};

/// How many dead letters one page holds.
const PAGE_SIZE: usize = 1_000;
/// How many one transaction retries.
const RETRY_BATCH: usize = 100;
/// How many one call processes at most.
const MAX_PER_CALL: u64 = 10_000;
/// How long one call goes on to further pages.
const CALL_BUDGET: Duration = Duration::from_secs(5);

/// What is done to the dead letters that match.
#[derive(Clone, Copy)]
enum Deed {
    Count,
    BringBack,
    Dismiss,
}

impl Operator {
    /// Retries the failed or cancelled tasks that match the filter, newest first; or, with `dry_run`, counts them.
    /// Tasks that took their node down are left out and counted separately, unless the filter names their code.
    ///
    /// One call processes at most 10,000, in about five seconds at most: continue with `next_cursor`. Tasks that
    /// end meanwhile are newer, and so not processed twice.
    ///
    /// # Errors
    /// An invalid filter or cursor; errors of the store. Tasks retried before the store failed stay retried.
    pub async fn retry_many(&self, request: &RetryRequest) -> Result<Swept> {
        let deed = if request.dry_run { Deed::Count } else { Deed::BringBack };
        self.sweep(&to_retry(&request.filter)?, request.cursor.as_deref(), deed).await
    }

    /// Dismisses the dead letters that match the filter, or counts them; otherwise as
    /// [`Operator::retry_many`]. Nothing is left out.
    ///
    /// # Errors
    /// As [`Operator::retry_many`].
    pub async fn dismiss_many(&self, request: &DismissRequest) -> Result<Swept> {
        let deed = if request.dry_run { Deed::Count } else { Deed::Dismiss };
        self.sweep(&to_dismiss(&request.filter)?, request.cursor.as_deref(), deed).await
    }

    async fn sweep(&self, filter: &DeadFilter, from: Option<&str>, deed: Deed) -> Result<Swept> {
        let mut before = from.map(cursor).transpose()?;
        let (begun, mut count, mut left_out) = (Instant::now(), 0, 0);
        let next_cursor = loop {
            let seen = self.node.store.dead(before, PAGE_SIZE).await?;
            let Some(last) = seen.last().map(|task| task.id) else { break None };
            let is_last = seen.len() < PAGE_SIZE;
            let spared =
                seen.iter().filter(|task| filter.leaves_out(task)).map(|task| task.id).collect::<Vec<_>>();
            let mut meant: Vec<DeadTask> = seen.into_iter().filter(|task| filter.takes(task)).collect();
            let room = usize::try_from(MAX_PER_CALL - count).unwrap_or(PAGE_SIZE);
            let cut = meant.len() > room;
            meant.truncate(room);
            before = if cut { meant.last().map(|task| task.id) } else { Some(last) };
            left_out += spared.iter().filter(|id| before.is_none_or(|before| **id >= before)).count() as u64;
            for some in meant.chunks(RETRY_BATCH) {
                count += match deed {
                    Deed::Count => some.len() as u64,
                    Deed::BringBack => self.bring_back(some).await?,
                    Deed::Dismiss => self.let_rest(some).await?,
                };
            }
            if is_last && !cut {
                break None;
            }
            if count >= MAX_PER_CALL || begun.elapsed() >= CALL_BUDGET {
                break before.map(|id| id.to_string());
            }
        };
        Ok(Swept { dry_run: matches!(deed, Deed::Count), count, left_out, next_cursor })
    }

    async fn bring_back(&self, dead: &[DeadTask]) -> Result<u64> {
        let back = self.node.store.retry_many(dead).await?;
        self.node.wake_dispatcher(true);
        if dead.iter().any(|task| self.node.is_anothers(&task.target)) {
            self.node.news.notify_one();
        }
        Ok(back)
    }

    async fn let_rest(&self, dead: &[DeadTask]) -> Result<u64> {
        let dismissed = self.node.store.dismiss_many(dead).await?;
        dead.iter().for_each(|task| self.node.task_moved(task.id));
        Ok(dismissed)
    }
}

fn to_retry(asked: &RetryFilter) -> Result<DeadFilter> {
    let state = match asked.state {
        None => TaskState::Failed,
        Some(state @ (TaskState::Failed | TaskState::Cancelled)) => state,
        Some(TaskState::OutcomeUnknown) => {
            let why = "what may have happened is tried again one by one: POST /tasks/{id}/retry";
            return Err(invalid("/filter/state", why));
        }
        Some(state) => {
            let why = format!("what is {} cannot be tried again: `failed` or `cancelled`", state.name());
            return Err(invalid("/filter/state", why));
        }
    };
    let target = targets(asked.target.as_deref())?;
    Ok(DeadFilter { state, target, tag: asked.tag.clone(), code: asked.code.clone(), poison: false })
}

fn to_dismiss(asked: &DismissFilter) -> Result<DeadFilter> {
    let target = targets(asked.target.as_deref())?;
    let (tag, code) = (asked.tag.clone(), asked.code.clone());
    Ok(DeadFilter { state: TaskState::Failed, target, tag, code, poison: true })
}

fn targets(text: Option<&str>) -> Result<Option<Targets>> {
    let targets = text.map(str::parse).transpose();
    targets.map_err(|e: NameError| invalid("/filter/target", e.to_string()))
}

fn cursor(text: &str) -> Result<TaskId> {
    text.parse().map_err(|_| OperatorError::Malformed("`cursor` is not one of ours".to_owned()))
}
