//! Conversations, messages and sessions, as [`crate::store::Entities`] says.

use std::collections::HashMap;

use diesel::{
    connection::DefaultLoadingMode, dsl::sql as literally, prelude::*, sql_types::Bool, sqlite::Sqlite,
};
use jiff::Timestamp;

use super::{
    claim::whole,
    commit::Stop,
    error,
    tx::{Sync, Tx, Writer},
    values::{day, hour, later, micros},
};
use crate::{
    model::{
        conversation::{ConversationWrite, NewConversation, NewMessage},
        session::{Expect, SessionChange, SessionWrite},
    },
    store::{Forgotten, Refusal, Unit, audit::Audit, entities::entity_reads},
};

/// How much one call forgets, of each kind.
const AT_ONCE: i64 = 500;
/// How many messages of deleted conversations one call forgets.
const MESSAGES_AT_ONCE: i64 = 5_000;

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

    fn place(&mut self, conversation: ConversationId) -> Result<Place, Stop> {
        use greenroom_conversations::dsl;
        let found = dsl::greenroom_conversations
            .filter(dsl::id.eq(Id(conversation.0)))
            .filter(dsl::deleted.eq(false))
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
            if !places.contains_key(&id) {
                places.insert(id, self.place(id)?);
            }
            let Some(place) = places.get_mut(&id) else { continue };
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
        diesel::update(dsl::greenroom_conversations.filter(dsl::id.eq(Id(id.0))))
            .set((
                dsl::last_seq.eq(place.last_seq + place.appended),
                dsl::version.eq(dsl::version + 1),
                dsl::updated_at.eq(self.now),
                // left out where it is the same, since its index would be written all the same
                (place.used_on != today).then(|| dsl::used_on.eq(today)),
            ))
            .execute(self.conn)?;
        Ok(())
    }

    fn delete_conversation(&mut self, id: ConversationId) -> QueryResult<()> {
        use greenroom_conversations::dsl;
        let row = dsl::greenroom_conversations.filter(dsl::id.eq(Id(id.0))).filter(dsl::deleted.eq(false));
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
        let met = match write.change.expect() {
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
                let values = (
                    dsl::version.eq(Id(*version)),
                    dsl::revision.eq(known.as_ref().map_or(self.now.0, |k| k.revision + 1)),
                    dsl::ttl_ms.eq(ttl_ms),
                    dsl::created_at.eq(created_at),
                    dsl::updated_at.eq(self.now),
                    dsl::expires_at.eq(expires_at),
                    dsl::data.eq(data.get().as_bytes()),
                );
                let expires_in = hour(expires_at);
                match known {
                    None => diesel::insert_into(dsl::greenroom_sessions)
                        .values((dsl::id.eq(id), values, dsl::expires_in.eq(expires_in)))
                        .execute(self.conn)?,
                    Some(k) if k.expires_in == expires_in => {
                        diesel::update(row).set(values).execute(self.conn)?
                    }
                    Some(_) => diesel::update(row)
                        .set((values, dsl::expires_in.eq(expires_in)))
                        .execute(self.conn)?,
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

impl Writer {
    /// Forgets what has had its time.
    pub(super) fn forget(
        &mut self,
        now: Timestamp,
        idle_since: Option<Timestamp>,
    ) -> Result<Forgotten, StoreError> {
        if !self.has_had_its_time(micros(now), idle_since.map(micros)).map_err(sql)? {
            return Ok(Forgotten::default());
        }
        self.transaction(Sync::Full, now, |tx| {
            let of = |e: diesel::result::Error| whole(e.into());
            let sessions = tx.forget_sessions().map_err(of)?;
            let conversations =
                idle_since.map_or(Ok(Vec::new()), |at| tx.delete_idle(micros(at))).map_err(of)?;
            let messages = tx.forget_messages().map_err(of)?;
            Ok(Forgotten { rows: (sessions + conversations.len() + messages) as u64, conversations })
        })
    }

    /// Whether there is anything: an idle pass writes nothing.
    fn has_had_its_time(&mut self, now: Micros, idle_since: Option<Micros>) -> QueryResult<bool> {
        use greenroom_conversations::dsl as c;
        use greenroom_sessions::dsl as s;
        let expired = s::greenroom_sessions
            .filter(s::expires_in.le(hour(now)))
            .filter(s::expires_at.le(now))
            .select(s::revision)
            .first::<i64>(&mut self.conn)
            .optional()?;
        let deleted = c::greenroom_conversations
            .filter(literally::<Bool>("deleted"))
            .select(c::version)
            .first::<i64>(&mut self.conn)
            .optional()?;
        let idle = match idle_since {
            None => None,
            Some(at) => c::greenroom_conversations
                .filter(literally::<Bool>("NOT deleted"))
                .filter(c::used_on.le(day(at)))
                .filter(c::updated_at.lt(at))
                .select(c::version)
                .first::<i64>(&mut self.conn)
                .optional()?,
        };
        Ok(expired.or(deleted).or(idle).is_some())
    }
}

impl Tx<'_> {
    fn forget_sessions(&mut self) -> QueryResult<usize> {
        use greenroom_sessions::dsl;
        let expired: Vec<String> = dsl::greenroom_sessions
            .filter(dsl::expires_in.le(hour(self.now)))
            .filter(dsl::expires_at.le(self.now))
            .order(dsl::expires_in.asc())
            .limit(AT_ONCE)
            .select(dsl::id)
            .load(self.conn)?;
        for id in &expired {
            diesel::delete(dsl::greenroom_sessions.filter(dsl::id.eq(id))).execute(self.conn)?;
        }
        Ok(expired.len())
    }

    fn delete_idle(&mut self, since: Micros) -> QueryResult<Vec<ConversationId>> {
        use greenroom_conversations::dsl;
        let idle: Vec<Id> = dsl::greenroom_conversations
            .filter(literally::<Bool>("NOT deleted"))
            .filter(dsl::used_on.le(day(since)))
            .filter(dsl::updated_at.lt(since))
            .order(dsl::used_on.asc())
            .limit(AT_ONCE)
            .select(dsl::id)
            .load(self.conn)?;
        let idle: Vec<_> = idle.into_iter().map(|id| ConversationId(id.0)).collect();
        idle.iter().try_for_each(|id| self.delete_conversation(*id))?;
        Ok(idle)
    }

    /// Forgets messages of deleted conversations, and those conversations that have none left.
    fn forget_messages(&mut self) -> QueryResult<usize> {
        use greenroom_conversations::dsl as c;
        use greenroom_messages::dsl as m;
        let deleted: Vec<Id> = c::greenroom_conversations
            .filter(literally::<Bool>("deleted"))
            .order(c::id.asc())
            .limit(AT_ONCE)
            .select(c::id)
            .load(self.conn)?;
        let (mut left, mut gone) = (MESSAGES_AT_ONCE, 0);
        for id in deleted {
            let oldest = m::greenroom_messages.filter(m::conversation.eq(id)).order(m::seq.asc());
            let last = oldest.limit(left).select(m::seq).load::<i64>(self.conn)?;
            if let Some(up_to) = last.last() {
                let rows = m::greenroom_messages.filter(m::conversation.eq(id)).filter(m::seq.le(up_to));
                gone += diesel::delete(rows).execute(self.conn)?;
            }
            left -= i64::try_from(last.len()).unwrap_or(left);
            if left <= 0 {
                break;
            }
            gone += diesel::delete(c::greenroom_conversations.filter(c::id.eq(id))).execute(self.conn)?;
        }
        Ok(gone)
    }
}

/// Reads everything.
pub(super) fn audit(conn: &mut SqliteConnection) -> QueryResult<Audit> {
    use greenroom_conversations::dsl as c;
    use greenroom_messages::dsl as m;
    use greenroom_sessions::dsl as s;
    let mut audit = Audit::default();
    let rows = c::greenroom_conversations.select((c::id, c::last_seq, c::deleted, c::metadata));
    for row in rows.load_iter::<(Id, i64, bool, Vec<u8>), DefaultLoadingMode>(conn)? {
        audit.conversation(row?);
    }
    let rows = m::greenroom_messages.order((m::conversation.asc(), m::seq.asc())).select((
        m::conversation,
        m::seq,
        m::id,
        m::content,
    ));
    for row in rows.load_iter::<(Id, i64, Id, Vec<u8>), DefaultLoadingMode>(conn)? {
        audit.message(row?);
    }
    let rows = s::greenroom_sessions.select((s::id, s::data));
    for row in rows.load_iter::<(String, Vec<u8>), DefaultLoadingMode>(conn)? {
        audit.session(row?);
    }
    Ok(audit)
}
