//! Operators' actions on agents and tasks.

use diesel::{dsl::max, prelude::*};
use jiff::Timestamp;

use super::{
    claim::whole,
    commit::Stop,
    error,
    rows::{self, ArchivedRow},
    tx::{Sync, Tx, Writer},
    values::{Id, Lit, Micros, OUTCOME_UNKNOWN, PARKED, READY, RUNNING, SCHEDULED, lane},
};
use crate::{
    model::{
        id::{AgentId, TaskId},
        task::{DeadTask, TaskInput, TaskState, next},
    },
    store::{
        CancelFound, Refusal, StoreError, StoredStatus,
        schema::{
            greenroom_agents, greenroom_batches, greenroom_paused, greenroom_task_archive,
            greenroom_task_edges, greenroom_task_events, greenroom_task_parents, greenroom_tasks,
        },
        told::{self, DISMISSED},
    },
};

impl Writer {
    /// Keeps a lasting status.
    pub(super) fn set_status(
        &mut self,
        id: AgentId,
        kind: &str,
        key: &str,
        epoch: i64,
        status: StoredStatus,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        self.transaction(Sync::Full, Timestamp::now(), |tx| {
            if tx.epoch(id.partition()).map_err(|e| whole(e.into()))? != Some(epoch) {
                return Err(StoreError::Refused("fenced: another node owns the agent".to_owned()));
            }
            tx.set_status(id, kind, key, epoch, status, reason).map_err(whole)
        })
    }

    /// Writes something of no meaning: whether there is room.
    pub(super) fn try_room(&mut self) -> Result<(), StoreError> {
        let write = "INSERT INTO greenroom_room (id, n, bytes) VALUES (1, 1, randomblob(65536)) \
                     ON CONFLICT (id) DO UPDATE SET n = n + 1, bytes = excluded.bytes";
        self.transaction(Sync::Full, Timestamp::now(), |tx| {
            diesel::sql_query(write).execute(tx.conn).map(drop).map_err(|e| error::of_statement(&e))
        })
    }

    /// Parks or unparks the tasks of a target.
    pub(super) fn park(&mut self, target: &str, park: bool) -> Result<u64, StoreError> {
        self.transaction(Sync::Full, Timestamp::now(), |tx| {
            if park { tx.park(target) } else { tx.unpark(target) }.map_err(|e| whole(e.into()))
        })
    }

    /// Looks a task up for cancellation, and flags it where it runs.
    pub(super) fn cancel(&mut self, id: TaskId) -> Result<Option<CancelFound>, StoreError> {
        self.transaction(Sync::Full, Timestamp::now(), |tx| tx.cancel(id.into()).map_err(whole))
    }

    /// Pauses a queue, or lets it go on; says whether that changed anything.
    pub(super) fn pause(&mut self, queue: &str, paused: bool) -> Result<bool, StoreError> {
        use greenroom_paused::dsl;
        self.transaction(Sync::Full, Timestamp::now(), |tx| {
            let changed = match paused {
                true => diesel::insert_or_ignore_into(dsl::greenroom_paused)
                    .values((dsl::queue.eq(queue), dsl::at.eq(tx.now)))
                    .execute(tx.conn),
                false => diesel::delete(dsl::greenroom_paused.find(queue)).execute(tx.conn),
            };
            changed.map(|n| n > 0).map_err(|e| error::of_statement(&e))
        })
    }

    /// Brings a task back.
    pub(super) fn retry(&mut self, id: TaskId) -> Result<Option<Result<(), TaskState>>, StoreError> {
        self.transaction(Sync::Full, Timestamp::now(), |tx| tx.retry(id.into()).map_err(whole))
    }

    /// Brings those back that stand as they were seen; says how many.
    pub(super) fn retry_many(&mut self, dead: &[DeadTask]) -> Result<u64, StoreError> {
        self.transaction(Sync::Full, Timestamp::now(), |tx| {
            let mut back = Vec::new();
            for task in dead {
                if tx.retry_ended(task).map_err(whole)? {
                    back.push(task.id.into());
                }
            }
            tx.wait_again(&back).map_err(whole)?;
            Ok(back.len() as u64)
        })
    }

