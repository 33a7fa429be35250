//! Reads.

use diesel::{pg::Pg, prelude::*};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{error, values::types::Uid};
use crate::{
    model::snapshot,
    store::{Counts, NodeRow, lists::lists, read::reads},
};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

reads!(AsyncPgConnection, Pg, [async], [.await]);
lists!(AsyncPgConnection, Pg, [async], [.await]);

/// Agents by id, in the order asked for; `with_state` or without.
pub(super) async fn load(
    conn: &mut AsyncPgConnection,
    ids: &[AgentId],
    with_state: bool,
) -> Result<Vec<Option<AgentRow>>, StoreError> {
    use greenroom_agents::dsl;
    let keys: Vec<Id> = ids.iter().map(|id| Id::from(*id)).collect();
    let wanted = dsl::greenroom_agents.filter(dsl::id.eq_any(&keys));
    let mut found = std::collections::HashMap::with_capacity(ids.len());
    if with_state {
        let rows: Vec<(StoredAgent, Vec<u8>)> =
            wanted.select((StoredAgent::as_select(), dsl::state)).load(conn).await.map_err(sql)?;
        for (agent, state) in rows {
            let row = agent.with_state(snapshot::unpack(state))?;
            found.insert(row.id, row);
        }
    } else {
        let rows: Vec<StoredAgent> = wanted.select(StoredAgent::as_select()).load(conn).await.map_err(sql)?;
        for agent in rows {
            let row = agent.with_state(Vec::new())?;
            found.insert(row.id, row);
        }
    }
    // an id may have been asked for twice
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = diesel::sql_types::SmallInt)]
    id: i16,
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

/// The counters: what was folded, and what was appended since.
pub(super) async fn counts(conn: &mut AsyncPgConnection) -> Result<Counts, StoreError> {
    stored_counts(conn).await.map(told::counts_of).map_err(sql)
}

/// The counters by number.
pub(super) async fn stored_counts(conn: &mut AsyncPgConnection) -> QueryResult<Vec<(i16, i64)>> {
    let query = diesel::sql_query(
        "SELECT id, sum(n)::bigint AS n FROM (SELECT id, n FROM greenroom_counts \
         UNION ALL SELECT id, n FROM greenroom_count_changes) AS c GROUP BY id ORDER BY id",
    );
    let rows: Vec<Counted> = query.load(conn).await?;
    Ok(rows.into_iter().map(|c| (c.id, c.n)).collect())
}

#[derive(QueryableByName)]
struct Member {
    #[diesel(sql_type = Uid)]
    id: Id,
    #[diesel(sql_type = diesel::sql_types::Text)]
    name: String,
    #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::Text>)]
    url: Option<String>,
    #[diesel(sql_type = super::values::types::Moment)]
    started_at: Micros,
    #[diesel(sql_type = super::values::types::Moment)]
    lease_until: Micros,
    #[diesel(sql_type = diesel::sql_types::Nullable<super::values::types::Moment>)]
    drained_at: Option<Micros>,
    #[diesel(sql_type = diesel::sql_types::Array<diesel::sql_types::SmallInt>)]
    partitions: Vec<i16>,
}

/// The nodes that have not ended, with what they own.
pub(super) async fn nodes(conn: &mut AsyncPgConnection) -> Result<Vec<NodeRow>, StoreError> {
    let query = diesel::sql_query(
        "SELECT n.id, n.name, n.url, n.started_at, n.lease_until, n.drained_at, \
         ARRAY(SELECT p.id FROM greenroom_partitions p WHERE p.node = n.id AND p.id >= 0 ORDER BY p.id) AS partitions \
         FROM greenroom_nodes n WHERE n.ended_at IS NULL ORDER BY n.started_at, n.id",
    );
    let rows: Vec<Member> = query.load(conn).await.map_err(sql)?;
    let row = |m: Member| NodeRow {
        boot: m.id.0,
        name: m.name,
        url: m.url,
        started_at: moment(m.started_at),
        lease_until: Some(moment(m.lease_until)),
        drained_at: m.drained_at.map(moment),
        partitions: m.partitions,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Whether the server answers, and takes writes.
pub(super) async fn ping(conn: &mut AsyncPgConnection) -> Result<(), StoreError> {
    use crate::store::schema::greenroom_partitions::dsl;
    let read_only = diesel::dsl::sql::<diesel::sql_types::Text>("current_setting('transaction_read_only')");
    let found = dsl::greenroom_partitions.select(read_only).first::<String>(conn).await.map_err(sql)?;
    if found == "on" { Err(error::read_only()) } else { Ok(()) }
}

/// The partitions that a node owns.
pub(super) async fn partitions(conn: &mut AsyncPgConnection, boot: Uuid) -> Result<Vec<i16>, StoreError> {
    use crate::store::schema::greenroom_partitions::dsl;
    let mine = dsl::greenroom_partitions.filter(dsl::node.eq(Id(boot))).select(dsl::id);
    mine.load(conn).await.map_err(sql)
}
