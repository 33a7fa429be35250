//! Errors of asks, outcomes of tasks, and the messages that report them.

use std::{marker::PhantomData, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    guard::guard,
    message::{Invalid, JsonRefusal, Message, Never},
    retry::Retry,
};
use crate::{
    model::{
        id::TaskId,
        task::{Advice, TaskError, TaskState, TaskView},
    },
    secrets::cleaned,
};

/// The most that is kept of what an error says: it goes into the log, the task, and lists of tasks.
const MOST_TEXT: usize = 16 << 10;
/// The most causes that are kept.
const MOST_CAUSES: usize = 32;

/// What an error says, without secrets and within bounds.
fn told(text: String) -> String {
    let mut text = cleaned(text);
    if text.len() > MOST_TEXT {
        text.truncate(text.floor_char_boundary(MOST_TEXT));
        text.push('…');
    }
    text
}

/// A handler's failure, as its caller sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The outermost error.
    pub message: String,
    /// Its causes, outermost first.
    #[serde(default)]
    pub chain: Vec<String>,
    /// The id of the crash report, if it was a crash and not an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crash_id: Option<String>,
    /// The error's advice on retries.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) advice: Option<Advice>,
}

impl Fault {
    /// A fault with a message alone.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: told(message.into()), chain: Vec::new(), crash_id: None, advice: None }
    }
}

impl From<&anyhow::Error> for Fault {
    fn from(error: &anyhow::Error) -> Self {
        Self {
            message: told(error.to_string()),
            chain: error.chain().skip(1).take(MOST_CAUSES).map(|cause| told(cause.to_string())).collect(),
            crash_id: None,
            advice: Retry::advice(error),
        }
    }
}

/// Why an ask, a call or a submission was not answered. `E` is the message's own refusal.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError<E: std::error::Error + 'static = Never> {
    /// The receiver's own, typed refusal. Nothing changed.
    #[error(transparent)]
    Refused(E),
    /// The handler failed or crashed; its turn was undone.
    #[error("failed and undone: {0}")]
    Failed(Fault),
    /// The content is wrong. Nothing changed.
    #[error(transparent)]
    Invalid(Invalid),
    /// The mailbox, or a limit, is full. Nothing changed.
    #[error("overloaded: {what}")]
    Overloaded {
        /// What is full.
        what: String,
        /// When to retry.
        retry_after: Duration,
    },
    /// The store or the node cannot serve it now. Nothing changed.
    #[error("not available: {0}")]
    Unavailable(String),
    /// The disk is full. Nothing changed.
    #[error("no room left: {0}")]
    NoRoom(String),
    /// The agent is stopped, paused or quarantined, or the tool is stopped, or may not be called here.
    #[error("{0}")]
    WrongState(String),
    /// The agent kind, message, tool or task does not exist.
    #[error("not found: {0}")]
    NotFound(String),
    /// The message, or the state that it led to, is over its limit. Nothing changed.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    Conflict,
    /// A task function made a different call than in an earlier run.
    #[error("it goes another way than in its earlier run: {0}")]
    Diverged(String),
    /// The ask would form a cycle and wait for itself.
    #[error("ask cycle: {}", .0.join(" asks "))]
    Cycle(Vec<String>),
    /// Not done in time; nothing happened.
    #[error("not done in time; nothing happened")]
    TimedOut,
    /// No answer in time; it may or may not have happened. Retry with the same idempotency key.
    #[error("no answer in time; the outcome is unknown")]
    Unknown,
}

