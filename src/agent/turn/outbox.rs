//! The outputs of a turn, and their limits.

use uuid::Uuid;

use super::Alarm;
use crate::{
    agent::letter::Key,
    model::{
        conversation::{ConversationId, ConversationWrite, NewConversation, NewMessage},
        id::TaskId,
        session::{SessionChange, SessionWrite},
        task::{NewBatch, NewTask, TaskOptions},
        topic::SubscriptionWrite,
    },
};

/// At most so many tasks may leave one turn, one by one; at most so many messages may be appended by it.
const MAX_SINGLES: usize = 1_000;
/// At most so many bytes of inputs may leave one turn one by one; at most so many of contents, if it
/// appends more than one message.
const MAX_OUTBOX_BYTES: usize = 4 << 20;

/// An idempotency key that a task is submitted under, which settles with the commit.
pub(crate) struct TaskKey {
    /// Its target's.
    pub scope: Uuid,
    pub key: Key,
    pub task: TaskId,
}

/// What leaves with the commit.
#[derive(Default)]
pub(crate) struct Outbox {
    pub tells: Vec<Box<dyn FnOnce() + Send>>,
    /// Changes of the agent's timers.
    pub alarms: Vec<Alarm>,
    pub tasks: Vec<NewTask>,
    pub batches: Vec<NewBatch>,
    /// Of `tasks`, those under keys that have not been looked at, with what was chosen for them.
    pub keyed: Vec<(TaskId, TaskOptions)>,
    /// Keys of `tasks` that stood for nothing when they were looked at.
    pub keys: Vec<TaskKey>,
    pub conversations: Vec<ConversationWrite>,
    pub messages: Vec<NewMessage>,
    pub sessions: Vec<SessionWrite>,
    pub subscriptions: Vec<SubscriptionWrite>,
    pub bytes: usize,
    /// Of `tasks`, those that came one by one, and their bytes.
    singles: (usize, usize),
    /// The bytes of `messages`.
    said: usize,
    pub retire: bool,
    /// Why the turn must fail although its handler answered.
    pub fault: Option<String>,
}

