//! What only reads.

use diesel::prelude::*;
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    commit::stored_key,
    error,
    rows::{self, ArchivedRow, StoredAgent, TaskRow},
    values::{Id, Lit, Micros, READY, RUNNING, count, lane, micros, moment},
};
use crate::{
    model::{
        id::{AgentId, TaskId},
        task::{Claimed, TaskEvent, TaskState, TaskView},
    },
    store::{
        AgentFilter, AgentRow, Counts, KeyRow, StoreError, StoredStatus, TaskFilter,
        schema::{
            greenroom_agents, greenroom_counts, greenroom_meta, greenroom_snapshots, greenroom_task_archive,
            greenroom_task_events, greenroom_tasks,
        },
    },
};

const MAX_PAGE: usize = 1_000;

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

fn page(limit: usize) -> i64 {
    i64::try_from(limit.clamp(1, MAX_PAGE)).unwrap_or(1)
}

/// Agents with their states, in the order asked for.
pub(super) fn load(
    conn: &mut SqliteConnection,
    ids: &[AgentId],
) -> Result<Vec<Option<AgentRow>>, StoreError> {
    use greenroom_agents::dsl;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let row = dsl::greenroom_agents
            .filter(dsl::id.eq(Id(id.0)))
            .select((StoredAgent::as_select(), dsl::state))
            .first::<(StoredAgent, Vec<u8>)>(conn)
            .optional()
            .map_err(sql)?;
        found.push(row.map(|(agent, state)| agent.with_state(state)).transpose()?);
    }
    Ok(found)
}

/// Agents without their states, in the order asked for.
pub(super) fn heads(
    conn: &mut SqliteConnection,
    ids: &[AgentId],
) -> Result<Vec<Option<AgentRow>>, StoreError> {
    use greenroom_agents::dsl;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let query = dsl::greenroom_agents.filter(dsl::id.eq(Id(id.0))).select(StoredAgent::as_select());
        let row = query.first(conn).optional().map_err(sql)?;
        found.push(row.map(|agent: StoredAgent| agent.with_state(Vec::new())).transpose()?);
    }
    Ok(found)
}

/// One page of agents by (kind, key).
pub(super) fn agents(conn: &mut SqliteConnection, filter: &AgentFilter) -> Result<Vec<AgentRow>, StoreError> {
    use greenroom_agents::dsl;
    let limit = page(filter.limit);
    let ordered = |limit| {
        let mut query = dsl::greenroom_agents.select(StoredAgent::as_select()).into_boxed();
        match filter.status {
            Some(StoredStatus::Normal) => query = query.filter(dsl::status.eq(Lit::<0>)),
            Some(s) => query = query.filter(dsl::status.ne(Lit::<0>)).filter(dsl::status.eq(s as i16)),
            None => {}
        }
        query.order((dsl::kind.asc(), dsl::key.asc())).limit(limit)
    };
    let rows = match (&filter.kind, &filter.after) {
        (None, None) => ordered(limit).load(conn),
        (Some(kind), None) => ordered(limit).filter(dsl::kind.eq(kind)).load(conn),
        (Some(kind), Some((after, key))) if kind == after => {
            ordered(limit).filter(dsl::kind.eq(kind)).filter(dsl::key.gt(key)).load(conn)
        }
        (Some(kind), Some((after, _))) if kind > after => {
            ordered(limit).filter(dsl::kind.eq(kind)).load(conn)
        }
        (Some(_), Some(_)) => Ok(Vec::new()),
        // the rest of the kind, then the kinds behind it: two seeks, where one condition would scan
        (None, Some((kind, key))) => at_once(conn, |conn| {
            let within = ordered(limit).filter(dsl::kind.eq(kind)).filter(dsl::key.gt(key));
            let mut rows: Vec<StoredAgent> = within.load(conn).map_err(sql)?;
            let left = limit - i64::try_from(rows.len()).unwrap_or(limit);
            if left > 0 {
                rows.extend(ordered(left).filter(dsl::kind.gt(kind)).load(conn).map_err(sql)?);
            }
            Ok(rows)
        })
        .map(Ok)?,
    };
    rows.map_err(sql)?.into_iter().map(|row: StoredAgent| row.with_state(Vec::new())).collect()
}

