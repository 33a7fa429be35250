//! The watchdog: finds threads that are blocked, names the agent or the tool, and keeps new activations off them.
//!
//! A handler that spins, or blocks its thread, cannot be stopped, and all that live on its arbiter wait for
//! it. Each arbiter has a heart that beats while its thread is free; around each step of a cell it holds
//! which cell is at work. Calls of tools, task functions among them, share the threads of the multi-thread runtime,
//! where the lease is kept and HTTP is served: each has a [pulse](super::pulse).
//!
//! It listens on a thread of its own, for there may be no other that is free.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    task::{Context, Poll},
    thread::{self, JoinHandle},
    time::Duration,
};

use actix_rt::ArbiterHandle;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    crashes::guard, inbox::Inbox, millis, node::Node, pulse::Pulse, root_actors::KeeperCare, since::Since,
};
use crate::{
    clock,
    model::event::{self, Event, Level},
};

/// How often a heart beats.
const BEAT: Duration = Duration::from_millis(200);
/// How often the hearts are listened to.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// A thread that has been held up for so long is told of.
const STUCK: Duration = Duration::from_secs(1);

thread_local! {
    static HERE: OnceCell<Arc<Heart>> = const { OnceCell::new() };
}

/// An arbiter's sign of life.
#[derive(Default)]
pub(crate) struct Heart {
    /// Milliseconds since the node's start.
    beat: AtomicU64,
    /// The cell at work, by the place of its inbox; 0: none.
    at_work: AtomicUsize,
    stuck: Since,
}

impl Heart {
    /// Whether its thread is held up.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.is_on()
    }
}

/// Has an arbiter's heart beat until `end`.
pub(crate) fn beat(arbiter: &ArbiterHandle, heart: Arc<Heart>, started: Instant, end: CancellationToken) {
    arbiter.spawn_fn(move || {
        let _ = HERE.with(|here| here.set(heart.clone()));
        actix_rt::spawn(async move {
            while !end.is_cancelled() {
                heart.beat.store(millis(started.elapsed()), Ordering::Relaxed);
                tokio::time::sleep(BEAT).await;
            }
        });
    });
}

/// A cell's life, that notes around each of its steps that it is this cell which is at work.
pub(crate) struct Noted<F> {
    pub inbox: Arc<Inbox>,
    /// Boxed once and for all: it is moved on its way into the actor's context, and none of its places on
    /// that way is given back.
    pub life: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> Future for Noted<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let place = Arc::as_ptr(&self.inbox).addr();
        HERE.with(|here| {
            let heart = here.get();
            let note = |place| {
                if let Some(heart) = heart {
                    heart.at_work.store(place, Ordering::Relaxed);
                }
            };
            note(place);
            let step = self.life.as_mut().poll(cx);
            note(0);
            step
        })
    }
}

/// What was seen of one heart.
#[derive(Default)]
struct Seen {
    at_work: usize,
    /// Who holds it up, once told.
    told: Option<(String, Instant)>,
}

/// A step of a call that is under way.
struct SeenStep {
    step: u64,
    pulse: Arc<Pulse>,
    since: Instant,
    told: bool,
}

/// The thread that listens; it ends when this is dropped.
pub(crate) struct Watchdog {
    end: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Watchdog {
    pub(crate) fn start(node: Arc<Node>) -> std::io::Result<Self> {
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            let mut care = KeeperCare::new("watchdog", node.clone());
            while let Err((panic, _)) = guard(|| watch(&node, &ended)) {
                let Some(delay) = care.panicked(panic) else { return };
                thread::sleep(delay);
            }
        })?;
        Ok(Self { end, thread })
    }

    /// Ends it; it has nothing more to say when this is over.
    pub(crate) async fn end(self) {
        drop(self.end);
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}

