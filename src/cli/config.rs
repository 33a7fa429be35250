//! `config`: show, check, write and change the configuration.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Session,
    care::{Care, somebody_is_there},
    doctor,
    exit::{Exit, Failure},
    fitness,
    out::{self, Paint},
};
use crate::{
    clock,
    config::{self, Change, Sources},
    http::{self, Announcement},
    model::act::{self, Act},
    runtime,
    store::{self, KeptSettings, StoreOptions},
};

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Show every key with its value; secrets as ***
    #[command(alias = "ls", alias = "list", alias = "get")]
    Show {
        /// Show where each value came from
        #[arg(long)]
        origin: bool,
        /// As read on this machine, not as a running node has it
        #[arg(long)]
        local: bool,
    },
    /// Validate; on errors, list them all and exit 9
    Check {
        /// Also check that the store, the cache and the named files can be used
        #[arg(long)]
        connect: bool,
    },
    /// Write a configuration file with every key, its default and its meaning
    Init {
        /// The file to write
        #[arg(default_value = config::FILE)]
        file: PathBuf,
        /// Write an example for production
        #[arg(long)]
        production: bool,
        /// Overwrite an existing file
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        care: Care,
    },
    /// Set a key in the store, for all nodes that share it; live keys apply at once
    Set {
        /// Such as log.level
        key: String,
        /// Such as debug; lists as JSON
        value: String,
        /// Say what would come of it, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove a key that `set` has set
    Unset {
        /// Such as log.level; a section removes all its keys
        key: String,
        #[command(flatten)]
        care: Care,
    },
}

pub(super) fn run(session: &Session<'_>, command: Config) -> Result<(), Failure> {
    match command {
        Config::Show { origin, local } => show(session, origin, local),
        Config::Check { connect } => check(session, connect),
        Config::Init { file, production, force, care } => init(session, &file, production, force, &care),
        Config::Set { key, value, dry_run } => {
            let asked = Asked { patch: json!({key: config::plain(&value)}), dry_run, seen: None };
            let (document, _) = asked.change(session)?;
            told(session, &document, dry_run)
        }
        Config::Unset { key, care } => unset(session, &key, &care),
    }
}

fn show(session: &Session<'_>, origin: bool, local: bool) -> Result<(), Failure> {
    let said = match !local && asks_node(session)? {
        true => Some(session.client()?.get("/api/v1/config").and_then(|reply| reply.read())),
        false => None,
    };
    let document: Value = match said {
        Some(Err(failure)) if session.common.url.is_some() || failure.exit != Exit::Unreachable => {
            return Err(failure);
        }
        Some(Ok(document)) => document,
        _ if local => json!({"items": session.settings()?.show(), "next_cursor": null}),
        _ => json!({"items": fitness::as_started(session)??.show(), "next_cursor": null}),
    };
    if session.json() {
        return Ok(out::json(document.to_string().as_bytes())?);
    }
    let paint = Paint::of_stdout();
    let items = document.get("items").and_then(Value::as_array).into_iter().flatten();
    let text =
        |item: &Value, name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let line = |item: &Value| {
        let from = format!("  # {}", text(item, "origin"));
        let from = if origin { paint.dim(&from) } else { String::new() };
        format!("{} = {}{from}", text(item, "key"), item.get("value").unwrap_or(&Value::Null))
    };
    out::line(&items.map(line).collect::<Vec<_>>().join("\n"))?;
    let waiting = keys(document.get("needs_restart"));
    if !waiting.is_empty() {
        out::note(&format!("after a restart others will be in force: {}", waiting.join(", ")));
    }
    Ok(())
}

/// Whether a node is asked: one that was named, or that has announced itself in the data directory.
fn asks_node(session: &Session<'_>) -> Result<bool, Failure> {
    if session.common.url.is_some() {
        return Ok(true);
    }
    let data_dir = session.settings()?.node.data_dir;
    Ok(Announcement::read(&data_dir).is_some())
}

fn check(session: &Session<'_>, connect: bool) -> Result<(), Failure> {
    let read =
        if connect { fitness::as_started(session)? } else { (session.load)(&session.common.sources()) };
    let fit = read.and_then(|settings| (session.misfits)(&settings).map(|()| settings));
    let settings = match fit {
        Ok(settings) => settings,
        Err(errors) if session.json() => {
            out::line(&json!({"valid": false, "errors": errors}).to_string())?;
            return Err(Failure::silent(Exit::Config));
        }
        Err(errors) => return Err(errors.into()),
    };
    // what `run` would refuse
    http::exposed(&settings)?;
    let mut found = fitness::strangers(&settings, &(session.wire)(&settings));
    if connect {
        found.extend(doctor::environment(&settings));
    }
    if session.json() {
        let wrong = found.iter().any(doctor::Finding::is_wrong);
        out::line(&json!({"valid": !wrong, "keys": settings.show().len(), "checks": found}).to_string())?;
    } else {
        out::note(&format!("the configuration is valid: {} keys", settings.show().len()));
        doctor::print(&found)?;
    }
    doctor::verdict(&found)
}

