//! How many items of a list are shown.

use std::io;

use clap::Args;
use serde_json::{Value, json};

use super::out;

/// `-n` and `--all`.
#[derive(Debug, Clone, Args)]
pub(super) struct Limit {
    /// At most this many
    #[arg(short = 'n', long = "limit", alias = "tail", value_name = "N", default_value_t = 100)]
    limit: usize,
    /// All of them
    #[arg(long)]
    all: bool,
}

impl Limit {
    /// How many; none: all of them.
    pub fn most(&self) -> Option<usize> {
        if self.all { None } else { Some(self.limit) }
    }
}

/// What of a list was not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing: that was all.
    Nothing,
    /// There is more, behind this cursor.
    More(Option<String>),
    /// It takes long to look at all of it, and so it was not done behind this cursor.
    NotLookedAt(Option<String>),
}

impl Rest {
    /// Prints the items as their list's document, and says what is left.
    pub fn json(&self, items: &[Value]) -> io::Result<()> {
        let cursor = match self {
            Self::Nothing => None,
            Self::More(cursor) | Self::NotLookedAt(cursor) => cursor.as_deref(),
        };
        out::json(json!({"items": items, "next_cursor": cursor}).to_string().as_bytes())?;
        self.tell();
        Ok(())
    }

    /// Says so.
    pub fn tell(&self) {
        match self {
            Self::Nothing => {}
            Self::More(_) => out::note("there are more: --all shows them"),
            Self::NotLookedAt(_) => out::note("older ones were not looked at: --all looks at them all"),
        }
    }
}
