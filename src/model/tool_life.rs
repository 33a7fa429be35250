//! The lives of a tool: which of its crashes count, and what follows from them.
//!
//! A tool keeps no state, and its calls run beside each other: a crash ends one call and harms no other. So it is not
//! stopped because some of its callers send what it cannot take, but because it does not work:
//!
//! - a call that ends well clears what was counted, for it shows that the tool works;
//! - the calls that ran when it crashed are of the life that ended with that crash. Of a hundred that meet one fault
//!   together one counts, as it would if they were in a process of their own that went down with them.

use std::time::Duration;

use super::supervision::{Budget, Decision, RestartPolicy, decide};

/// The lives of one tool; each ends with a crash that counts.
#[derive(Debug, Clone, Default)]
pub struct ToolLife {
    budget: Budget,
    /// Crashes in a row.
    streak: u32,
    /// Those of them that counted.
    counted: u32,
    nth: u64,
    /// What followed from the end of the life before.
    last: Option<Decision>,
}

/// What a crash of a call comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// What happens next.
    pub decision: Decision,
    /// How many crashes in a row this is, without a call in between that ended well; from 1.
    pub repeat: u32,
    /// Whether it has ended a life; else the one that did had ended this call's.
    pub counts: bool,
}

impl ToolLife {
    /// Which life this is: that of the calls which begin now.
    pub fn nth(&self) -> u64 {
        self.nth
    }

    /// A call has ended well: nothing counts any more.
    pub fn works(&mut self) {
        if self.streak > 0 {
            (self.streak, self.counted) = (0, 0);
            self.budget.reset();
        }
    }

    /// A call that began in the life `of` has crashed. `now` and `jitter`: see [`decide`].
    pub fn crashed(&mut self, of: u64, policy: &RestartPolicy, now: Duration, jitter: f64) -> Judged {
        self.streak = self.streak.saturating_add(1);
        let repeat = self.streak;
        if let (Some(decision), true) = (self.last, of < self.nth) {
            return Judged { decision, repeat, counts: false };
        }
        self.counted = self.counted.saturating_add(1);
        let decision = decide(policy, &mut self.budget, self.counted, now, jitter);
        self.nth += 1;
        self.last = Some(decision);
        Judged { decision, repeat, counts: true }
    }

    /// An operator has restarted it: nothing counts any more.
    pub fn forgive(&mut self) {
        *self = Self { nth: self.nth + 1, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(7);

    fn policy(max_restarts: u32) -> RestartPolicy {
        RestartPolicy { max_restarts, ..RestartPolicy::default() }
    }

    fn crash(life: &mut ToolLife, of: u64) -> Judged {
        life.crashed(of, &policy(2), NOW, 1.0)
    }

    #[test]
    fn a_tool_that_does_not_work_is_stopped_and_one_that_some_misuse_is_not() {
        let mut life = ToolLife::default();
        for n in 1..=2 {
            let nth = life.nth();
            let judged = crash(&mut life, nth);
            assert!(matches!(judged.decision, Decision::Restart { attempt, .. } if attempt == n));
            assert_eq!((judged.repeat, judged.counts), (n, true));
        }
        let nth = life.nth();
        assert_eq!(crash(&mut life, nth).decision, Decision::Exceeded { attempts: 2 });
        let mut life = ToolLife::default();
        for _ in 0..1_000 {
            for repeat in 1..=2 {
                let nth = life.nth();
                assert_eq!(crash(&mut life, nth).repeat, repeat);
            }
            life.works();
        }
    }

    #[test]
    fn the_back_off_grows_with_what_counts() {
        let (mut life, policy) = (ToolLife::default(), policy(9));
        let mut delay = |of: u64| match life.crashed(of, &policy, NOW, 1.0).decision {
            Decision::Restart { delay, .. } => delay,
            other => panic!("{other:?}"),
        };
        let first = delay(0);
        assert_eq!((0..20).map(|_| delay(0)).max(), Some(first), "they are of the life that has ended");
        assert_eq!((delay(1), delay(2)), (first * 2, first * 4));
    }

    #[test]
    fn calls_that_crash_together_are_one_crash() {
        let mut life = ToolLife::default();
        let first = crash(&mut life, 0);
        for n in 2..=100 {
            let judged = crash(&mut life, 0);
            assert_eq!((judged.decision, judged.repeat, judged.counts), (first.decision, n, false));
        }
        assert!(crash(&mut life, 1).counts);
    }

    #[test]
    fn who_is_forgiven_begins_anew_and_what_crashes_afterwards_counts() {
        let mut life = ToolLife::default();
        for of in 0..3 {
            crash(&mut life, of);
        }
        assert_eq!(crash(&mut life, 2).decision, Decision::Exceeded { attempts: 2 }, "it ran before");
        life.forgive();
        let judged = crash(&mut life, 2);
        assert!(judged.counts && matches!(judged.decision, Decision::Restart { attempt: 1, .. }));
        assert_eq!(judged.repeat, 1);
    }

    proptest! {
        #[test]
        fn it_is_stopped_by_crashes_of_its_own_lives_alone(
            max in 0u32..6,
            steps in prop::collection::vec((0u64..4, any::<bool>()), 0..200),
        ) {
            let (policy, mut life, mut in_a_row) = (policy(max), ToolLife::default(), 0);
            for (back, well) in steps {
                if well {
                    life.works();
                    in_a_row = 0;
                    continue;
                }
                let nth = life.nth();
                let judged = life.crashed(nth.saturating_sub(back), &policy, NOW, 1.0);
                prop_assert_eq!(judged.counts, life.nth() > nth);
                prop_assert!(judged.counts || back > 0, "one of this life counts");
                in_a_row += u32::from(judged.counts);
                if judged.counts {
                    let is_over = matches!(judged.decision, Decision::Exceeded { .. });
                    prop_assert_eq!(is_over, in_a_row > max);
                    if is_over {
                        life.forgive();
                        in_a_row = 0;
                    }
                }
            }
        }
    }
}
