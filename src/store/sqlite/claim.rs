//! Claiming, giving back, promoting: transitions of tasks that do not end them.

use std::collections::{BTreeSet, HashMap, HashSet};

use diesel::{
    dsl::sql,
    expression::SqlLiteral,
    prelude::*,
    sql_types::{Nullable, Text},
};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    commit::Stop,
    error,
    journal::due_waits,
    read,
    rows::ClaimedRow,
    told,
    tx::{Sync, Tx, Writer},
    values::{Id, Lit, Micros, READY, RUNNING, SCHEDULED, count, lane, micros, moment, types::Moment},
};
use crate::{
    model::{
        id::TaskId,
        task::{ClaimId, Claimed, TaskState, has_begun, in_turn, share_out},
    },
    store::{
        ClaimRequest, Doomed, Promoted, Refusal, StoreError,
        schema::{greenroom_paused, greenroom_tasks},
    },
};

/// How many tasks one pass of `promote` moves, per reason.
const PROMOTED_AT_ONCE: i64 = 1_000;

/// The error of work that is not a unit.
pub(super) fn whole(stop: Stop) -> StoreError {
    match stop {
        Stop::Store(e) => e,
        Stop::Sql(e) => error::of_statement(&e),
        Stop::Refused(refusal @ Refusal::Bad(_)) => StoreError::Corrupt(refusal.to_string()),
        Stop::Refused(refusal) => StoreError::NotDone(refusal.to_string()),
        Stop::Already => StoreError::NotDone("it had happened already".to_owned()),
    }
}

impl Writer {
    /// Claims ready tasks.
    pub(super) fn claim(&mut self, boot: Uuid, request: &ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        // The claim of a message means nothing without the commit that ends it. A tool's may be all that
        // says that an effect has begun.
        let wanted = if request.alone {
            vec![(lane::SUSPECTS, 1, Sync::Full)]
        } else {
            vec![(lane::AGENTS, request.agents, Sync::Lazy), (lane::TOOLS, request.tools, Sync::Full)]
        };
        let mut claimed = Vec::new();
        for (lane, limit, sync) in wanted.into_iter().filter(|(_, limit, _)| *limit > 0) {
            let more = self.transaction(sync, Timestamp::now(), |tx| {
                let ready = tx.ready_queues(lane).map_err(|e| error::of_statement(&e))?;
                let mut choice =
                    Choice::of(request, lane, tx.expired().map_err(|e| error::of_statement(&e))?);
                let mut more = Vec::new();
                share_out(limit, in_turn(ready, &request.queues), |queue, n| {
                    let best = tx.ready(lane, queue, n, &mut choice).map_err(|e| error::of_statement(&e))?;
                    for rowid in &best {
                        more.push(tx.take(boot, *rowid, request.alone).map_err(whole)?);
                    }
                    Ok::<_, StoreError>(best.len())
                })?;
                Ok(more)
            });
            match more {
                Ok(more) => claimed.extend::<Vec<Claimed>>(more),
                // what was claimed is claimed
                Err(_) if !claimed.is_empty() => break,
                Err(e) => return Err(e),
            }
        }
        claimed.sort_by_key(|c: &Claimed| (std::cmp::Reverse(c.priority), c.seq));
        Ok(claimed)
    }

    /// Gives back what did not start, or may have and was broken off.
    pub(super) fn give_back(
        &mut self,
        boot: Uuid,
        claims: &[(TaskId, ClaimId)],
        begun: bool,
    ) -> Result<(), StoreError> {
        use greenroom_tasks::dsl;
        self.transaction(Sync::Lazy, Timestamp::now(), |tx| {
            for (id, ClaimId(claim)) in claims {
                let mine = dsl::greenroom_tasks
                    .filter(dsl::id.eq(Id::from(*id)))
                    .filter(dsl::state.eq(RUNNING))
                    .filter(dsl::claim.eq(*claim))
                    .filter(dsl::node.eq(Id(boot)));
                let found = mine
                    .select((dsl::rowid, dsl::attempt, dsl::started_at, dsl::cancel, dsl::partition))
                    .first::<(i64, i64, Option<Micros>, bool, i16)>(tx.conn)
                    .optional()
                    .map_err(|e| error::of_statement(&e))?;
                let Some((rowid, attempt, started_at, cancel, partition)) = found else { continue };
                diesel::update(dsl::greenroom_tasks.filter(dsl::rowid.eq(rowid)))
                    .set((
                        dsl::state.eq(READY),
                        dsl::attempt.eq(attempt - 1),
                        dsl::started_at.eq(started_before()),
                        dsl::node.eq(None::<Id>),
                        dsl::alone.eq(false),
                    ))
                    .execute(tx.conn)
                    .map_err(|e| error::of_statement(&e))?;
                if begun && partition < 0 {
                    tx.broken_off(boot, rowid, *id, (attempt, started_at))
                        .map_err(|e| error::of_statement(&e))?;
                }
                tx.deltas.task(TaskState::Running, -1);
                tx.deltas.task(TaskState::Ready, 1);
                if cancel {
                    tx.doom(rowid, lane::CANCELLED).map_err(|e| error::of_statement(&e))?;
                }
            }
            Ok(())
        })
    }

