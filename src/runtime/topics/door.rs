//! Publishing and broadcasting from outside of any turn.

use std::time::Duration;

use futures_util::future::join_all;

use crate::{
    agent::{
        Accepts, AskError, Message, Never, Pending, Topic, slot::slot, topic::Publication, turn::no_member,
    },
    runtime::Handle,
};

impl Handle {
    /// Tells a topic's subscribers: see [`Topic`]. Awaiting it waits until the message has been handed out;
    /// the timeout bounds that wait, an idempotency key means nothing here.
    ///
    /// # Errors
    /// The topic name is invalid, the message is invalid, the subscribers cannot be read, or too many messages
    /// wait for that; with a timeout, it was not handed out in time (it still may be).
    pub fn publish<M: Message>(&self, topic: &Topic<M>, m: M) -> Pending<'static, (), anyhow::Error> {
        let (host, name) = (self.host.clone(), topic.stored());
        Pending::new(move |options| async move {
            let name = name?;
            handed_out(m, options.timeout, |publication| host.publish(name, publication)).await
        })
    }

    /// Tells every running agent of a kind on this node, at most once: a full mailbox drops it, counted.
    /// Agents that have left memory are not woken. Awaiting it waits until the message has been handed out.
    ///
    /// ```no_run
    /// # use greenroom::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize)] struct Desk {}
    /// # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Close {}
    /// # message!(Close -> ());
    /// # impl Agent for Desk { const KIND: &'static str = "desk"; type Messages = Close; }
    /// # impl Handler<Close> for Desk {
    /// #     async fn handle(&mut self, _: Close, turn: &Turn<Self>) -> Result<()> { Ok(()) }
    /// # }
    /// # async fn close(handle: Handle) -> Result<()> {
    /// handle.broadcast::<Desk, _, _>(Close {}).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Handle::publish`]; where the kind is not registered.
    pub fn broadcast<B, M, I>(&self, m: M) -> Pending<'static, (), anyhow::Error>
    where
        B: Accepts<M, I>,
        M: Message,
    {
        let host = self.host.clone();
        Pending::new(move |options| async move {
            handed_out(m, options.timeout, |publication| host.broadcast(B::KIND, publication)).await
        })
    }

    /// As [`Handle::broadcast`], to every running agent of each kind of a group that takes the message.
    ///
    /// # Errors
    /// As [`Handle::publish`]; where no kind of the group takes the message.
    pub fn broadcast_to_group<M: Message>(
        &self,
        group: impl Into<String>,
        m: M,
    ) -> Pending<'static, (), anyhow::Error> {
        let (host, group) = (self.host.clone(), group.into());
        Pending::new(move |options| async move {
            let kinds = host.members(&group, M::NAME);
            anyhow::ensure!(!kinds.is_empty(), no_member(&group));
            let each = kinds.into_iter().map(|kind| {
                handed_out(m.clone(), options.timeout, |publication| host.broadcast(kind, publication))
            });
            join_all(each.collect::<Vec<_>>()).await.into_iter().collect()
        })
    }
}

/// Has a message handed out, and waits for it.
async fn handed_out<M: Message>(
    m: M,
    timeout: Option<Duration>,
    start: impl FnOnce(Publication),
) -> anyhow::Result<()> {
    m.validate()?;
    let (tx, rx) = slot();
    start(Publication::new(m, Some(tx)));
    let outcome = match timeout {
        Some(d) => tokio::time::timeout(d, rx).await.map_err(|_| AskError::<Never>::Unknown)?,
        None => rx.await,
    };
    let ended = || Err(AskError::Unavailable("the node is going down".to_owned()));
    Ok(outcome.unwrap_or_else(ended)?)
}
