//! The peer on disk: the same rows written and read by a bare loop on one SQLite connection, with
//! prepared statements, WAL and `synchronous = FULL`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use diesel::{
    connection::SimpleConnection,
    prelude::*,
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_types::{BigInt, Binary},
    sqlite::Sqlite,
};

use super::{doc::Doc, measure::p50};

diesel::table! {
    greenroom_agents (id) {
        id -> Binary,
        partition -> SmallInt,
        kind -> Text,
        key -> Text,
        status -> SmallInt,
        epoch -> BigInt,
        version -> BigInt,
        schema_version -> BigInt,
        created_at -> BigInt,
        updated_at -> BigInt,
        state -> Binary,
    }
}
use greenroom_agents::dsl as agents;

/// The table and its index as the store has them.
const TABLE: &str = "
    CREATE TABLE greenroom_agents (
        id BLOB NOT NULL PRIMARY KEY, partition SMALLINT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
        status SMALLINT NOT NULL, reason TEXT, epoch BIGINT NOT NULL, version BIGINT NOT NULL,
        schema_version BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL,
        state BLOB NOT NULL
    );
    CREATE UNIQUE INDEX greenroom_agents_name ON greenroom_agents (kind, key);
    CREATE TABLE messages (
        conversation BLOB NOT NULL, seq BIGINT NOT NULL, id BLOB NOT NULL UNIQUE, role TEXT NOT NULL,
        content BLOB NOT NULL, PRIMARY KEY (conversation, seq)
    );";

/// Documents in a file, and the connection that writes them.
pub struct Bare {
    conn: SqliteConnection,
    docs: Vec<Doc>,
    next: usize,
}

/// A connection as the store's writer has it.
pub fn connect(file: &Path) -> anyhow::Result<SqliteConnection> {
    let mut conn = SqliteConnection::establish(&file.to_string_lossy())?;
    conn.batch_execute(
        "PRAGMA page_size = 2048; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
         PRAGMA cache_size = -8000; PRAGMA wal_autocheckpoint = 8000; PRAGMA mmap_size = 268435456;",
    )?;
    Ok(conn)
}

/// The one statement of the loops, prepared once: diesel's own `UPDATE`s are prepared anew at each
/// execution, which would be a handicap for the peer.
struct Write {
    id: [u8; 16],
    version: i64,
    state: Vec<u8>,
}

impl QueryId for Write {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Sqlite> for Write {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("UPDATE greenroom_agents SET epoch = 1, schema_version = 1, updated_at = ");
        out.push_bind_param::<BigInt, _>(&self.version)?;
        out.push_sql(", state = ");
        out.push_bind_param::<Binary, _>(&self.state)?;
        out.push_sql(", version = 1 + ");
        out.push_bind_param::<BigInt, _>(&self.version)?;
        out.push_sql(" WHERE id = ");
        out.push_bind_param::<Binary, _>(&self.id[..])?;
        out.push_sql(" AND version = ");
        out.push_bind_param::<BigInt, _>(&self.version)
    }
}

impl<C> RunQueryDsl<C> for Write {}

/// A message of a turn's.
struct Say<'a> {
    conversation: [u8; 16],
    seq: i64,
    id: [u8; 16],
    content: &'a [u8],
}

impl QueryId for Say<'_> {
    type QueryId = Say<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Sqlite> for Say<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("INSERT INTO messages (conversation, seq, id, role, content) VALUES (");
        out.push_bind_param::<Binary, _>(&self.conversation[..])?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.seq)?;
        out.push_sql(", ");
        out.push_bind_param::<Binary, _>(&self.id[..])?;
        out.push_sql(", 'assistant', ");
        out.push_bind_param::<Binary, _>(self.content)?;
        out.push_sql(")");
        Ok(())
    }
}

impl<C> RunQueryDsl<C> for Say<'_> {}

fn id(n: usize) -> [u8; 16] {
    (n as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).to_be_bytes()
}

