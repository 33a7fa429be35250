//! Opens the store that a URL names: one arm for each scheme.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{Migrations, StateReader, Store, StoreError, postgres, sqlite};

/// What an acknowledged commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A power cut.
    #[default]
    Full,
    /// The end of the process, but not a power cut.
    Relaxed,
}

/// States of so many bytes are compressed: just below where a row of Postgres's no longer fits into its page
/// and is written in pieces. Measured: see `docs/storage.md`.
const PACKED_FROM: usize = 7 << 8;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// What an acknowledged commit survives.
    pub durability: Durability,
    /// How many earlier states of an agent are kept.
    pub history: usize,
    /// An agent's state is kept at most once in so long.
    pub history_every: Duration,
    /// Connections for reads and claims, where the store has a pool of them.
    pub pool_size: usize,
    /// States of so many bytes are compressed, in a store that pays for bytes.
    pub packed_from: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            history: 8,
            history_every: Duration::from_secs(60),
            pool_size: 10,
            packed_from: PACKED_FROM,
        }
    }
}

/// What `db verify` found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Agents whose state was read.
    pub agents: u64,
    /// Earlier states that were read.
    pub snapshots: u64,
    /// Tasks, unfinished and ended, that were read.
    pub tasks: u64,
    /// Conversations that are not deleted.
    pub conversations: u64,
    /// Messages that were read.
    pub messages: u64,
    /// Sessions that were read.
    pub sessions: u64,
    /// Subscriptions that were read.
    pub subscriptions: u64,
    /// What is wrong, a line each. Empty when all is well.
    pub problems: Vec<String>,
}

enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

fn place(url: &str) -> Result<Place, StoreError> {
    let refused = |why: &str| Err(StoreError::Refused(why.to_owned()));
    match url.split_once("://") {
        Some(("sqlite", "")) => refused("the store's URL names no file: write sqlite://PATH"),
        Some(("sqlite", path)) if path.starts_with(":memory:") => {
            refused("a store in memory would lose what it acknowledged: write sqlite://PATH")
        }
        Some(("sqlite", path)) => Ok(Place::Sqlite(PathBuf::from(path))),
        Some(("postgres" | "postgresql", _)) => Ok(Place::Postgres(url.to_owned())),
        // the URL may hold a password: it is not repeated
        _ => refused(
            "the store's URL is not one that this program knows: write sqlite://PATH or \
             postgres://USER:PASSWORD@HOST/DATABASE",
        ),
    }
}

/// Opens the store at `url` (`sqlite://PATH`, `postgres://USER:PASSWORD@HOST/DATABASE`) and brings its
/// tables up to date. Blocks shortly. Connections live on the runtime that calls this.
///
/// # Errors
/// [`StoreError::Refused`] where the URL names no store, where a newer program made the tables, where
/// the database holds somebody else's and none of ours, or where the device or the server cannot keep
/// the durability that was asked for. [`StoreError::NotDone`] where the server cannot be reached.
pub async fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    match place(url)? {
        Place::Sqlite(path) => Ok(Arc::new(sqlite::SqliteStore::open(&path, options)?)),
        Place::Postgres(url) => Ok(Arc::new(postgres::open(&url, options).await?)),
    }
}

/// Brings the tables at `url` up to date, whatever else is there; the names of what was applied.
///
/// # Errors
/// As [`open`].
pub async fn migrate(url: &str) -> Result<Vec<String>, StoreError> {
    match place(url)? {
        Place::Sqlite(path) => sqlite::migrate(&path),
        Place::Postgres(url) => postgres::migrate(&url).await,
    }
}

/// Which migrations the store at `url` has seen.
///
/// # Errors
/// As [`open`]; a store made by a newer program is no error here.
pub async fn migration_status(url: &str) -> Result<Migrations, StoreError> {
    match place(url)? {
        Place::Sqlite(path) => sqlite::migration_status(&path),
        Place::Postgres(url) => postgres::migration_status(&url).await,
    }
}

/// What a store runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// `sqlite` or `postgres`, with its version, as [`Store::name`] tells it.
    pub name: String,
    /// What its clock says, where it has one of its own.
    pub clock: Option<Timestamp>,
}

/// What the store at `url` runs on. A file need not be there for it.
///
/// # Errors
/// As [`open`].
pub async fn engine(url: &str) -> Result<Engine, StoreError> {
    match place(url)? {
        Place::Sqlite(_) => Ok(Engine { name: sqlite::name(), clock: None }),
        Place::Postgres(url) => postgres::engine(&url).await,
    }
}

/// Copies the store at `url` into a new file, as it stands at one moment, while nodes go on: how many bytes
/// that has. `None`: it is on a server, whose own tools do that. Blocks while it does.
///
/// # Errors
/// [`StoreError::Refused`] where there is no store, or the file is there already; [`StoreError::NotDone`] and
/// [`StoreError::Full`] where it cannot be written. Nothing is left behind then.
pub async fn backup(url: &str, to: &Path) -> Result<Option<u64>, StoreError> {
    match place(url)? {
        Place::Sqlite(path) => sqlite::backup(&path, to).map(Some),
        Place::Postgres(_) => Ok(None),
    }
}

/// Reads all that is kept at `url`: the file's integrity, every state against its row, every
/// payload, the counters.
///
/// # Errors
/// Where it cannot be read at all; what is wrong with what it holds stands in the report.
pub async fn verify(url: &str) -> Result<VerifyReport, StoreError> {
    verify_with(url, &mut |_| {}).await
}

/// As [`verify`], showing each sound state to `reader`, the present one of each agent and those kept of
/// earlier. Blocks while it does.
///
/// # Errors
/// As [`verify`].
pub async fn verify_with<'r>(url: &str, reader: &'r mut StateReader<'r>) -> Result<VerifyReport, StoreError> {
    match place(url)? {
        Place::Sqlite(path) => sqlite::verify(&path, reader),
        Place::Postgres(url) => postgres::verify(&url, reader).await,
    }
}
