//! Conversations and their messages: create, list, append, delete.

use serde_json::value::RawValue;

use super::{Operator, OperatorError, Result, invalid, not_found, page_limit};
use crate::{
    agent::{
        AskError,
        letter::Key,
        reference::{check_key_text, request_hash},
    },
    clock,
    model::{
        conversation::{
            Conversation, ConversationId, ConversationWrite, MessageId, NewConversation, NewMessage,
            StoredMessage, check_role,
        },
        id::scope_of,
    },
    runtime::{
        keeper::Written,
        keys,
        settle::later,
        views::{ConversationRequest, MessageRequest, Page},
    },
    store::{ConversationFilter, KeyRow, KeyWrite, MessagePage, Unit},
};

/// Which page of a listing.
#[derive(Debug, Clone, Default)]
pub struct PageQuery {
    /// The cursor of the previous page.
    pub cursor: Option<String>,
    /// 1 to 1,000; 100 when absent.
    pub limit: Option<usize>,
}

/// Which messages to list.
#[derive(Debug, Clone, Default)]
pub struct MessageQuery {
    /// From the first message forward, instead of from the last backward.
    pub oldest_first: bool,
    /// The place of the last one of the page before.
    pub cursor: Option<String>,
    /// 1 to 1,000; 100 when absent.
    pub limit: Option<usize>,
}

fn unknown(id: ConversationId) -> OperatorError {
    not_found(format!("there is no conversation {id}"))
}

impl Operator {
    /// One page of conversations, newest first.
    ///
    /// # Errors
    /// An invalid cursor or limit.
    pub async fn conversations(&self, query: &PageQuery) -> Result<Page<Conversation>> {
        let limit = page_limit(query.limit)?;
        let before = query.cursor.as_ref().map(|c| c.parse()).transpose();
        let before = before.map_err(|_| foreign_cursor())?;
        let items = self.node.store.conversation_page(&ConversationFilter { before, limit }).await?;
        let next_cursor = items.last().filter(|_| items.len() == limit).map(|c| c.id.to_string());
        Ok(Page { items, next_cursor })
    }

    /// Makes a conversation. `true`: the idempotency key had been used, and this is the first one.
    ///
    /// # Errors
    /// See [`OperatorError`]; nothing was made.
    pub async fn create_conversation(
        &self,
        request: ConversationRequest,
        key: Option<&str>,
    ) -> Result<(Conversation, bool)> {
        let body = serde_json::to_string(&request).unwrap_or_default();
        let id = ConversationId::fresh();
        let new =
            NewConversation { id, title: request.title, metadata: request.metadata.unwrap_or_default() };
        new.check().map_err(|e| invalid("", e.to_string()))?;
        let unit = Unit { conversations: vec![ConversationWrite::Create(new)], ..Unit::default() };
        let key =
            key.map(|text| Keyed { scope: scope_of("conversations"), text, what: "create", body: &body });
        let (id, replayed) = self.commit_keyed(id.0, unit, key).await?;
        Ok((self.conversation(ConversationId(id)).await?, replayed))
    }

