//! Kinds and tools that are paused, or stopped on this node: what it has claimed of them and not begun goes back.

use std::{collections::HashSet, sync::Arc};

use actix::prelude::*;

use super::Dispatcher;
use crate::model::task::{Claimed, Queue, queue_of};

impl Dispatcher {
    /// Nothing of these begins from now on. `true`: something of others may begin again.
    pub(super) fn pause(&mut self, paused: HashSet<String>, ctx: &mut Context<Self>) -> bool {
        let resumed = self.paused.iter().any(|queue| !paused.contains(queue));
        self.paused = paused;
        if self.paused.is_empty() {
            return resumed;
        }
        let paused = self.running.values().filter(|running| self.is_paused(&running.claim));
        let mut recalled: Vec<_> = paused.map(|running| (running.claim.seq, &running.recall)).collect();
        // The newest first: of an agent's tasks that begin meanwhile none is before one that goes back.
        recalled.sort_by_key(|(seq, _)| std::cmp::Reverse(*seq));
        recalled.iter().for_each(|(_, recall)| recall.cancel());
        let mut back = Vec::new();
        for (target, waiting) in std::mem::take(&mut self.full) {
            match waiting.front().is_some_and(|claim| self.is_paused(claim)) {
                true => back.extend(waiting),
                false => drop(self.full.insert(target, waiting)),
            }
        }
        self.give_back(back, ctx);
        resumed
    }

    fn is_paused(&self, claim: &Claimed) -> bool {
        !self.paused.is_empty() && self.paused.contains(&queue_of(&claim.target))
    }

    /// Those that may begin; the others, claimed before anybody here knew of the pause, go back.
    pub(super) fn unless_paused(
        &mut self,
        claims: Vec<Arc<Claimed>>,
        ctx: &mut Context<Self>,
    ) -> Vec<Arc<Claimed>> {
        if self.paused.is_empty() {
            return claims;
        }
        let (paused, open) = claims.into_iter().partition(|claim| self.is_paused(claim));
        self.give_back(paused, ctx);
        open
    }

    /// Those of which something may be claimed.
    pub(super) fn open(&self, mut queues: Vec<Queue>) -> Vec<Queue> {
        queues.retain(|queue| !self.paused.contains(&queue.name));
        queues
    }
}
