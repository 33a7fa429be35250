//! Conversations, messages and sessions. What their commit does stands beside its function, in
//! `migrations/postgres`.

use std::collections::HashSet;

use diesel::{pg::Pg, prelude::*, sql_types::Integer};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    call::{EntityArguments, Refused},
    commit::wire,
    error,
    values::{
        micros,
        types::{Moment, Uid},
    },
};
use crate::{
    model::{
        conversation::{ConversationWrite, NewMessage},
        session::{Expect, SessionChange, SessionWrite},
    },
    store::{
        Forgotten, Refusal, Unit, entities::entity_reads, schema::greenroom_subscriptions,
        talk_check::TalkFindings,
    },
};

/// How much one call forgets, of each kind.
const DELETE_BATCH: i32 = 500;
/// How many messages of deleted conversations one call forgets.
const MESSAGES_AT_ONCE: i32 = 5_000;

mod functions {
    use super::*;
    use diesel::define_sql_function;

    define_sql_function!(fn greenroom_forget_1(now: Moment, limit: Integer, messages: Integer) -> BigInt);
    define_sql_function!(fn greenroom_delete_idle_1(since: Moment, limit: Integer) -> Nullable<Uid>);
}
use functions::*;

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

entity_reads!(AsyncPgConnection, Pg, [async], [.await]);

impl<'a> EntityArguments<'a> {
    /// What a wave of units does to conversations and sessions.
    pub(super) fn of(units: &'a [Unit], wave: &[usize]) -> Self {
        let mut all = Self::default();
        for n in wave {
            let Some(unit) = units.get(*n).filter(|unit| unit.has_entities()) else { continue };
            let n = wire(*n);
            unit.conversations.iter().for_each(|write| all.conversation(n, write));
            unit.messages.iter().for_each(|message| all.message(n, message));
            unit.sessions.iter().for_each(|write| all.session(n, write));
        }
        all
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.c_unit.is_empty() && self.m_unit.is_empty() && self.x_unit.is_empty()
    }

    fn conversation(&mut self, n: i32, write: &'a ConversationWrite) {
        let (title, metadata) = match write {
            ConversationWrite::Create(new) => {
                (new.title.as_deref(), serde_json::to_vec(&new.metadata).unwrap_or_default())
            }
            ConversationWrite::Delete(_) => (None, Vec::new()),
        };
        self.c_unit.push(n);
        self.c_id.push(Id(write.id().0));
        self.c_title.push(title);
        self.c_metadata.push(metadata);
        self.c_delete.push(matches!(write, ConversationWrite::Delete(_)));
    }

    fn message(&mut self, n: i32, message: &'a NewMessage) {
        self.m_unit.push(n);
        self.m_id.push(Id(message.id.0));
        self.m_conversation.push(Id(message.conversation.0));
        self.m_role.push(&message.role);
        self.m_content.push(message.content.get().as_bytes());
    }

    fn session(&mut self, n: i32, write: &'a SessionWrite) {
        let (change, version, data, ttl_ms) = match &write.change {
            SessionChange::Put { version, data, ttl, .. } => {
                let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
                (0, *version, data.get().as_bytes(), ttl_ms)
            }
            SessionChange::Touch => (1, Uuid::nil(), &[][..], 0),
            SessionChange::Remove { .. } => (2, Uuid::nil(), &[][..], 0),
        };
        let (expect, expected) = match write.change.condition() {
            Expect::Any => (0, Uuid::nil()),
            Expect::Absent => (1, Uuid::nil()),
            Expect::Version(version) => (2, version),
        };
        self.x_unit.push(n);
        self.x_id.push(&write.id);
        self.x_change.push(change);
        self.x_version.push(Id(version));
        self.x_data.push(data);
        self.x_ttl_ms.push(ttl_ms);
        self.x_expect.push(expect);
        self.x_expected.push(Id(expected));
    }

