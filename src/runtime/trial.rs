//! Dry runs: stored states are read as a restore would read them. Nothing is written, no hook runs, and panics
//! are caught.
//!
//! A node that starts tries a sample of each kind's states in the background, so that a forgotten migration is
//! reported before it quarantines the first agent. `db verify` tries all of them ([`Trials`]).

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use super::{
    cell::restore::{RestoreError, decode_seen},
    crashes::{guard, install_hook},
    kind::AnyKind,
    node::Node,
};
use crate::{
    agent::{Agent, Persistence},
    model::{
        event::{self, Event, Level},
        id::AgentId,
        snapshot,
    },
    store::{AgentFilter, AgentRow, SeenState, StoreError, StoredStatus},
};

/// Of each kind so many states of another schema version are tried at the start, …
const OTHERS: usize = 32;
/// … so many of the program's own, …
const OWN: usize = 8;
/// … from among so many agents, in the order of their keys: pages of an index, whatever the table holds.
const LOOKED_AT: usize = 4_000;
/// Rows of one page.
const PAGE: usize = 1_000;
/// States that are read at once.
const READ_BATCH: usize = 8;
/// Past this time nothing more is begun.
const TIME_BUDGET: Duration = Duration::from_secs(10);
/// So many failures of a kind are told of one by one.
const MAX_REPORTED: usize = 5;

/// Reads a state as a restore would, and lets go of it.
pub(crate) fn dry<A: Agent>(state: SeenState<'_>) -> Result<(), RestoreError> {
    let agent = decode_seen::<A>(state)?;
    // its end is the user's code, and no concern of the state's
    let _ = guard(move || drop(agent));
    Ok(())
}

/// A dry run over the state of a row, which may hold none yet.
pub(crate) fn check(kind: &dyn AnyKind, row: &AgentRow) -> Result<(), RestoreError> {
    if row.version == 0 || snapshot::is_empty(&row.bytes) { Ok(()) } else { kind.try_state(row.seen()) }
}

/// A dry run over the states of a kind.
#[derive(Clone, Copy)]
pub(crate) struct DryKind {
    kind: &'static str,
    version: u32,
    read: fn(SeenState<'_>) -> Result<(), RestoreError>,
}

impl DryKind {
    pub(crate) fn of<A: Agent>() -> Self {
        Self { kind: A::KIND, version: A::VERSION, read: dry::<A> }
    }
}

/// How states read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Readings {
    /// As they are.
    pub as_they_are: u64,
    /// By a migration.
    pub migrated: u64,
    /// Not at all.
    pub unreadable: u64,
}

/// A state that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Misread {
    /// Whose.
    pub agent: String,
    /// Which state of the agent's.
    pub version: i64,
    /// The schema version that it has.
    pub schema_version: u32,
    /// Why, without what it holds.
    pub error: String,
}

/// How the states of one kind read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KindTrial {
    /// The kind.
    pub kind: String,
    /// The schema version that the program knows; absent where it does not know the kind, and so tries
    /// none of its states.
    pub version: Option<u32>,
    /// The present states.
    pub current: Readings,
    /// Those that are kept of earlier.
    pub kept: Readings,
    /// The first that cannot be read, the present ones before the kept.
    pub misread: Vec<Misread>,
}

impl KindTrial {
    fn new(kind: &str, version: Option<u32>) -> Self {
        let (current, kept) = (Readings::default(), Readings::default());
        Self { kind: kind.to_owned(), version, current, kept, misread: Vec::new() }
    }

    /// What is wrong, a line each. Earlier states that cannot be read are no problem until somebody wants
    /// them back.
    pub fn problems(&self) -> Vec<String> {
        let unreadable = self.current.unreadable;
        let of_current = usize::try_from(unreadable).unwrap_or(usize::MAX).min(self.misread.len());
        let line = |m: &Misread| {
            format!(
                "agent {}, version {}, schema version {}: {}",
                m.agent, m.version, m.schema_version, m.error
            )
        };
        let mut lines: Vec<String> = self.misread.iter().take(of_current).map(line).collect();
        let left = unreadable.saturating_sub(of_current as u64);
        if left > 0 {
            lines.push(format!("… and {left} more states of `{}` that cannot be read", self.kind));
        }
        lines
    }
}

/// Tries states, and counts by kinds how they read.
#[derive(Default)]
pub struct Trials {
    readers: BTreeMap<&'static str, DryKind>,
    kinds: BTreeMap<String, KindTrial>,
}

impl Trials {
    /// Trials of these kinds.
    pub(crate) fn of(kinds: impl IntoIterator<Item = DryKind>) -> Self {
        install_hook();
        let readers = kinds.into_iter().map(|kind| (kind.kind, kind)).collect();
        Self { readers, kinds: BTreeMap::new() }
    }

    /// Tries one.
    pub fn take(&mut self, state: SeenState<'_>) {
        let reader = self.readers.get(state.kind);
        let trial = match self.kinds.entry(state.kind.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(KindTrial::new(state.kind, reader.map(|r| r.version))),
        };
        let Some(reader) = reader else { return };
        let readings = if state.is_current { &mut trial.current } else { &mut trial.kept };
        match (reader.read)(state) {
            Ok(()) if state.schema_version < reader.version => readings.migrated += 1,
            Ok(()) => readings.as_they_are += 1,
            Err(error) => {
                readings.unreadable += 1;
                if trial.misread.len() < MAX_REPORTED {
                    trial.misread.push(Misread {
                        agent: format!("{}/{}", state.kind, state.key),
                        version: state.version,
                        schema_version: state.schema_version,
                        error: error.to_string(),
                    });
                }
            }
        }
    }

