//! The operators' door: everything that HTTP and the command line may see and do, as plain data.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json, value::RawValue};
use uuid::Uuid;

use super::{
    dispatcher::{Cancel, RunningTasks},
    inbox::Control,
    kind::{AnyKind, PostError},
    node::Node,
    orchestrator::{Casualties, Command, Notice},
    persistence::{Health, Outcome},
    settle::finish,
    views::{
        Action, AgentInfo, KindInfo, NodeInfo, Page, Reason, SnapshotInfo, StateInfo, Status, TaskRequest,
        ToolInfo, TreeNode, Verdict,
    },
};
use crate::{
    agent::{
        AskError, JsonRefusal, JsonReply, Shape,
        host::Submission,
        lane::Entrance,
        letter::{Key, Meta},
        reference::{check_key_text, request_hash, unanswered},
        slot::slot,
    },
    model::{
        event::{self, Event, Level},
        id::{AgentId, Target, TaskId, check_key},
        snapshot,
        supervision::CrashReport,
        task::{NewTask, TaskEvent, TaskState, TaskView},
        units::parse_duration,
    },
    store::{
        AgentFilter, AgentRow, CancelFound, FinishOutcome, Guard, StoreError, StoredStatus, TaskFilter, Unit,
    },
    tool::{CallMeta, Effect},
};

/// Why the operators' door did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OperatorError {
    /// The body is no JSON, or a name or parameter cannot be understood (400 `malformed`).
    #[error("{0}")]
    Malformed(String),
    /// No such kind (404 `unknown_kind`).
    #[error("unknown kind `{kind}`{}", list(.known))]
    UnknownKind {
        /// What was asked for.
        kind: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The kind has no such message (404 `unknown_message`).
    #[error("`{kind}` takes no message `{message}`{}", list(.known))]
    UnknownMessage {
        /// The kind.
        kind: String,
        /// What was asked for.
        message: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Everything else.
    #[error(transparent)]
    Ask(#[from] AskError<JsonRefusal>),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(": there are {}", names.join(", ")) }
}

impl OperatorError {
    /// The contract's code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::UnknownKind { .. } => "unknown_kind",
            Self::UnknownMessage { .. } => "unknown_message",
            Self::Ask(e) => e.code(),
        }
    }
}

/// How an ask or a call is made.
#[derive(Debug, Clone, Default)]
pub struct SendOptions {
    /// Gives up after this time; the agent's `ask_timeout` when absent.
    pub timeout: Option<Duration>,
    /// Makes a repetition safe.
    pub idempotency_key: Option<String>,
}

/// Which agents to list.
#[derive(Debug, Clone, Default)]
pub struct AgentQuery {
    /// Only this kind.
    pub kind: Option<String>,
    /// Only this status, by its contract name.
    pub status: Option<String>,
    /// From the page before.
    pub cursor: Option<String>,
    /// 1 to 1,000; 100 when absent.
    pub limit: Option<usize>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default)]
pub struct TaskQuery {
    /// Only this state.
    pub state: Option<TaskState>,
    /// Only this target.
    pub target: Option<String>,
    /// From the page before.
    pub cursor: Option<String>,
    /// 1 to 1,000; 100 when absent.
    pub limit: Option<usize>,
}

/// The operators' door. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Operator {
    pub(crate) node: Arc<Node>,
}

type Result<T> = std::result::Result<T, OperatorError>;

/// How long an asker waits beyond its time for a turn that had begun.
const GRACE: Duration = Duration::from_millis(500);
/// How many children of a tree node are shown.
const MAX_CHILDREN: usize = 1_000;

impl From<StoreError> for OperatorError {
    fn from(e: StoreError) -> Self {
        Self::Ask(AskError::Unavailable(e.to_string()))
    }
}

fn wrong_state(why: impl Into<String>) -> OperatorError {
    AskError::WrongState(why.into()).into()
}

fn not_found(what: impl Into<String>) -> OperatorError {
    AskError::NotFound(what.into()).into()
}

fn invalid(pointer: &str, detail: impl Into<String>) -> OperatorError {
    AskError::Invalid(crate::Invalid::at(pointer, detail)).into()
}

/// Reads what a client sent: whole JSON, or nothing.
fn body(bytes: &[u8]) -> Result<(Value, Box<RawValue>)> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| OperatorError::Malformed("the body is not UTF-8".to_owned()))?
        .trim();
    let text = if text.is_empty() { "null" } else { text };
    let malformed = |e: serde_json::Error| OperatorError::Malformed(format!("the body is not JSON: {e}"));
    let value: Value = serde_json::from_str(text).map_err(malformed)?;
    let raw = RawValue::from_string(text.to_owned()).map_err(malformed)?;
    Ok((value, raw))
}

/// Checks a body against a message's schema; `null` stands for an object without fields.
fn check(shape: &Shape, value: &Value) -> Result<()> {
    let empty = json!({});
    let first = shape.check(if value.is_null() { &empty } else { value });
    let is_empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    match first {
        Err(_) if is_empty && shape.check(&Value::Null).is_ok() => Ok(()),
        other => other.map_err(|e| AskError::Invalid(e).into()),
    }
}

