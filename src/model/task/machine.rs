//! The only place that decides the transitions of a task.
//!
//! ```text
//!            parents done             due                claim
//!  blocked ───────────────▶ scheduled ────▶ ready ◀──────────────▶ running ──▶ succeeded
//!     │  └──────────────────────────────────▶ │ ▲    given back,     │  │
//!     │                          ▲            │ │    lost            │  ├─────▶ failed ───┐
//!     │                          └────────────┼─┼──── retry ─────────┤  │                 │ a person's
//!     │            target stops ┌─────────────┘ │                    │  └─────▶ cancelled ┤ retry
//!     │                         ▼               │ signal             ▼                    │
//!     │                      parked ────────────┤◀──────────── waiting                    ▼
//!     │        target runs (scheduled: not due) │                                       ready
//!     ▼                                         └◀── confirmed retry ── outcome_unknown
//!  cancelled  (from every state but the final ones)                      └▶ resolved: succeeded, failed
//! ```
//!
//! A person may also dismiss what has failed: then it is cancelled.

use super::TaskState;

/// What can happen to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskInput {
    /// A task that it comes after has ended, and counts as done.
    ParentDone {
        /// How many are still open.
        open: u32,
        /// Whether its own time lies in the future.
        later: bool,
    },
    /// A task that it comes after has not succeeded, and its policy is to end with it.
    ParentFailed,
    /// Its time has come.
    Due,
    /// It had not started when it expired.
    Expired,
    /// Its target was paused, stopped or quarantined. From `running`: the attempt is given back.
    TargetStopped,
    /// Its target may run again.
    TargetRuns {
        /// Whether its own time lies in the future.
        later: bool,
    },
    /// A node claims it (attempt + 1).
    Claimed,
    /// The attempt ended well.
    Succeeded,
    /// The attempt failed, and another is left.
    Retry,
    /// The attempt failed, and none is left.
    Failed,
    /// It waits for a signal.
    WaitFor,
    /// The signal came.
    Signalled,
    /// The signal did not come in time, and its policy is to run all the same.
    WaitEnded,
    /// The node knows that the work did not start (attempt − 1).
    GivenBack,
    /// Its node died (lost + 1).
    Lost,
    /// A `once` effect was started and not seen to end.
    Interrupted,
    /// It is made a dead letter without another attempt: lost too often while it ran alone,
    /// unreadable, or its wait ended by policy.
    DeadLetter,
    /// A person cancels it. A running one is flagged, and goes on to its finish.
    Cancel,
    /// The finish of a running task that was flagged.
    CancelSeen,
    /// A person says that it had succeeded.
    ResolvedSucceeded,
    /// A person says that it had failed.
    ResolvedFailed,
    /// A person brings it back.
    RetryByPerson,
    /// It came back, and one that it comes after has not ended, or came back too.
    WaitsAgain,
    /// A person wants to hear no more of a dead letter.
    Dismissed,
}

impl TaskInput {
    /// Every input, each shape once.
    pub const ALL: [TaskInput; 27] = [
        Self::ParentDone { open: 1, later: false },
        Self::ParentDone { open: 0, later: true },
        Self::ParentDone { open: 0, later: false },
        Self::ParentFailed,
        Self::Due,
        Self::Expired,
        Self::TargetStopped,
        Self::TargetRuns { later: true },
        Self::TargetRuns { later: false },
        Self::Claimed,
        Self::Succeeded,
        Self::Retry,
        Self::Failed,
        Self::WaitFor,
        Self::Signalled,
        Self::WaitEnded,
        Self::GivenBack,
        Self::Lost,
        Self::Interrupted,
        Self::DeadLetter,
        Self::Cancel,
        Self::CancelSeen,
        Self::ResolvedSucceeded,
        Self::ResolvedFailed,
        Self::RetryByPerson,
        Self::WaitsAgain,
        Self::Dismissed,
    ];
}

/// An input that a task in this state does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task that is {} does not take {input:?}", state.name())]
pub struct Illegal {
    /// Where the task stands.
    pub state: TaskState,
    /// What it was given.
    pub input: TaskInput,
}

