//! Conversations, messages and sessions, as [`crate::store::Entities`] says.

use std::collections::{HashMap, hash_map::Entry};

use diesel::{
    prelude::*,
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Text},
    sqlite::Sqlite,
};

use super::{
    commit::Stop,
    error,
    tx::Tx,
    values::{
        day, hour, later,
        types::{Moment, Uid},
    },
};
use crate::{
    model::{
        conversation::{ConversationWrite, NewConversation, NewMessage},
        session::{Expect, SessionChange, SessionWrite},
    },
    store::{Refusal, Unit, entities::entity_reads},
};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

entity_reads!(SqliteConnection, Sqlite, [], []);

/// Where a conversation stands within a unit.
struct Place {
    last_seq: i64,
    used_on: i32,
    appended: i64,
}

/// What is known of a session that is stored, expired or not.
#[derive(Queryable)]
struct Known {
    version: Id,
    revision: i64,
    ttl_ms: i64,
    created_at: Micros,
    expires_at: Micros,
    expires_in: i32,
}

impl Tx<'_> {
    /// Carries out what a unit does to conversations, messages and sessions.
    pub(super) fn entities(&mut self, unit: &Unit) -> Result<(), Stop> {
        for write in &unit.conversations {
            if let ConversationWrite::Create(new) = write {
                self.make_conversation(new)?;
            }
        }
        if !unit.messages.is_empty() {
            self.append(&unit.messages)?;
        }
        for write in &unit.conversations {
            if let ConversationWrite::Delete(id) = write {
                self.delete_conversation(*id)?;
            }
        }
        unit.sessions.iter().try_for_each(|write| self.session(write))
    }

    fn make_conversation(&mut self, new: &NewConversation) -> Result<(), Stop> {
        use greenroom_conversations::dsl;
        let metadata = serde_json::to_vec(&new.metadata).map_err(|e| Refusal::Bad(e.to_string()))?;
        diesel::insert_into(dsl::greenroom_conversations)
            .values((
                dsl::id.eq(Id(new.id.0)),
                dsl::title.eq(new.title.as_deref().into_sql::<diesel::sql_types::Nullable<_>>()),
                dsl::metadata.eq(metadata),
                dsl::last_seq.eq(0),
                dsl::version.eq(1),
                dsl::created_at.eq(self.now),
                dsl::updated_at.eq(self.now),
                dsl::used_on.eq(day(self.now)),
                dsl::deleted.eq(false),
            ))
            .on_conflict_do_nothing()
            .execute(self.conn)?;
        Ok(())
    }

    /// `deleted` is no bound value: SQLite, which has partial indexes on it, would prepare the statement anew
    /// each time.
    fn place(&mut self, conversation: ConversationId) -> Result<Place, Stop> {
        use greenroom_conversations::dsl;
        let found = dsl::greenroom_conversations
            .filter(dsl::id.eq(Id(conversation.0)))
            .filter(diesel::dsl::not(dsl::deleted))
            .select((dsl::last_seq, dsl::used_on))
            .first::<(i64, i32)>(self.conn)
            .optional()?;
        match found {
            Some((last_seq, used_on)) => Ok(Place { last_seq, used_on, appended: 0 }),
            None => Err(Refusal::ConversationUnknown(conversation).into()),
        }
    }

    fn append(&mut self, messages: &[NewMessage]) -> Result<(), Stop> {
        use greenroom_messages::dsl;
        let mut places: HashMap<ConversationId, Place> = HashMap::new();
        for message in messages {
            let id = message.conversation;
            let place = match places.entry(id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.place(id)?),
            };
            let new = diesel::insert_into(dsl::greenroom_messages)
                .values((
                    dsl::conversation.eq(Id(id.0)),
                    dsl::seq.eq(place.last_seq + place.appended + 1),
                    dsl::id.eq(Id(message.id.0)),
                    dsl::role.eq(&message.role),
                    dsl::created_at.eq(self.now),
                    dsl::content.eq(message.content.get().as_bytes()),
                ))
                .on_conflict(dsl::id)
                .do_nothing()
                .execute(self.conn)?;
            if new == 1 {
                place.appended += 1;
            } else {
                self.is_of(message)?;
            }
        }
        for (id, place) in places.into_iter().filter(|(_, place)| place.appended > 0) {
            self.grow(id, &place)?;
        }
        Ok(())
    }

    /// A message whose id is known is this one, or somebody has made a mistake.
    fn is_of(&mut self, message: &NewMessage) -> Result<(), Stop> {
        use greenroom_messages::dsl;
        let row = dsl::greenroom_messages.filter(dsl::id.eq(Id(message.id.0))).select(dsl::conversation);
        if row.first::<Id>(self.conn)?.0 == message.conversation.0 {
            return Ok(());
        }
        Err(Refusal::Bad(format!("message {} is in another conversation", message.id)).into())
    }

    fn grow(&mut self, id: ConversationId, place: &Place) -> QueryResult<()> {
        use greenroom_conversations::dsl;
        let today = day(self.now);
        if place.used_on == today {
            let last_seq = place.last_seq + place.appended;
            Grown { id: Id(id.0), last_seq, updated_at: self.now }.execute(self.conn)?;
            return Ok(());
        }
        diesel::update(dsl::greenroom_conversations.filter(dsl::id.eq(Id(id.0))))
            .set((
                dsl::last_seq.eq(place.last_seq + place.appended),
                dsl::version.eq(dsl::version + 1),
                dsl::updated_at.eq(self.now),
                dsl::used_on.eq(today),
            ))
            .execute(self.conn)?;
        Ok(())
    }

    pub(super) fn delete_conversation(&mut self, id: ConversationId) -> QueryResult<()> {
        use greenroom_conversations::dsl;
        let row =
            dsl::greenroom_conversations.filter(dsl::id.eq(Id(id.0))).filter(diesel::dsl::not(dsl::deleted));
        diesel::update(row)
            .set((dsl::deleted.eq(true), dsl::version.eq(dsl::version + 1)))
            .execute(self.conn)?;
        Ok(())
    }

    fn session(&mut self, write: &SessionWrite) -> Result<(), Stop> {
        use greenroom_sessions::dsl;
        let id = write.id.as_str();
        let known: Option<Known> = dsl::greenroom_sessions
            .filter(dsl::id.eq(id))
            .select((
                dsl::version,
                dsl::revision,
                dsl::ttl_ms,
                dsl::created_at,
                dsl::expires_at,
                dsl::expires_in,
            ))
            .first(self.conn)
            .optional()?;
        let live = known.as_ref().filter(|k| k.expires_at > self.now);
        let met = match write.change.condition() {
            Expect::Any => true,
            Expect::Absent => live.is_none(),
            Expect::Version(version) => live.is_some_and(|k| k.version.0 == version),
        };
        if !met {
            return Err(Refusal::SessionMoved(write.id.clone()).into());
        }
        let row = dsl::greenroom_sessions.filter(dsl::id.eq(id));
        match &write.change {
            SessionChange::Put { version, data, ttl, .. } => {
                let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
                let expires_at = later(self.now, ttl_ms);
                let created_at = live.map_or(self.now, |k| k.created_at);
                let revision = known.as_ref().map_or(self.now.0, |k| k.revision + 1);
                let (version, expires_in) = (Id(*version), hour(expires_at));
                if known.as_ref().is_some_and(|k| k.expires_in == expires_in) {
                    let data = data.get().as_bytes();
                    let updated_at = self.now;
                    Rewritten { id, version, revision, ttl_ms, created_at, updated_at, expires_at, data }
                        .execute(self.conn)?;
                    return Ok(());
                }
                let values = (
                    dsl::version.eq(version),
                    dsl::revision.eq(revision),
                    dsl::ttl_ms.eq(ttl_ms),
                    dsl::created_at.eq(created_at),
                    dsl::updated_at.eq(self.now),
                    dsl::expires_at.eq(expires_at),
                    dsl::expires_in.eq(expires_in),
                    dsl::data.eq(data.get().as_bytes()),
                );
                match known {
                    None => diesel::insert_into(dsl::greenroom_sessions)
                        .values((dsl::id.eq(id), values))
                        .execute(self.conn)?,
                    Some(_) => diesel::update(row).set(values).execute(self.conn)?,
                };
            }
            SessionChange::Touch => {
                let Some(known) = live else { return Ok(()) };
                let expires_at = later(self.now, known.ttl_ms);
                if expires_at > known.expires_at {
                    let expires_in = hour(expires_at);
                    diesel::update(row)
                        .set((
                            dsl::revision.eq(known.revision + 1),
                            dsl::expires_at.eq(expires_at),
                            (known.expires_in != expires_in).then(|| dsl::expires_in.eq(expires_in)),
                        ))
                        .execute(self.conn)?;
                }
            }
            SessionChange::Remove { .. } => {
                diesel::delete(row).execute(self.conn)?;
            }
        }
        Ok(())
    }

    /// Whether a message is known.
    pub(super) fn is_appended(&mut self, message: &NewMessage) -> QueryResult<bool> {
        use greenroom_messages::dsl;
        let row = dsl::greenroom_messages
            .filter(dsl::id.eq(Id(message.id.0)))
            .filter(dsl::conversation.eq(Id(message.conversation.0)))
            .select(dsl::seq);
        Ok(row.first::<i64>(self.conn).optional()?.is_some())
    }
}

