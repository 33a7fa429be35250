//! The shared data of a node.

use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use actix_rt::ArbiterHandle;
use jiff::Timestamp;
use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use arc_swap::ArcSwap;

use super::{
    agent_locks::AgentLocks,
    backlog::Waiting,
    bonds::Bonds,
    cache_actor::{Put, Refresh},
    configuration::{Configuration, Layers},
    crashes::Crashes,
    dispatcher::{CLAIM, Endings, Held, Newborns, PROMOTE, Wake},
    groups::{Group, MemberCrashed},
    keeper::Keeper,
    keys,
    kind::AnyKind,
    lease::Owned,
    metrics::Metrics,
    notes::NoteBook,
    null_host::NullHost,
    orchestrator::{Crowded, Notice},
    outage::Outage,
    persistence::{MAX_WAITING, Outcome, Persistence, SUBMISSIONS},
    probe::Probe,
    pulse::Pulses,
    root_actors::Actors,
    schedules::Signal,
    settle::later,
    since::Since,
    state_loader::Loads,
    tool_cell::AnyTool,
    topics::Topics,
    watchdog::Heart,
};
use crate::{
    agent::{
        AskError,
        host::{Host, Submission, Submitted},
    },
    cache::Cache,
    clock, config,
    log::Logger,
    model::{
        event::{self, Event, Level},
        id::{AgentId, Target, TaskId},
        supervision::CrashReport,
        task::NewTask,
    },
    store::{KeyRow, KeyWrite, Refusal, Store, Unit},
    tool::Call,
};

/// What the parts of a node share.
pub(crate) struct Node {
    pub me: Weak<Node>,
    pub boot: Uuid,
    pub started: Instant,
    pub started_at: Timestamp,
    /// Tasks that were rescued when it started.
    pub rescued: AtomicU64,
    /// What is in force; some of it may change while the node runs.
    pub settings: ArcSwap<config::Settings>,
    pub configuration: Configuration,
    pub logger: Logger,
    pub store: Arc<dyn Store>,
    pub loads: Loads,
    pub cache: Arc<dyn Cache>,
    pub keeper: Arc<Keeper>,
    pub persistence: Persistence,
    pub waiting: Waiting,
    pub owned: Owned,
    pub outage: Arc<Outage>,
    pub arbiters: Vec<ArbiterHandle>,
    /// The arbiters' signs of life, in their order.
    pub hearts: Vec<Arc<Heart>>,
    /// How many cells have come into memory.
    pub starts: AtomicU64,
    pub groups: Vec<Group>,
    pub kinds: Vec<Arc<dyn AnyKind>>,
    pub directories: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    pub tools: BTreeMap<&'static str, Arc<dyn AnyTool>>,
    pub resources: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    pub topics: Topics,
    pub schedules: Signal,
    pub bonds: Bonds,
    pub metrics: Metrics,
    pub crashes: Crashes,
    /// A test's hand in the node.
    pub probe: Option<Arc<dyn Probe>>,
    pub runtime: tokio::runtime::Handle,
    /// Known once they have started.
    actors: RwLock<Option<Arc<Actors>>>,
    pub root: ArbiterHandle,
    /// Shuts the node down.
    pub stop: CancellationToken,
    /// Why the node must end with an error.
    pub fatal: Arc<OnceLock<String>>,
    /// Tool calls of running tasks, for their progress.
    pub calls: dashmap::DashMap<TaskId, Call>,
    /// All the calls of tools that run, for the watchdog.
    pub pulses: Pulses,
    /// What they have said that is not written down.
    pub notes: NoteBook,
    /// Ids of tasks whose state changed.
    pub moved: broadcast::Sender<TaskId>,
    /// Something was committed that other nodes may wait for.
    pub news: tokio::sync::Notify,
    pub overflow: tokio::sync::Notify,
    /// There may be parked tasks that nobody brings back.
    pub parked: tokio::sync::Notify,
    /// What operators do to one agent they do one after the other.
    pub agent_locks: AgentLocks,
    /// A wake-up is on its way to the dispatcher.
    pub waking: AtomicU8,
    /// Tasks that begin with their submission.
    pub newborns: Newborns,
    /// Tasks that have ended.
    pub endings: Endings,
    /// An operator wants it to begin no tasks; a restart ends that.
    pub draining: Since,
    /// Cancelled when it goes down and what its tools do for tasks is to go back.
    pub breaks_off: tokio_util::sync::CancellationToken,
    tick: AtomicU32,
    closing: Since,
}

