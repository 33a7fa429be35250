//! Deleting agents.

use async_trait::async_trait;
use diesel::{
    define_sql_function,
    sql_types::{BigInt, Binary, SmallInt},
};
use diesel_async::RunQueryDsl;

use super::{
    PostgresStore, error,
    values::{Id, types::Uid},
};
use crate::store::{Deletion, Deletions, StoreError};

define_sql_function! {
    /// Deletes an agent that is at a version.
    fn greenroom_delete_agent_1(id: Uid, partition: SmallInt, epoch: BigInt, version: BigInt, state: Binary) -> Bool;
}

#[async_trait]
impl Deletions for PostgresStore {
    async fn delete_agent(&self, deletion: &Deletion) -> Result<bool, StoreError> {
        let call = greenroom_delete_agent_1(
            Id::from(deletion.id),
            deletion.id.partition(),
            deletion.epoch,
            deletion.version,
            deletion.tombstone.as_slice(),
        );
        let conn = &mut *self.pools.get().await?;
        diesel::select(call).get_result::<bool>(conn).await.map_err(|e| error::of_commit(&e))
    }
}
