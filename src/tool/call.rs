//! A call, as a tool sees it. A task function is a call that runs as a task.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    CallMeta, Effect, Out, Refusal, Tool, by, call_tool,
    course::{Asked, Course, read},
    notes::Notes,
};
use crate::{
    Settings,
    agent::{
        Agent, AskError, Data, Handler, Invalid, Message, Pending,
        chain::{Chain, Waiting},
        host::{Host, Submission, Submitter},
        messages::Accepts,
        reference::{AgentRef, Ask, check_size},
        submit::{Submit, key_of, task_of},
    },
    clock,
    model::{event::Level, id::Target, journal::check_signal_name},
};

/// One call of a tool: owned, cheap to clone; task functions take it by value.
///
/// In a call that runs as a task, its [calls](Self::call), asks, submissions and [waits](Self::wait_for) are
/// recorded with their answers. When the task runs again (its node died, it had to wait, an attempt failed) the
/// function starts from its top, and these return the recorded answers at once; so they happen once. A call is
/// identified by its target, its input and its occurrence; calls to *one* target must be made in the same order
/// in each run, or the task fails with the code `diverged`. Errors other than a refusal are not recorded: such a
/// call is made again. Anything else that a function does (reads a clock, writes a file) is done in each run.
#[derive(Clone)]
pub struct Call(Arc<Inner>);

struct Inner {
    host: Arc<dyn Host>,
    key: String,
    attempt: u32,
    cancel: CancellationToken,
    /// Of a call that runs as a task.
    course: Option<Course>,
    /// The tool's name.
    tool: &'static str,
    /// Until when its caller waits.
    deadline: Option<Instant>,
    /// Who waits for it.
    chain: Chain,
    notes: Notes,
}

/// A wait has ended without its signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no signal `{name}` came in time")]
pub struct NoSignal {
    /// What was waited for.
    pub name: String,
}

impl Call {
    pub(crate) fn new(
        host: Arc<dyn Host>,
        tool: &'static str,
        meta: CallMeta,
        cancel: CancellationToken,
    ) -> Self {
        let CallMeta { key, attempt, task, deadline, chain, .. } = meta;
        let course = task.map(|task| Course::new(host.clone(), &task));
        let notes = Notes::default();
        Self(Arc::new(Inner { host, key, attempt, cancel, course, tool, deadline, chain, notes }))
    }

    /// Whether both are the same call.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Who waits for what this call waits for: the call itself too, as long as the second value lives.
    fn chain(&self) -> (Chain, Waiting) {
        self.0.chain.and(&format!("tool:{}", self.0.tool))
    }

    /// Until when something that it calls is to have ended, which may take so long.
    fn deadline(&self, timeout: Option<Duration>) -> Option<Instant> {
        [by(timeout), self.0.deadline].into_iter().flatten().min()
    }

    pub(super) fn host(&self) -> &dyn Host {
        &*self.0.host
    }

    pub(crate) fn course(&self) -> Option<&Course> {
        self.0.course.as_ref()
    }

    pub(crate) fn notes(&self) -> &Notes {
        &self.0.notes
    }

