//! Speaking to many: topics, and all running agents of a kind.

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
    /// Tells a topic's subscribers; leaves with this turn's commit. At most once for each of them: see
    /// [`Topic`]. The turn fails where the topic's name is none, or the message is not valid.
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
    /// Subscribing twice is as subscribing once. A turn may begin and end 1,000 subscriptions.
    pub fn subscribe<M: Message, I>(&self, topic: &Topic<M>)
    where
        A: Accepts<M, I>,
    {
        self.write_subscription(topic, true);
    }

    /// Ends this agent's subscription with this turn's commit, where there is one. What stands in its
    /// mailbox by then still comes.
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

    /// Tells every running agent of a kind on this node; leaves with this turn's commit. At most once: a
    /// full mailbox drops it, counted. Agents that have left memory are not woken; the agent itself, where
    /// it is of that kind, is told too. The turn fails where the kind is not registered, or the message is
    /// not valid.
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
}
