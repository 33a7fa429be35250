//! The keeper: looks at one agent after the other, tells and stops.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::value::to_raw_value;
use tokio_util::sync::CancellationToken;

use super::queue::{Children, Due};
use crate::{
    agent::Terminated,
    model::{
        bond::{Bond, orphaned},
        event::{Event, Level},
        id::{AgentId, Target},
        task::NewTask,
        topic::{Subscriber, SubscriptionWrite},
    },
    runtime::{node::Node, persistence::Outcome, standing::Standing},
    store::{AgentFilter, AgentRow, Refusal, StoreError, StoredStatus, Unit},
};

/// So many watchers are told, and so many children looked at, at once.
const AT_ONCE: usize = 256;
/// At most so many children of one agent are stopped with it, and brought back.
const MAX_CHILDREN: usize = 100_000;
/// How many ended agents a sweep reads at once.
const PAGE: usize = 1_000;
/// At most so many characters of a reason are told.
const MAX_REASON: usize = 1_000;
/// How long what did not succeed waits until it is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// How often all is looked at where other nodes do not say what they change.
const UNTOLD: Duration = Duration::from_secs(10);

/// Looks after all bonds until `end`.
pub(crate) async fn keep(node: Arc<Node>, end: CancellationToken) {
    let mut keeper = Keeper { node, sweep: Some(Sweep::BEGIN) };
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
}

