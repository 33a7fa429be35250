//! A store that fails as it is told to: between a node and its real store.
//!
//! ```ignore
//! let faults = Faults::default();
//! let world = World::start(faults.under(program)).await;
//! faults.fail(Some("sorry, too many clients already"));
//! ```
#![allow(dead_code)] // each test binary uses a part of it

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use greenroom::{
    Builder, TaskId,
    model::{
        access::{Digest, StoredToken},
        act::Act,
        conversation::{Conversation, ConversationId, MessageId, StoredMessage},
        crash_group::CrashGroup,
        id::{AgentId, Target},
        journal::{Journal, LogLine, Signal, TaskNotes, Wait},
        schedule::Schedule,
        session::Session,
        task::{ClaimId, Claimed, DeadTask, HeldClaim, Prerequisite, TaskEvent, TaskState, TaskView},
        topic::Subscriber,
    },
    store::*,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::watch;
use uuid::Uuid;

type Result<T> = std::result::Result<T, StoreError>;

/// What goes wrong, and the store behind it.
#[derive(Clone, Default)]
pub struct Faults(Arc<Inner>);

struct Inner {
    store: OnceLock<Arc<dyn Store>>,
    error: Mutex<Option<String>>,
    full: AtomicBool,
    no_renewals: AtomicBool,
    /// So many commits happen, and nobody hears of it.
    lose: AtomicUsize,
    /// After the last of those there is no room.
    then_full: AtomicBool,
    /// So many calls of [`Store::park`] fail.
    no_parking: AtomicUsize,
    /// So many looks at a key find nothing.
    blind: AtomicUsize,
    /// How often claims were given back.
    given_back: AtomicUsize,
    /// The node waits with its leave for this to be taken back.
    stays: watch::Sender<bool>,
    leaving: watch::Sender<bool>,
    hangs: watch::Sender<bool>,
    /// Commits that were tried, whatever became of them.
    tried: AtomicUsize,
    /// Partitions that another node owns, by its URL.
    revoked: Mutex<BTreeMap<i16, String>>,
    /// Calls of [`Store::commit`] that reached the real store.
    commits: AtomicUsize,
    loads: AtomicUsize,
    /// Reads of lists of agents.
    lists: AtomicUsize,
    /// Reads of conversations, messages and sessions.
    reads: AtomicUsize,
    /// Reads of topics.
    topics: AtomicUsize,
    /// Those under way, and the most that ever were.
    reading: AtomicUsize,
    most: AtomicUsize,
    /// So many more are subscribed to each topic than can be told.
    beyond: AtomicUsize,
    returns: watch::Sender<Returns>,
    /// Tasks, as often as they were claimed.
    claimed: Mutex<Vec<TaskId>>,
    /// How often a task that is to run alone was asked for while others ran.
    beside: AtomicUsize,
    /// How often it was asked what runs.
    looks: AtomicUsize,
    /// How often tasks were counted, and room was looked for.
    counts: AtomicUsize,
    trials: AtomicUsize,
    /// So many writes happen yet; before the next one the process dies.
    lives: Mutex<Option<usize>>,
    dead: AtomicBool,
    /// Whose next commit is refused.
    refused: Mutex<Option<(AgentId, Refusal)>>,
}

/// What becomes of the answers to claims that go back.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub enum Returns {
    /// They come.
    #[default]
    Heard,
    /// They come late: when this is taken back.
    Late,
    /// They are lost.
    Lost,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            store: OnceLock::new(),
            error: Mutex::default(),
            full: AtomicBool::new(false),
            no_renewals: AtomicBool::new(false),
            lose: AtomicUsize::new(0),
            then_full: AtomicBool::new(false),
            no_parking: AtomicUsize::new(0),
            blind: AtomicUsize::new(0),
            given_back: AtomicUsize::new(0),
            stays: watch::Sender::new(false),
            leaving: watch::Sender::new(false),
            hangs: watch::Sender::new(false),
            tried: AtomicUsize::new(0),
            revoked: Mutex::default(),
            commits: AtomicUsize::new(0),
            loads: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            topics: AtomicUsize::new(0),
            reading: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            beyond: AtomicUsize::new(0),
            returns: watch::Sender::new(Returns::Heard),
            claimed: Mutex::default(),
            beside: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            counts: AtomicUsize::new(0),
            trials: AtomicUsize::new(0),
            lives: Mutex::default(),
            dead: AtomicBool::new(false),
            refused: Mutex::default(),
        }
    }
}

