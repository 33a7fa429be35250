//! The persistence actor and its writers: group commit.
//!
//! While one transaction runs, the next batch gathers: a lone caller never waits for a timer, and
//! the busier it is the larger the batches become. The hot loop of a writer is a plain task (a
//! thread of its own where the store blocks); the actor is its door and its supervisor.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix::prelude::*;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    batch::{MAX_BATCH, batch_of},
    inbox::{Control, Inbox},
    outage::{Answer, Outage},
    probe::{Boundary, Probe},
};
use crate::{
    agent::slot::ReplyTx,
    model::{
        id::TaskId,
        task::{Claimed, NewTask},
    },
    store::{Finish, FinishOutcome, Refusal, Store, StoreError, Tries, Unit, Verdict},
};

/// Up to so many units a batch, the writer itself releases what they hold back.
const FEW: usize = 2;
/// How long a writer that has a thread of its own looks out for more after a commit of few.
const LINGER: Duration = Duration::from_micros(60);
/// How long a batch gathers at most.
const GATHER: Duration = Duration::from_millis(1);
/// At most so many units wait; further submissions from outside are refused.
pub(crate) const MAX_WAITING: usize = 50_000;

/// Whose units are ends of tools' tasks: all of them go to one writer, so that its batches are of these alone, and
/// large, which makes them cheap.
pub(crate) const ENDS: Uuid = Uuid::from_u128(0);
/// Whose units are submissions from outside: the same, with another writer where there are two.
pub(crate) const SUBMISSIONS: Uuid = Uuid::from_u128(1 << 8);

/// What became of a unit.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Durable,
    Refused(Refusal),
    /// A try whose reply was lost may have happened, and the agent has been moved on since: nobody
    /// can tell any more.
    Unknown,
    /// It did not happen: no room on the device.
    Full(String),
    /// It did not happen, and will not.
    Failed(String),
}

/// What is done, by the writer itself, about a unit's outcome.
pub(crate) type Hear = Box<dyn FnOnce(Outcome, &Unit) + Send>;

/// Who is answered.
pub(crate) enum Ticket {
    Cell(Arc<Inbox>),
    Caller(ReplyTx<Outcome>),
    /// Nobody waits: this is done, at once, by the writer.
    Heard(Hear),
}

impl Ticket {
    fn answer(self, outcome: Outcome, unit: &Unit) {
        match self {
            Self::Cell(inbox) => inbox.land(outcome),
            Self::Caller(tx) => drop(tx.send(outcome)),
            Self::Heard(hear) => hear(outcome, unit),
        }
    }
}

/// Figures of the writers, for `status`, `/metrics` and the benchmarks.
#[derive(Default)]
pub struct CommitStats {
    /// Transactions so far.
    pub commits: AtomicU64,
    /// Units so far.
    pub units: AtomicU64,
    /// Bytes of state so far.
    pub bytes: AtomicU64,
    /// Units refused because their writer was fenced.
    pub fenced: AtomicU64,
}

struct Writer {
    queue: Mutex<Queue>,
    work: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(Unit, Ticket)>,
    /// Nothing is taken any more. Under the same lock, so that nothing comes after the writer's end.
    closed: bool,
}

/// The way to the writers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Persistence {
    writers: Arc<[Arc<Writer>]>,
    pub stats: Arc<CommitStats>,
    outage: Arc<Outage>,
    /// Writers that have not ended.
    running: Arc<AtomicU64>,
}

/// What a writer needs beside its queue.
struct Context {
    store: Arc<dyn Store>,
    boot: Uuid,
    stats: Arc<CommitStats>,
    outage: Arc<Outage>,
    /// Its number.
    writer: usize,
    hooks: Hooks,
    running: Arc<AtomicU64>,
}

/// Hears of units and their verdicts.
type Judged = Arc<dyn Fn(&[Unit], &[Verdict]) + Send + Sync>;

/// Whom the writers tell.
#[derive(Clone)]
pub(crate) struct Hooks {
    /// Ends the process: the device cannot be trusted any more.
    pub fatal: Arc<dyn Fn(String) + Send + Sync>,
    /// Tasks may be ready; `true`: due, expired and orphaned ones are to be looked at too. Told after all of a
    /// batch have been answered.
    pub tasks: Arc<dyn Fn(bool) + Send + Sync>,
    /// What has been judged, before anybody hears of it.
    pub judged: Judged,
    /// A task was to begin with its submission, and has, or has not.
    pub begun: Arc<dyn Fn(Newborn) + Send + Sync>,
    /// A test's hand in it.
    pub probe: Option<Arc<dyn Probe>>,
}

