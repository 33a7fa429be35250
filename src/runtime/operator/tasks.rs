//! Tasks: submit, list, wait, cancel, retry.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Operator, OperatorError, Result, TaskQuery,
    family::MAX_SHOWN,
    invalid,
    messages::{check, unknown_message},
    not_found, page_limit, wrong_state,
};
use crate::{
    agent::{
        AskError, Shape,
        host::{Submission, Submitter},
        letter::Key,
        reference::{check_key_text, request_hash},
        submit::key_of,
    },
    clock,
    model::{
        event::{self, Event, Level},
        id::{NameError, Target, TaskId, scope_of},
        task::{DeadTask, NewTask, TaskEvent, TaskOptions, TaskState, TaskView, TaskWait, by_name, circle},
        units::parse_duration,
    },
    runtime::{
        dispatcher::Cancel,
        doomed_tasks::{is_interrupted, unknown},
        persistence::Outcome,
        settle::finish,
        views::{Page, TaskRequest},
    },
    store::{CancelFound, FinishOutcome, Guard, TaskFilter, TaskPage, Unit},
};

/// How soon somebody who waits for another node's task asks the store for the first time: twice this.
const SOON: Duration = Duration::from_millis(10);
/// The longest time between two such questions.
const LATER: Duration = Duration::from_secs(1);
/// How many tasks of a batch one query reads, to be shown.
const VIEWS_AT_ONCE: usize = 1_000;

/// An error of one task of a batch, with the place where it stands there.
fn within(at: &str, error: OperatorError) -> OperatorError {
    match error {
        OperatorError::Ask(AskError::Invalid(invalid)) => {
            OperatorError::Ask(AskError::Invalid(invalid.within(at)))
        }
        other => other,
    }
}

/// What was accepted cannot be shown. Nobody may take that for a refusal: to submit it again would be to do it twice.
pub(super) fn unseen(_: OperatorError) -> OperatorError {
    OperatorError::Ask(AskError::Unknown)
}

impl Operator {
    /// Submits a task. `true`: the idempotency key had been used, and this is the first one.
    ///
    /// # Errors
    /// See [`OperatorError`]; nothing was accepted, unless it is [`AskError::Unknown`].
    pub async fn submit(&self, request: TaskRequest) -> Result<(TaskView, bool)> {
        if request.name.is_some() {
            return Err(invalid("/name", "only the tasks of a batch have names"));
        }
        let (task, options) = self.new_task(&request)?;
        let key = key_of(&task, &options).map(|key| (task.target.scope(), key));
        let submission = Submission { by: Submitter::Outside, tasks: vec![task], batches: Vec::new(), key };
        let submitted = self.node.clone().accept(submission).await.map_err(AskError::widen)?;
        Ok((self.task(submitted.first).await.map_err(unseen)?, submitted.replayed))
    }

