//! Conversations, messages and sessions, as [`crate::store::Entities`] says.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::state::{State, Talk};
use crate::{
    model::{
        conversation::{
            Conversation, ConversationId, ConversationWrite, MessageId, NewConversation, NewMessage,
            StoredMessage,
        },
        session::{Expect, Session, SessionChange, SessionWrite},
    },
    store::{
        ConversationFilter, MessagePage, Refusal, Unit,
        entities::one_page,
        read::MAX_PAGE,
        values::{later, micros, moment},
    },
};

impl State {
    /// Carries out what a unit does to conversations, messages and sessions.
    pub(super) fn entities(&mut self, unit: &Unit) -> Result<(), Refusal> {
        for write in &unit.conversations {
            if let ConversationWrite::Create(new) = write {
                self.make_conversation(new);
            }
        }
        self.append(&unit.messages)?;
        for write in &unit.conversations {
            if let ConversationWrite::Delete(id) = write {
                self.delete_conversation(*id);
            }
        }
        unit.sessions.iter().try_for_each(|write| self.write_session(write))
    }

    fn make_conversation(&mut self, new: &NewConversation) {
        if self.talks.has(&new.id) {
            return;
        }
        let conversation = Conversation {
            id: new.id,
            title: new.title.clone(),
            metadata: new.metadata.clone(),
            last_seq: 0,
            version: 1,
            created_at: self.now,
            updated_at: self.now,
        };
        self.talks.insert(new.id, Talk { conversation, deleted: false });
    }

    fn append(&mut self, messages: &[NewMessage]) -> Result<(), Refusal> {
        let (now, mut grown) = (self.now, BTreeSet::new());
        for new in messages {
            let id = new.conversation;
            let Some(talk) = self.talks.get_mut(&id).filter(|talk| !talk.deleted) else {
                return Err(Refusal::ConversationUnknown(id));
            };
            match self.places.get(&new.id) {
                Some((there, _)) if *there == id => continue,
                Some(_) => {
                    return Err(Refusal::Bad(format!("message {} is in another conversation", new.id)));
                }
                None => {}
            }
            talk.conversation.last_seq += 1;
            talk.conversation.version += i64::from(grown.insert(id));
            talk.conversation.updated_at = now;
            let message = StoredMessage {
                id: new.id,
                conversation: id,
                seq: talk.conversation.last_seq,
                role: new.role.clone(),
                content: new.content.clone(),
                created_at: now,
            };
            self.places.insert(new.id, (id, message.seq));
            self.messages.insert((id, message.seq), message);
        }
        Ok(())
    }

    pub(super) fn delete_conversation(&mut self, id: ConversationId) {
        if let Some(talk) = self.talks.get_mut(&id).filter(|talk| !talk.deleted) {
            talk.deleted = true;
            talk.conversation.version += 1;
        }
    }

    /// Whether a message is known.
    pub(super) fn is_appended(&self, message: &NewMessage) -> bool {
        self.places.get(&message.id).is_some_and(|(conversation, _)| *conversation == message.conversation)
    }

    fn write_session(&mut self, write: &SessionWrite) -> Result<(), Refusal> {
        let now = self.now;
        let known = self.sessions.get(&write.id).cloned();
        let live = known.as_ref().filter(|session| session.is_live(now));
        let met = match write.change.condition() {
            Expect::Any => true,
            Expect::Absent => live.is_none(),
            Expect::Version(version) => live.is_some_and(|session| session.version == version),
        };
        if !met {
            return Err(Refusal::SessionMoved(write.id.clone()));
        }
        match &write.change {
            SessionChange::Put { version, data, ttl, .. } => {
                let session = Session {
                    id: write.id.clone(),
                    version: *version,
                    data: data.clone(),
                    ttl: *ttl,
                    created_at: live.map_or(now, |session| session.created_at),
                    updated_at: now,
                    expires_at: expiry(now, *ttl),
                    revision: match &known {
                        Some(known) => self.next_revision(known.revision),
                        None => self.fresh_revision(),
                    },
                };
                self.sessions.insert(write.id.clone(), session);
            }
            SessionChange::Touch => {
                if let Some(live) = live
                    && expiry(now, live.ttl) > live.expires_at
                {
                    let revision = self.next_revision(live.revision);
                    let used = Session { revision, expires_at: expiry(now, live.ttl), ..live.clone() };
                    self.sessions.insert(write.id.clone(), used);
                }
            }
            SessionChange::Remove { .. } => drop(self.sessions.remove(&write.id)),
        }
        Ok(())
    }

    pub(super) fn conversation(&self, id: ConversationId) -> Option<&Conversation> {
        self.talks.get(&id).filter(|talk| !talk.deleted).map(|talk| &talk.conversation)
    }

    pub(super) fn conversation_page(&self, filter: &ConversationFilter) -> Vec<Conversation> {
        let older = self.talks.before(filter.before.as_ref()).rev().map(|(_, talk)| talk);
        let there = older.filter(|talk| !talk.deleted).take(filter.limit.clamp(1, MAX_PAGE));
        there.map(|talk| talk.conversation.clone()).collect()
    }

    pub(super) fn message(&self, id: MessageId) -> Option<&StoredMessage> {
        let place = self.places.get(&id)?;
        self.conversation(place.0)?;
        self.messages.get(place)
    }

    pub(super) fn message_page(&self, id: ConversationId, page: MessagePage) -> Vec<StoredMessage> {
        if self.conversation(id).is_none() {
            return Vec::new();
        }
        let (MessagePage::Back { limit, .. } | MessagePage::Forth { limit, .. }) = page;
        let limit = limit.clamp(1, MAX_PAGE);
        let found: Vec<&StoredMessage> = match page {
            MessagePage::Back { before, .. } => {
                let older = self.messages.range((id, i64::MIN)..(id, before.unwrap_or(i64::MAX)));
                older.rev().take(limit).map(|(_, message)| message).collect()
            }
            MessagePage::Forth { after, .. } => {
                let newer = self.messages.range((id, after.saturating_add(1))..=(id, i64::MAX));
                newer.take(limit).map(|(_, message)| message).collect()
            }
        };
        let size = |message: &StoredMessage| i32::try_from(message.content.get().len()).unwrap_or(i32::MAX);
        let sizes: Vec<(i64, i32)> = found.iter().map(|message| (message.seq, size(message))).collect();
        let Some((from, to)) = one_page(&sizes) else { return Vec::new() };
        found.into_iter().filter(|message| (from..=to).contains(&message.seq)).cloned().collect()
    }

    /// A session that lives at `now`.
    pub(super) fn session(&self, id: &str, now: Timestamp) -> Option<&Session> {
        self.sessions.get(&id.to_owned()).filter(|session| session.is_live(now))
    }
}

/// When a session that is used now is forgotten.
fn expiry(now: Timestamp, ttl: std::time::Duration) -> Timestamp {
    moment(later(micros(now), i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)))
}