    /// A key that is the same whenever this call is made again: the task's id, or one derived from
    /// the turn that calls.
    pub fn idempotency_key(&self) -> &str {
        &self.0.key
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Whether the call is asked to end.
    pub fn cancelled(&self) -> bool {
        self.0.cancel.is_cancelled()
    }

    /// Waits until the call is asked to end. If it has not ended a second later, it is dropped.
    pub async fn until_cancelled(&self) {
        self.0.cancel.cancelled().await;
    }

    pub(crate) fn cancel(&self) {
        self.0.cancel.cancel();
    }

    /// Reports progress: a fraction from 0 to 1, and a text (at most 1,000 characters are kept). The last report
    /// counts; that of a task is stored about twice a second. It is a [heartbeat](Self::heartbeat) too.
    pub fn progress(&self, fraction: f32, text: impl Into<String>) {
        self.0.notes.progress(fraction, text.into());
        self.noted();
    }

    /// Publishes a partial result; the last one counts.
    ///
    /// # Errors
    /// It cannot be serialised to JSON, or exceeds `limits.message_bytes`.
    pub fn partial(&self, part: &impl serde::Serialize) -> anyhow::Result<()> {
        self.0.notes.partial(part, self.0.host.message_bytes())?;
        self.noted();
        Ok(())
    }

    /// Writes a line to the task's own log (`tasks show`); also a heartbeat. The last 1,000 unwritten lines of
    /// a run are kept, and 4,000 characters of each.
    pub fn log(&self, level: Level, text: impl Into<String>) {
        self.0.notes.log(clock::now(), level, text.into());
        self.noted();
    }

    /// Signals that the call is alive: required at this interval of a tool that sets
    /// [`Limits::heartbeat`](super::Limits::heartbeat).
    pub fn heartbeat(&self) {
        self.0.notes.beat();
    }

    fn noted(&self) {
        if self.0.course.is_some() {
            self.0.host.noted();
        }
    }

    /// Calls another tool. A `once` tool can be called by a task only: if it is interrupted, the task ends as
    /// `outcome_unknown`, and a person says what happened.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn call<T: Tool>(&self, input: T::Input) -> Pending<'static, Out<T>, AskError<Refusal<T>>> {
        let this = self.clone();
        Pending::new(move |options| async move {
            let Inner { host, key: own, course, .. } = &*this.0;
            let once = T::EFFECT == Effect::Once;
            let Some(course) = course else {
                if once {
                    return Err(AskError::WrongState(format!(
                        "`{}` takes effect once: submit it as a task",
                        T::NAME
                    )));
                }
                let key = options.key.unwrap_or_else(|| format!("{own}/{}", T::NAME));
                let (chain, _waiting) = this.chain();
                let deadline = this.deadline(options.timeout);
                let meta = CallMeta { key, deadline, chain, ..CallMeta::default() };
                return call_tool::<T>(host.clone(), input, meta).await;
            };
            let body = body(&**host, &input).map_err(AskError::widen)?;
            let asked = Asked { target: &format!("tool:{}", T::NAME), input: &body, once };
            let (chain, _waiting) = this.chain();
            let make = |key| {
                let (key, deadline) = (options.key.unwrap_or(key), this.deadline(options.timeout));
                call_tool::<T>(host.clone(), input, CallMeta { key, deadline, chain, ..CallMeta::default() })
            };
            course.call::<T::Input, _>(asked, make).await
        })
    }

    /// Submits a task for a tool: its child. Exactly once, however often this call runs.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn submit<T: Tool>(&self, input: T::Input) -> Submit {
        self.submit_to(Target::Tool(T::NAME.to_owned()), input)
    }

    fn submit_to<M: Message>(&self, target: Target, input: M) -> Submit {
        let this = self.clone();
        Submit::new(move |options| async move {
            let Inner { host, course, .. } = &*this.0;
            let mut task = task_of(&**host, target, &input, &options)?;
            let key = key_of(&task, &options).map(|key| (task.target.scope(), key));
            let Some(course) = course else {
                let submission =
                    Submission { by: Submitter::Work, tasks: vec![task], batches: Vec::new(), key };
                return Ok(host.submit(submission).await?.first);
            };
            task.parent = Some(course.task());
            let at = format!("submit {} {}", task.target, task.message);
            let body = task.input.get().to_owned();
            let asked = Asked { target: &at, input: &body, once: false };
            course.submit(asked, task, key).await
        })
    }

    /// Waits for a signal of this name (`tasks signal`, `POST /tasks/{id}/signals/{name}`), such as an approval,
    /// for days if needed and across restarts. The n-th wait for a name takes the n-th signal, also one that
    /// arrived earlier. If there is none yet, the run ends and releases its slot; the task runs again, from
    /// its top, when the signal arrives or the timeout elapses. Finish other work first: whatever runs
    /// concurrently with a wait, and is not a recorded call, is dropped with the run.
    ///
    /// # Errors
    /// [`NoSignal`]: no signal within the `timeout`; a task that fails with it is not retried. The signal's
    /// content is not a `D`. The call does not run as a task.
    pub fn wait_for<D: Data>(&self, signal: &str) -> Pending<'static, D, anyhow::Error> {
        let (this, name) = (self.clone(), signal.to_owned());
        Pending::new(move |options| async move {
            check_signal_name(&name).map_err(anyhow::Error::msg)?;
            let until = options.timeout.map(|d| clock::now().checked_add(d).unwrap_or(Timestamp::MAX));
            let body = this.wait(&name, until).await?;
            read(&body).map_err(|e| anyhow::anyhow!("the signal `{name}` cannot be read: {e}"))
        })
    }

    /// What the signal says.
    pub(super) async fn wait(&self, name: &str, until: Option<Timestamp>) -> anyhow::Result<Box<RawValue>> {
        let Some(course) = &self.0.course else {
            anyhow::bail!("only a task can wait for `{name}`: submit the tool in place of calling it");
        };
        course.wait(name, until).await.ok_or_else(|| NoSignal { name: name.to_owned() }.into())
    }

    /// A reference to an agent.
    pub fn agent<B: Agent>(&self, key: impl AsRef<str>) -> AgentCall<B> {
        AgentCall { call: self.clone(), agent: AgentRef::new(&*self.0.host, key.as_ref()) }
    }

    /// The program's own section of the configuration, as of now.
    pub fn settings<S: Settings>(&self) -> Arc<S> {
        super::settings(&*self.0.host)
    }
}

