//! Verification: reads everything and checks that it is intact.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::TryStreamExt as _;

use super::{acts, crashes, entities, error, read, schedules, tokens};
use crate::store::{
    StoreError, VerifyReport,
    schema::{greenroom_agents, greenroom_snapshots, greenroom_task_archive, greenroom_tasks},
    verify::{Finding, SeenAgent, SeenSnapshot, SeenTask, StateReader},
};

/// Reads everything, as it stood at one moment.
pub(super) async fn verify<'r>(
    conn: &mut AsyncPgConnection,
    reader: &'r mut StateReader<'r>,
) -> Result<VerifyReport, StoreError> {
    let finding = Finding::new(reader);
    conn.build_transaction()
        .read_only()
        .repeatable_read()
        .run(async move |conn| read(conn, finding).await)
        .await
        .map_err(|e| error::of_statement(&e))
}

async fn read(conn: &mut AsyncPgConnection, mut finding: Finding<'_>) -> QueryResult<VerifyReport> {
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
        let mut rows = RunQueryDsl::load_stream::<SeenAgent>(all, conn).await?;
        while let Some(row) = rows.try_next().await? {
            finding.agent(row);
        }
    }
    {
        use greenroom_agents::dsl as a;
        use greenroom_snapshots::dsl;
        let named = dsl::greenroom_snapshots.left_join(a::greenroom_agents.on(a::id.eq(dsl::agent)));
        let name = (a::kind, a::key).nullable();
        let all = named.select((dsl::agent, dsl::epoch, dsl::version, dsl::state, name));
        let mut rows = RunQueryDsl::load_stream::<SeenSnapshot>(all, conn).await?;
        while let Some(row) = rows.try_next().await? {
            finding.snapshot(row);
        }
    }
    {
        use greenroom_tasks::dsl;
        let all = dsl::greenroom_tasks.select((dsl::id, dsl::state, dsl::input));
        let mut rows = RunQueryDsl::load_stream(all, conn).await?;
        while let Some((id, state, input)) = rows.try_next().await? {
            finding.task(true, (id, state, input, None));
        }
    }
    {
        use greenroom_task_archive::dsl;
        let all = dsl::greenroom_task_archive.select((dsl::id, dsl::state, dsl::input, dsl::result));
        let mut rows = RunQueryDsl::load_stream::<SeenTask>(all, conn).await?;
        while let Some(row) = rows.try_next().await? {
            finding.task(false, row);
        }
    }
    let mut report = finding.compared(&read::stored_counts(conn).await?);
    entities::verify(conn).await?.enter(&mut report);
    report.extend(crashes::verify(conn).await?);
    report.extend(schedules::verify(conn).await?);
    report.extend(tokens::verify(conn).await?);
    report.extend(acts::verify(conn).await?);
    Ok(report)
}
