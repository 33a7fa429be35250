//! The node's own actors, the cells of its tools and its keepers: children of the root, as agents are. One that has
//! ended is restarted where that is safe; where it is not, or it does not stay up, the node ends.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{
    cache_actor::CacheActor, dispatcher::Dispatcher, millis, node::Node, orchestrator::Orchestrator,
    persistence::PersistenceActor,
};
use crate::model::{
    event::{self, Event, Level},
    supervision::{Budget, Decision, RestartPolicy, decide},
};

/// How often it is looked whether they are there.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// More restarts in a minute, and the node ends.
const MAX_RESTARTS: u32 = 3;

/// The actors that supervise and serve the rest.
#[derive(Clone)]
pub(crate) struct Actors {
    pub orchestrator: Addr<Orchestrator>,
    pub dispatcher: Addr<Dispatcher>,
    pub cache: Addr<CacheActor>,
    pub persistence: Addr<PersistenceActor>,
}

impl Actors {
    /// Starts them on the current arbiter, which is the root's. `suspects`: see [`Dispatcher::new`].
    pub(crate) fn start(node: &Arc<Node>, suspects: bool) -> Self {
        // first, so that whoever has a node's door finds its tools
        node.tools.values().for_each(|tool| tool.start());
        Self {
            persistence: PersistenceActor { persistence: node.persistence.clone() }.start(),
            cache: CacheActor::of(node).start(),
            orchestrator: Orchestrator::new(node.clone()).start(),
            dispatcher: Dispatcher::new(node.clone(), suspects).start(),
        }
    }

    /// The first that has ended, of them and the tools.
    fn fallen(&self, node: &Node) -> Option<Part> {
        let parts = [
            (self.dispatcher.connected(), Part::Dispatcher),
            (self.orchestrator.connected(), Part::Orchestrator),
            (self.persistence.connected(), Part::Persistence),
            (self.cache.connected(), Part::Cache),
        ];
        let part = parts.into_iter().find(|(up, _)| !up).map(|(_, part)| part);
        part.or_else(|| node.tools.iter().find(|(_, tool)| !tool.is_up()).map(|(name, _)| Part::Tool(name)))
    }

    /// The same with one of them started again, on the current arbiter.
    fn again(&self, part: Part, node: &Arc<Node>) -> Self {
        let mut actors = self.clone();
        match part {
            Part::Orchestrator => actors.orchestrator = Orchestrator::new(node.clone()).start(),
            Part::Persistence => {
                actors.persistence = PersistenceActor { persistence: node.persistence.clone() }.start();
            }
            Part::Cache => actors.cache = CacheActor::of(node).start(),
            Part::Tool(name) => node.tools.get(name).into_iter().for_each(|tool| tool.start()),
            Part::Dispatcher => {}
        }
        actors
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Orchestrator,
    Dispatcher,
    Persistence,
    Cache,
    Tool(&'static str),
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Tool(name) => name,
            Self::Orchestrator => "orchestrator",
            Self::Dispatcher => "dispatcher",
            Self::Persistence => "persistence",
            Self::Cache => "cache",
        }
    }

    /// The subject of what is logged of it.
    fn subject(self) -> String {
        match self {
            Self::Tool(name) => format!("tool:{name}"),
            part => format!("node:{}", part.name()),
        }
    }

    fn called(self) -> String {
        let what = if matches!(self, Self::Tool(_)) { "tool " } else { "" };
        format!("{what}{}", self.name())
    }

    /// Whether a new one may take its place. Only the dispatcher that claimed a task knows that it runs:
    /// another one would have it run a second time.
    fn may_return(self) -> bool {
        self != Self::Dispatcher
    }
}

fn policy() -> RestartPolicy {
    RestartPolicy { max_restarts: MAX_RESTARTS, ..RestartPolicy::default() }
}

/// Runs a keeper, a task of the node's, until `end`, and again where it panics.
pub(super) fn supervise<F>(
    name: &'static str,
    node: &Arc<Node>,
    end: &CancellationToken,
    run: impl Fn(Arc<Node>, CancellationToken) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (node, end) = (node.clone(), end.clone());
    tokio::spawn(async move {
        let mut care = KeeperCare::new(name, node.clone());
        while let Err(error) = tokio::spawn(run(node.clone(), end.clone())).await {
            let Some(delay) = care.panicked(error.to_string()) else { return };
            tokio::time::sleep(delay).await;
        }
    });
}

