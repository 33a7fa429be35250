//! A kind at run time: its lanes, its running cells, and its messages as JSON.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{
    cell::{Cell, restore::RestoreError},
    edited_state,
    held::Held,
    inbox::{Control, Inbox, Phase},
    kind_policy::KindPolicy,
    lost_tells,
    mailbox_alerts::MailboxAlerts,
    metrics::Turns,
    node::Node,
    running_cell::{Live, LiveInfo, mailbox},
    slow_messages::SlowMessages,
    trial::dry,
    views::{KindInfo, MailboxInfo, MessageInfo},
};
use crate::{
    Invalid,
    agent::{
        Agent, AskError, Door, Envelope, JsonRefusal, Persistence, Shape,
        host::{Directory, Host},
        lane::{Activator, Entrance, Lane},
        letter::{JsonAnswer, Meta},
        messages::EnvelopeOf,
        policy::OnFull,
        reference::not_taken,
        slot::ReplyTx,
        table::Table,
    },
    config::Settings,
    model::id::AgentId,
    store::SeenState,
};

/// A kind at run time.
pub(crate) struct Kind<A: Agent> {
    pub node: std::sync::Weak<Node>,
    pub policy: KindPolicy,
    pub door: Door<A>,
    pub directory: std::sync::OnceLock<Arc<Directory<A>>>,
    pub live: Table<Live<A>>,
    pub metrics: Turns,
    /// Read only where state is not kept: all others are read anyway.
    pub held: Held,
    /// How many cells run or are about to.
    pub running: AtomicUsize,
    /// More run than may, and it has been said.
    crowded: AtomicBool,
    /// They start only when the window is clear.
    pub slow: SlowMessages,
    pub(super) mailbox_alerts: MailboxAlerts,
}

impl<A: Agent> Kind<A> {
    pub(crate) fn new(node: std::sync::Weak<Node>, policy: KindPolicy) -> Arc<Self> {
        let kind = Arc::new(Self {
            node,
            door: Door::of(),
            directory: std::sync::OnceLock::new(),
            live: Table::default(),
            metrics: Turns::of(A::KIND),
            held: Held::new(),
            running: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
            slow: SlowMessages::default(),
            mailbox_alerts: MailboxAlerts::default(),
            policy,
        });
        let directory = Arc::new(Directory {
            kind: A::KIND.into(),
            mailbox: kind.policy.mailbox,
            rejects: matches!(A::policy().on_full, OnFull::Reject),
            lanes: Table::default(),
            closing: AtomicBool::new(false),
            activator: Arc::new(Starter(Arc::downgrade(&kind))),
        });
        let _ = kind.directory.set(directory);
        kind
    }

    /// A cell has left memory.
    pub(crate) fn gone(&self) {
        let left = self.running.fetch_sub(1, Ordering::AcqRel).saturating_sub(1);
        if self.policy.residency.is_eased(left) {
            self.crowded.store(false, Ordering::Release);
        }
    }

    fn lane(&self, key: &str) -> Result<Arc<Lane<A>>, AskError> {
        match self.directory.get() {
            Some(directory) => directory.lane(key),
            None => Err(AskError::Unavailable("the node is starting".to_owned())),
        }
    }
}

/// Starts cells. Held by the lanes, so it must not keep the kind alive.
struct Starter<A: Agent>(std::sync::Weak<Kind<A>>);

impl<A: Agent> Activator<A> for Starter<A> {
    fn host(&self) -> Option<Arc<dyn Host>> {
        Some(self.0.upgrade()?.node.upgrade()?.host())
    }

    fn activate(&self, lane: Arc<Lane<A>>) {
        let Some(kind) = self.0.upgrade() else { return };
        let Some(node) = kind.node.upgrade() else { return };
        let arbiter = node.arbiter(lane.name.id).cloned();
        let running = kind.running.fetch_add(1, Ordering::AcqRel) + 1;
        if kind.policy.residency.is_over(running) && !kind.crowded.swap(true, Ordering::AcqRel) {
            node.crowded(kind.clone());
        }
        let (there, at) = (lane.clone(), kind.clone());
        let started = arbiter.is_some_and(|a| {
            a.spawn_fn(move || {
                Cell::launch(node, at, there);
            })
        });
        if !started {
            kind.gone();
            turn_away(&lane, lane.orphaned(), &going_down());
        }
    }
}

