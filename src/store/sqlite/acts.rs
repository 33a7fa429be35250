//! The audit log.

use async_trait::async_trait;
use diesel::prelude::*;
use jiff::Timestamp;

use super::{SqliteStore, error};
use crate::store::{Acts, acts::act_statements};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

// the transaction around it says what became of it
use sql as written_error;

act_statements!(SqliteConnection, diesel::sqlite::Sqlite, [], []);

#[async_trait]
impl Acts for SqliteStore {
    async fn begin_act(&self, act: &Act) -> Result<(), StoreError> {
        let act = act.clone();
        self.change(move |conn| begin(conn, &act)).await
    }

    async fn end_act(&self, act: &Act) -> Result<(), StoreError> {
        let act = act.clone();
        self.change(move |conn| end(conn, &act)).await
    }

    async fn acts(&self, filter: &ActFilter) -> Result<Vec<Act>, StoreError> {
        let filter = filter.clone();
        self.read(move |conn| page(conn, &filter)).await
    }

    async fn forget_acts(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.change(move |conn| forget(conn, before)).await
    }
}
