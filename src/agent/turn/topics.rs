//! Publishing to topics, and broadcasting to all running agents of a kind or a group.

use super::Turn;
use crate::{
    agent::{
        Agent,
        host::directory,
        message::Message,
        messages::Accepts,
        topic::{Publication, Topic},
    },
    model::topic::{Subscriber, SubscriptionWrite},
};

impl<A: Agent> Turn<A> {
    /// Sends a message to a topic's subscribers with this turn's commit, at most once to each: see [`Topic`].
    /// The turn fails if the topic name or the message is invalid.
    pub fn publish<M: Message>(&self, topic: &Topic<M>, m: M) {
        let checked = topic.stored().map_err(|e| e.to_string());
        let checked = checked.and_then(|name| m.validate().map(|()| name).map_err(|e| e.to_string()));
        match checked {
            Ok(name) => {
                // Guarded from now on: it may be dropped unsent.
                let (host, publication) = (self.host.clone(), Publication::new(m, None));
                let publish = move || host.publish(name, publication);
                self.outbox().tells.push(Box::new(publish));
            }
            Err(e) => self.outbox().refuse(format!("cannot publish `{}` to `{topic}`: {e}", M::NAME)),
        }
    }

    /// Subscribes this agent to a topic with this turn's commit, until it unsubscribes: see [`Topic`].
    /// Subscribing again has no effect. A turn may begin and end up to 1,000 subscriptions.
    pub fn subscribe<M: Message, I>(&self, topic: &Topic<M>)
    where
        A: Accepts<M, I>,
    {
        self.write_subscription(topic, true);
    }

    /// Ends this agent's subscription, if there is one, with this turn's commit. Messages that are in its
    /// mailbox by then are still handled.
    pub fn unsubscribe<M: Message>(&self, topic: &Topic<M>) {
        self.write_subscription(topic, false);
    }

    fn write_subscription<M: Message>(&self, topic: &Topic<M>, subscribed: bool) {
        let me = self.name();
        let (kind, key) = (me.kind.clone(), me.key.clone());
        let subscriber = Subscriber { agent: me.id, kind, key, message: M::NAME.into() };
        let mut outbox = self.outbox();
        match topic.stored() {
            Ok(topic) => outbox.write_subscription(SubscriptionWrite { topic, subscriber, subscribed }),
            Err(e) => outbox.refuse(format!("cannot subscribe to `{topic}`: {e}")),
        }
    }

    /// Sends a message to every running agent of a kind on this node with this turn's commit. At most once: a
    /// full mailbox drops it, which is counted. Agents that are not in memory are not woken; this agent gets
    /// the message too if it is of that kind. The turn fails if the kind is not registered or the message is
    /// invalid.
    ///
    /// ```
    /// # use greenroom::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize)] struct Desk {}
    /// # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Close {}
    /// # message!(Close -> ());
    /// # impl Agent for Desk { const KIND: &'static str = "desk"; type Messages = Close; }
    /// # impl Handler<Close> for Desk {
    /// #     async fn handle(&mut self, _: Close, turn: &Turn<Self>) -> Result<()> {
    /// turn.broadcast::<Desk, _, _>(Close {});
    /// #         Ok(())
    /// #     }
    /// # }
    /// ```
    pub fn broadcast<B, M, I>(&self, m: M)
    where
        B: Accepts<M, I>,
        M: Message,
    {
        let known = directory::<B>(&*self.host).map_err(|e| e.to_string());
        if let Err(e) = known.and_then(|_| m.validate().map_err(|e| e.to_string())) {
            return self.outbox().refuse(format!("cannot broadcast `{}` to {}: {e}", M::NAME, B::KIND));
        }
        let (host, publication) = (self.host.clone(), Publication::new(m, None));
        let broadcast = move || host.broadcast(B::KIND, publication);
        self.outbox().tells.push(Box::new(broadcast));
    }

    /// As [`Turn::broadcast`], to every running agent of each kind of a group ([`Policy::group`](crate::Policy::group))
    /// that takes the message. The turn fails if none does, or the message is invalid.
    pub fn broadcast_to_group<M: Message>(&self, group: &str, m: M) {
        let kinds = self.host.members(group, M::NAME);
        let valid =
            if kinds.is_empty() { Err(no_member(group)) } else { m.validate().map_err(|e| e.to_string()) };
        if let Err(e) = valid {
            return self
                .outbox()
                .refuse(format!("cannot broadcast `{}` to the group `{group}`: {e}", M::NAME));
        }
        let host = self.host.clone();
        let copies: Vec<_> =
            kinds.into_iter().map(|kind| (kind, Publication::new(m.clone(), None))).collect();
        let broadcast = move || copies.into_iter().for_each(|(kind, copy)| host.broadcast(kind, copy));
        self.outbox().tells.push(Box::new(broadcast));
    }
}

pub(crate) fn no_member(group: &str) -> String {
    format!("no kind of a group `{group}` takes it: see `Policy::group`")
}
