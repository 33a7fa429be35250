//! The known keys, and the validation of values.

use std::{collections::BTreeMap, time::Duration};

use ::config::Config;
use serde_json::Value;

use super::{
    error::Problem,
    layer::{Entry, Key, Layer},
    secret::{HIDDEN, Url, without_password},
    settings::{AGENT_KEYS, AgentSettings, Hidden, Settings},
    show::{Origin, Shown},
    supervision::{GROUP_KEYS, RESTART_KEYS, RestartOverrides},
    tasks::{TASK_KEYS, TASK_NUMBERS},
};
use crate::model::{
    id::{check_kind, check_tool},
    redact, session,
    supervision::RestartPolicy,
    task::TaskTerms,
};

/// How long the node's token is at least.
pub const MIN_TOKEN_BYTES: usize = 16;
/// The keys of `[agents.KIND]` that are numbers.
const NUMBERS: [&str; 4] = ["mailbox", "max_live", "max_restarts", "snapshot_turns"];

/// The keys of `[tools.NAME]`.
pub(super) fn tool_keys() -> impl Iterator<Item = &'static str> {
    TASK_KEYS.into_iter().chain(RESTART_KEYS)
}

/// The keys of `[agents.KIND]`.
pub(super) fn agent_keys() -> impl Iterator<Item = &'static str> {
    AGENT_KEYS.into_iter().chain(tool_keys())
}

/// Whether what `[agents.KIND]` or `[tools.NAME]` hold under a key is a number.
pub(super) fn is_number(key: &str) -> bool {
    NUMBERS.contains(&key) || TASK_NUMBERS.contains(&key)
}

fn sample(key: &str) -> Value {
    if is_number(key) { Value::from(0) } else { Value::from("") }
}

/// Layers in which every entry is known, and valid by itself.
pub(super) struct Checked {
    pub(super) layers: Vec<Layer>,
    pub(super) winners: BTreeMap<Key, (Value, Origin)>,
}

impl Checked {
    /// Checks each entry by itself; what is wrong becomes a problem and goes.
    pub(super) fn new(layers: Vec<Layer>, problems: &mut Vec<Problem>) -> Self {
        let mut layers = layers.into_iter();
        let defaults = layers.next().unwrap_or_default();
        let known = Known::of(&defaults);
        let mut checked = vec![defaults];
        for layer in layers {
            let mut good = Layer::default();
            for entry in layer.0.into_iter().flat_map(spread).map(of_tool) {
                match known.check(&entry) {
                    Ok(value) => good.0.push(Entry { value, ..entry }),
                    Err((message, hint)) => problems.push(Problem {
                        key: entry.key.to_string(),
                        origin: Some(entry.origin),
                        message,
                        hint,
                    }),
                }
            }
            checked.push(good);
        }
        let mut winners = BTreeMap::new();
        for entry in checked.iter().flat_map(|layer| &layer.0) {
            winners.insert(entry.key.clone(), (entry.value.clone(), entry.origin.clone()));
        }
        Self { layers: checked, winners }
    }

    /// Merges the layers, and checks what only makes sense together.
    pub(super) fn settings(self, problems: &mut Vec<Problem>) -> Option<Settings> {
        let builder =
            self.layers.iter().fold(Config::builder(), |builder, layer| builder.add_source(layer.clone()));
        let merged = builder.build().and_then(|config| config.try_deserialize::<Settings>());
        let mut settings = match merged {
            Ok(settings) => settings,
            Err(error) => {
                problems.push(Problem {
                    origin: None,
                    key: String::new(),
                    message: error.to_string(),
                    hint: None,
                });
                return None;
            }
        };
        let data_dir = settings.node.data_dir.to_string_lossy().into_owned();
        settings.store.url = Url(settings.store.url.replace("{data_dir}", &data_dir));
        for (key, message, hint) in together(&settings) {
            let key_parts = Key::parse(&key);
            let origin = key_parts.and_then(|key| self.winners.get(&key)).map(|(_, origin)| origin.clone());
            problems.push(Problem { origin, key, message, hint });
        }
        let raw = self.winners.iter().map(|(key, (value, _))| (key.to_string(), value.clone()));
        settings.raw = Hidden(raw.collect());
        settings.shown = self.shown(&settings);
        Some(settings)
    }

