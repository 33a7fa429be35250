//! The findings of a verification of the store, whatever the database.

use super::{VerifyReport, rows::state_of, values::Id};
use crate::model::{id::AgentId, snapshot, task::TaskState};

/// Past so many problems the report only says that there are more.
const MAX_PROBLEMS: usize = 100;

impl VerifyReport {
    /// Enters a problem, if it is one of the first.
    pub(super) fn problem(&mut self, text: impl FnOnce() -> String) {
        match self.problems.len() {
            n if n < MAX_PROBLEMS => self.problems.push(text()),
            MAX_PROBLEMS => self.problems.push("… and more".to_owned()),
            _ => {}
        }
    }

    /// Enters more of them.
    pub(super) fn extend(&mut self, problems: Vec<String>) {
        problems.into_iter().for_each(|problem| self.problem(|| problem));
    }
}

/// A sound stored state, as it is shown to whoever can read it.
#[derive(Debug, Clone, Copy)]
pub struct SeenState<'a> {
    /// Whose.
    pub id: AgentId,
    /// Its kind.
    pub kind: &'a str,
    /// Its key.
    pub key: &'a str,
    /// The epoch under which it was written.
    pub epoch: i64,
    /// Which state of the agent's it is.
    pub version: i64,
    /// The schema version of the state.
    pub schema_version: u32,
    /// Whether it is the agent's present state; else it is kept of an earlier one.
    pub is_current: bool,
    /// The framed snapshot.
    pub bytes: &'a [u8],
}

/// Is shown each sound state that a verification meets.
pub type StateReader<'a> = dyn FnMut(SeenState<'_>) + Send + 'a;

/// What has been found so far.
pub(super) struct Finding<'r> {
    report: VerifyReport,
    reader: &'r mut StateReader<'r>,
    statuses: [i64; 5],
    states: [i64; TaskState::ALL.len()],
}

/// An agent's row: id, kind, key, status, epoch, version, state.
pub(super) type SeenAgent = (Id, String, String, i16, i64, i64, Vec<u8>);
/// A kept state: agent, epoch, version, state, and the agent's kind and key where it is known.
pub(super) type SeenSnapshot = (Id, i64, i64, Vec<u8>, Option<(String, String)>);
/// A task, hot or ended: id, state, input, result.
pub(super) type SeenTask = (Id, i16, Vec<u8>, Option<Vec<u8>>);

impl<'r> Finding<'r> {
    pub(super) fn new(reader: &'r mut StateReader<'r>) -> Self {
        Self { report: VerifyReport::default(), reader, statuses: [0; 5], states: [0; TaskState::ALL.len()] }
    }

    pub(super) fn problem(&mut self, text: impl FnOnce() -> String) {
        self.report.problem(text);
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
            self.frame(id, (epoch, version), state, Some((&kind, &key)), true);
        }
    }

    pub(super) fn snapshot(&mut self, (id, epoch, version, state, name): SeenSnapshot) {
        self.report.snapshots += 1;
        let name = name.as_ref().map(|(kind, key)| (&**kind, &**key));
        self.frame(id, (epoch, version), state, name, false);
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

    fn frame(
        &mut self,
        id: Id,
        (epoch, version): (i64, i64),
        bytes: Vec<u8>,
        name: Option<(&str, &str)>,
        is_current: bool,
    ) {
        let (bytes, id) = (snapshot::unpack(bytes), AgentId(id.0));
        let opened = snapshot::open(&bytes)
            .and_then(|(header, _)| header.matches(id, epoch, version).map(|()| header.schema_version));
        match (opened, name) {
            (Err(e), _) => self.problem(|| format!("agent {}, version {version}: {e}", id.0)),
            // What stands for a deleted agent has no content to read.
            (Ok(_), Some(_)) if bytes.len() == snapshot::HEADER_BYTES => {}
            (Ok(schema_version), Some((kind, key))) => {
                let bytes = &bytes;
                (self.reader)(SeenState { id, kind, key, epoch, version, schema_version, is_current, bytes });
            }
            (Ok(_), None) => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_bounded_whoever_enters_problems() {
        let mut report = VerifyReport::default();
        report.extend((0..60).map(|n| n.to_string()).collect());
        (0..60).for_each(|n| report.problem(|| n.to_string()));
        report.extend(vec!["last".to_owned()]);
        assert_eq!(report.problems.len(), MAX_PROBLEMS + 1);
        assert_eq!((&*report.problems[0], &*report.problems[MAX_PROBLEMS]), ("0", "… and more"));
    }
}