    /// One conversation.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn conversation(&self, id: ConversationId) -> Result<Conversation> {
        let found = self.node.keeper.conversation(id).await.map_err(AskError::widen)?;
        found.ok_or_else(|| unknown(id))
    }

    /// Deletes a conversation with its messages.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn delete_conversation(&self, id: ConversationId) -> Result<()> {
        if self.node.keeper.stored_conversation(id).await.map_err(AskError::widen)?.is_none() {
            return Err(unknown(id));
        }
        let unit = Unit { conversations: vec![ConversationWrite::Delete(id)], ..Unit::default() };
        self.node.commit_outside(id.0, unit).await.map_err(AskError::widen)?;
        Ok(())
    }

    /// One page of messages: from the last back, or from the first on. A cursor is a place: who has read up
    /// to one comes back with it for what was said since.
    ///
    /// # Errors
    /// [`AskError::NotFound`]; an invalid cursor or limit.
    pub async fn messages(&self, id: ConversationId, query: &MessageQuery) -> Result<Page<StoredMessage>> {
        let limit = page_limit(query.limit)?;
        let cursor: Option<i64> =
            query.cursor.as_ref().map(|c| c.parse()).transpose().map_err(|_| foreign_cursor())?;
        let keeper = &self.node.keeper;
        let conversation = self.conversation(id).await?;
        let items = match (query.oldest_first, cursor) {
            (false, None) => keeper.recent(id, limit).await.map(|mut newest| {
                newest.reverse();
                newest
            }),
            (false, before) => keeper.page(id, MessagePage::Back { before, limit }).await,
            (true, after) => keeper.page(id, MessagePage::Forth { after: after.unwrap_or(0), limit }).await,
        };
        let items = items.map_err(AskError::widen)?;
        // A page may end for its bytes: that there are more shows in the places.
        let more = items.last().is_some_and(|last| {
            if query.oldest_first { last.seq < conversation.last_seq } else { last.seq > 1 }
        });
        let next_cursor = items.last().filter(|_| more).map(|last| last.seq.to_string());
        Ok(Page { items, next_cursor })
    }

    /// Appends a message. `true`: the idempotency key had been used, and this is the first one.
    ///
    /// # Errors
    /// See [`OperatorError`]; nothing was appended.
    pub async fn append(
        &self,
        conversation: ConversationId,
        request: MessageRequest,
        key: Option<&str>,
    ) -> Result<(StoredMessage, bool)> {
        check_role(&request.role).map_err(|e| invalid("/role", e.to_string()))?;
        let limit = self.node.settings.load().limits.message_bytes;
        if request.content.get().len() as u64 > limit {
            let why = format!("the content is over limits.message_bytes ({limit})");
            return Err(AskError::TooLarge(why).into());
        }
        let body = format!("{} {}", request.role, request.content.get());
        let id = MessageId::fresh();
        let message = NewMessage { id, conversation, role: request.role, content: request.content };
        let unit = Unit { messages: vec![message], ..Unit::default() };
        let key = key.map(|text| Keyed { scope: conversation.0, text, what: "append", body: &body });
        let (id, replayed) = self.commit_keyed(id.0, unit, key).await?;
        let id = MessageId(id);
        let stored = self.node.store.messages(&[id]).await?.pop().flatten();
        Ok((stored.ok_or_else(|| unknown(conversation))?, replayed))
    }

    /// Commits what makes `id`, once for each key: the id that the first one made.
    async fn commit_keyed(
        &self,
        id: uuid::Uuid,
        mut unit: Unit,
        keyed: Option<Keyed<'_>>,
    ) -> Result<(uuid::Uuid, bool)> {
        let by = unit.messages.first().map_or(id, |m| m.conversation.0);
        let key = match keyed {
            None => None,
            Some(keyed) => {
                check_key_text(keyed.text).map_err(AskError::widen)?;
                let key = Key { request: request_hash(keyed.what, keyed.body), text: keyed.text.to_owned() };
                if let Some(row) = self.node.store.key(keyed.scope, &key.text).await? {
                    return first(&row, &key);
                }
                let reply = serde_json::to_vec(&id).unwrap_or_default();
                unit.keys.push(KeyWrite {
                    scope: keyed.scope,
                    key: key.text.clone(),
                    request: key.request,
                    task: None,
                    reply: Some(keys::write(&Ok(reply))),
                    expires_at: later(clock::now(), self.node.settings.load().limits.idempotency_ttl),
                });
                Some(key)
            }
        };
        match (self.node.commit_outside(by, unit).await.map_err(AskError::widen)?, key) {
            (Written::KeyTaken(row), Some(key)) => first(&row, &key),
            _ => Ok((id, false)),
        }
    }
}

/// An idempotency key with the hash of its request.
struct Keyed<'a> {
    scope: uuid::Uuid,
    text: &'a str,
    what: &'a str,
    body: &'a str,
}

/// The id that the first request under a key created.
fn first(row: &KeyRow, key: &Key) -> Result<(uuid::Uuid, bool)> {
    if row.request != key.request {
        return Err(AskError::Conflict.into());
    }
    let reply: Box<RawValue> = keys::read(row.reply.as_deref(), row.task)?;
    let id = serde_json::from_str(reply.get()).map_err(|_| AskError::Conflict)?;
    Ok((id, true))
}

pub(super) fn foreign_cursor() -> OperatorError {
    OperatorError::Malformed("`cursor` is not one of ours".to_owned())
}
