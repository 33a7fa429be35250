//! The surroundings of a node: threads, log, HTTP, signals.

use std::{
    io::{IsTerminal as _, Write as _},
    net::TcpListener,
    sync::Arc,
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::{self, Errors, Settings, Sources},
    http::{self, Access, Announcement, Certificate, Ctx},
    log::{FileOptions, Guard, Logger, Options, Origin},
    model::event::{self, Event, Level},
    runtime::{
        self, Running, StartError,
        configuration::{Layers, log_rules},
        operator::Operator,
    },
    store::Store,
};

/// The multi-thread runtime: connections, tools, HTTP clients; the agents live on arbiters.
pub(super) fn runtime(settings: &Settings) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(settings.node.threads).max(1))
        .thread_name("greenroom")
        .enable_all()
        .build()
}

/// The log that the settings describe.
pub(super) fn log_options(settings: &Settings, boot: Uuid) -> Options {
    let log = &settings.log;
    Options {
        rules: log_rules(settings),
        file: log.file.path.clone().map(|path| FileOptions {
            path,
            max_size: log.file.max_size,
            keep: log.file.keep,
        }),
        origin: Origin { node: settings.node.name.clone(), boot: boot.to_string() },
        colour: None,
    }
}

pub(super) fn on_ready_failed(logger: &Logger, error: &anyhow::Error) {
    let event = Event::new(Level::Error, event::NODE_STOPPING, "node")
        .field("reason", format!("on_ready: {error:#}"));
    logger.emit(event);
}

/// Installs the process's metrics; `None` where somebody has installed others.
pub(super) fn metrics() -> Option<PrometheusHandle> {
    let buckets = [
        0.000_01, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
        0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    ];
    let recorder = PrometheusBuilder::new().set_buckets(&buckets).ok()?.install_recorder().ok()?;
    runtime::describe_metrics();
    Some(recorder)
}

/// Serves HTTP on a thread of its own until `stop`.
pub(super) fn serve(
    running: &Running,
    (listener, tls): (TcpListener, Option<Certificate>),
    access: Access,
    metrics: Option<PrometheusHandle>,
    stop: CancellationToken,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let ctx = Ctx {
        operator: running.handle.operator().clone(),
        settings: running.settings(),
        logger: running.logger().clone(),
        metrics,
        access,
        stop,
    };
    http::spawn(ctx, listener, tls)
}

/// Tells whoever looks at the console how to open the dashboard. The link is a secret: it is not logged.
pub(super) fn invite(access: &Access, announcement: &Announcement) {
    let mut console = std::io::stderr();
    if console.is_terminal() {
        let link = access.first_link(&announcement.url);
        // Where it cannot be written nobody reads it; `greenroom login` prints another.
        let _ = writeln!(console, "dashboard (once, within 10 minutes): {}", link.url.reveal());
    }
}

/// Has the certificate read again at each SIGHUP: what renews it sends one.
pub(super) fn renew(certificate: Certificate, logger: Logger) -> std::io::Result<()> {
    let mut told = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while told.recv().await.is_some() {
            let event = match certificate.reload() {
                Ok(()) => Event::new(Level::Info, event::TLS_RELOADED, "http"),
                Err(error) => Event::new(Level::Error, event::TLS_RELOADED, "http")
                    .field("error", error.to_string())
                    .hint(
                        "the certificate that was read before is still shown: mend it and send SIGHUP again",
                    ),
            };
            logger.emit(event);
        }
    });
    Ok(())
}

/// The signals that a node hears. Until there is one of these, each of them ends the process at once: whoever is
/// told that the node is there must be able to send them.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until somebody asks the node to end: a signal, an operator, or the node itself. Until then SIGHUP
    /// has it read its configuration again.
    pub(super) async fn asked_to_end(mut self, running: &Running) {
        let operator = running.handle.operator();
        let reload = |operator: Operator| async move { operator.reload_configuration("SIGHUP").await };
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                () = operator.stopping() => return,
                // a store that hangs must not keep the node from being ended
                _ = self.hangup.recv() => drop(tokio::spawn(reload(operator.clone()))),
            }
        }
    }
}

/// What a node needs before it starts.
pub(super) struct Opened {
    pub settings: Settings,
    pub layers: Layers,
    pub store: Arc<dyn Store>,
    pub logger: Logger,
    /// Ends the log when it is dropped.
    pub log: Option<Guard>,
}

/// Opens the store that `settings` name, adds what operators have set in it, and begins the log. `sources` is
/// where the settings came from.
pub(super) async fn open(settings: Settings, sources: &Sources, boot: Uuid) -> Result<Opened, StartError> {
    let begin = |settings: &Settings| Logger::start(log_options(settings, boot)).map_err(StartError::Log);
    let (opened, begun) = match runtime::open(&settings).await {
        // people are told what is waited for: the log begins before what the store says of it is known
        Err(error) if error.may_pass() => {
            let (logger, log) = begin(&settings)?;
            (runtime::open_patiently(&settings, &logger).await, Some((logger, log)))
        }
        tried => (tried, None),
    };
    let (store, kept) = opened?;
    let sources = Sources { stored: kept.values.into_iter().collect(), ..sources.clone() };
    let settings = match sources.stored.is_empty() {
        true => settings,
        false => config::load(&sources).map_err(Errors::with_remedy)?,
    };
    let (logger, log) = match begun {
        Some(begun) => begun,
        None => begin(&settings)?,
    };
    logger.set_rules(&log_rules(&settings));
    let layers = Layers { sources, kept: kept.generation };
    Ok(Opened { settings, layers, store, logger, log: Some(log) })
}

/// Writes where the node can be reached.
pub(super) fn announce(running: &Running, listener: &TcpListener) -> std::io::Result<Announcement> {
    let settings = running.settings();
    let announcement = Announcement::new(listener.local_addr()?, &settings.http, running.boot().to_string());
    announcement.write(&settings.node.data_dir)?;
    Ok(announcement)
}
