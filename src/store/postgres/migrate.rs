//! Migrations: the tables of this program, and whether a database is ours to use.
//!
//! All that are pending run in one transaction, under a lock that only one node holds: of two nodes
//! that start together, one migrates and the other finds it done. What was applied stands in a table
//! of our own: diesel's may belong to another program in the same database.

use jiff::Timestamp;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::error;
use crate::store::{Migrations, StoreError};

/// This program's migrations, oldest first; none of them begins or ends a transaction.
const ALL: &[(&str, &str)] = &[
    ("00000000000001_ground", include_str!("../../../migrations/postgres/00000000000001_ground/up.sql")),
    (
        "00000000000002_conversations",
        include_str!("../../../migrations/postgres/00000000000002_conversations/up.sql"),
    ),
    (
        "00000000000003_subscriptions",
        include_str!("../../../migrations/postgres/00000000000003_subscriptions/up.sql"),
    ),
    ("00000000000004_crashes", include_str!("../../../migrations/postgres/00000000000004_crashes/up.sql")),
    (
        "00000000000005_schedules",
        include_str!("../../../migrations/postgres/00000000000005_schedules/up.sql"),
    ),
    ("00000000000006_claims", include_str!("../../../migrations/postgres/00000000000006_claims/up.sql")),
    ("00000000000007_journal", include_str!("../../../migrations/postgres/00000000000007_journal/up.sql")),
    (
        "00000000000008_known_ids",
        include_str!("../../../migrations/postgres/00000000000008_known_ids/up.sql"),
    ),
    (
        "00000000000009_dead_letters",
        include_str!("../../../migrations/postgres/00000000000009_dead_letters/up.sql"),
    ),
    ("00000000000010_drain", include_str!("../../../migrations/postgres/00000000000010_drain/up.sql")),
    ("00000000000011_begin", include_str!("../../../migrations/postgres/00000000000011_begin/up.sql")),
    ("00000000000012_access", include_str!("../../../migrations/postgres/00000000000012_access/up.sql")),
    ("00000000000013_settings", include_str!("../../../migrations/postgres/00000000000013_settings/up.sql")),
    (
        "00000000000014_deletions",
        include_str!("../../../migrations/postgres/00000000000014_deletions/up.sql"),
    ),
    ("00000000000015_since", include_str!("../../../migrations/postgres/00000000000015_since/up.sql")),
    (
        "00000000000016_dismissals",
        include_str!("../../../migrations/postgres/00000000000016_dismissals/up.sql"),
    ),
    ("00000000000017_edges", include_str!("../../../migrations/postgres/00000000000017_edges/up.sql")),
    ("00000000000018_unpark", include_str!("../../../migrations/postgres/00000000000018_unpark/up.sql")),
    ("00000000000019_running", include_str!("../../../migrations/postgres/00000000000019_running/up.sql")),
    ("00000000000020_ends", include_str!("../../../migrations/postgres/00000000000020_ends/up.sql")),
    ("00000000000021_joins", include_str!("../../../migrations/postgres/00000000000021_joins/up.sql")),
    ("00000000000022_queues", include_str!("../../../migrations/postgres/00000000000022_queues/up.sql")),
    ("00000000000023_tasks", include_str!("../../../migrations/postgres/00000000000023_tasks/up.sql")),
    ("00000000000024_starts", include_str!("../../../migrations/postgres/00000000000024_starts/up.sql")),
    ("00000000000025_retries", include_str!("../../../migrations/postgres/00000000000025_retries/up.sql")),
    (
        "00000000000026_broken_off",
        include_str!("../../../migrations/postgres/00000000000026_broken_off/up.sql"),
    ),
    ("00000000000027_attempts", include_str!("../../../migrations/postgres/00000000000027_attempts/up.sql")),
    ("00000000000028_counts", include_str!("../../../migrations/postgres/00000000000028_counts/up.sql")),
    ("00000000000029_plans", include_str!("../../../migrations/postgres/00000000000029_plans/up.sql")),
    ("00000000000030_inputs", include_str!("../../../migrations/postgres/00000000000030_inputs/up.sql")),
];

/// Of those who migrate, the lock: any number, as long as it is always this one.
const LOCK: i64 = 0x6772_6565_6e72_6f6f;

