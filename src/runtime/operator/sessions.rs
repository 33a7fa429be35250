//! Sessions: read, conditional write, remove.

use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Operator, OperatorError, Result, invalid, not_found};
use crate::{
    agent::AskError,
    clock,
    model::{
        id::{check_key, scope_of},
        session::{Expect, MAX_SESSION_BYTES, MAX_TTL, MIN_TTL, Session, SessionChange, SessionWrite},
        units::parse_duration,
    },
    runtime::{keeper::Written, settle::later, views::SessionRequest},
    store::Unit,
};

impl Operator {
    /// One session. Reading it starts its time to live again.
    ///
    /// # Errors
    /// [`AskError::NotFound`] where there is none, or it has expired.
    pub async fn session(&self, id: &str) -> Result<Session> {
        check(id)?;
        let found = self.node.use_session(id, false).await.map_err(AskError::widen)?;
        found.ok_or_else(|| unknown(id))
    }

    /// Replaces a session's data, if its version is as expected.
    ///
    /// # Errors
    /// [`OperatorError::Changed`] if it is not; see [`OperatorError`].
    pub async fn put_session(&self, id: &str, request: SessionRequest, expect: Expect) -> Result<Session> {
        check(id)?;
        if request.data.get().len() > MAX_SESSION_BYTES {
            return Err(AskError::TooLarge("a session has at most 1 MiB".to_owned()).into());
        }
        let ttl = match &request.ttl {
            None => self.node.settings.load().sessions.ttl,
            Some(text) => parse_duration(text).map_err(|e| invalid("/ttl", e.to_string()))?,
        };
        if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
            return Err(invalid("/ttl", "a session lives from 1s to 3650d"));
        }
        let (version, data) = (Uuid::now_v7(), Arc::<RawValue>::from(request.data));
        let change = SessionChange::Put { version, data: data.clone(), ttl, expect };
        self.write_session(id, change).await?;
        let stored = self.node.keeper.stored_session(id).await.map_err(AskError::widen)?;
        if let Some(session) = stored.filter(|s| s.version == version) {
            return Ok(session);
        }
        // Another has written since. What is said of this one must not pass for what that one wrote.
        let now = clock::now();
        let (id, expires_at) = (id.to_owned(), later(now, ttl));
        Ok(Session { id, version, data, ttl, created_at: now, updated_at: now, expires_at, revision: 0 })
    }

    /// Deletes a session, if its version is as expected.
    ///
    /// # Errors
    /// [`OperatorError::Changed`] if it is not; [`AskError::NotFound`] if there is none.
    pub async fn remove_session(&self, id: &str, expect: Expect) -> Result<()> {
        check(id)?;
        if expect == Expect::Any
            && self.node.keeper.stored_session(id).await.map_err(AskError::widen)?.is_none()
        {
            return Err(unknown(id));
        }
        self.write_session(id, SessionChange::Remove { expect }).await
    }

    async fn write_session(&self, id: &str, change: SessionChange) -> Result<()> {
        let sessions = vec![SessionWrite { id: id.to_owned(), change }];
        let unit = Unit { sessions, ..Unit::default() };
        match self.node.commit_outside(scope_of(id), unit).await.map_err(AskError::widen)? {
            Written::SessionMoved => {
                self.node.keeper.session_moved(id).await;
                Err(OperatorError::Changed(format!("the session `{id}` is not what you expect it to be")))
            }
            Written::Durable | Written::KeyTaken(_) => Ok(()),
        }
    }
}

fn check(id: &str) -> Result<()> {
    check_key(id).map_err(|e| OperatorError::Malformed(e.to_string()))
}

fn unknown(id: &str) -> OperatorError {
    not_found(format!("there is no session `{id}`"))
}
