//! Where things run: data directories, a node, and every kind of thread that may send.

use std::{
    collections::VecDeque,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use anyhow::Context as _;
use greenroom::prelude::*;
use tempfile::TempDir;

use super::doc::Doc;

/// A directory of its own on the disk that holds `target/`.
pub fn directory() -> anyhow::Result<TempDir> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    std::fs::create_dir_all(&target)?;
    Ok(TempDir::with_prefix_in("bench-", target)?)
}

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Work for an arbiter's thread, on its way through an agent that lives there.
#[derive(Default, Clone)]
struct Jobs(Arc<Mutex<VecDeque<Job>>>);

/// A node, and the threads around it.
pub struct Ground {
    pub handle: Handle,
    /// A multi-thread runtime of the sender's own.
    pub runtime: tokio::runtime::Runtime,
    jobs: Jobs,
    node: Option<Runtime>,
}

/// From where something is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    SameArbiter,
    OtherArbiter,
    Thread,
    MultiThread,
}

impl Place {
    pub const ALL: [Self; 4] = [Self::SameArbiter, Self::OtherArbiter, Self::Thread, Self::MultiThread];

    pub fn name(self) -> &'static str {
        match self {
            Self::SameArbiter => "the same arbiter",
            Self::OtherArbiter => "another arbiter",
            Self::Thread => "a plain thread",
            Self::MultiThread => "the multi-thread runtime",
        }
    }

    /// Starts a task beside the one that runs.
    pub fn spawn(self, task: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::SameArbiter | Self::OtherArbiter => drop(tokio::task::spawn_local(task)),
            Self::Thread | Self::MultiThread => drop(tokio::spawn(task)),
        }
    }
}

/// An agent that runs jobs on the thread where it lives.
#[derive(Default, Serialize, Deserialize)]
pub struct Porch;

/// Takes the next job.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Enter {}

/// Tells the thread.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Where {}
message!(Enter -> (); Where -> String);

impl Agent for Porch {
    const KIND: &'static str = "porch";
    type Messages = (Enter, Where);
    fn policy() -> Policy {
        Policy::default().persistence(greenroom::Persistence::Volatile)
    }
}

impl Handler<Enter> for Porch {
    async fn handle(&mut self, _: Enter, turn: &Turn<Self>) -> Result<()> {
        let job = turn.resource::<Jobs>().0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(job) = job {
            tokio::task::spawn_local(job);
        }
        Ok(())
    }
}

impl Handler<Where> for Porch {
    async fn handle(&mut self, _: Where, _: &Turn<Self>) -> Result<String> {
        Ok(thread())
    }
}

/// The name of the current thread, as unique as its id.
pub fn thread() -> String {
    format!("{:?}", std::thread::current().id())
}

/// The senders' own runtime.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

impl Ground {
    pub fn new(data: &Path) -> anyhow::Result<Self> {
        Self::with(data, &[])
    }

    /// As [`Ground::new`], with more settings.
    pub fn with(data: &Path, sets: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::on(runtime()?, data, sets, |builder| builder)
    }

    /// As [`Ground::with`], on a runtime that is there, with a change to what is built.
    pub fn on(
        runtime: tokio::runtime::Runtime,
        data: &Path,
        sets: &[(&str, &str)],
        change: impl FnOnce(greenroom::Builder) -> greenroom::Builder,
    ) -> anyhow::Result<Self> {
        let jobs = Jobs::default();
        let data = data.to_str().context("the path is not UTF-8")?;
        let builder = Runtime::builder()
            .agent::<Porch>()
            .agent::<Doc>()
            .agent::<super::talk::Chat>()
            .agent::<super::volatile::Counter>()
            .agent::<super::crashes::Brittle>()
            .resource(jobs.clone())
            .set("node.data_dir", data)
            .set("node.threads", "2")
            .set("log.level", "error");
        let builder = sets.iter().fold(builder, |builder, (key, value)| builder.set(key, value));
        let node = runtime.block_on(change(builder).start())?;
        Ok(Self { handle: node.handle(), runtime, jobs, node: Some(node) })
    }

    /// The porch on an agent's own thread, or on another arbiter's.
    fn porch(&self, home: &str, same: bool) -> anyhow::Result<greenroom::AgentRef<Porch>> {
        for n in 0..64 {
            let porch = self.handle.agent::<Porch>(n.to_string());
            if (self.runtime.block_on(porch.ask(Where {}))? == home) == same {
                return Ok(porch);
            }
        }
        anyhow::bail!("no porch on the arbiter that is looked for")
    }

    /// Runs work at a place; `home` is the thread of the agent that it is about.
    pub fn at<T: Send + 'static>(
        &self,
        place: Place,
        home: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (done, result) = mpsc::channel();
        let job = async move { drop(done.send(work.await)) };
        match place {
            Place::SameArbiter | Place::OtherArbiter => {
                let porch = self.porch(home, place == Place::SameArbiter)?;
                self.jobs.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(Box::pin(job));
                self.runtime.block_on(porch.ask(Enter {}))?;
            }
            Place::Thread => {
                let thread = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                std::thread::spawn(move || thread.block_on(job));
            }
            Place::MultiThread => drop(self.runtime.spawn(job)),
        }
        Ok(result.recv()?)
    }

    /// Ends the node in good order.
    pub fn end(mut self) -> anyhow::Result<()> {
        match self.node.take() {
            Some(node) => self.runtime.block_on(node.shutdown()),
            None => Ok(()),
        }
    }
}