/// What became of a task that was to begin with its submission.
#[derive(Debug)]
pub(crate) struct Newborn {
    pub id: TaskId,
    /// The claim; `None`: it is not claimed.
    pub claim: Option<Box<Claimed>>,
    /// As far as is known: an answer was lost.
    pub in_doubt: bool,
}

/// Tells of all that were to begin.
fn tell_newborns(cx: &Context, units: &[Unit], verdicts: &[Verdict], in_doubt: bool) {
    for (n, unit) in units.iter().enumerate() {
        let (true, Some(task)) = (unit.begin, unit.accepted.first()) else { continue };
        let claim = match verdicts.get(n) {
            Some(Verdict::Begun { seq, claim }) => Some(Box::new(Claimed::begun(task, *seq, *claim))),
            _ => None,
        };
        (cx.hooks.begun)(Newborn { id: task.id, claim, in_doubt });
    }
}

impl Hooks {
    /// Whether a test has the agent crash here, whose commit this is.
    fn crashes(&self, boundary: Boundary, unit: &Unit) -> bool {
        let Some(probe) = &self.probe else { return false };
        match &unit.state {
            Some(state) => probe.comes_to(boundary, format_args!("a commit of {}/{}", state.kind, state.key)),
            None => probe.comes_to(boundary, format_args!("a commit without a state")),
        }
    }
}

/// Whether the units touch tasks, and in a way that only a promotion sees.
fn touches_tasks(units: &[Unit], verdicts: &[Verdict]) -> Option<bool> {
    let mut any = false;
    for (unit, _) in units.iter().zip(verdicts).filter(|(_, v)| !matches!(v, Verdict::Begun { .. })) {
        any |= !unit.accepted.is_empty() || !unit.batches.is_empty() || !unit.finished.is_empty();
        let ends = |f: &Finish| !matches!(f.outcome, FinishOutcome::Succeeded { .. });
        let waits = |t: &NewTask| t.run_at.is_some() || t.expires_at.is_some() || !t.after.is_empty();
        if unit.finished.iter().any(ends) || unit.accepted.iter().any(waits) {
            return Some(true);
        }
    }
    any.then_some(false)
}

impl Persistence {
    /// Starts the writers; must be called on the multi-thread runtime.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        boot: Uuid,
        outage: Arc<Outage>,
        hooks: Hooks,
    ) -> std::io::Result<Self> {
        let stats = Arc::new(CommitStats::default());
        let writers: Arc<[Arc<Writer>]> = (0..store.writers().max(1))
            .map(|_| Arc::new(Writer { queue: Mutex::default(), work: Notify::new() }))
            .collect();
        let running = Arc::new(AtomicU64::new(writers.len() as u64));
        for (n, writer) in writers.iter().enumerate() {
            let cx = Context {
                store: store.clone(),
                boot,
                stats: stats.clone(),
                outage: outage.clone(),
                writer: n,
                hooks: hooks.clone(),
                running: running.clone(),
            };
            let writer = writer.clone();
            if store.blocks() {
                let runtime = tokio::runtime::Handle::current();
                std::thread::Builder::new()
                    .name(format!("writer-{n}"))
                    .spawn(move || runtime.block_on(write(writer, cx)))?;
            } else {
                tokio::spawn(write(writer, cx));
            }
        }
        Ok(Self { writers, stats, outage, running })
    }

    /// Whether the store takes commits, as far as is known.
    pub(crate) fn is_up(&self) -> bool {
        self.outage.down().is_none()
    }

    /// How many units wait.
    pub(crate) fn waiting(&self) -> usize {
        self.writers.iter().map(|w| w.queue.lock().waiting.len()).sum()
    }

    /// Puts a unit in the queue of its writer (by `id`).
    pub(crate) fn write(&self, id: Uuid, unit: Unit, ticket: Ticket) {
        let index = usize::from(id.as_bytes()[14]) % self.writers.len().max(1);
        let Some(writer) = self.writers.get(index) else { return };
        let first = {
            let mut queue = writer.queue.lock();
            if queue.closed {
                drop(queue);
                return ticket.answer(Outcome::Failed("the node is going down".to_owned()), &unit);
            }
            queue.waiting.push((unit, ticket));
            queue.waiting.len() == 1
        };
        if first {
            writer.work.notify_one();
        }
    }

    /// Writes a unit and waits for its outcome.
    pub(crate) async fn commit(&self, id: Uuid, unit: Unit) -> Outcome {
        let (tx, rx) = crate::agent::slot::slot();
        self.write(id, unit, Ticket::Caller(tx));
        rx.await.unwrap_or_else(|| Outcome::Failed("the writer has ended".to_owned()))
    }

    /// Waits until the writers have ended, or the time is up.
    pub(crate) async fn ended(&self, at_most: Duration) {
        let begun = tokio::time::Instant::now();
        while self.running.load(Ordering::Acquire) > 0 && begun.elapsed() < at_most {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends the writers once their queues are empty.
    pub(crate) fn close(&self) {
        for writer in self.writers.iter() {
            writer.queue.lock().closed = true;
            writer.work.notify_one();
        }
    }
}

/// A writer that ends by a panic leaves cells that wait for ever: the process must end.
struct Watch(Hooks);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0.fatal)("a writer panicked".to_owned());
        }
    }
}

