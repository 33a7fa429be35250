//! Start and end of a node.
//!
//! Start: lock the data directory → open the store → read what operators have set in it → take ownership → writers → arbiters → actors.
//! A test's node stands on one thread and on a store that is given to it ([`Ground`]).
//! End: refuse new work → drain the agents, the last kind first → give claims back → close the writers → end the threads.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use actix::prelude::*;
use actix_rt::ArbiterHandle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Handle, backlog, bonds, cache_actor,
    configuration::{self, Layers},
    crashes::{self, install_hook},
    data_dir::DataDir,
    dispatcher::Quiesce,
    drain::{DRAIN, drain},
    keeper::Keeper,
    lease,
    node::{Node, Parts},
    node_identity::{instance, member},
    notes,
    operator::Operator,
    outage::{self, Outage},
    parked, peer_hints,
    persistence::{Close, Hooks, Persistence},
    registry::Registry,
    root_actors::{self, Actors},
    schedules, trial,
    watchdog::{Watchdog, beat},
};
use crate::{
    cache::{self, CacheError},
    clock,
    config::{Durability, Errors, Settings},
    log::Logger,
    model::event::{self, Event, Level},
    store::{self, KeptSettings, Member, Store, StoreError, StoreOptions, Verdict},
};

/// How long a start waits for a store that does not answer.
const STORE_PATIENCE: Duration = Duration::from_secs(15);
/// How often it is asked until then.
const STORE_LOOK: Duration = Duration::from_millis(250);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program's own parts do not fit together, or its settings are wrong (exit 9).
    #[error("the program cannot start: {}", .0.join("; "))]
    Program(Vec<String>),
    /// What operators have set does not go together with the rest (exit 9).
    #[error("{0}")]
    Settings(#[from] Errors),
    /// The log cannot be written where the settings say (exit 1).
    #[error("the log cannot be written: {0}")]
    Log(std::io::Error),
    /// Another process uses the data directory (exit 4).
    #[error(
        "the data directory {0} is in use by another process: stop it first (`greenroom stop`), or choose another one with --data-dir"
    )]
    InUse(PathBuf),
    /// The data directory cannot be used (exit 1).
    #[error("the data directory {path} cannot be used: {error}; choose another one with --data-dir")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The store cannot be opened (exit 1; 4 where it refuses).
    #[error("the store cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The cache's settings are wrong (exit 9). One that does not answer is no reason not to start.
    #[error("the cache cannot be opened: {0}")]
    Cache(#[from] CacheError),
    /// A thread could not be started (exit 1).
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A running node.
pub(crate) struct Running {
    pub node: Arc<Node>,
    pub handle: Handle,
    threads: Option<Threads>,
    /// Ends those who keep the lease and watch the store.
    keepers: CancellationToken,
    watchdog: Option<Watchdog>,
    _lock: Option<DataDir>,
}

/// The threads of a node's actors.
struct Threads {
    system: std::thread::JoinHandle<()>,
    quit: oneshot::Sender<()>,
    arbiters: Vec<Arbiter>,
}

/// What a node stands on.
pub(crate) struct Ground {
    pub store: Arc<dyn Store>,
    pub member: Member,
    pub lock: Option<DataDir>,
    pub layers: Layers,
    /// Whether its actors have threads of their own; else they live in the system that runs here.
    pub threads: bool,
}

/// Asks the store for what a start needs. One that does not answer may be starting as well: it gets some
/// time, and people are told what is waited for.
async fn patiently<T, F>(logger: &Logger, mut ask: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let begun = Instant::now();
    let mut told = None;
    loop {
        let error = match ask().await {
            Err(error) if error.may_pass() && begun.elapsed() < STORE_PATIENCE => error,
            said => {
                if let (Some(cause), true) = (told, said.is_ok()) {
                    logger.emit(outage::up_event(cause, begun.elapsed()));
                }
                return said;
            }
        };
        if told.is_none() {
            told = Some(error.cause());
            let until = format!("it is tried for {} seconds", STORE_PATIENCE.as_secs());
            logger.emit(outage::down_event(error.cause(), error.to_string(), &until));
        }
        tokio::time::sleep(STORE_LOOK).await;
    }
}

/// A store, and what operators have set in it.
pub(crate) type Opened = (Arc<dyn Store>, KeptSettings);

/// Opens the store.
pub(crate) async fn open(settings: &Settings) -> Result<Opened, StoreError> {
    let durability = match settings.store.durability {
        Durability::Full => store::Durability::Full,
        Durability::Relaxed => store::Durability::Relaxed,
    };
    let pool_size = settings.store.pool_size as usize;
    let options = StoreOptions { durability, pool_size, ..StoreOptions::default() };
    let store = store::open(&settings.store.url, &options).await?;
    let kept = store.settings().await?;
    Ok((store, kept))
}

/// Opens the store, which may be starting as well.
pub(crate) async fn open_patiently(settings: &Settings, logger: &Logger) -> Result<Opened, StoreError> {
    patiently(logger, || open(settings)).await
}

/// Starts a node. Must be called on a multi-thread tokio runtime, which becomes the node's own.
pub(crate) async fn start(
    settings: Settings,
    layers: Layers,
    mut registry: Registry,
    logger: Logger,
    boot: Uuid,
    lock: DataDir,
    mut store: Arc<dyn Store>,
) -> Result<Running, StartError> {
    registry.check(&settings).map_err(StartError::Program)?;
    let unusable = |error| StartError::DataDir { path: settings.node.data_dir.clone(), error };
    let instance = instance(&settings.node.data_dir).map_err(unusable)?;
    let member = member(&settings, boot, instance);
    if let Some(wrap) = registry.wrap_store.take() {
        store = wrap(store);
    }
    let ground = Ground { store, member, lock: Some(lock), layers, threads: true };
    launch(settings, registry, logger, ground).await
}

/// Starts a checked program's node on what it is given, on the current runtime.
pub(crate) async fn launch(
    settings: Settings,
    mut registry: Registry,
    logger: Logger,
    Ground { store, member, lock, layers, threads }: Ground,
) -> Result<Running, StartError> {
    install_hook();
    let cache = cache::open(&settings.cache.url, &cache_actor::options(&settings, &logger))?;
    let boot = member.boot;
    let started = Instant::now();
    let ownership = patiently(&logger, || store.join(&member)).await?;
    let suspects = patiently(&logger, || store.suspects(boot)).await?;
    let suspects = !suspects.is_empty();
    let declared = std::mem::take(&mut registry.schedules);
    patiently(&logger, || schedules::write(&*store, &logger, &declared)).await?;
    if store.shared().is_none() {
        patiently(&logger, || schedules::retire(&*store, &logger, &declared)).await?;
    } // else when this node has told the others what it declares

    let keeper = Arc::new(Keeper::new(store.clone(), cache.clone()));
    let (stop, fatal) = (CancellationToken::new(), Arc::new(OnceLock::new()));
    let me: Arc<OnceLock<Weak<Node>>> = Arc::default();
    let hooks = Hooks {
        fatal: {
            let (stop, fatal, logger) = (stop.clone(), fatal.clone(), logger.clone());
            Arc::new(move |why: String| {
                let event =
                    Event::new(Level::Critical, event::NODE_STOPPING, "node").field("reason", why.clone());
                logger
                    .emit(event.hint(
                        "the device did not keep a commit: look at the disk before you start it again",
                    ));
                let _ = fatal.set(why);
                stop.cancel();
            })
        },
        tasks: {
            let me = me.clone();
            Arc::new(move |promote| {
                if let Some(node) = me.get().and_then(Weak::upgrade) {
                    node.wake_dispatcher(promote);
                }
            })
        },
        judged: {
            let (me, keeper) = (me.clone(), keeper.clone());
            Arc::new(move |units, verdicts| {
                let stale = keeper.committed(units, verdicts);
                let Some(node) = me.get().and_then(Weak::upgrade) else { return };
                if stale {
                    node.wake_cache();
                }
                node.topics.committed(units, verdicts);
                node.bonds.committed(units, verdicts);
                node.tell_others(units);
                if let Some(probe) = &node.probe {
                    let durable = units.iter().zip(verdicts).filter(|(_, v)| **v == Verdict::Durable);
                    durable.for_each(|(unit, _)| probe.durable(&node, unit));
                }
            })
        },
        begun: {
            let me = me.clone();
            Arc::new(move |newborn| {
                if let Some(node) = me.get().and_then(Weak::upgrade) {
                    node.begun(newborn);
                }
            })
        },
        probe: registry.probe.clone(),
    };
    let outage = Outage::new(logger.clone());
    let persistence = Persistence::start(store.clone(), boot, outage.clone(), hooks)?;

    let (threads, root) = match threads {
        true => {
            let (threads, root) = Threads::start(usize::from(settings.node.threads).max(1)).await?;
            (Some(threads), root)
        }
        false => (None, Arbiter::current()),
    };
    let arbiters = match &threads {
        Some(threads) => threads.arbiters.iter().map(Arbiter::handle).collect(),
        None => vec![root.clone()],
    };
    let node = Node::new(Parts {
        settings: Arc::new(settings),
        layers,
        logger,
        store,
        cache,
        keeper,
        boot,
        persistence,
        epochs: ownership.epochs,
        outage,
        started,
        arbiters,
        root: root.clone(),
        registry,
        schedules: schedules::Signal::of(declared),
        stop,
        fatal,
    });
    let _ = me.set(Arc::downgrade(&node));

    let (started_tx, started) = oneshot::channel();
    let there = node.clone();
    root.spawn_fn(move || {
        there.set_actors(Actors::start(&there, suspects));
        let _ = started_tx.send(());
    });
    started.await.map_err(|_| std::io::Error::other("the supervising actors did not start"))?;

    let keepers = CancellationToken::new();
    root_actors::supervise("lease keeper", &node, &keepers, {
        let member = member.clone();
        move |node, end| lease::keep(node, member.clone(), Duration::ZERO, end)
    });
    root_actors::supervise("crash keeper", &node, &keepers, crashes::keep);
    root_actors::supervise("keeper of bonds", &node, &keepers, bonds::keep);
    root_actors::supervise("keeper of settings", &node, &keepers, configuration::keep);
    root_actors::supervise("keeper of notes", &node, &keepers, notes::keep);
    root_actors::supervise("keeper of parked tasks", &node, &keepers, parked::keep);
    root_actors::supervise("keeper of schedules", &node, &keepers, schedules::keep);
    let mut watchdog = None;
    // On one thread there is nobody who could tell that it is stuck; and a store in it neither hangs nor
    // hears of others.
    if threads.is_some() {
        root_actors::supervise("store watch", &node, &keepers, outage::watch);
        root_actors::supervise("backlog", &node, &keepers, backlog::watch);
        root_actors::supervise("hints", &node, &keepers, peer_hints::exchange);
        root_actors::supervise("parts", &node, &keepers, root_actors::keep);
        for (arbiter, heart) in node.arbiters.iter().zip(&node.hearts) {
            beat(arbiter, heart.clone(), node.started, keepers.clone());
        }
        watchdog = Some(Watchdog::start(node.clone())?);
    }

    node.rescued.store(ownership.rescued, Ordering::Relaxed);
    let event =
        Event::new(Level::Info, event::NODE_STARTED, format!("node:{}", node.settings.load().node.name))
            .field("store", node.store.name())
            .field("kinds", node.kinds.len())
            .field("tools", node.tools.len())
            .field("rescued", ownership.rescued)
            .field("start_ms", super::millis(node.uptime()));
    node.logger.emit(event);
    tokio::spawn(trial::sample(node.clone()));
    let handle = Handle { host: node.host(), operator: Operator { node: node.clone() } };
    Ok(Running { node, handle, threads, keepers, watchdog, _lock: lock })
}

impl Threads {
    /// The system thread holds the supervising actors; the agents live on arbiters of their own.
    async fn start(arbiters: usize) -> Result<(Self, ArbiterHandle), StartError> {
        let (ready_tx, ready) = oneshot::channel();
        let (quit, quit_rx) = oneshot::channel::<()>();
        let system = std::thread::Builder::new().name("orchestrator".to_owned()).spawn(move || {
            let system = System::new();
            system.block_on(async move {
                let arbiters: Vec<Arbiter> = (0..arbiters).map(|_| Arbiter::new()).collect();
                let _ = ready_tx.send((arbiters, Arbiter::current()));
                let _ = quit_rx.await;
            });
        })?;
        let (arbiters, root) =
            ready.await.map_err(|_| std::io::Error::other("the actor system did not start"))?;
        Ok((Self { system, quit, arbiters }, root))
    }

    /// Ends them; `clean`: nothing holds the arbiters up.
    async fn end(self, clean: bool) {
        for arbiter in self.arbiters {
            arbiter.stop();
            if clean {
                let _ = tokio::task::spawn_blocking(move || arbiter.join()).await;
            }
        }
        drop(self.quit);
        let _ = tokio::task::spawn_blocking(move || self.system.join()).await;
    }
}

/// Runs `work` on this thread alone, actors and timers included, with a paused clock: it stands still while
/// there is work, and otherwise jumps to the next timer.
///
/// # Errors
/// This thread already runs a Tokio runtime, or one could not be built.
pub(crate) fn alone<F: Future>(work: F) -> std::io::Result<F::Output> {
    if tokio::runtime::Handle::try_current().is_ok() {
        return Err(std::io::Error::other(
            "it needs a thread without a runtime: call it from a plain #[test]",
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    Ok(System::with_tokio_rt(move || runtime).block_on(async move {
        let _following = clock::follow();
        work.await
    }))
}

impl Running {
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.node.settings.load_full()
    }

    pub(crate) fn logger(&self) -> &Logger {
        &self.node.logger
    }

    pub(crate) fn boot(&self) -> Uuid {
        self.node.boot
    }

    /// Shuts the node down. `false`: something did not end in time; nothing that was
    /// acknowledged is lost all the same.
    pub(crate) async fn shutdown(mut self) -> bool {
        let begun = Instant::now();
        let node = self.node.clone();
        let subject = format!("node:{}", node.settings.load().node.name);
        node.logger.emit(Event::new(Level::Info, event::NODE_STOPPING, &*subject));
        node.set_closing();
        if let Some(actors) = node.actors() {
            let _ = actors.dispatcher.send(Quiesce).await;
        }
        let clean = drain(&node).await;
        // What the last cells left behind is answered.
        node.kinds.iter().for_each(|k| k.drain());
        if let Some(actors) = node.actors() {
            let _ = actors.persistence.send(Close).await;
        }
        while node.persistence.waiting() > 0 && begun.elapsed() < DRAIN + Duration::from_secs(3) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        node.persistence.ended(Duration::from_secs(2)).await;
        peer_hints::last(&node).await;
        self.keepers.cancel();
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.end().await;
        }
        // The same for a store that does not answer: the log has them.
        let crashes = async {
            node.flush_crashes().await?;
            node.name_crashes().await
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), crashes).await;
        let (store, boot) = (node.store.clone(), node.boot);
        let left = tokio::spawn(async move { store.leave(boot).await });
        // A store that does not answer lets the lease run out.
        let _ = tokio::time::timeout(Duration::from_secs(2), left).await;
        let event = Event::new(Level::Info, event::NODE_STOPPED, subject);
        node.logger.emit(event.field("clean", clean).field("took_ms", super::millis(begun.elapsed())));
        if let Some(threads) = self.threads.take() {
            threads.end(clean).await;
        }
        clean
    }
}