impl Faults {
    /// The program with these faults between it and its store.
    pub fn under(&self, program: Builder) -> Builder {
        let inner = self.0.clone();
        program.wrap_store(move |store| {
            let _ = inner.store.set(store);
            Arc::new(Faulty(inner))
        })
    }

    /// The same over another store than the one that the program would open.
    pub fn over(&self, store: Arc<dyn Store>, program: Builder) -> Builder {
        let _ = self.0.store.set(store);
        self.under(program)
    }

    /// The store itself, as another node would have it.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.0.store.get().expect("the node has started")
    }

    /// Every call fails so, and nothing happens; `None`: no more.
    pub fn fail(&self, error: Option<&str>) {
        *self.0.error.lock() = error.map(str::to_owned);
    }

    /// Commits find no room.
    pub fn fill(&self, full: bool) {
        self.0.full.store(full, Ordering::SeqCst);
    }

    /// So many more commits and decisions of operators happen; before the next one the process dies, as far as
    /// the store can tell: nothing more reaches it. `None`: it goes on.
    pub fn die_after(&self, writes: Option<usize>) {
        *self.0.lives.lock() = writes;
    }

    /// Whether it has.
    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::SeqCst)
    }

    /// Every call waits until this is taken back.
    pub fn hang(&self, hangs: bool) {
        self.0.hangs.send_replace(hangs);
    }

    /// How many commits were tried.
    pub fn tried(&self) -> usize {
        self.0.tried.load(Ordering::SeqCst)
    }

    /// The lease is not renewed.
    pub fn no_renewals(&self, none: bool) {
        self.0.no_renewals.store(none, Ordering::SeqCst);
    }

    /// The next `n` commits happen, but their replies are lost.
    pub fn lose_replies(&self, n: usize) {
        self.0.lose.store(n, Ordering::SeqCst);
    }

    /// The next commit happens, but its reply is lost; after it there is no room.
    pub fn lose_reply_and_fill(&self) {
        self.0.then_full.store(true, Ordering::SeqCst);
        self.lose_replies(1);
    }

    /// The next `n` times that tasks are to be parked or brought back nothing happens.
    pub fn fail_parking(&self, n: usize) {
        self.0.no_parking.store(n, Ordering::SeqCst);
    }

    /// The next `n` looks at idempotency keys find nothing: another takes them right afterwards.
    pub fn overlook_keys(&self, n: usize) {
        self.0.blind.store(n, Ordering::SeqCst);
    }

    /// Whether all of those have been.
    pub fn sees_keys(&self) -> bool {
        self.0.blind.load(Ordering::SeqCst) == 0
    }

    /// How often claims were given back.
    pub fn given_back(&self) -> usize {
        self.0.given_back.load(Ordering::SeqCst)
    }

    /// A node that goes down stays where it is about to leave the store, until this is taken back.
    pub fn stay(&self, stays: bool) {
        self.0.stays.send_replace(stays);
    }

    /// Waits until it is about to leave.
    pub async fn is_leaving(&self) {
        let _ = self.0.leaving.subscribe().wait_for(|leaving| *leaving).await;
    }

    /// Claims go back from now on, but the answer does not come so.
    pub fn returns(&self, returns: Returns) {
        self.0.returns.send_replace(returns);
    }

    /// How often a task was claimed.
    pub fn claims_of(&self, id: TaskId) -> usize {
        self.0.claimed.lock().iter().filter(|claimed| **claimed == id).count()
    }

    /// How often a task that is to run alone was asked for while others ran.
    pub fn alone_beside_others(&self) -> usize {
        self.0.beside.load(Ordering::SeqCst)
    }

    /// How often it was asked what runs.
    pub fn looks(&self) -> usize {
        self.0.looks.load(Ordering::SeqCst)
    }

    /// How often tasks were counted.
    pub fn counts(&self) -> usize {
        self.0.counts.load(Ordering::SeqCst)
    }

    /// How often it was tried whether there is room again.
    pub fn trials(&self) -> usize {
        self.0.trials.load(Ordering::SeqCst)
    }

    /// The next commit of this agent is refused, and does not happen.
    pub fn refuse(&self, agent: AgentId, why: Refusal) {
        *self.0.refused.lock() = Some((agent, why));
    }

    /// Another node owns this partition now.
    pub fn revoke(&self, partition: i16, url: &str) {
        self.0.revoked.lock().insert(partition, url.to_owned());
    }

    /// It is this node's again.
    pub fn restore(&self, partition: i16) {
        self.0.revoked.lock().remove(&partition);
    }

    /// How many commits have reached the store.
    pub fn commits(&self) -> usize {
        self.0.commits.load(Ordering::SeqCst)
    }

    /// How many agents were read.
    pub fn loads(&self) -> usize {
        self.0.loads.load(Ordering::SeqCst)
    }

    /// How often a page of agents of a kind and a status was read.
    pub fn lists(&self) -> usize {
        self.0.lists.load(Ordering::SeqCst)
    }

    /// How often a topic's subscribers were read.
    pub fn topic_reads(&self) -> usize {
        self.0.topics.load(Ordering::SeqCst)
    }

    /// So many more are subscribed to each topic than can be told.
    pub fn crowd(&self, beyond: usize) {
        self.0.beyond.store(beyond, Ordering::SeqCst);
    }

    /// How many topics were read at the same time, at most.
    pub fn topic_reads_at_once(&self) -> usize {
        self.0.most.load(Ordering::SeqCst)
    }

    /// How often conversations, messages, sessions and single tasks, with what they wrote, were read.
    pub fn reads(&self) -> usize {
        self.0.reads.load(Ordering::SeqCst)
    }
}

