//! The lease keeper: renews what the node owns, takes what is free, and informs the rest of the node.
//!
//! What it finds stands in a table that everybody reads without a lock: the epoch of each partition,
//! and whether the lease is in doubt. [`model::lease`](crate::model::lease) decides about time, the
//! store about ownership. It is a plain task on the multi-thread runtime: no agent can hold it up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::RwLock;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{dispatcher::SUSPECTS, node::Node, since::Since};
use crate::{
    clock,
    model::{
        event::{self, Event, Level},
        id::AgentId,
        lease::Tenure,
    },
    store::{Member, NodeRow, Ownership, StoreError},
};

/// How long a fenced agent waits for the truth about its partition.
const TRUTH: Duration = Duration::from_secs(5);

/// What the node owns, as all its parts see it.
pub(crate) struct Owned {
    epochs: Vec<AtomicI64>,
    doubt: AtomicBool,
    /// From when on it is in doubt unless it is renewed, in milliseconds of the node's life.
    doubt_at: AtomicU64,
    doubted: Since,
    /// The nodes that the store knew at the last renewal.
    nodes: RwLock<Arc<Vec<NodeRow>>>,
    hurry: Notify,
    /// How often the store has told.
    told: watch::Sender<u64>,
}

/// What has changed hands.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    gained: Vec<i16>,
    /// Gone, or ours under another epoch: somebody else may have had them.
    lost: Vec<i16>,
}

impl Owned {
    pub(crate) fn new(epochs: &[i64]) -> Self {
        Self {
            epochs: epochs.iter().copied().map(AtomicI64::new).collect(),
            doubt: AtomicBool::new(false),
            doubt_at: AtomicU64::new(u64::MAX),
            doubted: Since::default(),
            nodes: RwLock::default(),
            hurry: Notify::new(),
            told: watch::Sender::new(0),
        }
    }

    /// The epoch under which the node owns a partition; 0 where it does not.
    pub(crate) fn epoch(&self, partition: i16) -> i64 {
        let slot = usize::try_from(partition).ok().and_then(|p| self.epochs.get(p));
        slot.map_or(0, |epoch| epoch.load(Ordering::Acquire))
    }

    /// Whether the lease is in doubt: no turn is started, nothing is claimed.
    #[inline]
    pub(crate) fn in_doubt(&self) -> bool {
        self.doubt.load(Ordering::Acquire)
    }

    /// The same by the clock: true too where the process stood still and its keeper has not woken yet.
    pub(crate) fn is_past(&self, now: Duration) -> bool {
        self.in_doubt() || super::millis(now) >= self.doubt_at.load(Ordering::Acquire)
    }

    /// Since when it has been so.
    pub(crate) fn doubted(&self, now: Duration) -> Option<Timestamp> {
        self.doubted.since().or_else(|| self.is_past(now).then(|| self.begun(now)))
    }

    /// When a doubt began that is noticed now: where the clock alone says so, earlier than now.
    fn begun(&self, now: Duration) -> Timestamp {
        let ago = super::millis(now).saturating_sub(self.doubt_at.load(Ordering::Acquire));
        clock::now().saturating_sub(Duration::from_millis(ago)).unwrap_or_else(|_| clock::now())
    }

    /// The nodes that the store knew at the last renewal.
    pub(crate) fn nodes(&self) -> Arc<Vec<NodeRow>> {
        self.nodes.read().clone()
    }

    /// Who owns an agent, if another node does.
    pub(crate) fn owner(&self, id: AgentId, me: Uuid) -> Option<NodeRow> {
        let partition = id.partition();
        self.nodes.read().iter().find(|n| n.boot != me && n.partitions.contains(&partition)).cloned()
    }

    /// Asks the store again, and waits for what it says; not for ever.
    pub(crate) async fn ask_again(&self) {
        let mut told = self.told.subscribe();
        self.hurry.notify_one();
        let _ = tokio::time::timeout(TRUTH, told.changed()).await;
    }

    /// Takes in what the store says.
    fn take(&self, ownership: &Ownership) -> Changes {
        let mut changes = Changes::default();
        for (partition, slot) in (0i16..).zip(&self.epochs) {
            let now = usize::try_from(partition).ok().and_then(|p| ownership.epochs.get(p)).copied();
            let now = now.unwrap_or(0);
            let before = slot.swap(now, Ordering::AcqRel);
            if now != before && before != 0 {
                changes.lost.push(partition);
            }
            if now != before && now != 0 {
                changes.gained.push(partition);
            }
        }
        changes
    }

