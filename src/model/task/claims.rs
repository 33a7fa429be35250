//! The claims that a node holds: no task runs twice at the same time on it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Claimed, TaskId};

/// What tells a claim from every other: each claim draws a number, and none draws one again. (The attempt
/// does not: it goes back with a claim that did not start.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ClaimId(pub i64);

/// A claim as the store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldClaim {
    /// Of which task.
    pub id: TaskId,
    /// Which claim.
    pub claim: ClaimId,
    /// Somebody wants it cancelled.
    pub cancel: bool,
}

/// The claims that a node holds: of tasks that run, wait for room, or are about to be recorded or given
/// back.
///
/// A claim that goes back lowers the attempt, so that the next claim has the same one, by which ends are
/// told apart; and a claim that nobody here knows of, since no answer came, may be there all the same.
#[derive(Debug, Default)]
pub struct Claims {
    held: HashSet<TaskId>,
    /// Claimed again before it was heard that their last claim had gone back.
    early: HashMap<TaskId, Arc<Claimed>>,
}

impl Claims {
    /// Takes a claim in. `true`: it may begin. `false`: it waits here for the end of the claim before it, since
    /// both may have the same attempt: whoever ended the first one would end this one too.
    #[must_use = "it may have to wait"]
    pub fn take_in(&mut self, claim: &Arc<Claimed>) -> bool {
        let is_alone = self.held.insert(claim.id);
        if !is_alone {
            self.early.insert(claim.id, claim.clone());
        }
        is_alone
    }

    /// A claim has ended: it is recorded, or has gone back. The answer is to be taken in next.
    #[must_use = "it waits to be taken in"]
    pub fn end(&mut self, id: TaskId) -> Option<Arc<Claimed>> {
        self.held.remove(&id);
        self.early.remove(&id)
    }

    /// Of what the store says runs here, with its claims, that of which nobody here knows: the answer to
    /// the claim was lost. It is to be asked while nothing is being claimed.
    pub fn strays(&self, running: &[HeldClaim]) -> Vec<(TaskId, ClaimId)> {
        let unknown = running.iter().filter(|held| !self.held.contains(&held.id));
        unknown.map(|held| (held.id, held.claim)).collect()
    }
}

/// Whether a claim whose return was not answered is given back once more.
///
/// It may have gone back, or may yet: a return names its claim, so that one that is late, or repeated, takes
/// nothing from whoever claims the task next. A node that goes on lets it go all the same, and looks for
/// what is left when nothing is being claimed ([`Claims::strays`]), for all such claims at once. One that
/// goes down looks for nothing any more, and its next boot would find the claim lost: that one tries again.
pub fn returns_again(is_closing: bool) -> bool {
    is_closing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Target;

    fn claim(id: TaskId, attempt: u32) -> Arc<Claimed> {
        Arc::new(Claimed {
            id,
            attempt,
            claim: ClaimId(i64::from(attempt)),
            ..Claimed::first(Target::agent("porter", "a"))
        })
    }

    #[test]
    fn a_claim_that_comes_early_waits_for_the_end_of_the_one_before() {
        let (mut claims, id) = (Claims::default(), TaskId::fresh());
        assert!(claims.take_in(&claim(id, 1)));
        assert!(!claims.take_in(&claim(id, 1)), "it would run beside itself");
        let next = claims.end(id).expect("it waits");
        assert!(claims.take_in(&next));
        assert!(claims.end(id).is_none());
    }

    #[test]
    fn a_stray_is_what_nobody_knows_of() {
        let (mut claims, held, stray) = (Claims::default(), TaskId::fresh(), TaskId::fresh());
        assert!(claims.take_in(&claim(held, 2)));
        let (one, two) = (ClaimId(1), ClaimId(2));
        let known = |id, claim| HeldClaim { id, claim, cancel: false };
        assert_eq!(claims.strays(&[known(held, two), known(stray, one)]), [(stray, one)]);
        assert!(claims.end(held).is_none());
        assert_eq!(claims.strays(&[known(held, two)]), [(held, two)]);
    }

    #[test]
    fn only_a_node_that_claims_nothing_more_gives_a_claim_back_again() {
        assert!(returns_again(true) && !returns_again(false));
    }
}