struct Faulty(Arc<Inner>);

impl Faulty {
    fn store(&self) -> &dyn Store {
        &**self.0.store.get().expect("it was put under this one")
    }

    /// Of whatever an operator's act consists of, one after the other.
    async fn step(&self) -> Result<&dyn Store> {
        if let Some(lives) = &mut *self.0.lives.lock() {
            match lives.checked_sub(1) {
                Some(fewer) => *lives = fewer,
                None => self.0.dead.store(true, Ordering::SeqCst),
            }
        }
        self.pass().await
    }

    async fn pass(&self) -> Result<&dyn Store> {
        if self.0.dead.load(Ordering::SeqCst) {
            return Err(StoreError::Fatal("the process is dead".to_owned()));
        }
        let mut hangs = self.0.hangs.subscribe();
        let _ = hangs.wait_for(|hangs| !hangs).await;
        match self.0.error.lock().clone() {
            Some(error) => Err(StoreError::NotDone(error)),
            None => Ok(self.store()),
        }
    }

    /// Holds the answer to a return up, or loses it, as it was told to.
    async fn return_of(&self, store: &dyn Store, claims: &[(TaskId, ClaimId)]) -> Result<()> {
        // one that had ended by then is no return, and its answer comes
        let mut is_back = false;
        for (task, _) in claims {
            is_back |= store.task(*task).await?.is_some_and(|view| !view.state.is_final());
        }
        if !is_back {
            return Ok(());
        }
        let mut returns = self.0.returns.subscribe();
        let late = returns.wait_for(|returns| *returns != Returns::Late).await;
        match late.map(|returns| *returns) {
            Ok(Returns::Lost) => Err(StoreError::Unknown("the answer was lost".to_owned())),
            _ => Ok(()),
        }
    }

