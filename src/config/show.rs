//! The effective values, and their origins.

use std::{fmt, path::PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::{check::is_secret, settings::Settings};
use crate::model::redact::passwords;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in defaults.
    Default,
    /// A configuration file.
    File {
        /// Which, as it was given.
        path: PathBuf,
        /// The line of the value, from 1.
        line: usize,
    },
    /// What `config set` keeps in the store.
    Stored,
    /// An environment variable.
    Environment(String),
    /// The program's own code.
    Program,
    /// A `--set` argument, as it was given up to the `=`.
    Set(String),
    /// A command line option of its own, such as `--data-dir`.
    Option(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Stored => f.write_str("config set"),
            Self::Environment(name) => write!(f, "env {name}"),
            Self::Program => f.write_str("program"),
            Self::Set(key) => write!(f, "--set {key}"),
            Self::Option(name) => f.write_str(name),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// One key of `config show`.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Shown {
    /// The dotted key.
    pub key: String,
    /// What is in force; a secret is `***`.
    pub value: Value,
    /// Where it came from.
    #[schemars(with = "String")]
    pub origin: Origin,
}

impl Settings {
    /// What of it is secret: to be taken out of whatever people read.
    pub fn secrets(&self) -> Vec<String> {
        self.raw.0.iter().flat_map(|(key, value)| secrets_of(key, value)).collect()
    }
}

fn secrets_of(key: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => {
            members.iter().flat_map(|(name, value)| secrets_of(&format!("{key}.{name}"), value)).collect()
        }
        Value::Array(items) => items.iter().flat_map(|item| secrets_of(key, item)).collect(),
        Value::String(text) if is_secret(key) => vec![text.clone()],
        Value::String(text) => passwords(text),
        _ => Vec::new(),
    }
}
