//! Tools: one capability each, with typed input and output, and an effect class.

pub(crate) mod call;
pub(crate) mod course;
mod fanout;
pub mod fs;
pub(crate) mod notes;
pub mod probe;

use std::{any::Any, future::Future, marker::PhantomData, sync::Arc, time::Duration};

pub use call::{AgentCall, Call, NoSignal};
pub use fanout::Fanout;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    Settings,
    agent::{
        AskError, Message, Pending,
        chain::Chain,
        drops::Guarded,
        host::Host,
        letter::{Answer, JsonAnswer},
        reference::{GRACE, unanswered},
        slot::{ReplyRx, ReplyTx, slot},
        submit::{Submit, submit},
    },
    model::{
        id::{Target, TaskId},
        journal::Wait,
        task::{Bounds, Claimed, OwnTerms, Rate},
    },
};

/// Whether a tool call may be repeated.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// No side effect: may be repeated freely.
    Pure,
    /// Safe to repeat with the same [`Call::idempotency_key`].
    Idempotent,
    /// Must not be repeated. Runs only as a task; if interrupted, the task ends as `outcome_unknown` and a
    /// person decides.
    ///
    /// An error that it returns says that nothing has happened: it is tried again, as its limits say. Where it
    /// cannot know (a connection broke after it had asked), it returns [`Retry::never`](crate::Retry::never), or
    /// [`Limits::max_attempts`] is 1: then it is a dead letter, which a person may try again.
    Once,
}

/// A supervised actor that offers one capability.
pub trait Tool: Send + Sync + 'static {
    /// Its stable name: words joined by dots, such as `fs.read`.
    const NAME: &'static str;
    /// Whether a call may be repeated.
    const EFFECT: Effect;
    /// Its input, a message; the tool's reply and refusal are that message's.
    type Input: Message;

    /// Bounds on concurrent calls, their rate and their duration.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Runs one call.
    ///
    /// # Errors
    /// Any error is returned to the caller; a task is retried. [`Message::refuse`] makes a typed refusal,
    /// which is final.
    fn run(
        &self,
        input: Self::Input,
        call: &Call,
    ) -> impl Future<Output = anyhow::Result<<Self::Input as Message>::Reply>> + Send;
}

/// A tool's reply.
pub type Out<T> = <<T as Tool>::Input as Message>::Reply;
/// A tool's refusal.
pub type Refusal<T> = <<T as Tool>::Input as Message>::Error;

/// Bounds on the use of a tool; what is not set is not bounded, unless a field says otherwise.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How many calls may run at once on a node. 0 is taken as 1.
    pub concurrency: Option<usize>,
    /// How many calls may begin within a time on a node.
    pub rate: Option<(u32, Duration)>,
    /// How long one call may take from its beginning; 30 s when not set.
    pub timeout: Option<Duration>,
    /// How long a call may go without [`Call::heartbeat`] before it is ended as if it had timed out.
    pub heartbeat: Option<Duration>,
    /// Restart intensity: more than so many crashes in a row within this time stop the tool on this node, until an
    /// operator resumes it; `supervision.max_restarts` and `.within` when not set (10 in 60 s). The configuration may
    /// override each of them: `[tools.NAME] max_restarts` and `within`.
    ///
    /// A crash is a panic, and ends one call; an error or a time-out is none. A call that ends well clears the
    /// count, so that callers who send what it cannot take do not stop it for those whom it serves. Calls that ran
    /// when it crashed are part of that crash, and count no more. While it is stopped, calls are refused at once
    /// ([`AskError::WrongState`]), and its tasks wait, or run on another node.
    pub max_restarts: Option<(u32, Duration)>,
    /// The pause after a crash before the next call begins, doubling from the first duration to the second with
    /// each crash in a row; `supervision.backoff_min` and `.backoff_max` when not set.
    pub restart_backoff: Option<(Duration, Duration)>,
    /// The priority of tasks for it whose submitter sets none: higher runs first; 0 by default.
    pub priority: Option<i16>,
    /// How many attempts a task for it has, unless its submitter says otherwise; at least 1.
    pub max_attempts: Option<u32>,
    /// The delay before a failed task is retried, from the first duration, doubling up to the second, reduced
    /// by a random part of up to a quarter. An error may override it: [`Retry`](crate::Retry).
    pub retry_backoff: Option<(Duration, Duration)>,
}

impl Limits {
    pub(crate) fn bounds(&self) -> Bounds {
        // none at all would never run any: that is a pause
        let concurrency = self.concurrency.map(|n| n.max(1));
        Bounds { concurrency, rate: self.rate.map(|(n, within)| Rate { n, within }) }
    }

    /// These limits with other bounds.
    pub(crate) fn bounded(self, bounds: Bounds) -> Self {
        let rate = bounds.rate.map(|rate| (rate.n, rate.within));
        Self { concurrency: bounds.concurrency, rate, ..self }
    }

    pub(crate) fn terms(&self) -> OwnTerms {
        let (min, max) = self.retry_backoff.unzip();
        OwnTerms { priority: self.priority, max_attempts: self.max_attempts, min, max }
    }
}