impl Outbox {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.sends_nothing() && self.alarms.is_empty()
    }

    /// Whether all that it may hold are changes of timers.
    pub(crate) fn sends_nothing(&self) -> bool {
        !self.has_records() && self.tells.is_empty() && !self.retire && self.fault.is_none()
    }

    /// What leaves without the store, when the commit is durable.
    pub(crate) fn released(&mut self) -> Vec<Box<dyn FnOnce() + Send>> {
        let mut tells = std::mem::take(&mut self.tells);
        let alarms = std::mem::take(&mut self.alarms);
        tells.extend(alarms.into_iter().map(|alarm| Box::new(move || alarm(false)) as Box<_>));
        tells
    }

    /// Whether anything in it is written to the store.
    pub(crate) fn has_records(&self) -> bool {
        let tasks = !(self.tasks.is_empty() && self.batches.is_empty());
        let entities =
            !(self.conversations.is_empty() && self.messages.is_empty() && self.sessions.is_empty());
        tasks || entities || !self.subscriptions.is_empty()
    }

    /// Takes in what a later turn of the same commit leaves.
    pub(crate) fn append(&mut self, mut later: Outbox) {
        self.tells.append(&mut later.tells);
        self.alarms.append(&mut later.alarms);
        self.tasks.append(&mut later.tasks);
        self.batches.append(&mut later.batches);
        self.keys.append(&mut later.keys);
        self.messages.append(&mut later.messages);
        // What is written below counts already.
        let bytes = self.bytes + later.bytes;
        later.conversations.into_iter().for_each(|write| self.write_conversation(write));
        later.sessions.into_iter().for_each(|write| self.write_session(&write.id, write.change));
        later.subscriptions.into_iter().for_each(|write| self.write_subscription(write));
        self.bytes = bytes;
        self.retire |= later.retire;
    }

    pub(super) fn push(&mut self, task: NewTask, single: bool) {
        let bytes = task.input.get().len();
        self.bytes += bytes;
        if single {
            self.singles.0 += 1;
            self.singles.1 += bytes;
            if self.singles.0 > MAX_SINGLES || self.singles.1 > MAX_OUTBOX_BYTES {
                self.refuse(
                    "a turn may submit 1,000 tasks or 4 MiB one by one: use `submit_all`, or split the work",
                );
            }
        }
        self.tasks.push(task);
    }

    /// A task is submitted under a key; the last word counts.
    pub(super) fn keep_key(&mut self, task: TaskId, options: TaskOptions) {
        match self.keyed.iter_mut().rev().find(|(id, _)| *id == task) {
            Some((_, known)) => *known = options,
            None => self.keyed.push((task, options)),
        }
    }

    pub(super) fn say(&mut self, message: NewMessage) {
        let bytes = message.content.get().len();
        self.bytes += bytes;
        self.said += bytes;
        self.messages.push(message);
        let many = self.messages.len() > 1;
        if self.messages.len() > MAX_SINGLES || (many && self.said > MAX_OUTBOX_BYTES) {
            self.refuse("a turn may append 1,000 messages, or 4 MiB if they are several: split the work");
        }
    }

    /// A conversation is made once, and deleted once, in one commit.
    pub(super) fn write_conversation(&mut self, write: ConversationWrite) {
        let same = |known: &ConversationWrite| {
            known.id() == write.id() && std::mem::discriminant(known) == std::mem::discriminant(&write)
        };
        if self.conversations.iter().any(same) {
            return;
        }
        self.conversations.push(write);
        if self.conversations.len() > MAX_SINGLES {
            self.refuse("a turn may make and delete 1,000 conversations: split the work");
        }
    }

    pub(super) fn open(&mut self, new: NewConversation) {
        self.write_conversation(ConversationWrite::Create(new));
    }

    /// Changes a conversation that is to be made.
    pub(super) fn reopen(&mut self, id: ConversationId, f: impl FnOnce(&mut NewConversation)) {
        let made = self.conversations.iter_mut().find_map(|write| match write {
            ConversationWrite::Create(new) if new.id == id => Some(new),
            _ => None,
        });
        let Some(new) = made else { return };
        f(new);
        if let Err(e) = new.check() {
            self.refuse(format!("cannot make conversation {id}: {e}"));
        }
    }

    /// Whether it makes a conversation.
    pub(super) fn opens(&self, id: ConversationId) -> bool {
        self.conversations.iter().any(|w| matches!(w, ConversationWrite::Create(new) if new.id == id))
    }

    pub(super) fn session(&self, id: &str) -> Option<&SessionChange> {
        self.sessions.iter().find(|w| w.id == id).map(|w| &w.change)
    }

    pub(super) fn session_mut(&mut self, id: &str) -> Option<&mut SessionChange> {
        self.sessions.iter_mut().find(|w| w.id == id).map(|w| &mut w.change)
    }

    /// A session is written once in one commit: the last change counts.
    pub(super) fn write_session(&mut self, id: &str, change: SessionChange) {
        if let SessionChange::Put { data, .. } = &change {
            self.bytes += data.get().len();
        }
        match self.session_mut(id) {
            Some(known) => {
                let earlier = std::mem::replace(known, SessionChange::Touch);
                *known = earlier.then(change);
            }
            None => {
                self.sessions.push(SessionWrite { id: id.to_owned(), change });
                if self.sessions.len() > MAX_SINGLES {
                    self.refuse("a turn may write 1,000 sessions: split the work");
                }
            }
        }
    }

    /// A subscription is written once in one commit: the last word counts.
    pub(super) fn write_subscription(&mut self, write: SubscriptionWrite) {
        let SubscriptionWrite { topic, subscriber, .. } = &write;
        self.bytes += topic.len() + subscriber.key.len() + subscriber.message.len();
        let same = |known: &&mut SubscriptionWrite| {
            known.topic == write.topic && known.subscriber.agent == write.subscriber.agent
        };
        if let Some(known) = self.subscriptions.iter_mut().find(same) {
            *known = write;
            return;
        }
        self.subscriptions.push(write);
        if self.subscriptions.len() > MAX_SINGLES {
            self.refuse("a turn may begin and end 1,000 subscriptions and bonds: split the work");
        }
    }

    pub(super) fn refuse(&mut self, why: impl Into<String>) {
        self.fault.get_or_insert_with(|| why.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{id::AgentId, session::Expect, topic::Subscriber};

    fn outbox(topics: usize) -> Outbox {
        let mut outbox = Outbox::default();
        for n in 0..topics {
            let (agent, key, message) = (AgentId::of("desk", "k"), "k".into(), "Price".into());
            let subscriber = Subscriber { agent, kind: "desk".into(), key, message };
            let topic = format!("{n:0100}").into();
            outbox.write_subscription(SubscriptionWrite { topic, subscriber, subscribed: true });
        }
        let data = serde_json::value::to_raw_value(&"x".repeat(98)).unwrap().into();
        let (version, ttl) = (uuid::Uuid::nil(), std::time::Duration::from_secs(60));
        outbox.write_session("s", SessionChange::Put { version, data, ttl, expect: Expect::Any });
        outbox
    }

    #[test]
    fn subscriptions_and_sessions_count_and_do_so_once() {
        let one = outbox(1).bytes;
        assert_eq!(one, 106 + 100);
        let mut window = outbox(1);
        window.append(outbox(3));
        window.append(outbox(2));
        assert_eq!(window.bytes, 6 * 106 + 3 * 100);
    }
}