    async fn read(&self) -> Result<&dyn Store> {
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        self.pass().await
    }

    fn mask(&self, mut ownership: Ownership) -> Ownership {
        for partition in self.0.revoked.lock().keys() {
            if let Some(epoch) = ownership.epochs.get_mut(usize::try_from(*partition).unwrap()) {
                *epoch = 0;
            }
        }
        ownership
    }
}

#[async_trait]
impl Store for Faulty {
    fn name(&self) -> String {
        self.store().name()
    }
    fn shared(&self) -> Option<&dyn Shared> {
        None
    }
    fn writers(&self) -> usize {
        self.store().writers()
    }
    fn blocks(&self) -> bool {
        self.store().blocks()
    }
    async fn join(&self, member: &Member) -> Result<Ownership> {
        Ok(self.mask(self.pass().await?.join(member).await?))
    }
    async fn renew(&self, member: &Member) -> Result<Option<Ownership>> {
        if self.0.no_renewals.load(Ordering::SeqCst) {
            return Err(StoreError::NotDone("not now".to_owned()));
        }
        Ok(self.pass().await?.renew(member).await?.map(|o| self.mask(o)))
    }
    async fn leave(&self, boot: Uuid) -> Result<()> {
        self.0.leaving.send_replace(true);
        let _ = self.0.stays.subscribe().wait_for(|stays| !stays).await;
        self.pass().await?.leave(boot).await
    }
    async fn nodes(&self) -> Result<Vec<NodeRow>> {
        let mut rows = self.pass().await?.nodes().await?;
        for (partition, url) in self.0.revoked.lock().iter() {
            rows.iter_mut().for_each(|row| row.partitions.retain(|p| p != partition));
            rows.push(NodeRow {
                boot: Uuid::from_u128(1),
                name: "other".to_owned(),
                url: Some(url.clone()),
                started_at: Timestamp::now(),
                lease_until: None,
                drained_at: None,
                partitions: vec![*partition],
            });
        }
        Ok(rows)
    }
    async fn commit(&self, boot: Uuid, units: &[Unit]) -> Result<Vec<Verdict>> {
        self.0.tried.fetch_add(1, Ordering::SeqCst);
        if self.0.full.load(Ordering::SeqCst) {
            return Err(StoreError::Full("no room".to_owned()));
        }
        let store = self.step().await?;
        self.0.commits.fetch_add(1, Ordering::SeqCst);
        let revoked: Vec<i16> = self.0.revoked.lock().keys().copied().collect();
        let mut verdicts = Vec::with_capacity(units.len());
        let refused = self.0.refused.lock().take();
        let refusal = |unit: &Unit| match (&refused, unit.owner, &unit.state) {
            (_, Some((partition, _)), _) if revoked.contains(&partition) => Some(Refusal::Fenced),
            (Some((agent, why)), _, Some(state)) if state.id == *agent => Some(why.clone()),
            _ => None,
        };
        let good: Vec<Unit> = units.iter().filter(|unit| refusal(unit).is_none()).cloned().collect();
        let mut judged =
            if good.is_empty() { Vec::new() } else { store.commit(boot, &good).await? }.into_iter();
        for unit in units {
            verdicts.extend(refusal(unit).map(Verdict::Refused).or_else(|| judged.next()));
        }
        let lost = self.0.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if lost.is_ok() {
            self.0.full.fetch_or(self.0.then_full.swap(false, Ordering::SeqCst), Ordering::SeqCst);
            return Err(StoreError::Unknown("the reply was lost".to_owned()));
        }
        Ok(verdicts)
    }
    async fn load(&self, ids: &[AgentId]) -> Result<Vec<Option<AgentRow>>> {
        self.0.loads.fetch_add(ids.len(), Ordering::SeqCst);
        self.pass().await?.load(ids).await
    }
    async fn heads(&self, ids: &[AgentId]) -> Result<Vec<Option<AgentRow>>> {
        self.pass().await?.heads(ids).await
    }
    async fn agents(&self, filter: &AgentFilter) -> Result<Vec<AgentRow>> {
        if filter.status.is_some() && filter.kind.is_some() {
            self.0.lists.fetch_add(1, Ordering::SeqCst);
        }
        self.pass().await?.agents(filter).await
    }
    async fn snapshots(&self, id: AgentId) -> Result<Vec<(i64, Timestamp, Vec<u8>)>> {
        self.pass().await?.snapshots(id).await
    }
    async fn set_status(
        &self,
        id: AgentId,
        kind: &str,
        key: &str,
        epoch: i64,
        status: StoredStatus,
        reason: Option<&str>,
    ) -> Result<()> {
        self.step().await?.set_status(id, kind, key, epoch, status, reason).await
    }
    async fn key(&self, scope: Uuid, key: &str) -> Result<Option<KeyRow>> {
        let see = |n: usize| n.checked_sub(1);
        if self.0.blind.fetch_update(Ordering::SeqCst, Ordering::SeqCst, see).is_ok() {
            return Ok(None);
        }
        self.pass().await?.key(scope, key).await
    }
    async fn subscribers(&self, topic: &str, limit: usize) -> Result<(Vec<Subscriber>, u64)> {
        self.0.topics.fetch_add(1, Ordering::SeqCst);
        let now = self.0.reading.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(now, Ordering::SeqCst);
        let passed = self.pass().await;
        self.0.reading.fetch_sub(1, Ordering::SeqCst);
        let (found, more) = passed?.subscribers(topic, limit).await?;
        Ok((found, more + self.0.beyond.load(Ordering::SeqCst) as u64))
    }
    async fn first_subscribers(&self, topic: &str, limit: usize) -> Result<Vec<Subscriber>> {
        self.pass().await?.first_subscribers(topic, limit).await
    }
    async fn claim(&self, boot: Uuid, request: &ClaimRequest) -> Result<Vec<Claimed>> {
        let store = self.pass().await?;
        if request.alone && !store.running(boot).await?.is_empty() {
            self.0.beside.fetch_add(1, Ordering::SeqCst);
        }
        let claimed = store.claim(boot, request).await?;
        self.0.claimed.lock().extend(claimed.iter().map(|claim| claim.id));
        Ok(claimed)
    }
    async fn promote(&self, now: Timestamp) -> Result<Promoted> {
        self.pass().await?.promote(now).await
    }
    async fn doomed(&self) -> Result<Vec<(TaskId, Doom)>> {
        self.pass().await?.doomed().await
    }
    async fn give_back(&self, boot: Uuid, claims: &[(TaskId, ClaimId)]) -> Result<()> {
        self.0.given_back.fetch_add(1, Ordering::SeqCst);
        let store = self.pass().await?;
        store.give_back(boot, claims).await?;
        self.return_of(store, claims).await
    }
    async fn break_off(&self, boot: Uuid, claims: &[(TaskId, ClaimId)]) -> Result<()> {
        self.0.given_back.fetch_add(1, Ordering::SeqCst);
        let store = self.pass().await?;
        store.break_off(boot, claims).await?;
        self.return_of(store, claims).await
    }
    async fn running(&self, boot: Uuid) -> Result<Vec<HeldClaim>> {
        self.0.looks.fetch_add(1, Ordering::SeqCst);
        self.pass().await?.running(boot).await
    }
    async fn pause(&self, queue: &str, paused: bool) -> Result<bool> {
        self.pass().await?.pause(queue, paused).await
    }
    async fn ready_queues(&self) -> Result<Vec<(String, Timestamp)>> {
        self.pass().await?.ready_queues().await
    }
    async fn paused(&self) -> Result<Vec<(String, Timestamp)>> {
        self.pass().await?.paused().await
    }
    async fn park(&self, target: &str, park: bool) -> Result<u64> {
        let none = self.0.no_parking.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if none.is_ok() {
            return Err(StoreError::NotDone("not now".to_owned()));
        }
        self.step().await?.park(target, park).await
    }
    async fn parked(&self, after: Option<&str>, limit: usize) -> Result<Vec<Target>> {
        self.pass().await?.parked(after, limit).await
    }
    async fn task(&self, id: TaskId) -> Result<Option<TaskView>> {
        self.read().await?.task(id).await
    }
    async fn task_data(&self, id: TaskId) -> Result<Option<Claimed>> {
        self.pass().await?.task_data(id).await
    }
    async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage> {
        self.pass().await?.tasks(filter).await
    }
    async fn history(&self, id: TaskId) -> Result<Vec<TaskEvent>> {
        self.pass().await?.history(id).await
    }
    async fn cancel(&self, id: TaskId) -> Result<Option<CancelFound>> {
        self.step().await?.cancel(id).await
    }
    async fn retry(&self, id: TaskId) -> Result<Option<std::result::Result<(), TaskState>>> {
        self.pass().await?.retry(id).await
    }
    async fn dead(&self, before: Option<TaskId>, limit: usize) -> Result<Vec<DeadTask>> {
        self.pass().await?.dead(before, limit).await
    }
    async fn retry_many(&self, dead: &[DeadTask]) -> Result<u64> {
        self.pass().await?.retry_many(dead).await
    }
    async fn dismiss_many(&self, dead: &[DeadTask]) -> Result<u64> {
        self.pass().await?.dismiss_many(dead).await
    }
    async fn suspects(&self, boot: Uuid) -> Result<Vec<Target>> {
        self.pass().await?.suspects(boot).await
    }
    async fn counts(&self) -> Result<Counts> {
        self.0.counts.fetch_add(1, Ordering::SeqCst);
        self.pass().await?.counts().await
    }

