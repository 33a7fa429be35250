//! What verification finds about conversations, messages, sessions and subscriptions, whatever the database.

use std::collections::HashMap;

use serde::de::IgnoredAny;

use super::{VerifyReport, values::Id};
use crate::model::id::AgentId;

/// What has been found so far.
#[derive(Default)]
pub(super) struct TalkFindings {
    conversations: HashMap<Id, Seen>,
    found: VerifyReport,
}

/// A conversation, and the last of its messages that was read.
struct Seen {
    last_seq: i64,
    deleted: bool,
    read: i64,
}

impl TalkFindings {
    /// A conversation's row: id, last place, whether it is deleted, metadata.
    pub(super) fn conversation(&mut self, (id, last_seq, deleted, metadata): (Id, i64, bool, Vec<u8>)) {
        self.conversations.insert(id, Seen { last_seq, deleted, read: 0 });
        if serde_json::from_slice::<HashMap<String, IgnoredAny>>(&metadata).is_err() {
            self.found.problem(|| format!("conversation {}: its metadata is no JSON object", id.0));
        }
    }

    /// A message's row: conversation, place, id, content. They come by conversation and place.
    pub(super) fn message(&mut self, (conversation, seq, id, content): (Id, i64, Id, Vec<u8>)) {
        self.found.messages += 1;
        if serde_json::from_slice::<IgnoredAny>(&content).is_err() {
            self.found.problem(|| format!("message {}: its content is not JSON", id.0));
        }
        let Some(seen) = self.conversations.get_mut(&conversation) else {
            return self.found.problem(|| format!("message {} is in no conversation", id.0));
        };
        // those of a deleted one go from the first on
        if !seen.deleted && seq != seen.read + 1 {
            let (conversation, read) = (conversation.0, seen.read);
            self.found.problem(|| format!("conversation {conversation}: after message {read} comes {seq}"));
        }
        seen.read = seq;
    }

    /// A session's row: id, data.
    pub(super) fn session(&mut self, (id, data): (String, Vec<u8>)) {
        self.found.sessions += 1;
        if serde_json::from_slice::<IgnoredAny>(&data).is_err() {
            self.found.problem(|| format!("session `{id}`: its data is not JSON"));
        }
    }

    /// A subscription's row: topic, agent, its kind, its key.
    pub(super) fn subscription(&mut self, (topic, agent, kind, key): (String, Id, String, String)) {
        self.found.subscriptions += 1;
        if AgentId::of(&kind, &key).0 != agent.0 {
            let wrong = || format!("subscription of {kind}/{key} to `{topic}`: its agent is {}", agent.0);
            self.found.problem(wrong);
        }
    }

    /// Enters it all into the report.
    pub(super) fn enter(mut self, report: &mut VerifyReport) {
        report.conversations = self.conversations.values().filter(|seen| !seen.deleted).count() as u64;
        for (id, seen) in self.conversations.iter().filter(|(_, s)| !s.deleted && s.read != s.last_seq) {
            let (says, read) = (seen.last_seq, seen.read);
            self.found
                .problem(|| format!("conversation {}: its last message should be {says}, is {read}", id.0));
        }
        let VerifyReport { messages, sessions, subscriptions, problems, .. } = self.found;
        (report.messages, report.sessions, report.subscriptions) = (messages, sessions, subscriptions);
        report.extend(problems);
    }
}
