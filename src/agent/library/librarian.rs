//! The librarian: lists trees, fills shelves, keeps the counts, answers searches.

use std::{collections::BTreeSet, path::Path};

use futures_util::future::join_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Tally,
    phrase::{Hit, Phrase},
    shelf::{Fill, Find, MAX_FILES, MAX_TEXT_BYTES, Shelf, Shelved},
};
use crate::{
    Agent, AskError, Done, Handler, Message, Never, Outcome, Query, TaskId, Turn,
    agent::{Invalid, Refused},
    message,
    tool::fs::{FsList, FsRead, List, Listed, Read},
};

/// How many trees a collection takes.
const MAX_TREES: usize = 64;
/// No further page is listed while so many files are still to be read.
const MAX_PENDING: u64 = 2_000;
/// A shelf's key is the collection's with a number behind it.
const MAX_COLLECTION_BYTES: usize = 235;
/// How many hits a search gives at most.
const MAX_HITS: usize = 100;
/// How many files a search looks into at most.
const MAX_CANDIDATES: usize = 10_000;
/// How many shelves are asked, or files read, together.
const TOGETHER: usize = 32;

/// Keeps a collection's counts and answers searches in it.
#[derive(Default, Serialize, Deserialize)]
pub struct Librarian {
    trees: Vec<Tree>,
    /// How many shelves there are; the next one gets this number.
    shelves: u64,
    /// How many files they were given.
    given: u64,
    failed_listings: u64,
    tally: Tally,
}

/// A directory that was to be ingested.
#[derive(Serialize, Deserialize)]
struct Tree {
    path: String,
    /// How many files may still be taken from it, where that is limited.
    left: Option<u64>,
    listing: Stage,
}

/// How far a tree is listed.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// A page is under way.
    UnderWay,
    /// The next page, from this cursor, waits until fewer files are pending.
    Waiting(String),
    /// To its end.
    Over,
}

/// Reads a directory and all below it into the collection.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Ingest {
    /// Within `tools.fs.roots`: absolute, or relative to the first root.
    pub path: String,
    /// Only so many files, the first in the order of their paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// The ingestion is under way.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Ingesting {
    /// The listing of its first page.
    pub task: TaskId,
}

/// Why a tree was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Taken {
    /// Its files would be counted twice.
    #[error("`{path}` is in this collection: ingest into another one to read it anew")]
    Overlaps {
        /// The tree that holds it, or that it holds.
        path: String,
    },
    /// The collection has all the trees it takes.
    #[error("a collection takes at most {MAX_TREES} trees")]
    Full,
    /// The collection's shelves are named for it, and would have no keys.
    #[error("a collection's key has at most {MAX_COLLECTION_BYTES} bytes")]
    LongName,
}

/// Searches for a phrase.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Search {
    /// What to find: a part of one line. Without a letter or a digit it is found nowhere.
    #[schemars(length(max = 256), regex(pattern = r"^[^\x00-\x08\x0a-\x1f\x7f-\x9f]*$"))]
    pub query: String,
    /// 1 to 100 hits; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Found {
    /// Best first; among equals by path and line.
    pub hits: Vec<Hit>,
    /// Whether every file that may hold the phrase was looked into, or better hits cannot come.
    pub complete: bool,
}

/// Asks for the counts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Report {}

/// The counts of a collection. They move when a shelf is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Text files that were read.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Their words, as white space parts them.
    pub words: u64,
    /// Files that are done with: read, or found not to be text.
    pub done: u64,
    /// Of those, the ones that are not text.
    pub skipped: u64,
    /// Work that failed for good.
    pub failed: u64,
    /// Work that is not finished: files, and listings. 0 at the end.
    pub pending: u64,
    /// How many shelves hold the index.
    pub shelves: u64,
    /// The latest failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

message! {
    Ingest -> Ingesting | Taken;
    Report -> Counts;
}

impl Message for Search {
    type Reply = Found;
    type Error = Never;
    const NAME: &'static str = "Search";

    fn validate(&self) -> Result<(), Invalid> {
        let query = &self.query;
        if query.chars().count() > 256 || query.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Invalid::at("/query", "at most 256 characters of one line"));
        }
        Ok(())
    }
}

impl Agent for Librarian {
    const KIND: &'static str = "librarian";
    type Messages = (Ingest, Search, Report, Shelved, Done<List>);
}

impl Handler<Ingest> for Librarian {
    fn check(&self, ingest: &Ingest) -> Result<(), Taken> {
        if let Some(tree) = self.trees.iter().find(|tree| overlap(&tree.path, &ingest.path)) {
            return Err(Taken::Overlaps { path: tree.path.clone() });
        }
        if self.trees.len() >= MAX_TREES { Err(Taken::Full) } else { Ok(()) }
    }