    fn shown(self, settings: &Settings) -> Vec<Shown> {
        let shown = self.winners.into_iter().map(|(key, (value, origin))| {
            let key = key.to_string();
            let value = match key.as_str() {
                "store.url" => Value::from(without_password(&settings.store.url)),
                "cache.url" => Value::from(without_password(&settings.cache.url)),
                _ => hide(&key, value),
            };
            Shown { key, value, origin }
        });
        shown.collect()
    }
}

/// Whether a key is secret by its name.
pub(super) fn is_secret(key: &str) -> bool {
    let (sections, last) = key.rsplit_once('.').unwrap_or_default();
    let below_secrets = sections.contains("credential") || sections.contains("secret");
    key == "http.token" || (key.starts_with("app.") && (below_secrets || redact::is_secret(last)))
}

/// Whether there is a secret in it, or in one of its parts.
pub(super) fn holds_secret(key: &str, value: &Value) -> bool {
    (is_secret(key) && (key == "http.token" || !value.is_number() || redact::hides(key, value)))
        || match value {
            Value::Object(members) => {
                members.iter().any(|(name, value)| holds_secret(&format!("{key}.{name}"), value))
            }
            Value::Array(items) => items.iter().any(|item| holds_secret(key, item)),
            Value::String(text) => !redact::passwords(text).is_empty(),
            _ => false,
        }
}

/// Hides what is secret.
fn hide(key: &str, value: Value) -> Value {
    match value {
        _ if is_secret(key) && redact::hides(key, &value) => Value::from(HIDDEN),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(k, v)| (k.clone(), hide(&format!("{key}.{k}"), v))).collect())
        }
        Value::Array(items) => items.into_iter().map(|item| hide(key, item)).collect(),
        Value::String(text) if text.contains("://") => Value::from(without_password(&text)),
        other => other,
    }
}

/// An object (`--set 'agents.librarian={"mailbox":5}'`) sets each of its keys.
fn spread(entry: Entry) -> Vec<Entry> {
    let Value::Object(map) = entry.value else { return vec![entry] };
    map.into_iter()
        .flat_map(|(part, value)| {
            let mut key = entry.key.clone();
            key.0.push(part);
            spread(Entry { key, value, origin: entry.origin.clone() })
        })
        .collect()
}

/// A tool's name may hold dots: `tools.fs.read.max_attempts` is a key of `tools."fs.read"`.
fn of_tool(mut entry: Entry) -> Entry {
    let name = match entry.key.parts().as_slice() {
        ["tools", name @ .., key] if name.len() > 1 && tool_keys().any(|known| known == *key) => {
            name.join(".")
        }
        _ => return entry,
    };
    if let [.., key] = entry.key.0.as_slice() {
        entry.key = Key(vec!["tools".to_owned(), name, key.clone()]);
    }
    entry
}

type Wrong = (String, Option<String>);

/// What is wrong with a secret of another type than it should have: nothing else, since that would quote it.
pub(super) fn unfit() -> Wrong {
    let hint = "where it is text, write it between quotation marks";
    ("the value is not of the right type".to_owned(), Some(hint.to_owned()))
}

/// What may be set: the built-in defaults, their types, and the open sections.
struct Known {
    /// The defaults as one tree: an entry is tried on it, so that the structs judge it.
    tree: Value,
    keys: BTreeMap<String, Value>,
}

impl Known {
    fn of(defaults: &Layer) -> Self {
        let mut tree = Value::Object(serde_json::Map::new());
        let mut keys = BTreeMap::new();
        for entry in &defaults.0 {
            put(&mut tree, &entry.key.0, entry.value.clone());
            keys.insert(entry.key.to_string(), entry.value.clone());
        }
        Self { tree, keys }
    }