    /// What has come of it, by kinds; of those that have any states.
    pub fn told(self) -> Vec<KindTrial> {
        self.kinds.into_values().collect()
    }
}

/// Tries a sample of each kind's states, and logs what cannot be read. A sample that cannot be taken now is
/// not taken: the start does not depend on it.
pub(crate) async fn sample(node: Arc<Node>) {
    let until = Instant::now() + TIME_BUDGET;
    let (mut tried, mut failed) = (0, 0);
    for kind in &node.kinds {
        // what is not kept is not read either
        if matches!(kind.policy().persistence, Persistence::Volatile) {
            continue;
        }
        let Ok(tally) = sample_of(&node, kind, until).await else { continue };
        tried += tally.tried;
        for (schema_version, misread) in tally.misread {
            failed += misread.count;
            node.logger.emit(unreadable(&**kind, schema_version, misread));
        }
    }
    let event = Event::new(Level::Debug, event::STATE_TRIED, "node");
    node.logger.emit(event.field("tried", tried).field("unreadable", failed));
}

/// What came of a kind's sample.
#[derive(Default)]
struct Tally {
    tried: u64,
    /// By schema version.
    misread: BTreeMap<u32, Misreads>,
}

/// Those of one schema version that cannot be read.
struct Misreads {
    count: u64,
    /// The first of them, and why.
    agent: String,
    error: RestoreError,
}

async fn sample_of(node: &Arc<Node>, kind: &Arc<dyn AnyKind>, until: Instant) -> Result<Tally, StoreError> {
    let over = || node.is_closing() || Instant::now() >= until;
    let ids = choose(node, kind, &over).await?;
    let mut tally = Tally::default();
    for some in ids.chunks(READ_BATCH) {
        if over() {
            break;
        }
        let rows = node.store.load(some).await?;
        let kind = kind.clone();
        let read = move || {
            let rows = rows.into_iter().flatten().filter(is_wanted);
            rows.map(|row| (kind.try_state(row.seen()).err(), row)).collect::<Vec<_>>()
        };
        for (error, row) in aside(read).await {
            tally.tried += 1;
            let Some(error) = error else { continue };
            let first = || Misreads { count: 0, agent: format!("{}/{}", row.kind, row.key), error };
            tally.misread.entry(row.schema_version).or_insert_with(first).count += 1;
        }
    }
    Ok(tally)
}

/// Whether there is a state that a restore would read.
fn is_wanted(row: &AgentRow) -> bool {
    row.version > 0 && !matches!(row.status, StoredStatus::Quarantined | StoredStatus::Deleted)
}

/// Which agents are tried: those of other schema versions before those of the program's own.
async fn choose(
    node: &Node,
    kind: &Arc<dyn AnyKind>,
    over: &impl Fn() -> bool,
) -> Result<Vec<AgentId>, StoreError> {
    let (mut others, mut own) = (Vec::new(), Vec::new());
    let mut filter =
        AgentFilter { kind: Some(kind.name().to_owned()), limit: PAGE, ..AgentFilter::default() };
    for _ in 0..LOOKED_AT / PAGE {
        let page = node.store.agents(&filter).await?;
        for row in page.iter().filter(|row| is_wanted(row)) {
            if row.schema_version != kind.version() && others.len() < OTHERS {
                others.push(row.id);
            } else if row.schema_version == kind.version() && own.len() < OWN {
                own.push(row.id);
            }
        }
        let is_last = page.len() < PAGE || others.len() == OTHERS || over();
        match page.into_iter().next_back() {
            Some(last) if !is_last => filter.after = Some((last.kind, last.key)),
            _ => break,
        }
    }
    others.append(&mut own);
    Ok(others)
}

/// Runs users' code where it may take its time; where there is one thread alone, there.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Vec<T> + Send + 'static) -> Vec<T> {
    use tokio::runtime::{Handle, RuntimeFlavor};
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

fn unreadable(kind: &dyn AnyKind, schema_version: u32, misread: Misreads) -> Event {
    let (name, known) = (kind.name(), kind.version());
    let next = match &misread.error {
        RestoreError::Future { .. } => "upgrade the program; until then these agents are refused".to_owned(),
        RestoreError::Unreadable(_) if schema_version < known => format!(
            "have `{name}` migrate version {schema_version} before these agents are spoken to: they would be \
             quarantined; all are tried by: greenroom db verify"
        ),
        RestoreError::Unreadable(_) => {
            "these agents will be quarantined when they are spoken to; all are tried by: greenroom db verify"
                .to_owned()
        }
    };
    Event::new(Level::Warn, event::STATE_UNREADABLE, format!("kind:{name}"))
        .field("kind", name)
        .field("schema_version", schema_version)
        .field("known", known)
        .field("count", misread.count)
        .field("agent", misread.agent)
        .field("error", misread.error.to_string())
        .hint(next)
}
