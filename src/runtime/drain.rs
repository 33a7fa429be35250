//! The end of a node's agents: its kinds stop in the reverse of their order in the program.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{kind::AnyKind, node::Node};

/// How long the agents have to end what runs.
pub(crate) const DRAIN: Duration = Duration::from_secs(25);
/// How long what its tools are at has to end before it is broken off: a part of the time of the agents.
const TOOLS: Duration = Duration::from_millis(12_500);
/// How long it takes then to give it back, at most.
const RETURN: Duration = Duration::from_secs(2);
/// What is cut short has left within such a time.
pub(super) const MOMENT: Duration = Duration::from_millis(100);
/// How often it is looked whether a kind has stopped.
const LOOK: Duration = Duration::from_millis(5);

/// Stops the agents. `false`: some have not ended in time.
///
/// Kinds stop one after the other, the last one first: an agent that is stopping finds those still there whose kinds
/// stand before its own. Agents of one kind stop beside each other. A kind that takes longer than its stop time-out, or
/// than its share of the time, goes on beside the next one. Tools go on meanwhile, for as long as there is: a task of
/// theirs that has not ended then is broken off, and ready again.
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
        let late = begun.elapsed().checked_sub(TOOLS);
        if late.is_some() && node.tools.values().any(|tool| tool.info().running > 0) {
            node.breaks_off.cancel();
        }
        if running == 0 && (tasks == 0 || late.is_some_and(|late| late > RETURN)) {
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
