//! The room on the disks that a node writes to.

use std::path::Path;

use rustix::fs::statvfs;

use super::{doctor::Finding, out};
use crate::config::Settings;

/// Less room than this is told …
const LITTLE_ROOM: u64 = 1024 * 1024 * 1024;
/// … and less than this is wrong.
const NO_ROOM: u64 = 64 * 1024 * 1024;

/// How much there is for the data directory, and for the store's file and the log's where they lie elsewhere.
pub(super) fn room(settings: &Settings) -> Vec<Finding> {
    let data_dir = &settings.node.data_dir;
    let mut found =
        vec![free("disk", data_dir, "move the data directory: a node without room refuses new work")];
    let store = settings.store.url.strip_prefix("sqlite://").map(|file| folder(Path::new(file)));
    if let Some(dir) = store.filter(|dir| !dir.starts_with(data_dir)) {
        found.push(free("store disk", dir, "move the store's file: a node without room refuses new work"));
    }
    let log = settings.log.file.path.as_deref().map(folder);
    // that there is none has been said
    if let Some(dir) = log.filter(|dir| dir.is_dir() && !dir.starts_with(data_dir)) {
        let remedy =
            "keep fewer old files (log.file.keep, log.file.max_size): what finds no room is not logged";
        found.push(free("log disk", dir, remedy));
    }
    found
}

/// The folder in which a file lies.
pub(super) fn folder(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn free(check: &'static str, dir: &Path, or: &str) -> Finding {
    // what is not there yet lies in what is
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let free = match statvfs(there) {
        Ok(told) => told.f_bavail.saturating_mul(told.f_frsize),
        Err(error) => {
            return Finding::warning(check, format!("{}: {error}", there.display()), "look at it with df");
        }
    };
    told(check, free, dir, &format!("make room, or {or}"))
}

fn told(check: &'static str, free: u64, dir: &Path, remedy: &str) -> Finding {
    let message = format!("{} free for {}", out::size(free), dir.display());
    match free {
        ..NO_ROOM => Finding::wrong(check, message, remedy),
        NO_ROOM..LITTLE_ROOM => Finding::warning(check, message, remedy),
        LITTLE_ROOM.. => Finding::ok(check, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::State,
        config::{Sources, load},
    };

    #[test]
    fn each_disk_that_is_written_to_is_looked_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::create_dir(at("logs")).unwrap();
        let room = |sets: &[String]| {
            let sources =
                Sources { data_dir: Some(at("data").into()), sets: sets.to_vec(), ..Sources::default() };
            room(&load(&sources).unwrap()).into_iter().map(|one| one.check).collect::<Vec<_>>()
        };
        assert_eq!(room(&[]), ["disk"]);
        let log = |name: &str| format!("log.file.path={}", at(name));
        assert_eq!(room(&[log("logs/node.log")]), ["disk", "log disk"]);
        assert_eq!(room(&[log("data/node.log")]), ["disk"]);
        assert_eq!(room(&[log("nowhere/node.log")]), ["disk"]);
        let store = format!("store.url=sqlite://{}", at("kept/greenroom.db"));
        assert_eq!(room(&[store, log("logs/node.log")]), ["disk", "store disk", "log disk"]);
    }

    #[test]
    fn little_room_is_told_and_none_is_wrong() {
        for (free, state) in [
            (NO_ROOM - 1, State::Wrong),
            (NO_ROOM, State::Warning),
            (LITTLE_ROOM - 1, State::Warning),
            (LITTLE_ROOM, State::Ok),
        ] {
            assert_eq!(told("disk", free, Path::new("data"), "make room").state, state, "{free}");
        }
    }
}
