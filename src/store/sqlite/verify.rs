//! Verification: reads everything and checks that it is intact.

use diesel::prelude::*;

use super::error;
use crate::store::{
    StoreError, VerifyReport,
    schema::{
        greenroom_agents, greenroom_counts, greenroom_snapshots, greenroom_task_archive, greenroom_tasks,
    },
    verify::{Finding, SeenAgent, SeenSnapshot, SeenTask, StateReader},
};

#[derive(QueryableByName)]
struct Integrity {
    #[diesel(sql_type = diesel::sql_types::Text)]
    integrity_check: String,
}

/// Reads everything, as it stood at one moment.
pub(super) fn verify<'r>(
    conn: &mut SqliteConnection,
    reader: &'r mut StateReader<'r>,
) -> Result<VerifyReport, StoreError> {
    let finding = Finding::new(reader);
    conn.transaction(|conn| read(conn, finding)).map_err(|e| error::of_statement(&e))
}

fn read(conn: &mut SqliteConnection, mut finding: Finding<'_>) -> QueryResult<VerifyReport> {
    for row in diesel::sql_query("PRAGMA integrity_check(20)").load::<Integrity>(conn)? {
        if row.integrity_check != "ok" {
            finding.problem(|| format!("the file: {}", row.integrity_check));
        }
    }
    {
        use greenroom_agents::dsl;
        let all = dsl::greenroom_agents.select((
            dsl::id,
            dsl::kind,
            dsl::key,
            dsl::status,
            dsl::epoch,
            dsl::version,
            dsl::state,
        ));
        for row in all.load_iter::<SeenAgent, _>(conn)? {
            finding.agent(row?);
        }
    }
    {
        use greenroom_agents::dsl as a;
        use greenroom_snapshots::dsl;
        let named = dsl::greenroom_snapshots.left_join(a::greenroom_agents.on(a::id.eq(dsl::agent)));
        let name = (a::kind, a::key).nullable();
        let all = named.select((dsl::agent, dsl::epoch, dsl::version, dsl::state, name));
        for row in all.load_iter::<SeenSnapshot, _>(conn)? {
            finding.snapshot(row?);
        }
    }
    {
        use greenroom_tasks::dsl;
        let all = dsl::greenroom_tasks.select((dsl::id, dsl::state, dsl::input));
        for row in all.load_iter(conn)? {
            let (id, state, input) = row?;
            finding.task(true, (id, state, input, None));
        }
    }
    {
        use greenroom_task_archive::dsl;
        let all = dsl::greenroom_task_archive.select((dsl::id, dsl::state, dsl::input, dsl::result));
        for row in all.load_iter::<SeenTask, _>(conn)? {
            finding.task(false, row?);
        }
    }
    use greenroom_counts::dsl;
    let kept: Vec<(i16, i64)> = dsl::greenroom_counts.select((dsl::id, dsl::n)).load(conn)?;
    let mut report = finding.compared(&kept);
    super::forget::verify(conn)?.enter(&mut report);
    report.extend(super::crashes::verify(conn)?);
    report.extend(super::schedules::verify(conn)?);
    report.extend(super::tokens::verify(conn)?);
    report.extend(super::acts::verify(conn)?);
    Ok(report)
}
