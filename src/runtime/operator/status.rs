//! The node's status: its verdict and gauges. The reasons are found in [`reasons`](super::reasons).

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::json;

use super::{Operator, reasons};
use crate::{
    cache, clock,
    model::units::to_the_millisecond,
    runtime::{
        millis,
        views::{NodeInfo, Reason, Status, Verdict},
    },
    store::{Counts, StoredStatus},
};

impl Operator {
    /// The node's status.
    pub async fn status(&self) -> Status {
        let (node, now) = (&self.node, clock::now());
        let mut reasons = self.trouble().await;
        let up = reasons.is_empty();
        let cache = node.cache.health();
        reasons.extend(reasons::of_cache(&cache));
        // A store that hangs must not hang the answer that says so.
        let counted = if up { node.store.counts().await.ok() } else { None };
        let counts = counted.clone().unwrap_or_default();
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
            reasons.extend(self.unserved().await);
        }
        reasons.extend(self.drained());
        reasons.extend(self.casualties(&counts).await);
        reasons.extend(self.stopped_tools());
        reasons.extend(self.stuck());
        reasons.extend(self.flooded());
        if let Some(counts) = &counted {
            reasons.extend(self.left_to_people(counts).await);
            reasons.extend(self.backlog(counts));
        }
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

    /// Whether the node accepts work.
    ///
    /// # Errors
    /// The reasons why it does not.
    pub async fn ready(&self) -> std::result::Result<(), Vec<Reason>> {
        if let Some(kept_off) = self.stopping_since().or_else(|| self.drained()) {
            return Err(vec![kept_off]);
        }
        let trouble = self.trouble().await;
        if trouble.is_empty() { Ok(()) } else { Err(trouble) }
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
        for (name, tool) in &node.tools {
            node.metrics.tool(name, tool.stopped().is_none());
        }
        if let Some(shared) = node.store.shared() {
            node.metrics.pool(&shared.pool());
        }
    }

    fn node_info(&self) -> NodeInfo {
        NodeInfo {
            id: self.node.boot.to_string(),
            name: self.node.settings.load().node.name.clone(),
            pid: std::process::id(),
            started_at: self.node.started_at,
            uptime_ms: millis(self.node.uptime()),
            rss_bytes: rss_bytes(),
            rescued: self.node.rescued.load(Ordering::Relaxed),
        }
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
        "since": to_the_millisecond(cache.since),
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
