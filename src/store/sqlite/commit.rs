//! The group commit: many units, one transaction, a verdict each.
//!
//! A unit of a single guarded statement needs no savepoint: SQLite undoes a failed statement by
//! itself, and a guard that is not met changes nothing. All others get one each. So a unit that is
//! refused, or that the store cannot take, leaves no trace, and its neighbours do not notice.

use diesel::{
    prelude::*,
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Nullable},
    sqlite::Sqlite,
    upsert::excluded,
};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    error,
    plain::{Release, RollbackTo, Savepoint},
    read::stored_key,
    rows,
    tx::{Sync, Tx, Writer},
    values::{
        Id, Micros, lane, micros,
        types::{Moment, Uid},
    },
};
use crate::{
    model::{
        id::TaskId,
        task::{NewTask, OnParentFailed, TaskState},
    },
    store::{
        KeyWrite, MIXED, Refusal, StateWrite, StoreError, StoredStatus, Unit, Verdict,
        finish::is_own,
        schema::{
            greenroom_agents, greenroom_batches, greenroom_idempotency, greenroom_snapshots,
            greenroom_task_archive, greenroom_task_edges, greenroom_task_parents, greenroom_tasks,
        },
    },
};

/// Why a unit did not go through.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(Refusal),
    /// It is durable since an earlier try.
    Already,
    Sql(diesel::result::Error),
    Store(StoreError),
}

impl From<diesel::result::Error> for Stop {
    fn from(e: diesel::result::Error) -> Self {
        Self::Sql(e)
    }
}

impl From<StoreError> for Stop {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Writer {
    /// Commits units in one transaction.
    pub(super) fn commit(&mut self, boot: Uuid, units: &[Unit]) -> Result<Vec<Verdict>, StoreError> {
        self.transaction(Sync::Full, Timestamp::now(), |tx| {
            units.iter().map(|unit| tx.unit(boot, unit)).collect()
        })
    }
}

fn is_one_statement(unit: &Unit) -> bool {
    unit.finished.is_empty()
        && unit.batches.is_empty()
        && !unit.has_entities()
        && unit.subscriptions.is_empty()
        && unit.journal.is_none()
        && unit.schedule.is_none()
        && match (&unit.state, unit.accepted.as_slice(), unit.keys.as_slice()) {
            (Some(_), [], []) | (None, [], [_]) => true,
            (None, [task], []) => task.after.is_empty(),
            _ => false,
        }
}

impl Tx<'_> {
    fn unit(&mut self, boot: Uuid, unit: &Unit) -> Result<Verdict, StoreError> {
        let of_statement = |e| error::of_statement(&e);
        let savepoint = !is_one_statement(unit);
        let mark = self.mark();
        if savepoint {
            Savepoint.execute(self.conn).map_err(of_statement)?;
        }
        let stop = match self.apply(boot, unit) {
            Ok(()) => {
                if savepoint {
                    Release.execute(self.conn).map_err(of_statement)?;
                }
                return Ok(Verdict::Durable);
            }
            Err(stop) => stop,
        };
        let refusal = match stop {
            Stop::Store(e) => return Err(e),
            Stop::Sql(e) if !error::is_statements(&e) => return Err(error::of_statement(&e)),
            Stop::Sql(e) => Some(Refusal::Bad(e.to_string())),
            Stop::Refused(refusal) => Some(refusal),
            Stop::Already => None,
        };
        if savepoint {
            RollbackTo.execute(self.conn).map_err(of_statement)?;
            Release.execute(self.conn).map_err(of_statement)?;
        }
        self.back_to(mark);
        match refusal {
            Some(refusal) if !self.is_durable(boot, unit).map_err(of_statement)? => {
                Ok(Verdict::Refused(refusal))
            }
            _ => Ok(Verdict::Durable),
        }
    }

