//! Free slots: in all, for each kind and tool, and for each agent.

use std::{collections::HashMap, time::Duration};

use actix::prelude::*;

use super::Dispatcher;
use crate::{
    model::{
        id::{Target, TaskId},
        task::{Claimed, Queue, Shares, each_of, queue_of, runs},
    },
    runtime::node::Node,
    store::ClaimRequest,
    tool::Effect,
};

/// At most so many tasks for agents are claimed at once.
const MAX_AGENT_CLAIMS: usize = 2_048;
/// At most so many in one claim.
const CLAIM_BATCH: usize = 1_024;
/// So many tasks of agents that have no room are passed over by a claim …
const LOOK: usize = 2_048;
/// … and so many by the first one after a poll. Where one agent has more than the former waiting, other agents of its
/// kind wait for a poll; where it has more than the latter, until it has fewer.
const FAR_LOOK: usize = 32_768;
/// The shortest time for which it waits until a rate lets the next one begin: then several may.
const PACE: Duration = Duration::from_millis(10);

/// What a claim has left in the store, as far as it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing that there was room for.
    Nothing,
    /// Perhaps some that there was no room for.
    Some,
    /// Perhaps some that there is room for.
    More,
}

impl Left {
    pub(super) fn by(request: &ClaimRequest, claims: &[Claimed]) -> Self {
        if request.alone {
            return Self::Nothing;
        }
        let mut taken: HashMap<String, usize> = HashMap::new();
        let mut agents = 0;
        for (target, n) in runs(claims.iter().map(|claim| &claim.target)) {
            *taken.entry(queue_of(target)).or_default() += n;
            agents += if matches!(target, Target::Agent { .. }) { n } else { 0 };
        }
        let tools = claims.len() - agents;
        let is_used = |n: usize, room: usize| n >= room && room > 0;
        if is_used(agents, request.agents) || is_used(tools, request.tools) {
            return Self::More;
        }
        let bound = |name: &str, at_most: usize| taken.get(name).copied().unwrap_or(0) >= at_most;
        let held_back = request.agents == 0
            || request.tools == 0
            || !request.except.is_empty()
            || request.queues.iter().any(|queue| bound(&queue.name, queue.at_most))
            || request.each.is_some_and(|each| most_for_one(claims) >= each);
        if held_back { Self::Some } else { Self::Nothing }
    }
}

/// Whether a claim has taken the last slots, and perhaps left tools' tasks for which there is none: a node that had none
/// before it knows of nothing new.
pub(super) fn overflows(request: &ClaimRequest, left: Left, free_slots: usize) -> bool {
    request.tools > 0 && left == Left::More && free_slots == 0
}

/// How many of them are for the agent that has the most.
fn most_for_one(claims: &[Claimed]) -> usize {
    let mut taken: HashMap<&Target, usize> = HashMap::new();
    let agents =
        claims.iter().map(|claim| &claim.target).filter(|target| matches!(target, Target::Agent { .. }));
    agents.for_each(|target| *taken.entry(target).or_default() += 1);
    taken.into_values().max().unwrap_or(0)
}

/// The kinds of which a claim has brought as many as it could.
pub(super) fn used_up(request: &ClaimRequest, claims: &[Claimed]) -> Vec<String> {
    let mut taken: HashMap<&str, usize> = HashMap::new();
    for claim in claims {
        if let Target::Agent { kind, .. } = &claim.target {
            *taken.entry(kind).or_default() += 1;
        }
    }
    let is_used_up = |queue: &&Queue| {
        queue.at_most > 0 && taken.get(&*queue.name).is_some_and(|taken| *taken >= queue.at_most)
    };
    request.queues.iter().filter(is_used_up).map(|queue| queue.name.clone()).collect()
}

/// How long nothing is claimed, so that a task may run alone: what runs may take hours.
const PATIENCE: Duration = Duration::from_secs(60);
/// After such a time it is tried again.
const IMPATIENCE: Duration = Duration::from_secs(300);

/// A task that is to run alone, and the wait for everything else to end.
#[derive(Debug, Default)]
pub(super) struct Alone {
    /// It runs.
    pub(super) runs: Option<TaskId>,
    /// When the wait began, by the node's uptime.
    since: Option<Duration>,
}

impl Alone {
    /// Whether nothing is to be claimed now: it waits a while, lets the others have a while, and begins again.
    fn waits(&mut self, now: Duration) -> bool {
        let since = *self.since.get_or_insert(now);
        if now >= since + PATIENCE + IMPATIENCE {
            self.since = Some(now);
            return true;
        }
        now < since + PATIENCE
    }
}

/// What bounds the kinds and tools of a node.
pub(super) fn shares(node: &Node) -> Shares {
    let mut shares = Shares::default();
    for kind in &node.kinds {
        shares.know(kind.name().to_owned(), kind.policy().bounds);
    }
    for (name, tool) in &node.tools {
        shares.know(format!("tool:{name}"), tool.bounds());
    }
    shares
}