/// A conversation that was added to. By hand, as [`super::commit`]'s update of a state: prepared once. The
/// columns for retention are left out where they stay the same, since their index would be written anew.
struct Grown {
    id: Id,
    last_seq: i64,
    updated_at: Micros,
}

impl QueryId for Grown {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Sqlite> for Grown {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("UPDATE greenroom_conversations SET version = version + 1, last_seq = ");
        out.push_bind_param::<BigInt, _>(&self.last_seq)?;
        out.push_sql(", updated_at = ");
        out.push_bind_param::<Moment, _>(&self.updated_at)?;
        out.push_sql(" WHERE id = ");
        out.push_bind_param::<Uid, _>(&self.id)
    }
}

impl<C> RunQueryDsl<C> for Grown {}

/// A session that was written again.
struct Rewritten<'a> {
    id: &'a str,
    version: Id,
    revision: i64,
    ttl_ms: i64,
    created_at: Micros,
    updated_at: Micros,
    expires_at: Micros,
    data: &'a [u8],
}

impl QueryId for Rewritten<'_> {
    type QueryId = Rewritten<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Sqlite> for Rewritten<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("UPDATE greenroom_sessions SET version = ");
        out.push_bind_param::<Uid, _>(&self.version)?;
        out.push_sql(", revision = ");
        out.push_bind_param::<BigInt, _>(&self.revision)?;
        out.push_sql(", ttl_ms = ");
        out.push_bind_param::<BigInt, _>(&self.ttl_ms)?;
        out.push_sql(", created_at = ");
        out.push_bind_param::<Moment, _>(&self.created_at)?;
        out.push_sql(", updated_at = ");
        out.push_bind_param::<Moment, _>(&self.updated_at)?;
        out.push_sql(", expires_at = ");
        out.push_bind_param::<Moment, _>(&self.expires_at)?;
        out.push_sql(", data = ");
        out.push_bind_param::<Binary, _>(self.data)?;
        out.push_sql(" WHERE id = ");
        out.push_bind_param::<Text, _>(self.id)
    }
}

impl<C> RunQueryDsl<C> for Rewritten<'_> {}