impl Bare {
    pub fn new(file: &Path, docs: usize) -> anyhow::Result<Self> {
        let mut conn = connect(file)?;
        conn.batch_execute(TABLE)?;
        let docs = vec![Doc::default(); docs];
        conn.transaction(|conn| {
            for (n, doc) in docs.iter().enumerate() {
                diesel::insert_into(agents::greenroom_agents)
                    .values((
                        agents::id.eq(&id(n)[..]),
                        agents::partition.eq(0),
                        agents::kind.eq("doc"),
                        agents::key.eq(n.to_string()),
                        agents::status.eq(0),
                        agents::epoch.eq(1),
                        agents::version.eq(0),
                        agents::schema_version.eq(1),
                        agents::created_at.eq(0),
                        agents::updated_at.eq(0),
                        agents::state.eq(doc.json()),
                    ))
                    .execute(conn)?;
            }
            QueryResult::Ok(())
        })?;
        Ok(Self { conn, docs, next: 0 })
    }

    /// A turn of the next document: the same work, the same row, written under the same guard; whose
    /// and which it was.
    fn write(&mut self) -> QueryResult<([u8; 16], i64)> {
        let n = self.next;
        self.next = (self.next + 1) % self.docs.len().max(1);
        let Some(doc) = self.docs.get_mut(n) else { return Err(diesel::result::Error::NotFound) };
        let (id, version) = (id(n), doc.bump() as i64 - 1);
        let state = doc.json();
        let changed = Write { id, version, state }.execute(&mut self.conn)?;
        if changed == 1 { Ok((id, version)) } else { Err(diesel::result::Error::NotFound) }
    }

    /// Turns a second that append a message, so many to a commit.
    pub fn saying(&mut self, content: &[u8], batch: usize, stretch: Duration) -> anyhow::Result<f64> {
        let (begun, mut n) = (Instant::now(), 0_u64);
        while begun.elapsed() < stretch {
            self.conn.batch_execute("BEGIN IMMEDIATE")?;
            for _ in 0..batch {
                let (conversation, seq) = self.write()?;
                let id = uuid::Uuid::now_v7().into_bytes();
                Say { conversation, seq, id, content }.execute(&mut self.conn)?;
            }
            self.conn.batch_execute("COMMIT")?;
            n += batch as u64;
        }
        Ok(n as f64 / begun.elapsed().as_secs_f64())
    }

    /// Turns a second, each a commit of its own.
    pub fn one_by_one(&mut self, stretch: Duration) -> anyhow::Result<f64> {
        let (begun, mut n) = (Instant::now(), 0_u64);
        while begun.elapsed() < stretch {
            self.write()?;
            n += 1;
        }
        Ok(n as f64 / begun.elapsed().as_secs_f64())
    }

    /// Turns a second, so many to a commit.
    pub fn batched(&mut self, batch: usize, stretch: Duration) -> anyhow::Result<f64> {
        let (begun, mut n) = (Instant::now(), 0_u64);
        while begun.elapsed() < stretch {
            self.conn.batch_execute("BEGIN IMMEDIATE")?;
            for _ in 0..batch {
                self.write()?;
            }
            self.conn.batch_execute("COMMIT")?;
            n += batch as u64;
        }
        Ok(n as f64 / begun.elapsed().as_secs_f64())
    }

    /// The median of a commit, in microseconds.
    pub fn commit_p50(&mut self, n: usize) -> anyhow::Result<f64> {
        let mut took = Vec::with_capacity(n);
        for _ in 0..n {
            let begun = Instant::now();
            self.write()?;
            took.push(begun.elapsed());
        }
        Ok(p50(took))
    }
}

/// Reads documents by key and parses them: how long each took.
pub fn read(
    conn: &mut SqliteConnection,
    keys: impl Iterator<Item = String>,
) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    for key in keys {
        let begun = Instant::now();
        let (_, frame) = agents::greenroom_agents
            .filter(agents::kind.eq("doc"))
            .filter(agents::key.eq(key))
            .select((agents::version, agents::state))
            .first::<(i64, Vec<u8>)>(conn)?;
        let body = frame.get(HEADER_BYTES..).unwrap_or_default();
        std::hint::black_box(serde_json::from_slice::<Doc>(body)?);
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// The store frames a state with a header of this size.
const HEADER_BYTES: usize = greenroom::model::snapshot::HEADER_BYTES;
