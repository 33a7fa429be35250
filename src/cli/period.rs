//! `--since` and `--until`: from when to when.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::input;

/// The period that is asked for.
#[derive(Debug, Clone, Args)]
pub(super) struct Period {
    /// Only from within this time (10m), or from this moment on (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Only from longer ago than this (10m), or from before this moment (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
}

impl Period {
    /// Whether any is asked for.
    pub fn is_given(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }

    /// What asks a node for it, from now.
    pub fn query(&self) -> [(&'static str, Option<String>); 2] {
        let text = |moment: Option<Moment>| moment.map(|moment| moment.at(Timestamp::now()).to_string());
        [("since", text(self.since)), ("until", text(self.until))]
    }
}

/// A moment as it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Ago(Duration),
    At(Timestamp),
}

impl Moment {
    fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(time) => now.checked_sub(time).unwrap_or(Timestamp::UNIX_EPOCH),
            Self::At(at) => at,
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    match text.parse() {
        Ok(at) => Ok(Moment::At(at)),
        Err(_) => input::duration(text)
            .map(Moment::Ago)
            .map_err(|why| format!("{why}; or a moment such as 2026-01-31T12:00:00Z")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_ago_or_itself() {
        let noon: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (given, at) in [
            ("10m", "2026-01-31T11:50:00Z"),
            ("30d", "2026-01-01T12:00:00Z"),
            ("2026-01-31T13:00:00+02:00", "2026-01-31T11:00:00Z"),
            ("99999999d", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(moment(given).unwrap().at(noon).to_string(), at, "{given}");
        }
        let why = moment("yesterday").unwrap_err();
        assert!(why.contains("2026-01-31T12:00:00Z"), "{why}");
    }
}
