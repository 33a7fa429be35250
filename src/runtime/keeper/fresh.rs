//! Committed documents that are not in the cache yet.
//!
//! A writer marks a document here before the commit is acknowledged; the cache actor writes it to the cache and
//! removes the mark. Meanwhile readers go to the store, so a client sees what was acknowledged to it.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::{
    model::conversation::{ConversationId, ConversationWrite, MessageId},
    store::{Unit, Verdict},
};

/// Of one conversation at most so many messages are remembered; past that its list is dropped.
const MAX_MESSAGES: usize = 128;
/// At most so many conversations and so many sessions are brought into the cache at once.
const REFILL_BATCH: usize = 64;

/// The marks.
#[derive(Default)]
pub(super) struct Fresh(Mutex<Marks>);

#[derive(Default)]
struct Marks {
    conversations: HashMap<ConversationId, Mark>,
    /// With the number of the last mark.
    sessions: HashMap<String, u64>,
    last: u64,
}

#[derive(Default)]
struct Mark {
    messages: Vec<MessageId>,
    /// The list in the cache is not to be added to, but dropped.
    drop: bool,
    number: u64,
}

/// What is to be brought into the cache.
#[derive(Default)]
pub(super) struct Batch {
    pub conversations: Vec<ConversationId>,
    pub sessions: Vec<String>,
    pub messages: Vec<MessageId>,
    /// Of these conversations the list is dropped.
    pub drop: Vec<ConversationId>,
    numbers: Vec<u64>,
}

impl Fresh {
    /// Marks what durable units did; `true`: there was something.
    pub(super) fn mark(&self, units: &[Unit], verdicts: &[Verdict]) -> bool {
        let durable = units.iter().zip(verdicts).filter(|(_, v)| matches!(v, Verdict::Durable));
        let mut talk = durable.map(|(unit, _)| unit).filter(|unit| unit.has_entities()).peekable();
        if talk.peek().is_none() {
            return false;
        }
        let mut marks = self.0.lock();
        marks.last += 1;
        let number = marks.last;
        for unit in talk {
            for write in &unit.conversations {
                let mark = marks.conversations.entry(write.id()).or_default();
                mark.number = number;
                mark.drop |= matches!(write, ConversationWrite::Delete(_));
            }
            for message in &unit.messages {
                let mark = marks.conversations.entry(message.conversation).or_default();
                mark.number = number;
                if mark.drop || mark.messages.len() >= MAX_MESSAGES {
                    (mark.drop, mark.messages) = (true, Vec::new());
                } else {
                    mark.messages.push(message.id);
                }
            }
            for write in &unit.sessions {
                marks.sessions.insert(write.id.clone(), number);
            }
        }
        true
    }

    /// Whether the cache is behind with a conversation.
    pub(super) fn has_conversation(&self, id: ConversationId) -> bool {
        self.0.lock().conversations.contains_key(&id)
    }

    /// Whether the cache is behind with a session.
    pub(super) fn has_session(&self, id: &str) -> bool {
        self.0.lock().sessions.contains_key(id)
    }

    /// Takes some of what is to be done; the marks stay until [`Fresh::done`].
    pub(super) fn take(&self) -> Option<Batch> {
        let mut marks = self.0.lock();
        let mut batch = Batch::default();
        for (id, mark) in marks.conversations.iter_mut().take(REFILL_BATCH) {
            batch.conversations.push(*id);
            batch.numbers.push(mark.number);
            batch.messages.append(&mut mark.messages);
            if std::mem::take(&mut mark.drop) {
                batch.drop.push(*id);
            }
        }
        for (id, number) in marks.sessions.iter().take(REFILL_BATCH) {
            batch.sessions.push(id.clone());
            batch.numbers.push(*number);
        }
        (!batch.numbers.is_empty()).then_some(batch)
    }

    /// Takes the marks away of what nobody has changed meanwhile.
    pub(super) fn done(&self, batch: &Batch) {
        let mut marks = self.0.lock();
        let (conversations, sessions) = batch.numbers.split_at(batch.conversations.len());
        for (id, number) in batch.conversations.iter().zip(conversations) {
            if marks.conversations.get(id).is_some_and(|mark| mark.number == *number) {
                marks.conversations.remove(id);
            }
        }
        for (id, number) in batch.sessions.iter().zip(sessions) {
            if marks.sessions.get(id) == Some(number) {
                marks.sessions.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        conversation::NewMessage,
        session::{SessionChange, SessionWrite},
    };

    fn saying(conversation: ConversationId, n: usize) -> Unit {
        let content = serde_json::value::RawValue::from_string("1".into()).unwrap();
        let say = || NewMessage {
            id: MessageId::fresh(),
            conversation,
            role: "user".into(),
            content: content.clone(),
        };
        Unit { messages: (0..n).map(|_| say()).collect(), ..Unit::default() }
    }

    #[test]
    fn a_mark_stays_until_what_came_last_is_done() {
        let (fresh, a) = (Fresh::default(), ConversationId::fresh());
        let touch = SessionWrite { id: "s".into(), change: SessionChange::Touch };
        let unit = Unit { sessions: vec![touch], ..saying(a, 2) };
        assert!(fresh.mark(std::slice::from_ref(&unit), &[Verdict::Durable]));
        let first = fresh.take().unwrap();
        assert_eq!((first.messages.len(), first.sessions.len()), (2, 1));
        assert!(fresh.has_conversation(a) && fresh.has_session("s"));
        fresh.mark(&[saying(a, 1)], &[Verdict::Durable]);
        fresh.done(&first);
        assert!(fresh.has_conversation(a) && !fresh.has_session("s"));
        let second = fresh.take().unwrap();
        assert_eq!(second.messages.len(), 1, "what was taken is not taken again");
        fresh.done(&second);
        assert!(!fresh.has_conversation(a) && fresh.take().is_none());
    }

    #[test]
    fn what_was_refused_leaves_no_mark() {
        let fresh = Fresh::default();
        let refused = Verdict::Refused(crate::store::Refusal::Fenced);
        assert!(!fresh.mark(&[saying(ConversationId::fresh(), 1)], &[refused]));
        assert!(!fresh.mark(&[Unit::default()], &[Verdict::Durable]));
        assert!(fresh.take().is_none());
    }

    #[test]
    fn of_too_much_the_list_is_dropped() {
        let (fresh, a, b) = (Fresh::default(), ConversationId::fresh(), ConversationId::fresh());
        let delete = Unit { conversations: vec![ConversationWrite::Delete(b)], ..Unit::default() };
        fresh.mark(&[saying(a, MAX_MESSAGES + 5), delete], &[Verdict::Durable, Verdict::Durable]);
        let batch = fresh.take().unwrap();
        assert_eq!(batch.messages, []);
        let mut dropped = batch.drop.clone();
        dropped.sort();
        assert_eq!(dropped, [a, b]);
    }
}
