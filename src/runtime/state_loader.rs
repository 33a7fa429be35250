//! Reading agents' rows for their activation, many at once.
//!
//! While one read is in flight the next is collected: a single agent is read at once, and many that return
//! together cost the store few statements, never more than [`LANES`] at a time. A store that reads in place
//! (SQLite) is called directly: there a statement is cheaper than the hop to another thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    model::id::AgentId,
    store::{AgentRow, Store, StoreError},
};

/// At most so many agents a read.
const MAX_BATCH: usize = 1_000;
/// At most so many reads of a sort at the same time.
const LANES: usize = 2;

/// Figures of the reads, for `/metrics` and the benchmarks.
#[derive(Default)]
pub struct LoadStats {
    /// Reads so far.
    pub reads: AtomicU64,
    /// Agents that were asked for so far.
    pub agents: AtomicU64,
    /// How long the store took for them, in microseconds; of reads side by side each counts.
    pub took_us: AtomicU64,
}

type Answer = Result<Option<AgentRow>, StoreError>;

/// What a read brings.
#[derive(Debug, Clone, Copy)]
enum Sort {
    Rows,
    Heads,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(AgentId, oneshot::Sender<Answer>)>,
    running: usize,
}

struct Shared {
    store: Arc<dyn Store>,
    stats: LoadStats,
    rows: Mutex<Queue>,
    heads: Mutex<Queue>,
}

/// The way to agents' rows. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Loads {
    shared: Arc<Shared>,
    home: Handle,
}

impl Loads {
    /// Reads run on the current runtime, wherever they are asked for.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        let shared =
            Shared { store, stats: LoadStats::default(), rows: Mutex::default(), heads: Mutex::default() };
        Self { shared: Arc::new(shared), home: Handle::current() }
    }

    /// An agent's row with its state.
    pub(crate) async fn row(&self, id: AgentId) -> Answer {
        self.read(id, Sort::Rows).await
    }

    /// An agent's row; its state may be left out.
    pub(crate) async fn head(&self, id: AgentId) -> Answer {
        self.read(id, Sort::Heads).await
    }

    pub(crate) fn stats(&self) -> &LoadStats {
        &self.shared.stats
    }

    async fn read(&self, id: AgentId, sort: Sort) -> Answer {
        if self.shared.store.blocks() {
            return self.shared.fetch(&[id], sort).await?.pop().ok_or_else(missing);
        }
        let (tx, rx) = oneshot::channel();
        let start = {
            let mut queue = self.shared.queue(sort).lock();
            queue.waiting.push((id, tx));
            let start = queue.running < LANES;
            queue.running += usize::from(start);
            start
        };
        if start {
            let shared = self.shared.clone();
            self.home.spawn(async move { shared.run(sort).await });
        }
        rx.await.unwrap_or_else(|_| Err(missing()))
    }
}

fn missing() -> StoreError {
    StoreError::NotDone("the read ended without an answer".to_owned())
}

impl Shared {
    fn queue(&self, sort: Sort) -> &Mutex<Queue> {
        match sort {
            Sort::Rows => &self.rows,
            Sort::Heads => &self.heads,
        }
    }

    async fn fetch(&self, ids: &[AgentId], sort: Sort) -> Result<Vec<Option<AgentRow>>, StoreError> {
        let begun = Instant::now();
        let rows = match sort {
            Sort::Rows => self.store.load(ids).await,
            Sort::Heads => self.store.heads(ids).await,
        };
        let took = begun.elapsed();
        self.stats.reads.fetch_add(1, Ordering::Relaxed);
        self.stats.agents.fetch_add(ids.len() as u64, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.stats.took_us.fetch_add(us, Ordering::Relaxed);
        metrics::histogram!("greenroom_state_load_duration_seconds").record(took.as_secs_f64());
        rows
    }

    /// Reads until nothing waits.
    async fn run(&self, sort: Sort) {
        let mut lane = Running { queue: self.queue(sort), over: false };
        loop {
            let batch = {
                let mut queue = lane.queue.lock();
                let n = queue.waiting.len().min(MAX_BATCH);
                if n == 0 {
                    // Under the same lock: whoever comes now starts another.
                    queue.running -= 1;
                    lane.over = true;
                    return;
                }
                queue.waiting.drain(..n).collect::<Vec<_>>()
            };
            let ids: Vec<AgentId> = batch.iter().map(|(id, _)| *id).collect();
            match self.fetch(&ids, sort).await {
                Ok(rows) => {
                    for ((_, tx), row) in batch.into_iter().zip(rows) {
                        let _ = tx.send(Ok(row));
                    }
                }
                Err(e) => batch.into_iter().for_each(|(_, tx)| drop(tx.send(Err(e.clone())))),
            }
        }
    }
}

/// Counts a run that ends by a panic: else nobody would read what waits.
struct Running<'q> {
    queue: &'q Mutex<Queue>,
    over: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.queue.lock().running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_ends_by_a_panic_is_not_counted_for_ever() {
        let queue = Mutex::new(Queue { running: LANES, ..Queue::default() });
        let lane = || {
            let _lane = Running { queue: &queue, over: false };
            panic!("as told");
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(lane)).is_err());
        assert_eq!(queue.lock().running, LANES - 1);
    }
}
