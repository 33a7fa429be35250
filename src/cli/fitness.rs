//! Whether a configuration is one that a node starts with.

use super::{
    Session,
    doctor::{Finding, PEER_TIMEOUT},
    exit::Failure,
    out,
};
use crate::{
    config::{Errors, Settings, Sources},
    model::wire::Wire,
    runtime,
    store::{self, KeptSettings, StoreError, StoreOptions},
};

/// The settings as a node would start with them: with what `config set` keeps in the store, where that can be read
/// without a change to it. A node that runs on this machine's data directory is left alone.
///
/// # Errors
/// Everything that is wrong with them.
pub(super) fn as_started(session: &Session<'_>) -> Result<Result<Settings, Errors>, Failure> {
    let sources = session.common.sources();
    let settings = match (session.load)(&sources) {
        Ok(settings) => settings,
        Err(errors) => return Ok(Err(errors)),
    };
    let waiter = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let kept = waiter.block_on(async { tokio::time::timeout(PEER_TIMEOUT, kept(&settings)).await });
    waiter.shutdown_background();
    match kept {
        Ok(Ok(Some(kept))) if !kept.values.is_empty() => {
            let sources = Sources { stored: kept.values.into_iter().collect(), ..sources };
            Ok((session.load)(&sources).map_err(Errors::with_remedy))
        }
        Ok(Ok(_)) => Ok(Ok(settings)),
        Ok(Err(_)) | Err(_) => {
            out::note("the store cannot be read: what `config set` keeps there is not among it");
            Ok(Ok(settings))
        }
    }
}

/// What the store keeps; `None`: there is no store yet, or a node has it.
async fn kept(settings: &Settings) -> Result<Option<KeptSettings>, StoreError> {
    let url = &settings.store.url;
    let made = store::migration_status(url).await?;
    if !made.pending.is_empty() || !made.unknown.is_empty() {
        return Ok(None);
    }
    let data_dir = &settings.node.data_dir;
    let Ok(_alone) = data_dir.is_dir().then(|| runtime::lock(data_dir)).transpose() else {
        return Ok(None);
    };
    store::open(url, &StoreOptions::default()).await?.settings().await.map(Some)
}

/// Sections of kinds and tools that the program does not have.
pub(super) fn strangers(settings: &Settings, wire: &Wire) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for shown in settings.show() {
        let (what, name) = match shown.key.split('.').collect::<Vec<_>>().as_slice() {
            ["agents", kind, _] if *kind != "default" && !wire.kinds.contains_key(*kind) => ("kind", *kind),
            ["tools", name @ .., _] if !name.is_empty() => {
                // a name with a dot in it stands in quotes
                let name = name.join(".").replace('"', "");
                if wire.tools.contains_key(&name) || wire.tools.keys().any(|tool| tool.starts_with(&name)) {
                    continue;
                }
                found.extend(stranger("tool", &name, &found, wire.tools.keys()));
                continue;
            }
            _ => continue,
        };
        found.extend(stranger(what, name, &found, wire.kinds.keys()));
    }
    found
}

fn stranger<'a>(
    what: &str,
    name: &str,
    told: &[Finding],
    known: impl Iterator<Item = &'a String>,
) -> Option<Finding> {
    let message = format!("this program has no {what} `{name}`: its section changes nothing");
    if told.iter().any(|one| one.message == message) {
        return None;
    }
    let known = known.map(String::as_str).collect::<Vec<_>>().join(", ");
    Some(Finding::warning("configuration", message, format!("it has {known}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wire::{WireKind, WireTool};

    #[test]
    fn a_section_of_what_nobody_has_is_told_once() {
        let sets = ["agents.countr.mailbox=7", "agents.countr.concurrency=1", "agents.counter.mailbox=7"];
        let sets = sets.into_iter().chain(["tools.fs.read.max_attempts=2", "tools.nosuch.max_attempts=2"]);
        let settings =
            crate::config::load(&Sources { sets: sets.map(str::to_owned).collect(), ..Sources::default() })
                .unwrap();
        let wire = Wire {
            kinds: [("counter".to_owned(), WireKind::default())].into(),
            tools: [("fs.read".to_owned(), WireTool::default())].into(),
        };
        let mut told: Vec<String> = strangers(&settings, &wire).into_iter().map(|one| one.message).collect();
        told.sort();
        let [kind, tool] = told.as_slice() else { panic!("{told:?}") };
        assert!(kind.contains("no kind `countr`") && tool.contains("no tool `nosuch`"), "{told:?}");
    }
}
