//! What SQLite's errors mean for a caller.

use std::{fs, io, path::Path};

use diesel::result::Error as Sql;

use crate::store::StoreError;

/// What an SQL error is about. SQLite's codes do not come through diesel, its messages do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Busy,
    Full,
    Io,
    Corrupt,
    Memory,
    ReadOnly,
    /// The statement itself: nothing but its own unit is to blame.
    Statement,
}

fn cause(error: &Sql) -> Cause {
    let Sql::DatabaseError(_, info) = error else { return Cause::Statement };
    let message = info.message();
    let any = |texts: &[&str]| texts.iter().any(|t| message.contains(t));
    if any(&["database or disk is full"]) {
        Cause::Full
    } else if any(&["disk I/O error"]) {
        Cause::Io
    } else if any(&["is locked", "locking protocol", "unable to open database file"]) {
        Cause::Busy
    } else if any(&["malformed", "file is not a database"]) {
        Cause::Corrupt
    } else if any(&["out of memory", "interrupted"]) {
        Cause::Memory
    } else if any(&["readonly database"]) {
        Cause::ReadOnly
    } else {
        Cause::Statement
    }
}

/// Whether the error says something about one statement only, not about the store.
pub(super) fn is_statements(error: &Sql) -> bool {
    cause(error) == Cause::Statement
}

/// The error of a statement that is not the commit itself: nothing has happened.
pub(super) fn of_statement(error: &Sql) -> StoreError {
    let text = error.to_string();
    match cause(error) {
        Cause::Full => StoreError::Full(text),
        Cause::Corrupt => StoreError::Corrupt(text),
        Cause::Busy | Cause::Io | Cause::Memory | Cause::ReadOnly | Cause::Statement => {
            StoreError::NotDone(text)
        }
    }
}

/// The error of `COMMIT`: after an I/O error there nothing may be acknowledged any more, unless
/// it was only that no room was left.
pub(super) fn of_commit(error: &Sql, database: &Path) -> StoreError {
    match cause(error) {
        Cause::Io if is_full(database) => StoreError::Full(error.to_string()),
        Cause::Io => StoreError::Fatal(error.to_string()),
        _ => of_statement(error),
    }
}

/// Tries to write a little beside the database: SQLite reports some failures for want of room
/// (its shared memory, for one) as plain I/O errors.
fn is_full(database: &Path) -> bool {
    let probe = database.with_extension("probe");
    let full = match fs::write(&probe, [0_u8; 128 << 10]) {
        Ok(()) => false,
        Err(e) => matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
    };
    // the probe is of no use to anybody, whether or not it can be removed
    let _ = fs::remove_file(&probe);
    full
}
