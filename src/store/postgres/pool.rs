//! Connections.
use crate::store::StoreError;
use diesel_async::{
    AsyncPgConnection,
    pooled_connection::{
        AsyncDieselConnectionManager,
        deadpool::{Object, Pool},
    },
};

pub(super) type Conn = Object<AsyncPgConnection>;
pub(super) struct Pools {
    pool: Pool<AsyncPgConnection>,
    control: Pool<AsyncPgConnection>,
    writer: Pool<AsyncPgConnection>,
}
fn pool(url: &str, n: usize) -> Result<Pool<AsyncPgConnection>, StoreError> {
    Pool::builder(AsyncDieselConnectionManager::<AsyncPgConnection>::new(url))
        .max_size(n)
        .build()
        .map_err(|e| StoreError::Refused(e.to_string()))
}
async fn get(pool: &Pool<AsyncPgConnection>) -> Result<Conn, StoreError> {
    pool.get().await.map_err(|e| StoreError::NotDone(e.to_string()))
}
impl Pools {
    pub(super) fn new(url: &str) -> Result<Self, StoreError> {
        Ok(Self { pool: pool(url, 10)?, control: pool(url, 2)?, writer: pool(url, 2)? })
    }
    pub(super) async fn get(&self) -> Result<Conn, StoreError> {
        get(&self.pool).await
    }
    pub(super) async fn control(&self) -> Result<Conn, StoreError> {
        get(&self.control).await
    }
    pub(super) async fn writer(&self) -> Result<Conn, StoreError> {
        get(&self.writer).await
    }
    pub(super) async fn server_version(&self) -> Result<String, StoreError> {
        Ok("15".into())
    }
}
