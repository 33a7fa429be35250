//! The keeper of bonds: processes one agent after the other, notifying watchers and stopping children.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::value::to_raw_value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::queue::{Children, Due};
use crate::{
    agent::Terminated,
    model::{
        bond::{Bond, orphaned, orphaned_by},
        event::{Event, Level},
        id::{AgentId, Target},
        task::NewTask,
        topic::{Subscriber, SubscriptionWrite},
    },
    runtime::{agent_status::Standing, node::Node, persistence::Outcome},
    store::{AgentFilter, AgentRow, Refusal, StoreError, StoredStatus, Unit, Verdict},
};

/// So many watchers are told, and so many children looked at, at once.
const BATCH_SIZE: usize = 256;
/// At most so many children of one agent are stopped with it, and brought back.
const MAX_CHILDREN: usize = 100_000;
/// How many ended agents a sweep reads at once.
const PAGE: usize = 1_000;
/// At most so many characters of a reason are told.
const MAX_REASON: usize = 1_000;
/// How long what did not succeed waits until it is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// How often all is looked at where other nodes do not say what they change.
const UNTOLD: Duration = Duration::from_secs(10);

/// Looks after all bonds until `end`.
pub(crate) async fn keep(node: Arc<Node>, end: CancellationToken) {
    let mut keeper =
        Keeper { node, sweep: Some(Sweep::begin()), swept: false, next_sweep: Instant::now() + UNTOLD };
    loop {
        tokio::select! {
            () = keeper.step() => {}
            () = end.cancelled() => return,
        }
    }
}

struct Keeper {
    node: Arc<Node>,
    /// The sweep that is under way.
    sweep: Option<Sweep>,
    /// The last step was the sweep's.
    swept: bool,
    /// When all is looked at again where other nodes do not say what they change.
    next_sweep: Instant,
}

