//! How many items of a list are shown.

use clap::Args;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing: that was all.
    Nothing,
    /// There is more.
    More,
    /// It takes long to look at all of it, and so it was not done.
    NotLookedAt,
}

impl Rest {
    /// Says so.
    pub fn tell(self) {
        match self {
            Self::Nothing => {}
            Self::More => out::note("there are more: --all shows them"),
            Self::NotLookedAt => out::note("older ones were not looked at: --all looks at them all"),
        }
    }
}