fn body(host: &dyn Host, message: &impl serde::Serialize) -> Result<String, AskError> {
    let body =
        serde_json::to_string(message).map_err(|e| AskError::Invalid(Invalid::at("", e.to_string())))?;
    check_size(host, &body)?;
    Ok(body)
}

/// A reference to an agent, for use in a call.
pub struct AgentCall<B: Agent> {
    pub(super) call: Call,
    pub(super) agent: AgentRef<B>,
}

impl<B: Agent> AgentCall<B> {
    /// Asks, and waits for the reply; in a task, a recorded call. A repetition has the same idempotency key.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask<M: Message, I>(&self, m: M) -> Pending<'static, M::Reply, AskError<M::Error>>
    where
        B: Accepts<M, I>,
        I: 'static,
    {
        let (call, agent) = (self.call.clone(), self.agent.clone());
        Pending::new(move |options| async move {
            let (chain, _waiting) = call.chain();
            let callee = format!("{}/{}", B::KIND, agent.address().key);
            chain.admits(&callee).map_err(AskError::Cycle)?;
            let ask = |key: Option<String>, m: M| -> Ask<B, M, I> {
                let ask = agent.ask(m).with_chain(chain);
                let ask = match call.deadline(options.timeout) {
                    Some(deadline) => ask.timeout(deadline.saturating_duration_since(Instant::now())),
                    None => ask,
                };
                match key {
                    Some(key) => ask.idempotency_key(key),
                    None => ask,
                }
            };
            let Some(course) = &call.0.course else { return ask(options.key, m).await };
            let body = body(&*call.0.host, &m).map_err(AskError::widen)?;
            let target = format!("{callee} {}", M::NAME);
            let dedupes = !<B as Handler<M>>::READ_ONLY;
            let asked = Asked { target: &target, input: &body, once: false };
            course.call::<M, _>(asked, |key| ask(options.key.or(dedupes.then_some(key)), m)).await
        })
    }

    /// Submits a durable task for the agent: this task's child. Exactly once, however often this call runs.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn submit<M: Message, I>(&self, m: M) -> Submit
    where
        B: Accepts<M, I>,
    {
        self.call.submit_to(Target::agent(B::KIND, self.agent.address().key), m)
    }

    /// Tells the agent something, at most once per run: the message is lost in a crash, and sent again by each
    /// run.
    ///
    /// # Errors
    /// Returns the message if it is invalid, or the mailbox is closed, or full and the policy rejects.
    pub async fn tell<M: Message, I>(&self, m: M) -> Result<(), crate::Full<M>>
    where
        B: Accepts<M, I>,
    {
        self.agent.tell(m).await
    }
}
