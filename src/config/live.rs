//! Changes at run time: what the store keeps, what applies at once, what needs a restart.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::{
    DEFAULTS, Origin,
    check::Checked,
    error::{Errors, Problem},
    layer::{self, Entry, Key, Layer},
    settings::Settings,
};

/// A key whose value is another than before.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Change {
    /// The dotted key.
    pub key: String,
    /// Its new value; absent where the key is not set any more. A secret is `***`.
    pub value: Option<Value>,
    /// Its value before, likewise.
    #[serde(skip)]
    pub was: Option<Value>,
    /// Whether it is in force without a restart.
    pub live: bool,
}

/// Whether a change of this key needs no restart: levels, supervision, slots, limits, retention,
/// and what is the program's own.
pub fn is_live(key: &str) -> bool {
    let sections =
        ["log.levels.", "log.subjects.", "conversations.", "sessions.", "audit.", "limits.", "app."];
    let keys = [
        "log.level",
        "log.format",
        "log.console.level",
        "log.console.format",
        "log.file.level",
        "log.file.format",
        "supervision.max_restarts",
        "supervision.within",
        "supervision.backoff_min",
        "supervision.backoff_max",
        "tasks.slots",
        "tasks.max_backlog",
        "tasks.retention",
        "tasks.retention_failed",
    ];
    keys.contains(&key) || sections.iter().any(|section| key.starts_with(section))
}

impl Change {
    /// The new values by key, as they are shown; `null` where a key is not set any more.
    pub fn values(changes: &[Change]) -> Value {
        let value = |change: &Change| (change.key.clone(), change.value.clone().unwrap_or_default());
        changes.iter().map(value).collect()
    }

    /// The values before, likewise.
    pub fn before(changes: &[Change]) -> Value {
        let value = |change: &Change| (change.key.clone(), change.was.clone().unwrap_or_default());
        changes.iter().map(value).collect()
    }
}

impl Settings {
    /// A value as it is shown.
    fn value_of(&self, key: &str) -> Option<Value> {
        self.shown.iter().find(|shown| shown.key == key).map(|shown| shown.value.clone())
    }

    /// What is different in `next`, by key.
    pub fn changes(&self, next: &Settings) -> Vec<Change> {
        let (old, new) = (&self.raw.0, &next.raw.0);
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
        changed
            .map(|key| Change {
                key: key.clone(),
                value: next.value_of(key),
                was: self.value_of(key),
                live: is_live(key),
            })
            .collect()
    }

    /// What a running node makes of `next`: its values where a change needs no restart, and what is in force
    /// elsewhere.
    ///
    /// # Errors
    /// What does not go together.
    pub fn adopt(&self, next: &Settings) -> Result<Settings, Errors> {
        let stays = self.entries().filter(|entry| !is_live(&entry.key.to_string()));
        let comes = next.entries().filter(|entry| is_live(&entry.key.to_string()));
        let mut problems = Vec::new();
        let merged = Checked::of(stays.chain(comes)).settings(&mut problems);
        match merged {
            // what the node knows of itself stands in no layer
            Some(settings) if problems.is_empty() => Ok(Settings { node: self.node.clone(), ..settings }),
            _ => Err(Errors(problems)),
        }
    }

    /// Every key with its value and where it came from, as it was set.
    fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.shown.iter().filter_map(|shown| {
            let value = self.raw.0.get(&shown.key)?.clone();
            Some(Entry { key: Key::parse(&shown.key)?, value, origin: shown.origin.clone() })
        })
    }
}

/// What is kept after a JSON merge patch (RFC 7396) of what is `kept` by dotted key. `null` takes a key away,
/// or all of a section; the outermost names may be dotted keys.
///
/// # Errors
/// A patch that is no object, and names that are no keys.
pub fn patched(kept: &BTreeMap<String, Value>, patch: &Value) -> Result<BTreeMap<String, Value>, Errors> {
    let wrong = |key: &str, message: &str| {
        let hint = Some("write {\"section\": {\"key\": value}}".to_owned());
        Errors(vec![Problem { origin: None, key: key.to_owned(), message: message.to_owned(), hint }])
    };
    let Value::Object(sections) = patch else { return Err(wrong("", "a patch is an object")) };
    let defaults = layer::from_toml(DEFAULTS, |_| Origin::Default, &mut Vec::new());
    let mut patch = Patch { next: kept.clone(), defaults, misplaced: Vec::new() };
    for (name, value) in sections {
        let key = Key::parse(name).ok_or_else(|| wrong(name, "this is not a key"))?;
        patch.take(key, value);
    }
    match patch.misplaced.first() {
        None => Ok(patch.next),
        Some(key) => Err(wrong(&key.to_string(), "this is a value, not a section")),
    }
}