/// The current state and the kept earlier ones, newest first.
pub(super) fn snapshots(
    conn: &mut SqliteConnection,
    id: AgentId,
) -> Result<Vec<(i64, Timestamp, Vec<u8>)>, StoreError> {
    use greenroom_agents::dsl as a;
    use greenroom_snapshots::dsl as s;
    let id = Id(id.0);
    let current = a::greenroom_agents
        .filter(a::id.eq(id))
        .filter(a::version.gt(0))
        .select((a::version, a::updated_at, a::state))
        .first::<(i64, Micros, Vec<u8>)>(conn)
        .optional()
        .map_err(sql)?;
    let earlier = s::greenroom_snapshots
        .filter(s::agent.eq(id))
        .order(s::version.desc())
        .select((s::version, s::at, s::state))
        .load::<(i64, Micros, Vec<u8>)>(conn)
        .map_err(sql)?;
    let newest = current.as_ref().map(|(version, ..)| *version);
    let earlier = earlier.into_iter().filter(|(version, ..)| Some(*version) != newest);
    Ok(current.into_iter().chain(earlier).map(|(version, at, state)| (version, moment(at), state)).collect())
}

/// A key that has not expired.
pub(super) fn key(conn: &mut SqliteConnection, scope: Uuid, key: &str) -> Result<Option<KeyRow>, StoreError> {
    stored_key(conn, scope, key, micros(Timestamp::now())).map_err(sql)
}

fn hot(conn: &mut SqliteConnection, id: TaskId) -> Result<Option<TaskRow>, StoreError> {
    use greenroom_tasks::dsl;
    let row = dsl::greenroom_tasks.filter(dsl::id.eq(Id::from(id))).select(TaskRow::as_select());
    row.first(conn).optional().map_err(sql)
}

fn archived(conn: &mut SqliteConnection, id: TaskId) -> Result<Option<ArchivedRow>, StoreError> {
    use greenroom_task_archive::dsl;
    let row = dsl::greenroom_task_archive.filter(dsl::id.eq(Id::from(id))).select(ArchivedRow::as_select());
    row.first(conn).optional().map_err(sql)
}

