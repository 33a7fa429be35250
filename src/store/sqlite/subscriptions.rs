//! Subscriptions.

use diesel::{prelude::*, upsert::excluded};

use super::{commit::Stop, tx::Tx, values::Id};
use crate::{model::topic::SubscriptionWrite, store::schema::greenroom_subscriptions};

impl Tx<'_> {
    /// Begins and ends subscriptions.
    pub(super) fn subscriptions(&mut self, writes: &[SubscriptionWrite]) -> Result<(), Stop> {
        use greenroom_subscriptions::dsl;
        for SubscriptionWrite { topic, subscriber, subscribed } in writes {
            if *subscribed {
                diesel::insert_into(dsl::greenroom_subscriptions)
                    .values((
                        dsl::topic.eq(&**topic),
                        dsl::agent.eq(Id::from(subscriber.agent)),
                        dsl::kind.eq(&*subscriber.kind),
                        dsl::key.eq(&*subscriber.key),
                        dsl::message.eq(&*subscriber.message),
                        dsl::created_at.eq(self.now),
                    ))
                    .on_conflict((dsl::topic, dsl::agent))
                    .do_update()
                    .set(dsl::message.eq(excluded(dsl::message)))
                    .execute(self.conn)?;
            } else {
                let row = dsl::greenroom_subscriptions.find((&**topic, Id::from(subscriber.agent)));
                diesel::delete(row).execute(self.conn)?;
            }
        }
        Ok(())
    }
}
