//! The kit that a scenario works with.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    points::Watch,
    probe::{Probe, TopicProbe},
};
use crate::{
    Agent, AgentRef, Handle, Message, Tool, ToolRef, Topic,
    agent::double::Double,
    clock,
    model::id::AgentId,
    runtime::{self, inbox::Control, node::Node, probe::StandIns, tool_cell::AnyTool},
    store::{MemoryStore, Store as _},
    tool::{Out, TypedPort},
};

/// How long it is waited before it is looked whether all is at rest.
const PAUSE: Duration = Duration::from_millis(10);
/// How long work may take to come to rest.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(600);

/// What a scenario works with: a node, its store and its clock.
pub struct Kit {
    node: Arc<Node>,
    handle: Handle,
    store: Arc<MemoryStore>,
    watch: Arc<Watch>,
    stand_ins: Arc<StandIns>,
}

impl Kit {
    pub(super) fn new(
        running: &runtime::Running,
        store: Arc<MemoryStore>,
        watch: Arc<Watch>,
        stand_ins: Arc<StandIns>,
    ) -> Self {
        Self { node: running.node.clone(), handle: running.handle.clone(), store, watch, stand_ins }
    }

    /// A reference to one agent.
    pub fn agent<A: Agent>(&self, key: &str) -> AgentRef<A> {
        self.handle.agent(key)
    }

    /// A reference to one tool.
    pub fn tool<T: Tool>(&self) -> ToolRef<T> {
        self.handle.tool()
    }

    /// The handle to the node: operators' views and actions, messages by name.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The kit's time, as turns see it.
    pub fn now(&self) -> Timestamp {
        clock::now()
    }

    /// Advances the clock, and waits until everything is idle again. Timers, retries and scheduled tasks on the
    /// way happen at their times.
    pub async fn advance(&self, d: Duration) {
        tokio::time::sleep(d).await;
        self.settle().await;
    }

    /// Waits until nothing runs and nothing is due: turns, tasks with their retries, restarts with their
    /// delays. What is scheduled for later, parked, or waits for a person is left alone. The clock advances by
    /// as much as that takes, and a few milliseconds more.
    ///
    /// Fails the scenario if that takes more than ten minutes of its time.
    pub async fn settle(&self) {
        let begun = Instant::now();
        loop {
            // The clock moves only when nothing else can.
            tokio::time::sleep(PAUSE).await;
            if !self.is_busy().await {
                return;
            }
            if begun.elapsed() > SETTLE_TIMEOUT {
                let busy: Vec<String> = self.busy().collect();
                let what = if busy.is_empty() { "tasks".to_owned() } else { busy.join(", ") };
                return self.watch.problem(format!("after ten minutes there is no rest: {what}"));
            }
        }
    }

    fn busy(&self) -> impl Iterator<Item = String> {
        self.node
            .kinds
            .iter()
            .flat_map(|kind| kind.busy().into_iter().map(|key| format!("{}/{key}", kind.name())))
    }

    async fn is_busy(&self) -> bool {
        self.node.persistence.waiting() > 0
            || self.node.bonds.is_busy()
            || self.busy().next().is_some()
            || self.node.held_tasks().await > 0
            || !self.store.is_at_rest(clock::now())
    }

    /// Crashes an agent between two turns, as a panic would, and lets supervision restart it; then waits until
    /// everything is idle. An agent that is not in memory is not crashed.
    pub async fn crash<A: Agent>(&self, key: &str) {
        self.settle().await;
        if let Some((_, kind)) = self.node.kind(A::KIND) {
            kind.control(key, Control::Crash);
        }
        self.settle().await;
    }

    /// An agent's state as the store has it.
    ///
    /// # Errors
    /// The agent has never committed, or its state cannot be restored.
    pub fn state<A: Agent>(&self, key: &str) -> Result<A> {
        let rows = self.store.load(&[AgentId::of(A::KIND, key)]).now_or_never().transpose()?;
        let row = rows.and_then(|mut rows| rows.pop().flatten());
        let never = || format!("{}/{key} has never committed", A::KIND);
        let row = row.with_context(never)?;
        runtime::decode::<A>(&row)?.with_context(never)
    }

    /// Puts a probe in the place of one agent, for the rest of the scenario: see [`Probe`]. One that runs leaves
    /// memory first. A second probe of an agent replaces the first.
    ///
    /// Fails the scenario if no such kind is registered.
    pub fn probe<A: Agent>(&self, key: &str) -> Probe<A> {
        let double = Arc::new(Double::new(format!("{}/{key}", A::KIND)));
        self.watch.stand_in(double.clone());
        match self.node.kind(A::KIND) {
            Some((_, kind)) => {
                kind.members(&|other| other == key).iter().for_each(|(_, cell)| cell.tell(Control::Leave));
            }
            None => self.watch.problem(format!("no kind `{}` is registered to stand in for", A::KIND)),
        }
        Probe::new(double)
    }

    /// Puts a probe among the subscribers of one topic, for as long as it lives: see [`TopicProbe`].
    ///
    /// Fails the scenario if the topic's name is invalid.
    pub fn topic_probe<M: Message>(&self, topic: &Topic<M>) -> TopicProbe<M> {
        let double = Arc::new(Double::new(format!("the topic {topic}")));
        match topic.stored() {
            Ok(name) => self.watch.look_at::<M>(name, double.clone()),
            Err(error) => self.watch.problem(format!("there is no topic `{topic}`: {error}")),
        }
        TopicProbe::new(double)
    }

    /// Replaces a tool that the program has registered with `stand_in`, for the rest of the scenario. The
    /// tool's limits and timeouts still apply; a panic is a crash of the tool.
    ///
    /// Fails the scenario if no such tool is registered.
    pub fn fake_tool<T: Tool>(&self, stand_in: impl Fn(T::Input) -> Result<Out<T>> + Send + Sync + 'static) {
        self.fake_tool_fn::<T::Input>(T::NAME, stand_in);
    }

    /// The same for a tool that was registered by its name ([`tool_fn`](crate::Builder::tool_fn)), with an
    /// input of this type.
    pub fn fake_tool_fn<M: Message>(
        &self,
        name: &'static str,
        stand_in: impl Fn(M) -> Result<M::Reply> + Send + Sync + 'static,
    ) {
        let takes_it = |tool: &Arc<dyn AnyTool>| tool.as_any().is::<TypedPort<M>>();
        if !self.node.tools.get(name).is_some_and(takes_it) {
            return self
                .watch
                .problem(format!("no tool `{name}` with this input is registered to stand in for"));
        }
        self.stand_ins.put::<M>(name, Arc::new(stand_in));
    }
}