/// Why a JSON message was not posted.
pub(crate) enum PostError {
    UnknownMessage,
    /// The mailbox is full: a task waits for room, everybody else is refused.
    Full,
    Ask(AskError<JsonRefusal>),
}

/// A kind, whatever its agent is.
pub(crate) trait AnyKind: Send + Sync {
    fn name(&self) -> &'static str;
    fn info(&self) -> KindInfo;
    fn policy(&self) -> &KindPolicy;
    /// Puts in force what may change while the node runs.
    fn reconfigure(&self, settings: &Settings);
    fn shape(&self, message: &str) -> Option<Arc<Shape>>;
    fn message_names(&self) -> Vec<String>;
    /// The running cells of such keys, in the order of their keys.
    fn members(&self, which: &dyn Fn(&str) -> bool) -> Vec<(Arc<str>, Arc<Inbox>)>;
    /// Forgets an agent's crashes.
    fn forgive(&self, key: &str);
    /// The running agent whose inbox lies there.
    fn lives_at(&self, place: usize) -> Option<String>;
    /// Decodes a message and puts it in the agent's lane.
    fn post(
        &self,
        key: &str,
        message: &str,
        body: &RawValue,
        tx: Option<ReplyTx<JsonAnswer>>,
        meta: Option<Box<Meta>>,
    ) -> Result<(), PostError>;
    fn live(&self, key: &str) -> Option<LiveInfo>;
    /// What waits in a lane whose cell does not run.
    fn mailbox(&self, key: &str) -> MailboxInfo;
    /// Whether its messages wait for an operator.
    fn is_paused(&self, key: &str) -> bool;
    /// The first running agents behind a key of which this holds, by their keys.
    fn page(
        &self,
        after: Option<&str>,
        limit: usize,
        is: &dyn Fn(&LiveInfo) -> bool,
    ) -> Vec<(Arc<str>, LiveInfo)>;
    /// How many agents run, by how they are.
    fn statuses(&self) -> BTreeMap<&'static str, u64>;
    /// Tells a running cell. `false`: none runs.
    fn control(&self, key: &str, control: Control) -> bool;
    fn set_entrance(&self, key: &str, entrance: Entrance);
    /// Answers what waits for an agent and is in no store; what its cell has taken already, when it leaves.
    fn clear(&self, key: &str);
    /// The lasting status of an agent is about to be written.
    fn note_status(&self, id: AgentId);
    /// Whether the agent takes messages and runs them.
    fn is_open(&self, key: &str) -> bool;
    /// The schema version of its states.
    fn version(&self) -> u32;
    /// Takes a state that a person proposes, as JSON: as the agent would write it.
    fn propose(&self, body: &[u8]) -> Result<Vec<u8>, Invalid>;
    /// Reads a state as a restore would, and drops it.
    fn try_state(&self, state: SeenState<'_>) -> Result<(), RestoreError>;
    /// Passivates what has been idle since before the tick, flushes what is relaxed, and lets go of lanes that
    /// nobody needs at `now`, the time since the node's start.
    fn sweep(&self, tick: u32, now: Duration);
    /// The agents whose mailboxes are nearly full, as the last sweep has seen, and since when.
    fn flooded(&self) -> Vec<(String, Timestamp)>;
    /// Has the longest idle leave where more are in memory than may.
    fn thin_out(&self);
    fn drain(&self);
    /// Has every running cell look up.
    fn wake(&self);
    /// Has the cells of these partitions leave memory: they are not ours any more, or are anew.
    fn leave(&self, partitions: &[i16]);
    fn running(&self) -> usize;
    /// The agents whose turns run or wait: a paused one's do neither.
    fn busy(&self) -> Vec<Arc<str>>;
    /// Messages that wait, in all lanes.
    fn backlog(&self) -> usize;
    /// The keys of the running agents.
    fn running_keys(&self) -> Vec<Arc<str>>;
    /// Tells each of these a copy of a message; none waits.
    fn tell_each(
        &self,
        keys: &mut dyn Iterator<Item = &Arc<str>>,
        message: &'static str,
        body: &(dyn Any + Send + Sync),
    );
}

impl<A: Agent> AnyKind for Kind<A> {
    fn name(&self) -> &'static str {
        A::KIND
    }

