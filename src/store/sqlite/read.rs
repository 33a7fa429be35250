//! Reads.

use diesel::{prelude::*, sqlite::Sqlite};
use jiff::Timestamp;
use uuid::Uuid;

use super::error;
use crate::store::{
    Counts,
    lists::lists,
    read::reads,
    schema::{greenroom_counts, greenroom_meta},
    values::micros,
};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

reads!(SqliteConnection, Sqlite, [], []);
lists!(SqliteConnection, Sqlite, [], []);

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

/// A key that has not expired.
pub(super) fn key(conn: &mut SqliteConnection, scope: Uuid, key: &str) -> Result<Option<KeyRow>, StoreError> {
    stored_key(conn, scope, key, micros(Timestamp::now())).map_err(sql)
}

/// The counters.
pub(super) fn counts(conn: &mut SqliteConnection) -> Result<Counts, StoreError> {
    use greenroom_counts::dsl;
    let rows = dsl::greenroom_counts.select((dsl::id, dsl::n)).load::<(i16, i64)>(conn).map_err(sql)?;
    Ok(told::counts_of(rows))
}

/// Whether the file answers.
pub(super) fn ping(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    use greenroom_meta::dsl;
    dsl::greenroom_meta.select(dsl::value).first::<i64>(conn).map(drop).map_err(sql)
}