struct Patch {
    next: BTreeMap<String, Value>,
    defaults: Layer,
    /// Keys of values that were given members.
    misplaced: Vec<Key>,
}

impl Patch {
    fn take(&mut self, key: Key, value: &Value) {
        match value {
            Value::Object(_) if self.defaults.0.iter().any(|entry| entry.key == key) => {
                self.misplaced.push(key)
            }
            Value::Object(members) => {
                for (name, member) in members {
                    let mut inner = key.clone();
                    inner.0.push(name.clone());
                    self.take(inner, member);
                }
            }
            Value::Null => {
                let (own, below) = (key.to_string(), format!("{key}."));
                self.next.retain(|name, _| *name != own && !name.starts_with(&below));
            }
            other => {
                self.next.insert(key.to_string(), other.clone());
            }
        }
    }
}

impl Checked {
    /// Layers that were checked before.
    fn of(entries: impl Iterator<Item = Entry>) -> Self {
        let entries: Vec<Entry> = entries.collect();
        let winners = entries.iter().map(|e| (e.key.clone(), (e.value.clone(), e.origin.clone())));
        Self { winners: winners.collect(), layers: vec![Layer(entries)] }
    }
}

impl Problem {
    /// Where the key stands in a document of all sections, as a JSON pointer (RFC 6901).
    pub fn pointer(&self) -> String {
        let parts = Key::parse(&self.key).map(|key| key.0).unwrap_or_default();
        parts.iter().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Sources, load};

    fn with(sets: &[(&str, Value)]) -> Settings {
        let stored = sets.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        load(&Sources { stored, ..Sources::default() }).unwrap()
    }

    #[test]
    fn what_is_live_is_adopted_and_the_rest_stays() {
        let now = with(&[("http.timeout", json!("10s"))]);
        let next = with(&[
            ("http.timeout", json!("20s")),
            ("tasks.slots", json!(7)),
            ("log.levels.\"a.b\"", json!("debug")),
            ("app.mine.word", json!("x")),
            ("limits.state_bytes", json!("2MiB")),
        ]);
        let adopted = now.adopt(&next).unwrap();
        assert_eq!(adopted.tasks.slots, 7);
        assert_eq!(adopted.log.levels.len(), 1);
        assert_eq!(adopted.app("mine"), json!({"word": "x"}));
        assert_eq!(adopted.http.timeout, now.http.timeout);
        assert_eq!(adopted.origin("tasks.slots"), Some(Origin::Stored));
        let waits: Vec<String> = adopted.changes(&next).into_iter().map(|change| change.key).collect();
        assert_eq!(waits, ["http.timeout"]);
        assert!(now.changes(&adopted).iter().all(|change| change.live));
        // and back again
        assert_eq!(adopted.adopt(&now).unwrap().changes(&now), []);
    }

    #[test]
    fn what_does_not_go_together_is_not_adopted() {
        let now = with(&[]);
        let shortest = ("supervision.backoff_min", json!("5s"));
        let together = with(&[shortest.clone(), ("supervision.backoff_max", json!("9s"))]);
        assert!(now.adopt(&together).is_ok());
        // what makes it right needs a restart
        let later = with(&[shortest, ("agents.default.backoff_max", json!("9s"))]);
        let errors = now.adopt(&later).unwrap_err();
        assert!(
            errors.0.iter().all(|problem| problem.message.contains("longer than backoff_max")),
            "{errors}"
        );
    }

    #[test]
    fn a_patch_sets_keys_and_takes_them_away() {
        let kept = BTreeMap::from([
            ("log.level".to_owned(), json!("debug")),
            ("log.levels.a".to_owned(), json!("error")),
            ("tasks.slots".to_owned(), json!(4)),
        ]);
        let patch = json!({
            "log": {"levels": null, "subjects": {"counter/a": "debug"}},
            "tasks": {"slots": 8},
            "sessions.ttl": "1h",
        });
        let next = patched(&kept, &patch).unwrap();
        let expected = BTreeMap::from([
            ("log.level".to_owned(), json!("debug")),
            ("log.subjects.\"counter/a\"".to_owned(), json!("debug")),
            ("tasks.slots".to_owned(), json!(8)),
            ("sessions.ttl".to_owned(), json!("1h")),
        ]);
        assert_eq!(next, expected);
        assert!(patched(&kept, &json!([1])).is_err());
        assert!(patched(&kept, &json!({"": 1})).is_err());
        assert!(patched(&kept, &json!({"log": {"level": {}}})).is_err(), "a value has no members");
    }

    #[test]
    fn a_problem_points_into_the_document() {
        let problem =
            |key: &str| Problem { origin: None, key: key.into(), message: String::new(), hint: None };
        assert_eq!(problem("log.levels.\"a/b.c\"").pointer(), "/log/levels/a~1b.c");
        assert_eq!(problem("").pointer(), "");
    }
}
