//! Mailboxes that are nearly full, as found by the sweep of each second.

use super::{inbox::Phase, kind::Kind, running_cell::Live};
use crate::{
    agent::Agent,
    clock,
    model::event::{self, Event, Level},
};

impl<A: Agent> Kind<A> {
    /// Tells where a mailbox is nearly full, and where it is half empty again: once each.
    pub(super) fn gauge(&self, live: &Live<A>) {
        let was = live.inbox.flooded.is_on();
        // whoever is idle has nothing that waits: no lock is taken for it
        let idle = live.inbox.phase() == Phase::Idle;
        if idle && !was {
            return;
        }
        let (depth, capacity) = (live.lane.depth(), live.lane.capacity());
        let is = if was { depth > capacity / 2 } else { depth >= capacity - capacity / 8 };
        if is == was {
            return;
        }
        live.inbox.flooded.set(is, clock::now());
        let Some(node) = self.node.upgrade() else { return };
        let subject = live.lane.name.subject();
        let (level, name) = match is {
            true => (Level::Warn, event::MAILBOX_BACKLOG),
            false => (Level::Info, event::MAILBOX_CLEARED),
        };
        let told = Event::new(level, name, subject.clone()).field("depth", depth).field("capacity", capacity);
        node.logger.emit(match is {
            true => {
                told.hint(format!("greenroom tree shows what it is at; agents restart {subject} --clear"))
            }
            false => told,
        });
    }
}
