//! Relations among tasks: prerequisites, and submitters.
//!
//! Both are small queries, for a person who inspects one task. Prerequisites have rows of their own, only for tasks
//! that have any, and deleted with them; submitters have no index, since every submission would pay for it.

use async_trait::async_trait;

use super::StoreError;
use crate::model::{
    id::TaskId,
    task::{Prerequisite, TaskView},
};

/// The most that one look reads.
pub(super) const MAX_LOOK: usize = 10_000;

/// To whom a task belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kin {
    /// The task.
    pub id: TaskId,
    /// The task whose turn submitted it.
    pub parent: Option<TaskId>,
    /// The batch it is counted in.
    pub batch: Option<TaskId>,
}

/// What is read of families.
#[async_trait]
pub trait Families: Send + Sync {
    /// Who comes after whom, of those around these tasks: pairs of one and one that comes after it, whether they
    /// have ended or not, at most `limit`. They are known as long as the later one is.
    async fn edges(&self, around: &[TaskId], limit: usize) -> Result<Vec<(TaskId, TaskId)>, StoreError>;

    /// The tasks behind an id, in the order of their ids, hot and archived: the first `limit`, 1 to 10,000.
    async fn kin_behind(&self, id: TaskId, limit: usize) -> Result<Vec<Kin>, StoreError>;

    /// Those of these tasks that are known, as lists show them, in the order of their ids.
    async fn relatives(&self, ids: &[TaskId]) -> Result<Vec<TaskView>, StoreError>;

    /// The tasks that a blocked one waits for, in the order of their ids: the first `limit`, 1 to 10,000.
    async fn prerequisites(&self, of: TaskId, limit: usize) -> Result<Vec<Prerequisite>, StoreError>;
}