async fn write(writer: Arc<Writer>, cx: Context) {
    let _watch = Watch(cx.hooks.clone());
    let (mut spare, mut last) = (Vec::new(), 0);
    loop {
        let (mut batch, closed) = {
            let mut queue = writer.queue.lock();
            let waiting = &mut queue.waiting;
            let n = batch_of(waiting.iter().map(|(unit, _)| unit), cx.store.blocks());
            let batch = if n == waiting.len() {
                std::mem::replace(waiting, std::mem::take(&mut spare))
            } else {
                waiting.drain(..n).collect()
            };
            (batch, queue.closed)
        };
        if batch.is_empty() {
            if closed {
                cx.running.fetch_sub(1, Ordering::AcqRel);
                return;
            }
            spare = batch;
            // an async store's writer must not hold up its thread
            let found = last <= FEW && cx.store.blocks() && linger(&writer);
            if !found {
                writer.work.notified().await;
            }
            continue;
        }
        let enough = (last / 2).min(MAX_BATCH);
        if batch.len() < enough && !cx.store.blocks() {
            gather(&writer, &mut batch, enough).await;
        }
        last = batch.len();
        let (units, tickets): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        spare = batch;
        commit(&cx, &units, tickets).await;
    }
}

/// Whoever has just been answered alone often asks again at once: to be found awake saves it a change of
/// threads. `true`: there is work.
fn linger(writer: &Writer) -> bool {
    let begun = Instant::now();
    loop {
        let queue = writer.queue.lock();
        if !queue.waiting.is_empty() || queue.closed {
            return true;
        }
        drop(queue);
        if begun.elapsed() > LINGER {
            return false;
        }
        std::thread::yield_now();
    }
}

/// Of those just answered fewer than half are back: gives the others a moment, so that a round trip is
/// not spent on few. Whoever is alone never waits.
async fn gather(writer: &Writer, batch: &mut Vec<(Unit, Ticket)>, enough: usize) {
    let begun = Instant::now();
    while batch.len() < enough && begun.elapsed() < GATHER {
        tokio::task::yield_now().await;
        let mut queue = writer.queue.lock();
        let all = batch.iter().chain(&queue.waiting).map(|(unit, _)| unit);
        let room = batch_of(all, false).min(MAX_BATCH).saturating_sub(batch.len());
        if room == 0 && !queue.waiting.is_empty() {
            return; // it has as many bytes as it may
        }
        batch.extend(queue.waiting.drain(..room));
    }
}

