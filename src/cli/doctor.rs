//! `doctor`: checks what a node needs, each finding with its remedy.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use serde_json::json;

use super::{
    Session, disk,
    exit::{Exit, Failure},
    out::{self, Paint},
    when,
};
use crate::{
    cache::{self, CacheOptions},
    config::{Settings, without_password},
    http::{Announcement, Certificate, TOKEN_FILE},
    runtime::views::{Status, Verdict},
    store,
};

/// How long a neighbour may take to answer.
pub(super) const PEER_TIMEOUT: Duration = Duration::from_secs(5);
/// A clock that is off by more is told.
const SKEW: Duration = Duration::from_secs(2);
/// Each connection and each event stream takes one; a node under load needs thousands.
const FEW_FILES: u64 = 4_096;

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Ok,
    Warning,
    Wrong,
}

/// What was looked at, how it is, and what to do.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    pub check: &'static str,
    pub state: State,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, state: State::Ok, message: message.into(), remedy: None }
    }

    pub(super) fn warning(
        check: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { check, state: State::Warning, message: message.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn wrong(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state: State::Wrong, message: message.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn is_wrong(&self) -> bool {
        self.state == State::Wrong
    }
}

/// `doctor`.
pub(super) fn run(session: &Session<'_>) -> Result<(), Failure> {
    let settings = session.settings()?;
    let mut found = vec![Finding::ok("configuration", format!("valid: {} keys", settings.show().len()))];
    let running = node(session, &settings, &mut found);
    if !found.iter().any(|one| one.check == "version") {
        found.extend(unaccompanied());
    }
    found.extend(environment(&settings));
    found.push(permissions(&settings.node.data_dir));
    found.extend(disk::room(&settings));
    found.push(files());
    if !running {
        found.push(port(&settings));
    }
    if session.json() {
        let healthy = !found.iter().any(Finding::is_wrong);
        out::line(&json!({"healthy": healthy, "checks": found}).to_string())?;
    } else {
        print(&found)?;
    }
    verdict(&found)
}

/// What the settings name: the store, the cache, files.
pub(super) fn environment(settings: &Settings) -> Vec<Finding> {
    let waiter = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(waiter) => waiter,
        Err(error) => return vec![Finding::wrong("threads", error.to_string(), "look at `ulimit -u`")],
    };
    let mut found = waiter.block_on(async {
        let mut found = vec![store(settings).await];
        found.extend(engine(settings).await);
        found.push(cache(settings).await);
        found
    });
    waiter.shutdown_background();
    found.extend(named_files(settings));
    found
}

/// Writes them, a line each.
pub(super) fn print(found: &[Finding]) -> Result<(), Failure> {
    let paint = Paint::of_stdout();
    for one in found {
        let mark = match one.state {
            State::Ok => paint.green("✓"),
            State::Warning => paint.yellow("!"),
            State::Wrong => paint.red("✗"),
        };
        out::line(&format!("{mark} {:<14} {}", one.check, out::plain(&one.message)))?;
        if let Some(remedy) = &one.remedy {
            out::line(&format!("  {:<14} {}", "", paint.dim(&format!("→ {}", out::plain(remedy)))))?;
        }
    }
    Ok(())
}

/// Fails where something is wrong.
pub(super) fn verdict(found: &[Finding]) -> Result<(), Failure> {
    match found.iter().filter(|one| one.is_wrong()).count() {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Failed, "one check failed")),
        n => Err(Failure::new(Exit::Failed, format!("{n} checks failed"))),
    }
}