    /// Submits several tasks, all or none; they may name each other as prerequisites by
    /// their names in the batch. They are returned as lists show them.
    ///
    /// A key is one for all of them: the same batch under it again is not submitted, and answered with the first
    /// one's tasks (`true`). It is kept for `limits.idempotency_ttl`. The tasks have none of their own.
    ///
    /// # Errors
    /// See [`OperatorError`]; nothing was accepted, unless it is [`AskError::Unknown`]. A cycle is invalid; another
    /// batch under the same key is a [`AskError::Conflict`].
    pub async fn submit_batch(
        &self,
        requests: Vec<TaskRequest>,
        key: Option<String>,
    ) -> Result<(Vec<TaskView>, bool)> {
        let key = match key {
            None => None,
            Some(text) => {
                check_key_text(&text).map_err(AskError::widen)?;
                let asked =
                    serde_json::to_string(&requests).map_err(|e| OperatorError::Malformed(e.to_string()))?;
                Some((scope_of("batches"), Key { request: request_hash("", &asked), text }))
            }
        };
        let named = by_name(requests.iter().map(|request| request.name.as_deref()))
            .map_err(|n| invalid(&format!("/tasks/{n}/name"), "another one in the batch has this name"))?;
        let mut tasks = Vec::with_capacity(requests.len());
        let mut parents = vec![Vec::new(); requests.len()];
        for (n, (request, parents)) in requests.iter().zip(&mut parents).enumerate() {
            let at = format!("/tasks/{n}");
            if request.idempotency_key.is_some() {
                let why =
                    "the tasks of a batch have no keys of their own: give the batch one, or submit it alone";
                return Err(invalid(&format!("{at}/idempotency_key"), why));
            }
            let (others, ids) = request.after.iter().cloned().partition(|name| named.contains_key(&**name));
            let alone = TaskRequest { after: ids, name: None, ..request.clone() };
            tasks.push(self.new_task(&alone).map_err(|e| within(&at, e))?.0);
            parents.extend(others.iter().filter_map(|name: &String| named.get(&**name).copied()));
        }
        if let Some(circle) = circle(&parents) {
            let name = |n: usize| requests.get(n).and_then(|r| r.name.clone()).unwrap_or_default();
            let told = circle.iter().map(|n| format!("`{}`", name(*n))).collect::<Vec<_>>().join(" after ");
            let at = circle.first().copied().unwrap_or_default();
            return Err(invalid(&format!("/tasks/{at}/after"), format!("they wait for each other: {told}")));
        }
        let ids: Vec<_> = tasks.iter().map(|t| t.id).collect();
        for (task, parents) in tasks.iter_mut().zip(&parents) {
            task.after.extend(parents.iter().filter_map(|n| ids.get(*n)));
        }
        let submission = Submission { by: Submitter::Outside, tasks, batches: Vec::new(), key };
        let submitted = self.node.clone().accept(submission).await.map_err(AskError::widen)?;
        let again = submitted.replayed;
        let ids = if again { submitted.all } else { ids };
        let mut views = HashMap::with_capacity(ids.len());
        for some in ids.chunks(VIEWS_AT_ONCE) {
            let some = self.node.store.relatives(some).await.map_err(|e| unseen(e.into()))?;
            views.extend(some.into_iter().map(|view| (view.id, view)));
        }
        let views = ids.iter().map(|id| views.remove(id).ok_or(OperatorError::Ask(AskError::Unknown)));
        Ok((views.collect::<Result<_>>()?, again))
    }

    /// One page of tasks, newest first. A call scans about ten thousand tasks: if few of them match, a page
    /// is short or empty, and still has a cursor.
    ///
    /// # Errors
    /// An invalid cursor or limit.
    pub async fn tasks(&self, query: &TaskQuery) -> Result<Page<TaskView>> {
        let limit = page_limit(query.limit)?;
        let before = match &query.cursor {
            None => None,
            Some(cursor) => Some(
                cursor
                    .parse()
                    .map_err(|_| OperatorError::Malformed("`cursor` is not one of ours".to_owned()))?,
            ),
        };
        let (target, tag) = (query.target.clone(), query.tag.clone());
        let filter = TaskFilter { state: query.state, target, tag, before, limit };
        let TaskPage { items, looked_to } = self.node.store.tasks(&filter).await?;
        let last = items.last().filter(|_| items.len() == limit).map(|task| task.id);
        let next_cursor = last.or(looked_to).map(|id| id.to_string());
        Ok(Page { items, next_cursor })
    }

    /// One task as its row has it: what it is about, and its state.
    pub(super) async fn bare_task(&self, id: TaskId) -> Result<TaskView> {
        self.node.store.task(id).await?.ok_or_else(|| not_found(format!("no task {id}")))
    }