    fn apply(&mut self, boot: Uuid, unit: &Unit) -> Result<(), Stop> {
        if unit.is_mixed() {
            return Err(Refusal::Bad(MIXED.to_owned()).into());
        }
        if let Some(journal) = &unit.journal {
            return self.record(boot, journal);
        }
        if let Some((partition, epoch)) = unit.owner
            && self.epoch(partition)? != Some(epoch)
        {
            return Err(Refusal::Fenced.into());
        }
        if let Some(state) = &unit.state {
            if self.epoch(state.id.partition())? != Some(state.epoch) {
                return Err(Refusal::Fenced.into());
            }
            self.state(state)?;
        } else if unit.finished.is_empty()
            && let Some(first) = unit.accepted.first()
            && self.is_archived(first.id)?
        {
            // a submission that was accepted before, and whose work has even ended since
            return Err(Stop::Already);
        }
        for finish in &unit.finished {
            self.finish(boot, finish)?;
        }
        for key in &unit.keys {
            self.key(key)?;
        }
        self.accept(&unit.accepted)?;
        for batch in &unit.batches {
            use greenroom_batches::dsl;
            diesel::insert_into(dsl::greenroom_batches)
                .values((
                    dsl::id.eq(Id::from(batch.id)),
                    dsl::size.eq(i64::try_from(batch.size).unwrap_or(i64::MAX)),
                    dsl::open.eq(i64::try_from(batch.size).unwrap_or(i64::MAX)),
                    dsl::succeeded.eq(0),
                    dsl::failed.eq(0),
                    dsl::notify.eq(rows::batch_notify_text(batch.notify.as_ref())
                        .into_sql::<Nullable<diesel::sql_types::Text>>()),
                    dsl::created_at.eq(self.now),
                ))
                .execute(self.conn)?;
            if batch.size == 0 {
                self.joined(batch.id.into(), 0, 0, batch.notify.as_ref(), 5)?;
            }
        }
        self.entities(unit)?;
        self.subscriptions(&unit.subscriptions)?;
        unit.schedule.as_ref().map_or(Ok(()), |to| self.move_schedule(to))
    }

    fn state(&mut self, write: &StateWrite) -> Result<(), Stop> {
        use greenroom_agents::dsl;
        let id = Id(write.id.0);
        let version = write.base_version.saturating_add(1);
        let bytes = write.bytes.as_slice();
        if write.base_version > 0 {
            if self.history.keeps(write, self.now) {
                self.keep(id, write.base_version)?;
            }
            let next = NextState {
                id,
                base_version: write.base_version,
                epoch: write.epoch,
                version,
                schema_version: i64::from(write.schema_version),
                updated_at: self.now,
                state: bytes,
            };
            let met = next.execute(self.conn)?;
            return if met == 1 { Ok(()) } else { Err(Refusal::Fenced.into()) };
        }
        let before = self.deltas;
        self.deltas.agent(StoredStatus::Normal, 1);
        let met = diesel::insert_into(dsl::greenroom_agents)
            .values((
                (
                    dsl::id.eq(id),
                    dsl::partition.eq(write.id.partition()),
                    dsl::kind.eq(write.kind.as_ref()),
                    dsl::key.eq(write.key.as_ref()),
                    dsl::status.eq(StoredStatus::Normal as i16),
                ),
                dsl::epoch.eq(write.epoch),
                dsl::version.eq(version),
                dsl::schema_version.eq(i64::from(write.schema_version)),
                dsl::created_at.eq(self.now),
                dsl::updated_at.eq(self.now),
                dsl::state.eq(bytes),
            ))
            .on_conflict_do_nothing()
            .execute(self.conn)?;
        if met == 1 {
            return Ok(());
        }
        // a status may have been stored before the first state
        self.deltas = before;
        let row = dsl::greenroom_agents.filter(dsl::id.eq(id)).filter(dsl::version.eq(0));
        let met = diesel::update(row)
            .set((
                dsl::epoch.eq(write.epoch),
                dsl::version.eq(version),
                dsl::schema_version.eq(i64::from(write.schema_version)),
                dsl::created_at.eq(self.now),
                dsl::updated_at.eq(self.now),
                dsl::state.eq(bytes),
            ))
            .execute(self.conn)?;
        if met == 1 { Ok(()) } else { Err(Refusal::Fenced.into()) }
    }

