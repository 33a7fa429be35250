//! What verification of a store finds, whatever the database.

use super::{VerifyReport, rows::state_of, values::Id};
use crate::model::{id::AgentId, snapshot, task::TaskState};

/// Past so many problems the report only says that there are more.
const MAX_PROBLEMS: usize = 100;

/// What has been found so far.
#[derive(Default)]
pub(super) struct Finding {
    report: VerifyReport,
    statuses: [i64; 4],
    states: [i64; TaskState::ALL.len()],
}

/// An agent's row: id, kind, key, status, epoch, version, state.
pub(super) type SeenAgent = (Id, String, String, i16, i64, i64, Vec<u8>);
/// A kept state: agent, epoch, version, state.
pub(super) type SeenSnapshot = (Id, i64, i64, Vec<u8>);
/// A task, hot or ended: id, state, input, result.
pub(super) type SeenTask = (Id, i16, Vec<u8>, Option<Vec<u8>>);

impl Finding {
    pub(super) fn problem(&mut self, text: impl FnOnce() -> String) {
        match self.report.problems.len() {
            n if n < MAX_PROBLEMS => self.report.problems.push(text()),
            MAX_PROBLEMS => self.report.problems.push("… and more".to_owned()),
            _ => {}
        }
    }

    pub(super) fn agent(&mut self, (id, kind, key, status, epoch, version, state): SeenAgent) {
        self.report.agents += 1;
        match usize::try_from(status).ok().and_then(|s| self.statuses.get_mut(s)) {
            Some(n) => *n += 1,
            None => self.problem(|| format!("agent {kind}/{key}: {status} is no status")),
        }
        if AgentId::of(&kind, &key).0 != id.0 {
            self.problem(|| format!("agent {kind}/{key}: its id is {}", id.0));
        }
        if version > 0 {
            self.frame(id, epoch, version, state);
        }
    }

    pub(super) fn snapshot(&mut self, (id, epoch, version, state): SeenSnapshot) {
        self.report.snapshots += 1;
        self.frame(id, epoch, version, state);
    }

    pub(super) fn task(&mut self, hot: bool, (id, state, input, result): SeenTask) {
        self.report.tasks += 1;
        match state_of(state) {
            Ok(state) if state.is_final() != hot => {
                let at = TaskState::ALL.iter().position(|s| *s == state);
                if let Some(n) = at.and_then(|at| self.states.get_mut(at)) {
                    *n += 1;
                }
            }
            _ => self.problem(|| format!("task {}: {state} is no state for where it stands", id.0)),
        }
        self.json(id, "input", &input);
        if let Some(result) = result {
            self.json(id, "result", &result);
        }
    }

    fn frame(&mut self, id: Id, epoch: i64, version: i64, bytes: Vec<u8>) {
        let opened = snapshot::open(&snapshot::unpack(bytes))
            .and_then(|(header, _)| header.matches(AgentId(id.0), epoch, version));
        if let Err(e) = opened {
            self.problem(|| format!("agent {}, version {version}: {e}", id.0));
        }
    }

    fn json(&mut self, id: Id, what: &str, bytes: &[u8]) {
        if let Err(e) = serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
            self.problem(|| format!("task {}: its {what} is not JSON: {e}", id.0));
        }
    }

    /// Compares with the counters, and ends.
    pub(super) fn compared(mut self, kept: &[(i16, i64)]) -> VerifyReport {
        let states = TaskState::ALL.iter().map(|s| *s as i16).zip(self.states);
        let counted: Vec<(i16, i64)> = states.chain((100..).zip(self.statuses)).collect();
        for (id, found) in counted {
            let kept = kept.iter().find(|(k, _)| *k == id).map(|(_, n)| *n);
            if kept != Some(found) {
                self.problem(|| format!("counter {id} says {kept:?}, and there are {found}"));
            }
        }
        self.report
    }
}
