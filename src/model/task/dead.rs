//! Tasks that ended badly, and which of them are meant.

use super::TaskState;
use crate::model::id::{Target, TaskId};

/// A task that failed or was cancelled, without its payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadTask {
    /// Its identity.
    pub id: TaskId,
    /// `failed` or `cancelled`.
    pub state: TaskState,
    /// Whom it was for.
    pub target: Target,
    /// Its labels.
    pub tags: Vec<String>,
}

/// Which of them are meant: those for which all that is given holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadFilter {
    /// `failed` or `cancelled`.
    pub state: TaskState,
    /// Only this target.
    pub target: Option<Target>,
    /// Only with this label.
    pub tag: Option<String>,
}

impl DeadFilter {
    /// Whether the task is meant.
    pub fn takes(&self, task: &DeadTask) -> bool {
        self.state == task.state
            && self.target.as_ref().is_none_or(|target| *target == task.target)
            && self.tag.as_ref().is_none_or(|tag| task.tags.contains(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_that_for_which_all_holds() {
        let task = DeadTask {
            id: TaskId::fresh(),
            state: TaskState::Failed,
            target: Target::agent("tally", "a"),
            tags: vec!["eu".to_owned(), "night".to_owned()],
        };
        let all = DeadFilter { state: TaskState::Failed, target: None, tag: None };
        let whole =
            DeadFilter { target: Some(task.target.clone()), tag: Some("night".to_owned()), ..all.clone() };
        assert!(all.takes(&task) && whole.takes(&task));
        for other in [
            DeadFilter { state: TaskState::Cancelled, ..whole.clone() },
            DeadFilter { target: Some(Target::agent("tally", "b")), ..whole.clone() },
            DeadFilter { tag: Some("nigh".to_owned()), ..whole },
        ] {
            assert!(!other.takes(&task), "{other:?}");
        }
    }
}
