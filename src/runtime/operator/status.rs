//! How the node is: its verdict and its gauges.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::json;

use super::Operator;
use crate::{
    cache, clock,
    model::task::Backlog,
    runtime::{
        millis,
        node::Node,
        orchestrator::{Casualties, Casualty},
        views::{NodeInfo, Reason, Status, Verdict},
        watchdog,
    },
    store::{Counts, StoreError, StoredStatus},
};

/// How long the store may take to answer a question.
const PATIENCE: Duration = Duration::from_millis(500);

impl Operator {
    /// How the node is.
    pub async fn status(&self) -> Status {
        let (node, now) = (&self.node, clock::now());
        let mut reasons = Vec::new();
        reasons.extend(self.trouble().await);
        let up = reasons.is_empty();
        let cache = node.cache.health();
        reasons.extend(cache_reason(&cache));
        // A store that hangs must not hang the answer that says so.
        let counts = if up { node.store.counts().await.unwrap_or_default() } else { Counts::default() };
        let mut agents: BTreeMap<String, u64> = BTreeMap::new();
        for (status, n) in &counts.agents {
            *agents.entry(status_name(*status).to_owned()).or_default() += n;
        }
        let mut live = 0;
        for kind in &node.kinds {
            for (status, n) in kind.statuses() {
                live += n;
                *agents.entry(status.to_owned()).or_default() += n;
            }
        }
        // The store counts every agent that it knows; those that run are told apart.
        if let Some(n) = agents.get_mut("passivated") {
            *n = n.saturating_sub(live);
        }
        agents.retain(|_, n| *n > 0);
        let tasks: BTreeMap<String, u64> =
            counts.tasks.iter().filter(|(_, n)| *n > 0).map(|(s, n)| (s.name().to_owned(), *n)).collect();
        if up {
            reasons.extend(self.pauses().await);
        }
        reasons.extend(self.drained());
        reasons.extend(self.casualties().await);
        reasons.extend(watchdog::stuck(&self.node).into_iter().map(|subject| Reason {
            code: "agent_stuck".to_owned(),
            message: format!("{subject} holds up its thread, and its neighbours wait"),
            since: clock::now(),
            remedy: "its handler spins or blocks: it ends by itself, or with the process".to_owned(),
        }));
        reasons.extend(node.kinds.iter().flat_map(|kind| kind.flooded()).take(10).map(|subject| Reason {
            code: "mailbox_full".to_owned(),
            message: format!("the mailbox of {subject} is nearly full"),
            since: now,
            remedy: format!("greenroom tree shows what it is at; agents restart {subject} --clear"),
        }));
        if let Some(n) = agents.get("quarantined").filter(|n| **n > 0) {
            reasons.push(Reason {
                code: "agents_quarantined".to_owned(),
                message: format!("{n} agents are in quarantine: what is for them waits"),
                since: now,
                remedy: "greenroom agents ls --status quarantined says why; then agents release KIND/KEY"
                    .to_owned(),
            });
        }
        if let Some(n) = tasks.get("outcome_unknown") {
            reasons.push(Reason {
                code: "outcome_unknown".to_owned(),
                message: format!("{n} tasks with an effect that happens once were interrupted"),
                since: now,
                remedy: "say what happened: greenroom tasks ls --state outcome_unknown".to_owned(),
            });
        }
        reasons.extend(self.backlog(&counts));
        let verdict = match (up, reasons.is_empty()) {
            (false, _) => Verdict::Down,
            (true, false) => Verdict::Degraded,
            (true, true) => Verdict::Ok,
        };
        let stats = &node.persistence.stats;
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
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
                "pool": node.store.shared().map(|s| s.pool()).map(|p| json!({
                    "max": p.max, "size": p.size, "idle": p.idle, "waiting": p.waiting, "taken": p.taken,
                    "wait_ms": p.wait_us / 1_000, "made": p.made, "failed": p.failed, "dropped": p.dropped,
                })),
            }),
            cache: cache_view(node.cache.name(), &cache),
            crashes: node.crashes.summary(now),
            at: now,
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
            since: clock::now(),
            remedy: remedy.to_owned(),
        };
        if self.node.is_closing() {
            return Err(vec![reason("stopping", "the node is going down", "wait for the next one")]);
        }
        if let Some(drained) = self.drained() {
            return Err(vec![drained]);
        }
        let trouble = self.trouble().await;
        if trouble.is_empty() { Ok(()) } else { Err(trouble) }
    }

    /// Whether submissions are refused because too many tasks wait.
    fn backlog(&self, counts: &Counts) -> Option<Reason> {
        let (waiting, most) = (Backlog::of(&counts.tasks), self.node.settings.load().tasks.max_backlog);
        (most > 0 && waiting >= most).then(|| Reason {
            code: "backlog_full".to_owned(),
            message: format!("{waiting} tasks wait: further submissions from outside are refused"),
            since: clock::now(),
            remedy: "more slots or nodes shorten it; tasks.max_backlog is the bound".to_owned(),
        })
    }

    /// That an operator has drained the node.
    fn drained(&self) -> Option<Reason> {
        Some(Reason {
            code: "draining".to_owned(),
            message: "the node begins no tasks: an operator has drained it".to_owned(),
            since: self.node.draining.since()?,
            remedy: "greenroom nodes resume self".to_owned(),
        })
    }

    /// What keeps the node from serving.
    async fn trouble(&self) -> Vec<Reason> {
        let (node, mut reasons) = (&self.node, Vec::new());
        if let Some(down) = node.outage.down() {
            reasons.push(Reason {
                code: "store_down".to_owned(),
                message: format!("the store is down ({}): {}", down.cause.name(), down.error),
                since: down.since,
                remedy: down.cause.remedy().to_owned(),
            });
        } else if let Err(error) = ping(node).await {
            reasons.push(Reason {
                code: "store_down".to_owned(),
                message: format!("the store is down ({}): {error}", error.cause().name()),
                since: clock::now(),
                remedy: error.cause().remedy().to_owned(),
            });
        }
        if node.owned.is_past(node.uptime()) {
            reasons.push(Reason {
                code: "lease_in_doubt".to_owned(),
                message: "the store has not renewed the node's lease: it starts no turn".to_owned(),
                since: clock::now(),
                remedy: "it is renewed by itself when the store answers".to_owned(),
            });
        }
        reasons
    }

    /// Sets the gauges that are only worth setting when somebody looks.
    pub async fn refresh_metrics(&self) {
        let node = &self.node;
        let (mut agents, mut backlog) = (BTreeMap::new(), Vec::new());
        let held =
            if node.persistence.is_up() { node.store.held().await.unwrap_or_default() } else { Vec::new() };
        for kind in &node.kinds {
            let held_as =
                [StoredStatus::Paused, StoredStatus::Stopped, StoredStatus::Quarantined].map(status_name);
            for status in ["starting", "active", "idle", "restarting", "stopping"].into_iter().chain(held_as)
            {
                agents.insert((kind.name().to_owned(), status.to_owned()), 0u64);
            }
            for (status, n) in kind.statuses() {
                *agents.entry((kind.name().to_owned(), status.to_owned())).or_default() += n;
            }
            backlog.push((kind.name().to_owned(), kind.backlog() as u64));
        }
        for (kind, status, n) in held {
            agents.insert((kind, status_name(status).to_owned()), n);
        }
        let agents: Vec<_> = agents.into_iter().map(|((kind, status), n)| (kind, status, n)).collect();
        let counts = if node.persistence.is_up() {
            node.store.counts().await.unwrap_or_default()
        } else {
            Counts::default()
        };
        let tasks: Vec<_> = counts.tasks.iter().map(|(s, n)| (s.name(), *n)).collect();
        node.metrics.gauges(&agents, &backlog, &tasks, node.persistence.is_up(), node.cache.health().up);
        if let Some(shared) = node.store.shared() {
            node.metrics.pool(&shared.pool());
        }
    }

    async fn casualties(&self) -> Vec<Reason> {
        let Some(actors) = self.node.actors() else { return Vec::new() };
        let stopped = actors.orchestrator.send(Casualties).await.unwrap_or_default();
        let reason = |c: Casualty| Reason {
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
            name: self.node.settings.load().node.name.clone(),
            pid: std::process::id(),
            started_at: self.node.started_at,
            uptime_ms: millis(self.node.uptime()),
            rss_bytes: rss_bytes(),
        }
    }
}

