//! Deletes expired rows, a bounded number per call.

use jiff::Timestamp;

use super::{state::State, task::Task};
use crate::{
    model::task::TaskState,
    store::{Forgotten, Past},
};

/// How much one call forgets, of each kind.
const DELETE_BATCH: usize = 500;
/// How many messages of deleted conversations one call forgets.
const MESSAGES_AT_ONCE: usize = 5_000;

impl State {
    /// Forgets expired keys, and tasks, batches and boots that ended before, and old crash groups.
    pub(super) fn clean(&mut self, past: Past) -> u64 {
        let (now, before) = (self.now, past.ended);
        let keys = self.keys.some(DELETE_BATCH, |key| key.expires_at <= now);
        keys.iter().for_each(|key| drop(self.keys.remove(key)));
        let kept_from = |task: &Task| if task.state == TaskState::Failed { past.failed } else { past.ended };
        let is_past = |task: &Task| task.finished_at.is_some_and(|at| at < kept_from(task));
        let tasks = self.archive.some(DELETE_BATCH, is_past);
        for id in &tasks {
            self.archive.remove(id);
            self.events.remove(id);
            self.written.remove(id);
        }
        let batches = self.batches.some(DELETE_BATCH, |batch| batch.open == 0 && batch.created_at < before);
        batches.iter().for_each(|id| drop(self.batches.remove(id)));
        let boots = self.boots.len();
        self.boots.retain(|boot| boot.ended_at.is_none_or(|at| at >= before));
        let crashes = self.clean_crashes(before);
        (keys.len() + tasks.len() + batches.len() + boots - self.boots.len() + crashes) as u64
    }

    /// Forgets expired sessions, conversations that nobody has used since, and messages of deleted ones.
    pub(super) fn forget(&mut self, idle_since: Option<Timestamp>) -> Forgotten {
        let now = self.now;
        let sessions = self.sessions.some(DELETE_BATCH, |session| !session.is_live(now));
        sessions.iter().for_each(|id| drop(self.sessions.remove(id)));
        let idle = |at| self.talks.some(DELETE_BATCH, |t| !t.deleted && t.conversation.updated_at < at);
        let conversations = idle_since.map(idle).unwrap_or_default();
        conversations.iter().for_each(|id| self.delete_conversation(*id));
        let messages = self.forget_messages();
        Forgotten { rows: (sessions.len() + conversations.len() + messages) as u64, conversations }
    }

    fn forget_messages(&mut self) -> usize {
        let (mut left, mut gone) = (MESSAGES_AT_ONCE, 0);
        for id in self.talks.some(DELETE_BATCH, |talk| talk.deleted) {
            let said = self.messages.range((id, i64::MIN)..=(id, i64::MAX)).take(left);
            let said: Vec<_> = said.map(|(place, message)| (*place, message.id)).collect();
            for (place, message) in &said {
                self.messages.remove(place);
                self.places.remove(message);
            }
            (gone, left) = (gone + said.len(), left - said.len());
            if left == 0 {
                break;
            }
            self.talks.remove(&id);
            gone += 1;
        }
        gone
    }
}