/// One moment for several reads, so that a task which moves to the archive meanwhile is neither
/// missed nor seen twice.
fn at_once<T>(
    conn: &mut SqliteConnection,
    work: impl FnOnce(&mut SqliteConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    enum Failed {
        Sql(diesel::result::Error),
        Store(StoreError),
    }
    impl From<diesel::result::Error> for Failed {
        fn from(e: diesel::result::Error) -> Self {
            Self::Sql(e)
        }
    }
    conn.transaction(|conn| work(conn).map_err(Failed::Store)).map_err(|e| match e {
        Failed::Sql(e) => sql(e),
        Failed::Store(e) => e,
    })
}

/// A task, hot or archived.
pub(super) fn task(conn: &mut SqliteConnection, id: TaskId) -> Result<Option<TaskView>, StoreError> {
    at_once(conn, |conn| match hot(conn, id)? {
        Some(row) => row.into_view().map(Some),
        None => archived(conn, id)?.map(ArchivedRow::into_view).transpose(),
    })
}

/// A task's data, hot or archived.
pub(super) fn task_data(conn: &mut SqliteConnection, id: TaskId) -> Result<Option<Claimed>, StoreError> {
    at_once(conn, |conn| match hot(conn, id)? {
        Some(row) => row.into_claimed().map(Some),
        None => archived(conn, id)?.map(ArchivedRow::into_claimed).transpose(),
    })
}

/// One page of tasks, newest first.
pub(super) fn tasks(conn: &mut SqliteConnection, filter: &TaskFilter) -> Result<Vec<TaskView>, StoreError> {
    at_once(conn, |conn| {
        let mut views = Vec::new();
        if filter.state.is_none_or(|s| !s.is_final()) {
            for row in hot_page(conn, filter).map_err(sql)? {
                views.push(row.into_view()?);
            }
        }
        if filter.state.is_none_or(TaskState::is_final) {
            for row in archived_page(conn, filter).map_err(sql)? {
                views.push(row.into_view()?);
            }
        }
        views.sort_by_key(|v| std::cmp::Reverse(v.id));
        views.truncate(filter.limit.clamp(1, MAX_PAGE));
        Ok(views)
    })
}

fn hot_page(conn: &mut SqliteConnection, filter: &TaskFilter) -> QueryResult<Vec<TaskRow>> {
    use greenroom_tasks::dsl;
    let mut query = dsl::greenroom_tasks.select(TaskRow::as_select()).into_boxed();
    if let Some(state) = filter.state {
        if state >= TaskState::Running {
            query = query.filter(dsl::state.ge(RUNNING));
        }
        query = query.filter(dsl::state.eq(state as i16));
    }
    if let Some(target) = &filter.target {
        query = query.filter(dsl::target.eq(target));
    }
    if let Some(before) = filter.before {
        query = query.filter(dsl::id.lt(Id::from(before)));
    }
    query.order(dsl::id.desc()).limit(page(filter.limit)).load(conn)
}

fn archived_page(conn: &mut SqliteConnection, filter: &TaskFilter) -> QueryResult<Vec<ArchivedRow>> {
    use greenroom_task_archive::dsl;
    let mut query = dsl::greenroom_task_archive.select(ArchivedRow::as_select()).into_boxed();
    if let Some(state) = filter.state {
        if state >= TaskState::Failed {
            query = query.filter(dsl::state.ge(Lit::<{ TaskState::Failed as i16 }>));
        }
        query = query.filter(dsl::state.eq(state as i16));
    }
    if let Some(target) = &filter.target {
        query = query.filter(dsl::target.eq(target));
    }
    if let Some(before) = filter.before {
        query = query.filter(dsl::id.lt(Id::from(before)));
    }
    query.order(dsl::id.desc()).limit(page(filter.limit)).load(conn)
}

/// A task's history: what its columns tell, and what was written down beside them.
pub(super) fn history(conn: &mut SqliteConnection, id: TaskId) -> Result<Vec<TaskEvent>, StoreError> {
    use greenroom_task_events::dsl;
    at_once(conn, |conn| {
        let view = match hot(conn, id)? {
            Some(row) => row.into_view()?,
            None => match archived(conn, id)? {
                Some(row) => row.into_view()?,
                None => return Ok(Vec::new()),
            },
        };
        let written = dsl::greenroom_task_events
            .filter(dsl::task.eq(Id::from(id)))
            .order(dsl::rowid.asc())
            .select((dsl::at, dsl::event, dsl::attempt, dsl::node, dsl::detail))
            .load::<(Micros, String, i64, Option<Id>, Option<String>)>(conn)
            .map_err(sql)?;
        let told = |at, event: &str, attempt| TaskEvent {
            at,
            event: event.to_owned(),
            attempt,
            node: view.node.clone().filter(|_| event != "accepted"),
            detail: None,
        };
        let mut events = vec![told(view.created_at, "accepted", 0)];
        let ended_by_note = written.iter().any(|(_, event, ..)| event == view.state.name());
        events.extend(written.into_iter().map(|(at, event, attempt, node, detail)| TaskEvent {
            at: moment(at),
            event,
            attempt: count(attempt),
            node: node.map(|n| n.0.to_string()),
            detail,
        }));
        events.extend(view.started_at.map(|at| told(at, "started", view.attempt)));
        if !ended_by_note {
            let why = view.error.as_ref().map(|e| e.message.clone());
            events.extend(
                view.finished_at
                    .map(|at| TaskEvent { detail: why, ..told(at, view.state.name(), view.attempt) }),
            );
        }
        events.sort_by_key(|e| e.at);
        Ok(events)
    })
}

/// How many tasks may only run alone.
pub(super) fn suspects(conn: &mut SqliteConnection) -> Result<u64, StoreError> {
    use greenroom_tasks::dsl;
    let n: i64 = dsl::greenroom_tasks
        .filter(dsl::state.eq(READY))
        .filter(dsl::lane.eq(lane::SUSPECTS))
        .count()
        .get_result(conn)
        .map_err(sql)?;
    Ok(u64::try_from(n).unwrap_or(0))
}

/// The counters.
pub(super) fn counts(conn: &mut SqliteConnection) -> Result<Counts, StoreError> {
    use greenroom_counts::dsl;
    let rows = dsl::greenroom_counts.select((dsl::id, dsl::n)).load::<(i16, i64)>(conn).map_err(sql)?;
    let mut counts = Counts::default();
    for (id, n) in rows {
        let n = u64::try_from(n).unwrap_or(0);
        if let Some(state) = TaskState::from_code(id) {
            counts.tasks.push((state, n));
        } else if let Ok(status) = rows::status_of(id - 100) {
            counts.agents.push((status, n));
        }
    }
    Ok(counts)
}

/// Whether the file answers.
pub(super) fn ping(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    use greenroom_meta::dsl;
    dsl::greenroom_meta.select(dsl::value).first::<i64>(conn).map(drop).map_err(sql)
}
