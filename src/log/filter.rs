//! What is written at all: a level, and levels for parts of the program and for subjects; all may change at
//! run time.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU8, Ordering},
};

use parking_lot::RwLock;

use crate::model::event::Level;

/// The levels in force. A record below all of them costs one load.
#[derive(Debug)]
pub(super) struct Filter {
    /// The least level that any rule lets through.
    least: AtomicU8,
    rules: RwLock<Rules>,
}

#[derive(Debug)]
struct Rules {
    level: Level,
    /// By module, the longest name first.
    modules: Vec<(String, Level)>,
    /// By subject, whole names first, then the longest; one with a `*` at its end is the begin of a name.
    subjects: Vec<(String, Level)>,
}

type Levels = BTreeMap<String, Level>;

impl Filter {
    pub(super) fn new(level: Level, modules: &Levels, subjects: &Levels) -> Self {
        let rules = RwLock::new(Rules { level, modules: Vec::new(), subjects: Vec::new() });
        let filter = Self { least: AtomicU8::new(level as u8), rules };
        filter.set(level, modules, subjects);
        filter
    }

    /// Puts other levels in force.
    pub(super) fn set(&self, level: Level, modules: &Levels, subjects: &Levels) {
        let (modules, subjects) = (longest_first(modules), longest_first(subjects));
        let least = modules.iter().chain(&subjects).map(|(_, l)| *l).chain([level]).min().unwrap_or(level);
        let mut rules = self.rules.write();
        *rules = Rules { level, modules, subjects };
        self.least.store(least as u8, Ordering::Relaxed);
    }

    /// The least level that anything is written at.
    pub(super) fn least(&self) -> Level {
        let least = self.least.load(Ordering::Relaxed);
        Level::ALL.into_iter().find(|level| *level as u8 == least).unwrap_or(Level::Debug)
    }

    /// Whether a record of this level and module is written.
    pub(super) fn lets(&self, level: Level, module: &str) -> bool {
        self.lets_from(level, module, None)
    }

    /// The same for a module that, unless a rule names it, needs at least `own`.
    pub(super) fn lets_from(&self, level: Level, module: &str, own: Option<Level>) -> bool {
        if (level as u8) < self.least.load(Ordering::Relaxed) {
            return false;
        }
        self.rules.read().by_module(level, module, own)
    }

    /// Whether a record of this level and module is written if it is about the right subject.
    pub(super) fn may_let(&self, level: Level, module: &str) -> bool {
        if (level as u8) < self.least.load(Ordering::Relaxed) {
            return false;
        }
        let rules = self.rules.read();
        rules.subjects.iter().any(|(_, least)| level >= *least) || rules.by_module(level, module, None)
    }

    /// Whether a record of this level and module about this subject is written.
    pub(super) fn lets_about(&self, level: Level, module: &str, subject: &str) -> bool {
        if (level as u8) < self.least.load(Ordering::Relaxed) {
            return false;
        }
        let rules = self.rules.read();
        match rules.subjects.iter().find(|(name, _)| is_about(name, subject)) {
            Some((_, least)) => level >= *least,
            None => rules.by_module(level, module, None),
        }
    }
}

impl Rules {
    fn by_module(&self, level: Level, module: &str, own: Option<Level>) -> bool {
        let rule = self.modules.iter().find(|(name, _)| covers(name, module)).map(|(_, level)| *level);
        level >= rule.unwrap_or_else(|| own.map_or(self.level, |own| own.max(self.level)))
    }
}

/// The longest name first, and a whole name before a begin of one.
fn longest_first(levels: &Levels) -> Vec<(String, Level)> {
    let mut rules: Vec<(String, Level)> = levels.iter().map(|(name, level)| (name.clone(), *level)).collect();
    rules.sort_by_key(|(name, _)| (name.ends_with('*'), std::cmp::Reverse(name.len())));
    rules
}

/// Whether a rule of this name is about `subject`.
fn is_about(name: &str, subject: &str) -> bool {
    match name.strip_suffix('*') {
        Some(begin) => subject.starts_with(begin),
        None => subject == name,
    }
}

/// Whether `module` is `name` or lies in it.
fn covers(name: &str, module: &str) -> bool {
    module.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_decides() {
        let levels = BTreeMap::from([
            ("greenroom::store".to_owned(), Level::Debug),
            ("greenroom::store::sqlite".to_owned(), Level::Error),
        ]);
        let filter = Filter::new(Level::Info, &levels, &BTreeMap::new());
        assert!(filter.lets(Level::Debug, "greenroom::store"));
        assert!(filter.lets(Level::Debug, "greenroom::store::memory"));
        assert!(!filter.lets(Level::Warn, "greenroom::store::sqlite"));
        assert!(!filter.lets(Level::Debug, "greenroom::storeroom"));
        assert!(filter.lets(Level::Info, "greenroom") && !filter.lets(Level::Debug, "greenroom"));
        assert_eq!(filter.least(), Level::Debug);
        filter.set(Level::Critical, &BTreeMap::new(), &BTreeMap::new());
        assert!(!filter.lets(Level::Error, "greenroom::store"));
    }

    #[test]
    fn others_need_more_unless_a_rule_names_them() {
        let levels = BTreeMap::from([("hyper".to_owned(), Level::Debug)]);
        let filter = Filter::new(Level::Info, &levels, &BTreeMap::new());
        assert!(!filter.lets_from(Level::Info, "mio", Some(Level::Warn)));
        assert!(filter.lets_from(Level::Warn, "mio", Some(Level::Warn)));
        assert!(filter.lets_from(Level::Debug, "hyper::client", Some(Level::Warn)));
    }

    #[test]
    fn a_subject_goes_before_its_module() {
        let modules = BTreeMap::from([("greenroom::agent".to_owned(), Level::Warn)]);
        let subjects = [("counter/a", Level::Debug), ("counter/*", Level::Error), ("tool:*", Level::Info)];
        let subjects = subjects.map(|(name, level)| (name.to_owned(), level)).into();
        let filter = Filter::new(Level::Info, &modules, &subjects);
        let lets = |level, subject| filter.lets_about(level, "greenroom::agent", subject);
        assert!(lets(Level::Debug, "counter/a"), "its own rule");
        assert!(!lets(Level::Warn, "counter/b") && lets(Level::Error, "counter/b"), "that of its kind");
        assert!(!lets(Level::Info, "other/a") && lets(Level::Warn, "other/a"), "that of the module");
        assert!(lets(Level::Info, "tool:fs.read"));
        assert!(filter.may_let(Level::Debug, "greenroom::agent"), "it may be about counter/a");
        filter.set(Level::Info, &modules, &BTreeMap::new());
        assert!(!filter.may_let(Level::Info, "greenroom::agent"));
    }
}
