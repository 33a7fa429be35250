//! Mailboxes that are nearly full, as found by the sweep of each second.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::{inbox::Phase, kind::Kind, running_cell::Live};
use crate::{
    agent::Agent,
    clock,
    model::event::{self, Event, Level},
};

/// The agents of a kind whose mailboxes were seen nearly full, and not half empty after that; and since when. What is
/// known of a mailbox outlives the activations of its agent.
#[derive(Default)]
pub(super) struct MailboxAlerts(Mutex<HashMap<Arc<str>, Timestamp>>);

impl MailboxAlerts {
    pub(super) fn all(&self) -> Vec<(Arc<str>, Timestamp)> {
        self.0.lock().iter().map(|(key, since)| (key.clone(), *since)).collect()
    }
}

/// What to do about a mailbox that is nearly full.
pub(super) fn remedy(subject: &str) -> String {
    format!(
        "greenroom agents show {subject} shows what it is at; if that does not end: greenroom agents restart {subject}; \
         what waits stays"
    )
}

impl<A: Agent> Kind<A> {
    /// Tells of a mailbox that is nearly full, once.
    pub(super) fn gauge(&self, live: &Live<A>) {
        // whoever is idle has nothing that waits: no lock is taken for it
        if live.inbox.phase() == Phase::Idle {
            return;
        }
        let (depth, capacity) = (live.lane.depth(), live.lane.capacity());
        if depth < capacity - capacity / 8 {
            return;
        }
        let mut alerts = self.mailbox_alerts.0.lock();
        if alerts.contains_key(&live.lane.name.key) {
            return;
        }
        alerts.insert(live.lane.name.key.clone(), clock::now());
        drop(alerts);
        let subject = live.lane.name.subject();
        let hint = remedy(&subject);
        self.tell_of_mailbox(Level::Warn, event::MAILBOX_BACKLOG, subject, depth, capacity, Some(hint));
    }

    /// Tells which of those are half empty again, whatever became of their agents.
    pub(super) fn clear_mailbox_alerts(&self) {
        let mut cleared = Vec::new();
        self.mailbox_alerts.0.lock().retain(|key, _| {
            let lane = self.directory.get().and_then(|directory| directory.lanes.get(key));
            let (depth, capacity) =
                lane.map_or((0, self.policy.mailbox), |lane| (lane.depth(), lane.capacity()));
            let stays = depth > capacity / 2;
            if !stays {
                cleared.push((key.clone(), depth, capacity));
            }
            stays
        });
        for (key, depth, capacity) in cleared {
            let subject = format!("{}/{key}", A::KIND);
            self.tell_of_mailbox(Level::Info, event::MAILBOX_CLEARED, subject, depth, capacity, None);
        }
    }

    fn tell_of_mailbox(
        &self,
        level: Level,
        name: &'static str,
        subject: String,
        depth: usize,
        capacity: usize,
        hint: Option<String>,
    ) {
        let Some(node) = self.node.upgrade() else { return };
        let told = Event::new(level, name, subject).field("depth", depth).field("capacity", capacity);
        node.logger.emit(match hint {
            Some(hint) => told.hint(hint),
            None => told,
        });
    }
}