    async fn held(&self) -> Result<Vec<(String, StoredStatus, u64)>> {
        self.pass().await?.held().await
    }
    async fn oldest(&self) -> Result<Oldest> {
        self.pass().await?.oldest().await
    }
    async fn note_crashes(&self, groups: &[CrashGroup]) -> Result<()> {
        self.pass().await?.note_crashes(groups).await
    }
    async fn crash_groups(&self, filter: &CrashFilter) -> Result<Vec<CrashGroup>> {
        self.pass().await?.crash_groups(filter).await
    }
    async fn clean(&self, now: Timestamp, past: Past) -> Result<u64> {
        self.pass().await?.clean(now, past).await
    }
    async fn ping(&self) -> Result<()> {
        self.pass().await?.ping().await
    }
    async fn try_room(&self) -> Result<()> {
        self.0.trials.fetch_add(1, Ordering::SeqCst);
        if self.0.full.load(Ordering::SeqCst) {
            return Err(StoreError::Full("no room".to_owned()));
        }
        self.pass().await?.try_room().await
    }
}

#[async_trait]
impl Families for Faulty {
    async fn edges(&self, around: &[TaskId], limit: usize) -> Result<Vec<(TaskId, TaskId)>> {
        self.read().await?.edges(around, limit).await
    }
    async fn kin_behind(&self, id: TaskId, limit: usize) -> Result<Vec<Kin>> {
        self.read().await?.kin_behind(id, limit).await
    }
    async fn relatives(&self, ids: &[TaskId]) -> Result<Vec<TaskView>> {
        self.read().await?.relatives(ids).await
    }
    async fn prerequisites(&self, of: TaskId, limit: usize) -> Result<Vec<Prerequisite>> {
        self.read().await?.prerequisites(of, limit).await
    }
}

