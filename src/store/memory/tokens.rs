//! Tokens.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    MemoryStore,
    state::{State, exact},
};
use crate::{
    model::access::{Digest, StoredToken},
    store::{StoreError, Tokens},
};

impl State {
    /// All, by name.
    pub(super) fn tokens(&self) -> Vec<StoredToken> {
        self.tokens.iter().map(|(_, token)| token.clone()).collect()
    }

    /// Keeps a new one.
    pub(super) fn add_token(&mut self, token: &StoredToken) -> bool {
        if let Some(there) = self.tokens.get(&token.name) {
            return there.digest == token.digest;
        }
        let (created_at, expires_at) = (exact(token.created_at), token.expires_at.map(exact));
        self.tokens.insert(token.name.clone(), StoredToken { created_at, expires_at, ..token.clone() });
        true
    }

    /// Removes one.
    pub(super) fn remove_token(&mut self, name: &str) -> bool {
        self.tokens.has(&name.to_owned()) && self.tokens.remove(&name.to_owned()).is_some()
    }

    /// Notes when one was shown.
    pub(super) fn token_used(&mut self, digest: Digest, at: Timestamp) {
        let found = self.tokens.iter().find(|(_, token)| token.digest == digest);
        if let Some(name) = found.map(|(name, _)| name.clone())
            && let Some(token) = self.tokens.get_mut(&name)
        {
            token.used_at = Some(exact(at));
        }
    }
}

#[async_trait]
impl Tokens for MemoryStore {
    async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        Ok(self.read(State::tokens))
    }

    async fn add_token(&self, token: &StoredToken) -> Result<bool, StoreError> {
        Ok(self.write_now(|s| s.add_token(token)))
    }

    async fn remove_token(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.write_now(|s| s.remove_token(name)))
    }

    async fn token_used(&self, digest: Digest, at: Timestamp) -> Result<(), StoreError> {
        self.write_now(|s| s.token_used(digest, at));
        Ok(())
    }
}
