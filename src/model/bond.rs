//! Bonds: relations between an agent and the end of another one.
//!
//! They are kept as subscriptions to topics of names that no topic of a user's can have, and so written
//! with the turn that makes them.

use std::sync::Arc;

/// What an agent's end means to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// That one is told, once.
    Watch,
    /// That one is its child, and is stopped.
    Child,
}

impl Bond {
    /// What begins the topics of such bonds. Users' topics begin with a letter.
    fn prefix(self) -> &'static str {
        match self {
            Self::Watch => "@watch/",
            Self::Child => "@child/",
        }
    }

    /// The stored name of the topic whose subscribers are so bound to the agent `subject` (`kind/key`).
    pub fn topic(self, subject: &str) -> Arc<str> {
        format!("{}{subject}", self.prefix()).into()
    }

    /// Which bond a stored topic stands for, and to whom; `None`: it is a topic of a user's.
    pub fn read(topic: &str) -> Option<(Self, &str)> {
        let bonds = [Self::Watch, Self::Child];
        bonds.into_iter().find_map(|bond| Some((bond, topic.strip_prefix(bond.prefix())?)))
    }
}

/// Why a child is stopped whose parent `subject` has ended. By this its parent knows it again, and brings
/// it back: what an operator or its own crashes have stopped is left alone.
pub fn orphaned(subject: &str) -> String {
    format!("its parent {subject} has ended")
}

/// Whose end stopped an agent, by why it is stopped; `None`: something else did.
pub fn orphaned_by(reason: &str) -> Option<&str> {
    reason.strip_prefix("its parent ")?.strip_suffix(" has ended")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::topic::stored_name;

    #[test]
    fn an_orphan_is_known_by_why_it_is_stopped() {
        assert_eq!(orphaned_by(&orphaned("desk/Zoë")), Some("desk/Zoë"));
        assert_eq!(orphaned_by("stopped by an operator"), None);
    }

    #[test]
    fn a_bond_is_read_from_its_topic_and_no_topic_of_a_users_is_one() {
        for bond in [Bond::Watch, Bond::Child] {
            let topic = bond.topic("desk/Zoë");
            assert_eq!(Bond::read(&topic), Some((bond, "desk/Zoë")));
            let (name, key) = topic.split_once('/').unwrap();
            assert!(stored_name(name, None).is_err() && stored_name(name, Some(key)).is_err());
        }
        assert_eq!(Bond::read("watch/desk"), None);
    }
}
