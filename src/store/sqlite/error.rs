//! The mapping of SQLite errors.

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

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use diesel::{connection::SimpleConnection, prelude::*, result::DatabaseErrorKind};

    use super::*;

    /// The texts are SQLite's: should a new release change one, this tells.
    #[test]
    fn sqlites_own_texts_are_understood() {
        let known = [
            (libsqlite3_sys::SQLITE_BUSY, Cause::Busy),
            (libsqlite3_sys::SQLITE_LOCKED, Cause::Busy),
            (libsqlite3_sys::SQLITE_PROTOCOL, Cause::Busy),
            (libsqlite3_sys::SQLITE_CANTOPEN, Cause::Busy),
            (libsqlite3_sys::SQLITE_FULL, Cause::Full),
            (libsqlite3_sys::SQLITE_IOERR, Cause::Io),
            (libsqlite3_sys::SQLITE_CORRUPT, Cause::Corrupt),
            (libsqlite3_sys::SQLITE_NOTADB, Cause::Corrupt),
            (libsqlite3_sys::SQLITE_NOMEM, Cause::Memory),
            (libsqlite3_sys::SQLITE_INTERRUPT, Cause::Memory),
            (libsqlite3_sys::SQLITE_READONLY, Cause::ReadOnly),
            (libsqlite3_sys::SQLITE_TOOBIG, Cause::Statement),
            (libsqlite3_sys::SQLITE_CONSTRAINT, Cause::Statement),
        ];
        for (code, expected) in known {
            // SAFETY: SQLite answers a static, NUL-terminated text for any code.
            let text = unsafe { CStr::from_ptr(libsqlite3_sys::sqlite3_errstr(code)) };
            let text = text.to_str().unwrap().to_owned();
            let error = Sql::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text.clone()));
            assert_eq!(cause(&error), expected, "{text}");
        }
    }

    #[test]
    fn a_full_database_and_a_locked_one_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let mut one = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        let mut two = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        one.batch_execute("CREATE TABLE t (b BLOB UNIQUE); PRAGMA max_page_count = 5; BEGIN IMMEDIATE")
            .unwrap();
        let locked = two.batch_execute("BEGIN IMMEDIATE").unwrap_err();
        assert!(matches!(of_statement(&locked), StoreError::NotDone(_)), "{locked}");
        let full = one.batch_execute("INSERT INTO t VALUES (zeroblob(100000))").unwrap_err();
        assert!(matches!(of_statement(&full), StoreError::Full(_)), "{full}");
        assert!(matches!(of_commit(&full, &path), StoreError::Full(_)));
        let twice = one.batch_execute("INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)").unwrap_err();
        assert!(is_statements(&twice), "{twice}");
    }

    #[test]
    fn a_device_that_failed_a_commit_ends_it_all() {
        let dir = tempfile::tempdir().unwrap();
        let failed = Sql::DatabaseError(DatabaseErrorKind::Unknown, Box::new("disk I/O error".to_owned()));
        assert!(matches!(of_commit(&failed, &dir.path().join("t.db")), StoreError::Fatal(_)));
        assert!(matches!(of_statement(&failed), StoreError::NotDone(_)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the probe is gone");
    }
}