/// Where it is kept what was applied.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS greenroom_migrations (\
                     version text PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())";

/// What people other than us keep in the schema that is ours to use; extensions bring their own.
const FOREIGN: &str = "SELECT c.relname FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace \
                       AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname NOT LIKE 'greenroom\\_%' \
                       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass \
                       AND d.objid = c.oid AND d.deptype = 'e') ORDER BY c.relname LIMIT 1";

fn version(name: &str) -> &str {
    name.split_once('_').map_or(name, |(version, _)| version)
}

/// The first column of what a query answers.
async fn column(client: &Client, query: &str) -> Result<Vec<String>, StoreError> {
    let answer = client.simple_query(query).await.map_err(|e| error::of_client(&e))?;
    let cell = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(str::to_owned),
        _ => None,
    };
    Ok(answer.iter().filter_map(cell).collect())
}

async fn applied(client: &Client) -> Result<Option<Vec<String>>, StoreError> {
    if column(client, "SELECT to_regclass('greenroom_migrations')").await?.is_empty() {
        return Ok(None);
    }
    column(client, "SELECT version FROM greenroom_migrations ORDER BY version").await.map(Some)
}

fn compare(applied: &[String]) -> Migrations {
    let names = |has: bool| {
        let names = ALL.iter().map(|(name, _)| *name);
        names.filter(|name| applied.iter().any(|a| a == version(name)) == has).map(str::to_owned).collect()
    };
    let is_known = |a: &&String| ALL.iter().any(|(name, _)| version(name) == *a);
    let unknown = applied.iter().filter(|a| !is_known(a)).cloned().collect();
    Migrations { applied: names(true), pending: names(false), unknown }
}

/// Which migrations the database has seen. Changes nothing.
pub(super) async fn status(client: &Client) -> Result<Migrations, StoreError> {
    Ok(compare(&applied(client).await?.unwrap_or_default()))
}

/// The server's version as a number, and what its clock says.
pub(super) async fn server(client: &Client) -> Result<(u32, Timestamp), StoreError> {
    const SAYS: &str = "SELECT current_setting('server_version_num') || ' ' || \
                        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let said = column(client, SAYS).await?;
    let read = |text: &String| {
        let (version, micros) = text.split_once(' ')?;
        Some((version.parse().ok()?, Timestamp::from_microsecond(micros.parse().ok()?).ok()?))
    };
    let unclear =
        || StoreError::Corrupt("the server does not say which it is and what time it is".to_owned());
    said.first().and_then(read).ok_or_else(unclear)
}

