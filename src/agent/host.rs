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
use uuid::Uuid;

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
        supervision::Budget,
        task::{NewBatch, NewTask, TaskTerms, TaskView},
    },
    tool::{ToolPort, notes::Notes},
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
    /// Under this key, in this scope, it counts once.
    pub key: Option<(Uuid, Key)>,
}

/// What was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Submitted {
    pub first: TaskId,
    /// The key had been used for the same request: this is the first task.
    pub replayed: bool,
    /// Then these are all that were submitted with it.
    pub all: Vec<TaskId>,
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
    /// A turn says something of the task that it is an attempt of, until it falls silent.
    fn speaks(&self, _task: TaskId, _notes: &Arc<Notes>) {}
    /// That turn has ended.
    fn fell_silent(&self, _task: TaskId, _notes: &Arc<Notes>) {}
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

/// The agents of one kind that are spoken to, by key: senders look here once, and then go
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

impl<A: Agent> Directory<A> {
    /// Lets go of lanes that nobody holds and that are as new ones would be; tells of how many. `counts`: whether
    /// any of an agent's crashes still does. Looks at a part of them at a time.
    pub(crate) fn prune(&self, counts: impl Fn(&mut Budget) -> bool) -> usize {
        // Only the table holds it, and under the lock nobody can get it: so no message is on its way there.
        self.lanes.prune(|lane| Arc::get_mut(lane).is_some_and(|lane| lane.is_as_new(&counts)))
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

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{
            atomic::AtomicUsize,
            mpsc::{Receiver, Sender, channel},
        },
        task::{Context, Waker},
    };

    use parking_lot::Mutex;

    use super::*;
    use crate::agent::{
        AgentRef, Handler, Turn,
        letter::{Letter, ReplyTo},
    };

    #[derive(Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    struct Tick {}
    crate::message!(Tick -> ());

    #[derive(Default, serde::Serialize, serde::Deserialize)]
    struct Clock;
    impl Agent for Clock {
        const KIND: &'static str = "clock";
        type Messages = Tick;
    }
    impl Handler<Tick> for Clock {
        async fn handle(&mut self, _: Tick, _: &Turn<Self>) -> anyhow::Result<()> {
            Ok(())
        }
    }

    /// A lane for a cell to run; `None`: there will be no more.
    type Work = Option<Arc<Lane<Clock>>>;

    /// Hands lanes that have work to threads.
    struct Cells(Sender<Work>);

    impl Activator<Clock> for Cells {
        fn activate(&self, lane: Arc<Lane<Clock>>) {
            let _ = self.0.send(Some(lane));
        }
        fn host(&self) -> Option<Arc<dyn Host>> {
            None
        }
    }

    fn directory(mailbox: usize) -> (Directory<Clock>, Sender<Work>, Receiver<Work>) {
        let (to, work) = channel();
        let directory = Directory {
            kind: Clock::KIND.into(),
            mailbox,
            rejects: false,
            lanes: Table::default(),
            closing: AtomicBool::new(false),
            activator: Arc::new(Cells(to.clone())),
        };
        (directory, to, work)
    }

    fn never(_: &mut Budget) -> bool {
        false
    }

    /// Does as a cell does until it has let go of the lane, and tells how many letters there were.
    fn live(lane: &Lane<Clock>, is_live: &AtomicBool) -> usize {
        let (mut batch, mut letters) = (VecDeque::new(), 0);
        loop {
            assert!(!is_live.swap(true, Ordering::SeqCst), "two cells of one agent live at once");
            lane.poll_batch(&mut batch, &mut Context::from_waker(Waker::noop()));
            letters += batch.drain(..).count();
            std::thread::yield_now();
            is_live.store(false, Ordering::SeqCst);
            if lane.detach() {
                return letters;
            }
        }
    }

    #[test]
    fn lanes_that_nobody_holds_are_let_go_when_their_cells_have_left() {
        let (directory, _, work) = directory(8);
        for n in 0..1_000 {
            let lane = directory.lane(&format!("{n}")).unwrap();
            assert!(lane.push(Letter::new(Tick {}, ReplyTo::Nobody, None)).is_ok());
        }
        assert_eq!((directory.prune(never), directory.lanes.all().count()), (0, 1_000), "their cells run");
        for lane in work.try_iter().flatten() {
            assert_eq!(live(&lane, &AtomicBool::new(false)), 1);
        }
        assert_eq!((directory.prune(never), directory.lanes.all().count()), (1_000, 0));
    }

    #[test]
    fn a_handle_keeps_its_lane() {
        let (directory, _, work) = directory(8);
        let clock = AgentRef { lane: Ok(directory.lane("a").unwrap()), urgent: false };
        assert!(clock.try_tell(Tick {}).is_ok());
        work.try_iter().flatten().for_each(|lane| assert_eq!(live(&lane, &AtomicBool::new(false)), 1));
        assert_eq!(directory.prune(never), 0);
        let same = |lane: &Arc<Lane<Clock>>| Arc::ptr_eq(lane, &directory.lane("a").unwrap());
        assert!(clock.lane.as_ref().is_ok_and(same));
        drop(clock);
        assert_eq!(directory.prune(never), 1);
    }

    /// Senders by key, cells that come and go, and somebody who lets lanes go all the time.
    #[test]
    fn a_message_that_is_sent_while_its_lane_is_let_go_is_not_lost_and_no_agent_lives_twice() {
        const KEYS: usize = 8;
        let (directory, to, work) = directory(usize::MAX);
        let (work, live_now) = (Mutex::new(work), [const { AtomicBool::new(false) }; KEYS]);
        let (sent, handled, sending) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(3));
        let let_go = std::thread::scope(|scope| {
            for seed in 0..3_u64 {
                let (directory, to, sending) = (&directory, to.clone(), &sending);
                let (sent, handled) = (&sent, &handled);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..10_000 {
                        let lane = directory.lane(&format!("{}", random.usize(..KEYS))).unwrap();
                        assert!(lane.push(Letter::new(Tick {}, ReplyTo::Nobody, None)).is_ok());
                        drop(lane);
                        sent.fetch_add(1, Ordering::SeqCst);
                        // Most lanes are to be at rest, and may be let go then.
                        let is_much =
                            || sent.load(Ordering::SeqCst) > handled.load(Ordering::SeqCst) + KEYS / 2;
                        (0..100).take_while(|_| is_much()).for_each(|_| std::thread::yield_now());
                    }
                    // The last one to send ends the cells' threads: all that there is to run is on its way by then.
                    if sending.fetch_sub(1, Ordering::SeqCst) == 1 {
                        (0..2).for_each(|_| to.send(None).unwrap());
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let next = work.lock().recv();
                        let Ok(Some(lane)) = next else { return };
                        let key: usize = lane.name.key.parse().unwrap();
                        handled.fetch_add(live(&lane, &live_now[key]), Ordering::SeqCst);
                    }
                });
            }
            let mut let_go = 0;
            while sending.load(Ordering::SeqCst) > 0 {
                let_go += directory.prune(never);
            }
            let_go
        });
        assert_eq!(handled.into_inner(), 30_000);
        assert!(let_go > 100, "it was seldom tried: {let_go}");
        directory.prune(never);
        assert_eq!(directory.lanes.all().count(), 0);
    }
}
