//! Publications and broadcasts: one message, delivered to many agents.
//!
//! A publisher delivers to a small audience itself, a turn to a very small one. If the subscribers must be read
//! first, or are more, a courier does it: a Tokio task that delivers what waits, in order, and ends when nothing
//! does. So no publisher waits for the store, and no audience delays a thread of agents or the store's writer.

mod audience;
mod door;
mod hand_out;
mod index;
mod news;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::{index::Index, news::News};
use super::bonds::Bonds;
use crate::{
    model::bond::Bond,
    store::{Shared, StoreError, Unit, Verdict},
};

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
                // Of a bond that has ended nobody needs to know.
                let told =
                    unit.subscriptions.iter().filter(|w| w.subscribed || Bond::read(&w.topic).is_none());
                news.add(told.map(|write| write.topic.clone()));
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

    /// Tells them through the store what `me` has changed.
    ///
    /// # Errors
    /// Why they were not told all of it; the rest is kept.
    pub(crate) async fn tell_news(&self, store: &dyn Shared, me: Uuid) -> Result<(), StoreError> {
        let Some(news) = &self.news else { return Ok(()) };
        let _one = news.telling.lock().await;
        let mut told = Ok(());
        for hint in news.take(me) {
            if told.is_ok() {
                told = store.nudge(&hint.text).await;
            }
            if told.is_err() {
                news.add(hint.names);
            }
        }
        told
    }

    /// Other nodes are to look at a topic, although nothing was committed to it.
    pub(crate) fn tell(&self, topic: Arc<str>) {
        if let Some(news) = &self.news {
            news.add([topic]);
        }
    }

    /// Other nodes are to look at all that they know: one that is gone may not have told them something.
    pub(crate) fn tell_all(&self) {
        self.tell(news::ALL.into());
    }

    /// Takes in what another node tells of topics, and has it told of bonds.
    pub(crate) fn heard(&self, hint: &str, me: Uuid, bonds: &Bonds) {
        let Some(names) = news::read(hint, me) else { return };
        let mut index = self.index.lock();
        for name in names {
            match Bond::read(name) {
                Some((bond, subject)) => bonds.heard(bond, subject),
                None if name == news::ALL => {
                    index.doubt();
                    bonds.sweep();
                }
                None => index.changed(name),
            }
        }
    }

    /// Other nodes may have changed what they could not tell: they have left agents to this one.
    pub(crate) fn doubt(&self) {
        self.index.lock().doubt();
    }

    /// Other nodes tell what they change from now on, or do not any more.
    pub(crate) fn told(&self, told: bool) {
        self.index.lock().told(told);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::{
        model::{
            id::AgentId,
            topic::{Subscriber, SubscriptionWrite},
        },
        store::{Hint, PoolStatus, Watch},
    };

    use super::*;

    /// A store that tells nobody until it can.
    #[derive(Default)]
    struct Mute {
        can: AtomicBool,
        told: Mutex<Vec<String>>,
    }

    #[async_trait::async_trait]
    impl Shared for Mute {
        fn pool(&self) -> PoolStatus {
            PoolStatus::default()
        }
        fn watch(&self, _: Box<dyn Fn(Hint) + Send + Sync>) -> Watch {
            unreachable!("nobody watches it")
        }
        async fn nudge(&self, what: &str) -> Result<(), StoreError> {
            if !self.can.load(Ordering::SeqCst) {
                return Err(StoreError::NotDone("not now".to_owned()));
            }
            self.told.lock().push(what.to_owned());
            Ok(())
        }
        async fn drain(&self, _: uuid::Uuid, _: Option<jiff::Timestamp>) -> Result<(), StoreError> {
            unreachable!("nobody drains it")
        }
    }

    fn subscribing(topic: &str) -> Unit {
        let (kind, key): (std::sync::Arc<str>, std::sync::Arc<str>) = ("desk".into(), "a".into());
        let agent = AgentId::of(&kind, &key);
        let subscriber = Subscriber { agent, kind, key, message: "Price".into() };
        let write = SubscriptionWrite { topic: topic.into(), subscriber, subscribed: true };
        Unit { subscriptions: vec![write], ..Unit::default() }
    }

    #[tokio::test]
    async fn what_others_could_not_be_told_they_are_told_later() {
        let (topics, me, store) = (Topics::new(true), Uuid::now_v7(), Mute::default());
        let names: Vec<String> = (0..100).map(|n| format!("t/{n:0200}")).collect();
        let units: Vec<Unit> = names.iter().map(|name| subscribing(name)).collect();
        topics.committed(&units, &vec![Verdict::Durable; units.len()]);
        topics.some_news().await;
        topics.tell_news(&store, me).await.unwrap_err();
        store.can.store(true, Ordering::SeqCst);
        topics.some_news().await;
        topics.tell_news(&store, me).await.unwrap();
        let hints = store.told.lock().clone();
        let told: Vec<&str> = hints.iter().flat_map(|hint| news::read(hint, Uuid::nil()).unwrap()).collect();
        assert_eq!(told, names);
        topics.tell_news(&store, me).await.unwrap();
        assert_eq!(store.told.lock().len(), hints.len());
    }
}