/// How a call is to be made.
pub(crate) struct CallMeta {
    pub key: String,
    pub attempt: u32,
    pub task: Option<Arc<Claimed>>,
    /// Where it leaves what it waits for, in place of an answer.
    pub waits: Waits,
    /// How long it may take from its beginning.
    pub timeout: Option<Duration>,
    /// Until when its caller waits: it does not begin after that, and ends by then.
    pub deadline: Option<Instant>,
    /// Who waits for it.
    pub chain: Chain,
}

impl Default for CallMeta {
    fn default() -> Self {
        Self {
            key: String::new(),
            attempt: 1,
            task: None,
            waits: Waits::default(),
            timeout: None,
            deadline: None,
            chain: Chain::default(),
        }
    }
}

/// What a task that ends its run without an answer waits for.
pub(crate) type Waits = Arc<Mutex<Vec<Wait>>>;

/// A typed call on its way to its tool.
pub(crate) struct Invocation<M: Message> {
    /// Guarded: it may be dropped where it waits.
    pub input: Guarded<M>,
    pub meta: CallMeta,
    pub reply: InvocationReply<M>,
}

pub(crate) enum InvocationReply<M: Message> {
    Typed(ReplyTx<Answer<M>>),
    Json(ReplyTx<JsonAnswer>),
}

/// A registered tool, whatever its input is. `as_any` is the `TypedPort<M>`.
pub(crate) trait ToolPort: Send + Sync {
    fn as_any(&self) -> &(dyn Any + Send + Sync);
}

/// The way to a tool's cell.
pub(crate) struct TypedPort<M: Message>(pub Box<dyn Fn(Invocation<M>) + Send + Sync>);

/// Calls a tool and waits for its reply.
pub(crate) async fn call_tool<T: Tool>(
    host: Arc<dyn Host>,
    input: T::Input,
    meta: CallMeta,
) -> Answer<T::Input> {
    input.validate().map_err(AskError::Invalid)?;
    let (tx, rx) = slot();
    let deadline = meta.deadline;
    {
        let port = host
            .tool(T::NAME)
            .and_then(|p| p.as_any().downcast_ref::<TypedPort<T::Input>>())
            .ok_or_else(|| {
                AskError::NotFound(format!(
                    "the tool `{}` is not registered: add `.tool(…)` to the builder",
                    T::NAME
                ))
            })?;
        let input = Guarded::new(T::Input::NAME, input);
        (port.0)(Invocation { input, meta, reply: InvocationReply::Typed(tx) });
    }
    answer_of(rx, deadline).await.unwrap_or_else(|error| Err(error.widen()))
}

/// The time at which a call is to have ended that may take so long.
pub(crate) fn by(timeout: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(timeout?)
}

/// Waits for the answer of a call, the time in the tool's queue included. The error: there is none.
pub(crate) async fn answer_of<T: Send + 'static>(
    mut rx: ReplyRx<T>,
    deadline: Option<Instant>,
) -> Result<T, AskError> {
    let Some(deadline) = deadline else { return rx.await.ok_or_else(unanswered) };
    if let Ok(answer) = tokio::time::timeout_at(deadline, &mut rx).await {
        return answer.ok_or_else(unanswered);
    }
    if rx.withdraw() {
        return Err(AskError::TimedOut);
    }
    // It has begun, and ends by now as well.
    match tokio::time::timeout(GRACE, rx).await {
        Ok(answer) => answer.ok_or_else(unanswered),
        Err(_) => Err(AskError::Unknown),
    }
}

/// The program's own section of the configuration, as of now.
pub(crate) fn settings<S: Settings>(host: &dyn Host) -> Arc<S> {
    host.settings(std::any::TypeId::of::<S>())
        .and_then(|any| any.downcast::<S>().ok())
        .unwrap_or_else(|| Arc::new(S::default()))
}

/// A reference to one tool, for use outside of a turn.
pub struct ToolRef<T> {
    host: Arc<dyn Host>,
    _tool: PhantomData<fn() -> T>,
}

impl<T> Clone for ToolRef<T> {
    fn clone(&self) -> Self {
        Self { host: self.host.clone(), _tool: PhantomData }
    }
}

impl<T: Tool> ToolRef<T> {
    pub(crate) fn new(host: Arc<dyn Host>) -> Self {
        Self { host, _tool: PhantomData }
    }

    /// Calls the tool and waits for its reply. A `once` tool runs only as a task: submit it. A timeout covers the
    /// wait for the tool too: a call that has not begun by then, or whose caller has gone, never does.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn call(&self, input: T::Input) -> Pending<'static, Out<T>, AskError<Refusal<T>>> {
        let host = self.host.clone();
        Pending::new(move |options| async move {
            if T::EFFECT == Effect::Once {
                return Err(AskError::WrongState(format!(
                    "`{}` takes effect once: submit it as a task",
                    T::NAME
                )));
            }
            let key = options.key.unwrap_or_else(|| TaskId::fresh().to_string());
            let deadline = by(options.timeout);
            call_tool::<T>(host, input, CallMeta { key, deadline, ..CallMeta::default() }).await
        })
    }

    /// Submits a durable task for the tool.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn submit(&self, input: T::Input) -> Submit {
        let host = self.host.clone();
        Submit::new(move |options| submit(host, Target::Tool(T::NAME.to_owned()), input, options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_calls_at_once_is_one() {
        let bound = |n| Limits { concurrency: n, ..Limits::default() }.bounds().concurrency;
        assert_eq!([bound(None), bound(Some(0)), bound(Some(7))], [None, Some(1), Some(7)]);
    }
}
