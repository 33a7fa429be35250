//! Which kinds and tools have ready tasks, and which node has those. What the functions do stands beside them, in
//! `migrations/postgres`.

use diesel::sql_types::{Array, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    error,
    values::{
        Id, Micros, moment,
        types::{Moment, Uid},
    },
};
use crate::store::StoreError;

mod functions {
    use super::*;
    use diesel::define_sql_function;

    define_sql_function!(fn greenroom_announce_1(boot: Uid, queues: Array<Text>) -> Nullable<Bool>);
    define_sql_function!(fn greenroom_announced_1() -> Nullable<Array<Text>>);
}
use functions::*;

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

#[derive(diesel::QueryableByName)]
struct Ready {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Moment)]
    since: Micros,
}

/// Keeps what a node has.
pub(super) async fn announce(
    conn: &mut AsyncPgConnection,
    boot: Uuid,
    queues: &[String],
) -> Result<(), StoreError> {
    let call = diesel::select(greenroom_announce_1(Id(boot), queues));
    call.get_result::<Option<bool>>(conn).await.map(drop).map_err(|e| error::of_commit(&e))
}

/// What the living nodes have, where all of them say.
pub(super) async fn announced(conn: &mut AsyncPgConnection) -> Result<Option<Vec<String>>, StoreError> {
    diesel::select(greenroom_announced_1()).get_result(conn).await.map_err(sql)
}

/// The queues with ready tasks.
pub(super) async fn ready(conn: &mut AsyncPgConnection) -> Result<Vec<(String, Timestamp)>, StoreError> {
    let call = diesel::sql_query("SELECT name, since FROM greenroom_ready_queues_1()");
    let rows: Vec<Ready> = call.load(conn).await.map_err(sql)?;
    Ok(rows.into_iter().map(|row| (row.name, moment(row.since))).collect())
}