/// Listens to the hearts and pulses until nobody is there who would end it.
fn watch(node: &Node, ended: &mpsc::Receiver<()>) {
    let mut hearts: Vec<Seen> = Vec::new();
    hearts.resize_with(node.hearts.len(), Seen::default);
    let mut steps = HashMap::new();
    while ended.recv_timeout(CHECK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        for (heart, seen) in node.hearts.iter().zip(&mut hearts) {
            listen(node, heart, seen);
        }
        feel(node, &mut steps);
    }
}

/// Looks which steps of calls do not end.
fn feel(node: &Node, seen: &mut HashMap<u64, SeenStep>) {
    seen.retain(|_, seen| {
        let goes_on = seen.pulse.step() == Some(seen.step);
        if seen.told && !goes_on {
            seen.pulse.stuck.set(false, clock::now());
            let event = of_call(Level::Info, event::AGENT_UNSTUCK, &seen.pulse);
            node.logger.emit(event.field("stuck_ms", millis(seen.since.elapsed())));
        }
        goes_on
    });
    for (n, pulse) in node.pulses.at_work() {
        let Some(step) = pulse.step() else { continue };
        let since = Instant::now();
        let seen = seen.entry(n).or_insert(SeenStep { step, pulse, since, told: false });
        let held = seen.since.elapsed();
        if held >= STUCK && !std::mem::replace(&mut seen.told, true) {
            let now = clock::now();
            seen.pulse.stuck.set(true, now.saturating_sub(held).unwrap_or(now));
            let event =
                of_call(Level::Warn, event::AGENT_STUCK, &seen.pulse).field("stuck_ms", millis(held)).hint(
                    "its code spins or blocks a thread that others need: use `tokio::task::spawn_blocking`",
                );
            node.logger.emit(event);
        }
    }
}

fn of_call(level: Level, name: &'static str, pulse: &Pulse) -> Event {
    let event = Event::new(level, name, pulse.subject()).field("message_type", pulse.message);
    event.field_opt("task", pulse.task.map(|task| task.to_string()))
}

fn listen(node: &Node, heart: &Heart, seen: &mut Seen) {
    let silent = node.uptime().saturating_sub(Duration::from_millis(heart.beat.load(Ordering::Relaxed)));
    let at_work = heart.at_work.load(Ordering::Relaxed);
    if silent < STUCK {
        heart.stuck.set(false, clock::now());
        if let Some((subject, since)) = seen.told.take() {
            let event = Event::new(Level::Info, event::AGENT_UNSTUCK, subject);
            node.logger.emit(event.field("stuck_ms", millis(since.elapsed() + STUCK)));
        }
    } else if seen.told.is_none() && at_work != 0 && at_work == seen.at_work {
        // the same one as at the last look: it is at one and the same step
        // not since this was noticed: since its thread was last free
        let now = clock::now();
        heart.stuck.set(true, now.saturating_sub(silent).unwrap_or(now));
        if let Some(subject) = node.kinds.iter().find_map(|kind| kind.lives_at(at_work)) {
            let event = Event::new(Level::Warn, event::AGENT_STUCK, &*subject)
                .field("stuck_ms", millis(silent))
                .hint("its handler spins or blocks its thread: use `turn.blocking(…)`; neighbours wait");
            node.logger.emit(event);
            seen.told = Some((subject, Instant::now()));
        }
    }
    seen.at_work = at_work;
}

/// Which agents hold up a thread at the moment, and since when.
pub(crate) fn stuck(node: &Node) -> Vec<(String, Timestamp)> {
    let of = |heart: &Arc<Heart>| {
        let (since, at) = (heart.stuck.since()?, heart.at_work.load(Ordering::Relaxed));
        Some((node.kinds.iter().find_map(|kind| kind.lives_at(at))?, since))
    };
    node.hearts.iter().filter_map(of).collect()
}

/// Which tools do, and since when the first of their calls.
pub(crate) fn stuck_tools(node: &Node) -> BTreeMap<String, Timestamp> {
    let mut found = BTreeMap::new();
    for (_, pulse) in node.pulses.at_work() {
        if let Some(since) = pulse.stuck.since() {
            let first = found.entry(pulse.subject()).or_insert(since);
            *first = since.min(*first);
        }
    }
    found
}
