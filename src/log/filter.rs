//! What is written at all: a level, and levels for parts of the program; both may change at run time.

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
}

impl Filter {
    pub(super) fn new(level: Level, levels: &BTreeMap<String, Level>) -> Self {
        let filter = Self {
            least: AtomicU8::new(level as u8),
            rules: RwLock::new(Rules { level, modules: Vec::new() }),
        };
        filter.set(level, levels);
        filter
    }

    /// Puts other levels in force.
    pub(super) fn set(&self, level: Level, levels: &BTreeMap<String, Level>) {
        let mut modules: Vec<(String, Level)> = levels.iter().map(|(m, l)| (m.clone(), *l)).collect();
        modules.sort_by_key(|(module, _)| std::cmp::Reverse(module.len()));
        let least = modules.iter().map(|(_, l)| *l).chain([level]).min().unwrap_or(level);
        let mut rules = self.rules.write();
        *rules = Rules { level, modules };
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
        let rules = self.rules.read();
        let rule = rules.modules.iter().find(|(name, _)| covers(name, module)).map(|(_, level)| *level);
        level >= rule.unwrap_or_else(|| own.map_or(rules.level, |own| own.max(rules.level)))
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
        let filter = Filter::new(Level::Info, &levels);
        assert!(filter.lets(Level::Debug, "greenroom::store"));
        assert!(filter.lets(Level::Debug, "greenroom::store::memory"));
        assert!(!filter.lets(Level::Warn, "greenroom::store::sqlite"));
        assert!(!filter.lets(Level::Debug, "greenroom::storeroom"));
        assert!(filter.lets(Level::Info, "greenroom") && !filter.lets(Level::Debug, "greenroom"));
        assert_eq!(filter.least(), Level::Debug);
        filter.set(Level::Critical, &BTreeMap::new());
        assert!(!filter.lets(Level::Error, "greenroom::store"));
    }

    #[test]
    fn others_need_more_unless_a_rule_names_them() {
        let levels = BTreeMap::from([("hyper".to_owned(), Level::Debug)]);
        let filter = Filter::new(Level::Info, &levels);
        assert!(!filter.lets_from(Level::Info, "mio", Some(Level::Warn)));
        assert!(filter.lets_from(Level::Warn, "mio", Some(Level::Warn)));
        assert!(filter.lets_from(Level::Debug, "hyper::client", Some(Level::Warn)));
    }
}
