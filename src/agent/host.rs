//! The interface of the runtime that agents and tools use.

use std::{
    any::{Any, TypeId},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::{
    Agent,
    answer::AskError,
    double::Double,
    lane::{Activator, Entrance, Lane, Name},
    letter::Key,
    table::Table,
    topic::Publication,
};
use crate::{
    model::{
        conversation::{Conversation, ConversationId, StoredMessage},
        id::Target,
        id::{AgentId, TaskId, check_key},
        journal::{Journal, JournalWrite},
        session::Session,
        task::{NewBatch, NewTask, TaskTerms, TaskView},
    },
    tool::ToolPort,
};

/// Who submits, where no turn does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitter {
    /// A client, or the program beside its agents: it is refused while too much waits.
    Outside,
    /// A tool or a task function at work: to refuse it would fail the very work that makes room.
    Work,
}

/// A submission from outside of any turn.
pub(crate) struct Submission {
    pub by: Submitter,
    pub tasks: Vec<NewTask>,
    pub batches: Vec<NewBatch>,
    /// Only with exactly one task.
    pub key: Option<Key>,
}

/// What was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Submitted {
    pub first: TaskId,
    /// The key had been used for the same request: this is the first task.
    pub replayed: bool,
}

/// Conversations and sessions as the store has them, not as an older copy shows them.
pub(crate) trait Reads: Send + Sync + 'static {
    fn conversation(&self, id: ConversationId) -> BoxFuture<'static, Result<Option<Conversation>, AskError>>;
    /// Oldest first; `None`: there is no such conversation.
    fn recent(
        &self,
        id: ConversationId,
        n: usize,
    ) -> BoxFuture<'static, Result<Option<Vec<StoredMessage>>, AskError>>;
    /// Oldest first; `None`: there is no such conversation.
    fn history(
        &self,
        id: ConversationId,
        before: i64,
        n: usize,
    ) -> BoxFuture<'static, Result<Option<Vec<StoredMessage>>, AskError>>;
    fn session(&self, id: String) -> BoxFuture<'static, Result<Option<Session>, AskError>>;
}

/// Why a tell is dropped before it is taken.
pub(crate) const NOT_TAKEN: &str = "its mailbox is full or shut";

/// The runtime, seen from an agent or a tool.
pub(crate) trait Host: Send + Sync + 'static {
    /// The `Arc<Directory<A>>` of an agent type.
    fn directory(&self, agent: TypeId) -> Option<&(dyn Any + Send + Sync)>;
    /// The port of a tool.
    fn tool(&self, name: &str) -> Option<&dyn ToolPort>;
    fn resource(&self, of: TypeId) -> Option<&(dyn Any + Send + Sync)>;
    fn settings(&self, of: TypeId) -> Option<Arc<dyn Any + Send + Sync>>;
    fn submit(&self, submission: Submission) -> BoxFuture<'static, Result<Submitted, AskError>>;
    /// What holds for a task for this target that says nothing.
    fn terms(&self, target: &Target) -> TaskTerms;
    /// The largest message, in bytes.
    fn message_bytes(&self) -> usize;
    /// How long a session lives whose writer does not say.
    fn session_ttl(&self) -> Duration;
    /// Reads of conversations and sessions; `None`: the node has ended.
    fn reads(&self) -> Option<&dyn Reads>;
    /// Runs blocking code; `false`: it panicked, or the node is shutting down.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, bool>;
    /// All that is recorded of a running task; `None`: the node ends.
    fn journal(&self, _task: TaskId) -> BoxFuture<'static, Option<Journal>> {
        Box::pin(std::future::ready(None))
    }
    /// A task as it is; `None`: nobody knows it, or the node ends.
    fn task(&self, _task: TaskId) -> BoxFuture<'static, Option<TaskView>> {
        Box::pin(std::future::ready(None))
    }
    /// Records what a running task has come to; `false`: its claim is lost, or the node ends.
    fn record(&self, _write: JournalWrite) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(false))
    }
    /// Tasks have something to say of themselves.
    fn noted(&self) {}
    /// So many tells will not be handled, and why.
    fn tells_dropped(&self, kind: &str, key: &str, message: &'static str, n: usize, why: &str);
    /// What a test has put in the place of an agent.
    fn double(&self, _kind: &str, _key: &str) -> Option<Arc<Double>> {
        None
    }
    /// Tells the subscribers of a topic (by its stored name), as far as they can be told now.
    fn publish(&self, topic: Arc<str>, publication: Publication);
    /// Tells the running agents of a kind, as far as they can be told now.
    fn broadcast(&self, kind: &'static str, publication: Publication);
    /// The kinds of a group that take a message.
    fn members(&self, _group: &str, _message: &str) -> Vec<&'static str> {
        Vec::new()
    }
}

/// The agents of one kind that have been spoken to, by key: senders look here once, and then go
/// straight to the lane.
pub(crate) struct Directory<A: Agent> {
    pub kind: Arc<str>,
    pub mailbox: usize,
    /// A full mailbox gives the message back in place of making the sender wait.
    pub rejects: bool,
    pub lanes: Table<Arc<Lane<A>>>,
    /// The node is going down: lanes that are made now are closed.
    pub closing: AtomicBool,
    pub activator: Arc<dyn Activator<A>>,
}

impl<A: Agent> Directory<A> {
    /// The lane of `key`, made where there was none.
    pub(crate) fn lane(&self, key: &str) -> Result<Arc<Lane<A>>, AskError> {
        if let Some(lane) = self.lanes.get(key) {
            return Ok(lane);
        }
        check_key(key).map_err(|e| AskError::NotFound(e.to_string()))?;
        let lane = self.lanes.get_or_insert_with(key, || {
            let name = Name { kind: self.kind.clone(), id: AgentId::of(&self.kind, key), key: key.into() };
            Arc::new(Lane::new(name, self.mailbox, self.rejects, Entrance::Open, self.activator.clone()))
        });
        // Whoever closes raises the flag before it looks for lanes: one of us sees the other.
        if self.closing.load(Ordering::SeqCst) {
            lane.set_entrance(Entrance::Closing);
        }
        Ok(lane)
    }
}

/// The directory of `A`, if the agent is registered.
pub(crate) fn directory<A: Agent>(host: &dyn Host) -> Result<&Arc<Directory<A>>, AskError> {
    host.directory(TypeId::of::<A>()).and_then(|any| any.downcast_ref::<Arc<Directory<A>>>()).ok_or_else(
        || {
            AskError::NotFound(format!(
                "the kind `{}` is not registered: add `.agent::<…>()` to the builder",
                A::KIND
            ))
        },
    )
}
