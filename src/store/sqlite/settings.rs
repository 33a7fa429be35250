//! The settings that operators have changed.

use async_trait::async_trait;
use diesel::prelude::*;
use jiff::Timestamp;

use super::{SqliteStore, error, tx};
use crate::store::{SettingsShelf, settings::settings_statements};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

// the transaction around it says what became of it
use sql as written_error;

settings_statements!(SqliteConnection, [], []);

#[async_trait]
impl SettingsShelf for SqliteStore {
    async fn settings(&self) -> Result<KeptSettings, StoreError> {
        self.read(read).await
    }

    async fn keep_settings(&self, next: &KeptSettings) -> Result<bool, StoreError> {
        let next = next.clone();
        let keep = move |tx: &mut tx::Tx<'_>| write(tx.conn, &next);
        self.write(move |w| w.transaction(tx::Sync::Full, Timestamp::now(), keep)).await
    }
}