    /// One task.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn task(&self, id: TaskId) -> Result<TaskView> {
        let mut view = self.bare_task(id).await?;
        let here = self.node.calls.get(&id).and_then(|call| call.notes().latest());
        let progress = match here.or_else(|| self.node.notes.latest(id)) {
            Some(progress) => Some(progress),
            None if view.state == TaskState::Ready && view.attempt == 0 => None,
            None => self.node.store.progress(id).await?,
        };
        view.progress = progress.and_then(|progress| serde_json::from_str(progress.get()).ok());
        match view.state {
            TaskState::Blocked => view.prerequisites = self.node.store.prerequisites(id, MAX_SHOWN).await?,
            TaskState::Waiting => {
                let waits = self.node.store.waits(id).await?.into_iter();
                view.waits = waits.map(TaskWait::from).collect();
                let order = |wait: &TaskWait| (wait.until.unwrap_or(Timestamp::MAX), wait.signal.clone());
                view.waits.sort_by_key(order);
            }
            _ => {}
        }
        Ok(view)
    }

    /// One task, once it has ended (or waits for a person) or the time has elapsed, whichever is first.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn wait(&self, id: TaskId, at_most: Duration) -> Result<TaskView> {
        let until = tokio::time::Instant::now() + at_most;
        let mut moved = self.node.moved.subscribe();
        let mut pause = SOON;
        loop {
            let view = self.bare_task(id).await?;
            if view.state.is_final()
                || view.state == TaskState::OutcomeUnknown
                || tokio::time::Instant::now() >= until
            {
                return self.task(id).await;
            }
            // The store is asked again now and then, in case a hint was missed; what runs on another node
            // gives none.
            pause = if self.node.is_anothers(&view.target) { LATER.min(pause * 2) } else { LATER };
            let backstop = until.min(tokio::time::Instant::now() + pause);
            loop {
                match tokio::time::timeout_at(backstop, moved.recv()).await {
                    Ok(Ok(other)) if other != id => {}
                    _ => break,
                }
            }
        }
    }

    /// A task with its input, while that is kept: until it ends, and for tasks that failed or whose
    /// outcome is unknown.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn task_with_input(&self, id: TaskId) -> Result<TaskView> {
        let view = self.task(id).await?;
        let keeps = !view.state.is_final() || view.state == TaskState::Failed;
        let data = if keeps { self.node.store.task_data(id).await? } else { None };
        Ok(TaskView { input: data.map(|data| data.input), ..view })
    }

    /// Its history, oldest first.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn history(&self, id: TaskId) -> Result<Vec<TaskEvent>> {
        self.bare_task(id).await?;
        Ok(self.node.store.history(id).await?)
    }

    /// Cancels a task; a running attempt is asked to end. One that was lost in the middle of what takes effect once is
    /// `outcome_unknown` afterwards; cancelled once more, it is cancelled.
    ///
    /// # Errors
    /// [`AskError::WrongState`] where it has ended already.
    pub async fn cancel(&self, id: TaskId) -> Result<TaskView> {
        match self.node.store.cancel(id).await? {
            None => return Err(not_found(format!("no task {id}"))),
            Some(CancelFound::Final(TaskState::Cancelled)) => {}
            Some(CancelFound::Final(state)) => {
                return Err(wrong_state(format!("task {id} has already {}", state.name())));
            }
            Some(CancelFound::Running) => {
                if let Some(actors) = self.node.actors() {
                    let _ = actors.dispatcher.send(Cancel(id)).await;
                }
                return self.wait(id, Duration::from_secs(2)).await;
            }
            Some(CancelFound::Idle) => {
                let data =
                    self.node.store.task_data(id).await?.ok_or_else(|| not_found(format!("no task {id}")))?;
                let state = self.bare_task(id).await?.state;
                let has_run = matches!(state, TaskState::Ready | TaskState::Scheduled | TaskState::Waiting);
                let outcome = match has_run && is_interrupted(&self.node, &data).await? {
                    true => FinishOutcome::OutcomeUnknown { error: unknown() },
                    false => FinishOutcome::Cancelled,
                };
                let cancelled = matches!(outcome, FinishOutcome::Cancelled);
                let (mut ended, done) = finish(&data, Guard::Idle, outcome);
                ended.note = Some("by an operator".to_owned());
                let unit =
                    Unit { finished: vec![ended], accepted: done.into_iter().collect(), ..Unit::default() };
                match self.node.persistence.commit(id.0, unit).await {
                    Outcome::Durable => {
                        self.node.task_moved(id);
                        if cancelled {
                            self.tell_ended(event::TASK_CANCELLED, id, &data.target);
                        }
                    }
                    // It began, or ended, meanwhile: what it is now is the answer.
                    Outcome::Refused(_) => return Box::pin(self.cancel(id)).await,
                    Outcome::Full(why) => return Err(AskError::NoRoom(why).into()),
                    Outcome::Failed(why) => return Err(AskError::Unavailable(why).into()),
                    Outcome::Unknown => return Err(AskError::Unknown.into()),
                }
            }
        }
        self.task(id).await
    }

    /// Writes down an end that a person decided.
    pub(super) fn tell_ended(&self, how: &'static str, id: TaskId, target: &Target) {
        if self.node.logger.wants(Level::Debug, how) {
            let event = Event::new(Level::Debug, how, format!("task:{id}"));
            self.node.logger.emit(event.field("target", target.to_string()).field("by", "operator"));
        }
    }

    /// Retries a dead letter, or confirms that an interrupted effect may run again.
    ///
    /// # Errors
    /// [`AskError::WrongState`] where it has not failed.
    pub async fn retry(&self, id: TaskId) -> Result<TaskView> {
        match self.node.store.retry(id).await? {
            None => Err(not_found(format!("no task {id}"))),
            Some(Err(state)) => {
                Err(wrong_state(format!("task {id} is {}: only what failed can be retried", state.name())))
            }
            Some(Ok(())) => {
                self.node.wake_dispatcher(true);
                self.task(id).await
            }
        }
    }

    /// Dismisses a dead letter: it becomes cancelled, and keeps its error and history.
    ///
    /// # Errors
    /// [`AskError::WrongState`] where it has not failed.
    pub async fn dismiss(&self, id: TaskId) -> Result<TaskView> {
        let task = self.bare_task(id).await?;
        let seen = DeadTask { id, state: task.state, target: task.target, tags: task.tags, code: None };
        if task.state == TaskState::Failed && self.node.store.dismiss_many(&[seen]).await? == 1 {
            self.node.task_moved(id);
            return self.task(id).await;
        }
        let is = self.bare_task(id).await?.state.name();
        Err(wrong_state(format!("task {id} is {is}: only what failed can be dismissed")))
    }

    /// A task as it is to be accepted, and what was chosen for it.
    pub(super) fn new_task(&self, request: &TaskRequest) -> Result<(NewTask, TaskOptions)> {
        let target: Target =
            request.target.parse().map_err(|e: NameError| invalid("/target", e.to_string()))?;
        let input = request.input.clone().unwrap_or(Value::Null);
        let raw =
            serde_json::value::to_raw_value(&input).map_err(|e| OperatorError::Malformed(e.to_string()))?;
        let check = |shape: &Shape| {
            let whole =
                check(shape, &input).and_then(|()| Ok(shape.read(&raw).map_err(AskError::Invalid)?));
            whole.map_err(|e| within("/input", e))
        };
        let name = match &target {
            Target::Agent { kind, .. } => {
                let (_, kind) = self.kind_of(kind)?;
                let message = request
                    .message
                    .as_deref()
                    .ok_or_else(|| invalid("/message", "a task for an agent needs a message"))?;
                let shape = kind.shape(message).ok_or_else(|| unknown_message(kind, message))?;
                check(&shape)?;
                message
            }
            Target::Tool(name) => {
                if request.message.is_some() {
                    return Err(invalid("/message", "a task for a tool has none"));
                }
                let tool = self
                    .node
                    .tools
                    .get(name.as_str())
                    .ok_or_else(|| not_found(format!("no tool `{name}`")))?;
                check(tool.shape())?;
                ""
            }
        };
        let limit = self.node.settings.load().limits.message_bytes;
        if raw.get().len() as u64 > limit {
            return Err(
                AskError::TooLarge(format!("the input is over limits.message_bytes ({limit})")).into()
            );
        }
        let options = options_of(request)?;
        let mut task = NewTask::under(&self.node.terms_of(&target), target, name, raw);
        options.apply(&mut task, clock::now());
        Ok((task, options))
    }
}