fn init(
    session: &Session<'_>,
    file: &Path,
    production: bool,
    force: bool,
    care: &Care,
) -> Result<(), Failure> {
    let text = if production { config::PRODUCTION.to_owned() } else { commented(config::DEFAULTS) };
    let (shown, is_there) = (file.display(), file.exists());
    if care.dry_run {
        let would = match (is_there, force) {
            (false, _) => "would be written",
            (true, true) => "is there, and would be written over",
            (true, false) => "is there already, and would stay as it is: --force writes over it",
        };
        if session.json() {
            let document = json!({"file": file, "exists": is_there, "writes": force || !is_there});
            return Ok(out::line(&document.to_string())?);
        }
        return Ok(out::line(&format!("{shown}  {would}"))?);
    }
    if force && is_there {
        care.confirm(&format!("write over {shown}?"))?;
    }
    let opened = match force {
        true => File::create(file),
        false => File::create_new(file),
    };
    let written = opened.and_then(|mut opened| opened.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::new(Exit::Refused, format!("{shown} is there already")).hint("--force writes over it")
        }
        _ => Failure::new(Exit::Failed, format!("cannot write {shown}: {error}")),
    })?;
    out::note(&format!("{shown} is written: change what you need, then `{} config check`", session.program));
    Ok(())
}

/// The defaults as a file in which nothing is set: each value behind a `#`, as it would be written.
fn commented(defaults: &str) -> String {
    let line = |line: &str| match line.trim_start() {
        "" => String::new(),
        text if text.starts_with(['#', '[']) => line.to_owned(),
        _ => format!("#{line}"),
    };
    let lines: Vec<String> = defaults.lines().map(line).collect();
    format!(
        "# Every key with its default. What is set here overrides it; see also `config show --origin`.\n\n{}\n",
        lines.join("\n")
    )
}

/// Takes keys away. A person at a terminal is shown which they are where a section was named, and what they have
/// agreed to is done, or nothing.
fn unset(session: &Session<'_>, key: &str, care: &Care) -> Result<(), Failure> {
    let ask = !care.dry_run && !care.yes && somebody_is_there();
    let mut asked = Asked { patch: json!({key: null}), dry_run: care.dry_run || ask, seen: None };
    let (mut document, tag) = asked.change(session)?;
    if ask {
        // a node of an earlier version tells no more than what changes there
        let known = document.get("removed").or_else(|| document.get("changed"));
        let keys = keys(known);
        if keys.iter().any(|changed| changed != key) {
            care.confirm(&format!("unset {}?", out::plain(&keys.join(", "))))?;
        }
        asked = Asked { dry_run: false, seen: tag, ..asked };
        (document, _) = asked.change(session)?;
    }
    told(session, &document, care.dry_run)
}

/// A change that is asked for. One that names its key and its value is made whatever others have done meanwhile;
/// one that was shown first, only upon what was seen.
struct Asked {
    patch: Value,
    dry_run: bool,
    /// The tag of what was seen.
    seen: Option<String>,
}

impl Asked {
    /// Has it made by a node where one runs, else in the store: what came of it, and the tag of that.
    fn change(&self, session: &Session<'_>) -> Result<(Value, Option<String>), Failure> {
        let path = format!("/api/v1/config{}", if self.dry_run { "?dry_run=true" } else { "" });
        let said = match asks_node(session)? {
            true => Some(session.client()?.patch(&path, &self.patch, self.seen.as_deref())),
            false => None,
        };
        match said {
            Some(Err(failure)) if session.common.url.is_some() || failure.exit != Exit::Unreachable => {
                Err(failure)
            }
            Some(Ok(reply)) => Ok((reply.read()?, reply.tag)),
            // what it announced is of a node that was killed
            _ => in_store(session, self),
        }
    }
}

/// Prints what a change came to.
fn told(session: &Session<'_>, document: &Value, dry_run: bool) -> Result<(), Failure> {
    if session.json() {
        return Ok(out::json(document.to_string().as_bytes())?);
    }
    tell(document, dry_run)
}

/// Says what a change came to.
fn tell(document: &Value, dry_run: bool) -> Result<(), Failure> {
    let text =
        |item: &Value, name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let items = |name: &str| document.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let waits = keys(document.get("needs_restart"));
    for change in items("changed") {
        let key = text(&change, "key");
        let when = match (waits.contains(&key), dry_run) {
            (false, false) => "in force",
            (false, true) => "would be in force at once",
            (true, false) => "after a restart",
            (true, true) => "would wait for a restart",
        };
        match change.get("value") {
            Some(value) if !value.is_null() => out::line(&format!("{key} = {value}  # {when}"))?,
            _ => out::line(&format!("{key} is unset  # {when}"))?,
        }
    }
    for over in items("overruled") {
        out::note(&format!(
            "{} is also set by {}, which overrides it",
            text(&over, "key"),
            text(&over, "by")
        ));
    }
    let changed: Vec<String> = items("changed").iter().map(|change| text(change, "key")).collect();
    let removed: Vec<String> = keys(document.get("removed"));
    let gone: Vec<&String> = removed.iter().filter(|key| !changed.contains(key)).collect();
    for key in &gone {
        let how = if dry_run { "would be kept no more" } else { "is kept no more" };
        out::line(&format!("{key} {how}  # what is in force here stays"))?;
    }
    if changed.is_empty() && gone.is_empty() {
        out::note("nothing has changed: `config show --origin` says where each value comes from");
    }
    Ok(())
}