async fn store(settings: &Settings) -> Finding {
    let shown = without_password(&settings.store.url);
    let begun = Instant::now();
    let asked = tokio::time::timeout(PEER_TIMEOUT, store::migration_status(&settings.store.url)).await;
    let took = begun.elapsed();
    let unreachable = "look at store.url, and whether the server runs and lets this machine in";
    match asked {
        Err(_) => {
            Finding::wrong("store", format!("{shown} does not answer within {PEER_TIMEOUT:?}"), unreachable)
        }
        Ok(Err(error)) => Finding::wrong("store", format!("{shown}: {error}"), unreachable),
        Ok(Ok(seen)) if !seen.unknown.is_empty() => {
            let message = format!("{shown} was made by a newer program than {}", env!("CARGO_PKG_VERSION"));
            Finding::wrong("store", message, "use that program, or a newer one")
        }
        Ok(Ok(seen)) if !seen.pending.is_empty() => {
            let message =
                format!("{shown} answers in {}; {} migrations are pending", millis(took), seen.pending.len());
            Finding::warning("store", message, "`run` applies them, or now: greenroom db migrate")
        }
        Ok(Ok(seen)) => {
            let last =
                seen.applied.last().map(|name| format!(", the last of them {name}")).unwrap_or_default();
            let has = format!("has all {} migrations of this program{last}", seen.applied.len());
            Finding::ok("store", format!("{shown} answers in {}, and {has}", millis(took)))
        }
    }
}

/// What the store runs on, and how far its clock is from ours. That it does not answer has been said.
async fn engine(settings: &Settings) -> Vec<Finding> {
    let begun = (Instant::now(), Timestamp::now());
    let asked = tokio::time::timeout(PEER_TIMEOUT, store::engine(&settings.store.url)).await;
    let Ok(Ok(engine)) = asked else { return Vec::new() };
    let clock = match engine.clock {
        Some(at) => clock("store clock", "the database's", at.duration_since(begun.1), begun.0.elapsed()),
        None => Finding::ok("store clock", "the store is a file, and goes by this machine's"),
    };
    vec![Finding::ok("store version", engine.name), clock]
}

