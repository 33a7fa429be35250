//! Subscriptions, begun and ended; who is subscribed.

use super::state::State;
use crate::model::{
    id::AgentId,
    topic::{Subscriber, SubscriptionWrite},
};
use uuid::Uuid;

impl State {
    /// Begins and ends subscriptions.
    pub(super) fn subscribe(&mut self, writes: &[SubscriptionWrite]) {
        for SubscriptionWrite { topic, subscriber, subscribed } in writes {
            let row = (topic.clone(), subscriber.agent);
            if *subscribed {
                self.subscriptions.insert(row, subscriber.clone());
            } else {
                self.subscriptions.remove(&row);
            }
        }
    }

    /// At most `limit` of a topic's subscribers.
    pub(super) fn subscribers(&self, topic: &str, limit: usize) -> Vec<Subscriber> {
        let (first, last) = (AgentId(Uuid::nil()), AgentId(Uuid::max()));
        let rows = self.subscriptions.range((topic.into(), first)..=(topic.into(), last));
        rows.take(limit).map(|(_, subscriber)| subscriber.clone()).collect()
    }
}
