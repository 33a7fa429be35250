//! Finds the servers that tests start, and installs them where they are missing and may be.
#![allow(dead_code)] // each test binary uses a part of it

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A server that tests need.
#[derive(Debug, Clone, Copy)]
pub struct Needed {
    /// A binary of it.
    pub binary: &'static str,
    /// Its package: apt's, dnf's, brew's.
    pub packages: [&'static str; 3],
    /// Folders in which it sits beside those on PATH; `*` stands for one name.
    pub places: &'static [&'static str],
}

/// Postgres, of which `initdb` is the part that only a server has.
pub const POSTGRES: Needed = Needed {
    binary: "initdb",
    packages: ["postgresql", "postgresql-server", "postgresql@17"],
    places: &[
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/opt/homebrew/opt/postgresql@*/bin",
        "/usr/local/opt/postgresql@*/bin",
        "/opt/homebrew/bin",
        "/usr/local/bin",
        "/usr/local/pgsql/bin",
        "/Library/PostgreSQL/*/bin",
    ],
};

/// Redis.
pub const REDIS: Needed = Needed {
    binary: "redis-server",
    packages: ["redis-server", "redis", "redis"],
    places: &["/opt/homebrew/bin", "/usr/local/bin", "/usr/sbin"],
};

/// A browser, to look at the dashboard with.
pub const CHROMIUM: Needed = Needed {
    binary: "chromium",
    packages: ["chromium", "chromium", "chromium"],
    places: &["/usr/lib64/chromium-browser", "/opt/homebrew/bin", "/usr/local/bin"],
};

/// A browser of the same make that may be there already; it is not installed.
pub const CHROME: Needed = Needed {
    binary: "google-chrome",
    packages: ["google-chrome-stable", "google-chrome-stable", "google-chrome"],
    places: &["/opt/google/chrome"],
};

/// The folder that holds the binary; installed where it is missing.
///
/// # Panics
/// Where it is missing and cannot be installed: with the command to type.
pub fn folder(needed: &Needed) -> PathBuf {
    if let Some(found) = find(needed) {
        return found;
    }
    // one test process installs, the others wait
    let lock = std::env::temp_dir().join(format!("greenroom-install-{}.lock", needed.binary));
    let lock = File::create(&lock).unwrap_or_else(|e| panic!("{}: {e}", lock.display()));
    lock.lock().expect("the lock of the installation");
    if let Some(found) = find(needed) {
        return found;
    }
    let Some(commands) = commands(needed) else {
        panic!(
            "{} is missing, and this system has neither apt-get, dnf nor brew: install {}",
            needed.binary, needed.packages[0]
        );
    };
    let typed = commands.iter().map(|c| c.join(" ")).collect::<Vec<_>>().join(" && ");
    let Some(prefix) = rights(commands[0][0]) else {
        panic!("{} is missing. Type: sudo sh -c '{typed}'", needed.binary);
    };
    eprintln!("{} is missing: {typed}", needed.binary);
    for command in &commands {
        let whole: Vec<&str> = prefix.iter().copied().chain(command.iter().copied()).collect();
        let mut run = Command::new(whole[0]);
        run.args(&whole[1..]).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        let done = run.status();
        assert!(
            done.as_ref().is_ok_and(std::process::ExitStatus::success),
            "{} is missing, and `{}` failed ({done:?})",
            needed.binary,
            whole.join(" ")
        );
    }
    find(needed).unwrap_or_else(|| panic!("`{typed}` did not bring {}", needed.binary))
}

/// The newest of its kind, where there is one.
pub fn find(needed: &Needed) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = needed.places.iter().flat_map(|place| expand(place));
    // those on PATH come first: they are what the person at the machine means
    let found = std::env::split_paths(&path).chain(known).map(|folder| folder.join(needed.binary));
    // a link leads to where the programs that belong to it are
    let real = found.filter_map(|path| path.canonicalize().ok()).find(|path| path.is_file())?;
    Some(real.parent()?.to_owned())
}

/// The folders that a pattern with one `*` names, newest first.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![PathBuf::from(pattern)] };
    let (parent, start) = before.rsplit_once('/').unwrap_or(("", before));
    let after = after.trim_start_matches('/');
    let mut found: Vec<(u64, PathBuf)> = fs::read_dir(Path::new(parent).join(""))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(start)?.split('.').next()?.parse().unwrap_or(0);
            Some((version, entry.path().join(after)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// What installs it here.
fn commands(needed: &Needed) -> Option<Vec<Vec<&'static str>>> {
    let has = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
    };
    let [apt, dnf, brew] = needed.packages;
    if has("apt-get") {
        Some(vec![
            vec!["apt-get", "update", "-q"],
            vec!["apt-get", "install", "-q", "-y", "--no-install-recommends", apt],
        ])
    } else if has("dnf") {
        Some(vec![vec!["dnf", "install", "-q", "-y", dnf]])
    } else if has("brew") {
        Some(vec![vec!["brew", "install", "-q", brew]])
    } else {
        None
    }
}

/// What to put before the command so that it may install (or mount); `None`: it may not.
pub fn rights(installer: &str) -> Option<Vec<&'static str>> {
    // brew refuses root, the others need it
    if installer == "brew" || is_root() {
        return Some(Vec::new());
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    sudo.is_ok_and(|s| s.success()).then(|| vec!["sudo", "-n"])
}

/// Whether this process may do anything; servers refuse to run so.
pub fn is_root() -> bool {
    id(&["-u"]) == Some(0)
}

/// What `id` answers.
pub fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
