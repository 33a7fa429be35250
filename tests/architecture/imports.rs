//! Who may name whom: imports run strictly downward, and each crate has one room.

use std::collections::BTreeMap;

use crate::source::{self, Source};

/// The rooms, lowest first. Rooms of one rank do not name each other, but for the pairs below.
const RANKS: &[&[&str]] = &[
    &["model", "clock"],
    &["secrets"],
    &["config", "log", "agent", "tool", "store", "cache"],
    &["runtime"],
    &["http"],
    &["cli"],
    &["demo"],
    &["app"],
    &["testkit"],
    &["lib", "main"],
];

/// Rooms of one rank that may name each other: a turn calls tools, and a tool's input is a message.
const PAIRS: &[(&str, &str)] = &[("agent", "tool"), ("tool", "agent")];

/// Crates and the rooms that may name them.
const CRATES: &[(&str, &[&str])] = &[
    ("actix", &["runtime"]),
    ("actix_rt", &["runtime"]),
    ("actix_web", &["http"]),
    ("actix_http", &["http"]),
    ("actix_server", &["http"]),
    ("actix_service", &["http"]),
    ("actix_tls", &["http"]),
    ("diesel", &["store"]),
    ("diesel_async", &["store"]),
    ("diesel_migrations", &["store"]),
    ("libsqlite3_sys", &["store"]),
    ("tokio_postgres", &["store"]),
    ("redis", &["cache"]),
    ("moka", &["cache"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("rustix", &["http", "cli"]),
    // The two clients of a node: the command line, and the demo, which watches one from outside.
    ("ureq", &["cli", "demo"]),
    ("slog", &["log"]),
    ("slog_async", &["log"]),
    ("cap_std", &["tool"]),
];

fn rank(room: &str) -> usize {
    RANKS
        .iter()
        .position(|rooms| rooms.contains(&room))
        .unwrap_or_else(|| panic!("src/{room} has no rank: give it one in {}", file!()))
}

/// Which room each name at the root of the crate comes from, by `src/lib.rs`.
fn root_names(lib: &Source) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for statement in lib.code().split(';') {
        let Some(at) = statement.find("pub use ") else { continue };
        for path in expand(&statement[at + "pub use ".len()..]) {
            let (room, last) = (path.first(), path.last());
            if let (Some(room), Some(last)) = (room, last)
                && room != "crate"
            {
                names.entry(last.clone()).or_insert_with(|| room.clone());
            }
        }
    }
    names.insert("message".to_owned(), "agent".to_owned()); // a macro, exported at the root
    names
}

/// `a::{b, c::d}` as [[a, b], [a, c, d]].
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        return vec![path.split("::").map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()];
    };
    let head: Vec<String> =
        tree[..open].split("::").map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect();
    let (mut depth, mut from, mut found) = (0, open + 1, Vec::new());
    for (at, c) in tree.char_indices().skip_while(|(at, _)| *at < open) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        let ends = (c == ',' && depth == 1) || (c == '}' && depth == 0);
        if ends {
            let part = tree[from..at].trim();
            if !part.is_empty() {
                for tail in expand(part) {
                    found.push(head.iter().cloned().chain(tail).collect());
                }
            }
            from = at + 1;
        }
        if c == '}' && depth == 0 {
            break;
        }
    }
    found
}

/// The first names of all paths that begin with `crate::`, in `use` and elsewhere.
fn named(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let end = if rest.starts_with('{') {
            rest.find(';').unwrap_or(rest.len())
        } else {
            rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
        };
        found.extend(expand(&rest[..end]).into_iter().filter_map(|path| path.into_iter().next()));
    }
    found
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty())
}

#[test]
fn imports_run_strictly_downward() {
    let sources = source::below("src");
    let lib = sources.iter().find(|s| s.path == "src/lib.rs").expect("src/lib.rs");
    let root = root_names(lib);
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|s| s.path != "src/lib.rs") {
        let (room, code) = (source.room(), source.code());
        for first in named(&code) {
            let from = root.get(&first).unwrap_or(&first).as_str();
            if from == room || from == "anyhow" {
                continue;
            }
            let allowed = rank(from) < rank(room) || PAIRS.contains(&(room, from));
            if !allowed {
                wrong.push(format!("{}: `{room}` names `{from}` (as crate::{first})", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that do not run downward:\n{}", wrong.join("\n"));
}

/// A path with more `super`s than the file has folders would leave its room unseen.
#[test]
fn nobody_leaves_a_room_upward() {
    let mut wrong = Vec::new();
    for source in source::below("src") {
        let folders = source.path.matches('/').count() - usize::from(source.path.ends_with("/mod.rs"));
        let code = source.code();
        let paths = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        let deepest = paths.map(|path| path.matches("super::").count()).max().unwrap_or(0);
        if deepest >= folders.max(1) && deepest > 0 {
            wrong.push(format!("{}: {deepest} × super", source.path));
        }
    }
    assert!(wrong.is_empty(), "write `crate::…` to name another room:\n{}", wrong.join("\n"));
}

#[test]
fn each_crate_has_its_room() {
    let mut wrong = Vec::new();
    for source in source::below("src") {
        let code = source.code();
        for word in words(&code) {
            if let Some((_, rooms)) = CRATES.iter().find(|(name, _)| *name == word)
                && !rooms.contains(&source.room())
                && code.contains(&format!("{word}::"))
            {
                wrong.push(format!("{} names {word}: only {} may", source.path, rooms.join(" and ")));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn trees_of_imports_are_read_whole() {
    let code = "use crate::{a::{self, b}, c, d::e::{f}}; let x = crate::g::h; $crate::i::j";
    assert_eq!(named(code), ["a", "a", "c", "d", "g"]);
}
