//! Schedules: list, add, pause, remove, run now.

use jiff::Timestamp;

use super::{Operator, OperatorError, Result, not_found, tasks::unseen, wrong_state};
use crate::{
    Invalid,
    agent::{
        AskError,
        host::{Submission, Submitter},
        letter::Key,
        reference::{check_key_text, request_hash},
    },
    clock,
    model::{
        event::{self, Event, Level},
        schedule::{Definition, MAX_SCHEDULES, Origin, Schedule, Spec, SpecError, check_schedule},
        task::TaskView,
    },
    runtime::{
        schedules::{MAX_INPUT_BYTES, subject},
        views::{ScheduleRequest, ScheduleView, TaskRequest},
    },
};

/// How many of the next times are shown.
const UPCOMING: usize = 5;

impl Operator {
    /// All schedules, by name.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn schedules(&self) -> Result<Vec<ScheduleView>> {
        let mut views = Vec::new();
        for schedule in self.node.store.schedules().await? {
            views.push(self.seen(schedule).await?);
        }
        Ok(views)
    }

    /// One schedule.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn schedule(&self, name: &str) -> Result<ScheduleView> {
        self.seen(self.stored(name).await?).await
    }

    /// Adds a schedule, which stays until a person removes it.
    ///
    /// # Errors
    /// [`AskError::Invalid`] with all findings; [`AskError::WrongState`] where there is one of that
    /// name, or there are too many; an unknown kind, message or tool.
    pub async fn add_schedule(&self, request: ScheduleRequest) -> Result<ScheduleView> {
        let (definition, spec) = self.definition(&request)?;
        let there = self.node.store.schedules().await?;
        if there.iter().any(|s| s.name == request.name) {
            return Err(taken(&request.name));
        }
        if there.len() >= MAX_SCHEDULES {
            return Err(wrong_state(format!("there are {MAX_SCHEDULES} schedules already: remove one")));
        }
        let mut new = Schedule::new(request.name, definition, &spec, Origin::Operator, clock::now());
        new.paused = request.paused;
        if !self.node.store.put_schedule(&new, None).await? {
            return Err(taken(&new.name));
        }
        self.changed(&new, "added");
        self.schedule(&new.name).await
    }

    /// Removes a schedule. Tasks already submitted are kept.
    ///
    /// # Errors
    /// [`AskError::NotFound`]; [`AskError::WrongState`] where the program declares it.
    pub async fn remove_schedule(&self, name: &str) -> Result<()> {
        loop {
            let schedule = self.stored(name).await?;
            if schedule.origin == Origin::Program {
                let why =
                    format!("the program declares the schedule `{name}`: pause it, or take it out there");
                return Err(wrong_state(why));
            }
            if self.node.store.remove_schedule(name, schedule.revision).await? {
                let event = Event::new(Level::Info, event::SCHEDULE_REMOVED, subject(name));
                self.node.logger.emit(event.field("reason", "an operator removed it"));
                self.node.schedules.changed();
                return Ok(());
            }
        }
    }

    /// Pauses a schedule, or resumes it from its next time; times that passed meanwhile are skipped.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn pause_schedule(&self, name: &str, paused: bool) -> Result<ScheduleView> {
        loop {
            let old = self.stored(name).await?;
            if old.paused == paused {
                return self.seen(old).await;
            }
            let spec = old.definition.spec.parse().map_err(|e: SpecError| wrong_state(e.to_string()))?;
            let new = old.paused(paused, &spec, clock::now());
            if self.node.store.put_schedule(&new, Some(&old)).await? {
                self.changed(&new, if paused { "paused" } else { "resumed" });
                return self.schedule(name).await;
            }
        }
    }

    /// Submits a task of a schedule now, in addition to its nominal times, also while it is paused. `true`: the
    /// idempotency key had been used, and this is the first one.
    ///
    /// # Errors
    /// [`AskError::NotFound`]; those of [`Operator::submit`].
    pub async fn run_schedule(&self, name: &str, key: Option<String>) -> Result<(TaskView, bool)> {
        let schedule = self.stored(name).await?;
        let mut task = schedule.task_now(&self.node.terms_of(&schedule.definition.target));
        task.idempotency_key.clone_from(&key);
        let key = match key {
            None => None,
            Some(text) => {
                check_key_text(&text).map_err(AskError::widen)?;
                let request = request_hash(&task.message, task.input.get());
                Some((task.target.scope(), Key { request, text }))
            }
        };
        let submission = Submission { by: Submitter::Outside, tasks: vec![task], batches: Vec::new(), key };
        let submitted = self.node.clone().accept(submission).await.map_err(AskError::widen)?;
        Ok((self.task(submitted.first).await.map_err(unseen)?, submitted.replayed))
    }

    async fn stored(&self, name: &str) -> Result<Schedule> {
        let found = self.node.store.schedule(name).await?;
        found.ok_or_else(|| not_found(format!("there is no schedule `{}`", name.escape_debug())))
    }

    /// What is asked for, checked.
    fn definition(&self, request: &ScheduleRequest) -> Result<(Definition, Spec)> {
        let mut wrong = Vec::new();
        wrong.extend(check_schedule(&request.name).err().map(|e| ("/name".to_owned(), e.to_string())));
        let spec = request.cron.parse::<Spec>();
        wrong.extend(spec.as_ref().err().map(|e| ("/cron".to_owned(), e.to_string())));
        let task = self.new_task(&TaskRequest {
            target: request.target.clone(),
            message: request.message.clone(),
            input: request.input.clone(),
            priority: request.priority,
            max_attempts: request.max_attempts,
            timeout: request.timeout.clone(),
            tags: request.tags.clone(),
            ..TaskRequest::default()
        });
        let task = task.map(|(task, _)| task);
        match &task {
            Ok(task) if task.input.get().len() > MAX_INPUT_BYTES => {
                wrong.push(("/input".to_owned(), format!("it has more than {MAX_INPUT_BYTES} bytes")));
            }
            Err(OperatorError::Ask(AskError::Invalid(more))) => wrong.extend(more.0.iter().cloned()),
            _ => {}
        }
        match (spec, task) {
            (Ok(spec), Ok(task)) if wrong.is_empty() => {
                let definition = Definition {
                    spec: spec.to_string(),
                    target: task.target,
                    message: task.message,
                    input: task.input,
                    priority: task.priority,
                    max_attempts: request.max_attempts,
                    timeout: task.timeout,
                    tags: task.tags,
                    overlap: request.overlap,
                    misfire: request.misfire,
                };
                Ok((definition, spec))
            }
            (_, Err(error)) if wrong.is_empty() => Err(error),
            _ => Err(AskError::Invalid(Invalid(wrong)).into()),
        }
    }

    fn changed(&self, schedule: &Schedule, action: &str) {
        let event = Event::new(Level::Info, event::SCHEDULE_CHANGED, subject(&schedule.name));
        self.node.logger.emit(event.field("action", action).field("origin", schedule.origin.name()));
        self.node.schedules.changed();
    }

    async fn seen(&self, schedule: Schedule) -> Result<ScheduleView> {
        let last = match schedule.last_task {
            Some(id) => self.node.store.task(id).await?,
            None => None,
        };
        let next_at = schedule.next_at.filter(|_| !schedule.paused);
        let definition = schedule.definition;
        let upcoming: Vec<Timestamp> = match (next_at, definition.spec.parse::<Spec>()) {
            (Some(next), Ok(spec)) => {
                std::iter::once(next).chain(spec.upcoming(next)).take(UPCOMING).collect()
            }
            _ => Vec::new(),
        };
        Ok(ScheduleView {
            name: schedule.name,
            cron: definition.spec,
            target: definition.target,
            message: Some(definition.message).filter(|message| !message.is_empty()),
            input: definition.input,
            priority: definition.priority,
            max_attempts: definition.max_attempts,
            timeout_ms: definition.timeout.map(crate::runtime::millis),
            tags: definition.tags,
            overlap: definition.overlap,
            misfire: definition.misfire,
            origin: schedule.origin,
            paused: schedule.paused,
            next_at,
            upcoming,
            last_at: schedule.last_at,
            last_task: schedule.last_task,
            last_task_state: last.map(|task| task.state),
            created_at: schedule.created_at,
            updated_at: schedule.updated_at,
        })
    }
}

fn taken(name: &str) -> OperatorError {
    wrong_state(format!("there is a schedule `{}` already", name.escape_debug()))
}
