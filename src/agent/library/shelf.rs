//! The shelf: holds the index of a few files, and is immutable once they are read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Librarian, Tally,
    index::{Files, Index},
    phrase::Word,
};
use crate::{
    Agent, Done, Handler, Outcome, Query, Turn, message,
    tool::fs::{FsRead, Read, Refusal, Text},
};

/// How many files a shelf takes.
pub(super) const MAX_FILES: usize = Files::MAX;
/// How much text a shelf takes; a larger file has a shelf of its own.
pub(super) const MAX_TEXT_BYTES: u64 = 256 << 10;

/// Reads its files and answers which of them may hold a phrase.
#[derive(Default, Serialize, Deserialize)]
pub struct Shelf {
    collection: String,
    paths: Vec<String>,
    unread: Files,
    index: Index,
    tally: Tally,
}

/// Gives a shelf its files, once.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Fill {
    /// Whose shelf it is: the librarian's key.
    pub collection: String,
    /// At most 64 paths.
    pub paths: Vec<String>,
}

/// Why a shelf does not take files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Unfit {
    /// It has some.
    #[error("this shelf has its files")]
    HasFiles,
    /// They are too many.
    #[error("a shelf takes at most {most} files")]
    TooMany {
        /// How many it takes.
        most: u64,
    },
}

/// Tells the librarian that all files of a shelf are accounted for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Shelved {
    /// What became of them.
    pub tally: Tally,
}

/// Asks which files may hold these words.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Find {
    /// All of them.
    pub words: Vec<Word>,
}

message! {
    Fill -> () | Unfit;
    Shelved -> ();
    Find -> Vec<String>;
}

impl Agent for Shelf {
    const KIND: &'static str = "shelf";
    type Messages = (Fill, Find, Done<Read>);
}

impl Handler<Fill> for Shelf {
    fn check(&self, fill: &Fill) -> Result<(), Unfit> {
        if !self.paths.is_empty() {
            return Err(Unfit::HasFiles);
        }
        if fill.paths.len() > MAX_FILES { Err(Unfit::TooMany { most: MAX_FILES as u64 }) } else { Ok(()) }
    }

    async fn handle(&mut self, fill: Fill, turn: &Turn<Self>) -> anyhow::Result<()> {
        self.collection = fill.collection;
        self.unread = Files::first(fill.paths.len());
        self.paths.clone_from(&fill.paths);
        turn.tool::<FsRead>().submit_all(fill.paths.into_iter().map(|path| Read { path })).notify_each();
        Ok(())
    }
}

impl Handler<Done<Read>> for Shelf {
    async fn handle(&mut self, done: Done<Read>, turn: &Turn<Self>) -> anyhow::Result<()> {
        let path = &done.input.path;
        let Some(place) = self.paths.iter().position(|p| p == path) else { return Ok(()) };
        if !self.unread.remove(place) {
            return Ok(()); // a dead letter that somebody retried: its file is counted already
        }
        match done.outcome {
            Outcome::Succeeded(text) => self.shelve(place, &text),
            Outcome::Refused(refusal @ (Refusal::NoRoots | Refusal::Outside { .. })) => {
                self.tally.fail(1, refusal.to_string());
            }
            Outcome::Refused(_) => self.tally.skipped += 1,
            Outcome::Failed(fault) => self.tally.fail(1, format!("{path}: {fault}")),
            Outcome::Cancelled | Outcome::Unknown => self.tally.fail(1, format!("{path}: cancelled")),
        }
        if self.unread.is_empty() {
            turn.agent::<Librarian>(&self.collection).submit(Shelved { tally: self.tally.clone() });
        }
        Ok(())
    }
}

impl Shelf {
    fn shelve(&mut self, place: usize, text: &Text) {
        self.index.add(place, &text.text);
        self.tally.files += 1;
        self.tally.bytes += text.bytes;
        self.tally.words += text.text.split_whitespace().count() as u64;
    }
}

impl Query<Find> for Shelf {
    async fn query(&self, find: Find, _: &Turn<Self>) -> anyhow::Result<Vec<String>> {
        let places = self.index.find(&find.words).places();
        Ok(places.filter_map(|place| self.paths.get(place).cloned()).collect())
    }
}
