//! Tokens: list, create, revoke.

use std::time::Duration;

use jiff::Timestamp;

use super::{Operator, Result, invalid, not_found, wrong_state};
use crate::{
    clock,
    model::{
        access::{Digest, MAX_TOKENS, StoredToken, check_token_name, draw},
        units::parse_duration,
    },
    runtime::views::{NewToken, TokenRequest, TokenView},
    store::StoreError,
};

/// The longest lifetime of a token.
const MAX_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

impl Operator {
    /// All tokens but the node's own, by name.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn tokens(&self) -> Result<Vec<TokenView>> {
        Ok(self.stored_tokens().await?.into_iter().map(TokenView::from).collect())
    }

    /// The same, as they are kept.
    pub(crate) async fn stored_tokens(&self) -> Result<Vec<StoredToken>> {
        // in a task of its own: whoever asks may not wait for its end
        let store = self.node.store.clone();
        let read = self.node.runtime.spawn(async move { store.tokens().await }).await;
        Ok(read.unwrap_or_else(|_| Err(StoreError::NotDone("the node is going down".to_owned())))?)
    }

    /// Creates a token; its secret is returned only now.
    ///
    /// # Errors
    /// [`AskError::Invalid`](crate::AskError::Invalid); [`AskError::WrongState`](crate::AskError::WrongState)
    /// where there is one of that name, or there are too many.
    pub async fn add_token(&self, request: &TokenRequest) -> Result<NewToken> {
        check_token_name(&request.name).map_err(|e| invalid("/name", e.to_string()))?;
        let now = clock::now();
        let expires_at = request.expires_in.as_deref().map(|text| ends(now, text)).transpose()?;
        let there = self.node.store.tokens().await?;
        if there.len() >= MAX_TOKENS {
            return Err(wrong_state(format!("there are {MAX_TOKENS} tokens already: remove one")));
        }
        let token = draw();
        let new = StoredToken {
            name: request.name.clone(),
            digest: Digest::of(token.as_bytes()),
            scope: request.scope,
            created_at: now,
            expires_at,
            used_at: None,
        };
        if !self.node.store.add_token(&new).await? {
            return Err(wrong_state(format!("there is a token `{}` already: remove it first", new.name)));
        }
        Ok(NewToken { kept: new.into(), token: token.into() })
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// [`AskError::NotFound`](crate::AskError::NotFound).
    pub async fn remove_token(&self, name: &str) -> Result<()> {
        match self.node.store.remove_token(name).await? {
            true => Ok(()),
            false => Err(not_found(format!("there is no token `{}`", name.escape_debug()))),
        }
    }

    /// Notes when a token was shown.
    pub(crate) async fn token_used(&self, digest: Digest, at: Timestamp) {
        // The next time is as good.
        let _ = self.node.store.token_used(digest, at).await;
    }
}

/// When a life that begins now ends.
fn ends(now: Timestamp, text: &str) -> Result<Timestamp> {
    let life = parse_duration(text).map_err(|e| invalid("/expires_in", e.to_string()))?;
    if life.is_zero() || life > MAX_LIFETIME {
        return Err(invalid("/expires_in", "a token lives longer than 0s, and 10 years at most"));
    }
    now.checked_add(life).map_err(|e| invalid("/expires_in", e.to_string()))
}
