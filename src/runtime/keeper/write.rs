//! Writes from outside of any turn, as units of their own.

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::{Result, unavailable};
use crate::{
    agent::{AskError, host::Reads},
    clock,
    model::{
        conversation::{Conversation, ConversationId, StoredMessage},
        id::scope_of,
        session::{Session, SessionChange, SessionWrite},
    },
    runtime::{
        node::Node,
        persistence::{MAX_WAITING, Outcome},
        settle::later,
    },
    store::{KeyRow, KeyWrite, MessagePage, Refusal, Unit},
};

/// What became of a unit from outside.
#[derive(Debug)]
pub(crate) enum Written {
    /// It is durable.
    Durable,
    /// Its idempotency key had been used.
    KeyTaken(KeyRow),
    /// A session is not what it was expected to be.
    SessionMoved,
}

impl Node {
    /// Commits a unit from outside through the writer of `by`.
    pub(crate) async fn commit_outside(&self, by: Uuid, mut unit: Unit) -> Result<Written> {
        if self.is_closing() {
            return Err(AskError::Unavailable("the node is going down".to_owned()));
        }
        if self.outage.is_known() {
            return Err(self.trouble());
        }
        if self.persistence.waiting() > MAX_WAITING {
            let what = "the store is behind".to_owned();
            return Err(AskError::Overloaded { what, retry_after: std::time::Duration::from_secs(1) });
        }
        self.name_unit(&mut unit);
        match self.persistence.commit(by, unit).await {
            Outcome::Durable => Ok(Written::Durable),
            Outcome::Refused(Refusal::KeyTaken(row)) => Ok(Written::KeyTaken(row)),
            Outcome::Refused(Refusal::SessionMoved(_)) => Ok(Written::SessionMoved),
            Outcome::Refused(refusal @ Refusal::ConversationUnknown(_)) => {
                Err(AskError::NotFound(refusal.to_string()))
            }
            Outcome::Refused(refusal) => Err(unavailable(refusal)),
            Outcome::Unknown => Err(AskError::Unknown),
            Outcome::Full(why) => Err(AskError::NoRoom(why)),
            Outcome::Failed(why) => Err(AskError::Unavailable(why)),
        }
    }

    /// Gives a unit a key, where it could be taken for new if it is sent again.
    pub(crate) fn name_unit(&self, unit: &mut Unit) {
        if unit.is_nameless() {
            unit.keys.push(KeyWrite {
                scope: scope_of("units"),
                key: Uuid::now_v7().to_string(),
                request: [0; 16],
                task: None,
                reply: None,
                expires_at: later(clock::now(), self.settings.load().limits.idempotency_ttl),
            });
        }
    }

    /// A session that somebody uses: from the store for a turn, else perhaps from the cache.
    pub(crate) async fn use_session(&self, id: &str, turn: bool) -> Result<Option<Session>> {
        let found =
            if turn { self.keeper.stored_session(id).await? } else { self.keeper.session(id).await? };
        if let Some(session) = &found
            && session.is_worn(clock::now())
        {
            self.touch(id);
        }
        Ok(found)
    }

    /// Writes down that a session was used; nobody waits for it. Once for all who use it meanwhile.
    fn touch(&self, id: &str) {
        let busy = self.is_closing() || self.persistence.waiting() > MAX_WAITING;
        if busy || !self.keeper.touching.lock().insert(id.to_owned()) {
            return;
        }
        let Some(node) = self.me.upgrade() else { return };
        let id = id.to_owned();
        self.runtime.spawn(async move {
            let write = SessionWrite { id: id.clone(), change: SessionChange::Touch };
            let unit = Unit { sessions: vec![write], ..Unit::default() };
            // What cannot be written down now is tried at the next use.
            let _ = node.persistence.commit(scope_of(&id), unit).await;
            node.keeper.touching.lock().remove(&id);
        });
    }
}

impl Reads for Node {
    fn conversation(&self, id: ConversationId) -> BoxFuture<'static, Result<Option<Conversation>>> {
        let keeper = self.keeper.clone();
        Box::pin(async move { keeper.stored_conversation(id).await })
    }

    fn recent(&self, id: ConversationId, n: usize) -> BoxFuture<'static, Result<Option<Vec<StoredMessage>>>> {
        let keeper = self.keeper.clone();
        Box::pin(async move { keeper.recent_stored(id, n).await })
    }

    fn history(
        &self,
        id: ConversationId,
        before: i64,
        n: usize,
    ) -> BoxFuture<'static, Result<Option<Vec<StoredMessage>>>> {
        let keeper = self.keeper.clone();
        Box::pin(async move {
            if keeper.stored_conversation(id).await?.is_none() {
                return Ok(None);
            }
            let page = MessagePage::Back { before: Some(before), limit: n };
            let mut messages = keeper.page(id, page).await?;
            messages.reverse();
            Ok(Some(messages))
        })
    }

    fn session(&self, id: String) -> BoxFuture<'static, Result<Option<Session>>> {
        let me = self.me.upgrade();
        Box::pin(async move {
            match me {
                Some(node) => node.use_session(&id, true).await,
                None => Err(AskError::Unavailable("the node has ended".to_owned())),
            }
        })
    }
}
