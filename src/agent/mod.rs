//! Agents: what users write.
//!
//! An [`Agent`] is what it *does*; its fields are what it *remembers*. It handles one message at a
//! time; each message handled is a *turn*, whose new state, outgoing tasks and reply commit
//! together or not at all.

pub(crate) mod answer;
pub(crate) mod bond;
pub(crate) mod chain;
pub mod counter;
pub(crate) mod double;
pub(crate) mod drops;
pub(crate) mod guard;
pub(crate) mod host;
pub(crate) mod lane;
pub(crate) mod letter;
pub mod library;
pub(crate) mod many;
pub(crate) mod message;
pub(crate) mod messages;
pub(crate) mod pending;
pub(crate) mod policy;
mod queue;
pub(crate) mod reference;
mod retry;
pub(crate) mod schedule;
mod sender;
pub(crate) mod slot;
pub(crate) mod submit;
pub(crate) mod table;
pub(crate) mod topic;
pub(crate) mod trace;
pub(crate) mod turn;

use std::future::Future;

use serde::{Serialize, de::DeserializeOwned};

pub use answer::{AskError, Done, Fault, Joined, Outcome};
pub use bond::Terminated;
pub use letter::JsonReply;
pub use many::SendMany;
pub use message::{Data, Invalid, JsonRefusal, Message, Never, Refused};
pub use messages::{Accepts, Messages};
pub use pending::Pending;
pub use policy::{OnFull, Persistence, Policy, Restart};
pub use reference::{Address, AgentRef, Ask, Full, Tell};
pub use retry::Retry;
pub use schedule::{ScheduleOptions, Target};
pub use submit::Submit;
pub use topic::Topic;
pub use turn::{Batch, Held, Opened, Peer, Queued, SessionPeer, Talk, ToolPeer, Turn};

// Public because the tuples that implement `Messages` name them; not meant for programs.
#[doc(hidden)]
pub use letter::{AnyLetter, Details, Envelope, Letter, Ran};
#[doc(hidden)]
pub use messages::{At, Door, Entry, EnvelopeOf, Leaf, Lists, Shape};

/// A supervised actor with durable state, addressed as `kind/key`.
///
/// ```
/// use greenroom::prelude::*;
///
/// /// Counts the words it is sent, and never loses one.
/// #[derive(Default, Serialize, Deserialize)]
/// struct Tally {
///     words: u64,
/// }
///
/// #[derive(Clone, Serialize, Deserialize, JsonSchema)]
/// struct Add {
///     text: String,
/// }
/// message!(Add -> u64);
///
/// impl Agent for Tally {
///     const KIND: &'static str = "tally";
///     type Messages = Add;
/// }
///
/// impl Handler<Add> for Tally {
///     async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<u64> {
///         self.words += add.text.split_whitespace().count() as u64;
///         Ok(self.words)
///     }
/// }
/// ```
///
/// State is kept as JSON. It must read back as it was written: a field of the wrong name at
/// restore quarantines the agent rather than lose what the field held.
pub trait Agent: Default + Serialize + DeserializeOwned + Send + 'static {
    /// The kind's stable name: `[a-z][a-z0-9]*(_[a-z0-9]+)*`.
    const KIND: &'static str;
    /// The messages that it handles, whether they come typed, as JSON, from tasks or from schedules.
    type Messages: Messages<Self>;
    /// The schema version of the state. Raise it when the fields change, and read older versions in
    /// [`Agent::migrate`].
    const VERSION: u32 = 1;

    /// Reads a state of an older schema version.
    ///
    /// # Errors
    /// An error quarantines the agent: its state is kept as it is until an operator releases it.
    fn migrate(old: Stored) -> anyhow::Result<Self> {
        old.refuse()
    }

    /// How agents of this kind are kept, restarted and bounded.
    fn policy() -> Policy {
        Policy::default()
    }

    /// Checks a state after it was read, before it is used.
    ///
    /// # Errors
    /// An error quarantines the agent.
    fn validate(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Runs after every decode of the state. May open resources into `#[serde(skip)]` fields; may
    /// neither send nor change stored fields. In a hook, an ask, a call of a tool and a read of the store are
    /// refused. It may take as long as a turn; if its agent is to leave memory, its kind's `stop_timeout` from then.
    ///
    /// # Errors
    /// An error counts as a crash.
    fn on_start(&mut self, turn: &Turn<Self>) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = turn;
        async { Ok(()) }
    }

    /// Runs before the agent is unloaded normally; not after a crash. What holds of `on_start` holds of it too.
    ///
    /// # Errors
    /// An error is reported and has no other effect.
    fn on_stop(&mut self, turn: &Turn<Self>) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = turn;
        async { Ok(()) }
    }
}

/// How an agent handles a message.
pub trait Handler<M: Message>: Agent {
    /// Validates the message against the current state before [`Handler::handle`] runs. A refusal leaves the
    /// state unchanged and does not count as a crash.
    ///
    /// # Errors
    /// The message's own refusal.
    fn check(&self, message: &M) -> Result<(), M::Error> {
        let _ = message;
        Ok(())
    }

    /// Handles one message. Its changes of state, its submissions and its reply commit together.
    ///
    /// # Errors
    /// Any error undoes the turn and is returned to the caller; [`Message::refuse`] makes a typed one.
    fn handle(
        &mut self,
        message: M,
        turn: &Turn<Self>,
    ) -> impl Future<Output = anyhow::Result<M::Reply>> + Send;

    #[doc(hidden)]
    const READ_ONLY: bool = false;
}

/// A message that only reads: it commits nothing.
pub trait Query<M: Message>: Agent + Sync {
    /// Answers from the state. The answer is sent when the turns whose effects it saw are durable.
    ///
    /// # Errors
    /// Any error is returned to the caller.
    fn query(&self, message: M, turn: &Turn<Self>) -> impl Future<Output = anyhow::Result<M::Reply>> + Send;
}

impl<M: Message, A: Query<M>> Handler<M> for A {
    fn handle(
        &mut self,
        message: M,
        turn: &Turn<Self>,
    ) -> impl Future<Output = anyhow::Result<M::Reply>> + Send {
        self.query(message, turn)
    }
    const READ_ONLY: bool = true;
}

/// A stored state of an older schema version.
pub struct Stored {
    version: u32,
    bytes: Vec<u8>,
}

impl Stored {
    pub(crate) fn new(version: u32, bytes: Vec<u8>) -> Self {
        Self { version, bytes }
    }

    /// Its schema version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Deserialises it, usually as a struct of the older shape.
    ///
    /// # Errors
    /// The stored JSON does not deserialise as `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        Ok(serde_json::from_slice(&self.bytes)?)
    }

    /// Reads it as JSON.
    ///
    /// # Errors
    /// The stored bytes are not valid JSON.
    pub fn value(&self) -> anyhow::Result<serde_json::Value> {
        self.parse()
    }

    /// Refuses to read it: the agent is quarantined, its state kept.
    ///
    /// # Errors
    /// Always returns an error, so that [`Agent::migrate`] can end with `old.refuse()`.
    pub fn refuse<T>(&self) -> anyhow::Result<T> {
        anyhow::bail!("no migration from schema version {}", self.version)
    }
}

/// A section of the configuration that belongs to the user's program: `app.SECTION.*`.
pub trait Settings: DeserializeOwned + schemars::JsonSchema + Default + Send + Sync + 'static {
    /// The section's name.
    const SECTION: &'static str;

    /// Checks what was configured.
    ///
    /// # Errors
    /// An invalid section: the program does not start.
    fn validate(&self) -> anyhow::Result<()> {
        Ok(())
    }
}
