//! `crashes`: what crashed, and what supervision did.

use clap::Subcommand;

use super::{
    Session,
    client::encode,
    exit::Failure,
    out::{self, Paint},
    table::Table,
    when,
};
use crate::{
    log::crash_text,
    model::supervision::{CrashReport, Decision},
    runtime::views::Page,
};

#[derive(Debug, Subcommand)]
pub(super) enum Crashes {
    /// List the last crashes, newest first
    #[command(alias = "list")]
    Ls,
    /// Show a crash as the log does
    #[command(alias = "get", alias = "describe")]
    Show {
        /// The crash
        id: String,
    },
}

pub(super) fn run(session: &Session<'_>, command: Crashes) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Crashes::Ls => {
            let reply = client.get("/api/v1/crashes")?;
            if session.json() {
                return Ok(out::json(&reply.body)?);
            }
            let mut table = Table::new(&["ID", "WHEN", "SUBJECT", "REASON", "MESSAGE", "DECISION"]);
            for crash in reply.read::<Page<CrashReport>>()?.items {
                let at = when::ago(crash.at);
                let decision = match crash.decision {
                    Decision::Restart { attempt, .. } => {
                        format!("restart {attempt} of {}", crash.max_restarts)
                    }
                    Decision::Exceeded { .. } => "stopped".to_owned(),
                    Decision::Leave => "left".to_owned(),
                };
                let reason = crash.reason.kind.name().to_owned();
                table.row([crash.id, at, crash.subject, reason, crash.reason.message, decision]);
            }
            Ok(table.print("no crashes")?)
        }
        Crashes::Show { id } => {
            let reply = client.get(&format!("/api/v1/crashes/{}", encode(&id)))?;
            if session.json() {
                return Ok(out::json(&reply.body)?);
            }
            let report: CrashReport = reply.read()?;
            Ok(out::line(&crash_text(&report, Paint::of_stdout().is_on()))?)
        }
    }
}
