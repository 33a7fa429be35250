//! Deleting an agent.
//!
//! ```text
//! stop: it ends as any agent that is stopped ─► its tasks are cancelled ─► delete, fenced ─► open again
//! ```
//!
//! Each step leaves what an operator can see and go on from: a process that dies in between leaves a stopped
//! agent, which is deleted by asking again.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Operator, OperatorError, Result, not_found, repair::framed, rewrite::check_version, wrong_state,
};
use crate::{
    agent::AskError,
    model::{
        event::{self, Event, Level},
        id::{AgentId, NameError, Target, TaskId},
        targets::Targets,
        task::TaskState,
    },
    runtime::{orchestrator::Notice, views::Action},
    store::{AgentRow, Deletion, StoredStatus, TaskFilter},
};

/// How long tasks that were cancelled may take to end.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often that is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How many tasks are read at once.
const PAGE: usize = 1_000;
/// In these states a task may still change the agent.
const UNFINISHED: [TaskState; 7] = [
    TaskState::Blocked,
    TaskState::Scheduled,
    TaskState::Ready,
    TaskState::Running,
    TaskState::Waiting,
    TaskState::Parked,
    TaskState::OutcomeUnknown,
];

impl Operator {
    /// Deletes an agent, with its kept states, subscriptions and idempotency keys. Its watchers are notified
    /// of its end; its children are stopped. A later message starts it with an empty state; only its version
    /// continues. Returns how many of its tasks were cancelled. `version`: only what is at that version.
    ///
    /// # Errors
    /// [`AskError::NotFound`] if there is none; [`AskError::WrongState`] if tasks wait for it and are
    /// not to be cancelled, or no state is kept of its kind; [`OperatorError::Changed`] where its version is not
    /// `version`, or another node took it over meanwhile: ask again.
    pub async fn delete_agent(
        &self,
        kind: &str,
        key: &str,
        cancel_tasks: bool,
        version: Option<i64>,
    ) -> Result<u64> {
        let (me, kind, key) = (self.clone(), kind.to_owned(), key.to_owned());
        self.to_the_end(async move { me.delete_now(&kind, &key, cancel_tasks, version).await }).await
    }

    async fn delete_now(
        &self,
        kind: &str,
        key: &str,
        cancel_tasks: bool,
        version: Option<i64>,
    ) -> Result<u64> {
        let (_, subject) = self.writable(kind, key)?;
        let _turn = self.node.agent_locks.lock(AgentId::of(kind, key)).await;
        let was = self.kept_row(kind, key, version).await?;
        let waiting = self.unfinished(&subject, None).await?;
        if !waiting.is_empty() && !cancel_tasks {
            let n = match waiting.len() {
                1 => "1 task waits".to_owned(),
                n if n < PAGE => format!("{n} tasks wait"),
                n => format!("{n} tasks or more wait"),
            };
            return Err(wrong_state(format!(
                "{n} for {subject}: have them cancelled (cancel_tasks=true, --cancel-tasks), or let them end"
            )));
        }
        match version {
            Some(version) if was.status == StoredStatus::Normal => self.stop_at(kind, key, version).await?,
            _ => self.act_on(kind, key, Action::Stop, false).await?,
        }
        self.gone(kind, key).await?;
        self.end_is_told(&subject).await?;
        let cancelled = if cancel_tasks { self.cancel_all(&subject).await? } else { 0 };
        self.bury(&self.kept_row(kind, key, version).await?, &subject).await?;
        let event = Event::new(Level::Warn, event::AGENT_DELETED, &*subject).field("by", "operator");
        self.node.logger.emit(event.field("cancelled_tasks", cancelled));
        self.let_go_on(kind, key).await?;
        self.node.notice(Notice::Healed { subject });
        Ok(cancelled)
    }

    /// What is kept of an agent, which is to be at that version where one is given.
    async fn kept_row(&self, kind: &str, key: &str, version: Option<i64>) -> Result<AgentRow> {
        let row = self.row(kind, key).await?;
        let row = row.ok_or_else(|| not_found(format!("nothing is kept of {kind}/{key}")))?;
        check_version(&row, version).map(|()| row)
    }

    /// Stops an agent that is at this version also when its turn has ended; else it goes on.
    async fn stop_at(&self, kind: &str, key: &str, version: i64) -> Result<()> {
        let stop = async {
            self.hold(kind, key).await?;
            self.kept_row(kind, key, Some(version)).await?;
            self.act_on(kind, key, Action::Stop, false).await
        };
        let stopped = stop.await;
        if stopped.is_err() {
            let _ = self.let_go_on(kind, key).await; // why it is not stopped counts
        }
        stopped
    }

    async fn bury(&self, row: &AgentRow, subject: &str) -> Result<()> {
        let epoch = self.node.epoch(row.id);
        let tombstone = framed(row, (epoch, Deletion::behind(row.version)), row.schema_version, &[]);
        let tombstone = tombstone.map_err(wrong_state)?;
        let (id, version) = (row.id, row.version);
        let deletion = Deletion { id, epoch, version, tombstone: Arc::new(tombstone) };
        if !self.node.store.delete_agent(&deletion).await? {
            return Err(OperatorError::Changed(format!("{subject} was changed meanwhile: ask again")));
        }
        self.node.cache.drop_state(id, row.epoch, version).await;
        // Subscriptions may have gone that nobody was told of.
        self.node.topics.doubt();
        self.node.topics.tell_all();
        Ok(())
    }

    /// Cancels what was accepted for a stopped agent until now; what comes from here on starts it anew. How
    /// many have ended so.
    async fn cancel_all(&self, subject: &str) -> Result<u64> {
        let until_now = Some(TaskId::fresh());
        let (mut asked, mut heard) = (HashSet::new(), Instant::now());
        loop {
            let tasks = self.unfinished(subject, until_now).await?;
            if tasks.is_empty() {
                return Ok(asked.len() as u64);
            }
            for id in tasks {
                if !asked.insert(id) {
                    continue;
                }
                heard = Instant::now();
                match self.cancel(id).await {
                    Ok(_) => {}
                    // It has ended by itself.
                    Err(OperatorError::Ask(AskError::WrongState(_) | AskError::NotFound(_))) => {
                        asked.remove(&id);
                    }
                    Err(error) => return Err(error),
                }
            }
            // What runs somewhere is asked to end, and may not hear of it.
            if heard.elapsed() > CANCEL_TIMEOUT {
                let what = format!("tasks for {subject} that were cancelled have not ended");
                return Err(AskError::Overloaded { what, retry_after: CANCEL_TIMEOUT }.into());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The first of the tasks that have not ended and are for an agent, older than an id where one is given.
    async fn unfinished(&self, subject: &str, before: Option<TaskId>) -> Result<Vec<TaskId>> {
        let target: Target =
            subject.parse().map_err(|e: NameError| OperatorError::Malformed(e.to_string()))?;
        let mut found = Vec::new();
        for state in UNFINISHED {
            let mut before = before;
            loop {
                let (state, target) = (Some(state), Some(Targets::One(target.clone())));
                let filter = TaskFilter { state, target, before, limit: PAGE, ..TaskFilter::default() };
                let page = self.node.store.tasks(&filter).await?;
                found.extend(page.items.iter().map(|task| task.id));
                if found.len() >= PAGE {
                    return Ok(found);
                }
                // further back there may be more of them
                before = page.looked_to;
                if before.is_none() {
                    break;
                }
            }
        }
        Ok(found)
    }
}