    fn info(&self) -> KindInfo {
        let messages = self.door.entries.iter().map(|e| MessageInfo {
            name: e.shape.name.to_owned(),
            read_only: e.shape.read_only,
            schema: e.shape.input.clone(),
            reply: e.shape.reply.clone(),
            refusal: e.shape.error.clone(),
        });
        let persistence = match self.policy.persistence {
            Persistence::EveryTurn => "every_turn",
            Persistence::Relaxed { .. } => "relaxed",
            Persistence::Volatile => "volatile",
        };
        KindInfo {
            kind: A::KIND.to_owned(),
            version: A::VERSION,
            persistence: persistence.to_owned(),
            paused: false,
            messages: messages.collect(),
        }
    }

    fn policy(&self) -> &KindPolicy {
        &self.policy
    }

    fn reconfigure(&self, settings: &Settings) {
        let next = KindPolicy::of(&A::policy(), settings, A::KIND);
        *self.policy.restart.write() = next.restart.into_inner();
    }

    fn shape(&self, message: &str) -> Option<Arc<Shape>> {
        self.door.find(message).map(|e| e.shape.clone())
    }

    fn message_names(&self) -> Vec<String> {
        self.door.entries.iter().map(|e| e.shape.name.to_owned()).collect()
    }

    fn post(
        &self,
        key: &str,
        message: &str,
        body: &RawValue,
        tx: Option<ReplyTx<JsonAnswer>>,
        meta: Option<Box<Meta>>,
    ) -> Result<(), PostError> {
        let entry = self.door.find(message).ok_or(PostError::UnknownMessage)?;
        let lane = self.lane(key).map_err(|e| PostError::Ask(e.widen()))?;
        let letter: EnvelopeOf<A> =
            (entry.decode)(body, tx, meta).map_err(|e| PostError::Ask(AskError::Invalid(e)))?;
        lane.push(letter).map_err(|(why, letter)| {
            drop(letter);
            match why {
                crate::agent::lane::NotTaken::Full => PostError::Full,
                other => PostError::Ask(not_taken(other).widen()),
            }
        })
    }

    fn live(&self, key: &str) -> Option<LiveInfo> {
        self.live.get(key).map(|live| live.info())
    }

    fn mailbox(&self, key: &str) -> MailboxInfo {
        let lane = self.directory.get().and_then(|d| d.lanes.get(key));
        let none = MailboxInfo { capacity: self.policy.mailbox, ..MailboxInfo::default() };
        lane.map_or(none, |lane| mailbox(&lane))
    }

    fn is_paused(&self, key: &str) -> bool {
        let lane = self.directory.get().and_then(|d| d.lanes.get(key));
        lane.is_some_and(|lane| lane.entrance() == Entrance::Paused)
    }

    fn page(
        &self,
        after: Option<&str>,
        limit: usize,
        is: &dyn Fn(&LiveInfo) -> bool,
    ) -> Vec<(Arc<str>, LiveInfo)> {
        let found = self.live.behind(after, limit, |live| is(&live.info())).into_iter();
        found.map(|live| (live.lane.name.key.clone(), live.info())).collect()
    }

    fn statuses(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        self.live.all().for_each(|live| *counts.entry(live.status()).or_default() += 1);
        counts
    }

    fn control(&self, key: &str, control: Control) -> bool {
        match self.live.get(key) {
            Some(live) => {
                // A full mailbox means that the cell's thread is held up: the letterbox is not.
                if live.addr.try_send(control).is_err() {
                    live.inbox.tell(control);
                }
                true
            }
            None => false,
        }
    }

