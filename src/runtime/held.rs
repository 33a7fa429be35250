//! Which agents of a kind are paused, stopped or quarantined: all that the store knows of agents whose
//! state is not kept. Where it is known to say nothing of one, that one starts without asking it.
//!
//! The list is read once, and again when a partition comes under another epoch: as long as an epoch
//! holds, nobody else may write it, and what this node is about to write is noted first.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::node::Node;
use crate::{
    model::id::{AgentId, PARTITIONS},
    store::{AgentFilter, StoreError, StoredStatus},
};

/// A longer list is not kept: each agent is asked for then.
const MAX_HELD: usize = 100_000;
/// How much of it is read at once.
const PAGE: usize = 1_000;

/// The agents of a kind that may not start as they are.
pub(crate) struct Held {
    /// The epoch of each partition under which the list was read; 0: it was not.
    read_under: Vec<AtomicI64>,
    /// These, and some that were held once.
    ids: papaya::HashSet<AgentId>,
    overfull: AtomicBool,
    reading: tokio::sync::Mutex<()>,
}

impl Held {
    pub(crate) fn new() -> Self {
        Self {
            read_under: (0..PARTITIONS).map(|_| AtomicI64::new(0)).collect(),
            ids: papaya::HashSet::new(),
            overfull: AtomicBool::new(false),
            reading: tokio::sync::Mutex::new(()),
        }
    }

    /// Whether it is known that the store says nothing of an agent that is owned under `epoch`.
    pub(crate) fn excludes(&self, id: AgentId, epoch: i64) -> bool {
        let read = usize::try_from(id.partition()).ok().and_then(|p| self.read_under.get(p));
        let is_read = epoch != 0 && read.is_some_and(|under| under.load(Ordering::Acquire) == epoch);
        is_read && !self.ids.pin().contains(&id)
    }

    /// The status of an agent is about to be written.
    pub(crate) fn note(&self, id: AgentId) {
        self.ids.pin().insert(id);
    }

    /// Reads the list, unless it was read under the epochs that are in force.
    ///
    /// # Errors
    /// The store's; what was known is known on.
    pub(crate) async fn read(&self, node: &Node, kind: &str) -> Result<(), StoreError> {
        let _alone = self.reading.lock().await;
        // before the list: what another owner has written since then is not in it
        let epochs: Vec<i64> = (0..PARTITIONS).map(|p| node.owned.epoch(p)).collect();
        let known =
            self.read_under.iter().zip(&epochs).all(|(under, now)| under.load(Ordering::Acquire) == *now);
        if known || self.overfull.load(Ordering::Relaxed) {
            return Ok(());
        }
        for status in [StoredStatus::Paused, StoredStatus::Stopped, StoredStatus::Quarantined] {
            let mut filter =
                AgentFilter { kind: Some(kind.to_owned()), status: Some(status), after: None, limit: PAGE };
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
            under.store(epoch, Ordering::Release);
        }
        Ok(())
    }
}