/// Looks after one keeper.
pub(super) struct KeeperCare {
    name: &'static str,
    node: Arc<Node>,
    budget: Budget,
}

impl KeeperCare {
    pub(super) fn new(name: &'static str, node: Arc<Node>) -> Self {
        Self { name, node, budget: Budget::new() }
    }

    /// It has panicked, and runs again after such a time. `None`: it has done so too often, and the node ends.
    pub(super) fn panicked(&mut self, error: String) -> Option<Duration> {
        let event = Event::new(Level::Critical, "node.task_panicked", self.name);
        self.node.logger.emit(event.field("error", error));
        match decide(&policy(), &mut self.budget, 1, self.node.uptime(), 1.0) {
            Decision::Restart { delay, .. } => Some(delay),
            Decision::Exceeded { .. } | Decision::Leave => {
                fail(&self.node, self.name);
                None
            }
        }
    }
}

/// Looks after the actors until `end`.
pub(crate) async fn keep(node: Arc<Node>, end: CancellationToken) {
    let (policy, mut budget, mut streak) = (policy(), Budget::new(), 0);
    while end.run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL)).await.is_some() && !node.is_closing() {
        let Some((actors, part)) = node.actors().and_then(|a| a.fallen(&node).map(|part| (a, part))) else {
            streak = 0;
            continue;
        };
        streak += 1;
        let decision = decide(&policy, &mut budget, streak, node.uptime(), 1.0);
        let Decision::Restart { attempt, delay } = decision else {
            return fail(&node, &part.called());
        };
        if !part.may_return() {
            return fail(&node, &part.called());
        }
        let event = Event::new(Level::Error, event::RESTART_PLANNED, part.subject())
            .field("strategy", "one_for_one")
            .field("attempt", attempt)
            .field("max", policy.max_restarts)
            .field("within_ms", millis(policy.within))
            .field("delay_ms", millis(delay));
        node.logger.emit(event);
        tokio::time::sleep(delay).await;
        let there = node.clone();
        node.root.spawn_fn(move || there.set_actors(actors.again(part, &there)));
    }
}

