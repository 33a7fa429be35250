//! The settings that operators have changed.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{PostgresStore, error};
use crate::store::{SettingsShelf, settings::settings_statements};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

fn written_error(e: diesel::result::Error) -> StoreError {
    error::of_commit(&e)
}

settings_statements!(AsyncPgConnection, [async], [.await]);

#[async_trait]
impl SettingsShelf for PostgresStore {
    async fn settings(&self) -> Result<KeptSettings, StoreError> {
        read(&mut *self.pools.get().await?).await
    }

    async fn keep_settings(&self, next: &KeptSettings) -> Result<bool, StoreError> {
        write(&mut *self.pools.get().await?, next).await
    }
}
