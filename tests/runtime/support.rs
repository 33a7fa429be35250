//! A node in this process with a data directory of its own, and patience that ends.

use std::{
    future::Future,
    path::Path,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use greenroom::{Builder, Handle, Message, Outcome, Runtime, TaskId, model::task::TaskView};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::Semaphore;

/// Past this, what has not happened never will.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A node that can be restarted on its data.
pub struct World {
    dir: TempDir,
    runtime: Option<Runtime>,
}

impl World {
    /// Starts a program.
    pub async fn start(program: Builder) -> Self {
        let mut world = Self::idle();
        world.start_again(program).await;
        world
    }

    /// Starts a program that logs as its settings say; others say next to nothing.
    pub async fn start_logged(program: Builder) -> Self {
        let mut world = Self::idle();
        world.run(program).await;
        world
    }

    /// Data without a node.
    pub fn idle() -> Self {
        Self { dir: TempDir::new().unwrap(), runtime: None }
    }

    /// Starts a program that logs as its settings say on the same data.
    pub async fn start_telling(&mut self, program: Builder) {
        self.run(program).await;
    }

    /// Starts a program on the same data, after [`World::end`].
    pub async fn start_again(&mut self, program: Builder) {
        self.run(program.set("log.level", "critical")).await;
    }

    async fn run(&mut self, program: Builder) {
        assert!(self.runtime.is_none());
        let program = program
            .set("node.data_dir", &self.dir.path().to_string_lossy())
            .set("store.durability", "relaxed")
            .set("node.threads", "2");
        self.runtime = Some(soon(program.start()).await.unwrap());
    }

    /// The door.
    pub fn handle(&self) -> Handle {
        self.runtime.as_ref().unwrap().handle()
    }

    /// Ends the node in good order.
    pub async fn end(&mut self) {
        soon(self.runtime.take().unwrap().shutdown()).await.unwrap();
    }

    /// Ends a node whose store says that the process is dead.
    pub async fn crash(&mut self) {
        let _ = soon(self.runtime.take().unwrap().shutdown()).await;
    }

    /// Where its data is.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// `future`, which must not hang.
pub async fn soon<F: Future>(future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("it hangs"),
    }
}

/// Waits until `condition` holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A task, once it is in this state.
pub async fn task_in(handle: &Handle, id: TaskId, state: &str) -> TaskView {
    let began = Instant::now();
    loop {
        let view = handle.operator().task(id).await.unwrap();
        if view.state.name() == state {
            return view;
        }
        assert!(began.elapsed() < PATIENCE, "never {state}: {view:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How a task ended.
pub async fn outcome<M: Message>(handle: &Handle, id: TaskId) -> Outcome<M::Reply, M::Error> {
    soon(handle.wait::<M>(id)).await.unwrap()
}

/// An agent's lasting or present status.
pub async fn status(handle: &Handle, kind: &str, key: &str) -> String {
    handle.operator().agent(kind, key).await.map_or_else(|_| "unknown".to_owned(), |a| a.status)
}

/// A door that handlers wait at until the test opens it; and what they wrote down.
#[derive(Clone)]
pub struct Gate {
    open: Arc<Semaphore>,
    arrived: Arc<Semaphore>,
    /// In the order in which it happened, also in turns that were undone.
    pub notes: Arc<Mutex<Vec<String>>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            open: Arc::new(Semaphore::new(0)),
            arrived: Arc::new(Semaphore::new(0)),
            notes: Arc::default(),
        }
    }
}

impl Gate {
    /// For handlers: tells that it is here, and waits for one pass.
    pub async fn wait(&self) {
        self.arrived.add_permits(1);
        self.open.acquire().await.unwrap().forget();
    }

    /// For the test: waits until a handler stands at the gate.
    pub async fn arrival(&self) {
        soon(self.arrived.acquire()).await.unwrap().forget();
    }

    /// Lets `n` pass.
    pub fn open(&self, n: usize) {
        self.open.add_permits(n);
    }

    /// Writes something down.
    pub fn note(&self, text: impl Into<String>) {
        self.notes.lock().push(text.into());
    }

    /// How often this was written down.
    pub fn count(&self, text: &str) -> usize {
        self.notes.lock().iter().filter(|n| *n == text).count()
    }
}

/// How many messages to a kind have been dropped since this was called.
pub fn dropped(kind: &'static str) -> impl Fn() -> u64 {
    static FIGURES: LazyLock<PrometheusHandle> =
        LazyLock::new(|| PrometheusBuilder::new().install_recorder().unwrap());
    let count = move || {
        let text = FIGURES.render();
        let label = format!("greenroom_messages_total{{kind=\"{kind}\",outcome=\"dropped\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&*label)?.parse().ok()).unwrap_or(0)
    };
    let before: u64 = count();
    move || count() - before
}
