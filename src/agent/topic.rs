//! Topics: agents subscribe to them, others publish to them.

use std::{any::Any, fmt, marker::PhantomData, sync::Arc};

use super::{AskError, drops::Guarded, message::Message, slot::ReplyTx};
use crate::model::{id::NameError, topic::stored_name};

/// A topic of messages `M`: publishers need not know the subscribers.
///
/// ```
/// # use greenroom::prelude::*;
/// #[derive(Clone, Serialize, Deserialize, JsonSchema)]
/// struct Price {
///     cents: i64,
/// }
/// message!(Price -> ());
///
/// static PRICES: Topic<Price> = Topic::new("prices");
/// # #[derive(Default, Serialize, Deserialize)] struct Desk { last: i64 }
/// # impl Agent for Desk { const KIND: &'static str = "desk"; type Messages = (Price, Follow); }
/// # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Follow { pair: String }
/// # message!(Follow -> ());
/// # impl Handler<Price> for Desk {
/// #     async fn handle(&mut self, p: Price, _: &Turn<Self>) -> Result<()> { self.last = p.cents; Ok(()) }
/// # }
/// impl Handler<Follow> for Desk {
///     async fn handle(&mut self, follow: Follow, turn: &Turn<Self>) -> Result<()> {
///         turn.subscribe(&PRICES.keyed(follow.pair)); // lasts until `unsubscribe`
///         Ok(())
///     }
/// }
/// async fn feed(handle: Handle) -> Result<()> {
///     handle.publish(&PRICES.keyed("EURUSD"), Price { cents: 108 }).await
/// }
/// ```
///
/// A **subscription** is durable: a row, written in the commit of the turn that subscribes. It outlives
/// crashes, passivation and restarts, and ends when a turn of its agent unsubscribes.
///
/// **Delivery** is a tell to each subscriber: at most once, without waiting, waking agents that are not in
/// memory. Messages from one publisher to one topic arrive in order. A message is dropped, and counted
/// (`greenroom_messages_total{outcome="dropped"}`), for subscribers
/// - whose mailbox is full or closed,
/// - that another node owns: messages that are not durable do not travel between nodes yet,
/// - past the 100,000th of one topic;
///
/// and for all of them if the topic's subscribers cannot be read, or while 1,024 messages to one topic, or
/// 100,000 to all topics, already wait for that. What must arrive is submitted as a task.
///
/// A node keeps the subscribers of the topics that it publishes to in memory, up to a million, about 100 MB, and
/// reads others again when they are needed. Subscriptions that its own agents commit count at once, those of
/// other nodes after about a second.
pub struct Topic<M> {
    name: &'static str,
    key: Option<String>,
    _message: PhantomData<fn() -> M>,
}

impl<M> Topic<M> {
    /// The topic of that name: lower-case words joined by `.` or `_`, up to 128 bytes. With another name,
    /// turns that use it fail.
    pub const fn new(name: &'static str) -> Self {
        Self { name, key: None, _message: PhantomData }
    }

    /// A separate topic below this name, such as one for each currency, with subscribers of its own. The key
    /// follows the rules for agent keys, and replaces an earlier one.
    pub fn keyed(&self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..Self::new(self.name) }
    }

    pub(crate) fn stored(&self) -> Result<Arc<str>, NameError> {
        stored_name(self.name, self.key.as_deref())
    }
}

impl<M> Clone for Topic<M> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), ..Self::new(self.name) }
    }
}

/// `name`, or `name/key`.
impl<M> fmt::Display for Topic<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        self.key.as_ref().map_or(Ok(()), |key| write!(f, "/{key}"))
    }
}

impl<M> fmt::Debug for Topic<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({self})")
    }
}

/// A message in transit to many: made once, cloned for each.
pub(crate) struct Publication {
    /// Its wire name.
    pub name: &'static str,
    /// The message itself, `Guarded`.
    pub body: Box<dyn Any + Send + Sync>,
    /// The publisher, if it waits until the message has been handed out.
    pub done: Option<ReplyTx<Result<(), AskError>>>,
}

impl Publication {
    pub(crate) fn new<M: Message>(message: M, done: Option<ReplyTx<Result<(), AskError>>>) -> Self {
        Self { name: M::NAME, body: Box::new(Guarded::new(M::NAME, message)), done }
    }
}
