//! Forgetting sessions and conversations that have had their time, a bounded number a call; and reading
//! all of them, and the subscriptions, for verification.

use diesel::{connection::DefaultLoadingMode, dsl::sql as literally, prelude::*, sql_types::Bool};
use jiff::Timestamp;

use super::{
    claim::whole,
    error,
    tx::{Sync, Tx, Writer},
    values::{Id, Micros, day, hour, micros},
};
use crate::{
    model::conversation::ConversationId,
    store::{
        Forgotten, StoreError,
        schema::{greenroom_conversations, greenroom_messages, greenroom_sessions, greenroom_subscriptions},
        talk_check::TalkFindings,
    },
};

/// How much one call forgets, of each kind.
const DELETE_BATCH: i64 = 500;
/// How many messages of deleted conversations one call forgets.
const MESSAGES_AT_ONCE: i64 = 5_000;

impl Writer {
    /// Forgets what has had its time.
    pub(super) fn forget(
        &mut self,
        now: Timestamp,
        idle_since: Option<Timestamp>,
    ) -> Result<Forgotten, StoreError> {
        if !self.has_had_its_time(micros(now), idle_since.map(micros)).map_err(|e| error::of_statement(&e))? {
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
            .limit(DELETE_BATCH)
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
            .limit(DELETE_BATCH)
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
            .limit(DELETE_BATCH)
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
pub(super) fn verify(conn: &mut SqliteConnection) -> QueryResult<TalkFindings> {
    use greenroom_conversations::dsl as c;
    use greenroom_messages::dsl as m;
    use greenroom_sessions::dsl as s;
    use greenroom_subscriptions::dsl as t;
    let mut findings = TalkFindings::default();
    let rows = c::greenroom_conversations.select((c::id, c::last_seq, c::deleted, c::metadata));
    for row in rows.load_iter::<(Id, i64, bool, Vec<u8>), DefaultLoadingMode>(conn)? {
        findings.conversation(row?);
    }
    let rows = m::greenroom_messages.order((m::conversation.asc(), m::seq.asc())).select((
        m::conversation,
        m::seq,
        m::id,
        m::content,
    ));
    for row in rows.load_iter::<(Id, i64, Id, Vec<u8>), DefaultLoadingMode>(conn)? {
        findings.message(row?);
    }
    let rows = s::greenroom_sessions.select((s::id, s::data));
    for row in rows.load_iter::<(String, Vec<u8>), DefaultLoadingMode>(conn)? {
        findings.session(row?);
    }
    let rows = t::greenroom_subscriptions.select((t::topic, t::agent, t::kind, t::key));
    for row in rows.load_iter::<(String, Id, String, String), DefaultLoadingMode>(conn)? {
        findings.subscription(row?);
    }
    Ok(findings)
}
