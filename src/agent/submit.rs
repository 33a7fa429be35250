//! Submissions from outside of turns, with the options that every submission has.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::{
    Invalid,
    answer::AskError,
    host::{Host, Submission, Submitter},
    letter::Key,
    message::Message,
    pending::within,
    reference::{as_input, request_hash},
};
use crate::{
    clock,
    model::{
        id::{Target, TaskId},
        task::{Flaw, NewTask, TaskOptions},
    },
};

/// Writes the methods by which a submitter chooses, once for all that submit. Where it is called there is a
/// `choose(self, impl FnOnce(&mut TaskOptions)) -> Self`.
macro_rules! task_options {
    () => {
        /// Runs no earlier than this. Replaces `run_in`.
        pub fn run_at(self, at: jiff::Timestamp) -> Self {
            self.choose(|o| (o.run_at, o.run_in) = (Some(at), None))
        }

        /// Runs no earlier than `d` from now. Replaces `run_at`.
        pub fn run_in(self, d: std::time::Duration) -> Self {
            self.choose(|o| (o.run_at, o.run_in) = (None, Some(d)))
        }

        /// Higher runs first; by default what the target's kind or tool declares, else 0.
        pub fn priority(self, n: i16) -> Self {
            self.choose(|o| o.priority = Some(n))
        }

        /// How many attempts it has; by default what the target's kind or tool declares. 0 is taken as 1.
        pub fn max_attempts(self, n: u32) -> Self {
            self.choose(|o| o.max_attempts = Some(n.max(1)))
        }

        /// How long one attempt may take.
        pub fn timeout(self, d: std::time::Duration) -> Self {
            self.choose(|o| o.timeout = Some(d))
        }

        /// Runs only after these tasks have ended; further calls add to them. One that does not succeed cancels
        /// it, unless [`on_parent_failed`](Self::on_parent_failed) says otherwise.
        pub fn after(self, ids: &[$crate::TaskId]) -> Self {
            self.choose(|o| o.after.extend_from_slice(ids))
        }

        /// What happens when one of the tasks that it comes after does not succeed.
        pub fn on_parent_failed(self, policy: $crate::OnParentFailed) -> Self {
            self.choose(|o| o.on_parent_failed = Some(policy))
        }

        /// Adds a label, by which tasks are found: at most 32, of 256 letters each.
        pub fn tag(self, label: impl Into<String>) -> Self {
            self.choose(|o| o.tags.push(label.into()))
        }

        /// It is cancelled if it has not started by then. Replaces `expires_in`.
        pub fn expires_at(self, at: jiff::Timestamp) -> Self {
            self.choose(|o| (o.expires_at, o.expires_in) = (Some(at), None))
        }

        /// It is cancelled if it has not started `d` from now. Replaces `expires_at`.
        pub fn expires_in(self, d: std::time::Duration) -> Self {
            self.choose(|o| (o.expires_at, o.expires_in) = (None, Some(d)))
        }
    };
}
pub(crate) use task_options;

/// A submission whose options can be set before it is awaited: it is answered with what was accepted, such as the
/// task's id.
#[must_use = "nothing is submitted until it is awaited"]
pub struct Submit<T = TaskId> {
    options: TaskOptions,
    patience: Option<Duration>,
    stage: Stage<T>,
}

type Start<T> = Box<dyn FnOnce(TaskOptions) -> BoxFuture<'static, Result<T, AskError>> + Send>;

enum Stage<T> {
    Tuning(Option<Start<T>>),
    Running(BoxFuture<'static, Result<T, AskError>>),
}

impl<T: 'static> Submit<T> {
    pub(crate) fn new<F>(start: impl FnOnce(TaskOptions) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<T, AskError>> + Send + 'static,
    {
        let start: Start<T> = Box::new(move |options| Box::pin(start(options)));
        Self { options: TaskOptions::default(), patience: None, stage: Stage::Tuning(Some(start)) }
    }

    fn choose(mut self, f: impl FnOnce(&mut TaskOptions)) -> Self {
        f(&mut self.options);
        self
    }

    task_options!();

    /// Waits so long at most for the store to accept it; then the answer is [`AskError::Unknown`].
    pub fn within(mut self, d: Duration) -> Self {
        self.patience = Some(d);
        self
    }
}

impl Submit {
    /// Sets the idempotency key: 1 to 255 bytes, no control characters. A repetition with the same key and the same
    /// request (message, input and options) is answered with the first task, another request with
    /// [`AskError::Conflict`]. The key is scoped to the target and kept for `limits.idempotency_ttl`.
    pub fn idempotency_key(self, key: impl Into<String>) -> Self {
        self.choose(|o| o.idempotency_key = Some(key.into()))
    }
}

impl<T> Unpin for Submit<T> {}

impl<T: Send + 'static> Future for Submit<T> {
    type Output = Result<T, AskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let this = &mut *self;
            match &mut this.stage {
                Stage::Running(future) => return future.as_mut().poll(cx),
                Stage::Tuning(start) => match start.take() {
                    Some(start) => {
                        let work = start(std::mem::take(&mut this.options));
                        this.stage = Stage::Running(Box::pin(within(this.patience, work)));
                    }
                    None => return Poll::Pending,
                },
            }
        }
    }
}

impl From<Flaw> for AskError {
    fn from(flaw: Flaw) -> Self {
        Self::Invalid(Invalid::at(flaw.pointer, flaw.detail))
    }
}

/// A task as it is to be accepted.
///
/// # Errors
/// The message or an option is not valid.
pub(crate) fn task_of<M: Message>(
    host: &dyn Host,
    target: Target,
    message: &M,
    options: &TaskOptions,
) -> Result<NewTask, AskError> {
    let input = as_input(host, message)?;
    options.check()?;
    let name = if matches!(target, Target::Tool(_)) { "" } else { M::NAME };
    let mut task = NewTask::under(&host.terms(&target), target, name, input);
    options.apply(&mut task, clock::now());
    Ok(task)
}

/// The key of a task, where its submitter set one, with what tells its request from others.
pub(crate) fn key_of(task: &NewTask, options: &TaskOptions) -> Option<Key> {
    let text = options.idempotency_key.clone()?;
    let (input, message) = (task.input.get(), &task.message);
    let request = match options.chosen(&task.target) {
        None => request_hash(message, input),
        Some(chosen) => request_hash(&format!("{message} {chosen}"), input),
    };
    Some(Key { text, request })
}

/// Submits a task from outside of turns and tasks.
pub(crate) async fn submit<M: Message>(
    host: Arc<dyn Host>,
    target: Target,
    message: M,
    options: TaskOptions,
) -> Result<TaskId, AskError> {
    let task = task_of(&*host, target, &message, &options)?;
    let key = key_of(&task, &options).map(|key| (task.target.scope(), key));
    let submission = Submission { by: Submitter::Outside, tasks: vec![task], batches: Vec::new(), key };
    Ok(host.submit(submission).await?.first)
}
