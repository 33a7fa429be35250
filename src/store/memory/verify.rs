//! Verification: reads everything and checks that it is intact.

use super::state::State;
use crate::store::{
    AgentRow, StoredStatus, VerifyReport,
    talk_check::TalkFindings,
    values::Id,
    verify::{Finding, StateReader},
};

/// Reads everything. The counters are what is counted, so that they cannot be wrong.
pub(super) fn verify<'r>(state: &State, reader: &'r mut StateReader<'r>) -> VerifyReport {
    let mut finding = Finding::new(reader);
    for (id, agent) in state.agents.iter() {
        let row = &agent.row;
        let (kind, key, status) = (row.kind.clone(), row.key.clone(), row.status as i16);
        finding.agent((Id(id.0), kind, key, status, row.epoch, row.version, agent.state.to_vec()));
    }
    for ((id, version), earlier) in state.earlier.iter() {
        let name = state.agents.get(id).map(|agent| (agent.row.kind.clone(), agent.row.key.clone()));
        finding.snapshot((Id(id.0), earlier.epoch, *version, earlier.state.to_vec(), name));
    }
    for (hot, table) in [(true, &state.hot), (false, &state.archive)] {
        for (id, task) in table.iter() {
            let bytes = |json: &serde_json::value::RawValue| json.get().as_bytes().to_vec();
            let result = task.result.as_deref().map(bytes);
            finding.task(hot, (Id(id.0), task.state as i16, bytes(&task.new.input), result));
        }
    }
    let counts = state.counts();
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let tasks = counts.tasks.into_iter().map(|(state, n)| (state as i16, count(n)));
    let agents = counts.agents.into_iter().map(|(status, n)| (100 + status as i16, count(n)));
    let gone = |row: &AgentRow| row.status == StoredStatus::Deleted;
    let gone = state.agents.iter().filter(|(_, agent)| gone(&agent.row)).count() as u64;
    let deleted = (100 + StoredStatus::Deleted as i16, count(gone));
    let mut report = finding.compared(&tasks.chain(agents).chain([deleted]).collect::<Vec<_>>());
    verify_talks(state).enter(&mut report);
    report
}

fn verify_talks(state: &State) -> TalkFindings {
    let mut findings = TalkFindings::default();
    for (id, talk) in state.talks.iter() {
        let metadata = serde_json::to_vec(&talk.conversation.metadata).unwrap_or_default();
        findings.conversation((Id(id.0), talk.conversation.last_seq, talk.deleted, metadata));
    }
    for ((conversation, seq), message) in state.messages.iter() {
        let content = message.content.get().as_bytes().to_vec();
        findings.message((Id(conversation.0), *seq, Id(message.id.0), content));
    }
    for (id, session) in state.sessions.iter() {
        findings.session((id.clone(), session.data.get().as_bytes().to_vec()));
    }
    for ((topic, agent), subscriber) in state.subscriptions.iter() {
        let (kind, key) = (subscriber.kind.to_string(), subscriber.key.to_string());
        findings.subscription((topic.to_string(), Id(agent.0), kind, key));
    }
    findings
}