    /// The entry's value, brought to the type of its key; or what is wrong with it.
    fn check(&self, entry: &Entry) -> Result<Value, Wrong> {
        let sample = match *entry.key.parts().as_slice() {
            ["app", _, _, ..] => return Ok(entry.value.clone()),
            ["app", _] => {
                let hint = "write app.SECTION.KEY, or a table [app.SECTION]";
                return Err(("the program's own settings stand in a section".to_owned(), Some(hint.into())));
            }
            ["log", "levels" | "subjects", _] => Value::from("info"),
            ["supervision", "groups", name, key] if GROUP_KEYS.contains(&key) => {
                check_kind(name).map_err(|error| (error.to_string(), None))?;
                sample(key)
            }
            ["tools", name, key] if tool_keys().any(|known| known == key) => {
                check_tool(name).map_err(|error| (error.to_string(), None))?;
                sample(key)
            }
            ["agents", kind, key] if agent_keys().any(|known| known == key) => {
                if kind != "default" {
                    check_kind(kind).map_err(|error| (error.to_string(), None))?;
                }
                sample(key)
            }
            _ => match self.keys.get(&entry.key.to_string()) {
                Some(sample) => sample.clone(),
                None => return Err(self.unknown(&entry.key)),
            },
        };
        let value = bring(&sample, &entry.key, entry.value.clone());
        let mut tree = self.tree.clone();
        put(&mut tree, &entry.key.0, value.clone());
        match serde_path_to_error::deserialize::<_, Settings>(tree) {
            Ok(_) => Ok(value),
            Err(_) if is_secret(&entry.key.to_string()) => Err(unfit()),
            Err(error) => Err((error.into_inner().to_string(), advice(&entry.key))),
        }
    }

    fn unknown(&self, key: &Key) -> Wrong {
        let name = key.to_string();
        let prefix = format!("{name}.");
        if self.keys.keys().any(|known| known.starts_with(&prefix))
            || matches!(
                *key.parts().as_slice(),
                ["agents" | "tools", _] | ["app"] | ["supervision", "groups"] | ["supervision", "groups", _]
            )
        {
            return ("this is a section, not a value".to_owned(), Some(format!("set a key in [{name}]")));
        }
        let mut candidates: Vec<String> = self.keys.keys().cloned().collect();
        if let ["agents", kind, _] = *key.parts().as_slice() {
            candidates.extend(agent_keys().map(|known| format!("agents.{kind}.{known}")));
        }
        if let ["tools", name @ .., _] = key.parts().as_slice() {
            candidates.extend(tool_keys().map(|known| format!("tools.{}.{known}", name.join("."))));
        }
        if let ["supervision", "groups", group, _] = *key.parts().as_slice() {
            candidates.extend(GROUP_KEYS.iter().map(|known| format!("supervision.groups.{group}.{known}")));
        }
        let nearest = candidates.into_iter().map(|known| (distance(&name, &known), known)).min();
        let hint = nearest
            .filter(|(far, known)| *far <= 2 + name.len() / 8 || known.starts_with(&name))
            .map(|(_, known)| format!("did you mean {known}?"));
        let hint = hint.or_else(|| Some("greenroom config show lists every key".to_owned()));
        ("there is no such key".to_owned(), hint)
    }
}

/// Text from the environment or an argument, brought to what its key holds.
fn bring(sample: &Value, key: &Key, value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    let trimmed = text.trim();
    match sample {
        Value::Number(_) => trimmed.parse::<i64>().map_or(value.clone(), Value::from),
        Value::Bool(_) => trimmed.parse::<bool>().map_or(value.clone(), Value::from),
        _ => match *key.parts().as_slice() {
            ["log", "level" | "format"]
            | ["log", "console" | "file", "level" | "format"]
            | ["log", "levels" | "subjects", _] => Value::from(trimmed.to_lowercase()),
            _ => value,
        },
    }
}

