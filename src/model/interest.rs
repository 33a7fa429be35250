//! Event filters: names and subjects, exact or by prefix.
//!
//! ```
//! use greenroom::model::interest::Interest;
//!
//! let interest: Interest = Interest::new(Some("task.*, agent.crashed"), Some("task:*"));
//! assert!(interest.takes("task.retry", "task:0190"));
//! assert!(!interest.takes("task.retry", "tally/a") && !interest.takes("agent.started", "task:0190"));
//! ```

/// A whole word, or the beginning of one: `task.*`, or `*` for any.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Whole(Box<str>),
    Begins(Box<str>),
}

impl Pattern {
    fn of(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(beginning) => Self::Begins(beginning.into()),
            None => Self::Whole(text.into()),
        }
    }

    fn takes(&self, word: &str) -> bool {
        match self {
            Self::Whole(whole) => **whole == *word,
            Self::Begins(beginning) => word.starts_with(&**beginning),
        }
    }
}

/// Which events somebody wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interest {
    /// One of these; any where there are none.
    names: Vec<Pattern>,
    subject: Option<Pattern>,
}

impl Interest {
    /// Events of these names, separated by commas, about this subject. Each may be the beginning of what
    /// is meant, with a `*` behind it. What is absent or empty is any.
    pub fn new(names: Option<&str>, subject: Option<&str>) -> Self {
        let names = names.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
        let subject = subject.map(str::trim).filter(|subject| !subject.is_empty());
        Self { names: names.map(Pattern::of).collect(), subject: subject.map(Pattern::of) }
    }

    /// Whether an event of this name may be wanted, whatever it is about.
    pub fn takes_name(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|pattern| pattern.takes(name))
    }

    /// Whether this event is wanted.
    pub fn takes(&self, name: &str, subject: &str) -> bool {
        self.takes_name(name) && self.subject.as_ref().is_none_or(|pattern| pattern.takes(subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_list_and_subjects_are_one() {
        let any = Interest::new(None, Some(" "));
        assert_eq!(any, Interest::default());
        assert!(any.takes("agent.crashed", "tally/a"));
        let some = Interest::new(Some("agent.*,node.started,"), None);
        for (name, wanted) in [
            ("agent.crashed", true),
            ("node.started", true),
            ("node.started_late", false),
            ("agents.crashed", false),
            ("task.retry", false),
        ] {
            assert_eq!((some.takes_name(name), some.takes(name, "x")), (wanted, wanted), "{name}");
        }
        // A key may hold a comma.
        let one = Interest::new(Some("*"), Some("tally/a,b"));
        assert!(one.takes("x.y", "tally/a,b") && !one.takes("x.y", "tally/a") && one.takes_name("x.y"));
        assert!(Interest::new(None, Some("tally/*")).takes("x.y", "tally/a"));
    }
}
