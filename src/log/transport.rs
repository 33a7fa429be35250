//! Transports: the console and the file, each with its own level and format.

use std::collections::BTreeMap;

use super::{record::Record, report};
use crate::{
    model::{event::Level, supervision::CrashReport},
    secrets,
};

/// How a transport writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people: colour on a terminal, crash reports over several lines.
    #[default]
    Pretty,
    /// One line a record, no colour.
    Compact,
    /// One JSON document a line.
    Json,
}

/// What a transport writes, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// What is written, and all above it, where no rule says otherwise.
    pub level: Level,
    /// How.
    pub format: Format,
}

/// What is written where; all of it may change at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The console.
    pub console: Transport,
    /// The file, if there is one.
    pub file: Transport,
    /// Levels for parts of the program, on both. Events count as `greenroom::` and their first word:
    /// `greenroom::agent` for `agent.crashed`.
    pub levels: BTreeMap<String, Level>,
    /// Levels for what is about a subject, before those: `kind/key`, or all whose name begins so with a `*`
    /// at its end.
    pub subjects: BTreeMap<String, Level>,
}

impl Default for Rules {
    fn default() -> Self {
        Self::at(Level::Info)
    }
}

impl Rules {
    /// Both transports at a level, the file as JSON.
    pub fn at(level: Level) -> Self {
        Self {
            console: Transport { level, format: Format::Pretty },
            file: Transport { level, format: Format::Json },
            levels: BTreeMap::new(),
            subjects: BTreeMap::new(),
        }
    }
}

/// To whom a record goes, and how it is written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct To {
    pub(super) console: Option<Format>,
    pub(super) file: Option<Format>,
}

/// A record that is to be written, with its JSON line. Of a crash the first one is the crash itself.
pub(super) struct Entry<'a> {
    pub(super) record: &'a Record,
    pub(super) json: &'a str,
    pub(super) to: To,
}

/// What one transport is given of a record, or of a crash with the decision that follows; `None`: nothing.
///
/// People read the decision in the report; machines get it as an event of its own, and so do people whose
/// level leaves the crash itself out.
pub(super) fn text(
    entries: &[Entry<'_>],
    report: Option<&CrashReport>,
    of: impl Fn(&To) -> Option<Format>,
    colour: bool,
) -> Option<String> {
    let mut lines = Vec::new();
    for (n, entry) in entries.iter().enumerate() {
        let Some(format) = of(&entry.to) else { continue };
        match (format, report.filter(|_| n == 0)) {
            (Format::Json, _) => lines.push(entry.json.to_owned()),
            (Format::Pretty, Some(report)) => return Some(secrets::cleaned(report::crash(report, colour))),
            (Format::Compact, Some(report)) => return Some(secrets::cleaned(report::crash_line(report))),
            (Format::Pretty, None) => lines.push(secrets::cleaned(entry.record.console(colour))),
            (Format::Compact, None) => lines.push(secrets::cleaned(entry.record.console(false))),
        }
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}
