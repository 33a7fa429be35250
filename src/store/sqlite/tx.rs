//! The only writer, and its transactions.

use std::path::PathBuf;

use diesel::{connection::SimpleConnection, prelude::*};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    clean::Kept,
    error,
    history::History,
    plain::{Begin, Commit},
    values::{Id, Micros, micros, types::Uid},
};
use crate::{
    model::task::TaskState,
    store::{
        StoreError, StoredStatus,
        schema::{greenroom_counts, greenroom_meta, greenroom_partitions, greenroom_task_events},
        told,
    },
};

/// How far a transaction must have got when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// On the device.
    Full,
    /// In the log: a power cut may undo it, in order with all that came after it. Right for
    /// claims, which mean nothing without the commit that ends them.
    Lazy,
}

/// The connection that writes.
pub(super) struct Writer {
    pub(super) conn: SqliteConnection,
    pub(super) path: PathBuf,
    pub(super) history: History,
    /// Whether the durability asked for is the full one.
    pub(super) full: bool,
    /// How far the old end of the archive holds nothing but dead letters.
    pub(super) kept: Option<Kept>,
}

/// By how much the counters move.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Deltas {
    tasks: [i64; TaskState::ALL.len()],
    agents: [i64; 5],
}

impl Deltas {
    pub(super) fn task(&mut self, state: TaskState, by: i64) {
        let at = TaskState::ALL.iter().position(|s| *s == state);
        if let Some(n) = at.and_then(|at| self.tasks.get_mut(at)) {
            *n += by;
        }
    }

    pub(super) fn agent(&mut self, status: StoredStatus, by: i64) {
        if let Some(n) = self.agents.get_mut(status as usize) {
            *n += by;
        }
    }

    fn changed(&self) -> impl Iterator<Item = (i16, i64)> {
        let tasks = TaskState::ALL.iter().map(|s| *s as i16).zip(self.tasks);
        let agents = (100..).zip(self.agents);
        tasks.chain(agents).filter(|(_, by)| *by != 0)
    }
}

/// What a refused unit must give back besides its statements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    deltas: Deltas,
    seq: Option<i64>,
}

/// A transaction under way.
pub(super) struct Tx<'w> {
    pub(super) conn: &'w mut SqliteConnection,
    pub(super) history: &'w mut History,
    /// One moment for all of it.
    pub(super) now: Micros,
    pub(super) deltas: Deltas,
    seq: Option<i64>,
    seq_before: Option<i64>,
    epochs: Vec<(i16, i64)>,
}

/// Of so many partitions the epochs are read one by one; who needs more reads them all.
const FEW_PARTITIONS: usize = 4;

impl Writer {
    /// Runs `work` in one transaction; on an error nothing of it has happened.
    pub(super) fn transaction<T>(
        &mut self,
        sync: Sync,
        now: Timestamp,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let lazy = sync == Sync::Lazy && self.full;
        if lazy {
            self.synchronous("NORMAL")?;
        }
        let result = self.run(now, work);
        if lazy {
            // a writer that stays lazy would lose acknowledged commits: it may not go on
            self.synchronous("FULL").map_err(|e| StoreError::Fatal(e.to_string()))?;
        }
        result
    }

    fn synchronous(&mut self, level: &str) -> Result<(), StoreError> {
        self.conn.batch_execute(&format!("PRAGMA synchronous = {level}")).map_err(|e| error::of_statement(&e))
    }

    fn run<T>(
        &mut self,
        now: Timestamp,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        Begin.execute(&mut self.conn).map_err(|e| error::of_statement(&e))?;
        let mut tx = Tx {
            conn: &mut self.conn,
            history: &mut self.history,
            now: micros(now),
            deltas: Deltas::default(),
            seq: None,
            seq_before: None,
            epochs: Vec::new(),
        };
        let done = work(&mut tx).and_then(|value| {
            tx.settle()?;
            Ok(value)
        });
        let value = match done {
            Ok(value) => value,
            Err(e) => {
                self.roll_back();
                return Err(e);
            }
        };
        match Commit.execute(&mut self.conn) {
            Ok(_) => Ok(value),
            Err(e) => {
                let e = error::of_commit(&e, &self.path);
                self.roll_back();
                Err(e)
            }
        }
    }

