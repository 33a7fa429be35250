//! Agents: list, inspect, act on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    AgentQuery, Operator, OperatorError, Result, not_found, page_limit, status::status_name, wrong_state,
};
use crate::{
    agent::{AskError, lane::Entrance},
    model::{
        bond::Bond,
        id::{AgentId, check_kind},
        snapshot,
    },
    runtime::{
        agent_status::{STOPPED_BY_OPERATOR, Standing},
        inbox::Control,
        running_cell::LiveInfo,
        trial,
        views::{Action, AgentInfo, Page, SnapshotInfo, StateInfo},
    },
    store::{AgentFilter, AgentRow, StoredStatus},
};

/// How long notifying the watchers of an agent that is restarted may take.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(15);
/// How many children of an agent are shown.
const MAX_CHILDREN: usize = 1_000;

impl Operator {
    /// One page of agents: those that the store knows, and those that run and have kept nothing yet. One that only
    /// a running agent has (`starting`, `active`, `idle`, `restarting`, `stopping`) names those of this node.
    ///
    /// # Errors
    /// An unknown kind or status, or an invalid cursor.
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
                    // behind any key, also one that there cannot be
                    .filter(|(kind, _)| check_kind(kind).is_ok())
                    .map(|(kind, key)| (kind.to_owned(), key.to_owned()))
                    .ok_or_else(|| OperatorError::Malformed("`cursor` is not one of ours".to_owned()))?,
            ),
        };
        let status = match query.status.as_deref() {
            None | Some("passivated" | "elsewhere") => None,
            Some("paused") => Some(StoredStatus::Paused),
            Some("stopped") => Some(StoredStatus::Stopped),
            Some("quarantined") => Some(StoredStatus::Quarantined),
            Some(wanted @ ("starting" | "active" | "idle" | "restarting" | "stopping")) => {
                let is = |info: &LiveInfo| info.status == wanted;
                return self
                    .running_page(self.running(query.kind.as_deref(), after.as_ref(), limit, &is), limit)
                    .await;
            }
            Some(other) => {
                return Err(OperatorError::Malformed(format!("`{other}` is not a status of agents")));
            }
        };
        let mut running = match query.status {
            None => self.running(query.kind.as_deref(), after.as_ref(), limit, &|_| true),
            Some(_) => Vec::new(),
        };
        let filter = AgentFilter { kind: query.kind.clone(), status, after, limit, ..AgentFilter::default() };
        let rows = self.node.store.agents(&filter).await?;
        let mut more = rows.len() == limit || running.len() == limit;
        // behind a full page the store may know them
        let last = rows.last().filter(|_| rows.len() == limit).map(|row| (row.kind.clone(), row.key.clone()));
        running.retain(|name| last.as_ref().is_none_or(|last| name <= last));
        let mut all: BTreeMap<(String, String), Option<AgentRow>> =
            running.into_iter().map(|name| (name, None)).collect();
        all.extend(rows.into_iter().map(|row| ((row.kind.clone(), row.key.clone()), Some(row))));
        more |= all.len() > limit;
        let page: Vec<_> = all.into_iter().take(limit).collect();
        let last = page.last().filter(|_| more);
        let next_cursor = last.map(|((kind, key), _)| format!("{kind}/{key}"));
        let items = page.iter().map(|((kind, key), row)| self.describe(kind, key, row.as_ref()));
        let items = items.filter(|i| query.status.as_ref().is_none_or(|s| *s == i.status)).collect();
        Ok(Page { items, next_cursor })
    }

    /// The first running agents behind a name of which this holds, by kind and key.
    fn running(
        &self,
        kind: Option<&str>,
        after: Option<&(String, String)>,
        limit: usize,
        is: &dyn Fn(&LiveInfo) -> bool,
    ) -> Vec<(String, String)> {
        let mut kinds: Vec<_> =
            self.node.kinds.iter().filter(|known| kind.is_none_or(|kind| kind == known.name())).collect();
        kinds.sort_unstable_by_key(|kind| kind.name());
        let mut found = Vec::new();
        for kind in kinds {
            let behind: Option<Arc<str>> = match after {
                Some((name, _)) if name.as_str() > kind.name() => continue,
                Some((name, key)) if name == kind.name() => Some(key.as_str().into()),
                _ => None,
            };
            let page = kind.page(behind.as_deref(), limit - found.len(), is);
            found.extend(page.into_iter().map(|(key, _)| (kind.name().to_owned(), key.to_string())));
            if found.len() == limit {
                break;
            }
        }
        found
    }

    async fn running_page(&self, names: Vec<(String, String)>, limit: usize) -> Result<Page<AgentInfo>> {
        let ids: Vec<AgentId> = names.iter().map(|(kind, key)| AgentId::of(kind, key)).collect();
        let rows = self.node.store.heads(&ids).await?;
        let last = names.last().filter(|_| names.len() == limit);
        let next_cursor = last.map(|(kind, key)| format!("{kind}/{key}"));
        let rows = rows.into_iter().map(|row| row.filter(|row| row.status != StoredStatus::Deleted));
        let items = names.iter().zip(rows).map(|((kind, key), row)| self.describe(kind, key, row.as_ref()));
        Ok(Page { items: items.collect(), next_cursor })
    }

    /// One agent. Of one that another node serves, what the store has is told: its status is `elsewhere` then,
    /// where it is none that an operator gave it.
    ///
    /// # Errors
    /// [`AskError::NotFound`] if it has never received a message; [`OperatorError::Elsewhere`] where another node
    /// serves it, which alone can tell.
    pub async fn agent(&self, kind: &str, key: &str) -> Result<AgentInfo> {
        let (_, found, key) = self.key_of(kind, key)?;
        let row = self.row(kind, key).await?;
        if row.is_none() && found.live(key).is_none() {
            if self.node.owned.owner(AgentId::of(kind, key), self.node.boot).is_some() {
                self.here(kind, key)?;
            }
            return Err(not_found(format!("there is no agent {kind}/{key} yet: its first message makes it")));
        }
        Ok(AgentInfo { children: self.children(kind, key).await?, ..self.describe(kind, key, row.as_ref()) })
    }

    /// The children of an agent.
    async fn children(&self, kind: &str, key: &str) -> Result<Vec<String>> {
        let topic = Bond::Child.topic(&format!("{kind}/{key}"));
        let found = self.node.store.first_subscribers(&topic, MAX_CHILDREN).await?;
        let mut names: Vec<_> = found.iter().map(|child| format!("{}/{}", child.kind, child.key)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Its durable state, now or at a kept version.
    ///
    /// # Errors
    /// [`AskError::NotFound`] if there is none; [`AskError::WrongState`] if it cannot be read.
    pub async fn state(&self, kind: &str, key: &str, version: Option<i64>) -> Result<StateInfo> {
        self.key_of(kind, key)?;
        let row = self.row(kind, key).await?.filter(|r| r.version > 0 && !snapshot::is_empty(&r.bytes));
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
    /// An unknown kind, an invalid key, or a store that does not answer.
    pub async fn snapshots(&self, kind: &str, key: &str) -> Result<Vec<SnapshotInfo>> {
        self.key_of(kind, key)?;
        let kept = self.node.store.snapshots(AgentId::of(kind, key)).await?;
        let info = |(version, at, frame): (i64, Timestamp, Vec<u8>)| SnapshotInfo {
            version,
            at,
            bytes: frame.len().saturating_sub(snapshot::HEADER_BYTES) as u64,
        };
        Ok(kept.into_iter().filter(|(.., frame)| !snapshot::is_empty(frame)).map(info).collect())
    }

    /// Acts on an agent.
    ///
    /// # Errors
    /// [`AskError::WrongState`] if its status does not allow the action.
    pub async fn act(&self, kind: &str, key: &str, action: Action) -> Result<()> {
        let _turn = self.node.agent_locks.lock(AgentId::of(kind, key)).await;
        self.act_on(kind, key, action, false).await
    }

    /// As [`Operator::act`], of `stop`, `restart` and `pause`, clearing the mailbox: messages that wait and
    /// have not begun are answered with [`AskError::WrongState`], which says so,
    /// and do not run. Tasks are never lost: those of a restarted agent run, the others are parked.
    ///
    /// # Errors
    /// As [`Operator::act`]; an action that clears nothing.
    pub async fn act_and_clear(&self, kind: &str, key: &str, action: Action) -> Result<()> {
        if !matches!(action, Action::Stop | Action::Restart | Action::Pause) {
            let why = "`clear` goes with `stop`, `restart` and `pause`";
            return Err(OperatorError::Malformed(why.to_owned()));
        }
        let _turn = self.node.agent_locks.lock(AgentId::of(kind, key)).await;
        self.act_on(kind, key, action, true).await
    }

    /// Acts on an agent whose lock the caller holds.
    pub(super) async fn act_on(&self, kind: &str, key: &str, action: Action, clear: bool) -> Result<()> {
        let (_, found, key) = self.key_of(kind, key)?;
        self.here(kind, key)?;
        let node = &self.node;
        if node.is_troubled(false) {
            return Err(node.trouble().widen().into());
        }
        let row = self.row(kind, key).await?;
        let status = row.as_ref().map_or(StoredStatus::Normal, |r| r.status);
        let subject = format!("{kind}/{key}");
        if row.is_none() && found.live(key).is_none() && action != Action::Pause && action != Action::Stop {
            return Err(not_found(format!("there is no agent {subject} yet: its first message makes it")));
        }
        let (next, entrance, control, why) = match (action, status) {
            (Action::Stop, _) => {
                let why = STOPPED_BY_OPERATOR;
                let text = format!("{subject} is {why}; greenroom agents restart {subject}");
                (StoredStatus::Stopped, Entrance::shut(text), Control::Cut, Some(why))
            }
            (Action::Pause, StoredStatus::Normal | StoredStatus::Paused) => {
                (StoredStatus::Paused, Entrance::Paused, Control::Leave, Some("paused by an operator"))
            }
            (Action::Resume, StoredStatus::Paused | StoredStatus::Normal)
            | (
                Action::Restart,
                StoredStatus::Normal | StoredStatus::Stopped | StoredStatus::Paused | StoredStatus::Deleted,
            ) => {
                let control = if action == Action::Restart { Control::Cut } else { Control::None };
                (StoredStatus::Normal, Entrance::Open, control, None)
            }
            (Action::Quarantine, _) => {
                let text =
                    format!("{subject} is quarantined by an operator; greenroom agents release {subject}");
                let why = Some("quarantined by an operator");
                (StoredStatus::Quarantined, Entrance::shut(text), Control::Cut, why)
            }
            (Action::Release, StoredStatus::Quarantined) => {
                if let Some(row) = &row {
                    let readable = trial::check(&**found, row);
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
        let runnable = next == StoredStatus::Normal;
        // An end that could not be kept is told as well.
        if runnable && (status.is_end() || node.bonds.awaits(&subject)) {
            self.end_is_told(&subject).await?;
        }
        let why = why.map(str::to_owned);
        let standing = Standing { status: next, entrance, control, why, action, by: "operator", clear };
        Ok(node.stand(kind, key, standing, row.is_some()).await?)
    }

    /// Waits until whoever is bound to an agent has been told of its end: once it is back, nobody is.
    pub(super) async fn end_is_told(&self, subject: &str) -> Result<()> {
        let told = tokio::time::timeout(NOTIFY_TIMEOUT, self.node.bonds.settled(subject)).await;
        if matches!(told, Ok(true)) {
            return Ok(());
        }
        let why = format!("those who watch {subject} could not be told of its end yet");
        Err(AskError::Unavailable(why).into())
    }

    fn describe(&self, kind: &str, key: &str, row: Option<&AgentRow>) -> AgentInfo {
        let found = self.node.kind(kind).map(|(_, k)| k);
        let live = found.and_then(|k| k.live(key));
        let stored = row.map_or(StoredStatus::Normal, |r| r.status);
        let id = AgentId::of(kind, key);
        let other = if self.node.epoch(id) == 0 { self.node.owned.owner(id, self.node.boot) } else { None };
        AgentInfo {
            kind: kind.to_owned(),
            key: key.to_owned(),
            status: match (&live, stored) {
                (Some(live), StoredStatus::Normal) => live.status.to_owned(),
                // whether it runs there, and what waits for it, that node alone knows
                (None, StoredStatus::Normal) if other.is_some() => "elsewhere".to_owned(),
                _ => status_name(stored).to_owned(),
            },
            reason: row.and_then(|r| r.reason.clone()),
            version: row.map_or(0, |r| r.version).max(live.as_ref().map_or(0, |l| l.version)),
            epoch: row.map_or_else(|| self.node.epoch(id), |r| r.epoch),
            // empty where nobody serves it at the moment
            node: match other {
                Some(other) => other.boot.to_string(),
                None if self.node.epoch(id) != 0 => self.node.boot.to_string(),
                None => String::new(),
            },
            mailbox: match &live {
                Some(live) => live.mailbox,
                None => found.map(|k| k.mailbox(key)).unwrap_or_default(),
            },
            message: live.as_ref().and_then(|l| Some(l.current?.0.to_owned())),
            since_ms: live.as_ref().and_then(|l| Some(l.current?.1)),
            restarts: live.as_ref().map_or(0, |l| l.restarts),
            updated_at: row.map(|r| r.updated_at),
            created_at: row.map(|r| r.created_at),
            state_bytes: row
                .filter(|r| !r.bytes.is_empty())
                .map(|r| r.bytes.len().saturating_sub(snapshot::HEADER_BYTES) as u64),
            children: Vec::new(),
        }
    }

    pub(super) async fn row(&self, kind: &str, key: &str) -> Result<Option<AgentRow>> {
        let row = self.node.store.load(&[AgentId::of(kind, key)]).await?.pop().flatten();
        Ok(row.filter(|row| row.status != StoredStatus::Deleted))
    }
}
