//! The end of a node's agents: its kinds stop in the reverse of their order in the program.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{kind::AnyKind, node::Node};

/// How long the agents have to end what runs.
pub(crate) const DRAIN: Duration = Duration::from_secs(25);
/// What is cut short has left within such a time.
pub(super) const MOMENT: Duration = Duration::from_millis(100);
/// How often it is looked whether a kind has stopped.
const LOOK: Duration = Duration::from_millis(5);

/// Stops the agents. `false`: some have not ended in time.
///
/// Kinds stop one after the other, the last one first: an agent that is stopping finds those still there whose kinds
/// stand before its own. Agents of one kind stop beside each other. A kind that takes longer than its stop time-out, or
/// than its share of the time, goes on beside the next one.
pub(crate) async fn drain(node: &Node) -> bool {
    let begun = Instant::now();
    let share = DRAIN / 2 / u32::try_from(node.kinds.len()).unwrap_or(u32::MAX).max(1);
    for (first, kind) in node.kinds.iter().enumerate().rev() {
        let patience = kind.policy().stop_timeout.saturating_add(MOMENT).min(share);
        let told = node.kinds.get(first..).unwrap_or_default();
        let since = Instant::now();
        stop(told);
        while kind.running() > 0 && since.elapsed() < patience {
            tokio::time::sleep(LOOK).await;
            // A cell that was starting while the others were told is told now.
            stop(told);
        }
    }
    loop {
        let running: usize = node.kinds.iter().map(|kind| kind.running()).sum();
        let tasks = node.held_tasks().await;
        if running == 0 && (tasks == 0 || begun.elapsed() > DRAIN / 2) {
            return true;
        }
        if begun.elapsed() > DRAIN {
            return false;
        }
        stop(&node.kinds);
        tokio::time::sleep(4 * LOOK).await;
    }
}

fn stop(kinds: &[Arc<dyn AnyKind>]) {
    kinds.iter().for_each(|kind| kind.drain());
}