    /// Moves what is due or doomed.
    pub(super) fn promote(&mut self, now: Timestamp) -> Result<Promoted, StoreError> {
        let mut promoted = Promoted::default();
        if self.has_work(now).map_err(|e| error::of_statement(&e))? {
            promoted = self.transaction(Sync::Full, now, |tx| {
                let due = tx.promote_due().map_err(|e| error::of_statement(&e))?;
                let ready = due + tx.end_waits().map_err(whole)?;
                tx.doom_expired().map_err(|e| error::of_statement(&e))?;
                Ok(Promoted { ready, cancelled: tx.end_untold().map_err(whole)?, next: None })
            })?;
        }
        promoted.next = read::next_due(&mut self.conn).map_err(|e| error::of_statement(&e))?;
        Ok(promoted)
    }

    /// Whether anything is due or doomed: an idle pass writes nothing.
    fn has_work(&mut self, now: Timestamp) -> QueryResult<bool> {
        use greenroom_tasks::dsl;
        let now = micros(now);
        let due = dsl::greenroom_tasks
            .filter(dsl::state.eq(SCHEDULED))
            .filter(dsl::run_at.le(now))
            .select(dsl::rowid)
            .first::<i64>(&mut self.conn)
            .optional()?;
        let expired = dsl::greenroom_tasks
            .filter(dsl::expires_at.is_not_null())
            .filter(dsl::expires_at.le(now))
            .filter(dsl::state.ne(RUNNING))
            .select(dsl::rowid)
            .first::<i64>(&mut self.conn)
            .optional()?;
        let doomed = dsl::greenroom_tasks
            .filter(dsl::lane.ge(Lit::<{ lane::DOOMED }>))
            .filter(dsl::notify.is_null())
            .select(dsl::rowid)
            .first::<i64>(&mut self.conn)
            .optional()?;
        let waited = !due_waits(&mut self.conn, now, 1)?.is_empty();
        Ok(due.is_some() || expired.is_some() || doomed.is_some() || waited)
    }
}

/// The kind or tool of a task: a column that SQLite derives from the target.
fn queue() -> SqlLiteral<Text> {
    sql::<Text>("queue")
}

/// When the attempt before this one began, if there was one.
fn started_before() -> SqlLiteral<Nullable<Moment>> {
    sql::<Nullable<Moment>>("CASE WHEN attempt > 1 THEN started_at END")
}

/// The queues with ready tasks, each with since when the next of them is ready: a seek for each.
pub(super) fn ready_queues(conn: &mut SqliteConnection) -> QueryResult<Vec<(String, Timestamp)>> {
    use greenroom_tasks::dsl;
    let mut found = Vec::new();
    for lane in [lane::AGENTS, lane::TOOLS] {
        let mut last = String::new();
        loop {
            let next = dsl::greenroom_tasks
                .filter(dsl::state.eq(READY))
                .filter(dsl::lane.eq(lane))
                .filter(queue().gt(&last))
                .order(queue().asc())
                .select((queue(), dsl::created_at, dsl::run_at))
                .first::<(String, Micros, Option<Micros>)>(conn)
                .optional()?;
            let Some((name, created_at, run_at)) = next else { break };
            found.push((name.clone(), moment(run_at.map_or(created_at, |at| at.max(created_at)))));
            last = name;
        }
    }
    Ok(found)
}