    fn roll_back(&mut self) {
        // SQLite may have rolled back already, and says so with an error
        let _ = self.conn.batch_execute("ROLLBACK");
    }
}

impl Tx<'_> {
    pub(super) fn mark(&self) -> Mark {
        Mark { deltas: self.deltas, seq: self.seq }
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        self.deltas = mark.deltas;
        self.seq = mark.seq;
    }

    /// The next place in the order of acceptance.
    pub(super) fn next_seq(&mut self) -> QueryResult<i64> {
        use greenroom_meta::dsl;
        let last = match self.seq {
            Some(last) => last,
            None => {
                let stored = dsl::greenroom_meta.find("seq").select(dsl::value).first::<i64>(self.conn)?;
                self.seq_before = Some(stored);
                stored
            }
        };
        let next = last + 1;
        self.seq = Some(next);
        Ok(next)
    }

    /// The epoch of a partition.
    pub(super) fn epoch(&mut self, partition: i16) -> QueryResult<Option<i64>> {
        use greenroom_partitions::dsl;
        let known = |epochs: &[(i16, i64)]| epochs.iter().find(|(id, _)| *id == partition).map(|(_, e)| *e);
        if let Some(epoch) = known(&self.epochs) {
            return Ok(Some(epoch));
        }
        if self.epochs.len() >= FEW_PARTITIONS {
            self.epochs = dsl::greenroom_partitions.select((dsl::id, dsl::epoch)).load(self.conn)?;
            return Ok(known(&self.epochs));
        }
        let row = dsl::greenroom_partitions.find(partition).select((dsl::id, dsl::epoch));
        let found = row.first::<(i16, i64)>(self.conn).optional()?;
        self.epochs.extend(found);
        Ok(found.map(|(_, epoch)| epoch))
    }

    /// A line in a task's history.
    pub(super) fn event(
        &mut self,
        task: Id,
        event: &str,
        attempt: i64,
        node: Option<Uuid>,
        detail: Option<&str>,
    ) -> QueryResult<()> {
        self.event_at(task, self.now, event, attempt, node, detail)
    }

    /// When an attempt began that ends now and is not the last one: what the columns of its row told until now.
    pub(super) fn began(
        &mut self,
        task: Id,
        at: Option<Micros>,
        attempt: i64,
        node: Option<Uuid>,
    ) -> QueryResult<()> {
        at.map_or(Ok(()), |at| self.event_at(task, at, told::STARTED, attempt, node, None))
    }

    /// A line in a task's history, of what happened at another moment.
    pub(super) fn event_at(
        &mut self,
        task: Id,
        at: Micros,
        event: &str,
        attempt: i64,
        node: Option<Uuid>,
        detail: Option<&str>,
    ) -> QueryResult<()> {
        use greenroom_task_events::dsl;
        diesel::insert_into(dsl::greenroom_task_events)
            .values((
                dsl::task.eq(task),
                dsl::at.eq(at),
                dsl::event.eq(event),
                dsl::attempt.eq(attempt),
                dsl::node.eq(node.map(Id).into_sql::<diesel::sql_types::Nullable<Uid>>()),
                dsl::detail.eq(detail.into_sql::<diesel::sql_types::Nullable<diesel::sql_types::Text>>()),
            ))
            .execute(self.conn)?;
        Ok(())
    }

    /// Writes what was only counted so far.
    fn settle(&mut self) -> Result<(), StoreError> {
        use greenroom_counts::dsl;
        for (id, by) in self.deltas.changed() {
            diesel::update(dsl::greenroom_counts.filter(dsl::id.eq(id)))
                .set(dsl::n.eq(dsl::n + by))
                .execute(self.conn)
                .map_err(|e| error::of_statement(&e))?;
        }
        if let Some(seq) = self.seq.filter(|_| self.seq != self.seq_before) {
            use greenroom_meta::dsl;
            diesel::update(dsl::greenroom_meta.filter(dsl::name.eq("seq")))
                .set(dsl::value.eq(seq))
                .execute(self.conn)
                .map_err(|e| error::of_statement(&e))?;
        }
        Ok(())
    }
}