/// What [`Node::new`] is given beside what it makes itself.
pub(crate) struct Parts {
    pub settings: Arc<config::Settings>,
    pub layers: Layers,
    pub logger: Logger,
    pub store: Arc<dyn Store>,
    pub cache: Arc<dyn Cache>,
    pub keeper: Arc<Keeper>,
    pub boot: Uuid,
    pub persistence: Persistence,
    pub epochs: Vec<i64>,
    pub outage: Arc<Outage>,
    pub started: Instant,
    pub arbiters: Vec<ArbiterHandle>,
    pub root: ArbiterHandle,
    pub registry: super::registry::Registry,
    pub schedules: Signal,
    pub stop: CancellationToken,
    pub fatal: Arc<OnceLock<String>>,
}

impl Node {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new_cyclic(|me| {
            let probe = parts.registry.probe.clone();
            let built = parts.registry.build(me, &parts.settings);
            let topics = Topics::new(parts.store.shared().is_some());
            Self {
                me: me.clone(),
                boot: parts.boot,
                started: parts.started,
                started_at: clock::now(),
                rescued: AtomicU64::new(0),
                configuration: Configuration::new(parts.layers, parts.settings.clone(), built.sections),
                settings: ArcSwap::new(parts.settings),
                logger: parts.logger,
                loads: Loads::new(parts.store.clone()),
                store: parts.store,
                cache: parts.cache,
                keeper: parts.keeper,
                persistence: parts.persistence,
                waiting: Waiting::default(),
                owned: Owned::new(&parts.epochs),
                outage: parts.outage,
                hearts: parts.arbiters.iter().map(|_| Arc::default()).collect(),
                starts: AtomicU64::new(0),
                groups: built.groups,
                arbiters: parts.arbiters,
                kinds: built.kinds,
                directories: built.directories,
                tools: built.tools,
                resources: built.resources,
                topics,
                schedules: parts.schedules,
                bonds: Bonds::new(),
                metrics: Metrics::default(),
                crashes: Crashes::default(),
                probe,
                runtime: tokio::runtime::Handle::current(),
                actors: RwLock::new(None),
                root: parts.root,
                stop: parts.stop,
                fatal: parts.fatal,
                calls: dashmap::DashMap::new(),
                pulses: Pulses::default(),
                notes: NoteBook::default(),
                moved: broadcast::channel(1_024).0,
                news: tokio::sync::Notify::new(),
                overflow: tokio::sync::Notify::new(),
                parked: tokio::sync::Notify::new(),
                agent_locks: AgentLocks::default(),
                waking: AtomicU8::new(0),
                newborns: Newborns::default(),
                endings: Endings::default(),
                draining: Since::default(),
                tick: AtomicU32::new(0),
                closing: Since::default(),
                breaks_off: Default::default(),
            }
        })
    }

    pub(crate) fn host(&self) -> Arc<dyn Host> {
        match self.me.upgrade() {
            Some(node) => node,
            None => Arc::new(NullHost),
        }
    }

    /// The arbiter that an agent is to live on: one whose thread is free, if there is any.
    pub(crate) fn arbiter(&self, id: AgentId) -> Option<&ArbiterHandle> {
        let all = self.arbiters.len().max(1);
        let n = usize::from(id.0.as_bytes()[13]) % all;
        let is_stuck = |n: &usize| self.hearts.get(*n).is_some_and(|heart| heart.is_stuck());
        let free = (n..n + all).map(|n| n % all).find(|n| !is_stuck(n));
        self.arbiters.get(free.unwrap_or(n))
    }

    /// The epoch under which the node owns an agent's partition; 0 where it does not.
    pub(crate) fn epoch(&self, id: AgentId) -> i64 {
        self.owned.epoch(id.partition())
    }

    /// Whether no turn may start: what it did could not be kept. `alone`: a turn that keeps nothing.
    #[inline]
    pub(crate) fn is_troubled(&self, alone: bool) -> bool {
        self.owned.in_doubt() || (!alone && self.outage.is_known())
    }

    /// What those are told who are turned away because of that.
    pub(crate) fn trouble(&self) -> AskError {
        AskError::Unavailable(match self.outage.down() {
            Some(down) => format!("the store is down ({}): {}", down.cause.name(), down.error),
            None => "the node's lease is in doubt: the store has not renewed it".to_owned(),
        })
    }

    /// Why an agent is not served here, where another node owns it or nobody does yet.
    pub(crate) fn elsewhere(&self, id: AgentId, subject: &str) -> Option<(AskError, Option<String>)> {
        if self.epoch(id) != 0 {
            return None;
        }
        let owner = self.owned.owner(id, self.boot);
        let url = owner.as_ref().and_then(|n| n.url.clone());
        let why = match owner {
            Some(n) => {
                let at = n.url.map(|url| format!(" at {url}")).unwrap_or_default();
                format!("{subject} is served by the node `{}`{at}", n.name)
            }
            None => format!("no node owns {subject} at the moment"),
        };
        Some((AskError::Unavailable(why), url))
    }

    /// Has every running agent look up: what holds it back has changed.
    pub(crate) fn wake_all(&self) {
        self.kinds.iter().for_each(|kind| kind.wake());
    }

    /// The node's own actors, once they have started.
    pub(crate) fn actors(&self) -> Option<Arc<Actors>> {
        self.actors.read().clone()
    }

    pub(crate) fn set_actors(&self, actors: Actors) {
        *self.actors.write() = Some(Arc::new(actors));
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whole seconds since the start, as coarse as the sweeper's steps.
    pub(crate) fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self) -> u32 {
        self.tick.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_on()
    }

    /// Since when it has been going down.
    pub(crate) fn closing_since(&self) -> Option<Timestamp> {
        self.closing.since()
    }

    pub(crate) fn set_closing(&self) {
        self.closing.set(true, clock::now());
    }

    pub(crate) fn kind(&self, name: &str) -> Option<(usize, &Arc<dyn AnyKind>)> {
        self.kinds.iter().enumerate().find(|(_, k)| k.name() == name)
    }

    /// Whether this node has the kind or tool of a target.
    pub(crate) fn has(&self, target: &Target) -> bool {
        match target {
            Target::Agent { kind, .. } => self.kind(kind).is_some(),
            Target::Tool(name) => self.tools.contains_key(name.as_str()),
        }
    }

    /// Its kinds and tools, as tasks are queued for them.
    pub(crate) fn queues(&self) -> Vec<String> {
        let tools = self.tools.keys().map(|name| format!("tool:{name}"));
        self.kinds.iter().map(|kind| kind.name().to_owned()).chain(tools).collect()
    }

    /// Those of them of which nothing may begin here: tools that have crashed too often.
    pub(crate) fn stopped_queues(&self) -> impl Iterator<Item = String> + '_ {
        let stopped = self.tools.iter().filter(|(_, tool)| tool.stopped().is_some());
        stopped.map(|(name, _)| format!("tool:{name}"))
    }

    /// Keeps a durable state for the next activation.
    pub(crate) fn cache_state(&self, id: AgentId, epoch: i64, version: i64, bytes: &Arc<Vec<u8>>) {
        if let Some(actors) = self.actors() {
            // A full mailbox means a herd of passivations: the cache may miss some of it.
            let _ = actors.cache.try_send(Put { id, epoch, version, bytes: bytes.clone() });
        }
    }

    /// Has the cache take in what was committed of conversations and sessions.
    pub(crate) fn wake_cache(&self) {
        if let Some(actors) = self.actors() {
            // A full mailbox: until the next time, readers go to the store.
            let _ = actors.cache.try_send(Refresh);
        }
    }

    /// Keeps and logs a crash with its decision.
    pub(crate) fn crashed(&self, report: CrashReport) {
        self.logger.crash(&report);
        self.crashes.add(report);
    }

    /// `false`: nobody hears of it. A full mailbox means so many crashes that the group is past its intensity anyway.
    pub(crate) fn member_crashed(&self, crashed: MemberCrashed) -> bool {
        self.actors().is_some_and(|actors| actors.orchestrator.try_send(crashed).is_ok())
    }

    /// Shuts the node down with an error, because it could not work properly any more.
    pub(crate) fn fail(&self, why: String, hint: &str) {
        let event = Event::new(Level::Critical, event::NODE_STOPPING, "node").field("reason", why.clone());
        self.logger.emit(event.hint(hint));
        let _ = self.fatal.set(why);
        self.stop.cancel();
    }

    /// More agents of a kind are in memory than may be.
    pub(crate) fn crowded(&self, kind: Arc<dyn AnyKind>) {
        if let Some(actors) = self.actors() {
            // A full mailbox: the next sweep looks anyway.
            let _ = actors.orchestrator.try_send(Crowded(kind));
        }
    }

    pub(crate) fn notice(&self, notice: Notice) {
        if let Some(actors) = self.actors() {
            let _ = actors.orchestrator.try_send(notice);
        }
    }

    /// Wakes the dispatcher, once for many.
    pub(crate) fn wake_dispatcher(&self, promote: bool) {
        let bits = if promote { CLAIM | PROMOTE } else { CLAIM };
        if self.waking.fetch_or(bits, Ordering::AcqRel) & CLAIM == 0
            && let Some(actors) = self.actors()
            && actors.dispatcher.try_send(Wake).is_err()
        {
            self.waking.fetch_and(!CLAIM, Ordering::AcqRel);
        }
    }

    /// Whether a target's tasks run on another node.
    pub(crate) fn is_anothers(&self, target: &Target) -> bool {
        let partition = target.partition();
        partition >= 0 && self.owned.epoch(partition) == 0
    }

    /// Tells those who wait for a task.
    pub(crate) fn task_moved(&self, id: TaskId) {
        let _ = self.moved.send(id);
    }

    pub(crate) fn tasks_accepted(&self, tasks: &[NewTask]) {
        if self.logger.wants(Level::Debug, event::TASK_ACCEPTED) {
            for task in tasks {
                let event = Event::new(Level::Debug, event::TASK_ACCEPTED, format!("task:{}", task.id));
                self.logger.emit(
                    event.field("target", task.target.to_string()).field("message", task.message.clone()),
                );
            }
        }
    }

    /// Accepts tasks from outside of any turn.
    pub(crate) async fn accept(self: Arc<Self>, submission: Submission) -> Result<Submitted, AskError> {
        if self.is_closing() {
            return Err(AskError::Unavailable("the node is going down".to_owned()));
        }
        if self.outage.is_known() {
            return Err(self.trouble());
        }
        if self.persistence.waiting() > MAX_WAITING {
            let what = "the store is behind".to_owned();
            return Err(AskError::Overloaded { what, retry_after: Duration::from_secs(1) });
        }
        let Some(task) = submission.tasks.first() else {
            return Err(AskError::Invalid(crate::Invalid::at("/tasks", "there are none")));
        };
        let id = task.id;
        let mut unit = Unit { batches: submission.batches, ..Unit::default() };
        if let Some((scope, key)) = &submission.key {
            let found = tokio::select! {
                found = self.store.key(*scope, &key.text) => found,
                () = self.outage.lasts() => return Err(self.trouble()),
            };
            match found {
                Ok(None) => {}
                Ok(Some(row)) => return replayed(&row, key.request),
                Err(e) => return Err(AskError::Unavailable(e.to_string())),
            }
            unit.keys.push(KeyWrite {
                scope: *scope,
                key: key.text.clone(),
                request: key.request,
                task: Some(id),
                reply: (submission.tasks.len() > 1).then(|| keys::write_ids(&submission.tasks)),
                expires_at: later(clock::now(), self.settings.load().limits.idempotency_ttl),
            });
        }
        // Whoever repeats what was accepted has been answered by its key.
        let _coming = self.let_in(submission.by, &submission.tasks).await?;
        self.tasks_accepted(&submission.tasks);
        unit.accepted = submission.tasks;
        unit.begin = self.may_begin(&unit);
        match self.persistence.commit(SUBMISSIONS, unit).await {
            Outcome::Durable => Ok(Submitted { first: id, replayed: false, all: Vec::new() }),
            Outcome::Refused(Refusal::KeyTaken(row)) => {
                replayed(&row, submission.key.map(|(_, key)| key.request).unwrap_or_default())
            }
            Outcome::Refused(Refusal::ParentUnknown(parent)) => {
                Err(AskError::NotFound(format!("there is no task {parent}, which is to come before")))
            }
            Outcome::Refused(refusal) => Err(AskError::Unavailable(refusal.to_string())),
            Outcome::Unknown => Err(AskError::Unknown),
            Outcome::Full(why) => Err(AskError::NoRoom(why)),
            Outcome::Failed(why) => Err(AskError::Unavailable(why)),
        }
    }

    /// How many claimed tasks are not settled.
    pub(crate) async fn held_tasks(&self) -> usize {
        match self.actors() {
            Some(actors) => actors.dispatcher.send(Held).await.unwrap_or(0),
            None => 0,
        }
    }
}

fn replayed(row: &KeyRow, request: [u8; 16]) -> Result<Submitted, AskError> {
    match row.task {
        Some(first) if row.request == request => {
            let all = row.reply.as_deref().map_or_else(|| vec![first], keys::read_ids);
            Ok(Submitted { first, replayed: true, all })
        }
        _ => Err(AskError::Conflict),
    }
}
