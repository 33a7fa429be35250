//! The kinds of agents, and pausing the tasks of a kind or a tool.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    Operator, Result, not_found,
    reasons::{FEW, reason},
};
use crate::{
    model::event::{self, Event, Level},
    runtime::views::{KindInfo, Reason},
};

impl Operator {
    /// The kinds of the program. While the store does not answer, none is shown as paused.
    pub async fn kinds(&self) -> Vec<KindInfo> {
        let paused = self.paused().await;
        let info = |mut info: KindInfo| {
            info.paused = paused.contains_key(&info.kind);
            info
        };
        self.node.kinds.iter().map(|k| info(k.info())).collect()
    }

    /// One kind.
    ///
    /// # Errors
    /// [`OperatorError::UnknownKind`](super::OperatorError::UnknownKind).
    pub async fn kind(&self, kind: &str) -> Result<KindInfo> {
        let mut info = self.kind_of(kind)?.1.info();
        info.paused = self.paused().await.contains_key(kind);
        Ok(info)
    }

    /// Pauses the tasks of a kind, or of a tool (`tool:NAME`), on all nodes, until they are resumed: none begins.
    /// What a node has claimed and not begun goes back as soon as it hears of it. What has begun goes on, and asks and
    /// tells are not affected.
    ///
    /// To resume a tool also has it take calls again on this node, where it was stopped because it had crashed too
    /// often, and forgives it.
    ///
    /// # Errors
    /// An unknown name; a store that does not answer.
    pub async fn pause_kind(&self, kind: &str, paused: bool) -> Result<()> {
        let tool = match kind.strip_prefix("tool:").map(|name| (name, self.node.tools.get(name))) {
            Some((_, Some(tool))) => Some(tool),
            Some((name, None)) => return Err(not_found(format!("no tool `{name}`"))),
            None => {
                self.kind_of(kind)?;
                None
            }
        };
        let changed = self.node.store.pause(kind, paused).await?;
        let restarted = !paused && tool.is_some_and(|tool| tool.resume());
        if restarted {
            let event = Event::new(Level::Info, event::AGENT_STARTED, kind);
            self.node.logger.emit(event.field("by", "operator"));
        }
        if changed || restarted {
            self.node.wake_dispatcher(true);
            self.node.news.notify_one();
        }
        Ok(())
    }

    /// The paused queues, and since when; empty while the store does not answer.
    pub(super) async fn paused(&self) -> BTreeMap<String, Timestamp> {
        if self.node.outage.is_known() {
            return BTreeMap::new();
        }
        self.node.store.paused().await.unwrap_or_default().into_iter().collect()
    }

    /// Kinds and tools of which tasks are ready, although no living node has them.
    pub(super) async fn unserved(&self) -> Vec<Reason> {
        let node = &self.node;
        let mut ready = node.store.ready_queues().await.unwrap_or_default();
        let own = node.queues();
        ready.retain(|(queue, _)| !own.contains(queue));
        if let (false, Some(shared)) = (ready.is_empty(), node.store.shared()) {
            match shared.announced().await {
                Ok(Some(others)) => ready.retain(|(queue, _)| !others.contains(queue)),
                Ok(None) | Err(_) => ready.clear(),
            }
        }
        let told = ready.into_iter().take(FEW).map(|(queue, since)| {
            let message = format!("tasks of {queue} are ready, and no living node has it");
            let all = if queue.starts_with("tool:") { queue } else { format!("{queue}/*") };
            let remedy =
                format!("start a node that has it, or cancel them: greenroom tasks ls --target '{all}'");
            reason("no_node_for", since, message, remedy)
        });
        told.collect()
    }

    /// Why tasks wait that could run.
    pub(super) async fn pauses(&self) -> Vec<Reason> {
        let told = self.paused().await.into_iter().map(|(kind, since)| {
            let message = format!("the tasks of {kind} are paused: none is started");
            reason("kind_paused", since, message, format!("greenroom kinds resume {kind}"))
        });
        told.collect()
    }
}
