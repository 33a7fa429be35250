//! The metrics of the runtime.

use std::time::Duration;

use metrics::{
    Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::{model::supervision::CrashKind, store::PoolStatus};

/// Tells Prometheus what each figure is (its `HELP` lines).
pub(crate) fn describe() {
    let counters = [
        ("greenroom_agent_restarts_total", "crashes of agents by what they came to"),
        ("greenroom_tool_calls_total", "calls of tools that were answered, by outcome"),
        ("greenroom_tool_crashes_total", "calls of tools that crashed, which are failed as well"),
        ("greenroom_messages_total", "messages that agents have handled, by outcome"),
        ("greenroom_task_attempts_total", "attempts of tasks that have ended, by outcome"),
        ("greenroom_commits_fenced_total", "commits refused since another node owns the agent"),
        ("greenroom_cache_requests_total", "lookups in the cache by strategy and result"),
        ("greenroom_log_records_dropped_total", "log records that were dropped, not written"),
        (
            "greenroom_log_records_suppressed_total",
            "log records that a flood of their site left out, counted",
        ),
        ("greenroom_store_pool_failures_total", "connections to the store that could not be had"),
    ];
    let gauges = [
        ("greenroom_build_info", "1, with the version as a label"),
        (
            "greenroom_agents",
            "agents by kind and status: in memory here, or held (paused, stopped, quarantined) in the store",
        ),
        ("greenroom_tool_up", "whether a tool takes calls here; 0 while it is stopped"),
        ("greenroom_mailbox_messages", "messages that wait in mailboxes, by kind"),
        ("greenroom_tasks", "tasks in the store by state"),
        ("greenroom_store_up", "whether the store answers"),
        ("greenroom_cache_up", "whether the cache answers"),
        ("greenroom_store_pool_connections", "connections to the store by state"),
        ("greenroom_store_pool_wait_seconds", "how long callers have waited for connections, in all"),
    ];
    let histograms = [
        ("greenroom_message_handle_duration_seconds", "how long turns take, a sample"),
        ("greenroom_state_restore_duration_seconds", "how long agents take to be restored"),
        ("greenroom_state_load_duration_seconds", "how long the store takes to read states"),
        ("greenroom_task_wait_duration_seconds", "from when a task could run until it ran"),
        ("greenroom_task_run_duration_seconds", "how long attempts of tasks take"),
        ("greenroom_commit_duration_seconds", "how long group commits take"),
        ("greenroom_http_request_duration_seconds", "how long requests take"),
    ];
    counters.into_iter().for_each(|(name, help)| describe_counter!(name, help));
    gauges.into_iter().for_each(|(name, help)| describe_gauge!(name, help));
    histograms.into_iter().for_each(|(name, help)| describe_histogram!(name, help));
    // What is first told when it has happened is no increase to Prometheus.
    for name in [
        "greenroom_commits_fenced_total",
        "greenroom_log_records_dropped_total",
        "greenroom_log_records_suppressed_total",
        "greenroom_store_pool_failures_total",
    ] {
        counter!(name).increment(0);
    }
}

/// The one place that names the runtime's metrics.
pub(crate) struct Metrics {
    attempts: Attempts,
    restored: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let restored = histogram!("greenroom_state_restore_duration_seconds");
        Self { attempts: Attempts::default(), restored }
    }
}

/// The reason of a restart that is none: the agent is held.
pub(crate) const QUARANTINED: &str = "quarantined";
/// How an attempt at a task can end.
const OUTCOMES: [&str; 7] = ["ok", "refused", "failed", "retry", "unknown", "parked", "cancelled"];

/// What attempts at tasks count in, found once, as [`Turns`].
struct Attempts {
    ended: [(&'static str, Counter); OUTCOMES.len()],
    ran: Histogram,
    waited: Histogram,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            ended: OUTCOMES
                .map(|outcome| (outcome, counter!("greenroom_task_attempts_total", "outcome" => outcome))),
            ran: histogram!("greenroom_task_run_duration_seconds"),
            waited: histogram!("greenroom_task_wait_duration_seconds"),
        }
    }
}

/// What each turn of a kind counts in, found once: to find it costs more than a short turn.
pub(crate) struct Turns {
    ok: Counter,
    failed: Counter,
    took: Histogram,
}