    fn set_entrance(&self, key: &str, entrance: Entrance) {
        let Ok(lane) = self.lane(key) else { return };
        let why = match &entrance {
            Entrance::Shut(shut) => shut.why.to_string(),
            _ => format!("{} is paused", lane.name.subject()),
        };
        turn_away(&lane, lane.decide(entrance), &AskError::WrongState(why));
    }

    fn clear(&self, key: &str) {
        let Ok(lane) = self.lane(key) else { return };
        if let Some(live) = self.live.get(key) {
            live.inbox.clears.store(true, Ordering::Release);
        }
        turn_away(&lane, lane.clear(), &cleared(&lane.name.subject()));
    }

    fn note_status(&self, id: AgentId) {
        self.held.note(id);
    }

    fn is_open(&self, key: &str) -> bool {
        self.lane(key).is_ok_and(|lane| lane.entrance() == Entrance::Open)
    }

    fn version(&self) -> u32 {
        A::VERSION
    }

    fn try_state(&self, state: SeenState<'_>) -> Result<(), RestoreError> {
        dry::<A>(state)
    }

    fn propose(&self, body: &[u8]) -> Result<Vec<u8>, Invalid> {
        edited_state::accept::<A>(body)
    }

    fn thin_out(&self) {
        self.policy.residency.thin_out(self.running(), || self.live.all().map(|live| live.inbox));
    }

    fn sweep(&self, tick: u32, now: Duration) {
        if self.policy.residency.is_over(self.running()) {
            self.thin_out();
        }
        let idle = u32::try_from(self.policy.idle_timeout.as_secs()).unwrap_or(u32::MAX).max(1);
        let relaxed = matches!(self.policy.persistence, Persistence::Relaxed { .. });
        self.live.each(|live| {
            let age = tick.saturating_sub(live.inbox.active_at.load(Ordering::Relaxed));
            if age >= idle {
                let _ = live.addr.try_send(Control::Passivate);
            } else if relaxed {
                let _ = live.addr.try_send(Control::Flush);
            }
            self.gauge(live);
        });
        self.clear_mailbox_alerts();
        let within = self.policy.restart.read().within;
        if let Some(directory) = self.directory.get() {
            directory.prune(|budget| !budget.is_unused(within, now));
        }
    }

    fn flooded(&self) -> Vec<(String, Timestamp)> {
        let all = self.mailbox_alerts.all().into_iter();
        all.map(|(key, since)| (format!("{}/{key}", A::KIND), since)).collect()
    }

    fn members(&self, which: &dyn Fn(&str) -> bool) -> Vec<(Arc<str>, Arc<Inbox>)> {
        let those = self.live.all().filter(|live| which(&live.lane.name.key));
        let mut members: Vec<_> = those.map(|live| (live.lane.name.key.clone(), live.inbox)).collect();
        members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        members
    }

    fn forgive(&self, key: &str) {
        if let Ok(lane) = self.lane(key) {
            lane.forgive();
        }
    }

    fn lives_at(&self, place: usize) -> Option<String> {
        let mut all = self.live.all();
        all.find(|live| Arc::as_ptr(&live.inbox).addr() == place).map(|live| live.lane.name.subject())
    }

    fn drain(&self) {
        if let Some(directory) = self.directory.get() {
            directory.closing.store(true, Ordering::SeqCst);
            for lane in directory.lanes.all() {
                turn_away(&lane, lane.set_entrance(Entrance::Closing), &going_down());
            }
        }
        for live in self.live.all() {
            live.inbox.tell(Control::Drain);
        }
    }

    fn wake(&self) {
        self.live.each(|live| live.inbox.waker.wake());
    }

