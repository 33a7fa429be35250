//! Groups: agents that are supervised together, like the children of an OTP supervisor.
//!
//! Each member has a restart intensity of its own; each crash of a member counts against the group's. A
//! group that has used up its restarts is restarted whole by the root, and a root that has done so too
//! often ends the node.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::supervision::{Budget, Decision, Restart, RestartPolicy, decide};

/// Who is restarted when a member has crashed.
///
/// As in [OTP](https://www.erlang.org/doc/system/sup_princ.html#restart-strategy), among those in memory. Their
/// order is that of their kinds in the program, and within a kind that of their keys: leaving memory and coming
/// back gives nobody another place.
///
/// Members that are restarted stop one after the other, in the reverse of that order, and start one after the other, in
/// it, the one that crashed in its place. A turn that runs when its agent is to stop has its kind's `stop_timeout` (5 s)
/// to end, and is cut short then; `on_stop` has it again. Whoever takes longer than both to stop, or than 10 s to start,
/// of many a share of 60 s, is not waited for. Where members crash while others are restarted, the later restart goes on with all that it takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The one that crashed.
    #[default]
    OneForOne,
    /// All that are in memory.
    OneForAll,
    /// The one that crashed, and those behind it.
    RestForOne,
}

impl Strategy {
    /// The name on every surface.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::OneForAll => "one_for_all",
            Self::RestForOne => "rest_for_one",
        }
    }

    /// Whether a member at this place is restarted when one at that place has crashed.
    pub fn takes_along<P: Ord>(self, crashed: P, member: P) -> bool {
        match self {
            Self::OneForOne => false,
            Self::OneForAll => member != crashed,
            Self::RestForOne => member > crashed,
        }
    }
}

/// How a group is supervised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPolicy {
    /// Who is restarted with whom.
    pub strategy: Strategy,
    /// At most so many crashes of its members …
    pub max_restarts: u32,
    /// … in any window of this length.
    pub within: Duration,
}

/// What becomes of a group after a crash in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Members are restarted as its strategy says.
    Restart {
        /// Which restart of the window this is, from 1.
        attempt: u32,
    },
    /// It cannot help itself: its own supervisor decides.
    Escalate {
        /// How many restarts the window holds.
        attempts: u32,
    },
}

/// Judges a crash in a group, and counts it. `gave_up`: the member has used up its own restarts, which the
/// group cannot mend by restarting it once more.
pub fn judge(policy: &GroupPolicy, budget: &mut Budget, gave_up: bool, now: Duration) -> Verdict {
    if gave_up {
        return Verdict::Escalate { attempts: budget.used() };
    }
    let intensity = RestartPolicy {
        max_restarts: policy.max_restarts,
        within: policy.within,
        backoff_min: Duration::ZERO,
        backoff_max: Duration::ZERO,
        restart: Restart::Permanent,
    };
    match decide(&intensity, budget, 1, now, 1.0) {
        Decision::Restart { attempt, .. } => Verdict::Restart { attempt },
        Decision::Exceeded { attempts } => Verdict::Escalate { attempts },
        Decision::Leave => Verdict::Escalate { attempts: 0 }, // not of a permanent one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_says_who_goes_with_whom() {
        let along = |strategy: Strategy| (0..4).filter(|m| strategy.takes_along(1, *m)).collect::<Vec<_>>();
        assert_eq!(along(Strategy::OneForOne), [0u64; 0]);
        assert_eq!(along(Strategy::OneForAll), [0, 2, 3]);
        assert_eq!(along(Strategy::RestForOne), [2, 3]);
    }

    #[test]
    fn a_group_escalates_when_its_crashes_or_a_members_are_too_many() {
        let policy =
            GroupPolicy { strategy: Strategy::OneForAll, max_restarts: 2, within: Duration::from_secs(10) };
        let (mut budget, at) = (Budget::new(), Duration::from_secs);
        assert_eq!(judge(&policy, &mut budget, false, at(1)), Verdict::Restart { attempt: 1 });
        assert_eq!(judge(&policy, &mut budget, true, at(1)), Verdict::Escalate { attempts: 1 });
        assert_eq!(judge(&policy, &mut budget, false, at(2)), Verdict::Restart { attempt: 2 });
        assert_eq!(judge(&policy, &mut budget, false, at(3)), Verdict::Escalate { attempts: 2 });
        assert_eq!(judge(&policy, &mut budget, false, at(11)), Verdict::Restart { attempt: 2 });
    }
}