/// Writes the reads for one connection, as [`schedule_statements`](super::schedules::schedule_statements) does.
macro_rules! family_reads {
    ($conn:ty, [$($async:tt)*], [$($wait:tt)*]) => {
        use crate::{
            model::{
                id::TaskId,
                task::{Prerequisite, TaskView},
            },
            store::{
                StoreError,
                families::{Kin, MAX_LOOK},
                listed::{ListedEnd, ListedTask},
                rows::{state_of, target_of},
                schema::{
                    greenroom_task_archive, greenroom_task_edges, greenroom_task_parents, greenroom_tasks,
                },
                values::Id,
            },
        };

        /// Who comes after whom, of those around these tasks.
        pub(super) $($async)* fn edges(
            conn: &mut $conn,
            around: &[TaskId],
            limit: usize,
        ) -> Result<Vec<(TaskId, TaskId)>, StoreError> {
            use greenroom_task_edges::dsl;
            let ids: Vec<Id> = around.iter().map(|id| Id::from(*id)).collect();
            let near = dsl::parent.eq_any(ids.clone()).or(dsl::child.eq_any(ids));
            let limit = i64::try_from(limit.min(MAX_LOOK)).unwrap_or(1);
            let pairs = dsl::greenroom_task_edges.filter(near).limit(limit).select((dsl::parent, dsl::child));
            let pairs: Vec<(Id, Id)> = RunQueryDsl::load(pairs, conn)$($wait)*.map_err(sql)?;
            Ok(pairs.into_iter().map(|(parent, child)| (parent.into(), child.into())).collect())
        }

        /// The tasks behind an id.
        pub(super) $($async)* fn kin_behind(
            conn: &mut $conn,
            id: TaskId,
            limit: usize,
        ) -> Result<Vec<Kin>, StoreError> {
            use greenroom_task_archive::dsl as archive;
            use greenroom_tasks::dsl as hot;
            let (limit, most) = (limit.clamp(1, MAX_LOOK), i64::try_from(limit.clamp(1, MAX_LOOK)).unwrap_or(1));
            let unfinished = hot::greenroom_tasks
                .filter(hot::id.gt(Id::from(id)))
                .order(hot::id.asc())
                .limit(most)
                .select((hot::id, hot::parent, hot::batch));
            let mut rows: Vec<(Id, Option<Id>, Option<Id>)> =
                RunQueryDsl::load(unfinished, conn)$($wait)*.map_err(sql)?;
            let ended = archive::greenroom_task_archive
                .filter(archive::id.gt(Id::from(id)))
                .order(archive::id.asc())
                .limit(most)
                .select((archive::id, archive::parent, archive::batch));
            rows.append(&mut RunQueryDsl::load(ended, conn)$($wait)*.map_err(sql)?);
            let kin = |(id, parent, batch): (Id, Option<Id>, Option<Id>)| Kin {
                id: id.into(),
                parent: parent.map(TaskId::from),
                batch: batch.map(TaskId::from),
            };
            let mut kin: Vec<Kin> = rows.into_iter().map(kin).collect();
            // one that ended between the two reads is in both
            kin.sort_unstable_by_key(|kin| kin.id);
            kin.dedup_by_key(|kin| kin.id);
            kin.truncate(limit);
            Ok(kin)
        }

        /// Those of these tasks that are known.
        pub(super) $($async)* fn relatives(
            conn: &mut $conn,
            ids: &[TaskId],
        ) -> Result<Vec<TaskView>, StoreError> {
            use greenroom_task_archive::dsl as archive;
            use greenroom_tasks::dsl as hot;
            let ids: Vec<Id> = ids.iter().map(|id| Id::from(*id)).collect();
            let unfinished = hot::greenroom_tasks.filter(hot::id.eq_any(ids.clone()));
            let unfinished = unfinished.select(ListedTask::as_select());
            let unfinished: Vec<ListedTask> = RunQueryDsl::load(unfinished, conn)$($wait)*.map_err(sql)?;
            let ended = archive::greenroom_task_archive.filter(archive::id.eq_any(ids));
            let ended = ended.select(ListedEnd::as_select());
            let ended: Vec<ListedEnd> = RunQueryDsl::load(ended, conn)$($wait)*.map_err(sql)?;
            let unfinished = unfinished.into_iter().map(ListedTask::into_view);
            let views = unfinished.chain(ended.into_iter().map(ListedEnd::into_view));
            let mut views: Vec<TaskView> = views.collect::<Result<_, _>>()?;
            // one that ended between the two reads is told as ended
            views.sort_by_key(|view| (view.id, std::cmp::Reverse(view.state)));
            views.dedup_by_key(|view| view.id);
            Ok(views)
        }

        /// The tasks that a blocked one waits for.
        pub(super) $($async)* fn prerequisites(
            conn: &mut $conn,
            of: TaskId,
            limit: usize,
        ) -> Result<Vec<Prerequisite>, StoreError> {
            use greenroom_task_edges::dsl as edges;
            use greenroom_task_parents::dsl as open;
            use greenroom_tasks::dsl as hot;
            let (of, limit) = (Id::from(of), i64::try_from(limit.clamp(1, MAX_LOOK)).unwrap_or(1));
            // only the edges are found by their child
            let all = edges::greenroom_task_edges.filter(edges::child.eq(of)).select(edges::parent);
            let open = open::greenroom_task_parents
                .filter(open::parent.eq_any(all))
                .filter(open::child.eq(of))
                .select(open::parent);
            let tasks = hot::greenroom_tasks
                .filter(hot::id.eq_any(open))
                .order(hot::id.asc())
                .limit(limit)
                .select((hot::id, hot::target, hot::state));
            let rows: Vec<(Id, String, i16)> = RunQueryDsl::load(tasks, conn)$($wait)*.map_err(sql)?;
            let prerequisite = |(id, target, state): (Id, String, i16)| {
                Ok(Prerequisite { id: id.into(), target: target_of(&target), state: state_of(state)? })
            };
            rows.into_iter().map(prerequisite).collect()
        }
    };
}
pub(super) use family_reads;
