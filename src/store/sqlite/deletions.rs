//! Deleting agents.

use async_trait::async_trait;
use diesel::prelude::*;
use jiff::Timestamp;

use super::{SqliteStore, error, tx, values::Id};
use crate::store::{
    Deletion, Deletions, StoreError, StoredStatus, rows,
    schema::{greenroom_agents, greenroom_idempotency, greenroom_snapshots, greenroom_subscriptions},
};

#[async_trait]
impl Deletions for SqliteStore {
    async fn delete_agent(&self, deletion: &Deletion) -> Result<bool, StoreError> {
        let deletion = deletion.clone();
        let delete = move |tx: &mut tx::Tx<'_>| {
            let owned = tx.epoch(deletion.id.partition()).map_err(|e| error::of_statement(&e))?;
            if owned != Some(deletion.epoch) {
                return Ok(false);
            }
            tx.delete_agent(&deletion).map_err(|e| error::of_statement(&e))
        };
        self.write(move |w| w.transaction(tx::Sync::Full, Timestamp::now(), delete)).await
    }
}

impl tx::Tx<'_> {
    fn delete_agent(&mut self, deletion: &Deletion) -> QueryResult<bool> {
        use greenroom_agents::dsl;
        let id = Id::from(deletion.id);
        let row = dsl::greenroom_agents.filter(dsl::id.eq(id));
        let found = row.select((dsl::status, dsl::version, dsl::epoch)).first(self.conn).optional()?;
        let Some((status, version, epoch)): Option<(i16, i64, i64)> = found else { return Ok(false) };
        let (gone, next) = (StoredStatus::Deleted, Deletion::behind(deletion.version));
        if version != deletion.version {
            return Ok((status, version, epoch) == (gone as i16, next, deletion.epoch));
        }
        if let Ok(before) = rows::status_of(status) {
            self.deltas.agent(before, -1);
        }
        self.deltas.agent(gone, 1);
        diesel::update(row)
            .set((
                dsl::status.eq(gone as i16),
                dsl::reason.eq(None::<String>),
                dsl::epoch.eq(deletion.epoch),
                dsl::version.eq(next),
                dsl::created_at.eq(self.now),
                dsl::updated_at.eq(self.now),
                dsl::state.eq(deletion.tombstone.as_slice()),
            ))
            .execute(self.conn)?;
        let kept = greenroom_snapshots::table.filter(greenroom_snapshots::agent.eq(id));
        diesel::delete(kept).execute(self.conn)?;
        let subscriptions = greenroom_subscriptions::table.filter(greenroom_subscriptions::agent.eq(id));
        diesel::delete(subscriptions).execute(self.conn)?;
        let keys = greenroom_idempotency::table.filter(greenroom_idempotency::scope.eq(id));
        diesel::delete(keys).execute(self.conn)?;
        Ok(true)
    }
}