    /// Keeps the state that is about to be overwritten, under the same guard, and forgets the
    /// oldest.
    fn keep(&mut self, agent: Id, version: i64) -> QueryResult<()> {
        use greenroom_agents::dsl as a;
        use greenroom_snapshots::dsl as s;
        let old = a::greenroom_agents.filter(a::id.eq(agent)).filter(a::version.eq(version)).select((
            a::id,
            a::version,
            a::epoch,
            a::updated_at,
            a::state,
        ));
        let kept = diesel::insert_or_ignore_into(s::greenroom_snapshots)
            .values(old)
            .into_columns((s::agent, s::version, s::epoch, s::at, s::state))
            .execute(self.conn)?;
        if kept == 0 {
            return Ok(());
        }
        let beyond = s::greenroom_snapshots
            .filter(s::agent.eq(agent))
            .order(s::version.desc())
            .offset(i64::try_from(self.history.keep).unwrap_or(i64::MAX))
            .limit(1)
            .select(s::version)
            .first::<i64>(self.conn)
            .optional()?;
        if let Some(beyond) = beyond {
            let old = s::greenroom_snapshots.filter(s::agent.eq(agent)).filter(s::version.le(beyond));
            diesel::delete(old).execute(self.conn)?;
        }
        Ok(())
    }

    fn key(&mut self, write: &KeyWrite) -> Result<(), Stop> {
        use greenroom_idempotency::dsl;
        let upsert = diesel::insert_into(dsl::greenroom_idempotency)
            .values((
                dsl::scope.eq(Id(write.scope)),
                dsl::key.eq(&write.key),
                dsl::request.eq(write.request.as_slice()),
                dsl::task.eq(write.task.map(Id::from).into_sql::<Nullable<Uid>>()),
                dsl::reply.eq(write.reply.as_deref().into_sql::<Nullable<Binary>>()),
                dsl::expires_at.eq(micros(write.expires_at)),
            ))
            .on_conflict((dsl::scope, dsl::key))
            .do_update()
            .set((
                dsl::request.eq(excluded(dsl::request)),
                dsl::task.eq(excluded(dsl::task)),
                dsl::reply.eq(excluded(dsl::reply)),
                dsl::expires_at.eq(excluded(dsl::expires_at)),
            ));
        let met = diesel::query_dsl::methods::FilterDsl::filter(upsert, dsl::expires_at.le(self.now))
            .execute(self.conn)?;
        if met == 1 {
            return Ok(());
        }
        match stored_key(self.conn, write.scope, &write.key, self.now)? {
            // if it is this unit's own, of an earlier try, `is_durable` will find out
            Some(row) => Err(Refusal::KeyTaken(row).into()),
            None => Err(Refusal::Bad("the idempotency key could not be written".to_owned()).into()),
        }
    }

    fn accept(&mut self, tasks: &[NewTask]) -> Result<(), Stop> {
        for task in tasks {
            let state = if !task.after.is_empty() {
                TaskState::Blocked
            } else if task.run_at.is_some_and(|at| micros(at) > self.now) {
                TaskState::Scheduled
            } else {
                TaskState::Ready
            };
            let seq = self.next_seq()?;
            let texts = rows::Texts::of(task);
            diesel::insert_into(greenroom_tasks::table)
                .values(rows::accepted(task, &texts, seq, state, self.now))
                .execute(self.conn)?;
            self.deltas.task(state, 1);
        }
        // only now, since a parent may stand behind its child
        for task in tasks.iter().filter(|task| !task.after.is_empty()) {
            self.wait_for_parents(task)?;
        }
        Ok(())
    }

    fn wait_for_parents(&mut self, task: &NewTask) -> Result<(), Stop> {
        use greenroom_task_archive::dsl as archive;
        use greenroom_task_edges::dsl as kept;
        use greenroom_task_parents::dsl as edges;
        use greenroom_tasks::dsl as t;
        let mut parents = task.after.clone();
        parents.sort_unstable();
        parents.dedup();
        let child = Id::from(task.id);
        let (mut open, mut failed) = (0_i64, false);
        for parent in parents {
            let id = Id::from(parent);
            diesel::insert_into(kept::greenroom_task_edges)
                .values((kept::child.eq(child), kept::parent.eq(id)))
                .execute(self.conn)?;
            let hot = diesel::update(t::greenroom_tasks.filter(t::id.eq(id)))
                .set(t::awaited.eq(true))
                .execute(self.conn)?;
            if hot == 1 {
                diesel::insert_into(edges::greenroom_task_parents)
                    .values((edges::parent.eq(id), edges::child.eq(child)))
                    .execute(self.conn)?;
                open += 1;
                continue;
            }
            let ended = archive::greenroom_task_archive
                .filter(archive::id.eq(id))
                .select(archive::state)
                .first::<i16>(self.conn)
                .optional()?;
            match ended.map(rows::state_of).transpose()? {
                None => return Err(Refusal::ParentUnknown(parent).into()),
                Some(TaskState::Succeeded) => {}
                Some(_) => failed |= task.on_parent_failed == OnParentFailed::Cancel,
            }
        }
        let row = t::greenroom_tasks.filter(t::id.eq(child));
        if failed {
            diesel::update(row)
                .set((t::waits_for.eq(open), t::lane.eq(lane::PARENT_FAILED)))
                .execute(self.conn)?;
        } else if open > 0 {
            diesel::update(row).set(t::waits_for.eq(open)).execute(self.conn)?;
        } else {
            self.unblock(child, task.run_at.map(micros))?;
        }
        Ok(())
    }

