//! The audit log.

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    MemoryStore,
    state::{State, exact},
};
use crate::{
    model::act::Act,
    store::{
        Acts, StoreError,
        acts::{ActFilter, FORGOTTEN_AT_ONCE, MAX_LISTED},
    },
};

impl State {
    /// Writes one down.
    pub(super) fn begin_act(&mut self, act: &Act) {
        if !self.acts.has(&act.id) {
            self.acts.insert(act.id, Act { at: exact(act.at), ..act.clone() });
        }
    }

    /// Writes down what came of it.
    pub(super) fn end_act(&mut self, act: &Act) {
        if let Some(there) = self.acts.get_mut(&act.id) {
            there.outcome.clone_from(&act.outcome);
            there.before.clone_from(&act.before);
            there.after.clone_from(&act.after);
        }
    }

    /// One page, the latest first.
    pub(super) fn acts(&self, filter: &ActFilter) -> Vec<Act> {
        let is = |wanted: &Option<String>, it: &str| wanted.as_ref().is_none_or(|wanted| wanted == it);
        let young = |id: &Uuid| filter.from.is_none_or(|from| from <= *id);
        let all = self.acts.before(filter.before.as_ref()).rev().take_while(|(id, _)| young(id));
        let found = all.map(|(_, act)| act).filter(|act| {
            is(&filter.who, &act.who) && is(&filter.subject, &act.subject) && is(&filter.action, &act.action)
        });
        found.take(filter.limit.clamp(1, MAX_LISTED)).cloned().collect()
    }

    /// Forgets those before a moment.
    pub(super) fn forget_acts(&mut self, before: Timestamp) -> u64 {
        let old = self.acts.iter().filter(|(_, act)| act.at < before).map(|(id, _)| *id);
        let old: Vec<Uuid> = old.take(usize::try_from(FORGOTTEN_AT_ONCE).unwrap_or(1)).collect();
        old.iter().filter(|id| self.acts.remove(id).is_some()).count() as u64
    }
}

#[async_trait]
impl Acts for MemoryStore {
    async fn begin_act(&self, act: &Act) -> Result<(), StoreError> {
        self.write_now(|s| s.begin_act(act));
        Ok(())
    }

    async fn end_act(&self, act: &Act) -> Result<(), StoreError> {
        self.write_now(|s| s.end_act(act));
        Ok(())
    }

    async fn acts(&self, filter: &ActFilter) -> Result<Vec<Act>, StoreError> {
        Ok(self.read(|s| s.acts(filter)))
    }

    async fn forget_acts(&self, before: Timestamp) -> Result<u64, StoreError> {
        Ok(self.write_now(|s| s.forget_acts(before)))
    }
}
