//! `crashes`: what crashed, and what supervision did.

use std::time::Duration;

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
    model::supervision::{CrashKind, CrashReason, CrashReport, Decision},
    runtime::views::{CrashInfo, Page},
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
            for crash in reply.read::<Page<CrashInfo>>()?.items {
                let at = when::ago(crash.at);
                table.row([crash.id, at, crash.subject, crash.reason, crash.message, crash.decision]);
            }
            Ok(table.print("no crashes")?)
        }
        Crashes::Show { id } => {
            let reply = client.get(&format!("/api/v1/crashes/{}", encode(&id)))?;
            if session.json() {
                return Ok(out::json(&reply.body)?);
            }
            let report = report(reply.read()?);
            Ok(out::line(&crash_text(&report, Paint::of_stdout().is_on()))?)
        }
    }
}

/// The report from which the log was written.
fn report(crash: CrashInfo) -> CrashReport {
    let kind = serde_json::from_value(crash.reason.into()).unwrap_or(CrashKind::Panic);
    let decision = match crash.decision.as_str() {
        "restart" => {
            Decision::Restart { attempt: crash.attempt, delay: Duration::from_millis(crash.delay_ms) }
        }
        "stopped" | "exceeded" => Decision::Exceeded { attempts: crash.max },
        _ => Decision::Leave,
    };
    CrashReport {
        id: crash.id,
        at: crash.at,
        subject: crash.subject,
        reason: CrashReason { kind, message: crash.message, site: crash.site },
        message_type: crash.message_type,
        message_id: crash.message_id,
        message_bytes: crash.message_bytes,
        repeat: 1,
        version: Some(crash.version),
        lost: None,
        decision,
        max_restarts: crash.max,
        within: Duration::from_millis(crash.within_ms),
    }
}
