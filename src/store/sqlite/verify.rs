//! Reading everything, to say whether it is as it was written.

use diesel::prelude::*;

use super::{error, rows::state_of, values::Id};
use crate::{
    model::{id::AgentId, snapshot, task::TaskState},
    store::{
        StoreError, VerifyReport,
        schema::{
            greenroom_agents, greenroom_counts, greenroom_snapshots, greenroom_task_archive, greenroom_tasks,
        },
    },
};

/// Past so many problems the report only says that there are more.
const MAX_PROBLEMS: usize = 100;

#[derive(QueryableByName)]
struct Integrity {
    #[diesel(sql_type = diesel::sql_types::Text)]
    integrity_check: String,
}

struct Finding {
    report: VerifyReport,
}

impl Finding {
    fn problem(&mut self, text: impl FnOnce() -> String) {
        match self.report.problems.len() {
            n if n < MAX_PROBLEMS => self.report.problems.push(text()),
            MAX_PROBLEMS => self.report.problems.push("… and more".to_owned()),
            _ => {}
        }
    }

    fn frame(&mut self, id: Id, epoch: i64, version: i64, bytes: &[u8]) {
        let opened =
            snapshot::open(bytes).and_then(|(header, _)| header.matches(AgentId(id.0), epoch, version));
        if let Err(e) = opened {
            self.problem(|| format!("agent {}, version {version}: {e}", id.0));
        }
    }

    fn json(&mut self, id: Id, what: &str, bytes: &[u8]) {
        if let Err(e) = serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
            self.problem(|| format!("task {}: its {what} is not JSON: {e}", id.0));
        }
    }
}

/// Reads everything, as it stood at one moment.
pub(super) fn verify(conn: &mut SqliteConnection) -> Result<VerifyReport, StoreError> {
    conn.transaction(read).map_err(|e| error::of_statement(&e))
}

fn read(conn: &mut SqliteConnection) -> QueryResult<VerifyReport> {
    let mut finding = Finding { report: VerifyReport::default() };
    for row in diesel::sql_query("PRAGMA integrity_check(20)").load::<Integrity>(conn)? {
        if row.integrity_check != "ok" {
            finding.problem(|| format!("the file: {}", row.integrity_check));
        }
    }
    let mut statuses = [0_i64; 4];
    {
        use greenroom_agents::dsl;
        let rows = dsl::greenroom_agents
            .select((dsl::id, dsl::kind, dsl::key, dsl::status, dsl::epoch, dsl::version, dsl::state))
            .load_iter::<(Id, String, String, i16, i64, i64, Vec<u8>), _>(conn)?;
        for row in rows {
            let (id, kind, key, status, epoch, version, state) = row?;
            finding.report.agents += 1;
            match usize::try_from(status).ok().and_then(|s| statuses.get_mut(s)) {
                Some(n) => *n += 1,
                None => finding.problem(|| format!("agent {kind}/{key}: {status} is no status")),
            }
            if AgentId::of(&kind, &key).0 != id.0 {
                finding.problem(|| format!("agent {kind}/{key}: its id is {}", id.0));
            }
            if version > 0 {
                finding.frame(id, epoch, version, &state);
            }
        }
    }
    {
        use greenroom_snapshots::dsl;
        let rows = dsl::greenroom_snapshots
            .select((dsl::agent, dsl::epoch, dsl::version, dsl::state))
            .load_iter::<(Id, i64, i64, Vec<u8>), _>(conn)?;
        for row in rows {
            let (id, epoch, version, state) = row?;
            finding.report.snapshots += 1;
            finding.frame(id, epoch, version, &state);
        }
    }
    let mut states = [0_i64; TaskState::ALL.len()];
    let mut tally = |finding: &mut Finding, id: Id, state: i16, hot: bool| {
        finding.report.tasks += 1;
        match state_of(state) {
            Ok(state) if state.is_final() != hot => {
                let at = TaskState::ALL.iter().position(|s| *s == state);
                if let Some(n) = at.and_then(|at| states.get_mut(at)) {
                    *n += 1;
                }
            }
            _ => finding.problem(|| format!("task {}: {state} is no state for where it stands", id.0)),
        }
    };
    {
        use greenroom_tasks::dsl;
        let rows = dsl::greenroom_tasks
            .select((dsl::id, dsl::state, dsl::input))
            .load_iter::<(Id, i16, Vec<u8>), _>(conn)?;
        for row in rows {
            let (id, state, input) = row?;
            tally(&mut finding, id, state, true);
            finding.json(id, "input", &input);
        }
    }
    {
        use greenroom_task_archive::dsl;
        let rows = dsl::greenroom_task_archive
            .select((dsl::id, dsl::state, dsl::input, dsl::result))
            .load_iter::<(Id, i16, Vec<u8>, Option<Vec<u8>>), _>(conn)?;
        for row in rows {
            let (id, state, input, result) = row?;
            tally(&mut finding, id, state, false);
            finding.json(id, "input", &input);
            if let Some(result) = result {
                finding.json(id, "result", &result);
            }
        }
    }
    let counted = TaskState::ALL.iter().map(|s| *s as i16).zip(states).chain((100..).zip(statuses));
    for (id, found) in counted {
        use greenroom_counts::dsl;
        let kept = dsl::greenroom_counts.find(id).select(dsl::n).first::<i64>(conn).optional()?;
        if kept != Some(found) {
            finding.problem(|| format!("counter {id} says {kept:?}, and there are {found}"));
        }
    }
    super::forget::audit(conn)?.enter(&mut finding.report);
    Ok(finding.report)
}
