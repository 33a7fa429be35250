//! The number of waiting tasks, as this node knows it, and the refusal of further submissions.
//!
//! A submission counts nothing itself: the store keeps its own counters, which are read about once a second while
//! there are submissions, and more often only before one would be refused.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{node::Node, since::Since};
use crate::{
    agent::{AskError, host::Submitter},
    clock,
    model::task::{Backlog, NewTask, Room},
    store::Counts,
};

/// When whoever is refused may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the counts may take to be read: the commit behind them knows better what is wrong with the store.
const COUNT_TIMEOUT: Duration = Duration::from_millis(500);
/// How often it is counted where nobody submits: others bring work too.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// What the node knows of it.
#[derive(Default)]
pub(crate) struct Waiting {
    backlog: Mutex<Backlog>,
    /// Held by whoever counts.
    counting: tokio::sync::Mutex<()>,
    full: Since,
}

/// Tasks on their way in.
pub(crate) struct Coming<'w> {
    waiting: &'w Waiting,
    n: u64,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.waiting.backlog.lock().end(self.n);
    }
}

impl Node {
    /// Whether these tasks may join those that wait; they count from now on.
    ///
    /// # Errors
    /// [`AskError::Overloaded`]: too many wait already.
    pub(crate) async fn let_in(&self, by: Submitter, tasks: &[NewTask]) -> Result<Coming<'_>, AskError> {
        let most = match by {
            Submitter::Outside => self.settings.load().tasks.max_backlog,
            Submitter::Work => 0,
        };
        let n = tasks.iter().filter(|task| task.after.is_empty()).count() as u64;
        let mut room = self.enter(n, most, self.uptime());
        if room == Room::Unknown {
            let _counting = self.waiting.counting.lock().await;
            // Whoever held the lock has counted.
            room = self.enter(n, most, self.uptime());
            if room == Room::Unknown {
                room = match self.count_waiting().await {
                    Some(counted_at) => self.enter(n, most, counted_at),
                    None => self.enter(n, 0, self.uptime()),
                };
            }
        }
        match room {
            Room::None(waiting) => {
                // by a count of a moment ago, and what came in since
                self.waiting.full.set(true, clock::now());
                let what = format!("{waiting} tasks wait already (tasks.max_backlog is {most})");
                return Err(AskError::Overloaded { what, retry_after: RETRY_AFTER });
            }
            Room::Stale => self.count_soon(),
            Room::Some | Room::Unknown => {}
        }
        Ok(Coming { waiting: &self.waiting, n })
    }

    fn enter(&self, n: u64, most: u64, now: Duration) -> Room {
        let mut backlog = self.waiting.backlog.lock();
        let room = backlog.room(most, now);
        if matches!(room, Room::Some | Room::Stale) {
            backlog.begin(n);
        }
        room
    }

    /// Counts what waits; when it was counted, or `None`: the store did not tell.
    async fn count_waiting(&self) -> Option<Duration> {
        let seen = self.waiting.backlog.lock().since();
        let counts = tokio::time::timeout(COUNT_TIMEOUT, self.store.counts()).await.ok()?.ok()?;
        let now = self.uptime();
        self.waiting.backlog.lock().counted(Backlog::of(&counts.tasks), seen, now);
        self.full_backlog(&counts);
        Some(now)
    }

    /// How many tasks wait, and since when they are as many as may: `None` where they are fewer.
    pub(crate) fn full_backlog(&self, counts: &Counts) -> Option<(u64, Timestamp)> {
        let (waiting, most) = (Backlog::of(&counts.tasks), self.settings.load().tasks.max_backlog);
        self.waiting.full.set(most > 0 && waiting >= most, clock::now());
        Some((waiting, self.waiting.full.since()?))
    }

    /// Has it counted beside what goes on.
    fn count_soon(&self) {
        let Some(node) = self.me.upgrade() else { return };
        self.runtime.spawn(async move {
            if let Ok(_counting) = node.waiting.counting.try_lock() {
                node.count_waiting().await;
            }
        });
    }
}

/// Counts now and then until `end`, so that it is known since when too many wait.
pub(crate) async fn watch(node: Arc<Node>, end: CancellationToken) {
    while end.run_until_cancelled(tokio::time::sleep(COUNT_INTERVAL)).await.is_some() {
        if node.settings.load().tasks.max_backlog > 0 && !node.outage.is_known() {
            node.count_soon();
        }
    }
}
