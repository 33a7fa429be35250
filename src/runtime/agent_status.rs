//! An agent's lasting status, changed by an operator or by the end of its parent.

use super::{
    cell::stopped_text,
    inbox::Control,
    node::Node,
    orchestrator::{Command, Notice},
    views::Action,
};
use crate::{
    agent::lane::Entrance,
    model::{
        event::{self, Event, Level},
        id::AgentId,
    },
    store::{StoreError, StoredStatus},
};

/// Why an agent is stopped that an operator has stopped.
pub(crate) const STOPPED_BY_OPERATOR: &str = "stopped by an operator";

/// A status, and what follows from it.
pub(crate) struct Standing {
    pub status: StoredStatus,
    /// What senders meet.
    pub entrance: Entrance,
    /// What its cell is told.
    pub control: Control,
    /// Why, for a person.
    pub why: Option<String>,
    /// What was decided, and by whom.
    pub action: Action,
    pub by: &'static str,
    /// What waits and is in no store is answered, and does not run.
    pub clear: bool,
}

impl Standing {
    /// Stopped with its parent.
    pub(crate) fn stopped(kind: &str, key: &str, why: &str) -> Self {
        Self {
            status: StoredStatus::Stopped,
            entrance: Entrance::shut(stopped_text(&format!("{kind}/{key}"), why)),
            control: Control::Cut,
            why: Some(why.to_owned()),
            action: Action::Stop,
            by: "parent",
            clear: false,
        }
    }

    /// Started anew by its parent.
    pub(crate) fn restarted() -> Self {
        Self {
            status: StoredStatus::Normal,
            entrance: Entrance::Open,
            control: Control::Cut,
            why: None,
            action: Action::Restart,
            by: "parent",
            clear: false,
        }
    }
}

impl Node {
    /// Keeps an agent's status, tells its lane and its cell, parks its tasks or brings them back.
    /// `is_known`: it has a row; without one nothing is kept that says nothing.
    ///
    /// # Errors
    /// The store's; the status may be kept all the same.
    pub(crate) async fn stand(
        &self,
        kind: &str,
        key: &str,
        standing: Standing,
        is_known: bool,
    ) -> Result<(), StoreError> {
        let Standing { status, entrance, control, why, action, by, clear } = standing;
        let (id, subject) = (AgentId::of(kind, key), format!("{kind}/{key}"));
        let found = self.kind(kind);
        if is_known || status != StoredStatus::Normal {
            if let Some((_, found)) = found {
                found.note_status(id);
            }
            let kept = self.store.set_status(id, kind, key, self.epoch(id), status, why.as_deref()).await;
            if let Err(error) = kept {
                self.bonds.look(&subject);
                return Err(error);
            }
        }
        if status.is_end() {
            self.bonds.ended(&subject, why.as_deref().unwrap_or_default());
        }
        if let (Some(actors), Some((kind, _))) = (self.actors(), found) {
            let command = Command { kind, key: key.to_owned(), entrance: Some(entrance), control, clear };
            let sent = actors.orchestrator.send(command).await;
            sent.map_err(|_| StoreError::NotDone("the node is going down".to_owned()))?;
        }
        let runnable = status == StoredStatus::Normal;
        match runnable {
            true => self.unpark(&subject).await?,
            false => drop(self.store.park(&subject, true).await?),
        }
        let (name, level) =
            if runnable { (event::AGENT_STARTED, Level::Info) } else { (event::AGENT_STOPPED, Level::Warn) };
        let event = Event::new(level, name, subject.clone()).field("by", by);
        let event = event.field("action", format!("{action:?}"));
        self.logger.emit(event.field_opt("reason", why).field_opt("cleared", clear.then_some(true)));
        if runnable {
            self.notice(Notice::Healed { subject });
            self.wake_dispatcher(true);
        }
        Ok(())
    }
}
