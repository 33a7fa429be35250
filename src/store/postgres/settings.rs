//! The settings that operators have changed.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::error;
use crate::store::settings::settings_statements;

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

fn written_error(e: diesel::result::Error) -> StoreError {
    error::of_commit(&e)
}

settings_statements!(AsyncPgConnection, [async], [.await]);
