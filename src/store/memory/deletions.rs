//! Deleting agents.

use async_trait::async_trait;

use super::{
    MemoryStore,
    state::{Agent, State},
};
use crate::store::{AgentRow, Deletion, Deletions, StoreError, StoredStatus};

#[async_trait]
impl Deletions for MemoryStore {
    async fn delete_agent(&self, deletion: &Deletion) -> Result<bool, StoreError> {
        Ok(self.write_now(|s| s.delete_agent(deletion)))
    }
}

impl State {
    fn delete_agent(&mut self, deletion: &Deletion) -> bool {
        let (id, next) = (deletion.id, Deletion::behind(deletion.version));
        if self.epoch_of(id.partition()) != Some(deletion.epoch) {
            return false;
        }
        let Some(row) = self.agents.get(&id).map(|agent| agent.row.clone()) else { return false };
        if row.version != deletion.version {
            return (row.status, row.version, row.epoch) == (StoredStatus::Deleted, next, deletion.epoch);
        }
        let row = AgentRow {
            status: StoredStatus::Deleted,
            reason: None,
            held_at: None,
            epoch: deletion.epoch,
            version: next,
            created_at: self.now,
            updated_at: self.now,
            ..row
        };
        self.agents.insert(id, Agent { row, state: deletion.tombstone.clone() });
        let earlier: Vec<_> = self.earlier.range((id, i64::MIN)..=(id, i64::MAX)).map(|(k, _)| *k).collect();
        earlier.iter().for_each(|key| drop(self.earlier.remove(key)));
        let own = self.subscriptions.iter().filter(|((_, agent), _)| *agent == id).map(|(k, _)| k.clone());
        let own: Vec<_> = own.collect();
        own.iter().for_each(|key| drop(self.subscriptions.remove(key)));
        let keys = self.keys.iter().filter(|((scope, _), _)| *scope == id.0).map(|(k, _)| k.clone());
        let keys: Vec<_> = keys.collect();
        keys.iter().for_each(|key| drop(self.keys.remove(key)));
        true
    }
}
