//! A call, as a tool sees it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Effect, Out, Refusal, Tool, call_tool};
use crate::{
    Settings,
    agent::{Agent, AgentRef, AskError, Pending, host::Host},
};

/// One call of a tool: owned, cheap to clone; task functions take it by value.
#[derive(Clone)]
pub struct Call(Arc<Inner>);

struct Inner {
    host: Arc<dyn Host>,
    key: String,
    attempt: u32,
    cancel: CancellationToken,
    progress: Mutex<Option<(f32, String)>>,
}

impl Call {
    pub(crate) fn new(host: Arc<dyn Host>, key: String, attempt: u32, cancel: CancellationToken) -> Self {
        Self(Arc::new(Inner { host, key, attempt, cancel, progress: Mutex::new(None) }))
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

    /// Whether the call is to end.
    pub fn cancelled(&self) -> bool {
        self.0.cancel.is_cancelled()
    }

    pub(crate) fn cancel(&self) {
        self.0.cancel.cancel();
    }

    /// Says how far it is: a fraction from 0 to 1, and a text. The last one counts.
    pub fn progress(&self, fraction: f32, text: impl Into<String>) {
        *self.0.progress.lock() = Some((fraction.clamp(0.0, 1.0), text.into()));
    }

    pub(crate) fn latest_progress(&self) -> Option<(f32, String)> {
        self.0.progress.lock().clone()
    }

    /// Calls another tool; `once` tools are refused, as in a turn.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn call<T: Tool>(&self, input: T::Input) -> Pending<'static, Out<T>, AskError<Refusal<T>>> {
        let inner = self.0.clone();
        Pending::new(move |options| async move {
            if T::EFFECT == Effect::Once {
                return Err(AskError::WrongState(format!(
                    "`{}` takes effect once: submit it as a task",
                    T::NAME
                )));
            }
            let key = options.key.unwrap_or_else(|| format!("{}/{}", inner.key, T::NAME));
            call_tool::<T>(inner.host.clone(), input, key, options.timeout).await
        })
    }

    /// The door to an agent.
    pub fn agent<B: Agent>(&self, key: impl AsRef<str>) -> AgentRef<B> {
        AgentRef::new(&*self.0.host, key.as_ref())
    }

    /// The program's own settings, as they are now.
    pub fn settings<S: Settings>(&self) -> Arc<S> {
        super::settings(&*self.0.host)
    }
}
