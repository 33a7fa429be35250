//! Hints between nodes that share a store: that there is work for another node, or a new subscriber of a topic.
//! They only save time: without one, a node finds out when it next polls.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    kind::AnyKind,
    node::Node,
    schedules::{retire, subject, write},
};
use crate::{
    model::{
        event::{Event, Level},
        id::Target,
        task::NewTask,
    },
    store::{Hint, Shared, StoreError, Unit},
};

/// Tasks may be ready.
const TASKS: &str = "tasks";
/// A schedule was written.
const SCHEDULES: &str = "schedules";
/// Until it is looked again who declares the schedules that this node's program does not.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Until what could not be sent is sent again.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Between two hints that this node has no room for tools' tasks: where all nodes are full there is always one to send,
/// and each has all of them look.
const OVERFLOW_PAUSE: Duration = Duration::from_millis(500);
/// How long a node that ends takes for its last ones.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Acts upon other nodes' hints, and sends this node's own, until `end`.
pub(crate) async fn exchange(node: Arc<Node>, end: CancellationToken) {
    let Some(shared) = node.store.shared() else { return end.cancelled().await };
    let me = node.me.clone();
    let _heard = shared.watch(Box::new(move |hint| {
        let Some(node) = me.upgrade() else { return };
        match hint {
            Hint::Resync => {
                node.topics.told(true);
                node.bonds.told(true);
                node.schedules.heard();
                node.wake_dispatcher(true);
            }
            Hint::Nudge(what) if what == TASKS => node.wake_dispatcher(true),
            Hint::Nudge(what) if what == SCHEDULES => node.schedules.heard(),
            Hint::Nudge(what) => node.topics.heard(&what, node.boot, &node.bonds),
            Hint::Polling(why) => {
                node.topics.told(false);
                node.bonds.told(false);
                let event = Event::new(Level::Info, "store.polling", "node").field("reason", why);
                node.logger
                    .emit(event.hint("other nodes' work is found by looking for it every few seconds"));
            }
        }
    }));
    let (mut announced, mut look_at) = (false, Some(Instant::now()));
    let (mut overflows, mut tell_at) = (false, Instant::now());
    loop {
        // Until that is known, nobody says of a kind or a tool that no node has it, or of a schedule.
        announced = announced || announce(&node, shared).await.is_ok();
        if announced && look_at.is_some_and(|at| at <= Instant::now()) {
            let retired = retire(&*node.store, &node.logger, &node.schedules.declared).await;
            look_at = if retired.is_ok_and(|all| all) { None } else { Some(Instant::now() + LOOK_AGAIN) };
        }
        let again = async {
            match look_at {
                _ if !announced => tokio::time::sleep(RETRY_DELAY).await,
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = end.cancelled() => return,
            () = again => {}
            // One for all that has been committed meanwhile; a hint that is lost is only time.
            () = node.news.notified() => drop(shared.nudge(TASKS).await),
            () = node.overflow.notified(), if !overflows => overflows = true,
            () = tokio::time::sleep_until(tell_at), if overflows => {
                overflows = false;
                drop(shared.nudge(TASKS).await);
                tell_at = Instant::now() + OVERFLOW_PAUSE;
            }
            () = node.schedules.news() => drop(shared.nudge(SCHEDULES).await),
            () = node.topics.some_news() => {
                if node.topics.tell_news(shared, node.boot).await.is_err() {
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}

/// Tells the other nodes what this one has.
async fn announce(node: &Node, shared: &dyn Shared) -> Result<(), StoreError> {
    shared.announce(node.boot, &node.announcement()).await?;
    // What one of them has removed before it could know comes back.
    write(&*node.store, &node.logger, &node.schedules.declared).await
}

impl Node {
    /// What it tells the nodes that share the store that it has: its kinds and tools, the messages that each kind
    /// takes, and the schedules that its program declares.
    fn announcement(&self) -> Vec<String> {
        let takes = |kind: &Arc<dyn AnyKind>| {
            let names = kind.message_names().into_iter();
            names.map(|name| message_of(kind.name(), &name)).collect::<Vec<_>>()
        };
        let schedules = self.schedules.declared.iter().map(|own| subject(own.name()));
        self.queues().into_iter().chain(self.kinds.iter().flat_map(takes)).chain(schedules).collect()
    }

    /// Tells the nodes that share the store, where units that were committed have work that another one can begin
    /// sooner.
    pub(crate) fn tell_others(&self, units: &[Unit]) {
        let accepted = || units.iter().flat_map(|unit| &unit.accepted);
        if accepted().any(|task| self.is_anothers(&task.target)) {
            self.news.notify_one();
        }
        let waits_here = |task: &NewTask| {
            let Target::Tool(name) = &task.target else { return false };
            task.run_at.is_none() && task.after.is_empty() && !self.has_room_for(name)
        };
        if self.has_others() && accepted().any(waits_here) {
            self.overflow.notify_one();
        }
    }

    /// Tells them that tools' tasks are ready for which this node has no room left.
    pub(crate) fn tell_of_overflow(&self) {
        if self.has_others() {
            self.overflow.notify_one();
        }
    }

    /// Whether other nodes share the store, as far as this one knows.
    fn has_others(&self) -> bool {
        self.owned.nodes().len() > 1
    }

    /// Whether another living node takes this message, or does not say what it takes.
    pub(crate) async fn is_taken_elsewhere(&self, kind: &str, message: &str) -> bool {
        let Some(shared) = self.store.shared() else { return false };
        match shared.announced().await {
            Ok(Some(names)) => names.contains(&message_of(kind, message)),
            Ok(None) | Err(_) => true,
        }
    }
}

/// A message of a kind, as it is announced. No kind and no tool has such a name.
fn message_of(kind: &str, message: &str) -> String {
    format!("{kind}/{message}")
}

/// Sends what others are to know of this node's last commits.
pub(crate) async fn last(node: &Node) {
    if let Some(shared) = node.store.shared() {
        // They look for themselves in the end.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, node.topics.tell_news(shared, node.boot)).await;
    }
}
