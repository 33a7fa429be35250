//! The settings that operators have changed.

use diesel::prelude::*;

use super::error;
use crate::store::settings::settings_statements;

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

// the transaction around it says what became of it
use sql as written_error;

settings_statements!(SqliteConnection, [], []);