impl Keeper {
    /// Does what is next, or waits for it.
    async fn step(&mut self) {
        if self.node.bonds.sweep.swap(false, Ordering::AcqRel) {
            self.sweep = Some(Sweep::BEGIN);
        }
        let next = self.node.bonds.queue.lock().pop();
        let done = match (next, self.sweep.take()) {
            (Some((subject, due)), sweep) => {
                self.sweep = sweep;
                self.look_after(subject, due).await
            }
            (None, Some(sweep)) => self.read_on(sweep).await,
            (None, None) => return self.rest().await,
        };
        if let Err((subject, why)) = done {
            // Of a store that is down people hear otherwise.
            if !self.node.is_troubled(false) {
                let event = Event::new(Level::Warn, "agent.bonds_late", subject).field("reason", why);
                self.node.logger.emit(event.hint("it is tried again by itself"));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Looks after the bonds of one agent. Where that fails, they come again after all that waits.
    async fn look_after(&self, subject: Arc<str>, due: Due) -> Result<(), (String, String)> {
        let (node, of) = (self.node.clone(), subject.clone());
        // In a task of its own: a call of the store is not dropped half way.
        let looked = self.node.runtime.spawn(async move {
            let looked = node.look_after_bonds(&of, &due).await;
            if looked.is_err() {
                node.bonds.queue.lock().put_back(&of, due);
            } else {
                for waits in due.waiting {
                    let _ = waits.send(());
                }
            }
            looked
        });
        looked.await.unwrap_or_else(|e| Err(e.to_string())).map_err(|why| (subject.to_string(), why))
    }

    /// Has the next ended agents of a sweep looked at.
    async fn read_on(&mut self, sweep: Sweep) -> Result<(), (String, String)> {
        let (node, filter) = (self.node.clone(), sweep.filter());
        let read = self.node.runtime.spawn(async move { node.store.agents(&filter).await });
        match read.await.unwrap_or_else(|e| Err(StoreError::Unknown(e.to_string()))) {
            Ok(page) => {
                page.iter().for_each(|row| self.node.bonds.look(&format!("{}/{}", row.kind, row.key)));
                self.sweep = sweep.after(&page);
                Ok(())
            }
            Err(e) => {
                self.sweep = Some(sweep);
                Err(("node".to_owned(), e.to_string()))
            }
        }
    }

    async fn rest(&mut self) {
        let bonds = &self.node.bonds;
        let untold = self.node.store.shared().is_some() && !bonds.told.load(Ordering::Acquire);
        tokio::select! {
            () = bonds.work.notified() => {}
            () = tokio::time::sleep(UNTOLD), if untold => self.sweep = Some(Sweep::BEGIN),
        }
    }
}

/// All agents that have ended, a page at a time: what comes next.
struct Sweep {
    status: StoredStatus,
    after: Option<(String, String)>,
}

impl Sweep {
    const BEGIN: Self = Self { status: StoredStatus::Stopped, after: None };

    fn filter(&self) -> AgentFilter {
        AgentFilter { kind: None, status: Some(self.status), after: self.after.clone(), limit: PAGE }
    }

    /// Where it goes on behind this page; `None`: that was the last.
    fn after(self, page: &[AgentRow]) -> Option<Self> {
        match page.last() {
            Some(last) if page.len() == PAGE => {
                Some(Self { after: Some((last.kind.clone(), last.key.clone())), ..self })
            }
            _ if self.status == StoredStatus::Stopped => {
                Some(Self { status: StoredStatus::Quarantined, after: None })
            }
            _ => None,
        }
    }
}

impl Node {
    async fn look_after_bonds(&self, subject: &str, due: &Due) -> Result<(), String> {
        let Some((kind, key)) = subject.split_once('/') else { return Ok(()) };
        let id = AgentId::of(kind, key);
        if let Some(reason) = &due.reason {
            self.look_after_end(subject, id, reason).await?;
            if due.children.is_empty() {
                return Ok(());
            }
        }
        match self.end_of(id).await.map_err(text)? {
            Some(reason) => self.look_after_end(subject, id, &reason).await,
            None => self.bring_back(subject, id, &due.children).await,
        }
    }

    async fn look_after_end(&self, subject: &str, id: AgentId, reason: &str) -> Result<(), String> {
        self.tell_watchers(subject, id, reason).await?;
        self.stop_children(subject, id).await
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
            let (watchers, _) = self.store.subscribers(&topic, AT_ONCE).await.map_err(text)?;
            if watchers.is_empty() {
                return Ok(());
            }
            let tell = |who: &Subscriber| {
                let target = Target::agent(&*who.kind, &*who.key);
                // As with `Done`: it is to arrive.
                let attempts = self.settings.tasks.max_attempts.max(5);
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
        let (children, _) = self.store.subscribers(&topic, MAX_CHILDREN).await.map_err(text)?;
        let all = children.len();
        let ours: Vec<_> = children.into_iter().filter(|child| self.epoch(child.agent) != 0).collect();
        if ours.len() < all && self.epoch(id) != 0 {
            self.topics.tell(topic.clone());
        }
        for children in ours.chunks(AT_ONCE) {
            for (child, row) in children.iter().zip(self.rows_of(children).await.map_err(text)?) {
                if row.as_ref().is_some_and(|row| row.status.is_end()) {
                    continue;
                }
                let stopped = Standing::stopped(&child.kind, &child.key, &why);
                self.stand(&child.kind, &child.key, stopped, row.is_some()).await.map_err(text)?;
            }
            match self.persistence.commit(id.0, bonds(&topic, children, false)).await {
                Outcome::Durable => {}
                other => return Err(format!("its children were not let go: {other:?}")),
            }
        }
        Ok(())
    }

    /// Takes the children of an agent that lives back into service, where nothing but an end of its own has
    /// stopped them.
    async fn bring_back(&self, subject: &str, id: AgentId, children: &Children) -> Result<(), String> {
        let mut children = match children {
            Children::None => return Ok(()),
            Children::These(these) => these.clone(),
            Children::All => {
                self.store.subscribers(&Bond::Child.topic(subject), MAX_CHILDREN).await.map_err(text)?.0
            }
        };
        children.retain(|child| self.epoch(child.agent) != 0);
        let (topic, why) = (Bond::Child.topic(subject), Some(orphaned(subject)));
        for children in children.chunks(AT_ONCE) {
            let rows = self.rows_of(children).await.map_err(text)?;
            let is_orphan = |row: &AgentRow| row.status == StoredStatus::Stopped && row.reason == why;
            let known = children.iter().zip(rows).filter(|(_, row)| row.as_ref().is_some_and(is_orphan));
            let orphans: Vec<Subscriber> = known.map(|(child, _)| child.clone()).collect();
            if orphans.is_empty() {
                continue;
            }
            // Again: the end that stopped them may have taken a bond away that was made meanwhile.
            match self.persistence.commit(id.0, bonds(&topic, &orphans, true)).await {
                Outcome::Durable => {}
                other => return Err(format!("its children were not brought back: {other:?}")),
            }
            for child in &orphans {
                self.stand(&child.kind, &child.key, Standing::restarted(), true).await.map_err(text)?;
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
