//! Dead letters brought back by the hundred: which are meant, how many, and then in small steps.

use std::time::Duration;

use tokio::time::Instant;

use super::{Operator, OperatorError, Result, invalid};
use crate::{
    model::{
        id::{NameError, TaskId},
        task::{DeadFilter, DeadTask, TaskState},
    },
    runtime::views::{Retried, RetryFilter, RetryRequest},
};

/// How many dead letters one look sees.
const LOOK: usize = 1_000;
/// How many one transaction brings back.
const AT_ONCE: usize = 100;
/// How many one call finds.
const MOST: u64 = 10_000;
/// For how long one call goes on to the next look.
const PATIENCE: Duration = Duration::from_secs(5);

impl Operator {
    /// Brings back what failed or was cancelled and is meant by the filter, newest first; or, with `dry_run`, says
    /// how many there are. A call finds 10,000 at most, and takes about five seconds at most: `next_cursor` says
    /// where the next one goes on. Whatever ends meanwhile is newer, and so not met again.
    ///
    /// # Errors
    /// A filter or a cursor that is none. What was brought back before the store failed stays so.
    pub async fn retry_many(&self, request: &RetryRequest) -> Result<Retried> {
        let filter = filter(&request.filter)?;
        let mut before = request.cursor.as_deref().map(cursor).transpose()?;
        let (begun, mut count) = (Instant::now(), 0);
        let next_cursor = loop {
            let seen = self.node.store.dead(before, LOOK).await?;
            let Some(last) = seen.last().map(|task| task.id) else { break None };
            let is_last = seen.len() < LOOK;
            let mut meant: Vec<DeadTask> = seen.into_iter().filter(|task| filter.takes(task)).collect();
            let room = usize::try_from(MOST - count).unwrap_or(LOOK);
            let cut = meant.len() > room;
            meant.truncate(room);
            before = if cut { meant.last().map(|task| task.id) } else { Some(last) };
            if request.dry_run {
                count += meant.len() as u64;
            } else {
                for some in meant.chunks(AT_ONCE) {
                    count += self.bring_back(some).await?;
                }
            }
            if is_last && !cut {
                break None;
            }
            if count >= MOST || begun.elapsed() >= PATIENCE {
                break before.map(|id| id.to_string());
            }
        };
        Ok(Retried { dry_run: request.dry_run, count, next_cursor })
    }

    async fn bring_back(&self, dead: &[DeadTask]) -> Result<u64> {
        let back = self.node.store.retry_many(dead).await?;
        self.node.wake_dispatcher(true);
        if dead.iter().any(|task| self.node.is_anothers(&task.target)) {
            self.node.news.notify_one();
        }
        Ok(back)
    }
}

fn filter(asked: &RetryFilter) -> Result<DeadFilter> {
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
    let target = asked.target.as_deref().map(str::parse).transpose();
    let target = target.map_err(|e: NameError| invalid("/filter/target", e.to_string()))?;
    Ok(DeadFilter { state, target, tag: asked.tag.clone() })
}

fn cursor(text: &str) -> Result<TaskId> {
    text.parse().map_err(|_| OperatorError::Malformed("`cursor` is not one of ours".to_owned()))
}