impl Turns {
    pub(crate) fn of(kind: &'static str) -> Self {
        for reason in CrashKind::ALL.map(CrashKind::name).into_iter().chain([QUARANTINED]) {
            counter!("greenroom_agent_restarts_total", "kind" => kind, "reason" => reason).increment(0);
        }
        Self {
            ok: counter!("greenroom_messages_total", "kind" => kind, "outcome" => "ok"),
            failed: counter!("greenroom_messages_total", "kind" => kind, "outcome" => "failed"),
            took: histogram!("greenroom_message_handle_duration_seconds", "kind" => kind),
        }
    }

    /// So many turns have ended, of which so many failed.
    pub(crate) fn turns(&self, n: u32, failed: u32) {
        self.ok.increment(u64::from(n.saturating_sub(failed)));
        if failed > 0 {
            self.failed.increment(u64::from(failed));
        }
    }

    pub(crate) fn handled(&self, took: Duration) {
        self.took.record(took.as_secs_f64());
    }
}

/// What a tool counts in, found once.
pub(crate) struct Calls {
    ok: Counter,
    failed: Counter,
    crashed: Counter,
}

impl Calls {
    pub(crate) fn of(tool: &'static str) -> Self {
        Self {
            ok: counter!("greenroom_tool_calls_total", "tool" => tool, "outcome" => "ok"),
            failed: counter!("greenroom_tool_calls_total", "tool" => tool, "outcome" => "failed"),
            crashed: counter!("greenroom_tool_crashes_total", "tool" => tool),
        }
    }

    /// A call is answered.
    pub(crate) fn answered(&self, failed: bool) {
        if failed { &self.failed } else { &self.ok }.increment(1);
    }

    pub(crate) fn crashed(&self) {
        self.crashed.increment(1);
    }
}

impl Metrics {
    pub(crate) fn restart(&self, kind: &'static str, reason: &'static str) {
        counter!("greenroom_agent_restarts_total", "kind" => kind, "reason" => reason).increment(1);
    }

    pub(crate) fn restored(&self, took: Duration) {
        self.restored.record(took.as_secs_f64());
    }

    pub(crate) fn attempt(&self, outcome: &'static str, waited: Option<Duration>, ran: Duration) {
        let Attempts { ended, ran: run, waited: wait } = &self.attempts;
        ended.iter().filter(|(one, _)| *one == outcome).for_each(|(_, n)| n.increment(1));
        run.record(ran.as_secs_f64());
        if let Some(waited) = waited {
            wait.record(waited.as_secs_f64());
        }
    }

    pub(crate) fn tells_dropped(&self, kind: &str, n: usize) {
        counter!("greenroom_messages_total", "kind" => kind.to_owned(), "outcome" => "dropped")
            .increment(n as u64);
    }

    /// Gauges, set when they are looked at.
    pub(crate) fn gauges(
        &self,
        agents: &[(String, String, u64)],
        backlog: &[(String, u64)],
        tasks: &[(&'static str, u64)],
        store_up: bool,
        cache_up: bool,
    ) {
        gauge!("greenroom_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        for (kind, status, n) in agents {
            gauge!("greenroom_agents", "kind" => kind.clone(), "status" => status.clone()).set(*n as f64);
        }
        for (kind, n) in backlog {
            gauge!("greenroom_mailbox_messages", "kind" => kind.clone()).set(*n as f64);
        }
        for (state, n) in tasks {
            gauge!("greenroom_tasks", "state" => *state).set(*n as f64);
        }
        gauge!("greenroom_store_up").set(f64::from(u8::from(store_up)));
        gauge!("greenroom_cache_up").set(f64::from(u8::from(cache_up)));
    }

    /// Whether a tool takes calls, set when it is looked at.
    pub(crate) fn tool(&self, tool: &'static str, is_up: bool) {
        gauge!("greenroom_tool_up", "tool" => tool).set(f64::from(u8::from(is_up)));
    }

    /// Connections to the store, set when they are looked at.
    pub(crate) fn pool(&self, pool: &PoolStatus) {
        let used = pool.size.saturating_sub(pool.idle);
        let states = [("idle", pool.idle), ("used", used), ("waited_for", pool.waiting)];
        for (state, n) in states {
            gauge!("greenroom_store_pool_connections", "state" => state).set(n as f64);
        }
        gauge!("greenroom_store_pool_wait_seconds").set(pool.wait_us as f64 / 1e6);
        counter!("greenroom_store_pool_failures_total").absolute(pool.failed);
    }
}
