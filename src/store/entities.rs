//! Conversations, messages and sessions: reads, once for every database.
//!
//! They are written by [`Unit`](super::Unit)s, as everything else. The semantics that every store keeps:
//!
//! - Within a unit: conversations are made, then messages appended, then conversations deleted, then
//!   sessions written.
//! - **Making** one whose id is taken, deleted or not, changes nothing. **Deleting** hides it at once and
//!   for good; its messages are forgotten later, a bounded number at a time ([`Entities::forget`]).
//! - **Appending** to one that is not there refuses the unit ([`super::Refusal::ConversationUnknown`]).
//!   The n-th new message of a unit for a conversation gets `last_seq + n`; the conversation's row then has
//!   the new `last_seq`, `version + 1` and the moment of the commit. A message whose id is known is left
//!   out, so that a unit sent again changes nothing.
//! - A **session** that has expired is not there. A write is judged by [`Expect`](crate::model::session::Expect)
//!   against the version that is stored, else the unit is refused ([`super::Refusal::SessionMoved`]).
//!   `revision` rises with each write and touch; of a session that is made anew it begins at the
//!   microseconds since 1970, so that it is above that of any earlier session under this key.
//! - What a session expects is judged after the unit's idempotency keys: where those are its own of an
//!   earlier try, it is durable.

use std::time::Duration;

use async_trait::async_trait;
use diesel::prelude::*;
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{
    StoreError,
    schema::{greenroom_conversations, greenroom_messages, greenroom_sessions},
    values::{Id, Micros, moment},
};
use crate::model::{
    conversation::{Conversation, ConversationId, MessageId, StoredMessage},
    session::Session,
};

/// Which conversations to list. Pages go by id, newest first.
#[derive(Debug, Clone, Default)]
pub struct ConversationFilter {
    /// Older than this one.
    pub before: Option<ConversationId>,
    /// At most so many; 1 to 1,000.
    pub limit: usize,
}

/// Which messages of a conversation to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessagePage {
    /// The newest before this place, newest first; from the last one where it is `None`.
    Back {
        /// Not this one, but those before it.
        before: Option<i64>,
        /// At most so many; 1 to 1,000.
        limit: usize,
    },
    /// Those that come after this place (0: from the first), oldest first.
    Forth {
        /// Not this one, but those after it.
        after: i64,
        /// At most so many; 1 to 1,000.
        limit: usize,
    },
}

/// What a call of [`Entities::forget`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many rows went or changed; 0: there is nothing more to do.
    pub rows: u64,
    /// The conversations that it deleted.
    pub conversations: Vec<ConversationId>,
}

/// How many bytes of content a page of messages has at most, unless one message alone has more.
pub const MAX_PAGE_BYTES: usize = 8 << 20;

diesel::define_sql_function! {
    /// How many bytes there are; the databases know it without reading them.
    fn length(bytes: diesel::sql_types::Binary) -> diesel::sql_types::Integer;
}

/// Of these messages (place, bytes), in the order in which they are wanted, the first and the last place
/// of those that one page holds.
pub(super) fn one_page(sizes: &[(i64, i32)]) -> Option<(i64, i64)> {
    let first = sizes.first()?.0;
    let (mut last, mut bytes) = (first, 0_usize);
    for (seq, size) in sizes {
        bytes = bytes.saturating_add(usize::try_from(*size).unwrap_or(0));
        if bytes > MAX_PAGE_BYTES && *seq != first {
            break;
        }
        last = *seq;
    }
    Some((first.min(last), first.max(last)))
}

/// The part of a store that keeps conversations, messages and sessions: reads, and forgetting.
#[async_trait]
pub trait Entities {
    /// Conversations by id, in the order asked for.
    async fn conversations(&self, ids: &[ConversationId]) -> Result<Vec<Option<Conversation>>, StoreError>;

    /// One page of conversations.
    async fn conversation_page(&self, filter: &ConversationFilter) -> Result<Vec<Conversation>, StoreError>;

    /// Messages by id, in the order asked for; those of a conversation that was deleted are not there.
    async fn messages(&self, ids: &[MessageId]) -> Result<Vec<Option<StoredMessage>>, StoreError>;

    /// One page of a conversation's messages; none where it is not there. It ends before its limit where
    /// it would be over [`MAX_PAGE_BYTES`], but not before it has one.
    async fn message_page(
        &self,
        conversation: ConversationId,
        page: MessagePage,
    ) -> Result<Vec<StoredMessage>, StoreError>;

    /// Sessions that have not expired, in the order asked for.
    async fn sessions(&self, ids: &[String]) -> Result<Vec<Option<Session>>, StoreError>;

    /// Forgets expired sessions, deletes conversations that nobody has added to since `idle_since`, and
    /// forgets messages of deleted ones, a bounded number a call.
    async fn forget(&self, now: Timestamp, idle_since: Option<Timestamp>) -> Result<Forgotten, StoreError>;
}

/// A conversation's row.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = greenroom_conversations)]
pub(super) struct ConversationRow {
    pub(super) id: Id,
    title: Option<String>,
    metadata: Vec<u8>,
    last_seq: i64,
    version: i64,
    created_at: Micros,
    updated_at: Micros,
}

