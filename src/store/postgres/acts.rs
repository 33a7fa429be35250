//! The audit log.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use jiff::Timestamp;

use super::{PostgresStore, error};
use crate::store::{Acts, acts::act_statements};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

fn written_error(e: diesel::result::Error) -> StoreError {
    error::of_commit(&e)
}

act_statements!(AsyncPgConnection, diesel::pg::Pg, [async], [.await]);

#[async_trait]
impl Acts for PostgresStore {
    async fn begin_act(&self, act: &Act) -> Result<(), StoreError> {
        begin(&mut *self.pools.get().await?, act).await
    }

    async fn end_act(&self, act: &Act) -> Result<(), StoreError> {
        end(&mut *self.pools.get().await?, act).await
    }

    async fn acts(&self, filter: &ActFilter) -> Result<Vec<Act>, StoreError> {
        page(&mut *self.pools.get().await?, filter).await
    }

    async fn forget_acts(&self, before: Timestamp) -> Result<u64, StoreError> {
        forget(&mut *self.pools.get().await?, before).await
    }
}
