//! Tokens.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use jiff::Timestamp;

use super::{PostgresStore, error};
use crate::store::{Tokens, tokens::token_statements};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

fn written_error(e: diesel::result::Error) -> StoreError {
    error::of_commit(&e)
}

token_statements!(AsyncPgConnection, [async], [.await]);

#[async_trait]
impl Tokens for PostgresStore {
    async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        all(&mut *self.pools.get().await?).await
    }

    async fn add_token(&self, token: &StoredToken) -> Result<bool, StoreError> {
        add(&mut *self.pools.get().await?, token).await
    }

    async fn remove_token(&self, name: &str) -> Result<bool, StoreError> {
        remove(&mut *self.pools.get().await?, name).await
    }

    async fn token_used(&self, digest: Digest, at: Timestamp) -> Result<(), StoreError> {
        used(&mut *self.pools.get().await?, digest, at).await
    }
}
