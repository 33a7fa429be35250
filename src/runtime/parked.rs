//! Unparks tasks left behind when a node died between reopening an agent and unparking its tasks.
//!
//! While a person edits an agent's state its tasks are parked, which only the memory of that process knows.
//! Ending a pause or a stop likewise takes two steps: first the status, then the tasks. So a node that takes
//! partitions over looks through the tasks that are parked there.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::node::Node;
use crate::{
    model::id::{AgentId, Target},
    store::{StoreError, StoredStatus},
};

/// How many agents are looked at at once.
const PAGE: usize = 1_000;
/// What could not be asked is asked again after this time.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Looks through the parked tasks at the start, and whenever the node takes something over, until `end`.
pub(crate) async fn keep(node: Arc<Node>, end: CancellationToken) {
    while !end.is_cancelled() {
        // In a task of its own: a call of the store is not dropped half way.
        let looked = node.runtime.spawn(bring_back(node.clone())).await;
        let failed = !matches!(looked, Ok(Ok(())));
        tokio::select! {
            () = node.parked.notified() => {}
            () = tokio::time::sleep(RETRY_DELAY), if failed => {}
            () = end.cancelled() => {}
        }
    }
}

impl Node {
    /// Lets the parked tasks of an agent wait again that takes messages; what of it fails is tried again without
    /// anybody asking.
    pub(crate) async fn unpark(&self, subject: &str) -> Result<(), StoreError> {
        match self.store.park(subject, false).await {
            Ok(0) => Ok(()),
            Ok(_) => {
                self.wake_dispatcher(true);
                Ok(())
            }
            Err(error) => {
                self.parked.notify_one();
                Err(error)
            }
        }
    }
}

async fn bring_back(node: Arc<Node>) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    loop {
        let targets = node.store.parked(after.as_deref(), PAGE).await?;
        let Some(last) = targets.last().cloned() else { return Ok(()) };
        let agents: Vec<(AgentId, &str, &str)> = targets.iter().filter_map(|t| ours(&node, t)).collect();
        let ids: Vec<AgentId> = agents.iter().map(|(id, ..)| *id).collect();
        let rows = node.store.heads(&ids).await?;
        for ((_, kind, key), row) in agents.into_iter().zip(rows) {
            let status = row.map_or(StoredStatus::Normal, |row| row.status);
            let takes = matches!(status, StoredStatus::Normal | StoredStatus::Deleted);
            if takes
                && node.kind(kind).is_some_and(|(_, found)| found.is_open(key))
                && node.store.park(&format!("{kind}/{key}"), false).await? > 0
            {
                node.wake_dispatcher(true);
            }
        }
        after = Some(last.to_string());
    }
}

/// The agent that a target is, if this node serves it.
fn ours<'t>(node: &Node, target: &'t Target) -> Option<(AgentId, &'t str, &'t str)> {
    let Target::Agent { kind, key } = target else { return None };
    let id = AgentId::of(kind, key);
    (node.epoch(id) != 0).then_some((id, kind.as_str(), key.as_str()))
}