/// Brings the tables up to date, whatever else the database holds; the names of what was applied.
pub(super) async fn migrate(client: &Client) -> Result<Vec<String>, StoreError> {
    // a node that finds all done waits for no lock
    let seen = applied(client).await?;
    if let Some(seen) = seen
        && let done = refuse_newer(compare(&seen))?
        && done.pending.is_empty()
    {
        return Ok(Vec::new());
    }
    let work = async {
        let run = async |sql: &str| client.batch_execute(sql).await.map_err(|e| error::of_client(&e));
        // a table may be big, and the lock held by whoever came first
        run("BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
             SET LOCAL idle_in_transaction_session_timeout = 0")
        .await?;
        run(&format!("SELECT pg_advisory_xact_lock({LOCK}); {TABLE}")).await?;
        let pending = refuse_newer(compare(&applied(client).await?.unwrap_or_default()))?.pending;
        for (name, sql) in ALL.iter().filter(|(name, _)| pending.iter().any(|p| p == name)) {
            let failed = |e: StoreError| match e {
                StoreError::NotDone(why) => StoreError::NotDone(format!("migration {name} failed: {why}")),
                other => other,
            };
            run(sql).await.map_err(failed)?;
            let version = version(name);
            run(&format!("INSERT INTO greenroom_migrations (version, name) VALUES ('{version}', '{name}')"))
                .await?;
        }
        run("COMMIT").await?;
        Ok(pending)
    };
    let result = work.await;
    if result.is_err() {
        // for a client that goes on to be used; the server does it for one that is dropped
        let _ = client.batch_execute("ROLLBACK").await;
    }
    result
}

fn refuse_newer(status: Migrations) -> Result<Migrations, StoreError> {
    match status.unknown.first() {
        Some(unknown) => Err(StoreError::Refused(format!(
            "the store was made by a newer greenroom (it has migration {unknown}): run that one"
        ))),
        None => Ok(status),
    }
}

/// As [`migrate`], but only where the database is empty or ours already.
pub(super) async fn open(client: &Client) -> Result<Vec<String>, StoreError> {
    if applied(client).await?.is_none()
        && let Some(table) = column(client, FOREIGN).await?.first()
    {
        return Err(StoreError::Refused(format!(
            "the database holds tables of somebody else ({table}) and none of ours: if it is the right one, \
             make ours beside them with `greenroom db migrate`"
        )));
    }
    migrate(client).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::{connect::Source, server::Database, url::Url},
        *,
    };
    use crate::store::Durability;

    async fn client(url: &str) -> Client {
        let source = Source::new(Url::parse(url).unwrap(), Durability::Relaxed).unwrap();
        source.client(None).await.unwrap().0
    }

    fn all() -> Vec<String> {
        ALL.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    #[test]
    fn every_folder_is_a_migration() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
        let folders = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut folders: Vec<String> = folders.collect();
        folders.sort();
        assert_eq!(folders, all());
        let versions: std::collections::BTreeSet<&str> = ALL.iter().map(|(name, _)| version(name)).collect();
        assert_eq!(versions.len(), ALL.len(), "two of one version");
    }

    #[tokio::test]
    async fn an_empty_database_is_migrated_once() {
        let database = Database::new();
        let client = client(&database.url()).await;
        let before = status(&client).await.unwrap();
        assert_eq!((before.applied.len(), before.pending), (0, all()));
        assert_eq!(database.psql("SELECT count(*) FROM pg_class WHERE relname LIKE 'greenroom%'"), "0");
        assert_eq!(open(&client).await.unwrap(), all());
        assert_eq!(open(&client).await.unwrap(), Vec::<String>::new());
        assert_eq!(status(&client).await.unwrap().applied, all());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_many_that_start_together_one_migrates() {
        let database = Database::new();
        let url = Arc::new(database.url());
        let nodes = (0..8).map(|_| {
            let url = Arc::clone(&url);
            tokio::spawn(async move { open(&client(&url).await).await.unwrap() })
        });
        let mut applied = Vec::new();
        for node in nodes.collect::<Vec<_>>() {
            applied.extend(node.await.unwrap());
        }
        assert_eq!(applied, all());
    }

    #[tokio::test]
    async fn somebody_elses_database_is_used_only_when_told() {
        let database = Database::new();
        database
            .psql("CREATE TABLE customers (id int); CREATE TABLE __diesel_schema_migrations (version text)");
        database.psql("INSERT INTO __diesel_schema_migrations VALUES ('20990101')");
        let client = client(&database.url()).await;
        let refused = open(&client).await.unwrap_err().to_string();
        assert!(refused.contains("db migrate") && refused.contains("somebody else"), "{refused}");
        assert_eq!(database.psql("SELECT count(*) FROM pg_class WHERE relname LIKE 'greenroom%'"), "0");
        assert_eq!(migrate(&client).await.unwrap(), all());
        assert_eq!(open(&client).await.unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn an_extensions_view_is_nobodys_table() {
        let database = Database::new();
        // the one extension that every server has takes it in
        database.psql("CREATE VIEW statistics AS SELECT 1; ALTER EXTENSION plpgsql ADD VIEW statistics");
        assert_eq!(open(&client(&database.url()).await).await.unwrap(), all());
    }

    #[tokio::test]
    async fn a_newer_database_is_refused_and_left_as_it_is() {
        let database = Database::new();
        let client = client(&database.url()).await;
        open(&client).await.unwrap();
        database.psql("INSERT INTO greenroom_migrations (version, name) VALUES ('99999999999999', 'later')");
        for result in [open(&client).await, migrate(&client).await] {
            let refused = result.unwrap_err();
            assert!(matches!(&refused, StoreError::Refused(t) if t.contains("newer")), "{refused}");
        }
        assert_eq!(status(&client).await.unwrap().unknown, ["99999999999999"]);
    }
}
