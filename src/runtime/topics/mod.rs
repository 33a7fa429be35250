//! Publications and broadcasts: one message, told to many agents.
//!
//! Whoever publishes hands it out to a small audience itself, a turn to a very small one. Where the
//! subscribers are to be read first, or are more, a courier does: a task that hands out what waits, in its
//! order, and ends when nothing does. So nobody who publishes waits for the store, and neither a thread of
//! agents nor the store's writer is held up by an audience.

mod audience;
mod door;
mod hand_out;
mod index;
mod news;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

pub(crate) use self::news::Hint;
use self::{index::Index, news::News};
use crate::store::{Unit, Verdict};

/// At most so many topics are read at the same time.
const READS: usize = 2;

/// What a node knows of topics.
pub(crate) struct Topics {
    index: Mutex<Index>,
    /// Held by couriers that read: a store is not asked for a thousand topics at once.
    reads: Semaphore,
    /// For the nodes that share the store; `None`: there are none.
    news: Option<News>,
}

impl Topics {
    /// `shared`: other nodes use the store too.
    pub(crate) fn new(shared: bool) -> Self {
        let (index, reads) = (Mutex::new(Index::new(!shared)), Semaphore::new(READS));
        Self { index, reads, news: shared.then(News::default) }
    }

    /// For the writers, before anybody is told: what durable units did.
    pub(crate) fn committed(&self, units: &[Unit], verdicts: &[Verdict]) {
        for (unit, verdict) in units.iter().zip(verdicts) {
            if unit.subscriptions.is_empty() || *verdict != Verdict::Durable {
                continue;
            }
            let mut index = self.index.lock();
            unit.subscriptions.iter().for_each(|write| index.committed(write));
            drop(index);
            if let Some(news) = &self.news {
                news.add(unit.subscriptions.iter().map(|write| write.topic.clone()));
            }
        }
    }

    /// Waits until other nodes are to be told of something.
    pub(crate) async fn some_news(&self) {
        match &self.news {
            Some(news) => news.some().await,
            None => std::future::pending().await,
        }
    }

    /// What they are to be told. What they could not be told is put back with [`Topics::untold`].
    pub(crate) fn take_news(&self, me: Uuid) -> Vec<Hint> {
        self.news.as_ref().map(|news| news.take(me)).unwrap_or_default()
    }

    /// Nobody heard this hint.
    pub(crate) fn untold(&self, hint: Hint) {
        if let Some(news) = &self.news {
            news.add(hint.names);
        }
    }

    /// Takes in what another node tells.
    pub(crate) fn heard(&self, hint: &str, me: Uuid) {
        let Some(names) = news::read(hint, me) else { return };
        let mut index = self.index.lock();
        names.for_each(|name| index.changed(name));
    }

    /// Other nodes tell what they change from now on, or do not any more.
    pub(crate) fn told(&self, told: bool) {
        self.index.lock().told(told);
    }
}
