//! A turn, as a handler sees it: the only way to side effects.
//!
//! Tells and submissions of a turn wait in its outbox and leave with its commit. Asks and calls leave at once,
//! but only when the agent's earlier turns are durable (the *gate*).

mod bonds;
mod conversation;
mod end;
mod gate;
mod notes;
mod outbox;
mod peers;
mod session;
mod timers;
mod topics;

use std::{
    any::TypeId,
    collections::HashMap,
    marker::PhantomData,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use jiff::Timestamp;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use uuid::Uuid;

pub use conversation::{Opened, Talk};
use end::End;
pub(crate) use gate::{Gate, Passage};
use notes::Voice;
pub(crate) use outbox::{Outbox, TaskKey};
pub use peers::{Batch, Peer, Queued, ToolPeer};
pub use session::{Held, SessionPeer};
pub(crate) use timers::{Alarm, Timers};
pub(crate) use topics::no_member;

use super::{
    Agent,
    answer::AskError,
    chain::{Chain, Waiting},
    double::Double,
    host::{Host, Reads},
    lane::{Lane, Name},
    letter::Meta,
    message::Message,
    pending::Pending,
    reference::{Address, as_input, node_has_ended, request_hash},
};
use crate::{
    Settings, clock,
    model::{
        conversation::ConversationId,
        id::{MAX_IDEMPOTENCY_KEY_BYTES, Target, TaskId},
        session::Expect,
        task::{MAX_BATCH, NewBatch, NewTask, TaskOptions},
    },
    tool::Tool,
};

/// One turn of an agent. Handlers and hooks get it by reference; it is `Send + Sync`, so several
/// asks may be awaited together.
pub struct Turn<A: Agent> {
    host: Arc<dyn Host>,
    lane: Arc<Lane<A>>,
    // boxed, as what follows: an agent at rest has a turn too, and most turns need none of these
    outbox: Mutex<Option<Box<Outbox>>>,
    pub(crate) gate: Gate,
    pub(crate) is_new: bool,
    /// A test has its messages, in place of the agent.
    pub(crate) is_double: bool,
    now: AtomicI64,
    aside: OnceLock<Box<Aside>>,
    timers: OnceLock<Arc<Timers<A>>>,
    /// How long the turn may take.
    limit: Duration,
    pub(crate) activation: Option<Arc<dyn Activation>>,
}

/// One activation of the agent: its time in memory.
pub(crate) trait Activation: Send + Sync {
    /// Whether it is to end, by an operator or a shutdown.
    fn is_leaving(&self) -> bool;
}

/// Per-turn data that most turns do not need; allocated on first use.
#[derive(Default)]
struct Aside {
    told: Told,
    key: OnceLock<String>,
    reach: Mutex<Reach>,
    /// When it first waited for another agent or a tool.
    waits_since: OnceLock<Instant>,
    end: End,
    /// It says something of its task.
    voice: OnceLock<Voice>,
}

/// The metadata of the letter.
#[derive(Default)]
struct Told {
    message: Option<Uuid>,
    task: Option<TaskId>,
    deadline: Option<Instant>,
    chain: Chain,
    key: Option<String>,
}

/// Calls made and sessions read by this turn.
#[derive(Default)]
struct Reach {
    /// How often it has made a call.
    calls: HashMap<[u8; 16], u32>,
    /// Sessions that it has read.
    seen: HashMap<String, Expect>,
}

impl<A: Agent> Turn<A> {
    pub(crate) fn new(host: Arc<dyn Host>, lane: Arc<Lane<A>>) -> Self {
        Self {
            host,
            lane,
            outbox: Mutex::default(),
            gate: Gate::default(),
            is_new: true,
            is_double: false,
            now: AtomicI64::new(0),
            aside: OnceLock::new(),
            timers: OnceLock::new(),
            limit: Duration::MAX,
            activation: None,
        }
    }

    /// For the cell: makes it ready for the next message.
    #[inline]
    pub(crate) fn begin(&mut self, meta: Option<&Meta>, passage: Passage, limit: Duration) {
        self.gate.reset(passage);
        self.limit = limit;
        *self.now.get_mut() = 0;
        if self.aside.get().is_some() {
            self.aside = OnceLock::new();
        }
        if let Some(meta) = meta {
            let told = Told {
                message: meta.id,
                task: meta.claim.as_ref().map(|c| c.id),
                deadline: meta.deadline,
                chain: meta.chain.clone(),
                key: meta.key.as_ref().map(|k| k.text.clone()),
            };
            self.aside = OnceLock::from(Box::new(Aside { told, ..Aside::default() }));
        }
    }

    fn aside(&self) -> &Aside {
        self.aside.get_or_init(Box::default)
    }

    /// The metadata of the letter, if it has any.
    fn told(&self) -> Option<&Told> {
        self.aside.get().map(|aside| &aside.told)
    }

    fn outbox(&self) -> MappedMutexGuard<'_, Outbox> {
        MutexGuard::map(self.outbox.lock(), |outbox| &mut **outbox.get_or_insert_default())
    }

    fn reach(&self) -> MutexGuard<'_, Reach> {
        self.aside().reach.lock()
    }

    /// The task that the message is an attempt of.
    fn task(&self) -> Option<TaskId> {
        self.told()?.task
    }

    /// Who waits for what this turn waits for: the turn itself too, as long as the second value lives.
    fn chain(&self) -> (Chain, Waiting) {
        let none = Chain::default();
        self.told().map_or(&none, |told| &told.chain).and(&self.name().subject())
    }

    /// For the cell: whether the turn leaves anything behind.
    #[inline]
    pub(crate) fn has_outbox(&mut self) -> bool {
        self.outbox.get_mut().as_ref().is_some_and(|outbox| !outbox.is_empty())
    }

    /// For the cell: what the turn leaves behind.
    pub(crate) fn take_outbox(&mut self) -> Option<Box<Outbox>> {
        self.outbox.get_mut().take_if(|outbox| !outbox.is_empty())
    }

    /// What a test has put in the agent's place.
    pub(crate) fn double(&self) -> Option<Arc<Double>> {
        self.host.double(&self.lane.name.kind, &self.lane.name.key)
    }

    fn name(&self) -> &Name {
        &self.lane.name
    }

    /// The agent's key.
    pub fn key(&self) -> &str {
        &self.name().key
    }

    /// The agent's own address.
    pub fn me(&self) -> Address<A> {
        Address::new(&*self.name().key)
    }

    /// Whether the agent has never committed.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The time of the turn: the same at each call.
    pub fn now(&self) -> Timestamp {
        let micros = match self.now.load(Ordering::Relaxed) {
            0 => {
                let fresh = clock::now().as_microsecond();
                match self.now.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => fresh,
                    Err(first) => first,
                }
            }
            known => known,
        };
        Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// What is left of the caller's time, if it set a timeout.
    pub fn deadline(&self) -> Option<Duration> {
        self.told()?.deadline.map(|d| d.saturating_duration_since(Instant::now()))
    }

    /// A key that is the same whenever this message is handled again: the task's id, the caller's key, or the
    /// message's id. It may be the key of an ask: it has at most 255 bytes.
    pub fn idempotency_key(&self) -> &str {
        let aside = self.aside();
        aside.key.get_or_init(|| match &aside.told {
            Told { task: Some(task), .. } => task.to_string(),
            Told { key: Some(key), .. } => fitting(format!("{}/{}/{key}", self.name().kind, self.name().key)),
            Told { message: Some(message), .. } => message.to_string(),
            _ => Uuid::now_v7().to_string(),
        })
    }

    /// For the cell: the id that the message got when its turn wanted a key, and is to keep if that runs again.
    #[inline]
    pub(crate) fn named(&self) -> Option<Uuid> {
        let aside = self.aside.get()?;
        let fresh = matches!(aside.told, Told { message: None, task: None, key: None, .. });
        aside.key.get().filter(|_| fresh)?.parse().ok()
    }

    /// For the cell: what the turn waits for has its time from now on.
    pub(crate) fn waits(&self, since: Instant) {
        let _ = self.aside().waits_since.set(since);
    }

    /// The time left for what the turn waits for: of its caller's budget, and of its own.
    fn budget(&self) -> Duration {
        let since = self.aside().waits_since.get_or_init(Instant::now);
        let own = self.limit.saturating_sub(since.elapsed());
        self.deadline().map_or(own, |left| left.min(own))
    }

    /// Whether the turn's answer is no longer wanted: its caller is gone (it timed out, its own turn has ended,
    /// its client has disconnected), or an operator or a shutdown asks the turn to end. A turn that continues
    /// regardless commits like any other. That the caller is gone is noticed while the turn awaits something.
    pub fn cancelled(&self) -> bool {
        let leaving = self.activation.as_ref().is_some_and(|activation| activation.is_leaving());
        leaving || self.aside.get().is_some_and(|aside| aside.end.is_near())
    }

    /// Resolves when the turn is cancelled, otherwise never. Meant to be raced (`select!`) against long work.
    pub async fn cancellation(&self) {
        self.aside().end.wait(|| self.cancelled()).await;
    }

    /// For the letter, after the handler was polled: records that its caller is gone. `true`: the handler
    /// awaits that, and must be polled again.
    pub(crate) fn hears_of_its_end(&self, abandoned: bool) -> bool {
        if abandoned {
            self.aside().end.comes();
        }
        self.cancelled() && self.aside.get().is_some_and(|aside| aside.end.wake())
    }

    /// Another agent, by key.
    pub fn agent<B: Agent>(&self, key: impl Into<String>) -> Peer<'_, A, B> {
        Peer { turn: self, key: key.into(), urgent: false, _peer: PhantomData }
    }

    /// Another agent, by address.
    pub fn at<B: Agent>(&self, to: &Address<B>) -> Peer<'_, A, B> {
        self.agent(to.key.clone())
    }

    /// A tool.
    pub fn tool<T: Tool>(&self) -> ToolPeer<'_, A, T> {
        ToolPeer { turn: self, _tool: PhantomData }
    }

    /// A conversation, to read and append to.
    pub fn conversation(&self, id: ConversationId) -> Talk<'_, A> {
        Talk { turn: self, id }
    }

    /// A session, by a key that follows the rules for agent keys.
    pub fn session(&self, id: impl Into<String>) -> SessionPeer<'_, A> {
        SessionPeer { turn: self, id: id.into() }
    }

    /// Reads of the store, once this agent's earlier turns are durable.
    async fn reads(&self) -> Result<&dyn Reads, AskError> {
        self.gate.pass().await?;
        self.host.reads().ok_or_else(node_has_ended)
    }

    /// The resource of this type that was given to [`Builder::resource`](crate::Builder::resource).
    ///
    /// # Panics
    /// If no resource of this type was registered: the turn crashes.
    pub fn resource<T: Send + Sync + 'static>(&self) -> &T {
        let found = self.host.resource(TypeId::of::<T>()).and_then(|any| any.downcast_ref::<T>());
        match found {
            Some(resource) => resource,
            None => {
                panic!("no resource `{0}`: add `.resource(…)` to the builder", std::any::type_name::<T>())
            }
        }
    }

    /// The program's own section of the configuration, as of now.
    pub fn settings<S: Settings>(&self) -> Arc<S> {
        crate::tool::settings(&*self.host)
    }

    /// Unloads the agent after this turn. Its state is kept, pending timers are not.
    pub fn retire(&self) {
        self.outbox().retire = true;
    }

    /// Runs blocking code on a blocking thread once this agent's earlier turns are durable, because such code may
    /// have effects that cannot be undone. In a hook it starts at once.
    ///
    /// # Errors
    /// The code panicked, the node is shutting down, or the code took longer than the `timeout` from its start; it
    /// then runs on, and its result is dropped.
    pub fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Pending<'_, T, anyhow::Error> {
        Pending::new(move |options| async move {
            if !self.gate.is_hooks() {
                self.gate.pass().await?;
            }
            let result = Arc::new(Mutex::new(None));
            let there = result.clone();
            let work = self.host.blocking(Box::new(move || *there.lock() = Some(f())));
            let ran = match options.timeout {
                Some(limit) => tokio::time::timeout(limit, work)
                    .await
                    .map_err(|_| anyhow::anyhow!("the blocking code took longer than {limit:?}"))?,
                None => work.await,
            };
            let value = result.lock().take();
            match value {
                Some(value) if ran => Ok(value),
                _ => Err(anyhow::anyhow!("the blocking code panicked")),
            }
        })
    }

    fn own_target(&self) -> Target {
        Target::agent(A::KIND, self.key())
    }

    fn queue<M: Message>(&self, target: Target, name: &str, message: &M) -> Option<NewTask> {
        let input = match as_input(&*self.host, message) {
            Ok(input) => input,
            Err(e) => {
                self.outbox().refuse(format!("cannot submit `{}` to {target}: {e}", M::NAME));
                return None;
            }
        };
        let mut task = NewTask::under(&self.host.terms(&target), target, name, input);
        task.parent = self.task();
        Some(task)
    }

    fn submit_one<M: Message, B>(&self, target: Target, name: &str, message: &M) -> Queued<'_, A, B> {
        let made = self.queue(target, name, message);
        let id = made.as_ref().map_or_else(TaskId::fresh, |t| t.id);
        if let Some(task) = made {
            self.outbox().push(task, true);
        }
        Queued { turn: self, id, options: TaskOptions::default(), _message: PhantomData }
    }

    fn submit_many<M: Message, B>(
        &self,
        target: &Target,
        name: &str,
        messages: impl IntoIterator<Item = M>,
    ) -> Batch<'_, A, B> {
        let id = TaskId::fresh();
        let mut size = 0u64;
        for message in messages {
            let Some(mut task) = self.queue(target.clone(), name, &message) else { break };
            task.batch = Some(id);
            size += 1;
            let mut outbox = self.outbox();
            if size as usize > MAX_BATCH {
                outbox.refuse("`submit_all` takes at most 100,000 inputs");
                break;
            }
            outbox.push(task, false);
        }
        self.outbox().batches.push(NewBatch { id, size, notify: None });
        Batch { turn: self, id, options: TaskOptions::default(), _message: PhantomData }
    }

    /// A key for a call out of this turn that is the same when the turn runs again.
    fn call_key(&self, target: &str, name: &str, body: &str) -> String {
        let hash = request_hash(&format!("{target} {name}"), body);
        let nth = {
            let mut reach = self.reach();
            let n = reach.calls.entry(hash).or_default();
            *n += 1;
            *n
        };
        fitting(format!("{}:{:032x}:{nth}", self.idempotency_key(), u128::from_be_bytes(hash)))
    }
}

/// A derived key, or what stands for it where it is too long: each ask on the way adds to it. Shorter ones stay as
/// they are, for the store knows them.
fn fitting(key: String) -> String {
    if key.len() <= MAX_IDEMPOTENCY_KEY_BYTES {
        return key;
    }
    Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).to_string()
}
