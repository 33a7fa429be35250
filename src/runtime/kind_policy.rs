//! The effective policy of a kind.

use std::time::Duration;

use parking_lot::RwLock;

use super::residency::Residency;
use crate::{
    agent::{Persistence, policy::Policy},
    config::{self, AgentSettings},
    model::{
        supervision::RestartPolicy,
        task::{Bounds, TaskTerms},
    },
};

/// What is in force for a kind: configuration over code over defaults.
#[derive(Debug)]
pub(crate) struct KindPolicy {
    pub mailbox: usize,
    pub idle_timeout: Duration,
    pub residency: Residency,
    pub turn_timeout: Duration,
    pub stop_timeout: Duration,
    pub ask_timeout: Duration,
    /// It may change while the node runs.
    pub restart: RwLock<RestartPolicy>,
    /// How the attempts at its agents' tasks follow upon each other.
    pub terms: TaskTerms,
    /// How many of those may be under way, and how often one may begin.
    pub bounds: Bounds,
    pub persistence: Persistence,
    /// The group that its agents are supervised in.
    pub group: Option<String>,
}

impl KindPolicy {
    pub(crate) fn of(code: &Policy, settings: &config::Settings, kind: &str) -> Self {
        let mut base = settings.agent_base();
        base.mailbox = code.mailbox.map_or(base.mailbox, |n| u32::try_from(n).unwrap_or(u32::MAX));
        base.idle_timeout = code.idle_timeout.unwrap_or(base.idle_timeout);
        base.max_live = code.max_live.map_or(base.max_live, |n| u32::try_from(n).unwrap_or(u32::MAX));
        base.turn_timeout = code.turn_timeout.or(base.turn_timeout);
        base.stop_timeout = code.stop_timeout.unwrap_or(base.stop_timeout);
        if let Some((max, within)) = code.restarts {
            (base.restart.max_restarts, base.restart.within) = (max, within);
        }
        if let Some((min, max)) = code.backoff {
            (base.restart.backoff_min, base.restart.backoff_max) = (min, max);
        }
        base.restart.restart = code.restart.unwrap_or(base.restart.restart);
        base.terms = base.terms.with(code.terms);
        let overrides = settings.overrides(kind);
        let all = &settings.agents.default.more.tasks;
        let bounds = all.bounds(Bounds::default());
        let code_bounds = Bounds {
            concurrency: code.bounds.concurrency.or(bounds.concurrency),
            rate: code.bounds.rate.or(bounds.rate),
        };
        let bounds = overrides.tasks.bounds(code_bounds);
        let over: AgentSettings = base.with(&overrides);
        let group = overrides.group.or_else(|| code.group.map(str::to_owned)).filter(|name| !name.is_empty());
        let persistence = match over.persistence {
            None => code.persistence,
            Some(config::Persistence::EveryTurn) => Persistence::EveryTurn,
            Some(config::Persistence::Volatile) => Persistence::Volatile,
            Some(config::Persistence::Relaxed) => {
                Persistence::Relaxed { turns: over.snapshot_turns, every: over.snapshot_every }
            }
        };
        Self {
            mailbox: over.mailbox as usize,
            idle_timeout: over.idle_timeout,
            residency: Residency::of(over.max_live as usize),
            turn_timeout: over.turn_timeout.unwrap_or(over.ask_timeout),
            stop_timeout: over.stop_timeout,
            ask_timeout: over.ask_timeout,
            restart: RwLock::new(over.restart),
            terms: over.terms,
            bounds,
            persistence,
            group,
        }
    }
}