fn keys(list: Option<&Value>) -> Vec<String> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    let key = |item: &Value| item.as_str().or_else(|| item.get("key")?.as_str()).map(str::to_owned);
    items.filter_map(key).collect()
}

/// Changes what the store keeps, where no node runs here. Nodes elsewhere that share it take it over.
fn in_store(session: &Session<'_>, asked: &Asked) -> Result<(Value, Option<String>), Failure> {
    let sources = session.common.sources();
    let settings = session.settings()?;
    let _alone = runtime::lock(&settings.node.data_dir).map_err(|error| {
        Failure::new(Exit::Refused, error.to_string())
            .hint("it has a node that does not answer: look at it first")
    })?;
    let failed = |error: store::StoreError| Failure::new(Exit::Failed, format!("the store: {error}"));
    let waiter = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    waiter.block_on(async {
        let store = store::open(&settings.store.url, &StoreOptions::default()).await.map_err(failed)?;
        let kept = store.settings().await.map_err(failed)?;
        let tag = format!("\"{}\"", kept.generation);
        if asked.seen.as_ref().is_some_and(|seen| *seen != tag) {
            return Err(overtaken());
        }
        let with = |values: &KeptSettings| Sources {
            stored: values.values.clone().into_iter().collect(),
            ..sources.clone()
        };
        let next = config::patched(&kept.values, &asked.patch)?;
        let next = KeptSettings { generation: kept.generation + 1, values: next };
        // what was kept may be wrong, and this its remedy
        let before = (session.load)(&with(&kept)).unwrap_or(settings);
        let after = (session.load)(&with(&next))?;
        let changed = before.changes(&after);
        if !asked.dry_run && next.values != kept.values {
            let act = act(&changed);
            store.begin_act(&act).await.map_err(failed)?;
            let kept = store.keep_settings(&next).await;
            let outcome = match &kept {
                Ok(true) => act::OK,
                Ok(false) => "precondition_failed",
                Err(store::StoreError::Unknown(_)) => "outcome_unknown",
                Err(_) => "unavailable",
            };
            // what is kept is kept, whatever the log has of it
            if let Err(e) = store.end_act(&Act { outcome: Some(outcome.to_owned()), ..act }).await {
                out::note(&format!("the audit log lacks the outcome: {e}"));
            }
            if !kept.map_err(failed)? {
                return Err(overtaken());
            }
        }
        let set = next.values.keys().filter(|key| kept.values.get(*key) != next.values.get(*key));
        let overruled = set.filter_map(|key| {
            let by = after.origin(key).filter(|by| *by != config::Origin::Stored)?;
            Some(json!({"key": key, "by": by}))
        });
        let keys: Vec<&String> = changed.iter().map(|change| &change.key).collect();
        let document = json!({
            "generation": 0, "changed": changed, "applied": [], "needs_restart": keys,
            "overruled": overruled.collect::<Vec<_>>(), "removed": next.lacks(&kept),
        });
        Ok((document, Some(tag)))
    })
}

fn overtaken() -> Failure {
    Failure::new(Exit::Refused, "somebody else has changed it meanwhile").hint("try again")
}

/// What is written in the audit log of a change without a node; secrets are hidden, as they are shown.
fn act(changed: &[Change]) -> Act {
    Act {
        who: "(config set)".to_owned(),
        before: Some(Change::before(changed)),
        after: Some(Change::values(changed)),
        ..Act::new(clock::now(), "config.change", "config")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn the_commented_file_sets_nothing_and_with_its_values_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let text = commented(config::DEFAULTS);
        let settings = |text: &str| {
            std::fs::write(dir.path().join(config::FILE), text).unwrap();
            load(&Sources { cwd: dir.path().into(), ..Sources::default() }).unwrap()
        };
        let (untouched, default) = (settings(&text), load(&Sources::default()).unwrap());
        assert!(untouched.changes(&default).is_empty());
        assert!(untouched.show().iter().all(|shown| shown.origin == config::Origin::Default));
        // each line that looks like a value is one
        let bare = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && rest.contains('=') => rest.to_owned(),
            _ => line.to_owned(),
        };
        let filled = settings(&text.lines().map(bare).collect::<Vec<_>>().join("\n"));
        assert!(filled.changes(&default).is_empty());
        let from_file = filled.show().iter().filter(|shown| shown.origin != config::Origin::Default).count();
        assert_eq!(from_file, default.show().len());
    }
}