    fn how_many(&self) -> usize {
        self.epochs.iter().filter(|epoch| epoch.load(Ordering::Relaxed) != 0).count()
    }
}

type Answer = Result<Option<Ownership>, StoreError>;

struct Keeper {
    node: Arc<Node>,
    member: Member,
    tenure: Tenure,
    asked: Option<(Duration, JoinHandle<Answer>)>,
}

/// Keeps the lease until `end`. `asked`: how long after the node's start it was asked for.
pub(crate) async fn keep(node: Arc<Node>, member: Member, asked: Duration, end: CancellationToken) {
    let tenure = Tenure::begun(member.lease, asked);
    let mut keeper = Keeper { node, member, tenure, asked: None };
    keeper.look_around().await;
    loop {
        keeper.doubt();
        tokio::select! {
            () = keeper.step() => {}
            () = end.cancelled() => return,
        }
    }
}

impl Keeper {
    fn now(&self) -> Duration {
        self.node.uptime()
    }

    /// Says whether the lease is in doubt.
    fn doubt(&self) {
        let owned = &self.node.owned;
        let (now, mut doubt_at) = (self.now(), 0);
        let doubt = self.tenure.in_doubt(now);
        let stood_still = owned.is_past(now) && !owned.in_doubt();
        owned.doubted.set(doubt, owned.begun(now));
        if !doubt {
            doubt_at = self.tenure.turns_at(now).map_or(0, super::millis);
        }
        owned.doubt_at.store(doubt_at, Ordering::Release);
        if owned.doubt.swap(doubt, Ordering::AcqRel) == doubt {
            if stood_still {
                // Who looked at the clock meanwhile waits to be told that all is well.
                self.node.wake_all();
            }
            return;
        }
        if doubt {
            let event = Event::new(Level::Warn, event::NODE_SUSPENDED, self.subject())
                .field("lease_ms", super::millis(self.member.lease));
            let hint = "no turn is started until the store has renewed the lease";
            self.node.logger.emit(event.hint(hint));
        } else {
            let event = Event::new(Level::Info, event::NODE_RESUMED, self.subject());
            self.node.logger.emit(event.field("partitions", owned.how_many()));
            self.node.wake_dispatcher(true);
        }
        self.node.wake_all();
    }

    fn subject(&self) -> String {
        format!("node:{}", self.member.name)
    }

    /// Waits for whatever comes first, and does it.
    async fn step(&mut self) {
        let now = self.now();
        let turn = self.tenure.turns_at(now).unwrap_or(Duration::MAX);
        if let Some((asked, call)) = &mut self.asked {
            let asked = *asked;
            let answer = tokio::time::timeout(turn.saturating_sub(now), call).await;
            // An answer that does not come in time is waited for: asking twice would help nobody.
            let Ok(answer) = answer else { return };
            self.asked = None;
            let answer = answer.unwrap_or_else(|e| Err(StoreError::Unknown(e.to_string())));
            return self.answered(asked, answer).await;
        }
        let due = self.tenure.due();
        let wait = due.min(turn).saturating_sub(now);
        tokio::select! {
            () = tokio::time::sleep(wait) => {
                if self.now() < due {
                    return; // the standing has changed
                }
            }
            () = self.node.owned.hurry.notified() => {}
        }
        self.ask();
    }

    /// Asks the store; the call goes on when nobody waits for it any more.
    fn ask(&mut self) {
        let (store, member, join) = (self.node.store.clone(), self.member.clone(), self.tenure.joins());
        let call = tokio::spawn(async move {
            if join { store.join(&member).await.map(Some) } else { store.renew(&member).await }
        });
        self.asked = Some((self.now(), call));
    }

    async fn answered(&mut self, asked: Duration, answer: Answer) {
        match answer {
            Ok(Some(ownership)) => {
                let joined = self.tenure.joins();
                self.tenure.granted(asked);
                self.take(&ownership).await;
                if joined {
                    let event = Event::new(Level::Info, event::NODE_JOINED, self.subject());
                    self.node.logger.emit(event.field("partitions", self.node.owned.how_many()));
                }
                self.look_around().await;
                self.node.owned.told.send_modify(|n| *n += 1);
            }
            Ok(None) => {
                // What it owned is not given up yet: where nobody came between, it goes on as it was.
                self.tenure.ended();
                let event = Event::new(Level::Warn, event::NODE_FENCED, self.subject())
                    .field("reason", "its lease had ended")
                    .field("lease_ms", super::millis(self.member.lease));
                self.node.logger.emit(event.hint("it joins anew by itself; what was acknowledged is safe"));
                self.doubt();
                self.ask();
            }
            Err(StoreError::Refused(why)) if self.tenure.joins() => {
                // A later boot of this very instance owns what this one owned.
                let _ = self.node.fatal.set(format!("the node may not join again: {why}"));
                self.node.stop.cancel();
                self.tenure.failed(self.now());
            }
            Err(error) => {
                self.tenure.failed(self.now());
                self.node.outage.failed(&error);
            }
        }
    }

