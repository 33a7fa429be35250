//! Families of tasks, as [`crate::store::Families`] says.

use async_trait::async_trait;
use diesel::prelude::*;

use super::{SqliteStore, error};
use crate::store::{Families, families::family_reads};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

family_reads!(SqliteConnection, [], []);

#[async_trait]
impl Families for SqliteStore {
    async fn edges(&self, around: &[TaskId], limit: usize) -> Result<Vec<(TaskId, TaskId)>, StoreError> {
        let around = around.to_owned();
        self.read(move |c| edges(c, &around, limit)).await
    }

    async fn kin_behind(&self, id: TaskId, limit: usize) -> Result<Vec<Kin>, StoreError> {
        self.read(move |c| kin_behind(c, id, limit)).await
    }

    async fn relatives(&self, ids: &[TaskId]) -> Result<Vec<TaskView>, StoreError> {
        let ids = ids.to_owned();
        self.read(move |c| relatives(c, &ids)).await
    }

    async fn prerequisites(&self, of: TaskId, limit: usize) -> Result<Vec<Prerequisite>, StoreError> {
        self.read(move |c| prerequisites(c, of, limit)).await
    }
}