fn status_name(status: StoredStatus) -> &'static str {
    match status {
        StoredStatus::Normal => "passivated",
        StoredStatus::Paused => "paused",
        StoredStatus::Stopped => "stopped",
        StoredStatus::Quarantined => "quarantined",
    }
}

fn page_limit(limit: Option<usize>) -> Result<usize> {
    match limit.unwrap_or(100) {
        n @ 1..=1_000 => Ok(n),
        _ => Err(OperatorError::Malformed("`limit` is a number from 1 to 1000".to_owned())),
    }
}

impl Operator {
    fn kind_of(&self, kind: &str) -> Result<(usize, &Arc<dyn AnyKind>)> {
        self.node.kind(kind).ok_or_else(|| OperatorError::UnknownKind {
            kind: kind.to_owned(),
            known: self.node.kinds.iter().map(|k| k.name().to_owned()).collect(),
        })
    }

    fn key_of<'a>(&self, kind: &str, key: &'a str) -> Result<(usize, &Arc<dyn AnyKind>, &'a str)> {
        let (index, kind) = self.kind_of(kind)?;
        check_key(key).map_err(|e| OperatorError::Malformed(e.to_string()))?;
        Ok((index, kind, key))
    }

    /// How the node is.
    pub async fn status(&self) -> Status {
        let (node, now) = (&self.node, Timestamp::now());
        let mut reasons = Vec::new();
        let up = node.persistence.is_up() && node.store.ping().await.is_ok();
        if !up {
            reasons.push(Reason {
                code: "store_down".to_owned(),
                message: "the store does not take commits".to_owned(),
                since: now,
                remedy: "look at the disk and at `greenroom logs`; it is tried again by itself".to_owned(),
            });
        }
        let counts = node.store.counts().await.unwrap_or_default();
        let mut agents: BTreeMap<String, u64> = BTreeMap::new();
        for (status, n) in &counts.agents {
            *agents.entry(status_name(*status).to_owned()).or_default() += n;
        }
        let mut live = 0;
        for kind in &node.kinds {
            let (seen, running) = kind.list(10_000);
            live += running as u64;
            for (_, info) in seen {
                *agents.entry(info.status.to_owned()).or_default() += 1;
            }
        }
        // The store counts every agent that it knows; those that run are told apart.
        if let Some(n) = agents.get_mut("passivated") {
            *n = n.saturating_sub(live);
        }
        agents.retain(|_, n| *n > 0);
        let tasks: BTreeMap<String, u64> =
            counts.tasks.iter().filter(|(_, n)| *n > 0).map(|(s, n)| (s.name().to_owned(), *n)).collect();
        reasons.extend(self.casualties().await);
        if let Some(n) = tasks.get("outcome_unknown") {
            reasons.push(Reason {
                code: "outcome_unknown".to_owned(),
                message: format!("{n} tasks with an effect that happens once were interrupted"),
                since: now,
                remedy: "say what happened: greenroom tasks ls --state outcome_unknown".to_owned(),
            });
        }
        let verdict = match (up, reasons.is_empty()) {
            (false, _) => Verdict::Down,
            (true, false) => Verdict::Degraded,
            (true, true) => Verdict::Ok,
        };
        let stats = &node.persistence.stats;
        let load = |n: &std::sync::atomic::AtomicU64| n.load(std::sync::atomic::Ordering::Relaxed);
        Status {
            verdict,
            reasons,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node_info(),
            agents,
            tasks,
            store: json!({
                "kind": node.store.name(),
                "up": up,
                "commits": load(&stats.commits),
                "units": load(&stats.units),
                "state_bytes": load(&stats.bytes),
                "fenced": load(&stats.fenced),
                "waiting": node.persistence.waiting(),
            }),
            cache: json!({"kind": node.cache.name(), "up": true}),
            crashes: node.crashes.summary(now),
            at: now,
        }
    }

    async fn casualties(&self) -> Vec<Reason> {
        let Some(actors) = self.node.actors.get() else { return Vec::new() };
        let stopped = actors.orchestrator.send(Casualties).await.unwrap_or_default();
        let reason = |c: super::orchestrator::Casualty| Reason {
            code: "agent_stopped".to_owned(),
            message: format!("{} is stopped: {}", c.subject, c.reason),
            since: c.since,
            remedy: format!("greenroom agents restart {}", c.subject),
        };
        stopped.into_iter().rev().take(10).map(reason).collect()
    }

    fn node_info(&self) -> NodeInfo {
        NodeInfo {
            id: self.node.boot.to_string(),
            name: self.node.settings.node.name.clone(),
            pid: std::process::id(),
            started_at: self.node.started_at,
            uptime_ms: super::millis(self.node.uptime()),
            rss_bytes: rss_bytes(),
        }
    }

    /// Whether it may be sent work; else why not.
    ///
    /// # Errors
    /// The reasons.
    pub async fn ready(&self) -> std::result::Result<(), Vec<Reason>> {
        let reason = |code: &str, message: &str, remedy: &str| Reason {
            code: code.to_owned(),
            message: message.to_owned(),
            since: Timestamp::now(),
            remedy: remedy.to_owned(),
        };
        if self.node.is_closing() {
            return Err(vec![reason("stopping", "the node is going down", "wait for the next one")]);
        }
        if !self.node.persistence.is_up() || self.node.store.ping().await.is_err() {
            return Err(vec![reason(
                "store_down",
                "the store does not answer",
                "look at the disk and the log",
            )]);
        }
        Ok(())
    }

    /// Sets the gauges that are only worth setting when somebody looks.
    pub async fn refresh_metrics(&self) {
        let node = &self.node;
        let (mut agents, mut backlog) = (BTreeMap::new(), Vec::new());
        for kind in &node.kinds {
            for status in ["starting", "active", "idle", "restarting", "stopping", "paused"] {
                agents.insert((kind.name().to_owned(), status.to_owned()), 0u64);
            }
            for (_, info) in kind.list(100_000).0 {
                *agents.entry((kind.name().to_owned(), info.status.to_owned())).or_default() += 1;
            }
            backlog.push((kind.name().to_owned(), kind.backlog() as u64));
        }
        let agents: Vec<_> = agents.into_iter().map(|((kind, status), n)| (kind, status, n)).collect();
        let counts = node.store.counts().await.unwrap_or_default();
        let tasks: Vec<_> = counts.tasks.iter().map(|(s, n)| (s.name(), *n)).collect();
        node.metrics.gauges(&agents, &backlog, &tasks, node.persistence.is_up());
    }

    /// The supervision tree.
    pub async fn tree(&self) -> TreeNode {
        let node = &self.node;
        let leaf = |role: &str, name: &str, status: &str, depth: u64| TreeNode {
            role: role.to_owned(),
            name: name.to_owned(),
            status: status.to_owned(),
            restarts: 0,
            depth,
            current: None,
            children: Vec::new(),
            more: 0,
        };
        let (mut up, mut waiting, mut tasks) = (node.persistence.is_up(), 0, Vec::new());
        if let Some(actors) = node.actors.get() {
            (up, waiting) = actors.persistence.send(Health).await.unwrap_or((false, 0));
            tasks = actors.dispatcher.send(RunningTasks).await.unwrap_or_default();
        }
        let mut dispatcher = leaf("dispatcher", "dispatcher", "active", 0);
        dispatcher.children = tasks
            .into_iter()
            .map(|(id, target, attempt)| {
                let mut task = leaf("task", &id.to_string(), "running", 0);
                task.current = Some(format!("{target}, attempt {attempt}"));
                task
            })
            .collect();
        let mut root = leaf("orchestrator", &node.settings.node.name, "active", 0);
        root.children = vec![
            leaf("persistence", "persistence", if up { "active" } else { "down" }, waiting as u64),
            leaf("cache", "cache", "active", 0),
            dispatcher,
        ];
        for tool in node.tools.values() {
            let info = tool.info();
            let mut child =
                leaf("tool", &info.name, if info.running > 0 { "active" } else { "idle" }, info.waiting);
            child.restarts = info.crashed;
            root.children.push(child);
        }
        for kind in &node.kinds {
            let (seen, running) = kind.list(MAX_CHILDREN);
            let mut group = leaf("kind", kind.name(), "active", 0);
            group.more = running.saturating_sub(seen.len()) as u64;
            group.children = seen
                .into_iter()
                .map(|(key, info)| {
                    let name = format!("{}/{key}", kind.name());
                    let mut agent = leaf("agent", &name, info.status, info.mailbox.depth as u64);
                    (agent.restarts, agent.current) = (info.restarts, info.current);
                    agent
                })
                .collect();
            group.children.sort_by(|a, b| a.name.cmp(&b.name));
            group.depth = group.children.iter().map(|c| c.depth).sum();
            root.children.push(group);
        }
        root
    }

    /// The kinds, with their messages' schemas.
    pub fn kinds(&self) -> Vec<KindInfo> {
        self.node.kinds.iter().map(|k| k.info()).collect()
    }

    /// One kind.
    ///
    /// # Errors
    /// [`OperatorError::UnknownKind`].
    pub fn kind(&self, kind: &str) -> Result<KindInfo> {
        Ok(self.kind_of(kind)?.1.info())
    }

    /// One page of agents: those that the store knows.
    ///
    /// # Errors
    /// An unknown kind or status, a cursor that is none.
    pub async fn agents(&self, query: &AgentQuery) -> Result<Page<AgentInfo>> {
        if let Some(kind) = &query.kind {
            self.kind_of(kind)?;
        }
        let limit = page_limit(query.limit)?;
        let after = match &query.cursor {
            None => None,
            Some(cursor) => Some(
                cursor
                    .split_once('/')
                    .map(|(kind, key)| (kind.to_owned(), key.to_owned()))
                    .ok_or_else(|| OperatorError::Malformed("`cursor` is not one of ours".to_owned()))?,
            ),
        };
        let status = match query.status.as_deref() {
            None | Some("starting" | "active" | "idle" | "restarting" | "stopping" | "passivated") => None,
            Some("paused") => Some(StoredStatus::Paused),
            Some("stopped") => Some(StoredStatus::Stopped),
            Some("quarantined") => Some(StoredStatus::Quarantined),
            Some(other) => {
                return Err(OperatorError::Malformed(format!("`{other}` is not a status of agents")));
            }
        };
        let filter = AgentFilter { kind: query.kind.clone(), status, after, limit };
        let rows = self.node.store.agents(&filter).await?;
        let next_cursor = match rows.last() {
            Some(last) if rows.len() == limit => Some(format!("{}/{}", last.kind, last.key)),
            _ => None,
        };
        let items = rows.iter().map(|row| self.describe(&row.kind, &row.key, Some(row)));
        let items = items.filter(|i| query.status.as_ref().is_none_or(|s| *s == i.status)).collect();
        Ok(Page { items, next_cursor })
    }

    fn describe(&self, kind: &str, key: &str, row: Option<&AgentRow>) -> AgentInfo {
        let found = self.node.kind(kind).map(|(_, k)| k);
        let live = found.and_then(|k| k.live(key));
        let stored = row.map_or(StoredStatus::Normal, |r| r.status);
        AgentInfo {
            kind: kind.to_owned(),
            key: key.to_owned(),
            status: match (&live, stored) {
                (Some(live), StoredStatus::Normal) => live.status.to_owned(),
                _ => status_name(stored).to_owned(),
            },
            reason: row.and_then(|r| r.reason.clone()),
            version: row.map_or(0, |r| r.version).max(live.as_ref().map_or(0, |l| l.version)),
            epoch: row.map_or_else(|| self.node.epoch(AgentId::of(kind, key)), |r| r.epoch),
            node: self.node.boot.to_string(),
            mailbox: match &live {
                Some(live) => live.mailbox,
                None => found.map(|k| k.mailbox(key)).unwrap_or_default(),
            },
            restarts: live.as_ref().map_or(0, |l| l.restarts),
            updated_at: row.map(|r| r.updated_at),
            created_at: row.map(|r| r.created_at),
            state_bytes: row
                .filter(|r| !r.bytes.is_empty())
                .map(|r| r.bytes.len().saturating_sub(snapshot::HEADER_BYTES) as u64),
        }
    }

    async fn row(&self, kind: &str, key: &str) -> Result<Option<AgentRow>> {
        Ok(self.node.store.load(&[AgentId::of(kind, key)]).await?.pop().flatten())
    }

    /// One agent.
    ///
    /// # Errors
    /// [`AskError::NotFound`] where it has never been spoken to.
    pub async fn agent(&self, kind: &str, key: &str) -> Result<AgentInfo> {
        let (_, found, key) = self.key_of(kind, key)?;
        let row = self.row(kind, key).await?;
        if row.is_none() && found.live(key).is_none() {
            return Err(not_found(format!("there is no agent {kind}/{key} yet: its first message makes it")));
        }
        Ok(self.describe(kind, key, row.as_ref()))
    }

    /// Its durable state, now or at a kept version.
    ///
    /// # Errors
    /// [`AskError::NotFound`] where there is none; [`AskError::WrongState`] where it cannot be read.
    pub async fn state(&self, kind: &str, key: &str, version: Option<i64>) -> Result<StateInfo> {
        self.key_of(kind, key)?;
        let row = self.row(kind, key).await?.filter(|r| r.version > 0);
        let frame = match (version, row) {
            (None, Some(row)) => row.bytes,
            (Some(v), Some(row)) if row.version == v => row.bytes,
            (Some(v), _) => {
                let kept = self.node.store.snapshots(AgentId::of(kind, key)).await?;
                kept.into_iter()
                    .find(|(version, ..)| *version == v)
                    .map(|(.., bytes)| bytes)
                    .ok_or_else(|| not_found(format!("version {v} of {kind}/{key} is not kept")))?
            }
            (None, None) => return Err(not_found(format!("{kind}/{key} has no state yet"))),
        };
        let (header, body) = snapshot::open(&frame).map_err(|e| wrong_state(e.to_string()))?;
        let state =
            serde_json::from_slice(body).map_err(|e| wrong_state(format!("the state is not JSON: {e}")))?;
        Ok(StateInfo { version: header.version, schema_version: header.schema_version, state })
    }

    /// Its kept snapshots, newest first.
    ///
    /// # Errors
    /// An unknown kind, a key that is none, a store that does not answer.
    pub async fn snapshots(&self, kind: &str, key: &str) -> Result<Vec<SnapshotInfo>> {
        self.key_of(kind, key)?;
        let kept = self.node.store.snapshots(AgentId::of(kind, key)).await?;
        let info = |(version, at, frame): (i64, Timestamp, Vec<u8>)| SnapshotInfo {
            version,
            at,
            bytes: frame.len().saturating_sub(snapshot::HEADER_BYTES) as u64,
        };
        Ok(kept.into_iter().map(info).collect())
    }

    /// Acts on an agent.
    ///
    /// # Errors
    /// [`AskError::WrongState`] where the action does not fit its status.
    pub async fn act(&self, kind: &str, key: &str, action: Action) -> Result<()> {
        let (index, found, key) = self.key_of(kind, key)?;
        let node = &self.node;
        let row = self.row(kind, key).await?;
        let status = row.as_ref().map_or(StoredStatus::Normal, |r| r.status);
        let subject = format!("{kind}/{key}");
        if row.is_none() && found.live(key).is_none() && action != Action::Pause && action != Action::Stop {
            return Err(not_found(format!("there is no agent {subject} yet: its first message makes it")));
        }
        let (next, entrance, control, why) = match (action, status) {
            (Action::Stop, _) => {
                let why = "stopped by an operator";
                let text = format!("{subject} is {why}; greenroom agents restart {subject}");
                (StoredStatus::Stopped, Entrance::Shut(text.into()), Control::Leave, Some(why))
            }
            (Action::Pause, StoredStatus::Normal | StoredStatus::Paused) => {
                (StoredStatus::Paused, Entrance::Paused, Control::Leave, Some("paused by an operator"))
            }
            (Action::Resume, StoredStatus::Paused | StoredStatus::Normal)
            | (Action::Restart, StoredStatus::Normal | StoredStatus::Stopped | StoredStatus::Paused) => {
                let control = if action == Action::Restart { Control::Leave } else { Control::None };
                (StoredStatus::Normal, Entrance::Open, control, None)
            }
            (Action::Quarantine, _) => {
                let text =
                    format!("{subject} is quarantined by an operator; greenroom agents release {subject}");
                let why = Some("quarantined by an operator");
                (StoredStatus::Quarantined, Entrance::Shut(text.into()), Control::Leave, why)
            }
            (Action::Release, StoredStatus::Quarantined) => {
                if let Some(row) = &row {
                    let readable = found.check_state(row);
                    readable.map_err(|e| wrong_state(format!("its state still cannot be read: {e}")))?;
                }
                (StoredStatus::Normal, Entrance::Open, Control::None, None)
            }
            (Action::Release, _) => return Err(wrong_state(format!("{subject} is not quarantined"))),
            (_, StoredStatus::Quarantined) => {
                return Err(wrong_state(format!(
                    "{subject} is quarantined: greenroom agents release {subject}"
                )));
            }
            (Action::Pause | Action::Resume, _) => {
                return Err(wrong_state(format!("{subject} is {}", status_name(status))));
            }
        };
        let id = AgentId::of(kind, key);
        if next != status || row.is_some() {
            node.store.set_status(id, kind, key, node.epoch(id), next, why).await?;
        }
        if let Some(actors) = node.actors.get() {
            let command = Command { kind: index, key: key.to_owned(), entrance: Some(entrance), control };
            let sent = actors.orchestrator.send(command).await;
            sent.map_err(|_| wrong_state("the node is going down"))?;
        }
        let runnable = matches!(next, StoredStatus::Normal);
        node.store.park(&subject, !runnable).await?;
        let (name, level) =
            if runnable { (event::AGENT_STARTED, Level::Info) } else { (event::AGENT_STOPPED, Level::Warn) };
        node.logger.emit(
            Event::new(level, name, subject.clone())
                .field("by", "operator")
                .field("action", format!("{action:?}")),
        );
        if runnable {
            node.notice(Notice::Healed { subject });
            node.wake_dispatcher(true);
        }
        Ok(())
    }

    /// Asks an agent. `body` is what the client sent: empty, `null` and `{}` are the same.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub async fn ask(
        &self,
        kind: &str,
        key: &str,
        message: &str,
        body: &[u8],
        options: SendOptions,
    ) -> Result<JsonReply> {
        let (_, found, key) = self.key_of(kind, key)?;
        let raw = self.message(found, message, body)?;
        let timeout = options.timeout.unwrap_or(found.policy().ask_timeout);
        let (tx, rx) = slot();
        let mut meta = Meta {
            id: Some(Uuid::now_v7()),
            deadline: Some(std::time::Instant::now() + timeout),
            bytes: raw.get().len(),
            ..Meta::default()
        };
        if let Some(text) = options.idempotency_key {
            check_key_text(&text).map_err(AskError::widen)?;
            meta.key = Some(Key { request: request_hash(message, raw.get()), text });
        }
        self.post(found, key, message, &raw, Some(tx), meta)?;
        let mut rx = std::pin::pin!(rx);
        let answer = match tokio::time::timeout(timeout, rx.as_mut()).await {
            Ok(answer) => answer,
            Err(_) if rx.withdraw() => Some(Err(AskError::TimedOut)),
            Err(_) => tokio::time::timeout(GRACE, rx.as_mut()).await.unwrap_or(Some(Err(AskError::Unknown))),
        };
        Ok(answer.unwrap_or_else(|| Err(unanswered().widen()))?)
    }

    /// Tells an agent.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub async fn tell(&self, kind: &str, key: &str, message: &str, body: &[u8]) -> Result<()> {
        let (_, found, key) = self.key_of(kind, key)?;
        let raw = self.message(found, message, body)?;
        let meta = Meta { id: Some(Uuid::now_v7()), bytes: raw.get().len(), ..Meta::default() };
        self.post(found, key, message, &raw, None, meta)
    }

    fn message(&self, kind: &Arc<dyn AnyKind>, message: &str, bytes: &[u8]) -> Result<Box<RawValue>> {
        let shape = kind.shape(message).ok_or_else(|| unknown_message(kind, message))?;
        let limit = self.node.settings.limits.message_bytes;
        if bytes.len() as u64 > limit {
            let why =
                format!("the message has {} bytes, more than limits.message_bytes ({limit})", bytes.len());
            return Err(AskError::TooLarge(why).into());
        }
        let (value, raw) = body(bytes)?;
        check(&shape, &value)?;
        Ok(raw)
    }

    fn post(
        &self,
        kind: &Arc<dyn AnyKind>,
        key: &str,
        message: &str,
        raw: &RawValue,
        tx: Option<crate::agent::slot::ReplyTx<crate::agent::letter::JsonAnswer>>,
        meta: Meta,
    ) -> Result<()> {
        kind.post(key, message, raw, tx, Some(Box::new(meta))).map_err(|e| match e {
            PostError::UnknownMessage => unknown_message(kind, message),
            PostError::Full => OperatorError::Ask(AskError::Overloaded {
                what: "the agent's mailbox is full".to_owned(),
                retry_after: Duration::from_secs(1),
            }),
            PostError::Ask(e) => OperatorError::Ask(e),
        })
    }

    fn new_task(&self, request: &TaskRequest) -> Result<NewTask> {
        let target: Target = request
            .target
            .parse()
            .map_err(|e: crate::model::id::NameError| invalid("/target", e.to_string()))?;
        let input = request.input.clone().unwrap_or(Value::Null);
        let name = match &target {
            Target::Agent { kind, .. } => {
                let (_, kind) = self.kind_of(kind)?;
                let message = request
                    .message
                    .as_deref()
                    .ok_or_else(|| invalid("/message", "a task for an agent needs a message"))?;
                let shape = kind.shape(message).ok_or_else(|| unknown_message(kind, message))?;
                check(&shape, &input)?;
                message
            }
            Target::Tool(name) => {
                if request.message.is_some() {
                    return Err(invalid("/message", "a task for a tool has none"));
                }
                let tool = self
                    .node
                    .tools
                    .get(name.as_str())
                    .ok_or_else(|| not_found(format!("no tool `{name}`")))?;
                check(tool.shape(), &input)?;
                ""
            }
        };
        let raw =
            serde_json::value::to_raw_value(&input).map_err(|e| OperatorError::Malformed(e.to_string()))?;
        let limit = self.node.settings.limits.message_bytes;
        if raw.get().len() as u64 > limit {
            return Err(
                AskError::TooLarge(format!("the input is over limits.message_bytes ({limit})")).into()
            );
        }
        let duration = |pointer: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => parse_duration(text).map(Some).map_err(|e| invalid(pointer, e.to_string())),
        };
        let attempts = request.max_attempts.unwrap_or(self.node.settings.tasks.max_attempts);
        if attempts == 0 {
            return Err(invalid("/max_attempts", "a task has at least 1 attempt"));
        }
        let mut task = NewTask::new(target, name, raw, attempts);
        task.priority = request.priority.unwrap_or(0);
        task.run_at = match (request.run_at, duration("/run_in", &request.run_in)?) {
            (Some(_), Some(_)) => return Err(invalid("/run_in", "give `run_at` or `run_in`, not both")),
            (at, None) => at,
            (None, Some(d)) => Some(super::settle::later(Timestamp::now(), d)),
        };
        task.timeout = duration("/timeout", &request.timeout)?;
        for (n, id) in request.after.iter().enumerate() {
            task.after
                .push(id.parse().map_err(|_| invalid(&format!("/after/{n}"), "this is not a task id"))?);
        }
        task.tags.clone_from(&request.tags);
        task.expires_at = request.expires_at;
        task.on_parent_failed = request.on_parent_failed.unwrap_or_default();
        task.idempotency_key.clone_from(&request.idempotency_key);
        Ok(task)
    }

    /// Submits a task. `true`: the idempotency key had been used, and this is the first one.
    ///
    /// # Errors
    /// See [`OperatorError`]; nothing was accepted.
    pub async fn submit(&self, request: TaskRequest) -> Result<(TaskView, bool)> {
        let task = self.new_task(&request)?;
        let key = match &request.idempotency_key {
            None => None,
            Some(text) => {
                check_key_text(text).map_err(AskError::widen)?;
                Some(Key { request: request_hash(&task.message, task.input.get()), text: text.clone() })
            }
        };
        let submission = Submission { tasks: vec![task], batches: Vec::new(), key };
        let submitted = self.node.clone().accept(submission).await.map_err(AskError::widen)?;
        Ok((self.task(submitted.first).await?, submitted.replayed))
    }

    /// Submits several tasks at once, all or none. Keys are not taken here.
    ///
    /// # Errors
    /// See [`OperatorError`]; nothing was accepted.
    pub async fn submit_batch(&self, requests: Vec<TaskRequest>) -> Result<Vec<TaskView>> {
        let mut tasks = Vec::with_capacity(requests.len());
        for (n, request) in requests.iter().enumerate() {
            if request.idempotency_key.is_some() {
                return Err(invalid(
                    &format!("/tasks/{n}/idempotency_key"),
                    "a batch takes no keys: submit it alone",
                ));
            }
            tasks.push(self.new_task(request)?);
        }
        let ids: Vec<_> = tasks.iter().map(|t| t.id).collect();
        let submission = Submission { tasks, batches: Vec::new(), key: None };
        self.node.clone().accept(submission).await.map_err(AskError::widen)?;
        let mut views = Vec::with_capacity(ids.len());
        for id in ids {
            views.push(self.task(id).await?);
        }
        Ok(views)
    }

    /// One page of tasks, newest first.
    ///
    /// # Errors
    /// A cursor or limit that is none.
    pub async fn tasks(&self, query: &TaskQuery) -> Result<Page<TaskView>> {
        let limit = page_limit(query.limit)?;
        let before = match &query.cursor {
            None => None,
            Some(cursor) => Some(
                cursor
                    .parse()
                    .map_err(|_| OperatorError::Malformed("`cursor` is not one of ours".to_owned()))?,
            ),
        };
        let filter = TaskFilter { state: query.state, target: query.target.clone(), before, limit };
        let items = self.node.store.tasks(&filter).await?;
        let next_cursor = items.last().filter(|_| items.len() == limit).map(|t| t.id.to_string());
        Ok(Page { items, next_cursor })
    }

    /// One task.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn task(&self, id: TaskId) -> Result<TaskView> {
        let mut view = self.node.store.task(id).await?.ok_or_else(|| not_found(format!("no task {id}")))?;
        if let Some((fraction, text)) = self.node.calls.pin().get(&id).and_then(crate::Call::latest_progress)
        {
            view.progress = Some(json!({"fraction": fraction, "text": text}));
        }
        Ok(view)
    }

    /// One task, when it has ended (or waits for a person), or the time is up, whichever is first.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn wait(&self, id: TaskId, at_most: Duration) -> Result<TaskView> {
        let until = tokio::time::Instant::now() + at_most;
        let mut moved = self.node.moved.subscribe();
        loop {
            let view = self.task(id).await?;
            if view.state.is_final()
                || view.state == TaskState::OutcomeUnknown
                || tokio::time::Instant::now() >= until
            {
                return Ok(view);
            }
            // The store is asked again now and then, in case a hint was missed.
            let backstop = until.min(tokio::time::Instant::now() + Duration::from_secs(1));
            loop {
                match tokio::time::timeout_at(backstop, moved.recv()).await {
                    Ok(Ok(other)) if other != id => {}
                    _ => break,
                }
            }
        }
    }

    /// Its history, oldest first.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn history(&self, id: TaskId) -> Result<Vec<TaskEvent>> {
        self.task(id).await?;
        Ok(self.node.store.history(id).await?)
    }

    /// Cancels a task; what runs is asked to end.
    ///
    /// # Errors
    /// [`AskError::WrongState`] where it has ended already.
    pub async fn cancel(&self, id: TaskId) -> Result<TaskView> {
        match self.node.store.cancel(id).await? {
            None => return Err(not_found(format!("no task {id}"))),
            Some(CancelFound::Final(TaskState::Cancelled)) => {}
            Some(CancelFound::Final(state)) => {
                return Err(wrong_state(format!("task {id} has already {}", state.name())));
            }
            Some(CancelFound::Running) => {
                if let Some(actors) = self.node.actors.get() {
                    let _ = actors.dispatcher.send(Cancel(id)).await;
                }
                return self.wait(id, Duration::from_secs(2)).await;
            }
            Some(CancelFound::Idle) => {
                let data =
                    self.node.store.task_data(id).await?.ok_or_else(|| not_found(format!("no task {id}")))?;
                let (mut ended, done) = finish(&data, Guard::Idle, FinishOutcome::Cancelled);
                ended.note = Some("by an operator".to_owned());
                let unit =
                    Unit { finished: vec![ended], accepted: done.into_iter().collect(), ..Unit::default() };
                match self.node.persistence.commit(id.0, unit).await {
                    Outcome::Durable => self.node.task_moved(id),
                    // It began, or ended, meanwhile: what it is now is the answer.
                    Outcome::Refused(_) => return Box::pin(self.cancel(id)).await,
                    Outcome::Full(why) => return Err(AskError::NoRoom(why).into()),
                    Outcome::Failed(why) => return Err(AskError::Unavailable(why).into()),
                }
            }
        }
        self.task(id).await
    }

    /// Brings a dead letter back, or confirms that an interrupted effect may run again.
    ///
    /// # Errors
    /// [`AskError::WrongState`] where it has not failed.
    pub async fn retry(&self, id: TaskId) -> Result<TaskView> {
        match self.node.store.retry(id).await? {
            None => Err(not_found(format!("no task {id}"))),
            Some(Err(state)) => {
                Err(wrong_state(format!("task {id} is {}: only what failed can be retried", state.name())))
            }
            Some(Ok(())) => {
                self.node.wake_dispatcher(true);
                self.task(id).await
            }
        }
    }

    /// The tools.
    pub async fn tools(&self) -> Vec<ToolInfo> {
        self.node.tools.values().map(|t| t.info()).collect()
    }

    /// One tool.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn tool(&self, name: &str) -> Result<ToolInfo> {
        let tool = self.node.tools.get(name).ok_or_else(|| not_found(format!("no tool `{name}`")))?;
        Ok(tool.info())
    }

    /// Calls a tool; a `once` tool is run as a task, and waited for.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub async fn call(&self, name: &str, bytes: &[u8], options: SendOptions) -> Result<Box<RawValue>> {
        let tool = self.node.tools.get(name).ok_or_else(|| not_found(format!("no tool `{name}`")))?;
        let (value, raw) = body(bytes)?;
        check(tool.shape(), &value)?;
        if tool.effect() == Effect::Once {
            return self.call_as_task(name, value, options).await;
        }
        let (tx, rx) = slot();
        let key = options.idempotency_key.unwrap_or_else(|| Uuid::now_v7().to_string());
        tool.invoke(&raw, CallMeta { key, attempt: 1, task: None, timeout: options.timeout }, tx)?;
        let reply = rx.await.unwrap_or_else(|| Err(unanswered().widen()))?;
        Ok(reply.body)
    }

    async fn call_as_task(&self, name: &str, input: Value, options: SendOptions) -> Result<Box<RawValue>> {
        let request = TaskRequest {
            target: format!("tool:{name}"),
            input: Some(input),
            max_attempts: Some(1),
            idempotency_key: options.idempotency_key,
            ..TaskRequest::default()
        };
        let (task, _) = self.submit(request).await?;
        let view = self.wait(task.id, options.timeout.unwrap_or(Duration::from_secs(30))).await?;
        match (view.state, view.result, view.error) {
            (TaskState::Succeeded, Some(result), _) => Ok(result),
            (_, _, Some(error)) => Err(OperatorError::Ask(match error.refusal {
                Some(value) => AskError::Refused(JsonRefusal { message: error.message, value }),
                None if error.code == "outcome_unknown" => AskError::Unknown,
                None => AskError::Failed(crate::Fault {
                    message: error.message,
                    chain: error.chain,
                    crash_id: error.crash_id,
                }),
            })),
            _ => Err(AskError::Unknown.into()),
        }
    }

    /// The last crashes, newest first.
    pub fn crashes(&self) -> Vec<CrashReport> {
        self.node.crashes.list()
    }

    /// One crash.
    ///
    /// # Errors
    /// [`AskError::NotFound`] where it is not among the last 1,024.
    pub fn crash(&self, id: &str) -> Result<CrashReport> {
        self.node.crashes.find(id).ok_or_else(|| not_found(format!("no crash {id} among the last ones")))
    }

    /// Figures of the writers.
    pub fn commits(&self) -> &super::CommitStats {
        &self.node.persistence.stats
    }

    /// Asks the node to shut down in good order.
    pub fn stop(&self) {
        self.node.stop.cancel();
    }

    /// Completes when the node is asked to end, by [`Operator::stop`] or because it must.
    pub async fn stopping(&self) {
        self.node.stop.cancelled().await;
    }

    /// Why the node must end with an error, where it must.
    pub fn fatal(&self) -> Option<String> {
        self.node.fatal.get().cloned()
    }
}

fn unknown_message(kind: &Arc<dyn AnyKind>, message: &str) -> OperatorError {
    OperatorError::UnknownMessage {
        kind: kind.name().to_owned(),
        message: message.to_owned(),
        known: kind.message_names(),
    }
}

/// Resident memory of this process; 0 where the system does not tell.
fn rss_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|s| s.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()));
    pages.unwrap_or(0) * 4096
}