    /// What the store says, if it says it soon: a store that hangs must not keep the lease from being
    /// doubted. The call itself goes on.
    async fn soon<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Option<T> {
        tokio::time::timeout(self.member.lease / 6, tokio::spawn(call)).await.ok()?.ok()?.ok()
    }

    /// Takes in what the store says of the partitions.
    async fn take(&self, ownership: &Ownership) {
        let (node, joins) = (&self.node, !self.tenure.in_doubt(self.now()));
        let changes = node.owned.take(ownership);
        if !changes.lost.is_empty() {
            let event = Event::new(Level::Warn, event::NODE_FENCED, self.subject())
                .field("reason", "another node has taken partitions over")
                .field("partitions", changes.lost.clone());
            let hint = "turns that were not durable are undone there; their callers are told so";
            node.logger.emit(event.hint(hint));
            node.kinds.iter().for_each(|kind| kind.leave(&changes.lost));
        }
        if !changes.gained.is_empty() {
            node.topics.doubt();
            node.bonds.sweep(); // their last owner may have left something undone, …
            node.topics.tell_all(); // … and untold
            node.parked.notify_one(); // … and put aside
        }
        let (store, boot) = (node.store.clone(), node.boot);
        if ownership.rescued > 0
            && self
                .soon(async move { store.suspects(boot).await })
                .await
                .is_some_and(|suspects| !suspects.is_empty())
        {
            node.waking.fetch_or(SUSPECTS, Ordering::AcqRel);
        }
        if joins && (!changes.gained.is_empty() || ownership.rescued > 0 || !ownership.poison.is_empty()) {
            node.wake_dispatcher(true);
        }
    }

    /// Reads who else there is, and tells who came and went.
    async fn look_around(&self) {
        let store = self.node.store.clone();
        let Some(now) = self.soon(async move { store.nodes().await }).await else { return };
        let before = std::mem::replace(&mut *self.node.owned.nodes.write(), Arc::new(now.clone()));
        let others = |rows: &[NodeRow]| -> Vec<NodeRow> {
            rows.iter().filter(|n| n.boot != self.member.boot).cloned().collect()
        };
        let (before, now) = (others(&before), others(&now));
        let news = |from: &[NodeRow], to: &[NodeRow], name: &'static str| {
            for row in to.iter().filter(|n| from.iter().all(|old| old.boot != n.boot)) {
                let event = Event::new(Level::Info, name, format!("node:{}", row.name))
                    .field("id", row.boot.to_string())
                    .field_opt("url", row.url.clone())
                    .field("partitions", row.partitions.len());
                self.node.logger.emit(event);
            }
        };
        news(&before, &now, event::NODE_JOINED);
        news(&now, &before, event::NODE_LEFT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owning(epochs: &[i64]) -> Ownership {
        Ownership { epochs: epochs.to_vec(), ..Ownership::default() }
    }

    #[test]
    fn only_what_has_changed_hands_is_lost_or_gained() {
        let owned = Owned::new(&[5, 5, 0, 5]);
        let changes = owned.take(&owning(&[5, 0, 7, 8]));
        assert_eq!(changes, Changes { gained: vec![2, 3], lost: vec![1, 3] });
        assert_eq!([0, 1, 2, 3, 4].map(|p| owned.epoch(p)), [5, 0, 7, 8, 0]);
        assert_eq!(owned.take(&owning(&[5, 0, 7, 8])), Changes::default());
    }

    #[test]
    fn the_owner_of_an_agent_is_another_node_or_nobody() {
        let (owned, id, me) = (Owned::new(&[]), AgentId::of("tally", "a"), Uuid::from_u128(1));
        let row = |boot: u128| NodeRow {
            boot: Uuid::from_u128(boot),
            name: boot.to_string(),
            url: Some(format!("http://{boot}")),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            lease_until: None,
            drained_at: None,
            partitions: vec![id.partition()],
        };
        *owned.nodes.write() = Arc::new(vec![row(1)]);
        assert_eq!(owned.owner(id, me), None);
        *owned.nodes.write() = Arc::new(vec![row(1), row(2)]);
        assert_eq!(owned.owner(id, me).and_then(|n| n.url).as_deref(), Some("http://2"));
    }
}