    /// Lets those rest that stand as they were seen; says how many.
    pub(super) fn dismiss_many(&mut self, dead: &[DeadTask]) -> Result<u64, StoreError> {
        self.transaction(Sync::Full, Timestamp::now(), |tx| {
            let mut dismissed = 0;
            for task in dead {
                dismissed += u64::from(tx.dismiss(task).map_err(whole)?);
            }
            Ok(dismissed)
        })
    }
}

impl Tx<'_> {
    fn set_status(
        &mut self,
        id: AgentId,
        kind: &str,
        key: &str,
        epoch: i64,
        status: StoredStatus,
        reason: Option<&str>,
    ) -> Result<(), Stop> {
        use greenroom_agents::dsl;
        let row = dsl::greenroom_agents.filter(dsl::id.eq(Id(id.0)));
        let before = row.select(dsl::status).first::<i16>(self.conn).optional()?;
        self.deltas.agent(status, 1);
        if let Some(before) = before {
            self.deltas.agent(rows::status_of(before)?, -1);
            diesel::update(row)
                .set((dsl::status.eq(status as i16), dsl::reason.eq(reason)))
                .execute(self.conn)?;
            if before != status as i16 {
                diesel::update(row).set(dsl::held_at.eq(self.now)).execute(self.conn)?;
            }
            return Ok(());
        }
        diesel::insert_into(dsl::greenroom_agents)
            .values((
                dsl::id.eq(Id(id.0)),
                dsl::partition.eq(id.partition()),
                dsl::kind.eq(kind),
                dsl::key.eq(key),
                dsl::status.eq(status as i16),
                dsl::reason.eq(reason),
                dsl::epoch.eq(epoch),
                dsl::version.eq(0),
                dsl::schema_version.eq(0),
                dsl::created_at.eq(self.now),
                dsl::updated_at.eq(self.now),
                dsl::state.eq(&[] as &[u8]),
            ))
            .execute(self.conn)?;
        Ok(())
    }

    fn park(&mut self, target: &str) -> QueryResult<u64> {
        use greenroom_tasks::dsl;
        let doomed = Lit::<{ lane::DOOMED }>;
        let of = dsl::greenroom_tasks.filter(dsl::target.eq(target)).filter(dsl::lane.lt(doomed));
        let ready =
            diesel::update(of.filter(dsl::state.eq(READY))).set(dsl::state.eq(PARKED)).execute(self.conn)?;
        let scheduled = diesel::update(of.filter(dsl::state.eq(SCHEDULED)))
            .set(dsl::state.eq(PARKED))
            .execute(self.conn)?;
        self.deltas.task(TaskState::Ready, -signed(ready));
        self.deltas.task(TaskState::Scheduled, -signed(scheduled));
        self.deltas.task(TaskState::Parked, signed(ready + scheduled));
        Ok((ready + scheduled) as u64)
    }

    fn unpark(&mut self, target: &str) -> QueryResult<u64> {
        use greenroom_tasks::dsl;
        let parked: Vec<(i64, Option<Micros>)> = dsl::greenroom_tasks
            .filter(dsl::state.ge(RUNNING))
            .filter(dsl::state.eq(PARKED))
            .filter(dsl::target.eq(target))
            .order(dsl::seq.asc())
            .select((dsl::rowid, dsl::run_at))
            .load(self.conn)?;
        for (rowid, run_at) in &parked {
            let (seq, later) = (self.next_seq()?, run_at.is_some_and(|at| at > self.now));
            let state = if later { TaskState::Scheduled } else { TaskState::Ready };
            diesel::update(dsl::greenroom_tasks.filter(dsl::rowid.eq(*rowid)))
                .set((dsl::state.eq(state as i16), dsl::seq.eq(seq)))
                .execute(self.conn)?;
            self.deltas.task(state, 1);
        }
        self.deltas.task(TaskState::Parked, -signed(parked.len()));
        Ok(parked.len() as u64)
    }

    fn cancel(&mut self, id: Id) -> Result<Option<CancelFound>, Stop> {
        use greenroom_task_archive::dsl as archive;
        use greenroom_tasks::dsl;
        let hot = dsl::greenroom_tasks
            .filter(dsl::id.eq(id))
            .select((dsl::state, dsl::attempt, dsl::cancel))
            .first::<(i16, i64, bool)>(self.conn)
            .optional()?;
        let Some((state, attempt, flagged)) = hot else {
            let ended = archive::greenroom_task_archive
                .filter(archive::id.eq(id))
                .select(archive::state)
                .first::<i16>(self.conn)
                .optional()?;
            return Ok(ended.map(rows::state_of).transpose()?.map(CancelFound::Final));
        };
        if rows::state_of(state)? != TaskState::Running {
            return Ok(Some(CancelFound::Idle));
        }
        if !flagged {
            diesel::update(dsl::greenroom_tasks.filter(dsl::id.eq(id)))
                .set(dsl::cancel.eq(true))
                .execute(self.conn)?;
            self.event(id, "cancel_requested", attempt, None, None)?;
        }
        Ok(Some(CancelFound::Running))
    }

    fn retry(&mut self, id: Id) -> Result<Option<Result<(), TaskState>>, Stop> {
        use greenroom_tasks::dsl;
        let hot = dsl::greenroom_tasks
            .filter(dsl::id.eq(id))
            .select((dsl::state, dsl::attempt))
            .first::<(i16, i64)>(self.conn)
            .optional()?;
        if let Some((state, attempt)) = hot {
            let state = rows::state_of(state)?;
            if next(state, TaskInput::RetryByPerson).is_err() {
                return Ok(Some(Err(state)));
            }
            let seq = self.next_seq()?;
            let row = dsl::greenroom_tasks.filter(dsl::id.eq(id)).filter(dsl::state.eq(OUTCOME_UNKNOWN));
            diesel::update(row)
                .set((
                    dsl::state.eq(READY),
                    dsl::seq.eq(seq),
                    dsl::run_at.eq(self.now),
                    dsl::attempt.eq(0),
                    dsl::lost.eq(0),
                    dsl::lost_alone.eq(0),
                    dsl::cancel.eq(false),
                    dsl::expires_at.eq(None::<Micros>),
                ))
                .execute(self.conn)?;
            self.forget_begun(id)?;
            self.event(id, "retried", attempt, None, Some("an operator confirmed another attempt"))?;
            self.deltas.task(state, -1);
            self.deltas.task(TaskState::Ready, 1);
            return Ok(Some(Ok(())));
        }
        let Some(row) = self.ended(id)? else { return Ok(None) };
        let state = rows::state_of(row.state)?;
        let Ok(to) = next(state, TaskInput::RetryByPerson) else { return Ok(Some(Err(state))) };
        self.revive(&row, state, to)?;
        self.wait_again(&[id])?;
        Ok(Some(Ok(())))
    }

    /// The same for one that has ended, where it still stands as it was seen.
    fn retry_ended(&mut self, task: &DeadTask) -> Result<bool, Stop> {
        let row = self.ended(task.id.into())?.filter(|row| row.state == task.state as i16);
        let (Some(row), Ok(to)) = (row, next(task.state, TaskInput::RetryByPerson)) else { return Ok(false) };
        self.revive(&row, task.state, to)?;
        Ok(true)
    }

    /// A dead letter is cancelled from now on, at the end of the archive, whose rows stand in the order of their
    /// ends. Its history keeps both.
    fn dismiss(&mut self, seen: &DeadTask) -> Result<bool, Stop> {
        use greenroom_task_archive::dsl;
        let row = self.ended(seen.id.into())?.filter(|row| row.state == seen.state as i16);
        let (Some(row), Ok(to)) = (row, next(seen.state, TaskInput::Dismissed)) else { return Ok(false) };
        let last: Option<i64> = dsl::greenroom_task_archive.select(max(dsl::rowid)).first(self.conn)?;
        diesel::update(dsl::greenroom_task_archive.filter(dsl::id.eq(row.id)))
            .set((
                dsl::rowid.eq(last.unwrap_or_default() + 1),
                dsl::state.eq(to as i16),
                dsl::finished_at.eq(self.now),
            ))
            .execute(self.conn)?;
        self.ended_at(&row)?;
        self.event(row.id, to.name(), row.attempt, None, Some(DISMISSED))?;
        self.deltas.task(seen.state, -1);
        self.deltas.task(to, 1);
        Ok(true)
    }

    /// Writes down when its last attempt began, and when and why it had ended, unless that is written.
    fn ended_at(&mut self, row: &ArchivedRow) -> QueryResult<()> {
        let end = TaskState::from_code(row.state).map_or("ended", TaskState::name);
        let why = row.failure();
        self.event_once(row, row.started_at, told::STARTED, None)?;
        self.event_once(row, Some(row.finished_at), end, why.as_deref())
    }

    fn event_once(
        &mut self,
        row: &ArchivedRow,
        at: Option<Micros>,
        event: &str,
        detail: Option<&str>,
    ) -> QueryResult<()> {
        use greenroom_task_events::dsl;
        let Some(at) = at else { return Ok(()) };
        let same = dsl::greenroom_task_events.filter(dsl::task.eq(row.id)).filter(dsl::event.eq(event));
        match same.filter(dsl::at.eq(at)).count().get_result::<i64>(self.conn)? {
            0 => self.event_at(row.id, at, event, row.attempt, row.node.map(|n| n.0), detail),
            _ => Ok(()),
        }
    }

    fn ended(&mut self, id: Id) -> QueryResult<Option<ArchivedRow>> {
        use greenroom_task_archive::dsl;
        let row = dsl::greenroom_task_archive.filter(dsl::id.eq(id)).select(ArchivedRow::as_select());
        row.first(self.conn).optional()
    }

    fn revive(&mut self, row: &ArchivedRow, from: TaskState, to: TaskState) -> Result<(), Stop> {
        use greenroom_task_archive::dsl as archive;
        self.ended_at(row)?;
        diesel::delete(archive::greenroom_task_archive.filter(archive::id.eq(row.id))).execute(self.conn)?;
        let batch = self.count_out_of_batch(row.batch)?;
        let seq = self.next_seq()?;
        diesel::insert_into(greenroom_tasks::table)
            .values(row.revived(seq, batch, self.now))
            .execute(self.conn)?;
        self.forget_begun(row.id)?;
        self.event(row.id, "retried", row.attempt, None, Some("an operator brought it back"))?;
        self.deltas.task(from, -1);
        self.deltas.task(to, 1);
        Ok(())
    }

    /// Those that came back wait for what they come after, where that has not ended.
    fn wait_again(&mut self, back: &[Id]) -> Result<(), Stop> {
        use greenroom_task_edges::dsl as kept;
        use greenroom_task_parents::dsl as edges;
        use greenroom_tasks::dsl;
        for child in back {
            let parents: Vec<Id> = kept::greenroom_task_edges
                .filter(kept::child.eq(child))
                .select(kept::parent)
                .load(self.conn)?;
            let mut open = 0_i64;
            for parent in parents {
                let hot = diesel::update(dsl::greenroom_tasks.filter(dsl::id.eq(parent)))
                    .set(dsl::awaited.eq(true))
                    .execute(self.conn)?;
                if hot == 1 {
                    diesel::insert_into(edges::greenroom_task_parents)
                        .values((edges::parent.eq(parent), edges::child.eq(child)))
                        .on_conflict_do_nothing() // it may have been cancelled while it waited
                        .execute(self.conn)?;
                    open += 1;
                }
            }
            if open > 0 {
                let to =
                    next(TaskState::Ready, TaskInput::WaitsAgain).map_err(|e| Refusal::Bad(e.to_string()))?;
                diesel::update(dsl::greenroom_tasks.filter(dsl::id.eq(child)))
                    .set((dsl::state.eq(to as i16), dsl::waits_for.eq(open)))
                    .execute(self.conn)?;
                self.deltas.task(TaskState::Ready, -1);
                self.deltas.task(to, 1);
            }
        }
        Ok(())
    }

    /// A task that comes back is open again in its batch, unless that has been told to have ended:
    /// then it has left the batch.
    fn count_out_of_batch(&mut self, batch: Option<Id>) -> QueryResult<Option<Id>> {
        use greenroom_batches::dsl;
        let Some(id) = batch else { return Ok(None) };
        let open = dsl::greenroom_batches.filter(dsl::id.eq(id)).filter(dsl::open.gt(0));
        let met = diesel::update(open)
            .set((dsl::open.eq(dsl::open + 1), dsl::failed.eq(dsl::failed - 1)))
            .execute(self.conn)?;
        Ok(batch.filter(|_| met == 1))
    }
}

fn signed(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