/// Where a task in `state` stands after `input`.
///
/// # Errors
/// [`Illegal`] where the input makes no sense in that state: nothing may change then.
pub fn next(state: TaskState, input: TaskInput) -> Result<TaskState, Illegal> {
    use TaskInput as I;
    use TaskState as S;
    Ok(match (state, input) {
        (S::Blocked, I::ParentDone { open: 1.., .. }) => S::Blocked,
        (S::Blocked, I::ParentDone { later: true, .. }) => S::Scheduled,
        (S::Blocked, I::ParentDone { .. }) => S::Ready,
        (S::Blocked, I::ParentFailed) => S::Cancelled,
        (S::Blocked, I::Expired | I::Cancel) => S::Cancelled,

        (S::Scheduled, I::Due) => S::Ready,
        (S::Scheduled, I::TargetStopped) => S::Parked,
        (S::Scheduled, I::Expired | I::Cancel) => S::Cancelled,
        (S::Scheduled, I::DeadLetter) => S::Failed,

        (S::Ready, I::Claimed) => S::Running,
        (S::Ready, I::WaitsAgain) => S::Blocked,
        (S::Ready, I::TargetStopped) => S::Parked,
        (S::Ready, I::Expired | I::Cancel) => S::Cancelled,
        (S::Ready, I::DeadLetter) => S::Failed,
        // It was lost, and what it had begun takes effect once.
        (S::Ready | S::Scheduled | S::Waiting, I::Interrupted) => S::OutcomeUnknown,

        (S::Running, I::Succeeded) => S::Succeeded,
        (S::Running, I::Retry) => S::Scheduled,
        (S::Running, I::Failed | I::DeadLetter) => S::Failed,
        (S::Running, I::WaitFor) => S::Waiting,
        (S::Running, I::GivenBack | I::Lost) => S::Ready,
        (S::Running, I::TargetStopped) => S::Parked,
        (S::Running, I::Interrupted) => S::OutcomeUnknown,
        (S::Running, I::Cancel) => S::Running,
        (S::Running, I::CancelSeen) => S::Cancelled,

        (S::Waiting, I::Signalled | I::WaitEnded) => S::Ready,
        (S::Waiting, I::DeadLetter) => S::Failed,
        (S::Waiting, I::Cancel) => S::Cancelled,

        (S::Parked, I::TargetRuns { later: true }) => S::Scheduled,
        (S::Parked, I::TargetRuns { later: false }) => S::Ready,
        (S::Parked, I::DeadLetter) => S::Failed,
        (S::Parked, I::Expired | I::Cancel) => S::Cancelled,

        (S::OutcomeUnknown, I::ResolvedSucceeded) => S::Succeeded,
        (S::OutcomeUnknown, I::ResolvedFailed) => S::Failed,
        (S::OutcomeUnknown, I::RetryByPerson) => S::Ready,
        (S::OutcomeUnknown, I::Cancel) => S::Cancelled,

        (S::Failed | S::Cancelled, I::RetryByPerson) => S::Ready,
        (S::Failed, I::Dismissed) => S::Cancelled,

        (
            S::Blocked
            | S::Scheduled
            | S::Ready
            | S::Running
            | S::Waiting
            | S::Parked
            | S::OutcomeUnknown
            | S::Succeeded
            | S::Failed
            | S::Cancelled,
            input,
        ) => return Err(Illegal { state, input }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inputs() -> impl Strategy<Value = TaskInput> {
        prop::sample::select(TaskInput::ALL.to_vec())
    }

    fn states() -> impl Strategy<Value = TaskState> {
        prop::sample::select(TaskState::ALL.to_vec())
    }

    #[test]
    fn the_table_is_the_table() {
        use TaskInput as I;
        use TaskState as S;
        let legal: Vec<(S, I, S)> = S::ALL
            .into_iter()
            .flat_map(|s| I::ALL.map(|i| (s, i)))
            .filter_map(|(s, i)| next(s, i).ok().map(|to| (s, i, to)))
            .collect();
        let row = |s: S| {
            legal.iter().filter(|(from, ..)| *from == s).map(|(_, i, to)| (*i, *to)).collect::<Vec<_>>()
        };
        assert_eq!(
            row(S::Blocked),
            [
                (I::ParentDone { open: 1, later: false }, S::Blocked),
                (I::ParentDone { open: 0, later: true }, S::Scheduled),
                (I::ParentDone { open: 0, later: false }, S::Ready),
                (I::ParentFailed, S::Cancelled),
                (I::Expired, S::Cancelled),
                (I::Cancel, S::Cancelled),
            ]
        );
        assert_eq!(
            row(S::OutcomeUnknown),
            [
                (I::Cancel, S::Cancelled),
                (I::ResolvedSucceeded, S::Succeeded),
                (I::ResolvedFailed, S::Failed),
                (I::RetryByPerson, S::Ready),
            ]
        );
        assert_eq!(row(S::Succeeded), []);
        assert_eq!(row(S::Failed), [(I::RetryByPerson, S::Ready), (I::Dismissed, S::Cancelled)]);
        assert_eq!(legal.len(), 47);
    }

    proptest! {
        #[test]
        fn final_states_are_left_by_a_person_alone(state in states(), input in inputs()) {
            if state.is_final() {
                match next(state, input) {
                    Ok(TaskState::Cancelled) => {
                        prop_assert_eq!((state, input), (TaskState::Failed, TaskInput::Dismissed));
                    }
                    Ok(to) => {
                        prop_assert_eq!(input, TaskInput::RetryByPerson);
                        prop_assert_eq!(to, TaskState::Ready);
                        prop_assert!(state != TaskState::Succeeded);
                    }
                    Err(illegal) => prop_assert_eq!(illegal, Illegal { state, input }),
                }
            }
        }

        #[test]
        fn only_a_claim_starts_a_task(state in states(), input in inputs()) {
            if next(state, input) == Ok(TaskState::Running) && state != TaskState::Running {
                prop_assert_eq!((state, input), (TaskState::Ready, TaskInput::Claimed));
            }
        }

        #[test]
        fn nothing_unfinished_can_be_stuck(walk in prop::collection::vec(inputs(), 0..60), blocked in any::<bool>()) {
            let mut state = if blocked { TaskState::Blocked } else { TaskState::Ready };
            for input in walk {
                state = next(state, input).unwrap_or(state);
            }
            // wherever it has got to, a person's cancel (and the finish of a running one) ends it
            if !state.is_final() {
                state = next(state, TaskInput::Cancel).unwrap();
                if state == TaskState::Running {
                    state = next(state, TaskInput::CancelSeen).unwrap();
                }
            }
            prop_assert!(state.is_final());
        }
    }
}