async fn commit(cx: &Context, units: &[Unit], tickets: Vec<Ticket>) {
    let mut tries = Tries::default();
    cx.outage.begins(cx.writer);
    loop {
        let begun = Instant::now();
        let error = match cx.store.commit(cx.boot, units).await {
            Ok(verdicts) => {
                cx.outage.ends(cx.writer, Some(answer(&verdicts)));
                count(cx, units, &verdicts, begun.elapsed());
                (cx.hooks.judged)(units, &verdicts);
                tell_newborns(cx, units, &verdicts, tries.is_unsure());
                let touched = touches_tasks(units, &verdicts);
                let missing = || Outcome::Failed("the store gave no verdict".to_owned());
                let mut verdicts = verdicts.into_iter();
                // Of few units the answers leave from here, one change of threads earlier; of many each
                // arbiter sends its own.
                let few = tickets.len() <= FEW;
                for (ticket, unit) in tickets.into_iter().zip(units) {
                    let durable = matches!(verdicts.as_slice().first(), Some(Verdict::Durable));
                    let cell = match &ticket {
                        Ticket::Cell(inbox) if durable && inbox.is_probed => Some(inbox.clone()),
                        _ => None,
                    };
                    if let Some(inbox) =
                        cell.as_ref().filter(|_| cx.hooks.crashes(Boundary::AfterCommit, unit))
                    {
                        // What it committed is there, and has left; it dies before it has answered.
                        verdicts.next();
                        inbox.crash_unanswered();
                        ticket.answer(Outcome::Durable, unit);
                        continue;
                    }
                    if let (Ticket::Cell(inbox), true, Some(Verdict::Durable)) =
                        (&ticket, few, verdicts.as_slice().first())
                    {
                        inbox.release();
                    }
                    let outcome = match verdicts.next().map(|verdict| tries.known(verdict)) {
                        Some(Some(Verdict::Durable | Verdict::Begun { .. })) => Outcome::Durable,
                        Some(Some(Verdict::Refused(refusal))) => Outcome::Refused(refusal),
                        Some(None) => Outcome::Unknown,
                        None => missing(),
                    };
                    ticket.answer(outcome, unit);
                    if let Some(inbox) = cell
                        && cx.hooks.crashes(Boundary::AfterRelease, unit)
                    {
                        inbox.tell(Control::Crash);
                    }
                }
                if let Some(promote) = touched {
                    (cx.hooks.tasks)(promote);
                }
                return;
            }
            Err(error) => error,
        };
        cx.outage.fails(cx.writer, &error);
        if let Some(pause) = tries.again(&error) {
            tokio::time::sleep(pause).await;
            continue;
        }
        cx.outage.ends(cx.writer, None);
        tell_newborns(cx, units, &[], true);
        if let StoreError::Fatal(why) = &error {
            (cx.hooks.fatal)(why.clone());
        }
        let outcome = match error {
            // An earlier try may have happened: of that this one says nothing.
            _ if tries.is_unsure() => Outcome::Unknown,
            StoreError::Full(why) => Outcome::Full(why),
            StoreError::Fatal(why) => Outcome::Failed(why),
            other => Outcome::Failed(other.to_string()),
        };
        return tickets
            .into_iter()
            .zip(units)
            .for_each(|(ticket, unit)| ticket.answer(outcome.clone(), unit));
    }
}

fn answer(verdicts: &[Verdict]) -> Answer {
    let written = |verdict: &Verdict| matches!(verdict, Verdict::Durable | Verdict::Begun { .. });
    if verdicts.iter().any(written) { Answer::Written } else { Answer::Read }
}

fn count(cx: &Context, units: &[Unit], verdicts: &[Verdict], took: Duration) {
    let bytes: usize = units.iter().filter_map(|u| u.state.as_ref()).map(|s| s.bytes.len()).sum();
    cx.stats.commits.fetch_add(1, Ordering::Relaxed);
    cx.stats.units.fetch_add(units.len() as u64, Ordering::Relaxed);
    cx.stats.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    metrics::histogram!("greenroom_commit_duration_seconds").record(took.as_secs_f64());
    let fenced = verdicts.iter().filter(|v| matches!(v, Verdict::Refused(Refusal::Fenced))).count() as u64;
    if fenced > 0 {
        cx.stats.fenced.fetch_add(fenced, Ordering::Relaxed);
        metrics::counter!("greenroom_commits_fenced_total").increment(fenced);
    }
}

/// The persistence actor: the door of the writers in the supervision tree.
pub(crate) struct PersistenceActor {
    pub persistence: Persistence,
}

impl Actor for PersistenceActor {
    type Context = actix::Context<Self>;
}

/// Asks how the writers are: whether the last commit went well, and how many units wait.
#[derive(Message)]
#[rtype(result = "(bool, usize)")]
pub(crate) struct Health;

impl Handler<Health> for PersistenceActor {
    type Result = MessageResult<Health>;
    fn handle(&mut self, _: Health, _: &mut Self::Context) -> Self::Result {
        MessageResult((self.persistence.is_up(), self.persistence.waiting()))
    }
}

/// Ends the writers once their queues are empty.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close;

impl Handler<Close> for PersistenceActor {
    type Result = ();
    fn handle(&mut self, _: Close, ctx: &mut Self::Context) {
        self.persistence.close();
        ctx.stop();
    }
}
