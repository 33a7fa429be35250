//! Tokens: reads and writes, once for every database.

use async_trait::async_trait;
use diesel::prelude::*;
use jiff::Timestamp;

use super::{
    StoreError,
    schema::greenroom_tokens,
    values::{Micros, micros, moment},
};
use crate::model::access::{Digest, StoredToken};

/// Tokens, beside the rest of the store.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// All of them, by name, with those that have expired.
    async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError>;

    /// Keeps a new one. `false`: there is another of that name. Sent again it is recognised by its digest.
    async fn add_token(&self, token: &StoredToken) -> Result<bool, StoreError>;

    /// Removes one; `false` where there is none.
    async fn remove_token(&self, name: &str) -> Result<bool, StoreError>;

    /// Notes when a token was shown. A power cut may take it back; one that is gone is left alone.
    async fn token_used(&self, digest: Digest, at: Timestamp) -> Result<(), StoreError>;
}

/// A token's row.
#[derive(Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = greenroom_tokens)]
pub(super) struct TokenRow {
    name: String,
    digest: Vec<u8>,
    scope: String,
    created_at: Micros,
    expires_at: Option<Micros>,
    used_at: Option<Micros>,
}

impl From<&StoredToken> for TokenRow {
    fn from(token: &StoredToken) -> Self {
        Self {
            name: token.name.clone(),
            digest: token.digest.as_bytes().to_vec(),
            scope: token.scope.name().to_owned(),
            created_at: micros(token.created_at),
            expires_at: token.expires_at.map(micros),
            used_at: token.used_at.map(micros),
        }
    }
}

impl TokenRow {
    /// # Errors
    /// [`StoreError::Corrupt`] where it is not as we write it.
    pub(super) fn into_model(self) -> Result<StoredToken, StoreError> {
        let name = self.name;
        let corrupt = |why: String| StoreError::Corrupt(format!("token `{name}`: {why}"));
        let digest = Digest::from_bytes(&self.digest);
        Ok(StoredToken {
            digest: digest.ok_or_else(|| corrupt("its digest has another length".to_owned()))?,
            scope: self.scope.parse().map_err(corrupt)?,
            created_at: moment(self.created_at),
            expires_at: self.expires_at.map(moment),
            used_at: self.used_at.map(moment),
            name,
        })
    }
}

/// Writes what is read and written for one connection, as
/// [`schedule_statements`](super::schedules::schedule_statements) does.
macro_rules! token_statements {
    ($conn:ty, [$($async:tt)*], [$($wait:tt)*]) => {
        use crate::{
            model::access::{Digest, StoredToken},
            store::{StoreError, schema::greenroom_tokens, tokens::TokenRow, values::micros},
        };

        /// All, by name.
        pub(super) $($async)* fn all(conn: &mut $conn) -> Result<Vec<StoredToken>, StoreError> {
            use greenroom_tokens::dsl;
            let all = dsl::greenroom_tokens.select(TokenRow::as_select()).order(dsl::name);
            let rows = RunQueryDsl::load(all, conn)$($wait)*.map_err(sql)?;
            rows.into_iter().map(TokenRow::into_model).collect()
        }

        /// Keeps a new one.
        pub(super) $($async)* fn add(conn: &mut $conn, token: &StoredToken) -> Result<bool, StoreError> {
            use greenroom_tokens::dsl;
            let row = TokenRow::from(token);
            let new = diesel::insert_into(dsl::greenroom_tokens).values(&row).on_conflict_do_nothing();
            if RunQueryDsl::execute(new, conn)$($wait)*.map_err(written_error)? == 1 {
                return Ok(true);
            }
            let own = dsl::greenroom_tokens.find(&token.name).filter(dsl::digest.eq(token.digest.as_bytes()));
            let own = RunQueryDsl::first::<String>(own.select(dsl::name), conn)$($wait)*;
            Ok(own.optional().map_err(sql)?.is_some())
        }

        /// Removes one.
        pub(super) $($async)* fn remove(conn: &mut $conn, name: &str) -> Result<bool, StoreError> {
            use greenroom_tokens::dsl;
            let gone = RunQueryDsl::execute(diesel::delete(dsl::greenroom_tokens.find(name)), conn)$($wait)*;
            Ok(gone.map_err(written_error)? == 1)
        }

        /// Notes when one was shown.
        pub(super) $($async)* fn used(
            conn: &mut $conn,
            digest: Digest,
            at: jiff::Timestamp,
        ) -> Result<(), StoreError> {
            use greenroom_tokens::dsl;
            let row = dsl::greenroom_tokens.filter(dsl::digest.eq(digest.as_bytes()));
            let noted = diesel::update(row).set(dsl::used_at.eq(micros(at)));
            RunQueryDsl::execute(noted, conn)$($wait)*.map(drop).map_err(written_error)
        }

        /// Reads all of them: what is wrong, a line each.
        pub(super) $($async)* fn verify(conn: &mut $conn) -> QueryResult<Vec<String>> {
            use greenroom_tokens::dsl;
            let all = dsl::greenroom_tokens.select(TokenRow::as_select());
            let rows = RunQueryDsl::load::<TokenRow>(all, conn)$($wait)*?;
            Ok(rows.into_iter().filter_map(|row| Some(row.into_model().err()?.to_string())).collect())
        }
    };
}
pub(super) use token_statements;