impl ConversationRow {
    pub(super) fn into_model(self) -> Result<Conversation, StoreError> {
        let metadata = serde_json::from_slice(&self.metadata)
            .map_err(|e| StoreError::Corrupt(format!("the metadata of conversation {}: {e}", self.id.0)))?;
        Ok(Conversation {
            id: ConversationId(self.id.0),
            title: self.title,
            metadata,
            last_seq: self.last_seq,
            version: self.version,
            created_at: moment(self.created_at),
            updated_at: moment(self.updated_at),
        })
    }
}

/// A message's row.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = greenroom_messages)]
pub(super) struct MessageRow {
    pub(super) id: Id,
    conversation: Id,
    seq: i64,
    role: String,
    created_at: Micros,
    content: Vec<u8>,
}

impl MessageRow {
    pub(super) fn into_model(self) -> Result<StoredMessage, StoreError> {
        Ok(StoredMessage {
            id: MessageId(self.id.0),
            conversation: ConversationId(self.conversation.0),
            seq: self.seq,
            role: self.role,
            content: raw(self.content, || format!("message {}", self.id.0))?,
            created_at: moment(self.created_at),
        })
    }
}

/// A session's row.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = greenroom_sessions)]
pub(super) struct SessionRow {
    pub(super) id: String,
    version: Id,
    revision: i64,
    ttl_ms: i64,
    created_at: Micros,
    updated_at: Micros,
    expires_at: Micros,
    data: Vec<u8>,
}

impl SessionRow {
    pub(super) fn into_model(self) -> Result<Session, StoreError> {
        let data = raw(self.data, || format!("session `{}`", self.id))?;
        Ok(Session {
            id: self.id,
            version: self.version.0,
            data: data.into(),
            ttl: Duration::from_millis(u64::try_from(self.ttl_ms).unwrap_or(0)),
            created_at: moment(self.created_at),
            updated_at: moment(self.updated_at),
            expires_at: moment(self.expires_at),
            revision: self.revision,
        })
    }
}

fn raw(bytes: Vec<u8>, what: impl Fn() -> String) -> Result<Box<RawValue>, StoreError> {
    String::from_utf8(bytes)
        .map_err(|e| e.to_string())
        .and_then(|text| RawValue::from_string(text).map_err(|e| e.to_string()))
        .map_err(|e| StoreError::Corrupt(format!("{}: {e}", what())))
}

/// Puts what was found into the order in which it was asked for.
pub(super) fn in_order<K: PartialEq, T: Clone>(asked: &[K], found: &[(K, T)]) -> Vec<Option<T>> {
    asked.iter().map(|id| found.iter().find(|(of, _)| of == id).map(|(_, one)| one.clone())).collect()
}