    /// What a row of the answer means, where it is about these.
    pub(super) fn refusal(&self, (_, reason, id, code): Refused) -> Option<Refusal> {
        let id = id.map_or(Uuid::nil(), |id| id.0);
        match reason {
            7 => Some(Refusal::ConversationUnknown(ConversationId(id))),
            8 => {
                let at = usize::try_from(code).ok().and_then(|o| o.checked_sub(1));
                let session = at.and_then(|at| self.x_id.get(at)).copied().unwrap_or_default();
                Some(Refusal::SessionMoved(session.to_owned()))
            }
            9 => Some(Refusal::Bad(format!("message {id} is in another conversation"))),
            _ => None,
        }
    }
}

/// Those of these messages that are known, each with its conversation.
pub(super) async fn appended(conn: &mut AsyncPgConnection, ids: Vec<Id>) -> QueryResult<HashSet<(Id, Id)>> {
    use greenroom_messages::dsl;
    let rows = dsl::greenroom_messages.filter(dsl::id.eq_any(ids)).select((dsl::id, dsl::conversation));
    let rows: Vec<(Id, Id)> = rows.load(conn).await?;
    Ok(rows.into_iter().collect())
}

/// Forgets what has had its time.
pub(super) async fn forget(
    conn: &mut AsyncPgConnection,
    now: Timestamp,
    idle_since: Option<Timestamp>,
) -> Result<Forgotten, StoreError> {
    let sql = |e| error::of_commit(&e);
    let mut conversations = Vec::new();
    if let Some(since) = idle_since {
        let call = diesel::select(greenroom_delete_idle_1(micros(since), DELETE_BATCH));
        let ids: Vec<Option<Id>> = call.load(conn).await.map_err(sql)?;
        conversations = ids.into_iter().flatten().map(|id| ConversationId(id.0)).collect();
    }
    let call = diesel::select(greenroom_forget_1(micros(now), DELETE_BATCH, MESSAGES_AT_ONCE));
    let forgotten: i64 = call.get_result(conn).await.map_err(sql)?;
    let rows = u64::try_from(forgotten).unwrap_or(0) + conversations.len() as u64;
    Ok(Forgotten { rows, conversations })
}

/// Reads everything.
pub(super) async fn verify(conn: &mut AsyncPgConnection) -> QueryResult<TalkFindings> {
    use greenroom_conversations::dsl as c;
    use greenroom_messages::dsl as m;
    use greenroom_sessions::dsl as s;
    use greenroom_subscriptions::dsl as t;
    let mut findings = TalkFindings::default();
    {
        let all = c::greenroom_conversations.select((c::id, c::last_seq, c::deleted, c::metadata));
        let mut rows = RunQueryDsl::load_stream::<(Id, i64, bool, Vec<u8>)>(all, conn).await?;
        while let Some(row) = rows.try_next().await? {
            findings.conversation(row);
        }
    }
    {
        let all = m::greenroom_messages.order((m::conversation.asc(), m::seq.asc())).select((
            m::conversation,
            m::seq,
            m::id,
            m::content,
        ));
        let mut rows = RunQueryDsl::load_stream::<(Id, i64, Id, Vec<u8>)>(all, conn).await?;
        while let Some(row) = rows.try_next().await? {
            findings.message(row);
        }
    }
    {
        let all = s::greenroom_sessions.select((s::id, s::data));
        let mut rows = RunQueryDsl::load_stream::<(String, Vec<u8>)>(all, conn).await?;
        while let Some(row) = rows.try_next().await? {
            findings.session(row);
        }
    }
    let all = t::greenroom_subscriptions.select((t::topic, t::agent, t::kind, t::key));
    let mut rows = RunQueryDsl::load_stream::<(String, Id, String, String)>(all, conn).await?;
    while let Some(row) = rows.try_next().await? {
        findings.subscription(row);
    }
    drop(rows);
    Ok(findings)
}
