//! Families of tasks, as [`crate::store::Families`] says.

use diesel::prelude::*;

use super::error;
use crate::store::families::family_reads;

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

family_reads!(SqliteConnection, [], []);
