//! The builder, called from a program's `main`. Ties the runtime, HTTP and the command line together.

mod node;
mod program;

use std::{future::Future, process::ExitCode, sync::Arc, time::Duration};

use crate::{
    Handle,
    agent::{
        Agent, Message, ScheduleOptions, Settings, Target,
        counter::Counter,
        library::{Librarian, Shelf},
    },
    cli, config,
    log::{Guard, Logger},
    model::{
        group::{GroupPolicy, Strategy},
        wire::Wire,
    },
    runtime::{
        self,
        configuration::Layers,
        probe::{Probe, StandIns},
        registry::Registry,
        trial::Trials,
    },
    store::Store,
    tool::{
        Call, Effect, Limits, Tool,
        fs::{FsList, FsRead, Roots},
        probe::{ProbeCrash, ProbeHold, ProbeStumble, ProbeWait},
    },
};
use program::Program;

type Ready =
    Box<dyn FnOnce(Handle) -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> + Send>;

/// A node that runs in this process, without HTTP and without a command line.
pub struct Runtime {
    running: Option<runtime::Running>,
    tokio: Option<tokio::runtime::Runtime>,
    _log: Option<Guard>,
}

impl Runtime {
    /// Starts describing a program.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The handle to it.
    pub fn handle(&self) -> Handle {
        match &self.running {
            Some(running) => running.handle.clone(),
            // Only `shutdown` takes it, and that takes the runtime.
            None => unreachable!("a runtime that was shut down has no handle"),
        }
    }

    /// Shuts down: finishes what runs, persists, frees everything. Dropping the `Runtime` without this ends
    /// the node as a crash would: acknowledged work is kept, running turns are lost, and threads of its actors
    /// may live on until the process ends.
    ///
    /// # Errors
    /// Some agents did not end in time. Even then nothing that was acknowledged is lost.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        let (Some(running), Some(tokio)) = (self.running.take(), self.tokio.take()) else { return Ok(()) };
        let clean = tokio.spawn(running.shutdown()).await?;
        tokio.shutdown_background();
        anyhow::ensure!(clean, "some agents did not end in time");
        Ok(())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(tokio) = self.tokio.take() {
            tokio.shutdown_background();
        }
    }
}

/// Describes a program: its agents, tools, resources and settings.
#[derive(Default)]
#[must_use = "nothing runs until `main` or `start`"]
pub struct Builder {
    registry: Registry,
    overrides: Vec<(String, String)>,
    ready: Vec<Ready>,
    crew: bool,
}

impl Builder {
    /// Adds a kind of agent.
    pub fn agent<A: Agent>(mut self) -> Self {
        self.registry.agent::<A>();
        self
    }

    /// Adds a tool.
    pub fn tool<T: Tool>(mut self, tool: T) -> Self {
        self.registry.tool(tool);
        self
    }

