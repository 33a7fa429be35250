//! Dead letters, and filters for them.

use super::TaskState;
use crate::model::{
    id::{Target, TaskId},
    targets::Targets,
};

/// The code of a task that took its node down each time it ran.
pub const POISON: &str = "poison";

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
    /// The code of its error, where it has one.
    pub code: Option<String>,
}

/// Which of them are meant: those for which all that is given holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadFilter {
    /// `failed` or `cancelled`.
    pub state: TaskState,
    /// Only these targets.
    pub target: Option<Targets>,
    /// Only with this label.
    pub tag: Option<String>,
    /// Only with this code. Poison is meant where it is named so, or `poison` says so.
    pub code: Option<String>,
    /// Whether what took its node down is meant without being named.
    pub poison: bool,
}

impl DeadFilter {
    /// Whether the task is meant.
    pub fn takes(&self, task: &DeadTask) -> bool {
        self.fits(task) && !self.leaves_out(task)
    }

    /// Whether all that is given holds, and it is left out because it took its node down: that must be named.
    pub fn leaves_out(&self, task: &DeadTask) -> bool {
        let is_poison = task.code.as_deref() == Some(POISON);
        is_poison && !self.poison && self.code.is_none() && self.fits(task)
    }

    fn fits(&self, task: &DeadTask) -> bool {
        self.state == task.state
            && self.target.as_ref().is_none_or(|targets| targets.takes(&task.target))
            && self.tag.as_ref().is_none_or(|tag| task.tags.contains(tag))
            && self.code.as_ref().is_none_or(|code| task.code.as_ref() == Some(code))
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
            code: Some("timed_out".to_owned()),
        };
        let all = DeadFilter { state: TaskState::Failed, target: None, tag: None, code: None, poison: false };
        let whole = DeadFilter {
            target: Some(task.target.clone().into()),
            tag: Some("night".to_owned()),
            code: Some("timed_out".to_owned()),
            ..all.clone()
        };
        assert!(all.takes(&task) && whole.takes(&task));
        for other in [
            DeadFilter { state: TaskState::Cancelled, ..whole.clone() },
            DeadFilter { target: Some(Target::agent("tally", "b").into()), ..whole.clone() },
            DeadFilter { code: Some("handler_failed".to_owned()), ..whole.clone() },
            DeadFilter { tag: Some("nigh".to_owned()), ..whole },
        ] {
            assert!(!other.takes(&task), "{other:?}");
        }
    }

    #[test]
    fn what_took_its_node_down_is_meant_where_it_is_named() {
        let task = DeadTask {
            id: TaskId::fresh(),
            state: TaskState::Failed,
            target: Target::agent("tally", "a"),
            tags: Vec::new(),
            code: Some(POISON.to_owned()),
        };
        let all = DeadFilter { state: TaskState::Failed, target: None, tag: None, code: None, poison: false };
        assert!(!all.takes(&task) && all.leaves_out(&task));
        let named = DeadFilter { code: Some(POISON.to_owned()), ..all.clone() };
        assert!(named.takes(&task) && !named.leaves_out(&task));
        let either = DeadFilter { poison: true, ..all.clone() };
        assert!(either.takes(&task) && !either.leaves_out(&task));
        let other = DeadFilter { target: Some(Target::agent("tally", "b").into()), ..all };
        assert!(!other.takes(&task) && !other.leaves_out(&task), "it is not even meant");
    }
}