    async fn handle(&mut self, ingest: Ingest, turn: &Turn<Self>) -> anyhow::Result<Ingesting> {
        if turn.key().len() > MAX_COLLECTION_BYTES {
            return Err(Refused(Taken::LongName).into());
        }
        let first = List { path: ingest.path.clone(), cursor: None, limit: None };
        let task = turn.tool::<FsList>().submit(first).notify().id();
        self.trees.push(Tree { path: ingest.path, left: ingest.limit, listing: Stage::UnderWay });
        Ok(Ingesting { task })
    }
}

impl Handler<Done<List>> for Librarian {
    async fn handle(&mut self, done: Done<List>, turn: &Turn<Self>) -> anyhow::Result<()> {
        let path = done.input.path;
        let Some(at) = self.trees.iter().position(|t| t.path == path && t.listing == Stage::UnderWay) else {
            return Ok(()); // a dead letter that somebody retried: its tree is closed already
        };
        let problem = match done.outcome {
            Outcome::Succeeded(page) => {
                let files = self.trees.get_mut(at).map(|tree| tree.take(page.files, page.next));
                self.fill_shelves(files.unwrap_or_default(), turn);
                self.list_on(turn);
                return Ok(());
            }
            Outcome::Refused(refusal) => refusal.to_string(),
            Outcome::Failed(fault) => format!("listing {path}: {fault}"),
            Outcome::Cancelled | Outcome::Unknown => format!("listing {path}: cancelled"),
        };
        self.tally.problem = Some(problem);
        self.failed_listings += 1;
        match self.trees.get_mut(at) {
            Some(tree) if done.input.cursor.is_some() => tree.listing = Stage::Over,
            _ => drop(self.trees.remove(at)), // nothing was taken from it: it may be tried again
        }
        Ok(())
    }
}

impl Handler<Shelved> for Librarian {
    async fn handle(&mut self, shelved: Shelved, turn: &Turn<Self>) -> anyhow::Result<()> {
        self.tally.add(shelved.tally);
        self.list_on(turn);
        Ok(())
    }
}

impl Librarian {
    fn pending_files(&self) -> u64 {
        self.given.saturating_sub(self.tally.ended())
    }

    /// Hands files to new shelves: each takes as many as fit.
    fn fill_shelves(&mut self, files: Vec<Listed>, turn: &Turn<Self>) {
        self.given += files.len() as u64;
        for paths in cut(files) {
            turn.agent::<Shelf>(shelf_key(turn, self.shelves))
                .submit(Fill { collection: turn.key().to_owned(), paths });
            self.shelves += 1;
        }
    }

    /// Asks for further pages, as long as few files are pending.
    fn list_on(&mut self, turn: &Turn<Self>) {
        let mut room = MAX_PENDING.saturating_sub(self.pending_files());
        for tree in &mut self.trees {
            if let Stage::Waiting(cursor) = &tree.listing
                && room > 0
            {
                let page = List { path: tree.path.clone(), cursor: Some(cursor.clone()), limit: None };
                turn.tool::<FsList>().submit(page).notify();
                tree.listing = Stage::UnderWay;
                room = room.saturating_sub(u64::from(crate::tool::fs::list::PAGE));
            }
        }
    }
}

impl Tree {
    /// Takes in a page: its files, as far as the limit goes, and where the next one begins.
    fn take(&mut self, mut files: Vec<Listed>, next: Option<String>) -> Vec<Listed> {
        if let Some(left) = &mut self.left {
            files.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= files.len() as u64;
        }
        self.listing = match next {
            Some(cursor) if self.left != Some(0) => Stage::Waiting(cursor),
            _ => Stage::Over,
        };
        files
    }
}

impl Query<Report> for Librarian {
    async fn query(&self, _: Report, _: &Turn<Self>) -> anyhow::Result<Counts> {
        let listings = self.trees.iter().filter(|tree| tree.listing != Stage::Over).count() as u64;
        let tally = self.tally.clone();
        Ok(Counts {
            files: tally.files,
            bytes: tally.bytes,
            words: tally.words,
            done: tally.files.saturating_add(tally.skipped),
            skipped: tally.skipped,
            failed: tally.failed.saturating_add(self.failed_listings),
            pending: self.pending_files().saturating_add(listings),
            shelves: self.shelves,
            problem: tally.problem,
        })
    }
}

