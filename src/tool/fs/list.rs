//! `fs.list`: the files below a directory, a page at a time.

use std::{path::Path, vec};

use cap_std::fs::Dir;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CONCURRENCY, Refusal, Roots, blocking,
    roots::{Closed, Failure, Place},
};
use crate::{Call, Effect, Limits, Tool, message};

/// Lists the files below a directory that may be text.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct List {
    /// The directory (or a single file): absolute within a root, or relative to the first root.
    pub path: String,
    /// From the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// 1 to 500 files; 500 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A page of files, in the order of their paths, name by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listing {
    /// Regular files within the size cap. May be empty although more come.
    pub files: Vec<Listed>,
    /// The cursor of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What this page passed over: files over the cap, links, pipes, unreadable directories.
    #[serde(default)]
    pub skipped: u64,
}

/// A file that may be text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listed {
    /// As `fs.read` takes it.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

message!(List -> Listing | Refusal as "fs.list");

/// The most files in a page.
pub const PAGE: u32 = 500;
/// The most entries that one page looks at, so that a tree without text is no endless call.
const MAX_VISITS: usize = 20_000;
/// Directories nested deeper are passed over.
const MAX_DEPTH: usize = 128;

/// The tool `fs.list`: lists files within the roots.
///
/// Directories named `target` or `node_modules`, and hidden ones, are left out.
#[derive(Debug, Clone)]
pub struct FsList {
    roots: Roots,
}

impl FsList {
    /// Lists within these roots.
    pub fn new(roots: Roots) -> Self {
        Self { roots }
    }
}

impl Tool for FsList {
    const NAME: &'static str = "fs.list";
    const EFFECT: Effect = Effect::Pure;
    type Input = List;

    fn limits(&self) -> Limits {
        Limits { concurrency: Some(CONCURRENCY), ..Limits::default() }
    }

    async fn run(&self, input: List, _: &Call) -> anyhow::Result<Listing> {
        let roots = self.roots.clone();
        blocking::<List, _>(move || list(&roots, &input)).await
    }
}

pub(super) fn list(roots: &Roots, input: &List) -> Result<Listing, Failure> {
    let wrong = |e| Failure::at(&input.path, e);
    let Place { root, below, closed } = roots.resolve(&input.path)?;
    let top = if below.as_os_str().is_empty() {
        root
    } else {
        let there = root.metadata(&below).map_err(wrong)?;
        if there.is_file() {
            return single(&input.path, there.len(), roots.cap());
        }
        if !there.is_dir() {
            return Err(Refusal::NotRegular { path: input.path.clone() }.into());
        }
        root.open_dir(&below).map_err(wrong)?
    };
    let after: Vec<String> = input.cursor.iter().flat_map(|c| c.split('/')).map(str::to_owned).collect();
    let walk = Walk {
        prefix: &input.path,
        cap: roots.cap(),
        closed,
        levels: vec![Level::open(top, String::new(), &after).map_err(wrong)?],
        cursor: input.cursor.clone(),
        page: Listing::default(),
    };
    Ok(walk.run(input.limit.unwrap_or(PAGE).clamp(1, PAGE) as usize))
}

fn single(path: &str, bytes: u64, cap: u64) -> Result<Listing, Failure> {
    if bytes > cap {
        return Err(Refusal::TooLarge { path: path.to_owned(), max_bytes: cap }.into());
    }
    Ok(Listing { files: vec![Listed { path: path.to_owned(), bytes }], ..Listing::default() })
}

/// A page in the making: a walk down from the top, with one level for each open directory.
struct Walk<'a> {
    prefix: &'a str,
    cap: u64,
    closed: Closed,
    levels: Vec<Level>,
    /// The last path that is done with, itself and all below it.
    cursor: Option<String>,
    page: Listing,
}

impl Walk<'_> {
    fn run(mut self, limit: usize) -> Listing {
        for _ in 0..MAX_VISITS {
            if self.page.files.len() == limit {
                break;
            }
            let Some(level) = self.levels.last_mut() else { break };
            match level.entries.next() {
                None => self.leave(),
                Some(entry) => self.visit(entry),
            }
        }
        if self.levels.iter().any(|level| level.entries.len() > 0) {
            self.page.next = self.cursor;
        }
        self.page
    }

    fn leave(&mut self) {
        if let Some(done) = self.levels.pop()
            && !self.levels.is_empty()
        {
            self.cursor = Some(done.path);
        }
    }

    fn visit(&mut self, entry: Entry) {
        let Some(level) = self.levels.last() else { return };
        let path = join(&level.path, &entry.name);
        let kept = match entry.kind {
            _ if self.closed.has(&path) => None,
            Kind::Dir if self.levels.len() < MAX_DEPTH => {
                match level
                    .dir
                    .open_dir(&entry.name)
                    .and_then(|dir| Level::open(dir, path.clone(), &entry.after))
                {
                    Ok(below) => return self.levels.push(below),
                    Err(_) => None,
                }
            }
            Kind::Dir | Kind::Other => None,
            Kind::File => {
                let there = level.dir.symlink_metadata(&entry.name).ok();
                there.filter(|m| m.is_file() && m.len() <= self.cap).map(|m| m.len())
            }
        };
        match kept {
            Some(bytes) => self.page.files.push(Listed { path: below(self.prefix, &path), bytes }),
            None => self.page.skipped += 1,
        }
        self.cursor = Some(path);
    }
}

/// An open directory, and what of it is still to be visited.
struct Level {
    dir: Dir,
    /// From the top, without it.
    path: String,
    entries: vec::IntoIter<Entry>,
}

struct Entry {
    name: String,
    kind: Kind,
    /// Where to go on below it.
    after: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    File,
    Dir,
    Other,
}

impl Level {
    /// Opens the directory behind `after`: what sorts before that path is not looked at again.
    fn open(dir: Dir, path: String, after: &[String]) -> std::io::Result<Self> {
        let mut entries = Vec::new();
        for entry in dir.entries()? {
            let entry = entry?;
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_dir() => Kind::Dir,
                Ok(kind) if kind.is_file() => Kind::File,
                _ => Kind::Other,
            };
            // A name that is not UTF-8 has no place in the order; it is in nobody's count.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if kind == Kind::Dir && is_left_out(&name) {
                continue;
            }
            match after {
                [head, ..] if name < *head => {}
                [head, rest @ ..] if name == *head => {
                    if kind == Kind::Dir && !rest.is_empty() {
                        entries.push(Entry { name, kind, after: rest.to_vec() });
                    }
                }
                _ => entries.push(Entry { name, kind, after: Vec::new() }),
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { dir, path, entries: entries.into_iter() })
    }
}

fn is_left_out(dir: &str) -> bool {
    dir.starts_with('.') || matches!(dir, "target" | "node_modules")
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// `path` as the caller names it.
fn below(prefix: &str, path: &str) -> String {
    match prefix {
        "" | "." => path.to_owned(),
        _ => Path::new(prefix).join(path).to_string_lossy().into_owned(),
    }
}
