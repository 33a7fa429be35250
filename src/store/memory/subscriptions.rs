//! Subscriptions.

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

    /// The first `limit` of a topic's subscribers, and how many more there are.
    pub(super) fn subscribers(&self, topic: &str, limit: usize) -> (Vec<Subscriber>, u64) {
        let (first, last) = (AgentId(Uuid::nil()), AgentId(Uuid::max()));
        let mut rows = self.subscriptions.range((topic.into(), first)..=(topic.into(), last));
        let told = rows.by_ref().take(limit).map(|(_, subscriber)| subscriber.clone()).collect();
        (told, rows.count() as u64)
    }
}