/// Which of the ready tasks a claim takes.
struct Choice<'r> {
    /// Targets that have no room.
    except: HashSet<&'r str>,
    /// Tasks that are not to begin any more.
    expired: HashSet<i64>,
    /// At most so many for one target, and how many it has taken for each.
    each: usize,
    taken: HashMap<String, usize>,
    /// How many it may pass over.
    look: usize,
}

impl<'r> Choice<'r> {
    fn of(request: &'r ClaimRequest, lane: i16, expired: HashSet<i64>) -> Self {
        let bound = |n: Option<usize>| n.filter(|_| lane == lane::AGENTS).unwrap_or(usize::MAX);
        let except = request.except.iter().map(String::as_str).collect();
        Self { except, expired, each: bound(request.each), taken: HashMap::new(), look: bound(request.look) }
    }

    fn takes(&mut self, rowid: i64, target: String) -> bool {
        if self.except.contains(target.as_str()) || self.expired.contains(&rowid) {
            return false;
        }
        if self.each == usize::MAX {
            return true;
        }
        let taken = self.taken.entry(target).or_default();
        let takes = *taken < self.each;
        *taken += usize::from(takes);
        takes
    }
}

impl Tx<'_> {
    /// What has begun and goes back does not expire, and could run as of its acceptance.
    fn broken_off(
        &mut self,
        boot: Uuid,
        rowid: i64,
        task: TaskId,
        (attempt, started_at): (i64, Option<Micros>),
    ) -> QueryResult<()> {
        use greenroom_tasks::dsl;
        let since = sql::<Nullable<Moment>>("coalesce(run_at, created_at)");
        diesel::update(dsl::greenroom_tasks.filter(dsl::rowid.eq(rowid)))
            .set((dsl::run_at.eq(since), dsl::expires_at.eq(None::<Micros>)))
            .execute(self.conn)?;
        self.began(Id::from(task), started_at, attempt, Some(boot))?;
        self.event(Id::from(task), "broken_off", attempt, Some(boot), Some(told::BROKEN_OFF))
    }

    pub(super) fn doom(&mut self, rowid: i64, lane: i16) -> QueryResult<()> {
        use greenroom_tasks::dsl;
        diesel::update(dsl::greenroom_tasks.filter(dsl::rowid.eq(rowid)))
            .set(dsl::lane.eq(lane))
            .execute(self.conn)?;
        Ok(())
    }

    /// The queues with ready tasks in a lane that are not paused: a seek for each.
    fn ready_queues(&mut self, lane: i16) -> QueryResult<BTreeSet<String>> {
        use greenroom_tasks::dsl;
        let mut found = BTreeSet::new();
        let mut last = String::new();
        loop {
            let next = dsl::greenroom_tasks
                .filter(dsl::state.eq(READY))
                .filter(dsl::lane.eq(lane))
                .filter(queue().gt(&last))
                .order(queue().asc())
                .select(queue())
                .first::<String>(self.conn)
                .optional()?;
            let Some(next) = next else { break };
            found.insert(next.clone());
            last = next;
        }
        if !found.is_empty() {
            for paused in greenroom_paused::table.select(greenroom_paused::queue).load::<String>(self.conn)? {
                found.remove(&paused);
            }
        }
        Ok(found)
    }

    /// The ready tasks that are not to begin any more: none, or those since the last pass of `promote`. After an outage
    /// there may be more of them than are looked at: what is claimed of those goes back where it would begin.
    fn expired(&mut self) -> QueryResult<HashSet<i64>> {
        use greenroom_tasks::dsl;
        let passed = dsl::greenroom_tasks
            .filter(dsl::expires_at.is_not_null())
            .filter(dsl::expires_at.le(self.now))
            .filter(dsl::state.eq(READY))
            .limit(10 * PROMOTED_AT_ONCE)
            .select((dsl::rowid, dsl::partition, dsl::attempt, dsl::lost))
            .load::<(i64, i16, i64, i64)>(self.conn)?;
        let unbegun = passed.into_iter().filter(|(_, partition, attempt, lost)| {
            !has_begun(*partition < 0, count(*attempt), count(*lost))
        });
        Ok(unbegun.map(|(rowid, ..)| rowid).collect())
    }

    /// The best ready tasks of a queue. The index alone answers; it is read only as far as needed.
    fn ready(&mut self, lane: i16, of: &str, limit: usize, choice: &mut Choice<'_>) -> QueryResult<Vec<i64>> {
        use greenroom_tasks::dsl;
        let mut best = Vec::with_capacity(limit.min(1_024));
        if limit == 0 {
            return Ok(best);
        }
        let mut passed = 0;
        let rows = dsl::greenroom_tasks
            .filter(dsl::state.eq(READY))
            .filter(dsl::lane.eq(lane))
            .filter(queue().eq(of))
            .order((dsl::priority.desc(), dsl::seq.asc()))
            .select((dsl::rowid, dsl::target))
            .load_iter::<(i64, String), _>(self.conn)?;
        for row in rows {
            let (rowid, target) = row?;
            if choice.takes(rowid, target) {
                best.push(rowid);
            } else {
                passed += 1;
            }
            if best.len() == limit || passed > choice.look {
                break;
            }
        }
        Ok(best)
    }

    fn take(&mut self, boot: Uuid, rowid: i64, alone: bool) -> Result<Claimed, Stop> {
        use greenroom_tasks::dsl;
        // any number, as long as it is drawn once
        let claim = self.next_seq()?;
        let row = diesel::update(dsl::greenroom_tasks.filter(dsl::rowid.eq(rowid)))
            .set((
                dsl::state.eq(RUNNING),
                dsl::attempt.eq(dsl::attempt + 1),
                dsl::claim.eq(claim),
                dsl::node.eq(Id(boot)),
                dsl::started_at.eq(self.now),
                dsl::alone.eq(alone),
            ))
            .returning(ClaimedRow::as_returning())
            .get_result(self.conn)?;
        self.deltas.task(TaskState::Ready, -1);
        self.deltas.task(TaskState::Running, 1);
        Ok(row.into_claimed()?)
    }

    fn promote_due(&mut self) -> QueryResult<u64> {
        use greenroom_tasks::dsl;
        let due = dsl::greenroom_tasks
            .filter(dsl::state.eq(SCHEDULED))
            .filter(dsl::run_at.le(self.now))
            .order(dsl::run_at.asc())
            .limit(PROMOTED_AT_ONCE)
            .select((dsl::rowid, dsl::lane))
            .load::<(i64, i16)>(self.conn)?;
        let mut promoted = 0;
        for (rowid, lane) in due {
            let seq = self.next_seq()?;
            diesel::update(dsl::greenroom_tasks.filter(dsl::rowid.eq(rowid)))
                .set((dsl::state.eq(READY), dsl::seq.eq(seq)))
                .execute(self.conn)?;
            self.deltas.task(TaskState::Scheduled, -1);
            self.deltas.task(TaskState::Ready, 1);
            promoted += u64::from(lane < lane::DOOMED);
        }
        Ok(promoted)
    }

    /// Dooms what has expired before it began. What runs is looked at when it comes back, if it does.
    fn doom_expired(&mut self) -> QueryResult<()> {
        use greenroom_tasks::dsl;
        let passed = dsl::greenroom_tasks
            .filter(dsl::expires_at.is_not_null())
            .filter(dsl::expires_at.le(self.now))
            .filter(dsl::state.ne(RUNNING))
            .limit(PROMOTED_AT_ONCE)
            .select((dsl::rowid, dsl::lane, dsl::partition, dsl::attempt, dsl::lost))
            .load::<(i64, i16, i16, i64, i64)>(self.conn)?;
        for (rowid, lane, partition, attempt, lost) in passed {
            let row = dsl::greenroom_tasks.filter(dsl::rowid.eq(rowid));
            if !has_begun(partition < 0, count(attempt), count(lost)) && lane < lane::DOOMED {
                diesel::update(row)
                    .set((dsl::lane.eq(lane::EXPIRED), dsl::expires_at.eq(None::<Micros>)))
                    .execute(self.conn)?;
            } else {
                // it has begun: its expiry has no meaning any more
                diesel::update(row).set(dsl::expires_at.eq(None::<Micros>)).execute(self.conn)?;
            }
        }
        Ok(())
    }

    /// Ends the doomed that nobody is to be told of; those that it has ended.
    fn end_untold(&mut self) -> Result<Vec<Doomed>, Stop> {
        let mut ended = Vec::new();
        for task in read::doomed(self.conn, true)? {
            if let Some(why) = told::untold_end(task.why)
                && self.end_doomed(task.id, why)?
            {
                ended.push(task);
            }
        }
        Ok(ended)
    }
}
