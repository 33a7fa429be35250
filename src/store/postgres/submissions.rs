//! Units that only submit tasks without prerequisites.

use diesel::QueryResult;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{
    call::{CommitCall, SubmitCall},
    commit::{Said, Why},
};
use crate::store::Unit;

/// Commits what such units submit, in one statement. It may begin at once where it is submitted alone.
pub(super) async fn submit(
    conn: &mut AsyncPgConnection,
    tasks: CommitCall<'_>,
    units: &[Unit],
) -> QueryResult<Said> {
    let begin = |n: &i32| {
        let unit = usize::try_from(*n).ok().and_then(|n| units.get(n));
        unit.is_some_and(|unit| unit.begin && unit.accepted.len() == 1)
    };
    let call = SubmitCall { begin: tasks.n_unit.iter().map(begin).collect(), tasks };
    let rows: Vec<(i32, Option<i64>, Option<i64>)> = RunQueryDsl::load(call, conn).await?;
    let mut said = Said::default();
    for (n, seq, claim) in rows {
        let Ok(n) = usize::try_from(n) else { continue };
        match seq.zip(claim) {
            Some((seq, claim)) => said.begun.push((n, seq, claim)),
            None => said.refused.push((n, Why::Known)),
        }
    }
    Ok(said)
}
