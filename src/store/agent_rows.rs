//! The rows of agents.

use diesel::prelude::*;

use super::{
    AgentRow, StoreError, StoredStatus,
    schema::greenroom_agents,
    values::{Id, Micros, count, moment},
};
use crate::model::id::AgentId;

/// An agent.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = greenroom_agents)]
pub(super) struct StoredAgent {
    id: Id,
    kind: String,
    key: String,
    status: i16,
    reason: Option<String>,
    held_at: Option<Micros>,
    epoch: i64,
    version: i64,
    schema_version: i64,
    created_at: Micros,
    updated_at: Micros,
}

impl StoredAgent {
    pub(super) fn with_state(self, bytes: Vec<u8>) -> Result<AgentRow, StoreError> {
        Ok(AgentRow {
            status: status_of(self.status)?,
            id: AgentId(self.id.0),
            kind: self.kind,
            key: self.key,
            reason: self.reason,
            held_at: self.held_at.map(moment),
            epoch: self.epoch,
            version: self.version,
            schema_version: count(self.schema_version),
            bytes,
            created_at: moment(self.created_at),
            updated_at: moment(self.updated_at),
        })
    }
}

/// The status that a stored number stands for.
pub(super) fn status_of(code: i16) -> Result<StoredStatus, StoreError> {
    use StoredStatus::{Deleted, Normal, Paused, Quarantined, Stopped};
    [Normal, Paused, Stopped, Quarantined, Deleted]
        .into_iter()
        .find(|s| *s as i16 == code)
        .ok_or_else(|| StoreError::Corrupt(format!("{code} is no agent's status")))
}
