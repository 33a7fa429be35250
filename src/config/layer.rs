//! The layers of a configuration: each a flat list of keys, with the origin of every value.

use std::{fs, path::Path};

use ::config::{ConfigError, Map as Table, Source, Value as Node, ValueKind};
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::{error::Problem, show::Origin};

/// A key as its parts; a part may hold dots (`log.levels."a.b"`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub(super) Vec<String>);

impl Key {
    /// Reads `a.b."c.d"`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text.trim();
        loop {
            let (part, after) = if let Some(quoted) = rest.strip_prefix('"') {
                quoted.split_once('"')?
            } else {
                rest.split_at_checked(rest.find('.').unwrap_or(rest.len()))?
            };
            if part.is_empty() {
                return None;
            }
            parts.push(part.to_owned());
            if after.is_empty() {
                return Some(Self(parts));
            }
            rest = after.strip_prefix('.')?;
        }
    }

    /// The parts, for matching.
    pub(super) fn parts(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, part) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(".")?;
            }
            let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            if plain { f.write_str(part)? } else { write!(f, "\"{part}\"")? }
        }
        Ok(())
    }
}

/// One value that was set. It may be a secret, and is not printed.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, origin, .. } = self;
        f.debug_struct("Entry").field("key", key).field("origin", origin).finish_non_exhaustive()
    }
}

/// What one source sets.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer(pub(super) Vec<Entry>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    /// Nested tables, so that no part of a key is read as a path again.
    fn collect(&self) -> Result<Table<String, Node>, ConfigError> {
        let mut root = Table::new();
        for entry in &self.0 {
            let origin = entry.origin.to_string();
            insert(&mut root, &entry.key.0, node(&origin, &entry.value));
        }
        Ok(root)
    }
}

fn insert(table: &mut Table<String, Node>, path: &[String], leaf: Node) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        table.insert(first.clone(), leaf);
        return;
    }
    let child = table.entry(first.clone()).or_insert_with(|| Node::from(Table::<String, Node>::new()));
    if !matches!(child.kind, ValueKind::Table(_)) {
        *child = Node::from(Table::<String, Node>::new());
    }
    if let ValueKind::Table(inner) = &mut child.kind {
        insert(inner, rest, leaf);
    }
}

pub(super) fn node(origin: &String, value: &Value) -> Node {
    let kind = match value {
        Value::Null => ValueKind::Nil,
        Value::Bool(b) => ValueKind::Boolean(*b),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => ValueKind::I64(i),
            (None, Some(u)) => ValueKind::U64(u),
            (None, None) => ValueKind::Float(n.as_f64().unwrap_or_default()),
        },
        Value::String(s) => ValueKind::String(s.clone()),
        Value::Array(items) => ValueKind::Array(items.iter().map(|item| node(origin, item)).collect()),
        Value::Object(map) => {
            ValueKind::Table(map.iter().map(|(key, item)| (key.clone(), node(origin, item))).collect())
        }
    };
    Node::new(Some(origin), kind)
}

/// Reads TOML text; `origin` says where a line is.
pub(super) fn from_toml(text: &str, origin: impl Fn(usize) -> Origin, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::default();
    let line_of = |at: usize| text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        problems.push(Problem {
            origin: Some(origin(error.span().map_or(1, |span| line_of(span.start)))),
            key: String::new(),
            message: format!("this is not TOML: {}", error.message().trim()),
            hint: None,
        });
    }
    walk(table.get_ref(), &mut Vec::new(), &mut |path, value, at| {
        layer.0.push(Entry { key: Key(path.to_vec()), value, origin: origin(line_of(at)) });
    });
    layer
}

fn walk(table: &DeTable<'_>, path: &mut Vec<String>, found: &mut impl FnMut(&[String], Value, usize)) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => walk(inner, path, found),
            other => found(path, json(other), key.span().start),
        }
        path.pop();
    }
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.as_str().to_owned()), Value::from),
        DeValue::Float(number) => {
            number.as_str().parse::<f64>().map_or_else(|_| Value::from(number.as_str()), Value::from)
        }
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| json(item.get_ref())).collect()),
        DeValue::Table(table) => Value::Object(
            table.iter().map(|(key, item)| (key.get_ref().to_string(), json(item.get_ref()))).collect(),
        ),
    }
}

/// Reads a file. `optional`: that it is not there is no error.
pub(super) fn from_file(cwd: &Path, given: &Path, optional: bool, problems: &mut Vec<Problem>) -> Layer {
    match fs::read_to_string(cwd.join(given)) {
        Ok(text) => from_toml(&text, |line| Origin::File { path: given.to_owned(), line }, problems),
        Err(error) if optional && error.kind() == std::io::ErrorKind::NotFound => Layer::default(),
        Err(error) => {
            problems.push(Problem {
                origin: None,
                key: String::new(),
                message: format!("cannot read {}: {error}", given.display()),
                hint: Some("check the path given with --config".to_owned()),
            });
            Layer::default()
        }
    }
}

/// Text from an environment variable or an argument: JSON where it is a list or an object.
pub(super) fn plain(text: &str) -> Value {
    if text.starts_with(['[', '{'])
        && let Ok(value) = serde_json::from_str(text)
    {
        return value;
    }
    Value::String(text.to_owned())
}

/// Reads the environment: `GREENROOM_SECTION__KEY`, `DATABASE_URL`, `REDIS_URL`.
pub(super) fn from_environment(variables: &[(String, String)]) -> Layer {
    let mut layer = Layer::default();
    let mut push = |key: Vec<String>, name: &str, text: &str| {
        let origin = Origin::Environment(name.to_owned());
        layer.0.push(Entry { key: Key(key), value: plain(text), origin });
    };
    // The general names first, so that ours win over them.
    for (name, text) in variables {
        match name.as_str() {
            "DATABASE_URL" if !text.is_empty() => push(vec!["store".into(), "url".into()], name, text),
            "REDIS_URL" if !text.is_empty() => push(vec!["cache".into(), "url".into()], name, text),
            _ => {}
        }
    }
    for (name, text) in variables {
        if let Some(rest) = name.strip_prefix("GREENROOM_").filter(|rest| rest.contains("__")) {
            push(rest.split("__").map(str::to_lowercase).collect(), name, text);
        }
    }
    layer
}

/// Reads `section.key=value` arguments.
pub(super) fn from_sets(sets: &[String], problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::default();
    for given in sets {
        let parsed = given.split_once('=').and_then(|(key, text)| Some((key, Key::parse(key)?, text)));
        match parsed {
            Some((name, key, text)) => {
                let origin = Origin::Set(name.to_owned());
                layer.0.push(Entry { key, value: plain(text), origin });
            }
            None => problems.push(Problem {
                origin: None,
                key: String::new(),
                // what follows may be a secret
                message: format!("--set {} cannot be read", given.split('=').next().unwrap_or_default()),
                hint: Some("write --set section.key=value".to_owned()),
            }),
        }
    }
    layer
}