fn advice(key: &Key) -> Option<String> {
    let text = match *key.parts().as_slice() {
        ["http", "bind"] => "write an IP address and a port, such as 127.0.0.1:7710",
        ["tools", "fs", "roots"] => "write one path, or a list: [\"docs\", \"src\"]",
        ["log", "level"] | ["log", "levels" | "subjects", _] => "use debug, info, warn, error or critical",
        ["log", "console" | "file", "level"] => {
            "use debug, info, warn, error or critical, or \"\" for log.level"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

pub(super) fn put(tree: &mut Value, path: &[String], leaf: Value) {
    let Some((first, rest)) = path.split_first() else {
        *tree = leaf;
        return;
    };
    if !tree.is_object() {
        *tree = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(map) = tree {
        put(map.entry(first.clone()).or_insert(Value::Null), rest, leaf);
    }
}

/// How many letters two keys differ in (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for (to, above) in b.chars().zip(row.windows(2)) {
            let [diagonal, up] = *above else { continue };
            left = (left + 1).min(up + 1).min(diagonal + usize::from(from != to));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

type Found = (String, String, Option<String>);

/// What is wrong with the settings as a whole: key, message, advice.
fn together(settings: &Settings) -> Vec<Found> {
    let mut found = Vec::new();
    let mut wrong = |key: &str, message: &str, hint: Option<&str>| {
        found.push((key.to_owned(), message.to_owned(), hint.map(str::to_owned)));
    };
    if settings.node.name.trim().is_empty() || settings.node.name.chars().any(char::is_control) {
        wrong("node.name", "a name needs at least one visible character, and no control characters", None);
    }
    if settings.node.data_dir.as_os_str().is_empty() {
        wrong("node.data_dir", "the node needs a directory for its files", Some("such as ./greenroom-data"));
    }
    if settings
        .node
        .url
        .as_ref()
        .is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://"))
    {
        wrong("node.url", "this is no URL", Some("such as http://10.0.0.5:7710"));
    }
    if settings.node.lease < Duration::from_secs(3) {
        wrong("node.lease", "shorter than 3s, a pause would cost the node what it owns", None);
    }
    let http = &settings.http;
    if http.token.is_some() && http.token_file.is_some() {
        wrong("http.token_file", "http.token is set as well", Some("keep one of the two"));
    }
    if http.token.as_ref().is_some_and(|token| token.reveal().len() < MIN_TOKEN_BYTES) {
        let why = format!("a token of fewer than {MIN_TOKEN_BYTES} bytes can be guessed");
        let hint = "draw one with `openssl rand -hex 32`, or leave it out: then the node makes its own";
        wrong("http.token", &why, Some(hint));
    }
    if http.timeout < Duration::from_millis(100) {
        wrong("http.timeout", "no client is that fast", Some("give it 100ms at least, such as 30s"));
    }
    match (&http.tls.cert, &http.tls.key) {
        (Some(_), None) => wrong("http.tls.key", "http.tls.cert is set without its key", Some("set both")),
        (None, Some(_)) => {
            wrong("http.tls.cert", "http.tls.key is set without its certificate", Some("set both"));
        }
        _ => {}
    }
    let ones = [
        ("store.pool_size", u64::from(settings.store.pool_size)),
        ("tasks.slots", u64::from(settings.tasks.slots)),
        ("tasks.max_attempts", u64::from(settings.tasks.max_attempts)),
        ("tasks.max_lost", u64::from(settings.tasks.max_lost)),
        ("limits.message_bytes", settings.limits.message_bytes),
        ("limits.state_bytes", settings.limits.state_bytes),
        ("cache.messages.keep", u64::from(settings.cache.messages.keep)),
        ("log.file.keep", u64::from(settings.log.file.keep)),
        ("log.file.max_size", settings.log.file.max_size / 1024),
    ];
    for (key, _) in ones.iter().filter(|(_, value)| *value == 0) {
        let least = if *key == "log.file.max_size" { "at least 1KiB" } else { "at least 1" };
        wrong(key, &format!("this must be {least}"), None);
    }
    if settings.cache.messages.keep > 10_000 {
        wrong("cache.messages.keep", "this must be at most 10000: each change moves them all", None);
    }
    let lower = [
        ("agents.default.ask_timeout", settings.agents.default.ask_timeout),
        ("limits.idempotency_ttl", settings.limits.idempotency_ttl),
        ("cache.timeout", settings.cache.timeout),
    ];
    for (key, _) in lower.iter().filter(|(_, d)| d.is_zero()) {
        wrong(key, "this must be longer than nothing", None);
    }
    if !(session::MIN_TTL..=session::MAX_TTL).contains(&settings.sessions.ttl) {
        wrong("sessions.ttl", "this must be from 1s to 3650d", None);
    }
    if let Err((message, hint)) = scheme(&settings.store.url, &["sqlite", "postgres", "postgresql", "memory"])
    {
        wrong("store.url", &message, Some(&hint));
    }
    if let Err((message, hint)) = scheme(&settings.cache.url, &["memory", "redis", "rediss"]) {
        wrong("cache.url", &message, Some(&hint));
    }
    for (name, group) in &settings.supervision.groups {
        if group.within.is_some_and(|d| d.is_zero()) {
            let key = format!("supervision.groups.{name}.within");
            found.push((key, "a window must be longer than nothing".to_owned(), None));
        }
    }
    let all = settings.tasks.terms();
    terms("tasks", &all, &mut found);
    for name in settings.tools.named.keys() {
        let (over, section) = (settings.tool(name), format!("tools.\"{name}\""));
        let own = all.with(over.tasks.terms());
        if own != all {
            terms(&section, &own, &mut found);
        }
        // what it is laid over is the tool's own, and gives way
        let RestartOverrides { within, backoff_min, backoff_max, .. } = over.intensity;
        let own = RestartPolicy {
            within: within.unwrap_or(Duration::MAX),
            backoff_min: backoff_min.unwrap_or(Duration::ZERO),
            backoff_max: backoff_max.unwrap_or(Duration::MAX),
            ..RestartPolicy::default()
        };
        restarts(&section, &own, &mut found);
    }
    let base = settings.agent_base();
    agent("supervision", "default", &base, &mut found);
    for kind in settings.agents.kinds.keys() {
        let own = settings.agent(kind);
        // What is wrong for all is said once.
        if own != base {
            agent(&format!("agents.{kind}"), kind, &own, &mut found);
            terms(&format!("agents.{kind}"), &own.terms, &mut found);
        }
    }
    found
}

/// Checks what is in force for one kind.
fn agent(section: &str, kind: &str, settings: &AgentSettings, found: &mut Vec<Found>) {
    if settings.mailbox == 0 {
        let message = "an agent needs room for at least 1 message";
        found.push((format!("agents.{kind}.mailbox"), message.to_owned(), None));
    }
    restarts(section, &settings.restart, found);
}

/// Checks how restarts follow upon each other.
fn restarts(section: &str, policy: &RestartPolicy, found: &mut Vec<Found>) {
    let mut wrong =
        |key: &str, message: &str| found.push((format!("{section}.{key}"), message.to_owned(), None));
    if policy.within.is_zero() {
        wrong("within", "a window must be longer than nothing");
    }
    if policy.backoff_min > policy.backoff_max {
        wrong("backoff_min", "this is longer than backoff_max");
    }
}

/// Checks how attempts follow upon each other.
fn terms(section: &str, terms: &TaskTerms, found: &mut Vec<Found>) {
    if terms.min > terms.max {
        found.push((format!("{section}.retry_min"), "this is longer than retry_max".to_owned(), None));
    }
}

/// Whether a URL has one of the schemes, and no placeholder that nobody fills.
fn scheme(url: &str, allowed: &[&str]) -> Result<(), (String, String)> {
    let list = || allowed.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(", ");
    let Some((scheme, _)) = url.split_once("://") else {
        return Err(("this is not a URL".to_owned(), format!("begin it with one of {}", list())));
    };
    if !allowed.contains(&scheme) {
        return Err((format!("`{scheme}://` is not supported"), format!("use one of {}", list())));
    }
    if scheme == "sqlite" && url.contains(['{', '}']) {
        return Err(("the only placeholder is {data_dir}".to_owned(), "take the other out".to_owned()));
    }
    Ok(())
}
