//! The tables, and what all calls share: the time, the counters, the undo.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    journal::Written,
    nodes::{Boot, Partition, Tenancy},
    table::{Table, Undo},
    task::Task,
};
use crate::{
    model::{
        access::StoredToken,
        act::Act,
        conversation::{Conversation, ConversationId, MessageId, StoredMessage},
        crash_group::CrashGroup,
        id::{AgentId, PARTITIONS, TaskId},
        schedule::Schedule,
        session::Session,
        task::NewBatch,
        topic::Subscriber,
    },
    store::{
        AgentRow, KeptSettings, KeyRow, StoreOptions,
        history::History,
        told::{self, WrittenEvent},
        values::{Id, Micros, micros, moment},
    },
};

/// An agent: its row without the state, and that.
#[derive(Clone)]
pub(super) struct Agent {
    pub(super) row: AgentRow,
    pub(super) state: Arc<Vec<u8>>,
}

/// An earlier state.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) epoch: i64,
    pub(super) at: Timestamp,
    pub(super) state: Arc<Vec<u8>>,
}

/// A batch, and what its tasks have come to.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) new: NewBatch,
    pub(super) open: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) created_at: Timestamp,
}

/// An idempotency key.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) row: KeyRow,
    pub(super) expires_at: Timestamp,
}

/// A conversation. One that is deleted waits for its messages to be forgotten.
#[derive(Clone)]
pub(super) struct Talk {
    pub(super) conversation: Conversation,
    pub(super) deleted: bool,
}

/// All that the store holds.
pub(super) struct State {
    /// The moment of the call.
    pub(super) now: Timestamp,
    /// In the order in which they first joined.
    pub(super) boots: Vec<Boot>,
    pub(super) tenancy: Tenancy,
    pub(super) partitions: Vec<Partition>,
    /// The last epoch that was drawn.
    pub(super) epoch: i64,
    pub(super) history: History,
    pub(super) agents: Table<AgentId, Agent>,
    pub(super) earlier: Table<(AgentId, i64), Snapshot>,
    /// Unfinished tasks.
    pub(super) hot: Table<TaskId, Task>,
    /// Ended ones.
    pub(super) archive: Table<TaskId, Task>,
    pub(super) events: Table<TaskId, Vec<WrittenEvent>>,
    pub(super) batches: Table<TaskId, Batch>,
    pub(super) keys: Table<(Uuid, String), Key>,
    pub(super) talks: Table<ConversationId, Talk>,
    pub(super) messages: Table<(ConversationId, i64), StoredMessage>,
    pub(super) places: Table<MessageId, (ConversationId, i64)>,
    pub(super) sessions: Table<String, Session>,
    pub(super) crashes: Table<Uuid, CrashGroup>,
    pub(super) subscriptions: Table<(Arc<str>, AgentId), Subscriber>,
    /// What tasks wrote.
    pub(super) written: Table<TaskId, Written>,
    pub(super) schedules: Table<String, Schedule>,
    pub(super) settings: KeptSettings,
    pub(super) tokens: Table<String, StoredToken>,
    pub(super) acts: Table<Uuid, Act>,
    /// Since when.
    pub(super) paused: Table<String, Timestamp>,
    /// Numbers once drawn are not drawn again, also where their unit was refused.
    seq: i64,
    revision: i64,
}

impl State {
    pub(super) fn new(options: &StoreOptions, tenancy: Tenancy) -> Self {
        Self {
            now: Timestamp::UNIX_EPOCH,
            boots: Vec::new(),
            tenancy,
            partitions: (0..PARTITIONS).map(|_| Partition::default()).collect(),
            epoch: 0,
            history: History::new(options.history_every, options.history),
            agents: Table::default(),
            earlier: Table::default(),
            hot: Table::default(),
            archive: Table::default(),
            events: Table::default(),
            batches: Table::default(),
            keys: Table::default(),
            talks: Table::default(),
            messages: Table::default(),
            places: Table::default(),
            sessions: Table::default(),
            crashes: Table::default(),
            subscriptions: Table::default(),
            written: Table::default(),
            schedules: Table::default(),
            settings: KeptSettings::default(),
            tokens: Table::default(),
            acts: Table::default(),
            paused: Table::default(),
            seq: 0,
            revision: 0,
        }
    }

    /// Begins a call.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.now = exact(now);
    }

    fn tables(&mut self) -> [&mut dyn Undo; 18] {
        [
            &mut self.agents,
            &mut self.earlier,
            &mut self.hot,
            &mut self.archive,
            &mut self.events,
            &mut self.batches,
            &mut self.keys,
            &mut self.talks,
            &mut self.messages,
            &mut self.places,
            &mut self.sessions,
            &mut self.crashes,
            &mut self.subscriptions,
            &mut self.written,
            &mut self.schedules,
            &mut self.tokens,
            &mut self.acts,
            &mut self.paused,
        ]
    }

    /// What has been done stays.
    pub(super) fn keep(&mut self) {
        self.tables().into_iter().for_each(Undo::keep);
    }

    /// What has been done since [`keep`](Self::keep) never was.
    pub(super) fn undo(&mut self) {
        self.tables().into_iter().for_each(Undo::undo);
    }

    /// The next place in the order of acceptance.
    pub(super) fn next_seq(&mut self) -> i64 {
        self.seq += 1;
        self.seq
    }

    /// The first revision of a session that is made anew: above that of any before it.
    pub(super) fn fresh_revision(&mut self) -> i64 {
        self.revision = micros(self.now).0.max(self.revision + 1);
        self.revision
    }

    /// The revision after this one.
    pub(super) fn next_revision(&mut self, known: i64) -> i64 {
        self.revision = self.revision.max(known + 1);
        known + 1
    }

    /// A line in a task's history.
    pub(super) fn event(
        &mut self,
        task: TaskId,
        event: &str,
        attempt: u32,
        node: Option<Uuid>,
        detail: Option<&str>,
    ) {
        self.event_at(task, micros(self.now), event, attempt, node, detail);
    }

    /// When an attempt began that ends now and is not the last one.
    pub(super) fn began(&mut self, task: TaskId, at: Option<Timestamp>, attempt: u32, node: Option<Uuid>) {
        if let Some(at) = at {
            self.event_at(task, micros(at), told::STARTED, attempt, node, None);
        }
    }

    /// A line in a task's history, of what happened at another moment.
    pub(super) fn event_at(
        &mut self,
        task: TaskId,
        at: Micros,
        event: &str,
        attempt: u32,
        node: Option<Uuid>,
        detail: Option<&str>,
    ) {
        let line: WrittenEvent =
            (at, event.to_owned(), i64::from(attempt), node.map(Id), detail.map(str::to_owned));
        match self.events.get_mut(&task) {
            Some(lines) => lines.push(line),
            None => self.events.insert(task, vec![line]),
        }
    }
}

/// A moment as exact as the other stores keep it.
pub(super) fn exact(at: Timestamp) -> Timestamp {
    moment(micros(at))
}