    fn is_archived(&mut self, id: TaskId) -> QueryResult<bool> {
        use greenroom_task_archive::dsl;
        let found = dsl::greenroom_task_archive
            .filter(dsl::id.eq(Id::from(id)))
            .select(dsl::rowid)
            .first::<i64>(self.conn)
            .optional()?;
        Ok(found.is_some())
    }

    fn is_hot(&mut self, id: TaskId) -> QueryResult<bool> {
        use greenroom_tasks::dsl;
        let found = dsl::greenroom_tasks
            .filter(dsl::id.eq(Id::from(id)))
            .select(dsl::rowid)
            .first::<i64>(self.conn)
            .optional()?;
        Ok(found.is_some())
    }

    /// Whether this very unit has been committed before.
    fn is_durable(&mut self, boot: Uuid, unit: &Unit) -> QueryResult<bool> {
        if let Some(write) = &unit.state {
            use greenroom_agents::dsl;
            let row = dsl::greenroom_agents
                .filter(dsl::id.eq(Id(write.id.0)))
                .filter(dsl::epoch.eq(write.epoch))
                .filter(dsl::version.eq(write.base_version.saturating_add(1)))
                .select(dsl::state)
                .first::<Vec<u8>>(self.conn)
                .optional()?;
            // an operator may have written that version too
            return Ok(row.is_some_and(|state| state == *write.bytes));
        }
        if !unit.accepted.is_empty() {
            for task in &unit.accepted {
                if !self.is_hot(task.id)? && !self.is_archived(task.id)? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        if let Some(to) = &unit.schedule {
            return self.is_moved(to);
        }
        for finish in &unit.finished {
            if !self.is_finished(boot, finish)? {
                return Ok(false);
            }
        }
        for key in &unit.keys {
            match stored_key(self.conn, key.scope, &key.key, self.now)? {
                Some(row) if is_own(&row, key) => {}
                _ => return Ok(false),
            }
        }
        for message in &unit.messages {
            if !self.is_appended(message)? {
                return Ok(false);
            }
        }
        Ok(!(unit.finished.is_empty() && unit.keys.is_empty() && unit.messages.is_empty()))
    }
}

/// The next state of an agent, under the guard of its version. By hand, because diesel prepares its
/// own `UPDATE`s anew at each execution, and this is the statement that everybody waits for.
struct NextState<'a> {
    id: Id,
    base_version: i64,
    epoch: i64,
    version: i64,
    schema_version: i64,
    updated_at: Micros,
    state: &'a [u8],
}

impl QueryId for NextState<'_> {
    type QueryId = NextState<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Sqlite> for NextState<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("UPDATE greenroom_agents SET epoch = ");
        out.push_bind_param::<BigInt, _>(&self.epoch)?;
        out.push_sql(", version = ");
        out.push_bind_param::<BigInt, _>(&self.version)?;
        out.push_sql(", schema_version = ");
        out.push_bind_param::<BigInt, _>(&self.schema_version)?;
        out.push_sql(", updated_at = ");
        out.push_bind_param::<Moment, _>(&self.updated_at)?;
        out.push_sql(", state = ");
        out.push_bind_param::<Binary, _>(self.state)?;
        out.push_sql(" WHERE id = ");
        out.push_bind_param::<Uid, _>(&self.id)?;
        out.push_sql(" AND version = ");
        out.push_bind_param::<BigInt, _>(&self.base_version)
    }
}

impl<C> RunQueryDsl<C> for NextState<'_> {}
