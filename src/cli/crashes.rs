//! `crashes`: crash reports, and the decisions of supervision.

use clap::Subcommand;
use console::truncate_str;

use super::{
    Session,
    again::Again,
    client::{encode, typed},
    exit::Failure,
    limit::Limit,
    out::{self, Paint},
    period::Period,
    table::Table,
    when,
};
use crate::{
    log::crash_text,
    model::{
        crash_group::{CrashGroup, Site},
        supervision::{CrashReport, Decision},
    },
    runtime::views::CrashDetail,
};

#[derive(Debug, Subcommand)]
pub(super) enum Crashes {
    /// List the last crashes, newest first
    #[command(alias = "list")]
    Ls {
        /// Group by site, with counts; groups survive restarts of the node
        #[arg(long)]
        groups: bool,
        #[command(flatten)]
        period: Period,
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        again: Again,
    },
    /// Show a crash report, how often its site has crashed, and the backtrace
    #[command(alias = "get", alias = "describe")]
    Show {
        /// The crash's id, or a group's id for its last crash
        id: String,
    },
}

pub(super) fn run(session: &Session<'_>, command: Crashes) -> Result<(), Failure> {
    match command {
        Crashes::Ls { groups: true, period, limit, again } => again.show(|| groups(session, &period, &limit)),
        Crashes::Ls { groups: false, period, limit, again } => again.show(|| list(session, &period, &limit)),
        Crashes::Show { id } => {
            let reply = session.client()?.get(&format!("/api/v1/crashes/{}", encode(&id)))?;
            if session.json() {
                return Ok(out::json(&reply.body)?);
            }
            Ok(out::line(&told(&reply.read()?, Paint::of_stdout(), out::width()))?)
        }
    }
}

fn groups(session: &Session<'_>, period: &Period, limit: &Limit) -> Result<(), Failure> {
    let (items, rest) = session.client()?.pages("/api/v1/crashes/groups", &period.query(), limit.most())?;
    if session.json() {
        return Ok(rest.json(&items)?);
    }
    let mut table = Table::new(&["ID", "FIRST", "LAST", "COUNT", "KIND", "REASON", "SITE"]);
    for group in typed::<CrashGroup>(items)? {
        let (id, count) = (group.id.to_string(), group.count.to_string());
        let Site { kind, reason, place } = group.site;
        let reason = reason.name().to_owned();
        table.row([id, when::ago(group.first), when::ago(group.last), count, kind, reason, place]);
    }
    table.print("no crashes")?;
    rest.tell();
    Ok(())
}

fn list(session: &Session<'_>, period: &Period, limit: &Limit) -> Result<(), Failure> {
    let (items, rest) = session.client()?.pages("/api/v1/crashes", &period.query(), limit.most())?;
    if session.json() {
        return Ok(rest.json(&items)?);
    }
    let mut table = Table::new(&["ID", "WHEN", "SUBJECT", "REASON", "MESSAGE", "DECISION"]);
    for crash in typed::<CrashReport>(items)? {
        let at = when::ago(crash.at);
        let decision = match crash.decision {
            Decision::Restart { attempt, .. } => format!("restart {attempt} of {}", crash.max_restarts),
            Decision::Exceeded { .. } => "stopped".to_owned(),
            Decision::Leave => "left".to_owned(),
        };
        let reason = crash.reason.kind.name().to_owned();
        table.row([crash.id, at, crash.subject, reason, crash.reason.message, decision]);
    }
    table.print(match period.is_given() {
        true => "no crashes then, since the node started: --groups tells of earlier ones",
        false => "no crashes since the node started: --groups tells of earlier ones",
    })?;
    rest.tell();
    Ok(())
}

/// The columns before the calls.
const INDENT: usize = 19;
/// What is left of a call, however narrow the terminal.
const LEAST: usize = 20;

/// The report, how often it came to this, and the calls that led there: on a terminal so `wide`, each in a line, since
/// the types in a name can make it very long.
fn told(crash: &CrashDetail, paint: Paint, wide: Option<usize>) -> String {
    let mut text = crash_text(&crash.report, paint.is_on());
    if let Some(group) = &crash.group {
        let (first, last) = (when::ago(group.first), when::ago(group.last));
        let times = match group.count {
            1 => format!("once, {last}"),
            n => format!("{n} times, first {first}, last {last}"),
        };
        text.push_str(&format!("\n             {}  {times}", paint.dim("seen")));
    }
    for (n, line) in crash.backtrace.as_deref().unwrap_or_default().lines().enumerate() {
        let label = if n == 0 { "by  " } else { "    " };
        let line = out::plain(line);
        let room = wide.map_or(usize::MAX, |wide| wide.saturating_sub(INDENT).max(LEAST));
        let line = truncate_str(&line, room, "…");
        text.push_str(&format!("\n             {}  {line}", paint.dim(label)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_shown_with_its_sites_past_and_the_calls_that_led_there() {
        let crash = serde_json::json!({
            "id": "0190", "at": "2026-11-03T14:05:06.789Z", "subject": "tally/a",
            "reason": {"kind": "panic", "message": "boom", "site": "src/tally.rs:12"},
            "repeat": 1, "version": 41, "decision": {"action": "restart", "attempt": 1, "delay_ms": 5},
            "max_restarts": 10, "within_ms": 60_000,
            "group": {"id": uuid::Uuid::nil(), "first": "2026-01-01T00:00:00Z", "last": jiff::Timestamp::now(), "count": 7},
            "backtrace": "tally::add\n    at src/tally.rs:12:9\n\u{1b}[2Jmain"
        });
        let crash = serde_json::from_value(crash).unwrap();
        let text = told(&crash, Paint::NONE, None);
        let (report, rest) = text.split_at(text.find("\n             seen").unwrap());
        assert!(report.starts_with("14:05:06.789 ERRO agent.crashed tally/a  panicked"), "{text}");
        assert!(rest.contains("seen  7 times, first ") && rest.contains(", last just now"), "{text}");
        assert!(rest.ends_with(
            "\n             by    tally::add\n                       at src/tally.rs:12:9\n                   \\u{1b}[2Jmain"
        ), "{text}");
        let narrow = told(&crash, Paint::NONE, Some(40));
        assert!(narrow.contains("\n                       at src/tally.rs:…"), "{narrow}");
    }
}