async fn cache(settings: &Settings) -> Finding {
    let cache = &settings.cache;
    let shown = without_password(&cache.url);
    let options = CacheOptions {
        prefix: cache.prefix.clone(),
        timeout: cache.timeout,
        tls_ca: cache.tls_ca.clone(),
        ..CacheOptions::default()
    };
    let begun = Instant::now();
    let opened = match cache::open(&cache.url, &options) {
        Ok(opened) => opened,
        Err(error) => return Finding::wrong("cache", format!("{shown}: {error}"), "look at cache.url"),
    };
    // it connects by itself, and says so
    while !opened.health().up && begun.elapsed() < PEER_TIMEOUT {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let health = opened.health();
    if health.up {
        let version = health.version.map(|version| format!(", and is Redis {version}")).unwrap_or_default();
        return Finding::ok("cache", format!("{shown} answers in {}{version}", millis(begun.elapsed())));
    }
    let why = health.reason.unwrap_or_else(|| format!("no answer within {PEER_TIMEOUT:?}"));
    let remedy =
        "nothing is lost without it, reads go to the store; look at cache.url, and whether Redis runs";
    Finding::warning("cache", format!("{shown}: {why}"), remedy)
}

/// Files that the settings name must be there and readable.
fn named_files(settings: &Settings) -> Vec<Finding> {
    let files: [(&'static str, Option<&PathBuf>); 4] = [
        ("http.tls.cert", settings.http.tls.cert.as_ref()),
        ("http.tls.key", settings.http.tls.key.as_ref()),
        ("http.token_file", settings.http.token_file.as_ref()),
        ("cache.tls_ca", settings.cache.tls_ca.as_ref()),
    ];
    let files = files.into_iter().filter_map(|(key, path)| Some((key, path?)));
    let mut found: Vec<Finding> = files
        .map(|(key, path)| match fs::File::open(path) {
            Ok(_) => Finding::ok(key, format!("{} can be read", path.display())),
            Err(error) => Finding::wrong(
                key,
                format!("{}: {error}", path.display()),
                "name a file that this user may read",
            ),
        })
        .collect();
    if !found.iter().any(|one| one.is_wrong() && one.check.starts_with("http.tls."))
        && let Some(tls) = certificate(settings)
    {
        found.push(tls);
    }
    found.extend(settings.http.token_file.as_deref().and_then(seen_by_others));
    if let Some(path) = &settings.log.file.path {
        let dir = disk::folder(path);
        if !dir.is_dir() {
            let message = format!("{}: there is no such directory", dir.display());
            found.push(Finding::wrong("log.file.path", message, "make it, or name another file"));
        }
    }
    for root in settings.tools.fs.roots.iter().filter(|root| !root.is_dir()) {
        let message = format!("{}: there is no such directory", root.display());
        found.push(Finding::warning("tools.fs.roots", message, "name directories that are there"));
    }
    found
}

/// Whether the certificate and its key are what `run` can use.
fn certificate(settings: &Settings) -> Option<Finding> {
    let (cert, key) = (settings.http.tls.cert.as_ref()?, settings.http.tls.key.as_ref()?);
    Some(match Certificate::load(settings) {
        Ok(_) => {
            let (cert, key) = (cert.display(), key.display());
            Finding::ok("http.tls", format!("{key} is the key of {cert}"))
        }
        Err(error) => {
            let remedy = "name the chain, the node's own certificate first, and the key of that one";
            Finding::wrong("http.tls", error.to_string(), remedy)
        }
    })
}

/// A secret that others can read; where a group can, that may be meant.
fn seen_by_others(path: &Path) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let remedy = format!("chmod 600 {}", path.display());
    let message = |who: &str| format!("{} can be read by {who} (mode {mode:03o})", path.display());
    match mode {
        mode if mode & 0o007 != 0 => Some(Finding::wrong("http.token_file", message("others"), remedy)),
        mode if mode & 0o070 != 0 => Some(Finding::warning("http.token_file", message("its group"), remedy)),
        _ => None,
    }
}

/// The node that has announced itself here, or that was named: how it is, its version and its clock. Whether
/// there is one.
fn node(session: &Session<'_>, settings: &Settings, found: &mut Vec<Finding>) -> bool {
    let announced = Announcement::read(&settings.node.data_dir);
    if announced.is_none() && session.common.url.is_none() {
        found.push(Finding::ok("node", format!("none runs on {}", settings.node.data_dir.display())));
        return false;
    }
    let asked = session.client().and_then(|client| {
        let begun = (Instant::now(), Timestamp::now());
        let status: Status = client.get("/api/v1/status")?.read()?;
        Ok((status, begun))
    });
    let (status, (begun, at)) = match asked {
        Ok(told) => told,
        Err(failure) => {
            let remedy = failure.remedy().unwrap_or("look at its log").to_owned();
            found.push(Finding::wrong("node", failure.what().to_owned(), remedy));
            return failure.exit != Exit::Unreachable;
        }
    };
    let took = begun.elapsed();
    let said = format!("{} answers in {}: ", status.node.name, millis(took));
    found.push(match status.verdict {
        Verdict::Ok => Finding::ok("node", format!("{said}ok")),
        _ => {
            let reasons: Vec<&str> = status.reasons.iter().map(|reason| &*reason.message).collect();
            let remedies: Vec<&str> = status.reasons.iter().map(|reason| &*reason.remedy).collect();
            Finding::warning("node", format!("{said}{}", reasons.join("; ")), remedies.join("; "))
        }
    });
    let own = env!("CARGO_PKG_VERSION");
    found.push(match status.version == own {
        true => Finding::ok("version", format!("{own}, as the node")),
        false => Finding::warning(
            "version",
            format!("this program is {own}, the node {}", status.version),
            "use the program that the node was started from",
        ),
    });
    found.push(clock("clock", "the node's", status.at.duration_since(at), took));
    true
}

/// What there is to say of program and clock where no node has told its own.
fn unaccompanied() -> [Finding; 2] {
    let own = env!("CARGO_PKG_VERSION");
    let now = when::exact(Timestamp::now());
    [
        Finding::ok("version", format!("this program is {own}; there is no node to compare it with")),
        Finding::ok("clock", format!("this machine's says {now}")),
    ]
}

/// How far another clock is from ours, of which the way there and back explains a part.
fn clock(check: &'static str, whose: &str, ahead: jiff::SignedDuration, took: Duration) -> Finding {
    let off = ahead.unsigned_abs().saturating_sub(took);
    if off <= SKEW {
        return Finding::ok(check, format!("this machine's and {whose} agree"));
    }
    let which = if ahead.is_negative() { "behind" } else { "ahead of" };
    let message = format!("{whose} is {} {which} this machine's", millis(off));
    Finding::warning(check, message, "have both follow a time server: leases and schedules go by it")
}

/// Nobody else should read what agents remember, nor the token.
fn permissions(data_dir: &Path) -> Finding {
    let mode = |path: &Path| fs::metadata(path).map(|meta| meta.permissions().mode() & 0o777);
    let dir = match mode(data_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Finding::ok("permissions", format!("{} will be made", data_dir.display()));
        }
        Err(error) => {
            let message = format!("{}: {error}", data_dir.display());
            return Finding::wrong("permissions", message, "choose another one with --data-dir");
        }
        Ok(mode) => mode,
    };
    let token = data_dir.join(TOKEN_FILE);
    if let Ok(mode) = mode(&token)
        && mode & 0o077 != 0
    {
        let message = format!("{} can be read by others (mode {mode:03o})", token.display());
        return Finding::wrong("permissions", message, format!("chmod 600 {}", token.display()));
    }
    if dir & 0o077 != 0 {
        let message = format!("{} is open to others (mode {dir:03o})", data_dir.display());
        return Finding::warning("permissions", message, format!("chmod 700 {}", data_dir.display()));
    }
    let its_token = if token.exists() { ", and so is its token" } else { "" };
    match tempfile_in(data_dir) {
        Ok(()) => {
            let message = format!("{} is this user's alone{its_token}", data_dir.display());
            Finding::ok("permissions", message)
        }
        Err(error) => {
            let message = format!("cannot write to {}: {error}", data_dir.display());
            Finding::wrong("permissions", message, "chown it to this user, or choose another with --data-dir")
        }
    }
}

