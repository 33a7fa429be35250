//! Deletes expired rows, a bounded number per call.

use diesel::prelude::*;
use jiff::Timestamp;

use super::{
    claim::whole,
    tx::{Sync, Tx, Writer},
    values::{FAILED, Id, Micros, micros},
};
use crate::{
    model::task::TaskState,
    store::{
        Past, StoreError,
        schema::{
            greenroom_batches, greenroom_idempotency, greenroom_nodes, greenroom_task_archive,
            greenroom_task_edges, greenroom_task_events,
        },
    },
};

/// How much one call forgets, of each kind.
const DELETE_BATCH: i64 = 500;
/// How often in one call as many rows of the archive are looked at, where all of them stay.
const LOOKS: usize = 10;

/// The last of the dead letters at the old end of the archive, where there is nothing else any more. What ends
/// stands behind all that is there, so nothing comes before it as long as it is there itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    rowid: i64,
    id: Id,
    at: Micros,
}

impl Writer {
    /// Forgets expired keys, and what ended (tasks, batches) or went quiet (crash groups) long enough ago.
    pub(super) fn clean(&mut self, now: Timestamp, past: Past) -> Result<u64, StoreError> {
        let mut kept = self.kept;
        let forgotten = self.transaction(Sync::Full, now, |tx| {
            let ended = micros(past.ended);
            let keys = tx.clean_keys().map_err(|e| whole(e.into()))?;
            let dead = tx.clean_dead(micros(past.failed)).map_err(|e| whole(e.into()))?;
            let tasks = tx.clean_archive(ended, &mut kept).map_err(|e| whole(e.into()))?;
            let rest = tx.clean_rest(ended).map_err(|e| whole(e.into()))?;
            let crashes = tx.clean_crashes(ended).map_err(|e| whole(e.into()))?;
            Ok((keys + dead + tasks + rest + crashes) as u64)
        })?;
        self.kept = kept;
        Ok(forgotten)
    }
}

impl Tx<'_> {
    fn clean_keys(&mut self) -> QueryResult<usize> {
        use greenroom_idempotency::dsl;
        let expired: Vec<(Id, String)> = dsl::greenroom_idempotency
            .filter(dsl::expires_at.le(self.now))
            .order(dsl::expires_at.asc())
            .limit(DELETE_BATCH)
            .select((dsl::scope, dsl::key))
            .load(self.conn)?;
        for (scope, key) in &expired {
            let row = dsl::greenroom_idempotency.filter(dsl::scope.eq(scope)).filter(dsl::key.eq(key));
            diesel::delete(row).execute(self.conn)?;
        }
        Ok(expired.len())
    }

    /// Dead letters, by an index of their own.
    fn clean_dead(&mut self, before: Micros) -> QueryResult<usize> {
        use greenroom_task_archive::dsl;
        let oldest: Vec<(i64, Id)> = dsl::greenroom_task_archive
            .filter(dsl::state.eq(FAILED))
            .filter(dsl::finished_at.lt(before))
            .order(dsl::finished_at.asc())
            .limit(DELETE_BATCH)
            .select((dsl::rowid, dsl::id))
            .load(self.conn)?;
        oldest.iter().try_for_each(|(rowid, id)| self.forget_task(*rowid, *id, TaskState::Failed))?;
        Ok(oldest.len())
    }

    /// All others: rows of the archive stand in the order of their ends, so only the oldest are looked at. The
    /// dead letters that stay at the old end are looked at once.
    fn clean_archive(&mut self, before: Micros, kept: &mut Option<Kept>) -> QueryResult<usize> {
        use greenroom_task_archive::dsl;
        if let Some(last) = *kept
            && !self.is_there(last)?
        {
            *kept = None;
        }
        let (mut from, mut stays, mut forgotten) = (kept.map_or(i64::MIN, |last| last.rowid), false, 0);
        for _ in 0..LOOKS {
            let oldest: Vec<(i64, Id, i16, Micros)> = dsl::greenroom_task_archive
                .filter(dsl::rowid.gt(from))
                .order(dsl::rowid.asc())
                .limit(DELETE_BATCH)
                .select((dsl::rowid, dsl::id, dsl::state, dsl::finished_at))
                .load(self.conn)?;
            let Some((last, ..)) = oldest.last() else { break };
            from = *last;
            for (rowid, id, state, at) in oldest {
                match TaskState::from_code(state) {
                    Some(TaskState::Failed) if !stays => *kept = Some(Kept { rowid, id, at }),
                    Some(TaskState::Failed) => {}
                    Some(state) if at < before => {
                        self.forget_task(rowid, id, state)?;
                        forgotten += 1;
                    }
                    _ => stays = true,
                }
            }
            if stays || forgotten > 0 {
                break;
            }
        }
        Ok(forgotten)
    }

    fn is_there(&mut self, kept: Kept) -> QueryResult<bool> {
        use greenroom_task_archive::dsl;
        let row = dsl::greenroom_task_archive.filter(dsl::rowid.eq(kept.rowid)).filter(dsl::id.eq(kept.id));
        let found =
            row.select((dsl::state, dsl::finished_at)).first::<(i16, Micros)>(self.conn).optional()?;
        Ok(found == Some((TaskState::Failed as i16, kept.at)))
    }

    /// Forgets a task that has ended, with all that is its own.
    fn forget_task(&mut self, rowid: i64, id: Id, state: TaskState) -> QueryResult<()> {
        use greenroom_task_archive::dsl;
        use greenroom_task_edges::dsl as edges;
        use greenroom_task_events::dsl as events;
        diesel::delete(dsl::greenroom_task_archive.filter(dsl::rowid.eq(rowid))).execute(self.conn)?;
        diesel::delete(events::greenroom_task_events.filter(events::task.eq(id))).execute(self.conn)?;
        diesel::delete(edges::greenroom_task_edges.filter(edges::child.eq(id))).execute(self.conn)?;
        self.forget_written(&[id])?;
        self.deltas.task(state, -1);
        Ok(())
    }

    fn clean_rest(&mut self, before: Micros) -> QueryResult<usize> {
        use greenroom_batches::dsl as batches;
        use greenroom_nodes::dsl as nodes;
        let ended: Vec<Id> = batches::greenroom_batches
            .filter(batches::open.le(0))
            .filter(batches::created_at.lt(before))
            .limit(DELETE_BATCH)
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