/// Asks the store how it is, and does not wait for one that hangs.
async fn ping(node: &Node) -> std::result::Result<(), StoreError> {
    let store = node.store.clone();
    let asked = node.runtime.spawn(async move { store.ping().await });
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => Err(StoreError::Unknown(e.to_string())),
        Err(_) => Err(StoreError::Unknown(format!("the store does not answer within {PATIENCE:?}"))),
    }
}

/// How an agent that is not live is called.
pub(super) fn status_name(status: StoredStatus) -> &'static str {
    match status {
        StoredStatus::Normal => "passivated",
        StoredStatus::Paused => "paused",
        StoredStatus::Stopped => "stopped",
        StoredStatus::Quarantined => "quarantined",
        StoredStatus::Deleted => "deleted",
    }
}

/// A cache that has not been reached yet, right after the start, is nothing to report.
fn cache_reason(cache: &cache::Health) -> Option<Reason> {
    let why = cache.reason.as_ref().filter(|_| !cache.up)?;
    Some(Reason {
        code: "cache_down".to_owned(),
        message: format!("the cache does not answer, reads go to the store: {why}"),
        since: cache.since,
        remedy: "look at Redis and at cache.url; it is tried again by itself".to_owned(),
    })
}

fn cache_view(kind: &str, cache: &cache::Health) -> serde_json::Value {
    let sum = |of: fn(&cache::Lookups) -> u64| cache.lookups.iter().map(of).sum::<u64>();
    let strategies: serde_json::Map<_, _> = cache
        .lookups
        .iter()
        .map(|of| (of.strategy.name().to_owned(), json!({"hits": of.hits, "misses": of.misses})))
        .collect();
    json!({
        "kind": kind,
        "up": cache.up,
        "since": cache.since,
        "reason": cache.reason,
        "hits": sum(|of| of.hits),
        "misses": sum(|of| of.misses),
        "strategies": strategies,
    })
}

/// Resident memory of this process; 0 where the system does not tell.
fn rss_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|s| s.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()));
    pages.unwrap_or(0) * 4096
}