fn fail(node: &Node, name: &str) {
    let why = format!("the {name} has ended, and cannot be brought back");
    node.fail(why, "this is a defect of the runtime: its message stands before; start the node again");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Runtime;

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Die;
    macro_rules! mortal {
        ($($actor:ty),*) => {$(
            impl Handler<Die> for $actor {
                type Result = ();
                fn handle(&mut self, _: Die, _: &mut Self::Context) {
                    panic!("as told")
                }
            }
        )*};
    }
    mortal!(Orchestrator, Dispatcher, CacheActor, PersistenceActor);

    async fn until(condition: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(20), "never");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn start(dir: &tempfile::TempDir) -> (Runtime, Arc<Node>) {
        start_with(dir, Runtime::builder()).await
    }

    async fn start_with(dir: &tempfile::TempDir, program: crate::Builder) -> (Runtime, Arc<Node>) {
        let program = program.set("node.data_dir", &dir.path().to_string_lossy());
        let runtime = program.set("store.durability", "relaxed").set("log.level", "critical").start().await;
        let runtime = runtime.unwrap();
        let node = runtime.handle().operator().node.clone();
        (runtime, node)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn actors_that_have_ended_are_brought_back_until_it_is_too_often() {
        let dir = tempfile::TempDir::new().unwrap();
        let (runtime, node) = start(&dir).await;
        let up = || node.actors().is_some_and(|a| a.fallen(&node).is_none());
        for part in 0..4 {
            until(up).await;
            let actors = node.actors().unwrap();
            let killed = match part {
                0 => actors.cache.send(Die).await,
                1 => actors.orchestrator.send(Die).await,
                2 => actors.persistence.send(Die).await,
                _ => actors.cache.send(Die).await,
            };
            assert!(killed.is_err());
        }
        until(|| node.fatal.get().is_some()).await;
        assert!(node.fatal.get().unwrap().contains("the cache has ended"));
        runtime.shutdown().await.unwrap();
    }

    /// Says how often it has run, when it may.
    struct Slow(Arc<tokio::sync::Semaphore>);
    #[derive(Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    struct Run {}
    crate::message!(Run -> u64);
    impl crate::Tool for Slow {
        const NAME: &'static str = "slow";
        const EFFECT: crate::Effect = crate::Effect::Idempotent;
        type Input = Run;
        fn limits(&self) -> crate::Limits {
            crate::Limits { concurrency: Some(1), ..crate::Limits::default() }
        }
        async fn run(&self, _: Run, _: &crate::Call) -> crate::Result<u64> {
            self.0.acquire().await?.forget();
            Ok(1)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tool_whose_cell_has_ended_is_brought_back_and_bounds_what_still_runs() {
        let dir = tempfile::TempDir::new().unwrap();
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (runtime, node) = start_with(&dir, Runtime::builder().tool(Slow(gate.clone()))).await;
        let (handle, tool) = (runtime.handle(), node.tools.get("slow").unwrap());
        let slow = handle.tool::<Slow>();
        let first = tokio::spawn(slow.call(Run {}));
        until(|| tool.info().running == 1).await;
        let second = slow.submit(Run {}).await.unwrap();
        until(|| tool.info().waiting == 1).await;
        tool.break_cell();
        until(|| tool.info().restarts == 1 && tool.is_up()).await;
        // The second one had not begun, which is no attempt at it: it comes again, and waits for the first.
        until(|| tool.info().waiting == 1).await;
        assert_eq!((tool.info().running, tool.info().calls), (1, 1));
        let tree = handle.operator().tree().await;
        let shown = tree.children.iter().find(|child| child.name == "slow").unwrap();
        assert_eq!((&*shown.role, &*shown.status, shown.restarts), ("tool", "active", 1));
        gate.add_permits(2);
        assert_eq!(first.await.unwrap().unwrap(), 1);
        assert_eq!(handle.wait::<Run>(second).await.unwrap(), crate::Outcome::Succeeded(1));
        assert_eq!(handle.operator().task(second).await.unwrap().attempt, 1);
        runtime.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_keeper_that_cannot_be_kept_up_ends_the_node() {
        let dir = tempfile::TempDir::new().unwrap();
        let (runtime, node) = start(&dir).await;
        let (runs, end) = (Arc::new(tokio::sync::Semaphore::new(0)), CancellationToken::new());
        let seen = runs.clone();
        supervise("keeper of nothing", &node, &end, move |_, _| {
            let seen = seen.clone();
            async move {
                seen.add_permits(1);
                panic!("as told")
            }
        });
        until(|| node.fatal.get().is_some()).await;
        assert!(node.fatal.get().unwrap().contains("the keeper of nothing has ended"));
        assert_eq!(runs.available_permits(), MAX_RESTARTS as usize + 1);
        runtime.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tool_that_cannot_be_kept_up_ends_the_node() {
        let dir = tempfile::TempDir::new().unwrap();
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (runtime, node) = start_with(&dir, Runtime::builder().tool(Slow(gate))).await;
        let tool = node.tools.get("slow").unwrap();
        for restarts in 0..=u64::from(MAX_RESTARTS) {
            until(|| tool.info().restarts == restarts && tool.is_up()).await;
            tool.break_cell();
        }
        until(|| node.fatal.get().is_some()).await;
        assert!(node.stop.is_cancelled() && node.fatal.get().unwrap().contains("the tool slow has ended"));
        runtime.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dispatcher_that_has_ended_ends_the_node() {
        let dir = tempfile::TempDir::new().unwrap();
        let (runtime, node) = start(&dir).await;
        assert!(node.actors().unwrap().dispatcher.send(Die).await.is_err());
        until(|| node.fatal.get().is_some()).await;
        assert!(node.stop.is_cancelled() && node.fatal.get().unwrap().contains("dispatcher"));
        runtime.shutdown().await.unwrap();
    }
}
