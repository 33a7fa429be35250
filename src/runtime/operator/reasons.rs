//! The health of the node: each reason of the verdict, with when it began.
//!
//! `since` is when it began, not when it was asked for: what the node notices records its time where it is noticed,
//! what the store knows is read from the store. A reason disappears when it is over, with its beginning.

use std::{collections::HashSet, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::Operator;
use crate::{
    cache, clock,
    model::{bond::orphaned_by, supervision::restart_command, task::TaskState},
    runtime::{
        agent_status::STOPPED_BY_OPERATOR,
        mailbox_alerts,
        node::Node,
        orchestrator::{Casualties, Casualty},
        views::Reason,
        watchdog,
    },
    store::{AgentFilter, AgentRow, Counts, Oldest, StoreError, StoredStatus},
};

/// How long the store may take to answer a question.
const STORE_TIMEOUT: Duration = Duration::from_millis(500);
/// How many of a kind are listed; nobody would read a list of all.
pub(super) const FEW: usize = 10;
/// Among so many stopped agents those are looked for that supervision has stopped.
const LOOKED_AT: usize = 256;
/// That supervision has stopped an agent is known within this time.
const SETTLED: SignedDuration = SignedDuration::from_secs(5);

pub(super) fn reason(
    code: &str,
    since: Timestamp,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Reason {
    Reason { code: code.to_owned(), message: message.into(), since, remedy: remedy.into() }
}

/// A cache that has not been reached yet, right after the start, is nothing to report.
pub(super) fn of_cache(cache: &cache::Health) -> Option<Reason> {
    let why = cache.reason.as_ref().filter(|_| !cache.up)?;
    let message = format!("the cache does not answer, reads go to the store: {why}");
    Some(reason(
        "cache_down",
        cache.since,
        message,
        "look at Redis and at cache.url; it is tried again by itself",
    ))
}

impl Operator {
    /// The reasons why the node does not serve.
    pub(super) async fn trouble(&self) -> Vec<Reason> {
        let node = &self.node;
        let store = match node.outage.down() {
            Some(down) => Some((down.since, down.cause, down.error)),
            None => ask(node).await.err().map(|error| {
                // it may be over in a moment, or become known: from here on it has a beginning
                node.outage.failed(&error);
                let since = node.outage.since().unwrap_or_else(clock::now);
                (since, error.cause(), error.to_string())
            }),
        };
        let store = store.map(|(since, cause, error)| {
            let message = format!("the store is down ({}): {error}", cause.name());
            reason("store_down", since, message, cause.remedy())
        });
        let doubt = node.owned.doubted(node.uptime()).map(|since| {
            let message = "the store has not renewed the node's lease: it starts no turn";
            reason("lease_in_doubt", since, message, "it is renewed by itself when the store answers")
        });
        store.into_iter().chain(doubt).collect()
    }

    /// That the node is going down.
    pub(super) fn stopping_since(&self) -> Option<Reason> {
        let since = self.node.closing_since()?;
        Some(reason("stopping", since, "the node is going down", "wait for the next one"))
    }

    /// That an operator has drained the node.
    pub(super) fn drained(&self) -> Option<Reason> {
        let message = "the node begins no tasks: an operator has drained it";
        Some(reason("draining", self.node.draining.since()?, message, "greenroom nodes resume self"))
    }

    /// Agents that were stopped after too many restarts, also before the node started: those of its partitions.
    pub(super) async fn casualties(&self, counts: &Counts) -> Vec<Reason> {
        let Some(actors) = self.node.actors() else { return Vec::new() };
        let mut stopped = actors.orchestrator.send(Casualties).await.unwrap_or_default();
        if counts.agents.iter().any(|(status, n)| *status == StoredStatus::Stopped && *n > 0) {
            let known: HashSet<String> = stopped.iter().map(|c| c.subject.clone()).collect();
            let kept = self.given_up().await;
            stopped.extend(kept.into_iter().filter(|c| !known.contains(&c.subject)));
        }
        stopped.sort_by_key(|c| std::cmp::Reverse(c.since));
        let told = stopped.into_iter().take(FEW).map(|c| {
            let message = format!("{} is stopped: {}", c.subject, c.reason);
            let restart = restart_command(&c.subject);
            let remedy = format!("greenroom crashes ls --groups shows why; when that is mended: {restart}");
            reason("agent_stopped", c.since, message, remedy)
        });
        told.collect()
    }

    /// The agents of this node of which the store says that supervision has stopped them; of very many some.
    async fn given_up(&self) -> Vec<Casualty> {
        let filter =
            AgentFilter { status: Some(StoredStatus::Stopped), limit: LOOKED_AT, ..AgentFilter::default() };
        let rows = self.node.store.agents(&filter).await.unwrap_or_default();
        let ours = rows.into_iter().filter(|row| self.node.epoch(row.id) != 0);
        // The newest are told in a moment by who stopped them, with a time of their own.
        let before = self.node.started_at.max(clock::now().saturating_sub(SETTLED).unwrap_or(Timestamp::MIN));
        let given_up = |row: AgentRow| {
            let reason = row.reason.filter(|why| why != STOPPED_BY_OPERATOR && orphaned_by(why).is_none())?;
            let since = row.held_at.unwrap_or(row.updated_at);
            (since < before).then(|| Casualty { subject: format!("{}/{}", row.kind, row.key), reason, since })
        };
        ours.filter_map(given_up).collect()
    }

    /// Tools that are stopped on this node after too many restarts.
    pub(super) fn stopped_tools(&self) -> Vec<Reason> {
        let told = self.node.tools.iter().filter_map(|(name, tool)| {
            let (subject, stop) = (format!("tool:{name}"), tool.stopped()?);
            let message = format!("{subject} is stopped: {}", stop.why);
            Some(reason("tool_stopped", stop.since, message, restart_command(&subject)))
        });
        told.collect()
    }

    /// Agents and tools that block their threads.
    pub(super) fn stuck(&self) -> Vec<Reason> {
        let agents = watchdog::stuck(&self.node).into_iter().map(|(subject, since)| {
            let message = format!("{subject} holds up its thread, and its neighbours wait");
            let remedy = "its handler spins or blocks: it ends by itself, or with the process";
            reason("agent_stuck", since, message, remedy)
        });
        let tools = watchdog::stuck_tools(&self.node).into_iter().map(|(subject, since)| {
            let message = format!("{subject} holds up a thread that others need");
            let remedy = "its code spins or blocks: it ends by itself, or with the process";
            reason("tool_stuck", since, message, remedy)
        });
        agents.chain(tools).collect()
    }

    /// Mailboxes that are nearly full.
    pub(super) fn flooded(&self) -> Vec<Reason> {
        let flooded = self.node.kinds.iter().flat_map(|kind| kind.flooded()).take(FEW);
        let told = flooded.map(|(subject, since)| {
            let message = format!("the mailbox of {subject} is nearly full");
            let remedy = mailbox_alerts::remedy(&subject);
            reason("mailbox_full", since, message, remedy)
        });
        told.collect()
    }

    /// What waits for a person: quarantined agents, and tasks whose outcome is unknown.
    pub(super) async fn left_to_people(&self, counts: &Counts) -> Vec<Reason> {
        let agents = counts.agents.iter().find(|(status, _)| *status == StoredStatus::Quarantined);
        let tasks = counts.tasks.iter().find(|(state, _)| *state == TaskState::OutcomeUnknown);
        let (agents, tasks) = (agents.map_or(0, |(_, n)| *n), tasks.map_or(0, |(_, n)| *n));
        if agents + tasks == 0 {
            return Vec::new();
        }
        let oldest = self.node.store.oldest().await.unwrap_or_default();
        let Oldest { quarantined, outcome_unknown } = oldest;
        let mut reasons = Vec::new();
        if agents > 0 {
            let message = match agents {
                1 => "1 agent is in quarantine: what is for it waits".to_owned(),
                n => format!("{n} agents are in quarantine: what is for them waits"),
            };
            let remedy = "greenroom agents ls --status quarantined says why; then agents release KIND/KEY";
            let since = quarantined.unwrap_or_else(clock::now);
            reasons.push(reason("agents_quarantined", since, message, remedy));
        }
        if tasks > 0 {
            let message = match tasks {
                1 => "1 task with an effect that happens once was interrupted".to_owned(),
                n => format!("{n} tasks with an effect that happens once were interrupted"),
            };
            let remedy = "say what happened: greenroom tasks ls --state outcome_unknown";
            let since = outcome_unknown.unwrap_or_else(clock::now);
            reasons.push(reason("outcome_unknown", since, message, remedy));
        }
        reasons
    }

    /// That submissions are refused because too many tasks wait.
    pub(super) fn backlog(&self, counts: &Counts) -> Option<Reason> {
        let (waiting, since) = self.node.full_backlog(counts)?;
        let message = format!("{waiting} tasks wait: further submissions from outside are refused");
        let remedy = "more slots or nodes shorten it; tasks.max_backlog is the bound";
        Some(reason("backlog_full", since, message, remedy))
    }
}

/// Asks the store how it is, and does not wait for one that hangs.
async fn ask(node: &Node) -> std::result::Result<(), StoreError> {
    let store = node.store.clone();
    let asked = node.runtime.spawn(async move { store.ping().await });
    match tokio::time::timeout(STORE_TIMEOUT, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => Err(StoreError::Unknown(e.to_string())),
        Err(_) => Err(StoreError::Unknown(format!("the store does not answer within {STORE_TIMEOUT:?}"))),
    }
}