impl Keeper {
    /// Does what is next, or waits for it. What is due and what a sweep finds take turns, so that neither
    /// waits for the end of the other.
    async fn step(&mut self) {
        // One that is under way comes to its end before the next begins, or none would.
        if self.sweep.is_none() && self.wants_sweep() {
            (self.sweep, self.next_sweep) = (Some(Sweep::begin()), Instant::now() + UNTOLD);
        }
        let sweep = self.sweep.take_if(|_| !self.swept);
        self.swept = sweep.is_some();
        let next = if sweep.is_some() { None } else { self.node.bonds.queue.lock().pop() };
        let done = match (sweep, next) {
            (Some(sweep), _) => self.sweep_on(sweep).await,
            (None, Some((subject, due))) => self.look_after(subject, due).await,
            (None, None) if self.sweep.is_some() => return,
            (None, None) => return self.rest().await,
        };
        if let Err((subject, why)) = done {
            // Of a store that is down people hear otherwise.
            if !self.node.is_troubled(false) {
                let event = Event::new(Level::Warn, "agent.bonds_late", subject).field("reason", why);
                self.node.logger.emit(event.hint("it is tried again by itself"));
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    fn wants_sweep(&self) -> bool {
        let asked = self.node.bonds.sweep.swap(false, Ordering::AcqRel);
        asked || (self.is_untold() && Instant::now() >= self.next_sweep)
    }

    /// Whether other nodes may change something without a word.
    fn is_untold(&self) -> bool {
        self.node.store.shared().is_some() && !self.node.bonds.told.load(Ordering::Acquire)
    }

    /// Looks after the bonds of one agent. Where that fails, they come again after all that waits.
    async fn look_after(&self, subject: Arc<str>, mut due: Due) -> Result<(), (String, String)> {
        let (node, of) = (self.node.clone(), subject.clone());
        // In a task of its own: a call of the store is not dropped half way.
        let looked = self.node.runtime.spawn(async move {
            let looked = node.look_after_bonds(&of, &mut due).await;
            if looked.is_err() {
                node.bonds.queue.lock().put_back(&of, due);
            } else {
                for waits in due.waiting {
                    let _ = waits.send(());
                }
            }
            looked
        });
        let looked = looked.await.unwrap_or_else(|e| {
            self.node.bonds.look(&subject);
            Err(e.to_string())
        });
        looked.map_err(|why| (subject.to_string(), why))
    }

    /// Looks after the next ended agent of a sweep, or reads more of them.
    async fn sweep_on(&mut self, mut sweep: Sweep) -> Result<(), (String, String)> {
        if let Some(subject) = sweep.found.pop_front() {
            self.sweep = Some(sweep);
            return self.look_after(subject, Due { children: Children::All, ..Due::default() }).await;
        }
        let Some(filter) = sweep.filter() else { return Ok(()) };
        let node = self.node.clone();
        let read = self.node.runtime.spawn(async move { node.store.agents(&filter).await });
        match read.await.unwrap_or_else(|e| Err(StoreError::Unknown(e.to_string()))) {
            Ok(page) => {
                self.sweep = Some(sweep.with(&page));
                Ok(())
            }
            Err(e) => {
                self.sweep = Some(sweep);
                Err(("node".to_owned(), e.to_string()))
            }
        }
    }

    async fn rest(&self) {
        tokio::select! {
            () = self.node.bonds.work.notified() => {}
            () = tokio::time::sleep_until(self.next_sweep), if self.is_untold() => {}
        }
    }
}

/// All agents that have ended, a page at a time.
struct Sweep {
    /// Who was found and has not been looked at.
    found: VecDeque<Arc<str>>,
    /// Of which status the next page is, and behind whom; `None`: there is none.
    next: Option<(StoredStatus, Option<(String, String)>)>,
}

impl Sweep {
    fn begin() -> Self {
        Self { found: VecDeque::new(), next: Some((StoredStatus::Stopped, None)) }
    }

    fn filter(&self) -> Option<AgentFilter> {
        let (status, after) = self.next.clone()?;
        Some(AgentFilter { status: Some(status), after, limit: PAGE, ..AgentFilter::default() })
    }

    /// Takes the next page in: those who have ended, and the parents of those whom such an end has stopped,
    /// who may live again and want them back.
    fn with(self, page: &[AgentRow]) -> Self {
        let parents = page.iter().filter_map(|row| orphaned_by(row.reason.as_deref()?)).map(Arc::from);
        let ended = page.iter().map(|row| format!("{}/{}", row.kind, row.key).into());
        let next = match (page.last(), self.next) {
            (Some(last), Some((status, _))) if page.len() == PAGE => {
                Some((status, Some((last.kind.clone(), last.key.clone()))))
            }
            (_, Some((StoredStatus::Stopped, _))) => Some((StoredStatus::Quarantined, None)),
            _ => None,
        };
        let mut found: Vec<Arc<str>> = ended.chain(parents).collect();
        found.sort_unstable();
        found.dedup();
        Self { found: found.into(), next }
    }
}

impl Node {
    async fn look_after_bonds(&self, subject: &str, due: &mut Due) -> Result<(), String> {
        let Some((kind, key)) = subject.split_once('/') else { return Ok(()) };
        let id = AgentId::of(kind, key);
        if let Some(reason) = due.reason.clone() {
            // Once: by the next try somebody may watch its next life.
            if !due.told {
                self.tell_watchers(subject, id, &reason).await?;
                due.told = true;
            }
            self.stop_children(subject, id).await?;
            if due.children.is_empty() && due.returning.is_empty() {
                return Ok(());
            }
        } else if due.children.is_empty() && due.returning.is_empty() && self.epoch(id) == 0 {
            return Ok(()); // its watchers are its owner's affair
        }
        match self.end_of(id).await.map_err(text)? {
            Some(reason) => {
                self.tell_watchers(subject, id, &reason).await?;
                self.stop_children(subject, id).await
            }
            None => self.bring_back(subject, due).await,
        }
    }

    /// Why an agent has ended, if the store says that it has.
    async fn end_of(&self, id: AgentId) -> Result<Option<String>, StoreError> {
        let row = self.store.heads(&[id]).await?.pop().flatten().filter(|row| row.status.is_end());
        Ok(row.map(|row| row.reason.unwrap_or_default()))
    }

    /// Tells whoever watches an agent of this node's that it has ended, each with the commit that takes its
    /// watch away.
    async fn tell_watchers(&self, subject: &str, id: AgentId, reason: &str) -> Result<(), String> {
        let (topic, epoch) = (Bond::Watch.topic(subject), self.epoch(id));
        if epoch == 0 {
            return Ok(()); // its owner tells them
        }
        let end = Terminated { id: subject.to_owned(), reason: reason.chars().take(MAX_REASON).collect() };
        let end = to_raw_value(&end).map_err(text)?;
        loop {
            let watchers = self.store.first_subscribers(&topic, BATCH_SIZE).await.map_err(text)?;
            if watchers.is_empty() {
                return Ok(());
            }
            let tell = |who: &Subscriber| {
                let target = Target::agent(&*who.kind, &*who.key);
                // As with `Done`: it is to arrive.
                let attempts = self.settings.load().tasks.max_attempts.max(5);
                NewTask::new(target, &*who.message, end.clone(), attempts)
            };
            let unit = Unit {
                owner: Some((id.partition(), epoch)),
                accepted: watchers.iter().map(tell).collect(),
                ..bonds(&topic, &watchers, false)
            };
            self.tasks_accepted(&unit.accepted);
            match self.persistence.commit(id.0, unit).await {
                Outcome::Durable => {}
                Outcome::Refused(Refusal::Fenced) => return Ok(()), // whoever owns it now tells them
                other => return Err(format!("its watchers were not told: {other:?}")),
            }
        }
    }

    /// Stops the children of an agent that has ended, and lets them go: those that this node serves.
    async fn stop_children(&self, subject: &str, id: AgentId) -> Result<(), String> {
        let (topic, why) = (Bond::Child.topic(subject), orphaned(subject));
        let children = self.store.first_subscribers(&topic, MAX_CHILDREN).await.map_err(text)?;
        let all = children.len();
        let ours: Vec<_> = children.into_iter().filter(|child| self.epoch(child.agent) != 0).collect();
        if ours.len() < all && self.epoch(id) != 0 {
            self.topics.tell(topic.clone());
        }
        for children in ours.chunks(BATCH_SIZE) {
            for (child, row) in children.iter().zip(self.rows_of(children).await.map_err(text)?) {
                // One that this end has stopped may have been stopped half.
                let has_ended = |row: &AgentRow| row.status.is_end() && row.reason.as_deref() != Some(&*why);
                if row.as_ref().is_some_and(has_ended) {
                    continue;
                }
                let stopped = Standing::stopped(&child.kind, &child.key, &why);
                self.stand(&child.kind, &child.key, stopped, row.is_some()).await.map_err(text)?;
            }
            self.bind(&topic, children, false).await?;
        }
        Ok(())
    }

    /// Takes the children of an agent that lives back into service, where nothing but an end of its own has
    /// stopped them.
    async fn bring_back(&self, subject: &str, due: &mut Due) -> Result<(), String> {
        let (topic, why) = (Bond::Child.topic(subject), Some(orphaned(subject)));
        let mut children = match &due.children {
            Children::None => Vec::new(),
            Children::These(these) => these.clone(),
            Children::All => self.store.first_subscribers(&topic, MAX_CHILDREN).await.map_err(text)?,
        };
        children.retain(|child| self.epoch(child.agent) != 0);
        for children in children.chunks(BATCH_SIZE) {
            let rows = self.rows_of(children).await.map_err(text)?;
            let is_orphan = |row: &AgentRow| row.status == StoredStatus::Stopped && row.reason == why;
            let known = children.iter().zip(rows).filter(|(_, row)| row.as_ref().is_some_and(is_orphan));
            let orphans: Vec<Subscriber> = known.map(|(child, _)| child.clone()).collect();
            // Again: the end that stopped them may have taken a bond away that was made meanwhile.
            self.bind(&topic, &orphans, true).await?;
            due.returning.extend(orphans);
        }
        while let Some(child) = due.returning.last() {
            let row = self.rows_of(std::slice::from_ref(child)).await.map_err(text)?.pop().flatten();
            let is_ours = |row: &AgentRow| row.status == StoredStatus::Normal || row.reason == why;
            if row.as_ref().is_some_and(is_ours) {
                self.stand(&child.kind, &child.key, Standing::restarted(), true).await.map_err(text)?;
            }
            due.returning.pop();
        }
        Ok(())
    }

    /// Makes bonds to these children of this node's, or ends them: each under the epoch of its own.
    async fn bind(&self, topic: &Arc<str>, children: &[Subscriber], bound: bool) -> Result<(), String> {
        let units = children.iter().map(|child| {
            let owner = Some((child.agent.partition(), self.epoch(child.agent)));
            Unit { owner, ..bonds(topic, std::slice::from_ref(child), bound) }
        });
        if bound {
            // Past the writers: they would tell of a bond that was made, as if the parent had made it now. Where
            // it has ended again meanwhile, that would bring back whom this end stops.
            let units: Vec<Unit> = units.collect();
            let verdicts = self.store.commit(self.boot, &units).await.map_err(text)?;
            let refused = |v: &&Verdict| !matches!(v, Verdict::Durable | Verdict::Refused(Refusal::Fenced));
            return match verdicts.iter().find(refused) {
                Some(other) => Err(format!("its children's bonds were not written: {other:?}")),
                None => Ok(()),
            };
        }
        let commits =
            children.iter().zip(units).map(|(child, unit)| self.persistence.commit(child.agent.0, unit));
        for outcome in join_all(commits).await {
            match outcome {
                // whoever owns it now does this
                Outcome::Durable | Outcome::Refused(Refusal::Fenced) => {}
                other => return Err(format!("its children's bonds were not written: {other:?}")),
            }
        }
        Ok(())
    }

    async fn rows_of(&self, agents: &[Subscriber]) -> Result<Vec<Option<AgentRow>>, StoreError> {
        let ids: Vec<AgentId> = agents.iter().map(|agent| agent.agent).collect();
        self.store.heads(&ids).await
    }
}

/// What makes these bonds, or ends them.
fn bonds(topic: &Arc<str>, who: &[Subscriber], subscribed: bool) -> Unit {
    let bond =
        |who: &Subscriber| SubscriptionWrite { topic: topic.clone(), subscriber: who.clone(), subscribed };
    Unit { subscriptions: who.iter().map(bond).collect(), ..Unit::default() }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
