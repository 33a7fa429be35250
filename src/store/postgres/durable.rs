//! Whether a unit that was refused has been durable since an earlier try.

use diesel::{OptionalExtension as _, prelude::*};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    entities, read,
    values::{Id, micros},
};
use crate::store::{
    Finish, KeyRow, Unit,
    finish::is_own,
    schema::{greenroom_agents, greenroom_task_archive, greenroom_tasks},
};

/// A key that has not expired.
pub(super) async fn stored_key(
    conn: &mut AsyncPgConnection,
    scope: Uuid,
    key: &str,
) -> QueryResult<Option<KeyRow>> {
    read::stored_key(conn, scope, key, micros(Timestamp::now())).await
}

/// Whether this very unit has been committed before.
pub(super) async fn is_durable(conn: &mut AsyncPgConnection, boot: Uuid, unit: &Unit) -> QueryResult<bool> {
    if let Some(write) = &unit.state {
        use greenroom_agents::dsl;
        let row =
            dsl::greenroom_agents.filter(dsl::id.eq(Id::from(write.id))).select((dsl::epoch, dsl::version));
        let row: Option<(i64, i64)> = RunQueryDsl::first(row, conn).await.optional()?;
        return Ok(row == Some((write.epoch, write.base_version.saturating_add(1))));
    }
    if !unit.accepted.is_empty() {
        let mut ids: Vec<Id> = unit.accepted.iter().map(|t| t.id.into()).collect();
        ids.sort_unstable();
        ids.dedup();
        return Ok(known(conn, &ids).await? == ids.len());
    }
    for finish in &unit.finished {
        if !is_finished(conn, boot, finish).await? {
            return Ok(false);
        }
    }
    for key in &unit.keys {
        match stored_key(conn, key.scope, &key.key).await? {
            Some(row) if is_own(&row, key) => {}
            _ => return Ok(false),
        }
    }
    if !entities::are_appended(conn, &unit.messages).await? {
        return Ok(false);
    }
    Ok(!(unit.finished.is_empty() && unit.keys.is_empty() && unit.messages.is_empty()))
}

/// How many of these tasks are known, hot or archived.
async fn known(conn: &mut AsyncPgConnection, ids: &[Id]) -> QueryResult<usize> {
    use greenroom_task_archive::dsl as a;
    use greenroom_tasks::dsl as t;
    let hot = t::greenroom_tasks.filter(t::id.eq_any(ids)).select(t::id);
    let mut found: Vec<Id> = RunQueryDsl::load(hot, conn).await?;
    let archived = a::greenroom_task_archive.filter(a::id.eq_any(ids)).select(a::id);
    found.extend(RunQueryDsl::load::<Id>(archived, conn).await?);
    found.sort_unstable();
    found.dedup();
    Ok(found.len())
}

/// Whether this very finish has been committed before.
async fn is_finished(conn: &mut AsyncPgConnection, boot: Uuid, finish: &Finish) -> QueryResult<bool> {
    use greenroom_task_archive::dsl as a;
    use greenroom_tasks::dsl as t;
    let (id, to) = (Id::from(finish.task), finish.outcome.state());
    let wanted = finish.attempt_after();
    if !to.is_final() {
        let row = t::greenroom_tasks.filter(t::id.eq(id)).select((t::state, t::attempt));
        let row: Option<(i16, i64)> = RunQueryDsl::first(row, conn).await.optional()?;
        return Ok(row.is_some_and(|(s, n)| s == to as i16 && wanted.is_none_or(|w| w == n)));
    }
    let row = a::greenroom_task_archive.filter(a::id.eq(id)).select((a::state, a::attempt, a::node));
    let row: Option<(i16, i64, Option<Id>)> = RunQueryDsl::first(row, conn).await.optional()?;
    let by_us = |node: Option<Id>| node == Some(Id(boot));
    Ok(row.is_some_and(|(s, n, node)| s == to as i16 && wanted.is_none_or(|w| w == n && by_us(node))))
}
