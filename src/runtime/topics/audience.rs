//! A topic's subscribers, by kind: found without reading the store.

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
    /// Those past the bound, as far as is known: they are not told.
    beyond: u64,
}

/// Those of one kind that take one message.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub kind: Arc<str>,
    pub message: Arc<str>,
    pub members: HashMap<AgentId, Arc<str>>,
}

impl Audience {
    /// Those that the store has, as many as are told, and how many more there are.
    pub(super) fn of((subscribers, beyond): (Vec<Subscriber>, u64)) -> Self {
        let mut all = Self { groups: Vec::new(), beyond };
        // In the store an agent is there once.
        subscribers.into_iter().for_each(|subscriber| all.insert(subscriber));
        all
    }

    /// How many are not told, for there are too many.
    pub(super) fn beyond(&self) -> u64 {
        self.beyond
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.members.len()).sum()
    }

    /// Takes in what was committed. Past the bound nobody is added, only counted.
    pub(super) fn apply(&mut self, write: &SubscriptionWrite) {
        let (subscriber, mut was_told) = (&write.subscriber, false);
        for group in self.groups.iter_mut().filter(|group| group.kind == subscriber.kind) {
            was_told |= group.members.remove(&subscriber.agent).is_some();
        }
        match write.subscribed {
            true if self.len() < MAX_SUBSCRIBERS => self.insert(subscriber.clone()),
            true => self.beyond += 1,
            false => self.beyond = self.beyond.saturating_sub(u64::from(!was_told)),
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn write(n: usize, subscribed: bool) -> SubscriptionWrite {
        let (kind, key): (Arc<str>, Arc<str>) = ("desk".into(), "a".into());
        let agent = AgentId(Uuid::from_u128(n as u128));
        SubscriptionWrite {
            topic: "t".into(),
            subscriber: Subscriber { agent, kind, key, message: "Price".into() },
            subscribed,
        }
    }

    #[test]
    fn those_past_the_bound_are_counted() {
        let found = (0..MAX_SUBSCRIBERS).map(|n| write(n, true).subscriber).collect();
        let mut audience = Audience::of((found, 2));
        let of = |audience: &Audience| (audience.len(), audience.beyond());
        audience.apply(&write(MAX_SUBSCRIBERS, true));
        assert_eq!(of(&audience), (MAX_SUBSCRIBERS, 3));
        audience.apply(&write(MAX_SUBSCRIBERS + 1, false));
        assert_eq!(of(&audience), (MAX_SUBSCRIBERS, 2));
        audience.apply(&write(0, true));
        assert_eq!(of(&audience), (MAX_SUBSCRIBERS, 2), "it is told as before");
        audience.apply(&write(0, false));
        assert_eq!(of(&audience), (MAX_SUBSCRIBERS - 1, 2));
        audience.apply(&write(MAX_SUBSCRIBERS, true));
        assert_eq!(of(&audience), (MAX_SUBSCRIBERS, 2), "who is counted already is not known");
    }
}
