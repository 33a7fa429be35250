//! `db`: the store, on this machine and without a node.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;
use tokio::runtime::Runtime;

use super::{
    Session,
    exit::{Exit, Failure},
    out,
    table::Table,
};
use crate::{
    config::without_password,
    runtime::trial::KindTrial,
    store::{self, StoreError},
};

#[derive(Debug, Subcommand)]
pub(super) enum Db {
    /// Bring the store's tables up to date
    Migrate,
    /// Show applied and pending migrations; exit 4 if any are pending
    Status,
    /// Read and check everything in the store; exit 1 on findings
    Verify,
    /// Copy the store to a new file, also while a node runs
    Backup {
        /// The file to create
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(super) fn run(session: &Session<'_>, command: Db) -> Result<(), Failure> {
    let settings = session.settings()?;
    let url = settings.store.url.clone();
    let waiter = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Db::Migrate => {
            let applied = waiter.block_on(store::migrate(&url)).map_err(|error| failed(&error, &url))?;
            if session.json() {
                return Ok(out::line(&json!({"applied": applied}).to_string())?);
            }
            match applied.as_slice() {
                [] => out::note("the store was up to date"),
                names => out::line(&names.join("\n"))?,
            }
            Ok(())
        }
        Db::Backup { file } => backup(session, &waiter, &url, &file),
        Db::Status => {
            let seen =
                waiter.block_on(store::migration_status(&url)).map_err(|error| failed(&error, &url))?;
            if session.json() {
                let document =
                    json!({"applied": seen.applied, "pending": seen.pending, "unknown": seen.unknown});
                out::line(&document.to_string())?;
            } else {
                for (state, names) in
                    [("applied", &seen.applied), ("pending", &seen.pending), ("unknown", &seen.unknown)]
                {
                    for name in names {
                        out::line(&format!("{state}  {name}"))?;
                    }
                }
            }
            if !seen.unknown.is_empty() {
                return Err(Failure::new(Exit::Refused, "the store was made by a newer program")
                    .hint("use that one, or a newer one"));
            }
            if !seen.pending.is_empty() {
                return Err(Failure::new(Exit::Refused, "the store is not up to date")
                    .hint(format!("{} db migrate (`run` does it too)", session.program)));
            }
            Ok(())
        }
        Db::Verify => {
            let mut trials = (session.trials)(&settings);
            let read = waiter.block_on(store::verify_with(&url, &mut |state| trials.take(state)));
            let (mut report, kinds) = (read.map_err(|error| failed(&error, &url))?, trials.told());
            report.problems.extend(kinds.iter().flat_map(KindTrial::problems));
            let (agents, snapshots, tasks) = (report.agents, report.snapshots, report.tasks);
            if session.json() {
                let document = json!({
                    "agents": agents, "snapshots": snapshots, "tasks": tasks,
                    "conversations": report.conversations, "messages": report.messages,
                    "sessions": report.sessions, "subscriptions": report.subscriptions,
                    "kinds": kinds, "problems": report.problems
                });
                out::line(&document.to_string())?;
            } else {
                out::line(&format!("read {agents} agents, {snapshots} snapshots, {tasks} tasks"))?;
                print(&kinds)?;
            }
            if report.problems.is_empty() {
                return Ok(());
            }
            let many = report.problems.len();
            let failure = Failure::new(Exit::Failed, format!("{many} problems were found"));
            Err(report.problems.into_iter().fold(failure, Failure::detail))
        }
    }
}

/// `db backup`. Of a server's database only the server's tools can make a copy that is of one moment.
fn backup(session: &Session<'_>, waiter: &Runtime, url: &str, file: &Path) -> Result<(), Failure> {
    let copied = waiter.block_on(store::backup(url, file)).map_err(|error| {
        let exit = if matches!(error, StoreError::Refused(_)) { Exit::Refused } else { Exit::Failed };
        Failure::new(exit, error.to_string())
    })?;
    let Some(bytes) = copied else {
        let dump = format!("pg_dump --format=custom --file='{}' '{}'", file.display(), without_password(url));
        return Err(
            Failure::usage("the store is on Postgres, which has a tool of its own for this").hint(dump)
        );
    };
    if session.json() {
        return Ok(out::line(&json!({"file": file, "bytes": bytes}).to_string())?);
    }
    out::note(&format!("{} has {}", file.display(), out::size(bytes)));
    Ok(())
}

/// How the states of each kind read; of kinds without any there is nothing to say.
fn print(kinds: &[KindTrial]) -> Result<(), Failure> {
    let mut table =
        Table::new(&["KIND", "SCHEMA", "AS THEY ARE", "MIGRATED", "UNREADABLE", "KEPT UNREADABLE"]);
    for kind in kinds {
        let schema = kind.version.map_or_else(|| "not known here".to_owned(), |v| v.to_string());
        let counts = [kind.current.as_they_are, kind.current.migrated, kind.current.unreadable];
        let [as_they_are, migrated, unreadable] = counts.map(|n| n.to_string());
        table.row([
            kind.kind.clone(),
            schema,
            as_they_are,
            migrated,
            unreadable,
            kind.kept.unreadable.to_string(),
        ]);
    }
    if kinds.is_empty() { Ok(()) } else { Ok(table.print("")?) }
}

fn failed(error: &StoreError, url: &str) -> Failure {
    Failure::new(Exit::Failed, format!("{}: {error}", without_password(url)))
}
