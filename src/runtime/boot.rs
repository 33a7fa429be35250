//! Start and end of a node.
//!
//! Start: lock the data directory → open the store → take ownership → writers → arbiters → actors.
//! End: refuse new work → drain the agents → give claims back → close the writers → end the threads.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use actix::prelude::*;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Handle, cache_actor,
    crashes::{self, install_hook},
    dispatcher::Quiesce,
    hints,
    keeper::Keeper,
    lease,
    member::member,
    node::{Node, Parts},
    operator::Operator,
    orchestrator::Drain,
    outage::{self, Outage},
    parts::{self, Actors},
    persistence::{Close, Hooks, Persistence},
    registry::Registry,
    watchdog,
};
use crate::{
    cache::{self, CacheError},
    config::{Durability, Settings},
    log::Logger,
    model::event::{self, Event, Level},
    store::{self, StoreError, StoreOptions},
};

/// How long the agents have to end what runs.
const DRAIN: Duration = Duration::from_secs(25);
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
    thread: Option<std::thread::JoinHandle<()>>,
    quit: Option<oneshot::Sender<()>>,
    arbiters: Vec<Arbiter>,
    /// Ends those who keep the lease and watch the store.
    keepers: CancellationToken,
    _lock: DataDir,
}

/// The data directory, held by this process alone.
pub(crate) struct DataDir(#[allow(dead_code, reason = "held for its lock")] File);

/// Makes the data directory where there is none, and locks it for this process.
pub(crate) fn lock(dir: &Path) -> Result<DataDir, StartError> {
    let unusable = |error| StartError::DataDir { path: dir.to_owned(), error };
    // What agents remember is nobody else's to read.
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
    let path = dir.join("lock");
    let mut file = File::options().create(true).truncate(false).write(true).open(path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {
            let _ = file.set_len(0);
            let _ = writeln!(file, "{}", std::process::id());
            Ok(DataDir(file))
        }
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
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

/// Starts a node. Must be called on a multi-thread tokio runtime, which becomes the node's own.
pub(crate) async fn start(
    settings: Settings,
    mut registry: Registry,
    logger: Logger,
    boot: Uuid,
    lock: DataDir,
) -> Result<Running, StartError> {
    install_hook();
    registry.check(&settings).map_err(StartError::Program)?;
    let cache = cache::open(&settings.cache.url, &cache_actor::options(&settings, &logger))?;
    let durability = match settings.store.durability {
        Durability::Full => store::Durability::Full,
        Durability::Relaxed => store::Durability::Relaxed,
    };
    let pool_size = settings.store.pool_size as usize;
    let options = StoreOptions { durability, pool_size, ..StoreOptions::default() };
    let member = member(&settings, boot)
        .map_err(|error| StartError::DataDir { path: settings.node.data_dir.clone(), error })?;
    let (url, wrap) = (settings.store.url.clone(), registry.wrap_store.take());
    let mut store = patiently(&logger, || store::open(&url, &options)).await?;
    if let Some(wrap) = wrap {
        store = wrap(store);
    }
    let started = Instant::now();
    let ownership = patiently(&logger, || store.join(&member)).await?;
    let suspects = patiently(&logger, || store.suspects()).await? > 0;

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
                node.tell_others(units);
            })
        },
    };
    let outage = Outage::new(logger.clone());
    let persistence = Persistence::start(store.clone(), boot, outage.clone(), hooks)?;

    // The system thread holds the supervising actors; the agents live on arbiters of their own.
    let threads = usize::from(settings.node.threads).max(1);
    let (ready_tx, ready) = oneshot::channel();
    let (quit, quit_rx) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("orchestrator".to_owned()).spawn(move || {
        let system = System::new();
        system.block_on(async move {
            let arbiters: Vec<Arbiter> = (0..threads).map(|_| Arbiter::new()).collect();
            let _ = ready_tx.send((arbiters, Arbiter::current()));
            let _ = quit_rx.await;
        });
    })?;
    let (arbiters, root) =
        ready.await.map_err(|_| std::io::Error::other("the actor system did not start"))?;
    let node = Node::new(Parts {
        settings: Arc::new(settings),
        logger,
        store,
        cache,
        keeper,
        boot,
        persistence,
        epochs: ownership.epochs,
        outage,
        started,
        arbiters: arbiters.iter().map(Arbiter::handle).collect(),
        root: root.clone(),
        registry,
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
    supervise("lease keeper", &node, &keepers, {
        let member = member.clone();
        move |node, end| lease::keep(node, member.clone(), Duration::ZERO, end)
    });
    supervise("store watch", &node, &keepers, outage::watch);
    supervise("hints", &node, &keepers, hints::exchange);
    for (arbiter, heart) in node.arbiters.iter().zip(&node.hearts) {
        watchdog::beat(arbiter, heart.clone(), node.started, keepers.clone());
    }
    supervise("parts", &node, &keepers, parts::keep);
    supervise("watchdog", &node, &keepers, watchdog::watch);
    supervise("crash keeper", &node, &keepers, crashes::keep);

    let event = Event::new(Level::Info, event::NODE_STARTED, format!("node:{}", node.settings.node.name))
        .field("store", node.store.name())
        .field("kinds", node.kinds.len())
        .field("tools", node.tools.len())
        .field("rescued", ownership.rescued)
        .field("start_ms", super::millis(node.uptime()));
    node.logger.emit(event);
    let handle = Handle { host: node.host(), operator: Operator { node: node.clone() } };
    Ok(Running { node, handle, thread: Some(thread), quit: Some(quit), arbiters, keepers, _lock: lock })
}

/// Runs a task of the node's until `end`, again where it panics.
fn supervise<F>(
    name: &'static str,
    node: &Arc<Node>,
    end: &CancellationToken,
    run: impl Fn(Arc<Node>, CancellationToken) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (node, end) = (node.clone(), end.clone());
    tokio::spawn(async move {
        while let Err(error) = tokio::spawn(run(node.clone(), end.clone())).await {
            let event = Event::new(Level::Critical, "node.task_panicked", name);
            node.logger.emit(event.field("error", error.to_string()));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
}

impl Running {
    pub(crate) fn settings(&self) -> &Settings {
        &self.node.settings
    }

    pub(crate) fn logger(&self) -> &Logger {
        &self.node.logger
    }

    pub(crate) fn boot(&self) -> Uuid {
        self.node.boot
    }

    /// Ends the node in good order. `false`: something did not end in time; nothing that was
    /// acknowledged is lost all the same.
    pub(crate) async fn shutdown(mut self) -> bool {
        let begun = Instant::now();
        let node = self.node.clone();
        let subject = format!("node:{}", node.settings.node.name);
        node.logger.emit(Event::new(Level::Info, event::NODE_STOPPING, &*subject));
        node.set_closing();
        if let Some(actors) = node.actors() {
            let _ = actors.dispatcher.send(Quiesce).await;
            let _ = actors.orchestrator.send(Drain).await;
        }
        let mut clean = true;
        loop {
            let running: usize = node.kinds.iter().map(|k| k.running()).sum();
            let tasks = node.held_tasks().await;
            if running == 0 && (tasks == 0 || begun.elapsed() > DRAIN / 2) {
                break;
            }
            if begun.elapsed() > DRAIN {
                clean = false;
                break;
            }
            // A cell that was starting while the others were told is told now.
            node.kinds.iter().for_each(|k| k.drain());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What the last cells left behind is answered.
        node.kinds.iter().for_each(|k| k.drain());
        if let Some(actors) = node.actors() {
            let _ = actors.persistence.send(Close).await;
        }
        while node.persistence.waiting() > 0 && begun.elapsed() < DRAIN + Duration::from_secs(3) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        node.persistence.ended(Duration::from_secs(2)).await;
        self.keepers.cancel();
        // The same for a store that does not answer: the log has them.
        let _ = tokio::time::timeout(Duration::from_secs(2), node.flush_crashes()).await;
        let (store, boot) = (node.store.clone(), node.boot);
        let left = tokio::spawn(async move { store.leave(boot).await });
        // A store that does not answer lets the lease run out.
        let _ = tokio::time::timeout(Duration::from_secs(2), left).await;
        let event = Event::new(Level::Info, event::NODE_STOPPED, subject);
        node.logger.emit(event.field("clean", clean).field("took_ms", super::millis(begun.elapsed())));
        for arbiter in std::mem::take(&mut self.arbiters) {
            arbiter.stop();
            if clean {
                let _ = tokio::task::spawn_blocking(move || arbiter.join()).await;
            }
        }
        drop(self.quit.take());
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        clean
    }
}