impl<E: std::error::Error + 'static> AskError<E> {
    /// The contract's code for this error (`overloaded`, `refused`, …).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Failed(fault) if fault.crash_id.is_some() => "handler_crashed",
            Self::Failed(_) => "handler_failed",
            Self::Invalid(_) => "invalid",
            Self::Overloaded { .. } => "overloaded",
            Self::Unavailable(_) => "unavailable",
            Self::NoRoom(_) => "full",
            Self::WrongState(_) => "wrong_state",
            Self::NotFound(_) => "not_found",
            Self::TooLarge(_) => "too_large",
            Self::Conflict => "idempotency_conflict",
            Self::Diverged(_) => "diverged",
            Self::Cycle(_) => "ask_cycle",
            Self::TimedOut => "timed_out",
            Self::Unknown => "outcome_unknown",
        }
    }

    /// The same error with its refusal changed by `f`.
    pub fn map<F: std::error::Error + 'static>(self, f: impl FnOnce(E) -> F) -> AskError<F> {
        match self {
            Self::Refused(e) => AskError::Refused(f(e)),
            Self::Failed(x) => AskError::Failed(x),
            Self::Invalid(x) => AskError::Invalid(x),
            Self::Overloaded { what, retry_after } => AskError::Overloaded { what, retry_after },
            Self::Unavailable(x) => AskError::Unavailable(x),
            Self::NoRoom(x) => AskError::NoRoom(x),
            Self::WrongState(x) => AskError::WrongState(x),
            Self::NotFound(x) => AskError::NotFound(x),
            Self::TooLarge(x) => AskError::TooLarge(x),
            Self::Conflict => AskError::Conflict,
            Self::Diverged(x) => AskError::Diverged(x),
            Self::Cycle(x) => AskError::Cycle(x),
            Self::TimedOut => AskError::TimedOut,
            Self::Unknown => AskError::Unknown,
        }
    }
}

impl AskError<Never> {
    /// The same error for a message that may be refused.
    pub fn widen<E: std::error::Error + 'static>(self) -> AskError<E> {
        self.map(|never| match never {})
    }
}

impl<E: std::error::Error + Serialize + 'static> AskError<E> {
    /// The same error with its refusal as JSON; a failure where the refusal's `Display` or `Serialize` panics.
    pub fn into_json(self) -> AskError<JsonRefusal> {
        guard(|| self.written()).unwrap_or_else(|(why, _)| {
            AskError::Failed(Fault::new(format!("crashed: the refusal cannot be written: {why}")))
        })
    }

    /// The same, which panics where they do.
    pub(crate) fn written(self) -> AskError<JsonRefusal> {
        self.map(|e| JsonRefusal {
            message: e.to_string(),
            value: serde_json::to_value(&e).unwrap_or(serde_json::Value::Null),
        })
    }
}

impl AskError<JsonRefusal> {
    /// Its own advice on retries.
    pub(crate) fn advice(&self) -> Option<Advice> {
        match self {
            Self::Failed(fault) => fault.advice,
            _ => None,
        }
    }

    /// The same error as a task keeps it.
    pub fn to_task_error(&self) -> TaskError {
        let (chain, crash_id) = match self {
            Self::Failed(fault) => (fault.chain.clone(), fault.crash_id.clone()),
            _ => (Vec::new(), None),
        };
        let message = match self {
            Self::Failed(fault) => fault.message.clone(),
            other => other.to_string(),
        };
        let refusal = match self {
            Self::Refused(refusal) => Some(refusal.value.clone()),
            _ => None,
        };
        TaskError { code: self.code().to_owned(), message, chain, crash_id, refusal }
    }
}

