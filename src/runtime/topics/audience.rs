//! A topic's subscribers, by kind: found without looking at the store.

use std::{collections::HashMap, sync::Arc};

use crate::model::{
    id::AgentId,
    topic::{Subscriber, SubscriptionWrite},
};

/// At most so many subscribers of one topic are told.
pub(super) const MAX_SUBSCRIBERS: usize = 100_000;

/// A topic's subscribers.
#[derive(Debug, Clone, Default)]
pub(super) struct Audience {
    groups: Vec<Group>,
}

/// Those of one kind that take one message.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub kind: Arc<str>,
    pub message: Arc<str>,
    pub members: HashMap<AgentId, Arc<str>>,
}

impl Audience {
    /// Those that the store has, as many as are told.
    pub(super) fn of(subscribers: Vec<Subscriber>) -> Self {
        let mut all = Self::default();
        // In the store an agent is there once.
        for subscriber in subscribers.into_iter().take(MAX_SUBSCRIBERS) {
            all.insert(subscriber);
        }
        all
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.members.len()).sum()
    }

    /// Takes in what was committed. Past the bound nobody is added.
    pub(super) fn apply(&mut self, write: &SubscriptionWrite) {
        let subscriber = &write.subscriber;
        for group in self.groups.iter_mut().filter(|group| group.kind == subscriber.kind) {
            group.members.remove(&subscriber.agent);
        }
        if write.subscribed && self.len() < MAX_SUBSCRIBERS {
            self.insert(subscriber.clone());
        }
        self.groups.retain(|group| !group.members.is_empty());
    }

    fn insert(&mut self, Subscriber { agent, kind, key, message }: Subscriber) {
        match self.groups.iter_mut().find(|group| group.kind == kind && group.message == message) {
            Some(group) => drop(group.members.insert(agent, key)),
            None => self.groups.push(Group { kind, message, members: HashMap::from([(agent, key)]) }),
        }
    }
}
