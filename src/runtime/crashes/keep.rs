//! The keeper of crash groups: writes them to the store after the crashes.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Crashes, Waiting};
use crate::{
    agent::{drops, trace},
    model::crash_group::CrashGroup,
    runtime::node::Node,
    store::{Store, StoreError},
};

/// How often at most.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// How long it waits for a store that did not take them.
const RETRY: Duration = Duration::from_secs(5);

/// Writes the groups of crashes as they come, until `end`.
pub(crate) async fn keep(node: Arc<Node>, end: CancellationToken) {
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = node.crashes.news.notified() => {}
            () = tokio::time::sleep(FLUSH_INTERVAL) => {}
        }
        let written = match node.flush_crashes().await {
            Ok(()) => node.name_crashes().await,
            failed => failed,
        };
        let pause = match written {
            Ok(()) => FLUSH_INTERVAL,
            Err(_) => {
                node.crashes.news.notify_one();
                RETRY
            }
        };
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Node {
    /// Writes the groups that the store does not have yet. What it does not take stays.
    ///
    /// # Errors
    /// Why it did not; or a reply was lost, and they will be counted twice.
    pub(crate) async fn flush_crashes(self: &Arc<Self>) -> Result<(), StoreError> {
        let ours = |of: &str| {
            let tools = || self.tools.values().any(|tool| tool.shape().name == of);
            self.kinds.iter().any(|kind| kind.name() == of || kind.shape(of).is_some()) || tools()
        };
        drops::take_noted(ours).into_iter().for_each(|event| self.logger.emit(event));
        let node = self.clone();
        self.apart(async move { node.crashes.flush(&*node.store).await }).await
    }

    /// Adds the backtraces to groups that the store has. Takes long: names are looked for.
    ///
    /// # Errors
    /// Why the store did not take them; they stay.
    pub(crate) async fn name_crashes(self: &Arc<Self>) -> Result<(), StoreError> {
        let node = self.clone();
        self.apart(async move { node.crashes.name(&*node.store).await }).await
    }

    /// In a task of its own: whoever asks may go, and must not take along what is under way.
    async fn apart(
        &self,
        work: impl Future<Output = Result<(), StoreError>> + Send + 'static,
    ) -> Result<(), StoreError> {
        self.runtime.spawn(work).await.unwrap_or_else(|e| Err(StoreError::NotDone(e.to_string())))
    }
}

impl Crashes {
    pub(super) async fn flush(&self, store: &dyn Store) -> Result<(), StoreError> {
        let _alone = self.writing.lock().await;
        let waiting: Vec<Waiting> = self.pending.lock().groups.drain().map(|(_, waiting)| waiting).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let groups: Vec<CrashGroup> = waiting.iter().map(|waiting| waiting.group.clone()).collect();
        if let Err(error) = store.note_crashes(&groups).await {
            self.pending.lock().put_back(waiting);
            return Err(error);
        }
        // Names take their time: what is known without them is safe by now.
        let traces = waiting.into_iter().filter_map(|Waiting { group, trace }| Some((group, trace?)));
        self.unnamed.lock().extend(traces);
        Ok(())
    }

    /// Nobody who writes waits for names, and nobody who reads groups.
    pub(super) async fn name(&self, store: &dyn Store) -> Result<(), StoreError> {
        let _alone = self.naming.lock().await;
        let unnamed = std::mem::take(&mut *self.unnamed.lock());
        let mut named = Vec::new();
        for (group, trace) in unnamed {
            match tokio::task::spawn_blocking(move || trace::name(trace)).await {
                Ok(text) => named.push(CrashGroup { count: 0, backtrace: Some(text), ..group }),
                Err(_) => self.pending.lock().want(&group.site),
            }
        }
        if named.is_empty() {
            return Ok(());
        }
        let _writing = self.writing.lock().await;
        let noted = store.note_crashes(&named).await;
        if noted.is_err() {
            let named = named.into_iter().map(|group| Waiting { group, trace: None });
            self.pending.lock().put_back(named.collect());
        }
        noted
    }
}