    fn leave(&self, partitions: &[i16]) {
        self.live.each(|live| {
            if partitions.contains(&live.lane.name.id.partition()) {
                live.inbox.tell(Control::Leave);
            }
        });
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    fn busy(&self) -> Vec<Arc<str>> {
        let is_busy = |live: &Live<A>| live.inbox.phase() != Phase::Idle || live.lane.depth() > 0;
        self.live.all().filter(is_busy).map(|live| live.lane.name.key.clone()).collect()
    }

    fn backlog(&self) -> usize {
        let mut waiting = 0;
        self.live.each(|live| waiting += live.lane.depth());
        waiting
    }

    fn running_keys(&self) -> Vec<Arc<str>> {
        self.live.all().map(|live| live.lane.name.key.clone()).collect()
    }

    fn tell_each(
        &self,
        keys: &mut dyn Iterator<Item = &Arc<str>>,
        message: &'static str,
        body: &(dyn Any + Send + Sync),
    ) {
        self.copy_to_each(keys, message, body);
    }
}

/// What those are told whose messages an operator has cleared.
pub(super) fn cleared(subject: &str) -> AskError {
    AskError::WrongState(format!("an operator has cleared the mailbox of {subject}: it did not run"))
}

fn going_down() -> AskError {
    AskError::Unavailable("the node is going down".to_owned())
}

/// Answers letters that no cell will see.
fn turn_away<A: Agent>(lane: &Lane<A>, letters: VecDeque<EnvelopeOf<A>>, error: &AskError) {
    lost_tells::count(lane, &letters, error);
    for mut letter in letters {
        letter.letter_mut().fail(error.clone());
        letter.letter_mut().release(0);
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::{
        agent::letter::{Letter, ReplyTo},
        config::{Sources, load},
        model::supervision::decide,
    };

    #[derive(Clone, Serialize, Deserialize, schemars::JsonSchema)]
    struct Tick {}
    crate::message!(Tick -> ());

    #[derive(Default, Serialize, Deserialize)]
    struct Clock;
    impl Agent for Clock {
        const KIND: &'static str = "clock";
        type Messages = Tick;
    }
    impl crate::agent::Handler<Tick> for Clock {
        async fn handle(&mut self, _: Tick, _: &crate::agent::Turn<Self>) -> anyhow::Result<()> {
            Ok(())
        }
    }

    /// A kind of a node that has ended: its cells never start.
    fn kind() -> Arc<Kind<Clock>> {
        let settings = load(&Sources::default()).unwrap();
        Kind::new(std::sync::Weak::new(), KindPolicy::of(&Clock::policy(), &settings, Clock::KIND))
    }

    fn keys(kind: &Kind<Clock>) -> Vec<String> {
        let mut keys: Vec<String> =
            kind.directory.get().unwrap().lanes.all().map(|lane| lane.name.key.to_string()).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn lanes_that_nobody_needs_are_let_go_and_what_operators_decided_or_crashes_count_in_stays() {
        let (kind, second) = (kind(), Duration::from_secs(1));
        for n in 0..1_000 {
            kind.lane(&format!("once {n}")).unwrap();
        }
        let held = kind.lane("held").unwrap();
        kind.set_entrance("paused", Entrance::Paused);
        kind.set_entrance("stopped", Entrance::shut("it is stopped"));
        assert!(kind.lane("told").unwrap().push(Letter::new(Tick {}, ReplyTo::Nobody, None)).is_ok());
        let (policy, crashed) = (*kind.policy.restart.read(), kind.lane("crashed").unwrap());
        crashed.judge(|budget| decide(&policy, budget, 1, second, 1.0));
        drop(crashed);
        assert_eq!(keys(&kind).len(), 1_005);
        kind.sweep(2, 2 * second);
        assert_eq!(keys(&kind), ["crashed", "held", "paused", "stopped", "told"]);
        assert!(kind.is_paused("paused") && !kind.is_open("stopped"));
        assert!(Arc::ptr_eq(&held, &kind.lane("held").unwrap()));
        kind.sweep(3, policy.within);
        assert!(keys(&kind).contains(&"crashed".to_owned()), "its crash counts still");
        drop(held);
        kind.set_entrance("paused", Entrance::Open);
        kind.sweep(4, second + policy.within);
        assert_eq!(keys(&kind), ["stopped", "told"]);
    }
}
