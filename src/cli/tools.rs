//! `tools`: list, show, call.

use std::time::Duration;

use clap::Subcommand;

use super::{
    Session,
    again::Again,
    client::{LONG, encode, query},
    exit::Failure,
    input,
    out::{self, Paint},
    table::Table,
    when,
};
use crate::{
    model::{supervision::restart_command, units::print_duration},
    runtime::views::{Page, ToolInfo},
    tool::Effect,
};

/// What a node's answer may take longer than the call itself.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(super) enum Tools {
    /// List the tools
    #[command(alias = "list")]
    Ls(Again),
    /// Show a tool with its schemas
    #[command(alias = "get", alias = "describe")]
    Show {
        /// The tool
        name: String,
    },
    /// Call a tool; prints its output as JSON
    Call {
        /// The tool
        name: String,
        /// The input: JSON, `-` for stdin, @FILE
        #[arg(value_name = "JSON")]
        body: Option<String>,
        /// Give up after this time
        #[arg(long, value_name = "TIME", value_parser = input::duration)]
        timeout: Option<Duration>,
        /// Idempotency key: a repeated request returns the first result
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
}

pub(super) fn run(session: &Session<'_>, command: Tools) -> Result<(), Failure> {
    match command {
        Tools::Ls(again) => again.show(|| list(session)),
        Tools::Show { name } => show(session, &name),
        Tools::Call { name, body, timeout, idempotency_key } => {
            let body = input::json(body.as_deref())?;
            let pairs = [("timeout", timeout.map(print_duration))];
            let path = format!("/api/v1/tools/{}/call{}", encode(&name), query(&pairs));
            let patience = timeout.map_or(LONG, |timeout| timeout.saturating_add(GRACE));
            let client = session.client()?;
            let reply = client.post_with(&path, body, idempotency_key.as_deref(), patience)?;
            Ok(out::json(&reply.body)?)
        }
    }
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Pure => "pure",
        Effect::Idempotent => "idempotent",
        Effect::Once => "once",
    }
}

/// A tool that is stopped is so whether its tasks are paused or not.
fn status(tool: &ToolInfo) -> &str {
    match &*tool.status {
        "stopped" => "stopped",
        _ if tool.paused => "paused",
        other => other,
    }
}

fn list(session: &Session<'_>) -> Result<(), Failure> {
    let reply = session.client()?.get("/api/v1/tools")?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let columns = ["TOOL", "EFFECT", "STATUS", "RUNNING", "WAITING", "CALLS", "FAILED", "CRASHED"];
    let mut table = Table::new(&columns);
    for tool in reply.read::<Page<ToolInfo>>()?.items {
        let counts = [tool.running, tool.waiting, tool.calls, tool.failed, tool.crashed];
        let named = [tool.name.clone(), effect(tool.effect).to_owned(), status(&tool).to_owned()];
        table.row(named.into_iter().chain(counts.map(|n| n.to_string())));
    }
    Ok(table.print("this program has no tools")?)
}

fn show(session: &Session<'_>, name: &str) -> Result<(), Failure> {
    let reply = session.client()?.get(&format!("/api/v1/tools/{}", encode(name)))?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let tool: ToolInfo = reply.read()?;
    let most = tool.concurrency.map_or_else(|| "any number".to_owned(), |n| n.to_string());
    let mut lines = vec![
        format!("{}  {}  {}", Paint::of_stdout().bold(&tool.name), effect(tool.effect), status(&tool)),
        format!("    takes: {}", tool.input),
        format!("  answers: {}", tool.output),
        format!("   limits: {most} at once, {} each", when::span(tool.timeout_ms)),
        format!("      now: {} running, {} waiting", tool.running, tool.waiting),
        format!("   so far: {} calls, {} failed, {} crashed", tool.calls, tool.failed, tool.crashed),
    ];
    if let Some(reason) = &tool.reason {
        let command = restart_command(&format!("tool:{}", tool.name));
        lines.insert(1, format!("  stopped: {reason}; when the cause is mended: {command}"));
    }
    Ok(out::line(&lines.join("\n"))?)
}