/// A state that has no value takes none.
fn without_value(schema: &mut schemars::Schema) {
    let Some(serde_json::Value::Array(states)) = schema.get_mut("oneOf") else { return };
    for members in states.iter_mut().filter_map(|state| state.get_mut("properties")) {
        if let serde_json::Value::Object(members) = members {
            members.entry("value").or_insert_with(|| serde_json::json!({"type": "null"}));
        }
    }
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", content = "value", rename_all = "snake_case")]
#[schemars(transform = without_value)]
pub enum Outcome<T, E> {
    /// It succeeded with this reply.
    Succeeded(T),
    /// The receiver refused it, with the message's own refusal.
    Refused(E),
    /// It failed finally, and is a dead letter.
    Failed(Fault),
    /// It was cancelled by a person, because a prerequisite failed, or because it expired.
    Cancelled,
    /// A `once` effect was interrupted: a person must decide the outcome.
    #[serde(rename = "outcome_unknown")]
    Unknown,
}

impl<T: DeserializeOwned, E: DeserializeOwned> Outcome<T, E> {
    /// How a task ended; `None`: it has not.
    ///
    /// # Errors
    /// Its reply or refusal cannot be read as one of the message's.
    pub(crate) fn of(task: TaskView) -> serde_json::Result<Option<Self>> {
        Ok(Some(match task.state {
            TaskState::Succeeded => {
                let body = task.result.as_ref().map_or("null", |result| result.get());
                Self::Succeeded(serde_json::from_str(body)?)
            }
            TaskState::Failed => match task.error {
                Some(TaskError { refusal: Some(refusal), .. }) => {
                    Self::Refused(serde_json::from_value(refusal)?)
                }
                Some(TaskError { message, chain, crash_id, .. }) => {
                    Self::Failed(Fault { message, chain, crash_id, advice: None })
                }
                None => Self::Failed(Fault::new("it failed")),
            },
            TaskState::Cancelled => Self::Cancelled,
            TaskState::OutcomeUnknown => Self::Unknown,
            _ => return Ok(None),
        }))
    }
}

/// A task that this agent submitted has ended: the message that `.notify()` asks for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "M: Message")]
pub struct Done<M: Message> {
    /// The task.
    pub task: TaskId,
    /// Its input.
    pub input: M,
    /// How it ended.
    pub outcome: Outcome<M::Reply, M::Error>,
}

impl<M: Message> Message for Done<M> {
    type Reply = ();
    type Error = Never;
    const NAME: &'static str = Suffixed::<M>::DONE;
}

/// All tasks of a batch have ended: the message that `.notify_joined()` asks for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "M: Message")]
pub struct Joined<M: Message> {
    /// The batch.
    pub batch: TaskId,
    /// How many of its tasks succeeded.
    pub succeeded: u64,
    /// How many did not.
    pub failed: u64,
    #[serde(skip)]
    #[schemars(skip)]
    _message: PhantomData<fn() -> M>,
}

impl<M: Message> Joined<M> {
    /// The end of a batch without tasks.
    pub(crate) fn nothing(batch: TaskId) -> Self {
        Self { batch, succeeded: 0, failed: 0, _message: PhantomData }
    }
}

impl<M: Message> Message for Joined<M> {
    type Reply = ();
    type Error = Never;
    const NAME: &'static str = Suffixed::<M>::JOINED;
}

/// Wire names of `Done` and `Joined`, joined at compile time.
struct Suffixed<M>(PhantomData<M>);

const NAME_ROOM: usize = 192;

impl<M: Message> Suffixed<M> {
    const DONE_BYTES: ([u8; NAME_ROOM], usize) = join(M::NAME, ".done");
    const JOINED_BYTES: ([u8; NAME_ROOM], usize) = join(M::NAME, ".joined");
    const DONE: &'static str = text(&Self::DONE_BYTES.0, Self::DONE_BYTES.1);
    const JOINED: &'static str = text(&Self::JOINED_BYTES.0, Self::JOINED_BYTES.1);
}

const fn text(bytes: &'static [u8; NAME_ROOM], len: usize) -> &'static str {
    match std::str::from_utf8(bytes.split_at(len).0) {
        Ok(s) => s,
        Err(_) => panic!("a message name is not UTF-8"), // at compile time alone
    }
}

const fn join(a: &str, b: &str) -> ([u8; NAME_ROOM], usize) {
    let (a, b, mut out, mut i) = (a.as_bytes(), b.as_bytes(), [0u8; NAME_ROOM], 0);
    while i < a.len() {
        out[i] = a[i];
        i += 1;
    }
    while i < a.len() + b.len() {
        out[i] = b[i - a.len()];
        i += 1;
    }
    (out, i)
}
