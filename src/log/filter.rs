//! What is written at all, and where: a level for each transport, and levels for parts of the program and for
//! subjects; all may change at run time.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU8, Ordering},
};

use parking_lot::RwLock;

use super::{
    record::Record,
    transport::{Rules, To, Transport},
};
use crate::model::event::{self, Level};

/// The levels in force. A record below all of them costs one load.
#[derive(Debug)]
pub(super) struct Filter {
    /// The least level that any rule lets through.
    least: AtomicU8,
    has_file: bool,
    rules: RwLock<InForce>,
}

#[derive(Debug)]
struct InForce {
    console: Transport,
    file: Option<Transport>,
    /// The lower one of theirs.
    level: Level,
    /// By module, the longest name first.
    modules: Vec<(String, Level)>,
    /// By subject, whole names first, then the longest; one with a `*` at its end is the begin of a name.
    subjects: Vec<(String, Level)>,
}

type Levels = BTreeMap<String, Level>;

impl Filter {
    pub(super) fn new(rules: &Rules, has_file: bool) -> Self {
        let in_force = InForce::of(rules, has_file);
        let least = AtomicU8::new(in_force.least() as u8);
        Self { least, has_file, rules: RwLock::new(in_force) }
    }

    /// Puts other rules in force.
    pub(super) fn set(&self, rules: &Rules) {
        let next = InForce::of(rules, self.has_file);
        let mut rules = self.rules.write();
        self.least.store(next.least() as u8, Ordering::Relaxed);
        *rules = next;
    }

    /// To whom a record goes that is to be written. What tells of records
    /// that were left out, and of what operators did, goes to all.
    pub(super) fn to(&self, record: &Record) -> To {
        let rules = self.rules.read();
        let of_event = record.module.is_empty().then(|| super::module_of(&record.event));
        let by_subject = of_event.as_ref().and_then(|_| rules.of_subject(&record.subject));
        let rule = by_subject.or_else(|| rules.of_module(of_event.as_ref().unwrap_or(&record.module)));
        let always = [event::LOG_SUPPRESSED, event::OPERATOR_ACTED].contains(&&*record.event);
        let goes = |to: Transport| (always || record.level >= rule.unwrap_or(to.level)).then_some(to.format);
        To { console: goes(rules.console), file: rules.file.and_then(goes) }
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
        match rules.of_subject(subject) {
            Some(least) => level >= least,
            None => rules.by_module(level, module, None),
        }
    }
}

impl InForce {
    fn of(rules: &Rules, has_file: bool) -> Self {
        let file = has_file.then_some(rules.file);
        Self {
            console: rules.console,
            file,
            level: file.map_or(rules.console.level, |file| file.level.min(rules.console.level)),
            modules: longest_first(&rules.levels),
            subjects: longest_first(&rules.subjects),
        }
    }

    fn least(&self) -> Level {
        let rules = self.modules.iter().chain(&self.subjects).map(|(_, level)| *level);
        rules.min().map_or(self.level, |least| least.min(self.level))
    }

    fn of_subject(&self, subject: &str) -> Option<Level> {
        self.subjects.iter().find(|(name, _)| is_about(name, subject)).map(|(_, level)| *level)
    }

    fn of_module(&self, module: &str) -> Option<Level> {
        self.modules.iter().find(|(name, _)| covers(name, module)).map(|(_, level)| *level)
    }

    fn by_module(&self, level: Level, module: &str, own: Option<Level>) -> bool {
        let rule = self.of_module(module);
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

    fn rules(level: Level, levels: &Levels, subjects: &Levels) -> Rules {
        Rules { levels: levels.clone(), subjects: subjects.clone(), ..Rules::at(level) }
    }

    #[test]
    fn the_longest_name_decides() {
        let levels = BTreeMap::from([
            ("greenroom::store".to_owned(), Level::Debug),
            ("greenroom::store::sqlite".to_owned(), Level::Error),
        ]);
        let filter = Filter::new(&rules(Level::Info, &levels, &BTreeMap::new()), false);
        assert!(filter.lets(Level::Debug, "greenroom::store"));
        assert!(filter.lets(Level::Debug, "greenroom::store::memory"));
        assert!(!filter.lets(Level::Warn, "greenroom::store::sqlite"));
        assert!(!filter.lets(Level::Debug, "greenroom::storeroom"));
        assert!(filter.lets(Level::Info, "greenroom") && !filter.lets(Level::Debug, "greenroom"));
        assert_eq!(filter.least(), Level::Debug);
        filter.set(&Rules::at(Level::Critical));
        assert!(!filter.lets(Level::Error, "greenroom::store"));
    }

    #[test]
    fn others_need_more_unless_a_rule_names_them() {
        let levels = BTreeMap::from([("hyper".to_owned(), Level::Debug)]);
        let filter = Filter::new(&rules(Level::Info, &levels, &BTreeMap::new()), false);
        assert!(!filter.lets_from(Level::Info, "mio", Some(Level::Warn)));
        assert!(filter.lets_from(Level::Warn, "mio", Some(Level::Warn)));
        assert!(filter.lets_from(Level::Debug, "hyper::client", Some(Level::Warn)));
    }

    #[test]
    fn a_subject_goes_before_its_module() {
        let modules = BTreeMap::from([("greenroom::agent".to_owned(), Level::Warn)]);
        let subjects = [("counter/a", Level::Debug), ("counter/*", Level::Error), ("tool:*", Level::Info)];
        let subjects = subjects.map(|(name, level)| (name.to_owned(), level)).into();
        let filter = Filter::new(&rules(Level::Info, &modules, &subjects), false);
        let lets = |level, subject| filter.lets_about(level, "greenroom::agent", subject);
        assert!(lets(Level::Debug, "counter/a"), "its own rule");
        assert!(!lets(Level::Warn, "counter/b") && lets(Level::Error, "counter/b"), "that of its kind");
        assert!(!lets(Level::Info, "other/a") && lets(Level::Warn, "other/a"), "that of the module");
        assert!(lets(Level::Info, "tool:fs.read"));
        assert!(filter.may_let(Level::Debug, "greenroom::agent"), "it may be about counter/a");
        filter.set(&rules(Level::Info, &modules, &BTreeMap::new()));
        assert!(!filter.may_let(Level::Info, "greenroom::agent"));
    }
}
