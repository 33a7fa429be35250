//! The node, as agents and tools see it.

use std::{
    any::{Any, TypeId},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::{node::Node, persistence::Outcome};
use crate::{
    agent::{
        AskError,
        double::Double,
        host::{Host, Reads, Submission, Submitted},
        topic::Publication,
    },
    model::{
        event::{self, Event, Level},
        id::{Target, TaskId},
        journal::{Journal, JournalWrite},
        task::{TaskTerms, TaskView},
    },
    store::Unit,
    tool::{ToolPort, notes::Notes},
};

/// How long a store that does not answer is left alone.
const PAUSE: Duration = Duration::from_millis(500);

impl Host for Node {
    fn directory(&self, agent: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        self.directories.get(&agent).map(|d| &**d)
    }

    fn tool(&self, name: &str) -> Option<&dyn ToolPort> {
        self.tools.get(name).map(|t| &**t as &dyn ToolPort)
    }

    fn resource(&self, of: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        self.resources.get(&of).map(|r| &**r)
    }

    fn settings(&self, of: TypeId) -> Option<Arc<dyn Any + Send + Sync>> {
        self.configuration.section(of)
    }

    fn submit(&self, submission: Submission) -> BoxFuture<'static, Result<Submitted, AskError>> {
        let me = self.me.upgrade();
        Box::pin(async move {
            match me {
                Some(node) => node.accept(submission).await,
                None => Err(AskError::Unavailable("the node has ended".to_owned())),
            }
        })
    }

    fn terms(&self, target: &Target) -> TaskTerms {
        self.terms_of(target)
    }

    fn message_bytes(&self) -> usize {
        usize::try_from(self.settings.load().limits.message_bytes).unwrap_or(usize::MAX)
    }

    fn session_ttl(&self) -> Duration {
        self.settings.load().sessions.ttl
    }

    fn reads(&self) -> Option<&dyn Reads> {
        Some(self)
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, bool> {
        let running = self.runtime.spawn_blocking(work);
        Box::pin(async move { running.await.is_ok() })
    }

    fn journal(&self, task: TaskId) -> BoxFuture<'static, Option<Journal>> {
        let me = self.me.clone();
        Box::pin(async move {
            loop {
                let node = me.upgrade().filter(|node| !node.is_closing())?;
                match node.store.journal(task).await {
                    Ok(journal) => return Some(journal),
                    Err(e) => node.outage.failed(&e),
                }
                drop(node);
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    fn task(&self, task: TaskId) -> BoxFuture<'static, Option<TaskView>> {
        let me = self.me.clone();
        Box::pin(async move {
            loop {
                let node = me.upgrade().filter(|node| !node.is_closing())?;
                match node.store.task(task).await {
                    Ok(task) => return task,
                    Err(e) => node.outage.failed(&e),
                }
                drop(node);
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    fn record(&self, write: JournalWrite) -> BoxFuture<'static, bool> {
        let me = self.me.clone();
        Box::pin(async move {
            let unit = Unit { journal: Some(write.clone()), ..Unit::default() };
            loop {
                let Some(node) = me.upgrade() else { return false };
                match node.persistence.commit(write.task.0, unit.clone()).await {
                    Outcome::Durable => return true,
                    Outcome::Refused(_) => return false,
                    Outcome::Failed(_) if node.is_closing() => return false,
                    Outcome::Full(_) | Outcome::Failed(_) | Outcome::Unknown => {}
                }
                drop(node);
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    fn noted(&self) {
        self.notes.noted();
    }

    fn speaks(&self, task: TaskId, notes: &Arc<Notes>) {
        self.notes.listen(task, notes);
    }

    fn fell_silent(&self, task: TaskId, notes: &Arc<Notes>) {
        self.notes.close(task, notes);
    }

    fn tells_dropped(&self, kind: &str, key: &str, message: &'static str, n: usize, why: &str) {
        self.metrics.tells_dropped(kind, n);
        let event = Event::new(Level::Warn, event::MESSAGE_DEAD_LETTER, format!("{kind}/{key}"));
        let event = event.field("message_type", message).field_opt("dropped", (n > 1).then_some(n));
        self.logger.emit(event.field("reason", why.to_owned()));
    }

    fn double(&self, kind: &str, key: &str) -> Option<Arc<Double>> {
        self.probe.as_ref()?.double(kind, key)
    }

    fn publish(&self, topic: Arc<str>, publication: Publication) {
        self.publish_to(topic, publication);
    }

    fn broadcast(&self, kind: &'static str, publication: Publication) {
        self.broadcast_to(kind, publication);
    }

    fn members(&self, group: &str, message: &str) -> Vec<&'static str> {
        Self::members(self, group, message)
    }
}