    /// Adds an async function as a tool, without limits but the usual time-out.
    pub fn tool_fn<M, F, R>(self, name: &'static str, effect: Effect, f: F) -> Self
    where
        M: Message,
        F: Fn(M, Call) -> R + Send + Sync + 'static,
        R: Future<Output = anyhow::Result<M::Reply>> + Send + 'static,
    {
        self.tool_fn_with(name, effect, Limits::default(), f)
    }

    /// As [`Builder::tool_fn`], with limits, and defaults of its tasks: retries, time-out, priority, concurrency,
    /// rate.
    ///
    /// ```
    /// # use greenroom::{Limits, prelude::*};
    /// # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Resize { path: String }
    /// # message!(Resize -> ());
    /// # async fn resize(_: Resize, _: Call) -> Result<()> { Ok(()) }
    /// let limits = Limits {
    ///     concurrency: Some(4),
    ///     rate: Some((100, Duration::from_secs(1))),
    ///     timeout: Some(Duration::from_secs(120)),
    ///     priority: Some(-1),
    ///     max_attempts: Some(3),
    ///     retry_backoff: Some((Duration::from_secs(1), Duration::from_secs(60))),
    ///     ..Limits::default()
    /// };
    /// let program = Runtime::builder().tool_fn_with("image.resize", Effect::Idempotent, limits, resize);
    /// ```
    pub fn tool_fn_with<M, F, R>(mut self, name: &'static str, effect: Effect, limits: Limits, f: F) -> Self
    where
        M: Message,
        F: Fn(M, Call) -> R + Send + Sync + 'static,
        R: Future<Output = anyhow::Result<M::Reply>> + Send + 'static,
    {
        self.registry.add_tool(name, effect, limits, f);
        self
    }

    /// Declares a group: agents whose [`Policy::group`](crate::Policy::group) names it are supervised
    /// together. More than `max_restarts` crashes of its members `within` this time, or a member past its
    /// own intensity, and the root restarts the group whole; where it has to do so more often than
    /// `supervision.max_restarts` `within` `supervision.within`, the node shuts down with exit code 1.
    ///
    /// ```
    /// # use greenroom::{Strategy, prelude::*};
    /// # #[derive(Default, Serialize, Deserialize)] struct Feed { open: bool }
    /// impl Agent for Feed {
    ///     const KIND: &'static str = "feed";
    ///     type Messages = ();
    ///     fn policy() -> Policy {
    ///         Policy::default().group("market")
    ///     }
    /// }
    /// let program = Runtime::builder()
    ///     .group("market", Strategy::OneForAll, 5, Duration::from_secs(60))
    ///     .agent::<Feed>();
    /// ```
    pub fn group(
        mut self,
        name: &'static str,
        strategy: Strategy,
        max_restarts: u32,
        within: Duration,
    ) -> Self {
        self.registry.group(name, GroupPolicy { strategy, max_restarts, within });
        self
    }

    /// Adds a value that every turn may use: [`Turn::resource`](crate::Turn::resource).
    pub fn resource<T: Send + Sync + 'static>(mut self, resource: T) -> Self {
        self.registry.resource(resource);
        self
    }

    /// Declares the program's own section of the configuration.
    pub fn settings<S: Settings>(mut self) -> Self {
        self.registry.settings::<S>();
        self
    }

    /// Submits one task at each nominal time of `spec`, however many nodes there are, and across their
    /// restarts.
    ///
    /// `spec` is cron, with seconds or without, and perhaps a time zone (`"0 3 * * * Europe/Berlin"`, else
    /// UTC), or an interval (`"every 10m"`): [`Spec`](crate::model::schedule::Spec) says what it means where
    /// clocks change. An invalid spec, target or input is a configuration error: the node does not start.
    ///
    /// The schedule is written when the node starts. One that the program no longer declares is removed then;
    /// one that an operator has paused stays paused.
    ///
    /// ```
    /// # use greenroom::{Target, prelude::*};
    /// # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Nightly { day: String }
    /// # message!(Nightly -> u64);
    /// async fn nightly(_: Nightly, _: Call) -> Result<u64> {
    ///     Ok(0)
    /// }
    /// let program = Runtime::builder()
    ///     .tool_fn("report.nightly", Effect::Idempotent, nightly)
    ///     .schedule("nightly", "0 3 * * * Europe/Berlin", Target::tool("report.nightly"), Nightly { day: "today".into() });
    /// ```
    pub fn schedule<M: Message>(self, name: &'static str, spec: &str, to: Target<M>, message: M) -> Self {
        self.schedule_with(name, spec, to, message, ScheduleOptions::default())
    }

    /// As [`Builder::schedule`], with options.
    pub fn schedule_with<M: Message>(
        mut self,
        name: &'static str,
        spec: &str,
        to: Target<M>,
        message: M,
        options: ScheduleOptions,
    ) -> Self {
        self.registry.schedule(name, spec, to, &message, options);
        self
    }

    /// Runs when the node is ready. An error ends the node.
    pub fn on_ready<F, R>(mut self, f: F) -> Self
    where
        F: FnOnce(Handle) -> R + Send + 'static,
        R: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.ready.push(Box::new(move |handle| Box::pin(f(handle))));
        self
    }

    /// Sets a configuration key. Overrides the environment; `--set` overrides it.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.overrides.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Wraps the store: for tests that make it fail.
    #[doc(hidden)]
    pub fn wrap_store(
        mut self,
        wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store> + Send + 'static,
    ) -> Self {
        let wrap: runtime::WrapStore = Box::new(wrap);
        self.registry.wrap_store = Some(wrap);
        self
    }

    /// Adds the library crew: `librarian`, `shelf`, `fs.list` and `fs.read`.
    pub fn library(mut self) -> Self {
        self.crew = true;
        self
    }

    /// Parses the command line and runs the command.
    pub fn main(self) -> ExitCode {
        cli::main(Program::new(self))
    }

