//! The end of a task or of one attempt, and what follows from it: the archive, its batch, the
//! tasks that wait for it.
//!
//! A task that the store itself must end (its parent failed, it expired) is *doomed* first: it
//! gets a lane from which nothing is claimed. `promote` ends those without anybody to notify; the
//! others are left for the runtime ([`crate::store::Store::doomed`]), which ends them like any
//! other task and so notifies their submitters. Either end dooms the next generation, one level per pass.

use diesel::prelude::*;
use uuid::Uuid;

use super::{
    commit::Stop,
    rows::{self, TaskRow},
    tx::Tx,
    values::{BLOCKED, Id, Micros, OUTCOME_UNKNOWN, PARKED, RUNNING, SCHEDULED, lane, micros},
};
use crate::{
    model::{
        id::TaskId,
        task::{BatchNotify, TaskInput, TaskState, batch_ended, batch_signal, next},
    },
    store::{
        Finish, FinishOutcome, Guard, Refusal,
        finish::{input_of, joined_task},
        schema::{greenroom_batches, greenroom_task_archive, greenroom_task_parents, greenroom_tasks},
    },
};

impl Tx<'_> {
    /// Ends a task or an attempt, under its guard.
    pub(super) fn finish(&mut self, boot: Uuid, finish: &Finish) -> Result<(), Stop> {
        match &finish.outcome {
            FinishOutcome::Succeeded { result } => self.finish_for_good(boot, finish, Some(result), None),
            FinishOutcome::Failed { error } => {
                self.finish_for_good(boot, finish, None, Some(rows::error_bytes(error)))
            }
            FinishOutcome::Cancelled => self.finish_for_good(boot, finish, None, None),
            FinishOutcome::Retry { run_at, error } => {
                let error = rows::error_bytes(error);
                self.finish_attempt(boot, finish, Some(micros(*run_at)), Some(&error))
            }
            FinishOutcome::OutcomeUnknown { error } => {
                let error = rows::error_bytes(error);
                self.finish_attempt(boot, finish, None, Some(&error))
            }
            FinishOutcome::Parked => self.finish_attempt(boot, finish, None, None),
        }
    }

    fn finish_for_good(
        &mut self,
        boot: Uuid,
        finish: &Finish,
        result: Option<&Vec<u8>>,
        error: Option<Vec<u8>>,
    ) -> Result<(), Stop> {
        use greenroom_tasks::dsl;
        let id = Id::from(finish.task);
        let row = match finish.guard {
            Guard::Running { attempt } => {
                let mine = dsl::greenroom_tasks
                    .filter(dsl::id.eq(id))
                    .filter(dsl::state.eq(RUNNING))
                    .filter(dsl::attempt.eq(i64::from(attempt)))
                    .filter(dsl::node.eq(Id(boot)));
                diesel::delete(mine).returning(TaskRow::as_returning()).get_result(self.conn).optional()?
            }
            Guard::Idle => {
                let idle = dsl::greenroom_tasks.filter(dsl::id.eq(id)).filter(dsl::state.ne(RUNNING));
                diesel::delete(idle).returning(TaskRow::as_returning()).get_result(self.conn).optional()?
            }
        };
        let Some(row) = row else { return Err(Refusal::ClaimLost(finish.task).into()) };
        let from = row.state()?;
        let to = next(from, input_of(&finish.outcome, finish.guard, from))
            .map_err(|e| Refusal::Bad(e.to_string()))?;
        if let Some(note) = &finish.note {
            self.event(id, to.name(), row.attempt, Some(boot), Some(note))?;
        }
        self.archive(&row, from, to, result.map(Vec::as_slice), error.as_deref())
    }

    fn finish_attempt(
        &mut self,
        boot: Uuid,
        finish: &Finish,
        run_at: Option<Micros>,
        error: Option<&[u8]>,
    ) -> Result<(), Stop> {
        use greenroom_tasks::dsl;
        let id = Id::from(finish.task);
        let lost = || Refusal::ClaimLost(finish.task);
        let (from, attempt, started_at, cancel, partition) = dsl::greenroom_tasks
            .filter(dsl::id.eq(id))
            .select((dsl::state, dsl::attempt, dsl::started_at, dsl::cancel, dsl::partition))
            .first::<(i16, i64, Option<Micros>, bool, i16)>(self.conn)
            .optional()?
            .ok_or_else(lost)?;
        let from = rows::state_of(from)?;
        let to = next(from, input_of(&finish.outcome, finish.guard, from));
        // a task that was flagged while it ran does not get another attempt
        let doom = cancel.then_some(dsl::lane.eq(lane::CANCELLED));
        // what waits for a person is neither doomed nor suspected any more
        let lane = dsl::lane.eq(if partition < 0 { lane::TOOLS } else { lane::AGENTS });
        let free = (dsl::node.eq(None::<Id>), dsl::alone.eq(false));
        let met = match finish.guard {
            Guard::Running { attempt } => {
                let mine = dsl::greenroom_tasks
                    .filter(dsl::id.eq(id))
                    .filter(dsl::state.eq(RUNNING))
                    .filter(dsl::attempt.eq(i64::from(attempt)))
                    .filter(dsl::node.eq(Id(boot)));
                match finish.outcome {
                    FinishOutcome::Retry { .. } => diesel::update(mine)
                        .set((
                            dsl::state.eq(SCHEDULED),
                            dsl::run_at.eq(run_at),
                            dsl::error.eq(error),
                            free,
                            doom,
                        ))
                        .execute(self.conn)?,
                    FinishOutcome::Parked => diesel::update(mine)
                        .set((dsl::state.eq(PARKED), dsl::attempt.eq(dsl::attempt - 1), free, doom))
                        .execute(self.conn)?,
                    _ => diesel::update(mine)
                        .set((dsl::state.eq(OUTCOME_UNKNOWN), dsl::error.eq(error), lane, free))
                        .execute(self.conn)?,
                }
            }
            Guard::Idle if from == TaskState::Running => 0,
            Guard::Idle => {
                to.map_err(|e| Refusal::Bad(e.to_string()))?;
                let row = diesel::update(dsl::greenroom_tasks.filter(dsl::id.eq(id)));
                match finish.outcome {
                    FinishOutcome::OutcomeUnknown { .. } => {
                        let state = dsl::state.eq(OUTCOME_UNKNOWN);
                        row.set((state, dsl::error.eq(error), lane)).execute(self.conn)?
                    }
                    _ => row.set(dsl::state.eq(PARKED)).execute(self.conn)?,
                }
            }
        };
        if met != 1 {
            return Err(lost().into());
        }
        let to = to.map_err(|e| Refusal::Bad(e.to_string()))?;
        self.deltas.task(from, -1);
        self.deltas.task(to, 1);
        let (event, message) = match &finish.outcome {
            FinishOutcome::Retry { error, .. } => ("retry", Some(error.message.as_str())),
            FinishOutcome::OutcomeUnknown { error } => ("outcome_unknown", Some(error.message.as_str())),
            _ => ("parked", None),
        };
        if from == TaskState::Running && event != "parked" {
            self.began(id, started_at, attempt, Some(boot))?;
        }
        self.event(id, event, attempt, Some(boot), finish.note.as_deref().or(message))?;
        Ok(())
    }

    /// Puts a task that was just deleted from the hot table into the archive, and does what
    /// follows from its end.
    pub(super) fn archive(
        &mut self,
        row: &TaskRow,
        from: TaskState,
        to: TaskState,
        result: Option<&[u8]>,
        error: Option<&[u8]>,
    ) -> Result<(), Stop> {
        diesel::insert_into(greenroom_task_archive::table)
            .values(row.archived(to, self.now, result, error))
            .execute(self.conn)?;
        self.deltas.task(from, -1);
        self.deltas.task(to, 1);
        if let Some(batch) = row.batch {
            self.count_in_batch(batch, to == TaskState::Succeeded, row.max_attempts)?;
        }
        if row.awaited {
            self.free_children(row.id, to)?;
        }
        Ok(())
    }

    fn count_in_batch(&mut self, batch: Id, succeeded: bool, max_attempts: i64) -> Result<(), Stop> {
        use greenroom_batches::dsl;
        let (ok, bad) = if succeeded { (1_i64, 0_i64) } else { (0, 1) };
        let row = dsl::greenroom_batches.filter(dsl::id.eq(batch)).filter(dsl::open.gt(0));
        let after = diesel::update(row)
            .set((
                dsl::open.eq(dsl::open - 1),
                dsl::succeeded.eq(dsl::succeeded + ok),
                dsl::failed.eq(dsl::failed + bad),
            ))
            .returning((dsl::open, dsl::succeeded, dsl::failed, dsl::notify))
            .get_result::<(i64, i64, i64, Option<String>)>(self.conn)
            .optional()?;
        if let Some((0, succeeded, failed, notify)) = after {
            let notify = rows::batch_notify_of(notify.as_deref())?;
            self.joined(batch, succeeded, failed, notify.as_ref(), max_attempts)?;
        }
        Ok(())
    }

    /// Tells whoever waits for a whole batch.
    pub(super) fn joined(
        &mut self,
        batch: Id,
        succeeded: i64,
        failed: i64,
        notify: Option<&BatchNotify>,
        max_attempts: i64,
    ) -> Result<(), Stop> {
        let Some(notify) = notify else { return Ok(()) };
        let body = batch_ended(batch.into(), succeeded, failed).map_err(|e| Refusal::Bad(e.to_string()))?;
        let notify = match notify {
            BatchNotify::Agent(notify) => notify,
            BatchNotify::Function { task } => {
                return self.keep_joined(*task, &batch_signal(batch.into(), body));
            }
        };
        let max_attempts = u32::try_from(max_attempts).unwrap_or(u32::MAX);
        let task = joined_task(notify, body, max_attempts);
        let seq = self.next_seq()?;
        let texts = rows::Texts::of(&task);
        diesel::insert_into(greenroom_tasks::table)
            .values(rows::accepted(&task, &texts, seq, TaskState::Ready, self.now))
            .execute(self.conn)?;
        self.deltas.task(TaskState::Ready, 1);
        Ok(())
    }

    /// Tells the children of a task that it has ended.
    fn free_children(&mut self, parent: Id, ended: TaskState) -> Result<(), Stop> {
        use greenroom_task_parents::dsl as edges;
        use greenroom_tasks::dsl;
        let children: Vec<Id> =
            diesel::delete(edges::greenroom_task_parents.filter(edges::parent.eq(parent)))
                .returning(edges::child)
                .get_results(self.conn)?;
        for child in children {
            let blocked = dsl::greenroom_tasks.filter(dsl::id.eq(child)).filter(dsl::state.eq(BLOCKED));
            let row = diesel::update(blocked)
                .set(dsl::waits_for.eq(dsl::waits_for - 1))
                .returning((dsl::waits_for, dsl::lane, dsl::run_after_failure, dsl::run_at))
                .get_result::<(i64, i16, bool, Option<Micros>)>(self.conn)
                .optional()?;
            let Some((open, lane, run_after_failure, run_at)) = row else { continue };
            if lane >= lane::DOOMED {
                continue;
            }
            if ended != TaskState::Succeeded && !run_after_failure {
                diesel::update(dsl::greenroom_tasks.filter(dsl::id.eq(child)))
                    .set(dsl::lane.eq(lane::PARENT_FAILED))
                    .execute(self.conn)?;
            } else if open <= 0 {
                self.unblock(child, run_at)?;
            }
        }
        Ok(())
    }

    /// The last parent of a blocked task is done.
    pub(super) fn unblock(&mut self, child: Id, run_at: Option<Micros>) -> Result<(), Stop> {
        use greenroom_tasks::dsl;
        let later = run_at.is_some_and(|at| at > self.now);
        let to = next(TaskState::Blocked, TaskInput::ParentDone { open: 0, later })
            .map_err(|e| Refusal::Bad(e.to_string()))?;
        diesel::update(dsl::greenroom_tasks.filter(dsl::id.eq(child)))
            .set((dsl::state.eq(to as i16), dsl::waits_for.eq(0)))
            .execute(self.conn)?;
        self.deltas.task(TaskState::Blocked, -1);
        self.deltas.task(to, 1);
        Ok(())
    }

    /// Whether this very finish has been committed before.
    pub(super) fn is_finished(&mut self, boot: Uuid, finish: &Finish) -> QueryResult<bool> {
        use greenroom_task_archive::dsl as a;
        use greenroom_tasks::dsl as t;
        let id = Id::from(finish.task);
        let (to, wanted) = (finish.outcome.state(), finish.attempt_after());
        if !to.is_final() {
            let row = t::greenroom_tasks
                .filter(t::id.eq(id))
                .select((t::state, t::attempt))
                .first::<(i16, i64)>(self.conn)
                .optional()?;
            return Ok(row.is_some_and(|(s, n)| s == to as i16 && wanted.is_none_or(|w| w == n)));
        }
        let row = a::greenroom_task_archive
            .filter(a::id.eq(id))
            .select((a::state, a::attempt, a::node))
            .first::<(i16, i64, Option<Id>)>(self.conn)
            .optional()?;
        Ok(row.is_some_and(|(s, n, node)| {
            s == to as i16 && wanted.is_none_or(|w| w == n && node == Some(Id(boot)))
        }))
    }

    /// Ends a task that nobody is to be told of.
    pub(super) fn end_doomed(&mut self, id: TaskId, why: &str) -> Result<bool, Stop> {
        use greenroom_tasks::dsl;
        let row = diesel::delete(
            dsl::greenroom_tasks.filter(dsl::id.eq(Id::from(id))).filter(dsl::state.ne(RUNNING)),
        )
        .returning(TaskRow::as_returning())
        .get_result(self.conn)
        .optional()?;
        let Some(row) = row else { return Ok(false) };
        let from = row.state()?;
        let to = next(from, TaskInput::Cancel).map_err(|e| Refusal::Bad(e.to_string()))?;
        self.event(row.id, "cancelled", row.attempt, None, Some(why))?;
        self.archive(&row, from, to, None, None)?;
        Ok(true)
    }
}
