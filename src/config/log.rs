//! `[log]`: levels, formats and outputs.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::settings::unless_empty;
use crate::model::{event::Level, units};

/// The log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// What is written, and all above it, where a transport does not say otherwise.
    pub level: Level,
    /// Levels for parts of the program, by module.
    #[serde(default)]
    pub levels: BTreeMap<String, Level>,
    /// Levels for what is about a subject: `kind/key`, or all whose name begins so with a `*` at its end.
    #[serde(default)]
    pub subjects: BTreeMap<String, Level>,
    /// How the console writes, where it does not say otherwise itself.
    pub format: LogFormat,
    /// The console.
    pub console: LogConsole,
    /// A file besides the console.
    pub file: LogFile,
}

/// The console's own level and format.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConsole {
    /// None: `log.level`.
    #[serde(deserialize_with = "or_that_above")]
    pub level: Option<Level>,
    /// None: `log.format`.
    #[serde(deserialize_with = "or_that_above")]
    pub format: Option<LogFormat>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people: colour on a terminal, crash reports over several lines.
    Pretty,
    /// One line a record, no colour.
    Compact,
    /// One JSON document a line.
    Json,
}

/// A rotating log file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogFile {
    /// Where; none, no file.
    #[serde(deserialize_with = "unless_empty")]
    pub path: Option<PathBuf>,
    /// None: `log.level`.
    #[serde(deserialize_with = "or_that_above")]
    pub level: Option<Level>,
    /// How it is written.
    pub format: LogFormat,
    /// The size at which it is put aside.
    #[serde(with = "units::size")]
    pub max_size: u64,
    /// How many old ones are kept.
    pub keep: u32,
}

/// A name; an empty one: that of the section above holds.
fn or_that_above<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    use serde::de::IntoDeserializer as _;
    let text = Option::<String>::deserialize(d)?.unwrap_or_default();
    if text.is_empty() { Ok(None) } else { T::deserialize(text.into_deserializer()).map(Some) }
}
