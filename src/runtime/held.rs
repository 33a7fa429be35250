//! Caches which volatile agents are paused, stopped or quarantined, so that the others start without a store
//! read.
//!
//! The list is read once, and again when a partition gets another epoch: under one epoch no other node may write
//! it, and this node notes what it is about to write first.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use super::node::Node;
use crate::{
    model::id::{AgentId, PARTITIONS},
    store::{AgentFilter, StoreError, StoredStatus},
};

/// A longer list is not kept: then each agent is looked up in the store.
const MAX_HELD: usize = 100_000;
/// How much of it is read at once.
const PAGE: usize = 1_000;

/// The agents of a kind that are held.
pub(crate) struct Held {
    /// The epoch of each partition under which the list was read; 0: it was not.
    read_under: Vec<AtomicI64>,
    /// These, and some that were held once.
    ids: dashmap::DashSet<AgentId>,
    overfull: AtomicBool,
    /// How many reads have begun.
    begun: AtomicU64,
    /// Held by who reads: how the last read that has ended went.
    last: tokio::sync::Mutex<Last>,
}

struct Last {
    /// Its number, from 1.
    read: u64,
    outcome: Result<(), StoreError>,
}

impl Held {
    pub(crate) fn new() -> Self {
        Self {
            read_under: (0..PARTITIONS).map(|_| AtomicI64::new(0)).collect(),
            ids: dashmap::DashSet::new(),
            overfull: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            last: tokio::sync::Mutex::new(Last { read: 0, outcome: Ok(()) }),
        }
    }

    /// Whether the store is known to have no row for an agent that is owned under `epoch`.
    pub(crate) fn excludes(&self, id: AgentId, epoch: i64) -> bool {
        let read = usize::try_from(id.partition()).ok().and_then(|p| self.read_under.get(p));
        let is_read = epoch != 0 && read.is_some_and(|under| under.load(Ordering::Acquire) == epoch);
        is_read && !self.ids.contains(&id)
    }

    /// The status of an agent is about to be written.
    pub(crate) fn note(&self, id: AgentId) {
        self.ids.insert(id);
    }

    /// Reads the list, unless it was read under the epochs that are in force, or is read meanwhile: of those
    /// who come together one reads for all.
    ///
    /// # Errors
    /// The store's; what was known is known on.
    pub(crate) async fn read(&self, node: &Node, kind: &str) -> Result<(), StoreError> {
        let epochs = || (0..PARTITIONS).map(|p| node.owned.epoch(p)).collect::<Vec<_>>();
        if self.is_known(&epochs()) {
            return Ok(());
        }
        let before = self.begun.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        // before the list: what another owner has written since then is not in it
        let epochs = epochs();
        if self.is_known(&epochs) {
            return Ok(());
        }
        // One that failed since this one came fails it too: they are not to fail one after another.
        if last.read > before && last.outcome.is_err() {
            return last.outcome.clone();
        }
        let read = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let outcome = self.take(node, kind, &epochs).await;
        *last = Last { read, outcome: outcome.clone() };
        outcome
    }

    fn is_known(&self, epochs: &[i64]) -> bool {
        let mut read = self.read_under.iter().zip(epochs);
        read.all(|(under, now)| under.load(Ordering::Acquire) == *now)
            || self.overfull.load(Ordering::Relaxed)
    }

    async fn take(&self, node: &Node, kind: &str, epochs: &[i64]) -> Result<(), StoreError> {
        for status in [StoredStatus::Paused, StoredStatus::Stopped, StoredStatus::Quarantined] {
            let mut filter = AgentFilter {
                kind: Some(kind.to_owned()),
                status: Some(status),
                limit: PAGE,
                ..AgentFilter::default()
            };
            loop {
                let page = node.store.agents(&filter).await?;
                page.iter().for_each(|row| self.note(row.id));
                if self.ids.len() > MAX_HELD {
                    self.overfull.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                match page.last() {
                    Some(last) if page.len() == PAGE => {
                        filter.after = Some((last.kind.clone(), last.key.clone()));
                    }
                    _ => break,
                }
            }
        }
        for (under, epoch) in self.read_under.iter().zip(epochs) {
            under.store(*epoch, Ordering::Release);
        }
        Ok(())
    }
}