impl Query<Search> for Librarian {
    async fn query(&self, search: Search, turn: &Turn<Self>) -> anyhow::Result<Found> {
        let limit = search.limit.map_or(10, |n| n as usize).clamp(1, MAX_HITS);
        let phrase = Phrase::new(&search.query);
        if phrase.words.is_empty() {
            return Ok(Found { hits: Vec::new(), complete: true });
        }
        let candidates = self.candidates(&phrase, turn).await?;
        let mut hits: Vec<Hit> = Vec::new();
        let mut looked_at = 0;
        for paths in candidates.chunks(TOGETHER) {
            if looked_at >= MAX_CANDIDATES {
                break;
            }
            looked_at += paths.len();
            for hit in look_into(paths, &phrase, limit, turn).await? {
                hits.push(hit);
            }
            // Stable: paths come in their order, and a file's lines too.
            hits.sort_by_key(|hit| std::cmp::Reverse(hit.score));
            hits.truncate(limit);
            if hits.len() == limit && hits.iter().all(|hit| hit.score == 3) {
                return Ok(Found { hits, complete: true }); // later paths cannot do better
            }
        }
        Ok(Found { hits, complete: looked_at == candidates.len() })
    }
}

impl Librarian {
    /// The files that may hold the phrase, in the order of their paths.
    async fn candidates(&self, phrase: &Phrase, turn: &Turn<Self>) -> anyhow::Result<Vec<String>> {
        let mut paths = BTreeSet::new();
        for first in (0..self.shelves).step_by(TOGETHER) {
            let some = first..self.shelves.min(first + TOGETHER as u64);
            let asks = some
                .map(|n| turn.agent::<Shelf>(shelf_key(turn, n)).ask(Find { words: phrase.words.clone() }));
            for found in join_all(asks).await {
                paths.extend(found?);
            }
        }
        Ok(paths.into_iter().collect())
    }
}

/// Reads some files and gives their hits, in order. What is no longer there has none.
async fn look_into(
    paths: &[String],
    phrase: &Phrase,
    limit: usize,
    turn: &Turn<Librarian>,
) -> anyhow::Result<Vec<Hit>> {
    let reads = paths.iter().map(|path| turn.tool::<FsRead>().call(Read { path: path.clone() }));
    let mut hits = Vec::new();
    for read in join_all(reads).await {
        match read {
            Ok(text) => hits.extend(phrase.hits(&text.path, &text.text, limit)),
            Err(AskError::Refused(_)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(hits)
}

fn shelf_key(turn: &Turn<Librarian>, n: u64) -> String {
    format!("{}-{n}", turn.key())
}

/// Cuts files into shelves' loads, in order.
fn cut(files: Vec<Listed>) -> Vec<Vec<String>> {
    let mut loads: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for file in files {
        bytes += file.bytes;
        match loads.last_mut() {
            Some(load) if load.len() < MAX_FILES && bytes <= MAX_TEXT_BYTES => load.push(file.path),
            _ => {
                bytes = file.bytes;
                loads.push(vec![file.path]);
            }
        }
    }
    loads
}

/// Whether one of two trees holds the other.
fn overlap(a: &str, b: &str) -> bool {
    let plain =
        |path: &str| Path::new(path).components().filter(|c| *c != std::path::Component::CurDir).collect();
    let (a, b): (std::path::PathBuf, std::path::PathBuf) = (plain(a), plain(b));
    a.is_absolute() == b.is_absolute() && (a.starts_with(&b) || b.starts_with(&a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(n: usize, bytes: u64) -> Vec<Listed> {
        (0..n).map(|i| Listed { path: i.to_string(), bytes }).collect()
    }

    #[test]
    fn a_shelf_takes_64_files_or_256_kib() {
        let sizes = |files| cut(files).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(listed(130, 1)), [64, 64, 2]);
        assert_eq!(sizes(listed(5, 100 << 10)), [2, 2, 1]);
        assert_eq!(sizes(listed(2, 1 << 20)), [1, 1]);
        assert!(cut(listed(0, 0)).is_empty());
    }

    #[test]
    fn a_tree_stops_at_its_limit() {
        let mut tree = Tree { path: String::new(), left: Some(3), listing: Stage::UnderWay };
        assert_eq!(tree.take(listed(2, 1), Some("1".into())).len(), 2);
        assert!(tree.listing == Stage::Waiting("1".into()));
        assert_eq!(tree.take(listed(2, 1), Some("3".into())).len(), 1);
        assert!(tree.listing == Stage::Over);
    }

    #[test]
    fn overlapping_trees_are_seen() {
        assert!(overlap("src", "./src/agent") && overlap("", "src") && overlap("/a/b/", "/a/b"));
        assert!(!overlap("src", "src2") && !overlap(".", "/a") && !overlap("a/b", "a/c"));
    }

    #[test]
    fn a_search_is_for_a_part_of_one_line() {
        let valid = |query: &str| Search { query: query.into(), limit: None }.validate().is_ok();
        assert!(valid("fn main() {") && valid("\tlet x") && valid("") && valid(&"ß".repeat(256)));
        assert!(!valid("a\nb") && !valid(&"x".repeat(257)));
        assert!(Phrase::new("});").words.is_empty(), "what it would be found by");
    }
}
