//! Tokens.

use async_trait::async_trait;
use diesel::prelude::*;
use jiff::Timestamp;

use super::{SqliteStore, error, tx};
use crate::store::{Tokens, tokens::token_statements};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

// the transaction around it says what became of it
use sql as written_error;

token_statements!(SqliteConnection, [], []);

#[async_trait]
impl Tokens for SqliteStore {
    async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        self.read(all).await
    }

    async fn add_token(&self, token: &StoredToken) -> Result<bool, StoreError> {
        let token = token.clone();
        self.change(move |conn| add(conn, &token)).await
    }

    async fn remove_token(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.change(move |conn| remove(conn, &name)).await
    }

    async fn token_used(&self, digest: Digest, at: Timestamp) -> Result<(), StoreError> {
        let note = move |tx: &mut tx::Tx<'_>| used(tx.conn, digest, at);
        self.write(move |w| w.transaction(tx::Sync::Lazy, Timestamp::now(), note)).await
    }
}
