//! The recount: the same figures, computed with nothing but the standard library.
//!
//! It shares no code with the agents and tools. What it shares is the definition: regular files of
//! at most 1 MiB, in the order of their paths, name by name, without links, without hidden
//! directories, `target` and `node_modules`, without names that are not UTF-8; of these the first
//! so many; and of these again the ones that are UTF-8 without a NUL.

use std::{
    fs,
    path::{Path, PathBuf},
};

const MAX_FILE_BYTES: u64 = 1024 * 1024;
const MAX_DEPTH: usize = 128;

/// What is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Recount {
    pub files: u64,
    pub bytes: u64,
    pub words: u64,
}

/// Counts the text among the first `limit` files below `dir`.
pub(super) fn recount(dir: &Path, limit: u64) -> Recount {
    let mut sum = Recount::default();
    for text in candidates(dir, limit).iter().filter_map(|path| text(path)) {
        sum.files += 1;
        sum.bytes += text.len() as u64;
        sum.words += words(&text);
    }
    sum
}

/// Whether `dir` holds at least so many text files.
pub(super) fn holds(dir: &Path, at_least: usize) -> bool {
    let twice = at_least as u64 * 2; // room for files that are no text
    candidates(dir, twice).iter().filter_map(|path| text(path)).take(at_least).count() == at_least
}

/// The first `limit` files below `dir` that may be text.
pub(super) fn candidates(dir: &Path, limit: u64) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(dir, 1, usize::try_from(limit).unwrap_or(usize::MAX), &mut found);
    found
}

/// A file's text, if it has any.
pub(super) fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    if bytes.len() as u64 > MAX_FILE_BYTES || bytes.contains(&0) {
        return None;
    }
    String::from_utf8(bytes).ok()
}

fn walk(dir: &Path, depth: usize, limit: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    for name in names {
        if found.len() >= limit {
            return;
        }
        let path = dir.join(&name);
        let Ok(kind) = fs::symlink_metadata(&path) else { continue };
        if kind.is_dir() {
            let left_out = name.starts_with('.') || name == "target" || name == "node_modules";
            if !left_out && depth < MAX_DEPTH {
                walk(&path, depth + 1, limit, found);
            }
        } else if kind.is_file() && kind.len() <= MAX_FILE_BYTES {
            found.push(path);
        }
    }
}

/// How often white space ends and something else begins.
fn words(text: &str) -> u64 {
    let mut count = 0;
    let mut inside = false;
    for c in text.chars() {
        let space = c.is_whitespace();
        if !space && !inside {
            count += 1;
        }
        inside = !space;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("a/b.txt", "two words"),
            ("a.txt", "\n one\u{2003}two  three "),
            ("target/x", "not these"),
            (".hidden/x", "not these"),
            ("nul", "a\0b"),
            ("z", ""),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(recount(dir.path(), 100), Recount { files: 3, bytes: 28, words: 5 });
        assert_eq!(recount(dir.path(), 1), Recount { files: 1, bytes: 9, words: 2 });
        assert!(holds(dir.path(), 3) && !holds(dir.path(), 4));
        let names: Vec<_> = candidates(dir.path(), 3);
        let rest: Vec<_> =
            names.iter().map(|p| p.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(rest, ["a/b.txt", "a.txt", "nul"]);
    }

    #[test]
    fn words_are_parted_by_white_space() {
        for text in ["", " ", "a", " a b\tc\n", "ä\u{a0}ö"] {
            assert_eq!(words(text), text.split_whitespace().count() as u64, "{text:?}");
        }
    }
}
