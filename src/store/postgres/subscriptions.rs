//! Subscriptions, begun and ended. What their commit does stands beside its function, in
//! `migrations/postgres`.

use super::{call::SubscriptionArguments, commit::wire, values::Id};
use crate::store::Unit;

impl<'a> SubscriptionArguments<'a> {
    /// What a wave of units does to subscriptions.
    pub(super) fn of(units: &'a [Unit], wave: &[usize]) -> Self {
        let mut all = Self::default();
        for n in wave {
            for write in units.get(*n).into_iter().flat_map(|unit| &unit.subscriptions) {
                let subscriber = &write.subscriber;
                all.t_unit.push(wire(*n));
                all.t_topic.push(&write.topic);
                all.t_agent.push(Id::from(subscriber.agent));
                all.t_kind.push(&subscriber.kind);
                all.t_key.push(&subscriber.key);
                all.t_message.push(write.subscribed.then_some(&*subscriber.message));
            }
        }
        all
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.t_unit.is_empty()
    }
}