/// What a request chooses, checked.
fn options_of(request: &TaskRequest) -> Result<TaskOptions> {
    let duration = |pointer: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => parse_duration(text).map(Some).map_err(|e| invalid(pointer, e.to_string())),
    };
    if request.max_attempts == Some(0) {
        return Err(invalid("/max_attempts", "a task has at least 1 attempt"));
    }
    let run_in = duration("/run_in", &request.run_in)?;
    if run_in.is_some() && request.run_at.is_some() {
        return Err(invalid("/run_in", "give `run_at` or `run_in`, not both"));
    }
    let expires_in = duration("/expires_in", &request.expires_in)?;
    if expires_in.is_some() && request.expires_at.is_some() {
        return Err(invalid("/expires_in", "give `expires_at` or `expires_in`, not both"));
    }
    let timeout = duration("/timeout", &request.timeout)?;
    let id = |(n, id): (usize, &String)| {
        id.parse().map_err(|_| invalid(&format!("/after/{n}"), "this is not a task id"))
    };
    let options = TaskOptions {
        run_at: request.run_at,
        run_in,
        priority: request.priority,
        max_attempts: request.max_attempts,
        timeout,
        after: request.after.iter().enumerate().map(id).collect::<Result<_>>()?,
        on_parent_failed: request.on_parent_failed,
        tags: request.tags.clone(),
        expires_at: request.expires_at,
        expires_in,
        idempotency_key: request.idempotency_key.clone(),
    };
    options.check().map_err(|flaw| invalid(&flaw.pointer, flaw.detail))?;
    Ok(options)
}
