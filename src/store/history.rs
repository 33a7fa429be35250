//! Which overwritten states are kept: a sample.

use std::{collections::HashSet, time::Duration};

use super::{StateWrite, values::Micros};
use crate::model::id::AgentId;

/// Which agents' states were kept for the history in this stretch of time.
pub(super) struct History {
    every: Duration,
    /// How many are kept of an agent.
    pub(super) keep: usize,
    stretch: i64,
    seen: HashSet<AgentId>,
}

/// Past so many agents in one stretch nothing more is kept, to bound memory.
const MAX_SAMPLED: usize = 100_000;

impl History {
    pub(super) fn new(every: Duration, keep: usize) -> Self {
        Self { every, keep, stretch: 0, seen: HashSet::new() }
    }

    /// Whether the state that `write` is about to overwrite is to be kept.
    pub(super) fn keeps(&mut self, write: &StateWrite, now: Micros) -> bool {
        self.wants(write.id, now) || (write.keeps_base && self.keep > 0)
    }

    fn wants(&mut self, agent: AgentId, now: Micros) -> bool {
        if self.keep == 0 {
            return false;
        }
        let every = i64::try_from(self.every.as_micros()).unwrap_or(i64::MAX);
        if every == 0 {
            return true;
        }
        let stretch = now.0.checked_div(every).unwrap_or(0);
        if stretch != self.stretch {
            self.stretch = stretch;
            self.seen.clear();
        }
        self.seen.len() < MAX_SAMPLED && self.seen.insert(agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_sampled_once_in_a_stretch() {
        let mut history = History::new(Duration::from_secs(60), 8);
        let agent = AgentId::of("tally", "a");
        let at = |s: i64| Micros(s * 1_000_000);
        assert!(history.wants(agent, at(0)) && !history.wants(agent, at(59)));
        assert!(history.wants(agent, at(60)) && history.wants(AgentId::of("tally", "b"), at(61)));
        assert!(!History::new(Duration::ZERO, 0).wants(agent, at(0)), "none are kept");
        let mut always = History::new(Duration::ZERO, 1);
        assert!(always.wants(agent, at(0)) && always.wants(agent, at(0)));
    }
}