impl Dispatcher {
    /// How much there is room for; `None`: for nothing.
    pub(super) fn request(&mut self) -> Option<ClaimRequest> {
        if self.alone.runs.is_some() {
            self.offer();
            return None;
        }
        if self.suspects {
            // One that may kill the process runs when nothing else does.
            let coming = self.offer();
            let now = self.node.uptime();
            if self.agent_claims + self.tool_claims + coming == 0 {
                self.alone.since = None;
                let queues = self.shares.turns(1, now);
                let queues = self.open(queues);
                if queues.is_empty() {
                    return None;
                }
                return Some(ClaimRequest {
                    agents: 1,
                    tools: 1,
                    queues,
                    alone: true,
                    ..ClaimRequest::default()
                });
            }
            if self.alone.waits(now) {
                return None;
            }
        } else {
            self.alone.since = None;
        }
        let slots = self.free_slots().saturating_sub(self.offer());
        let free = MAX_AGENT_CLAIMS.saturating_sub(self.agent_claims);
        let (agents, tools) = (free.min(CLAIM_BATCH), slots.min(CLAIM_BATCH));
        if agents + tools == 0 {
            return None;
        }
        let each = each_of(free);
        let except = self.shares.holders(each);
        let look = if std::mem::take(&mut self.looks_far) { FAR_LOOK } else { LOOK };
        let queues = self.shares.turns(free, self.node.uptime());
        let queues = self.open(queues);
        if queues.is_empty() {
            return None; // it has no kinds and no tools, or all are paused
        }
        let once = self.node.tools.iter().filter(|(_, tool)| tool.effect() == Effect::Once);
        let durable = once.map(|(name, _)| format!("tool:{name}")).collect();
        let (each, look) = (Some(each), Some(look));
        Some(ClaimRequest { agents, tools, except, each, look, queues, durable, alone: false })
    }

    /// Comes back when a rate that is used up lets the next one begin.
    pub(super) fn keep_pace(&mut self, ctx: &mut Context<Self>) {
        if self.paced {
            return;
        }
        let Some(wait) = self.shares.opens_in(self.node.uptime()) else { return };
        self.paced = true;
        ctx.run_later(wait.max(PACE), |this, ctx| {
            this.paced = false;
            this.ready = true;
            this.claim(ctx);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(of: &[(Target, usize)]) -> Vec<Claimed> {
        of.iter().flat_map(|(target, n)| (0..*n).map(|_| Claimed::first(target.clone()))).collect()
    }

    #[test]
    fn what_is_to_run_alone_holds_up_the_others_for_a_while_only() {
        let (mut alone, begun) = (Alone::default(), Duration::from_secs(7));
        assert!(alone.waits(begun) && alone.waits(begun + PATIENCE / 2));
        assert!(!alone.waits(begun + PATIENCE), "what runs may take hours");
        assert!(!alone.waits(begun + PATIENCE * 2));
        let again = begun + PATIENCE + IMPATIENCE;
        assert!(alone.waits(again) && alone.waits(again + PATIENCE / 2), "it is tried again");
        assert!(!alone.waits(again + PATIENCE));
    }

    /// Else nodes that are all full would wake one another for ever.
    #[test]
    fn only_a_claim_that_fills_a_node_overflows_it() {
        let asked = |tools| ClaimRequest { tools, ..ClaimRequest::default() };
        assert!(overflows(&asked(5), Left::More, 0));
        assert!(!overflows(&asked(0), Left::Some, 0) && !overflows(&asked(0), Left::More, 0));
        assert!(!overflows(&asked(5), Left::More, 1) && !overflows(&asked(5), Left::Nothing, 0));
    }

    #[test]
    fn a_claim_tells_whether_anything_may_be_left() {
        let agent = |kind: &str| Target::agent(kind, "a");
        let asked = || ClaimRequest { agents: 10, tools: 5, ..ClaimRequest::default() };
        assert_eq!(Left::by(&asked(), &claims(&[(agent("a"), 9)])), Left::Nothing);
        assert_eq!(Left::by(&asked(), &claims(&[(agent("a"), 4), (agent("b"), 6)])), Left::More);
        assert_eq!(Left::by(&asked(), &claims(&[(Target::Tool("t".into()), 5)])), Left::More);
        let no_slots = ClaimRequest { tools: 0, ..asked() };
        assert_eq!(Left::by(&no_slots, &claims(&[])), Left::Some, "nobody looked for tools' tasks");
        let bound = |at_most| {
            let queues = vec![Queue { name: "tool:t".into(), at_most }];
            ClaimRequest { queues, ..asked() }
        };
        assert_eq!(Left::by(&bound(2), &claims(&[(Target::Tool("t".into()), 2)])), Left::Some);
        assert_eq!(Left::by(&bound(2), &claims(&[(Target::Tool("t".into()), 1)])), Left::Nothing);
        assert_eq!(Left::by(&bound(0), &claims(&[])), Left::Some, "it may have some");
        let each = |each| ClaimRequest { each: Some(each), ..asked() };
        assert_eq!(Left::by(&each(3), &claims(&[(agent("a"), 3)])), Left::Some, "the agent may have more");
        assert_eq!(Left::by(&each(4), &claims(&[(agent("a"), 3), (agent("b"), 3)])), Left::Nothing);
    }
}
