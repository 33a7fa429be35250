//! Units that only end a task on behalf of the node that runs it, and what follows from them.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use diesel::QueryResult;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection as _};
use uuid::Uuid;

use super::{
    call::EndsCall,
    commit::{self, Keeping},
    pool::Pools,
    read, told,
    values::Id,
};
use crate::{
    model::id::TaskId,
    store::{Doomed, Finish, FinishOutcome, Guard, StoreError, Unit, Verdict, rows},
};

/// Whether the unit is nothing else, and can be refused for nothing but a lost claim.
pub(super) fn is_end_alone(unit: &Unit) -> bool {
    let [finish] = &*unit.finished else { return false };
    matches!(finish.guard, Guard::Running { .. })
        && finish.outcome.state().is_final()
        && finish.note.is_none()
        && unit.owner.is_none()
        && unit.state.is_none()
        && unit.accepted.is_empty()
        && unit.batches.is_empty()
        && unit.keys.is_empty()
        && !unit.has_entities()
        && unit.subscriptions.is_empty()
        && unit.journal.is_none()
        && unit.schedule.is_none()
}

/// Commits a wave of such units: which of them had lost their claims.
pub(super) async fn end(
    conn: &mut AsyncPgConnection,
    boot: Uuid,
    units: &[Unit],
    wave: &[usize],
) -> QueryResult<Vec<(usize, TaskId)>> {
    let finish = |n: &usize| Some((*n, units.get(*n)?.finished.as_slice().first()?));
    let mut ends: Vec<_> = wave.iter().filter_map(finish).collect();
    // Everybody locks in this order.
    ends.sort_unstable_by_key(|(_, finish)| finish.task);
    let mut call = EndsCall { node: Some(Id(boot)), ..EndsCall::default() };
    for (_, finish) in &ends {
        let Guard::Running { attempt } = finish.guard else { continue };
        let (result, error) = match &finish.outcome {
            FinishOutcome::Succeeded { result } => (Some(result.as_slice()), None),
            FinishOutcome::Failed { error } => (None, Some(rows::error_bytes(error))),
            _ => (None, None),
        };
        call.task.push(finish.task.into());
        call.attempt.push(i64::from(attempt));
        call.to.push(finish.outcome.state() as i16);
        call.result.push(result);
        call.error.push(error);
    }
    let done: Vec<Id> = RunQueryDsl::load(call, conn).await?;
    if done.len() == ends.len() {
        return Ok(Vec::new());
    }
    let done: HashSet<TaskId> = done.into_iter().map(TaskId::from).collect();
    let lost = ends.into_iter().map(|(n, finish)| (n, finish.task)).filter(|(_, task)| !done.contains(task));
    Ok(lost.collect())
}

/// Ends the doomed that nobody is to be told of, like any other task: children and batches follow. Those that it has
/// ended.
pub(super) async fn end_untold(
    conn: &mut AsyncPgConnection,
    keeping: &Keeping,
) -> Result<Vec<Doomed>, StoreError> {
    let mut doomed = read::doomed(conn, true).await.map_err(|e| super::error::of_statement(&e))?;
    doomed.retain(|task| told::untold_end(task.why).is_some());
    let end = |task: &Doomed| {
        let note = told::untold_end(task.why).map(str::to_owned);
        let finish = Finish { task: task.id, guard: Guard::Idle, outcome: FinishOutcome::Cancelled, note };
        Unit { finished: vec![finish], ..Unit::default() }
    };
    let ends: Vec<Unit> = doomed.iter().map(end).collect();
    if ends.is_empty() {
        return Ok(doomed);
    }
    let verdicts = commit::commit(conn, keeping, Uuid::nil(), &ends).await?;
    let ended = doomed.into_iter().zip(verdicts).filter(|(_, verdict)| *verdict == Verdict::Durable);
    Ok(ended.map(|(task, _)| task).collect())
}

/// Has the table of tasks swept when so many tasks have gone through it that its indexes hold mostly what is
/// no more: the server's own autovacuum comes once a minute, and a minute of a full queue is a million tasks.
#[derive(Default)]
pub(super) struct Sweeper {
    ended: AtomicUsize,
    at_work: AtomicBool,
}

impl Sweeper {
    /// So many ends at most go unswept, while sweeping is quick.
    const SWEEP_EVERY: usize = 20_000;
    /// Of ten parts of the time it takes one.
    const REST: u32 = 9;
    /// Whoever sweeps already need not be waited for, and a table that shrank would only grow again, holding up
    /// everybody both times.
    const SWEEP: &str = "VACUUM (SKIP_LOCKED, TRUNCATE FALSE) greenroom_tasks, greenroom_count_changes";

    /// So many tasks have ended. Sweeps in a task of its own; where the server does not allow it, or there is no
    /// connection now, its own sweep has to do.
    pub(super) fn ended(self: &Arc<Self>, n: usize, pools: &Pools) {
        let ended = self.ended.fetch_add(n, Ordering::Relaxed) + n;
        if ended < Self::SWEEP_EVERY || self.at_work.swap(true, Ordering::AcqRel) {
            return;
        }
        self.ended.store(0, Ordering::Relaxed);
        let (sweeper, pools) = (self.clone(), pools.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            let swept = async {
                let mut conn = pools.get().await?;
                conn.batch_execute(Self::SWEEP).await.map_err(|e| super::error::of_statement(&e))
            };
            let _: Result<(), StoreError> = swept.await;
            tokio::time::sleep(begun.elapsed() * Self::REST).await;
            sweeper.at_work.store(false, Ordering::Release);
        });
    }
}