#[async_trait]
impl Journals for Faulty {
    async fn journal(&self, task: TaskId) -> Result<Journal> {
        self.read().await?.journal(task).await
    }
    async fn waits(&self, task: TaskId) -> Result<Vec<Wait>> {
        self.read().await?.waits(task).await
    }
    async fn signal(&self, task: TaskId, signal: &Signal) -> Result<Option<SignalFound>> {
        self.pass().await?.signal(task, signal).await
    }
    async fn note(&self, notes: &[TaskNotes]) -> Result<()> {
        self.pass().await?.note(notes).await
    }
    async fn progress(&self, task: TaskId) -> Result<Option<Box<RawValue>>> {
        self.read().await?.progress(task).await
    }
    async fn task_logs(&self, task: TaskId, after: i64, limit: usize) -> Result<Vec<(i64, LogLine)>> {
        self.read().await?.task_logs(task, after, limit).await
    }
}

#[async_trait]
impl Schedules for Faulty {
    async fn schedules(&self) -> Result<Vec<Schedule>> {
        self.pass().await?.schedules().await
    }
    async fn schedule(&self, name: &str) -> Result<Option<Schedule>> {
        self.pass().await?.schedule(name).await
    }
    async fn due_schedules(&self, now: Timestamp) -> Result<(Vec<Schedule>, Option<Timestamp>)> {
        self.pass().await?.due_schedules(now).await
    }
    async fn put_schedule(&self, schedule: &Schedule, over: Option<&Schedule>) -> Result<bool> {
        self.pass().await?.put_schedule(schedule, over).await
    }
    async fn remove_schedule(&self, name: &str, revision: Uuid) -> Result<bool> {
        self.pass().await?.remove_schedule(name, revision).await
    }
}

