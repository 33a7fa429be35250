//! The queue of agents whose bonds are to be processed, each once, in order.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use tokio::sync::oneshot;

use crate::model::topic::Subscriber;

/// What is to be looked at with an agent.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// It has ended, and why; `None`: the store says whether it has.
    pub reason: Option<Arc<str>>,
    /// Its watchers have been told of that.
    pub told: bool,
    /// Which of its children may have to be brought back, if it has not, or lives again.
    pub children: Children,
    /// Children whose return had begun when it failed: their status says no more than that.
    pub returning: Vec<Subscriber>,
    /// Who waits until it has been looked at.
    pub waiting: Vec<oneshot::Sender<()>>,
}

impl Due {
    /// This, and then that: of what was there before an end nothing has to be brought back.
    fn then(self, later: Self) -> Self {
        let anew = later.reason.is_some();
        Self {
            children: if anew { later.children } else { self.children.and(later.children) },
            returning: if anew {
                later.returning
            } else {
                self.returning.into_iter().chain(later.returning).collect()
            },
            told: if anew { later.told } else { self.told || later.told },
            reason: later.reason.or(self.reason),
            waiting: self.waiting.into_iter().chain(later.waiting).collect(),
        }
    }
}

/// Children of an agent.
#[derive(Debug, Default)]
pub(super) enum Children {
    /// None of them.
    #[default]
    None,
    /// Those whose bond has just been made.
    These(Vec<Subscriber>),
    /// Those that the store knows.
    All,
}

impl Children {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::None, some) | (some, Self::None) => some,
            (Self::These(mut these), Self::These(those)) => {
                these.extend(those);
                Self::These(these)
            }
        }
    }
}

/// Agents whose bonds are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: VecDeque<Arc<str>>,
    due: HashMap<Arc<str>, Due>,
}

impl Queue {
    /// Adds to what is due for an agent; it takes the last place, unless it has one.
    pub(super) fn push(&mut self, subject: &str, due: Due) {
        let subject: Arc<str> = subject.into();
        match self.due.entry(subject.clone()) {
            Entry::Occupied(mut known) => {
                let before = std::mem::take(known.get_mut());
                *known.get_mut() = before.then(due);
            }
            Entry::Vacant(new) => {
                new.insert(due);
                self.order.push_back(subject);
            }
        }
    }

    /// The same, and it is next.
    pub(super) fn push_first(&mut self, subject: &str, due: Due) {
        self.push(subject, due);
        self.order.retain(|known| **known != *subject);
        self.order.push_front(subject.into());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn awaits(&self, subject: &str) -> bool {
        self.due.contains_key(subject)
    }

    /// What was next comes again, after all others: it could not be looked at.
    pub(super) fn put_back(&mut self, subject: &str, due: Due) {
        let later = self.due.remove(subject);
        self.order.retain(|known| **known != *subject);
        self.push(subject, later.into_iter().fold(due, Due::then));
    }

    /// What is next.
    pub(super) fn pop(&mut self) -> Option<(Arc<str>, Due)> {
        let subject = self.order.pop_front()?;
        self.due.remove_entry(&subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::AgentId;

    fn because(reason: &str) -> Due {
        Due { reason: Some(reason.into()), ..Due::default() }
    }

    fn child(key: &str) -> Due {
        let (kind, key, message) = ("desk".into(), key.into(), "child".into());
        let child = Subscriber { agent: AgentId::of("desk", "x"), kind, key, message };
        Due { children: Children::These(vec![child]), ..Due::default() }
    }

    #[test]
    fn an_agent_is_looked_at_once_for_all_that_is_due() {
        let mut queue = Queue::default();
        for (subject, due) in [("a/1", child("x")), ("a/2", Due::default()), ("a/1", because("first"))] {
            queue.push(subject, due);
        }
        queue.push("a/1", child("y"));
        queue.push("a/1", because("second"));
        for key in ["y", "z"] {
            queue.push("a/1", child(key));
        }
        let (subject, due) = queue.pop().unwrap();
        assert_eq!((&*subject, due.reason.as_deref()), ("a/1", Some("second")));
        assert!(
            matches!(due.children, Children::These(these) if these.len() == 2),
            "of an earlier life none is brought back"
        );
        queue.push_first("a/3", Due { children: Children::All, ..Due::default() });
        queue.push("a/3", child("x"));
        let (subject, due) = queue.pop().unwrap();
        assert!(&*subject == "a/3" && matches!(due.children, Children::All));
        assert_eq!(&*queue.pop().unwrap().0, "a/2");
        assert!(queue.pop().is_none());
    }

    #[test]
    fn what_is_put_back_came_before_what_has_come_meanwhile() {
        for (meanwhile, left) in [(child("y"), 2), (because("it crashed"), 0)] {
            let mut queue = Queue::default();
            queue.push("a/1", child("x"));
            let (subject, due) = queue.pop().unwrap();
            queue.push("a/1", meanwhile);
            queue.push("a/2", Due::default());
            queue.put_back(&subject, due);
            assert_eq!(&*queue.pop().unwrap().0, "a/2");
            let (_, due) = queue.pop().unwrap();
            let these = if let Children::These(these) = due.children { these } else { Vec::new() };
            assert_eq!(these.len(), left);
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn whoever_waits_for_one_that_waits_already_is_served_first() {
        let mut queue = Queue::default();
        queue.push("a/1", Due::default());
        queue.push("a/2", because("it crashed"));
        queue.push_first("a/2", Due::default());
        let (subject, due) = queue.pop().unwrap();
        assert_eq!((&*subject, due.reason.as_deref()), ("a/2", Some("it crashed")));
        assert_eq!(&*queue.pop().unwrap().0, "a/1");
        assert!(queue.pop().is_none());
    }
}
