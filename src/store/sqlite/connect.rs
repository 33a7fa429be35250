//! Connections: pragmas that are read back, and migrations.

use std::path::Path;

use diesel::{connection::SimpleConnection, migration::MigrationSource, prelude::*, sqlite::Sqlite};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::error;
use crate::store::{Durability, Migrations, StoreError};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Writer(Durability),
    Reader,
}

/// Opens the file and sets what must be set; what matters is read back.
pub(super) fn connect(path: &Path, role: Role) -> Result<SqliteConnection, StoreError> {
    let shown = path.display();
    let refused = |e: &dyn std::fmt::Display| StoreError::Refused(format!("cannot open {shown}: {e}"));
    if let (Role::Writer(_), Some(folder)) = (role, path.parent().filter(|p| !p.as_os_str().is_empty())) {
        std::fs::create_dir_all(folder).map_err(|e| refused(&e))?;
    }
    // an absolute path is never taken for one of SQLite's own URIs
    let absolute = std::path::absolute(path).map_err(|e| refused(&e))?;
    let name = absolute.to_str().ok_or_else(|| refused(&"its path is not UTF-8"))?;
    let mut conn = SqliteConnection::establish(name).map_err(|e| refused(&e))?;
    let common = "PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; \
                  PRAGMA mmap_size = 268435456;";
    let own = match role {
        Role::Writer(durability) => format!(
            // small pages: a commit logs every page that it touches, and most states are small
            "PRAGMA page_size = 2048; PRAGMA journal_mode = WAL; PRAGMA synchronous = {}; \
             PRAGMA cache_size = -8000; PRAGMA wal_autocheckpoint = 8000; \
             PRAGMA journal_size_limit = 67108864;",
            match durability {
                Durability::Full => "FULL",
                Durability::Relaxed => "NORMAL",
            }
        ),
        Role::Reader => "PRAGMA query_only = ON; PRAGMA cache_size = -2000;".to_owned(),
    };
    conn.batch_execute(&format!("{common} {own}")).map_err(|e| refused(&e))?;
    if let Role::Writer(durability) = role {
        check(&mut conn, durability)?;
    }
    Ok(conn)
}

#[derive(QueryableByName)]
struct Journal {
    #[diesel(sql_type = diesel::sql_types::Text)]
    journal_mode: String,
}

#[derive(QueryableByName)]
struct Synchronous {
    #[diesel(sql_type = diesel::sql_types::Integer)]
    synchronous: i32,
}

/// Refuses a database that would lose what it acknowledges.
fn check(conn: &mut SqliteConnection, durability: Durability) -> Result<(), StoreError> {
    let of = |e| error::of_statement(&e);
    let journal: Journal = diesel::sql_query("PRAGMA journal_mode").get_result(conn).map_err(of)?;
    if !journal.journal_mode.eq_ignore_ascii_case("wal") {
        return Err(StoreError::Refused(format!(
            "the database runs with journal_mode = {}, not WAL: its file system may not allow it",
            journal.journal_mode
        )));
    }
    let level: Synchronous = diesel::sql_query("PRAGMA synchronous").get_result(conn).map_err(of)?;
    let wanted = match durability {
        Durability::Full => 2,
        Durability::Relaxed => 1,
    };
    if level.synchronous < wanted {
        return Err(StoreError::Refused(format!(
            "the database runs with synchronous = {}: acknowledged work would not survive a power cut",
            level.synchronous
        )));
    }
    Ok(())
}

/// Brings the tables up to date; the names of what was applied.
pub(super) fn migrate(conn: &mut SqliteConnection) -> Result<Vec<String>, StoreError> {
    let status = status(conn)?;
    if let Some(unknown) = status.unknown.first() {
        return Err(StoreError::Refused(format!(
            "the store was made by a newer greenroom (it has migration {unknown}): run that one"
        )));
    }
    if status.pending.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |e: &dyn std::fmt::Display| StoreError::NotDone(format!("a migration failed: {e}"));
    conn.run_pending_migrations(MIGRATIONS).map_err(|e| failed(&e))?;
    Ok(status.pending)
}

/// The migrations of this program: version and name, oldest first.
fn known() -> Result<Vec<(String, String)>, StoreError> {
    let known =
        MigrationSource::<Sqlite>::migrations(&MIGRATIONS).map_err(|e| StoreError::NotDone(e.to_string()))?;
    let mut known: Vec<(String, String)> =
        known.iter().map(|m| (m.name().version().to_string(), m.name().to_string())).collect();
    known.sort();
    Ok(known)
}

/// The status of a database that does not exist yet.
pub(super) fn nothing_applied() -> Result<Migrations, StoreError> {
    let pending = known()?.into_iter().map(|(_, name)| name).collect();
    Ok(Migrations { applied: Vec::new(), pending, unknown: Vec::new() })
}

/// Which migrations the database has seen.
pub(super) fn status(conn: &mut SqliteConnection) -> Result<Migrations, StoreError> {
    let of = |e: Box<dyn std::error::Error + Send + Sync>| StoreError::NotDone(e.to_string());
    let known = known()?;
    let applied: Vec<String> =
        conn.applied_migrations().map_err(of)?.into_iter().map(|v| v.to_string()).collect();
    let names = |has: bool| {
        let names = known.iter().filter(|(version, _)| applied.contains(version) == has);
        names.map(|(_, name)| name.clone()).collect()
    };
    let mut unknown: Vec<String> =
        applied.iter().filter(|v| !known.iter().any(|(version, _)| version == *v)).cloned().collect();
    unknown.sort();
    Ok(Migrations { applied: names(true), pending: names(false), unknown })
}
