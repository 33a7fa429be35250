//! Fan-out of a task function: many tasks that it submits together, their end, and what they came to.

use std::{fmt, marker::PhantomData};

use jiff::Timestamp;

use super::{
    Call, Tool,
    call::AgentCall,
    course::{Asked, read},
};
use crate::{
    agent::{
        Agent, AskError, Joined, Message, Outcome, Pending,
        messages::Accepts,
        reference::request_hash,
        submit::{Submit, task_of},
    },
    clock,
    model::{
        id::{Target, TaskId},
        journal::joined,
        task::{MAX_BATCH, NewTask, TaskOptions},
    },
};

/// So many bytes of inputs leave together at most: they are one transaction.
const MAX_BYTES: usize = 64 << 20;

/// Tasks that a task function submitted together, by [`Call::submit_all`]; [`Call::join`] waits for their end.
pub struct Fanout<M> {
    pub(super) batch: TaskId,
    pub(super) tasks: Vec<TaskId>,
    pub(super) _message: PhantomData<fn() -> M>,
}

impl<M> Clone for Fanout<M> {
    fn clone(&self) -> Self {
        Self { batch: self.batch, tasks: self.tasks.clone(), _message: PhantomData }
    }
}

impl<M> fmt::Debug for Fanout<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fanout").field("batch", &self.batch).field("tasks", &self.tasks.len()).finish()
    }
}

impl<M> Fanout<M> {
    /// The batch's id.
    pub fn id(&self) -> TaskId {
        self.batch
    }

    /// The tasks, in the order of their inputs.
    pub fn tasks(&self) -> &[TaskId] {
        &self.tasks
    }
}

impl Call {
    /// Submits many tasks for a tool as one batch, all or none: its children. Exactly once, however often this call
    /// runs. Options are those of each task. At most 100,000 inputs, of 64 MiB together.
    ///
    /// # Errors
    /// See [`AskError`]. The call does not run as a task.
    pub fn submit_all<T: Tool>(
        &self,
        inputs: impl IntoIterator<Item = T::Input>,
    ) -> Submit<Fanout<T::Input>> {
        self.fan_out(Target::Tool(T::NAME.to_owned()), inputs)
    }

    pub(super) fn fan_out<M: Message>(
        &self,
        target: Target,
        inputs: impl IntoIterator<Item = M>,
    ) -> Submit<Fanout<M>> {
        let (this, inputs): (_, Vec<M>) = (self.clone(), inputs.into_iter().collect());
        Submit::new(move |options| async move {
            let Some(course) = this.course() else {
                let why = "only a task can fan out: submit the tool in place of calling it";
                return Err(AskError::WrongState(why.to_owned()));
            };
            let tasks = this.tasks_of(&target, &inputs, &options)?;
            let input: String = tasks.iter().map(hash_of).collect();
            let at = format!("submit_all {target} {}", tasks.first().map_or("", |task| &*task.message));
            let asked = Asked { target: &at, input: &input, once: false };
            let (batch, tasks) = course.submit_all(asked, tasks).await?;
            Ok(Fanout { batch, tasks, _message: PhantomData })
        })
    }

    fn tasks_of<M: Message>(
        &self,
        target: &Target,
        inputs: &[M],
        options: &TaskOptions,
    ) -> Result<Vec<NewTask>, AskError> {
        if inputs.len() > MAX_BATCH {
            return Err(AskError::TooLarge(format!("`submit_all` takes at most {MAX_BATCH} inputs")));
        }
        let (mut tasks, mut bytes) = (Vec::with_capacity(inputs.len()), 0);
        for (n, input) in inputs.iter().enumerate() {
            let task = task_of(self.host(), target.clone(), input, options).map_err(|e| match e {
                AskError::Invalid(invalid) => AskError::Invalid(invalid.within(&format!("/{n}"))),
                other => other,
            })?;
            bytes += task.input.get().len();
            if bytes > MAX_BYTES {
                return Err(AskError::TooLarge("`submit_all` takes at most 64 MiB of inputs".to_owned()));
            }
            tasks.push(task);
        }
        Ok(tasks)
    }

    /// Waits until all tasks of a [fan-out](Call::submit_all) have ended, for days if needed and across restarts: as
    /// [`wait_for`](Call::wait_for) waits, without a slot. A task whose outcome is unknown has not ended until a
    /// person says what happened; one that a person brings back later changes nothing.
    ///
    /// # Errors
    /// [`NoSignal`](crate::NoSignal): not all have ended within the `timeout`. The call does not run as a task.
    pub fn join<M: Message>(&self, fanout: &Fanout<M>) -> Pending<'static, Joined<M>, anyhow::Error> {
        let (this, batch, none) = (self.clone(), fanout.batch, fanout.tasks.is_empty());
        Pending::new(move |options| async move {
            if none {
                return Ok(Joined::nothing(batch));
            }
            let until = options.timeout.map(|d| clock::now().checked_add(d).unwrap_or(Timestamp::MAX));
            let body = this.wait(&joined(batch), until).await?;
            read(&body).map_err(|e| anyhow::anyhow!("the end of batch {batch} cannot be read: {e}"))
        })
    }

    /// How a task of a [fan-out](Call::submit_all) ended, or another that is for an `M`; recorded.
    ///
    /// # Errors
    /// [`AskError::WrongState`]: it has not ended; [`AskError::NotFound`]: nobody knows it (any more: it is kept for
    /// `tasks.retention`). The call does not run as a task.
    pub fn outcome<M: Message>(
        &self,
        task: TaskId,
    ) -> Pending<'static, Outcome<M::Reply, M::Error>, AskError> {
        let this = self.clone();
        Pending::new(move |_| async move {
            match this.course() {
                Some(course) => course.outcome::<M>(task).await,
                None => {
                    let why =
                        "only a task reads the outcome of others: submit the tool in place of calling it";
                    Err(AskError::WrongState(why.to_owned()))
                }
            }
        })
    }
}

impl<B: Agent> AgentCall<B> {
    /// Submits many durable tasks for the agent as one batch, all or none: this task's children. See
    /// [`Call::submit_all`].
    ///
    /// # Errors
    /// See [`AskError`]. The call does not run as a task.
    pub fn submit_all<M: Message, I>(&self, messages: impl IntoIterator<Item = M>) -> Submit<Fanout<M>>
    where
        B: Accepts<M, I>,
    {
        self.call.fan_out(Target::agent(B::KIND, self.agent.address().key), messages)
    }
}

fn hash_of(task: &NewTask) -> String {
    format!("{:032x}", u128::from_be_bytes(request_hash("", task.input.get())))
}
