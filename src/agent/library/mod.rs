//! The library crew: agents that read a tree of files and answer searches in it. They are the
//! reference for how agents are written.
//!
//! ```text
//!            Ingest                  fs.list (a page at a time)
//!  caller ──────────▶ librarian/docs ─────────────────────────▶ tool
//!            Search        │  ▲
//!                     Fill │  │ Shelved            fs.read (a file at a time)
//!                          ▼  │                  ─────────────────────────────▶ tool
//!                    shelf/docs-0, docs-1, …
//! ```
//!
//! Each arrow downward is a durable task that leaves with the commit of the turn that submits it,
//! and each answer comes back exactly once; so the crew may be killed anywhere, and its counts are
//! still right. No state grows with the collection: the librarian keeps counts and cursors, a shelf
//! takes at most 64 files and is then never changed again.
//!
//! The index only says which files *may* hold a phrase; a search reads those files again, so its
//! hits are lines as they stand in the files, and do not depend on what was shelved where.

mod index;
mod librarian;
mod phrase;
mod shelf;

use serde::{Deserialize, Serialize};

pub use librarian::{Counts, Found, Ingest, Ingesting, Librarian, Report, Search, Taken};
pub use phrase::Hit;
pub use shelf::{Fill, Find, Shelf, Shelved, Unfit};

/// What became of files: each is in exactly one of `files`, `skipped` and `failed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Tally {
    /// Text files that were read.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Their words, as white space parts them.
    pub words: u64,
    /// Files that are no text, or were gone when they were to be read.
    pub skipped: u64,
    /// Files whose reading failed for good.
    pub failed: u64,
    /// The latest failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Tally {
    fn fail(&mut self, files: u64, problem: impl Into<String>) {
        self.failed = self.failed.saturating_add(files);
        self.problem = Some(problem.into());
    }

    fn add(&mut self, other: Tally) {
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.words = self.words.saturating_add(other.words);
        self.skipped = self.skipped.saturating_add(other.skipped);
        self.failed = self.failed.saturating_add(other.failed);
        self.problem = other.problem.or(self.problem.take());
    }

    /// How many files are accounted for.
    fn ended(&self) -> u64 {
        self.files.saturating_add(self.skipped).saturating_add(self.failed)
    }
}

#[cfg(test)]
mod tests;
