//! What is written about the program is true of it: README, configuration, lock file.

use std::{collections::BTreeSet, fs};

use crate::source::{self, root, walk};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What stands between backticks in one line.
fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The rows of the table below the heading `## heading`, without its head.
fn table<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let from = text.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no `## {heading}`"));
    let section = &text[from + 4..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    section.lines().filter(|l| l.starts_with('|')).skip(2).collect()
}

/// The last cell of each row: `file: test`, or several of them, as `tests/api: a_test`.
#[test]
fn every_promise_names_tests_that_exist() {
    let guarantees = read("docs/guarantees.md");
    let rows = table(&guarantees, "What is promised");
    assert!(rows.len() >= 40, "the table of promises is gone");
    let mut wrong = Vec::new();
    for row in rows {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let tests: Vec<_> = quoted(cell).into_iter().filter_map(|q| q.split_once(": ")).collect();
        if tests.is_empty() {
            wrong.push(format!("names no test: {row}"));
        }
        for (folder, test) in tests {
            let there = root().join(folder).is_dir() && source::below(folder).iter().any(|s| holds(s, test));
            if !there {
                wrong.push(format!("`{folder}: {test}` is not there"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn holds(source: &source::Source, test: &str) -> bool {
    source.text.contains(&format!("fn {test}("))
}

/// The keys of `config/default.toml`, with their sections.
fn keys() -> BTreeSet<String> {
    let (mut section, mut keys) = (String::new(), BTreeSet::new());
    for line in read("config/default.toml").lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.to_owned();
            keys.insert(section.clone());
        } else if let Some((key, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            keys.insert(format!("{section}.{}", key.trim()));
        }
    }
    keys
}

/// The keys of one kind or tool have no line among the built-in values: `config/default.toml` names them all the
/// same, as `key =` in a comment.
#[test]
fn the_keys_of_kinds_and_tools_are_explained() {
    let text = read("config/default.toml");
    let mut missing = Vec::new();
    for (file, list) in [("src/config/settings.rs", "AGENT_KEYS"), ("src/config/tasks.rs", "TASK_KEYS")] {
        let source = read(file);
        let (_, rest) =
            source.split_once(&format!("const {list}:")).unwrap_or_else(|| panic!("no {list} in {file}"));
        let entries = rest.split("];").next().unwrap_or_default();
        let keys = entries.split('"').skip(1).step_by(2).collect::<Vec<_>>();
        assert!(keys.len() >= 6, "{list}: {keys:?}");
        let explained = |key: &str| {
            text.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(&format!("{key} = ")))
        };
        missing.extend(keys.into_iter().filter(|key| !explained(key)).map(|key| format!("{list}: {key}")));
    }
    assert!(missing.is_empty(), "not in config/default.toml: {}", missing.join(", "));
}

/// A key in the README, such as `store.url`, is one that the configuration has.
#[test]
fn the_readme_names_keys_that_exist() {
    let keys = keys();
    let sections: BTreeSet<_> = keys.iter().filter_map(|k| k.split('.').next()).collect();
    let mut wrong = Vec::new();
    for line in read("README.md").lines() {
        for text in quoted(line) {
            let dotted = text.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '.' | '_'));
            let Some((section, _)) = text.split_once('.').filter(|_| dotted) else { continue };
            let file = text.ends_with(".toml") || text.ends_with(".rs") || text.ends_with(".json");
            // `tools` is a section, and tools have names of words joined by dots.
            if sections.contains(section) && !file && !keys.contains(text) {
                wrong.push(text.to_owned());
            }
        }
    }
    assert!(wrong.is_empty(), "no such configuration keys: {}", wrong.join(", "));
}

/// A file that the README points at is there.
#[test]
fn the_readme_points_at_files_that_exist() {
    let readme = read("README.md");
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = links.filter(|link| !link.contains("://") && !link.starts_with('#'));
    let gone: Vec<_> = local.filter(|link| !root().join(link).exists()).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

/// An alert on a figure that nobody tells would never be raised.
#[test]
fn alerts_name_metrics_that_are_told() {
    let alerts = read("config/alerts.yml");
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let names: BTreeSet<&str> =
        alerts.split(|c| !is_name(c)).filter(|word| word.starts_with("greenroom_")).collect();
    assert!(names.len() >= 7, "{names:?}");
    let told = source::below("src");
    let unknown: Vec<_> =
        names.iter().filter(|name| !told.iter().any(|s| s.text.contains(&format!("\"{name}\"")))).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// The command by which the README has people test is the one by which changes are tested.
#[test]
fn ci_tests_as_the_readme_says() {
    let command = "cargo test --locked";
    assert!(read("README.md").contains(&format!("```sh\n{command}\n```")));
    assert!(read(".ci/run").contains(command));
}

/// Whoever clones this needs the public registry and nothing of anybody's own machine.
#[test]
fn it_builds_anywhere() {
    let lock = read("Cargo.lock");
    let sources: BTreeSet<_> = lock.lines().filter(|l| l.starts_with("source = ")).collect();
    let public = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    assert_eq!(sources, BTreeSet::from([public]), "a crate that not everybody can fetch");

    let homes = ["home", "root", "Users", "work"].map(|folder| format!("/{folder}/"));
    let mut wrong = Vec::new();
    walk(root(), &mut |path| {
        let Ok(text) = fs::read_to_string(path) else { return };
        for (n, line) in text.lines().enumerate() {
            let absolute = |home: &String| {
                line.match_indices(home.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|c| c.is_whitespace() || "\"'`(=:".contains(c))
                })
            };
            if homes.iter().any(absolute) {
                wrong.push(format!("{}:{}", source::name(path), n + 1));
            }
        }
    });
    assert!(wrong.is_empty(), "paths of one machine: {}", wrong.join(", "));
}