    /// Starts a node in this process, without HTTP and without a command line. The configuration is
    /// the built-in one with the environment and [`Builder::set`] on top.
    ///
    /// # Errors
    /// The configuration is invalid, the data directory is in use, or the store cannot be opened.
    pub async fn start(self) -> anyhow::Result<Runtime> {
        let mut sources = config::Sources::of_process();
        sources.overrides = self.overrides.clone();
        let settings = config::load(&sources)?;
        let tokio = node::runtime(&settings)?;
        // from here on it ends its threads by itself, also where the start fails
        let mut runtime = Runtime { running: None, tokio: Some(tokio), _log: None };
        let Some(tokio) = &runtime.tokio else { return Ok(runtime) };
        let starting = tokio.spawn(async move {
            let boot = uuid::Uuid::now_v7();
            let lock = runtime::lock(&settings.node.data_dir)?;
            let mut opened = node::open(settings, &sources, boot).await?;
            let log = opened.log.take();
            Ok::<_, runtime::StartError>((self.launch(opened, boot, lock).await?, log))
        });
        let (running, log) = starting.await??;
        (runtime.running, runtime._log) = (Some(running), log);
        Ok(runtime)
    }

    /// Starts a node for a test, on this thread and on what it is given. It writes no log.
    pub(crate) async fn rehearse(mut self, stage: Stage) -> anyhow::Result<runtime::Running> {
        let mut sources = config::Sources::of_process();
        sources.overrides = self.overrides.clone();
        let settings = config::load(&sources)?;
        self.complete(&settings);
        self.registry.check(&settings).map_err(runtime::StartError::Program)?;
        self.registry.probe = Some(stage.probe);
        self.registry.stand_ins = Some(stage.stand_ins);
        let logger = Logger::quiet(settings.log.level);
        let member = runtime::member(&settings, uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
        let layers = Layers { sources, kept: 0 };
        let ground = runtime::Ground { store: stage.store, member, lock: None, layers, threads: false };
        let running = runtime::launch(settings, self.registry, logger, ground).await?;
        tell_ready(self.ready, &running);
        Ok(running)
    }

    /// Starts the node, and runs what is to be run when it is ready.
    async fn launch(
        mut self,
        opened: node::Opened,
        boot: uuid::Uuid,
        lock: runtime::DataDir,
    ) -> Result<runtime::Running, runtime::StartError> {
        let node::Opened { settings, layers, store, logger, .. } = opened;
        self.complete(&settings);
        let running = runtime::start(settings, layers, self.registry, logger, boot, lock, store).await?;
        tell_ready(self.ready, &running);
        Ok(running)
    }

    /// Dry runs over the stored states of the program's kinds.
    fn trials(&self, settings: &config::Settings) -> Trials {
        let mut more = Registry::default();
        add_kinds(&mut more, self.crew, settings.node.probe);
        Trials::of(self.registry.dry().chain(more.dry()))
    }

    /// The program's wire interface: kinds, messages and tools.
    fn wire(&self, settings: &config::Settings) -> Wire {
        let mut more = Registry::default();
        add_own(&mut more, self.crew, settings);
        let (mut wire, more) = (self.registry.wire(), more.wire());
        wire.kinds.extend(more.kinds);
        wire.tools.extend(more.tools);
        wire
    }

    /// Adds what comes with the library where it is wanted.
    fn complete(&mut self, settings: &config::Settings) {
        add_own(&mut self.registry, self.crew, settings);
    }
}

/// Adds what comes with the library where it is wanted.
fn add_own(registry: &mut Registry, crew: bool, settings: &config::Settings) {
    add_kinds(registry, crew, settings.node.probe);
    if crew {
        let (http, own) = (&settings.http, [settings.node.data_dir.clone(), config::FILE.into()]);
        let kept = [&http.token_file, &http.tls.cert, &http.tls.key].into_iter().flatten().cloned();
        let roots = Roots::new(settings.tools.fs.roots.clone()).closed(own.into_iter().chain(kept));
        registry.tool(FsList::new(roots.clone()));
        registry.tool(FsRead::new(roots));
    }
    if settings.node.probe {
        registry.tool(ProbeWait);
        registry.tool(ProbeHold);
        registry.tool(ProbeStumble);
        registry.tool(ProbeCrash);
    }
}

/// Adds the kinds that come with the library where they are wanted.
fn add_kinds(registry: &mut Registry, crew: bool, probe: bool) {
    if crew {
        registry.agent::<Librarian>();
        registry.agent::<Shelf>();
    }
    if probe {
        registry.agent::<Counter>();
    }
}

/// What a test's node is given beside the program.
pub(crate) struct Stage {
    pub store: Arc<dyn Store>,
    pub probe: Arc<dyn Probe>,
    pub stand_ins: Arc<StandIns>,
}

/// Runs what is to be run when the node is ready.
fn tell_ready(all: Vec<Ready>, running: &runtime::Running) {
    for ready in all {
        let (handle, stop) = (running.handle.clone(), running.handle.operator().clone());
        let logger = running.node.logger.clone();
        tokio::spawn(async move {
            if let Err(error) = ready(handle).await {
                node::on_ready_failed(&logger, &error);
                stop.stop();
            }
        });
    }
}
