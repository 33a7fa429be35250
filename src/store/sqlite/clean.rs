//! Forgetting what has had its time, a bounded number a call.

use diesel::prelude::*;
use jiff::Timestamp;

use super::{
    claim::whole,
    tx::{Sync, Tx, Writer},
    values::{Id, Micros, micros},
};
use crate::{
    model::task::TaskState,
    store::{
        StoreError,
        schema::{
            greenroom_batches, greenroom_idempotency, greenroom_nodes, greenroom_task_archive,
            greenroom_task_events,
        },
    },
};

/// How much one call forgets, of each kind.
const AT_ONCE: i64 = 500;

impl Writer {
    /// Forgets expired keys, and what ended (tasks, batches) or went quiet (crash groups) before
    /// `archive_before`.
    pub(super) fn clean(&mut self, now: Timestamp, archive_before: Timestamp) -> Result<u64, StoreError> {
        self.transaction(Sync::Full, now, |tx| {
            let keys = tx.clean_keys().map_err(|e| whole(e.into()))?;
            let tasks = tx.clean_archive(micros(archive_before)).map_err(|e| whole(e.into()))?;
            let rest = tx.clean_rest(micros(archive_before)).map_err(|e| whole(e.into()))?;
            let crashes = tx.clean_crashes(micros(archive_before)).map_err(|e| whole(e.into()))?;
            Ok((keys + tasks + rest + crashes) as u64)
        })
    }
}

impl Tx<'_> {
    fn clean_keys(&mut self) -> QueryResult<usize> {
        use greenroom_idempotency::dsl;
        let expired: Vec<(Id, String)> = dsl::greenroom_idempotency
            .filter(dsl::expires_at.le(self.now))
            .order(dsl::expires_at.asc())
            .limit(AT_ONCE)
            .select((dsl::scope, dsl::key))
            .load(self.conn)?;
        for (scope, key) in &expired {
            let row = dsl::greenroom_idempotency.filter(dsl::scope.eq(scope)).filter(dsl::key.eq(key));
            diesel::delete(row).execute(self.conn)?;
        }
        Ok(expired.len())
    }

    /// Rows of the archive stand in the order of their ends: only the oldest are looked at.
    fn clean_archive(&mut self, before: Micros) -> QueryResult<usize> {
        use greenroom_task_archive::dsl;
        use greenroom_task_events::dsl as events;
        let oldest: Vec<(i64, Id, i16, Micros)> = dsl::greenroom_task_archive
            .order(dsl::rowid.asc())
            .limit(AT_ONCE)
            .select((dsl::rowid, dsl::id, dsl::state, dsl::finished_at))
            .load(self.conn)?;
        let mut forgotten = 0;
        for (rowid, id, state, _) in oldest.into_iter().filter(|(.., at)| *at < before) {
            diesel::delete(dsl::greenroom_task_archive.filter(dsl::rowid.eq(rowid))).execute(self.conn)?;
            diesel::delete(events::greenroom_task_events.filter(events::task.eq(id))).execute(self.conn)?;
            self.forget_written(&[id])?;
            if let Some(state) = TaskState::from_code(state) {
                self.deltas.task(state, -1);
            }
            forgotten += 1;
        }
        Ok(forgotten)
    }

    fn clean_rest(&mut self, before: Micros) -> QueryResult<usize> {
        use greenroom_batches::dsl as batches;
        use greenroom_nodes::dsl as nodes;
        let ended: Vec<Id> = batches::greenroom_batches
            .filter(batches::open.le(0))
            .filter(batches::created_at.lt(before))
            .limit(AT_ONCE)
            .select(batches::id)
            .load(self.conn)?;
        for id in &ended {
            diesel::delete(batches::greenroom_batches.filter(batches::id.eq(id))).execute(self.conn)?;
        }
        let batches = ended.len();
        let gone = nodes::greenroom_nodes.filter(nodes::ended_at.lt(before));
        Ok(batches + diesel::delete(gone).execute(self.conn)?)
    }
}