#[async_trait]
impl SettingsShelf for Faulty {
    async fn settings(&self) -> Result<KeptSettings> {
        self.read().await?.settings().await
    }
    async fn keep_settings(&self, next: &KeptSettings) -> Result<bool> {
        self.pass().await?.keep_settings(next).await
    }
}

#[async_trait]
impl Tokens for Faulty {
    async fn tokens(&self) -> Result<Vec<StoredToken>> {
        self.pass().await?.tokens().await
    }
    async fn add_token(&self, token: &StoredToken) -> Result<bool> {
        self.pass().await?.add_token(token).await
    }
    async fn remove_token(&self, name: &str) -> Result<bool> {
        self.pass().await?.remove_token(name).await
    }
    async fn token_used(&self, digest: Digest, at: Timestamp) -> Result<()> {
        self.pass().await?.token_used(digest, at).await
    }
}

#[async_trait]
impl Deletions for Faulty {
    async fn delete_agent(&self, deletion: &Deletion) -> Result<bool> {
        self.step().await?.delete_agent(deletion).await
    }
}

#[async_trait]
impl Acts for Faulty {
    async fn begin_act(&self, act: &Act) -> Result<()> {
        self.pass().await?.begin_act(act).await
    }
    async fn end_act(&self, act: &Act) -> Result<()> {
        self.pass().await?.end_act(act).await
    }
    async fn acts(&self, filter: &ActFilter) -> Result<Vec<Act>> {
        self.pass().await?.acts(filter).await
    }
    async fn forget_acts(&self, before: Timestamp) -> Result<u64> {
        self.pass().await?.forget_acts(before).await
    }
}

#[async_trait]
impl Entities for Faulty {
    async fn conversations(&self, ids: &[ConversationId]) -> Result<Vec<Option<Conversation>>> {
        self.read().await?.conversations(ids).await
    }
    async fn conversation_page(&self, filter: &ConversationFilter) -> Result<Vec<Conversation>> {
        self.read().await?.conversation_page(filter).await
    }
    async fn messages(&self, ids: &[MessageId]) -> Result<Vec<Option<StoredMessage>>> {
        self.read().await?.messages(ids).await
    }
    async fn message_page(
        &self,
        conversation: ConversationId,
        page: MessagePage,
    ) -> Result<Vec<StoredMessage>> {
        self.read().await?.message_page(conversation, page).await
    }
    async fn sessions(&self, ids: &[String]) -> Result<Vec<Option<Session>>> {
        self.read().await?.sessions(ids).await
    }
    async fn forget(&self, now: Timestamp, idle_since: Option<Timestamp>) -> Result<Forgotten> {
        self.pass().await?.forget(now, idle_since).await
    }
}