fn tempfile_in(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(format!("doctor.{}", std::process::id()));
    fs::File::create_new(&path)?;
    fs::remove_file(path)
}

fn files() -> Finding {
    match getrlimit(Resource::Nofile).current {
        Some(few) if few < FEW_FILES => {
            let message = format!("this user may open {few} files; each connection takes one");
            Finding::warning("open files", message, "raise it: ulimit -n 65536, LimitNOFILE= of systemd")
        }
        Some(most) => Finding::ok("open files", format!("up to {most}")),
        None => Finding::ok("open files", "any number"),
    }
}

fn port(settings: &Settings) -> Finding {
    let bind = settings.http.bind;
    match TcpListener::bind(bind) {
        Ok(_) => Finding::ok("port", format!("{bind} is free")),
        Err(error) => {
            let remedy = format!("stop what has it, or take another: --set http.bind={}:0", bind.ip());
            Finding::wrong("port", format!("{bind}: {error}"), remedy)
        }
    }
}

fn millis(took: Duration) -> String {
    match took.as_millis() {
        0 => "under 1 ms".to_owned(),
        ms => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_unless_the_way_explains_it() {
        let off = |ms, took| {
            clock("clock", "the node's", jiff::SignedDuration::from_millis(ms), Duration::from_millis(took))
        };
        assert_eq!(off(1_900, 0).state, State::Ok);
        assert_eq!(off(-2_500, 600).state, State::Ok);
        assert!(off(-9_000, 600).message.contains("8400 ms behind"));
        assert!(off(9_000, 0).message.contains("ahead of"));
    }

    #[test]
    fn what_others_can_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        assert_eq!(permissions(&data).state, State::Ok);
        fs::create_dir(&data).unwrap();
        let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        chmod(&data, 0o755);
        assert_eq!(permissions(&data).state, State::Warning);
        chmod(&data, 0o700);
        assert_eq!(permissions(&data).state, State::Ok);
        fs::write(data.join(TOKEN_FILE), "x").unwrap();
        chmod(&data.join(TOKEN_FILE), 0o644);
        assert_eq!(permissions(&data).state, State::Wrong);
    }
}
