//! Parsing of arguments: JSON from the command line, stdin or a file; targets; durations.

use std::{
    fs,
    io::{self, Read as _},
    time::Duration,
};

use serde_json::Value;

use super::exit::Failure;
use crate::model::{id::Target, targets::Targets, units::parse_duration};

/// JSON as it is given: the text itself, `-` for stdin, `@file` for a file. Nothing is `null`.
pub(super) fn json(given: Option<&str>) -> Result<Vec<u8>, Failure> {
    let (text, place) = match given {
        None => return Ok(Vec::new()),
        Some("-") => {
            let mut text = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut text);
            read.map_err(|error| Failure::usage(format!("cannot read stdin: {error}")))?;
            (text, "stdin".to_owned())
        }
        Some(text) => match text.strip_prefix('@') {
            Some(file) => {
                let read = fs::read(file);
                (
                    read.map_err(|error| Failure::usage(format!("cannot read {file}: {error}")))?,
                    file.to_owned(),
                )
            }
            None => (text.as_bytes().to_vec(), format!("`{text}`")),
        },
    };
    if text.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::usage(format!("{place} is not JSON: {error}"))
            .hint("write '{\"n\": 1}' in single quotes, `-` for stdin, or @FILE")),
    }
}

/// The same as a value; nothing stays nothing.
pub(super) fn value(given: Option<&str>) -> Result<Option<Value>, Failure> {
    let text = json(given)?;
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&text).map(Some).map_err(Failure::usage)
}

/// `KIND/KEY`.
#[derive(Debug, Clone)]
pub(super) struct AgentName {
    pub kind: String,
    pub key: String,
}

/// Reads `KIND/KEY`.
pub(super) fn agent(text: &str) -> Result<AgentName, String> {
    match text.parse::<Target>() {
        Ok(Target::Agent { kind, key }) => Ok(AgentName { kind, key }),
        Ok(Target::Tool(name)) => Err(format!("`tool:{name}` is a tool; write KIND/KEY")),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads `KIND/KEY` or `tool:NAME`.
pub(super) fn target(text: &str) -> Result<Target, String> {
    text.parse::<Target>().map_err(|error| error.to_string())
}

/// Reads `KIND/KEY`, `tool:NAME`, or what all begin with that are meant, and a `*`.
pub(super) fn targets(text: &str) -> Result<Targets, String> {
    text.parse::<Targets>().map_err(|error| error.to_string())
}

/// Reads `30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_from_the_argument_or_a_file() {
        assert_eq!(json(None).unwrap(), b"");
        assert_eq!(json(Some("{\"n\":1}")).unwrap(), b"{\"n\":1}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("in.json");
        fs::write(&file, "[1]\n").unwrap();
        assert_eq!(json(Some(&format!("@{}", file.display()))).unwrap(), b"[1]\n");
        for bad in ["{n:1}", "@/nowhere/at/all"] {
            assert_eq!(json(Some(bad)).unwrap_err().exit, super::super::Exit::Usage);
        }
    }
}
