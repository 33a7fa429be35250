//! Deleting agents.

use std::sync::Arc;

use async_trait::async_trait;

use super::StoreError;
use crate::model::id::AgentId;

/// An agent that is to be deleted, as it was seen.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// Whose.
    pub id: AgentId,
    /// The epoch under which its partition is owned.
    pub epoch: i64,
    /// The version that it is at; 0 where only a status is stored.
    pub version: i64,
    /// What stands in its place: a frame of the [version behind](Deletion::behind) it, without content.
    pub tombstone: Arc<Vec<u8>>,
}

impl Deletion {
    /// The version under which an agent that was at `version` is deleted: not the next one, for which a late
    /// commit of the agent's could take itself.
    pub fn behind(version: i64) -> i64 {
        version.saturating_add(2)
    }
}

/// Deletions, beside the rest of the store.
#[async_trait]
pub trait Deletions: Send + Sync {
    /// Deletes an agent, with its kept states, its subscriptions and its idempotency keys, all or nothing.
    /// Its row stays, of that version and with [`StoredStatus::Deleted`](super::StoredStatus::Deleted): it is
    /// in no listing, and an agent of that name goes on from that version. Tasks for it are left alone.
    /// `false`: it is not at that version any more, or the epoch is not the partition's. Sent again it is
    /// recognised.
    async fn delete_agent(&self, deletion: &Deletion) -> Result<bool, StoreError>;
}
