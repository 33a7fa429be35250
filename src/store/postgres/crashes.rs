//! Crash groups. What their merge does stands beside its function, in `migrations/postgres`.

use diesel::{
    pg::Pg,
    prelude::*,
    sql_types::{Array, BigInt, Binary, Integer, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use jiff::Timestamp;

use super::{
    error,
    values::{
        Id, Micros, micros,
        types::{Moment, Uid},
    },
};
use crate::{
    model::crash_group::CrashGroup,
    store::{
        MAX_CRASH_GROUPS, StoreError,
        crashes::{count_of, crash_reads, report_of, unreadable},
        schema::greenroom_crashes,
    },
};

#[expect(clippy::too_many_arguments, reason = "one array for each column")]
mod functions {
    use super::*;
    use diesel::define_sql_function;

    define_sql_function!(fn greenroom_note_crashes_1(id: Array<Uid>, kind: Array<Text>, place: Array<Text>, first_at: Array<Moment>, last_at: Array<Moment>, count: Array<BigInt>, crash: Array<Text>, report: Array<Binary>, backtrace: Array<Nullable<Binary>>) -> BigInt);
    define_sql_function!(fn greenroom_clean_crashes_1(before: Moment, keep: Integer) -> BigInt);
}
use functions::*;

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

crash_reads!(AsyncPgConnection, Pg, [async], [.await]);

/// Merges groups into those that are there.
pub(super) async fn note(conn: &mut AsyncPgConnection, groups: &[CrashGroup]) -> Result<(), StoreError> {
    let reports = groups.iter().map(report_of).collect::<Result<Vec<_>, _>>()?;
    let moments = |of: fn(&CrashGroup) -> Timestamp| -> Vec<Micros> {
        groups.iter().map(|group| micros(of(group))).collect()
    };
    let call = greenroom_note_crashes_1(
        groups.iter().map(|group| Id(group.id)).collect::<Vec<_>>(),
        groups.iter().map(|group| group.site.kind.as_str()).collect::<Vec<_>>(),
        groups.iter().map(|group| group.site.place.as_str()).collect::<Vec<_>>(),
        moments(|group| group.first),
        moments(|group| group.last),
        groups.iter().map(count_of).collect::<Vec<_>>(),
        groups.iter().map(|group| group.report.id.as_str()).collect::<Vec<_>>(),
        reports,
        groups.iter().map(|group| group.backtrace.as_ref().map(String::as_bytes)).collect::<Vec<_>>(),
    );
    diesel::select(call).get_result::<i64>(conn).await.map(drop).map_err(|e| error::of_commit(&e))
}

/// Forgets groups without a crash since, and the longest quiet of those beyond the bound.
pub(super) async fn clean(conn: &mut AsyncPgConnection, before: Timestamp) -> Result<i64, StoreError> {
    let keep = i32::try_from(MAX_CRASH_GROUPS).unwrap_or(i32::MAX);
    let call = diesel::select(greenroom_clean_crashes_1(micros(before), keep));
    call.get_result(conn).await.map_err(|e| error::of_commit(&e))
}

/// Reads all of them: what is wrong, a line each.
pub(super) async fn verify(conn: &mut AsyncPgConnection) -> QueryResult<Vec<String>> {
    use greenroom_crashes::dsl;
    let rows = dsl::greenroom_crashes.select((dsl::id, dsl::report)).load(conn).await?;
    Ok(unreadable(rows))
}
