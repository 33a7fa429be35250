//! A program, as its command line sees it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Builder, node};
use crate::{
    cli::{App, DemoArgs, Exit, Failure},
    config::{self, Errors, Settings, Sources},
    demo,
    http::{self, Access, Announcement, Certificate, Token},
    model::wire::Wire,
    runtime::{self, StartError, trial::Trials},
    secrets,
    store::StoreError,
};

/// A program as its command line sees it.
pub(super) struct Program {
    builder: Builder,
}

impl Program {
    pub(super) fn new(builder: Builder) -> Self {
        Self { builder }
    }

    /// With what the program's code sets.
    fn sources(&self, sources: &Sources) -> Sources {
        let mut sources = sources.clone();
        sources.overrides.splice(0..0, self.builder.overrides.iter().cloned());
        sources
    }
}

impl App for Program {
    fn settings(&self, sources: &Sources) -> Result<Settings, Errors> {
        config::load(&self.sources(sources))
    }

    fn run(self, settings: Settings, sources: Sources) -> Result<(), Failure> {
        let boot = Uuid::now_v7();
        let failed =
            |what: &str, e: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("{what}: {e}"));
        let lock = runtime::lock(&settings.node.data_dir).map_err(start_failure)?;
        let sources = self.sources(&sources);
        let tokio = node::runtime(&settings).map_err(|e| failed("the threads", &e))?;
        // the log outlives the threads, which may still write to it
        let mut log = None;
        let ended = tokio.block_on(async {
            let mut opened = node::open(settings, &sources, boot).await.map_err(start_failure)?;
            log = opened.log.take();
            opened.logger.install();
            let certificate = Certificate::load(&opened.settings)?;
            let listener = http::bind(&opened.settings)?;
            if opened.settings.node.url.is_none() {
                let bound = listener.local_addr().map_err(|e| failed("http.bind", &e))?;
                opened.settings.node.url = Some(http::url_of(bound, &opened.settings.http));
            }
            let (there, data_dir) = (opened.settings.clone(), opened.settings.node.data_dir.clone());
            Announcement::forget(&data_dir);
            let metrics = node::metrics();
            let token = Token::establish(&there)?;
            let running = self.builder.launch(opened, boot, lock).await.map_err(start_failure)?;
            secrets::hide([token.reveal().to_owned()]);
            let access = Access::new(token, running.handle.operator().clone());
            let signals = node::Signals::listen().map_err(|e| failed("signals", &e))?;
            let announcement = node::announce(&running, &listener).map_err(|e| failed("node.json", &e))?;
            let stop = CancellationToken::new();
            if let Some(certificate) = certificate.clone() {
                let logger = running.logger().clone();
                node::renew(certificate, logger).map_err(|e| failed("signals", &e))?;
            }
            let server =
                node::serve(&running, (listener, certificate), access.clone(), metrics, stop.clone())
                    .map_err(|e| failed("HTTP", &e))?;
            node::invite(&access, &announcement);
            signals.asked_to_end(&running).await;
            let fatal = running.handle.operator().fatal();
            // New connections are refused while what runs is finished; then the agents drain.
            stop.cancel();
            let clean = running.shutdown().await;
            let _ = tokio::time::timeout(
                Duration::from_secs(2),
                tokio::task::spawn_blocking(move || server.join()),
            )
            .await;
            // the last of all: whoever waits for the end looks for it
            announcement.remove(&data_dir);
            match (fatal, clean) {
                (Some(why), _) => Err(Failure::new(Exit::Failed, why)),
                (None, false) => Err(Failure::new(
                    Exit::Failed,
                    "some agents did not end in time; nothing that was acknowledged is lost",
                )),
                (None, true) => Ok(()),
            }
        });
        tokio.shutdown_timeout(Duration::from_secs(1));
        drop(log);
        ended
    }

    fn trials(&self, settings: &Settings) -> Trials {
        self.builder.trials(settings)
    }

    fn misfits(&self, settings: &Settings) -> Result<(), Errors> {
        self.builder.registry.misfits(settings)
    }

    fn wire(&self, settings: &Settings) -> Wire {
        self.builder.wire(settings)
    }

    fn demo(&self) -> Option<fn(DemoArgs) -> Result<(), Failure>> {
        self.builder.crew.then_some(run_demo as fn(DemoArgs) -> Result<(), Failure>)
    }
}

/// The exit code of each way not to start.
fn start_failure(error: StartError) -> Failure {
    let exit = match &error {
        StartError::Program(_) | StartError::Settings(_) | StartError::Cache(_) => Exit::Config,
        StartError::InUse(_) | StartError::Store(StoreError::Refused(_)) => Exit::Refused,
        StartError::DataDir { .. } | StartError::Store(_) | StartError::Log(_) | StartError::Thread(_) => {
            Exit::Failed
        }
    };
    Failure::new(exit, error.to_string())
}

fn run_demo(args: DemoArgs) -> Result<(), Failure> {
    let options = demo::Options {
        dir: args.dir,
        kills: args.kills,
        once: args.once,
        data_dir: args.data_dir,
        limit: args.limit as u64,
    };
    match demo::run(&options) {
        0 => Ok(()),
        2 => Err(Failure::silent(Exit::Usage)),
        4 => Err(Failure::silent(Exit::Refused)),
        _ => Err(Failure::silent(Exit::Failed)),
    }
}