/// Writes the reads for one connection: synchronous ones, or (`[async], [.await]`) asynchronous ones. The
/// module that calls it gives `sql`, which turns diesel's errors into the store's.
macro_rules! entity_reads {
    ($conn:ty, $db:ty, [$($async:tt)*], [$($wait:tt)*]) => {
        use crate::{
            model::{
                conversation::{Conversation, ConversationId, MessageId, StoredMessage},
                session::Session,
            },
            store::{
                ConversationFilter, MessagePage, StoreError,
                entities::{ConversationRow, MessageRow, SessionRow, in_order, length, one_page},
                schema::{greenroom_conversations, greenroom_messages, greenroom_sessions},
                values::{Id, Micros},
            },
        };

        fn page(limit: usize) -> i64 {
            i64::try_from(limit.clamp(1, 1_000)).unwrap_or(1)
        }

        /// Conversations by id, in the order asked for.
        pub(super) $($async)* fn conversations(
            conn: &mut $conn,
            ids: &[ConversationId],
        ) -> Result<Vec<Option<Conversation>>, StoreError> {
            use greenroom_conversations::dsl;
            let all = dsl::greenroom_conversations
                .filter(diesel::dsl::not(dsl::deleted))
                .select(ConversationRow::as_select());
            // one has a statement that stays prepared
            let rows: Vec<ConversationRow> = match ids {
                [] => return Ok(Vec::new()),
                [one] => all.filter(dsl::id.eq(Id(one.0))).load(conn)$($wait)*.map_err(sql)?,
                many => {
                    let ids: Vec<Id> = many.iter().map(|id| Id(id.0)).collect();
                    all.filter(dsl::id.eq_any(ids)).load(conn)$($wait)*.map_err(sql)?
                }
            };
            let found: Result<Vec<_>, StoreError> =
                rows.into_iter().map(|row| Ok((ConversationId(row.id.0), row.into_model()?))).collect();
            Ok(in_order(ids, &found?))
        }

        /// One page of conversations, newest first.
        pub(super) $($async)* fn conversation_page(
            conn: &mut $conn,
            filter: &ConversationFilter,
        ) -> Result<Vec<Conversation>, StoreError> {
            use greenroom_conversations::dsl;
            let mut query = dsl::greenroom_conversations
                .filter(diesel::dsl::not(dsl::deleted))
                .select(ConversationRow::as_select())
                .into_boxed::<$db>();
            if let Some(before) = filter.before {
                query = query.filter(dsl::id.lt(Id(before.0)));
            }
            let rows: Vec<ConversationRow> =
                query.order(dsl::id.desc()).limit(page(filter.limit)).load(conn)$($wait)*.map_err(sql)?;
            rows.into_iter().map(ConversationRow::into_model).collect()
        }

        /// Messages by id, in the order asked for.
        pub(super) $($async)* fn messages(
            conn: &mut $conn,
            ids: &[MessageId],
        ) -> Result<Vec<Option<StoredMessage>>, StoreError> {
            use greenroom_conversations::dsl as c;
            use greenroom_messages::dsl;
            let all = dsl::greenroom_messages
                .inner_join(c::greenroom_conversations.on(c::id.eq(dsl::conversation)))
                .filter(diesel::dsl::not(c::deleted))
                .select(MessageRow::as_select());
            let rows: Vec<MessageRow> = match ids {
                [] => return Ok(Vec::new()),
                [one] => all.filter(dsl::id.eq(Id(one.0))).load(conn)$($wait)*.map_err(sql)?,
                many => {
                    let ids: Vec<Id> = many.iter().map(|id| Id(id.0)).collect();
                    all.filter(dsl::id.eq_any(ids)).load(conn)$($wait)*.map_err(sql)?
                }
            };
            let found: Result<Vec<_>, StoreError> =
                rows.into_iter().map(|row| Ok((MessageId(row.id.0), row.into_model()?))).collect();
            Ok(in_order(ids, &found?))
        }

        /// One page of a conversation's messages.
        pub(super) $($async)* fn message_page(
            conn: &mut $conn,
            conversation: ConversationId,
            wanted: MessagePage,
        ) -> Result<Vec<StoredMessage>, StoreError> {
            use greenroom_conversations::dsl as c;
            use greenroom_messages::dsl;
            let all = dsl::greenroom_messages
                .inner_join(c::greenroom_conversations.on(c::id.eq(dsl::conversation)))
                .filter(dsl::conversation.eq(Id(conversation.0)))
                .filter(diesel::dsl::not(c::deleted))
                .select(MessageRow::as_select());
            // first how large they are: a page has a bound in bytes
            let sizes = dsl::greenroom_messages
                .filter(dsl::conversation.eq(Id(conversation.0)))
                .select((dsl::seq, length(dsl::content)));
            let sizes: Vec<(i64, i32)> = match wanted {
                MessagePage::Back { before, limit } => sizes
                    .filter(dsl::seq.lt(before.unwrap_or(i64::MAX)))
                    .order(dsl::seq.desc())
                    .limit(page(limit))
                    .load(conn)$($wait)*
                    .map_err(sql)?,
                MessagePage::Forth { after, limit } => sizes
                    .filter(dsl::seq.gt(after))
                    .order(dsl::seq.asc())
                    .limit(page(limit))
                    .load(conn)$($wait)*
                    .map_err(sql)?,
            };
            let Some((from, to)) = one_page(&sizes) else { return Ok(Vec::new()) };
            let mut rows: Vec<MessageRow> = all
                .filter(dsl::seq.between(from, to))
                .order(dsl::seq.asc())
                .load(conn)$($wait)*
                .map_err(sql)?;
            if matches!(wanted, MessagePage::Back { .. }) {
                rows.reverse();
            }
            rows.into_iter().map(MessageRow::into_model).collect()
        }

        /// Sessions that live at `now`, in the order asked for.
        pub(super) $($async)* fn sessions(
            conn: &mut $conn,
            ids: &[String],
            now: Micros,
        ) -> Result<Vec<Option<Session>>, StoreError> {
            use greenroom_sessions::dsl;
            let all = dsl::greenroom_sessions
                .filter(dsl::expires_at.gt(now))
                .select(SessionRow::as_select());
            let rows: Vec<SessionRow> = match ids {
                [] => return Ok(Vec::new()),
                [one] => all.filter(dsl::id.eq(one)).load(conn)$($wait)*.map_err(sql)?,
                many => all.filter(dsl::id.eq_any(many)).load(conn)$($wait)*.map_err(sql)?,
            };
            let found: Result<Vec<_>, StoreError> =
                rows.into_iter().map(|row| Ok((row.id.clone(), row.into_model()?))).collect();
            Ok(in_order(ids, &found?))
        }
    };
}
pub(super) use entity_reads;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_bound_in_bytes_and_at_least_one_message() {
        let (small, large) = (1_000, 6 << 20);
        assert_eq!(one_page(&[]), None);
        assert_eq!(one_page(&[(9, small), (8, small), (7, small)]), Some((7, 9)));
        assert_eq!(one_page(&[(9, small), (8, large), (7, large), (6, small)]), Some((8, 9)));
        assert_eq!(one_page(&[(3, large * 2), (4, small)]), Some((3, 3)));
    }
}
