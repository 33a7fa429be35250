//! `status` and `tree`: the node's health, and its supervision tree.

use clap::Args;
use serde_json::Value;

use super::{
    Session,
    again::Again,
    exit::{Exit, Failure},
    out::{self, Paint},
    when,
};
use crate::runtime::views::{RecentCrash, Status, TreeNode, Verdict};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Exit 7 unless the verdict is ok
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    again: Again,
}

#[derive(Debug, Args)]
pub(super) struct TreeArgs {
    #[command(flatten)]
    again: Again,
}

/// `status`.
pub(super) fn status(session: &Session<'_>, args: &StatusArgs) -> Result<(), Failure> {
    args.again.show(|| status_now(session, args))
}

fn status_now(session: &Session<'_>, args: &StatusArgs) -> Result<(), Failure> {
    let client = session.client()?;
    let reply = client.get("/api/v1/status")?;
    let status: Status = reply.read()?;
    if session.json() {
        out::json(&reply.body)?;
    } else {
        out::line(&render(&status, client.url(), session.program, Paint::of_stdout()))?;
    }
    match status.verdict {
        Verdict::Degraded | Verdict::Down if args.strict => Err(Failure::silent(Exit::Degraded)),
        _ => Ok(()),
    }
}

/// The verdict first, with what to do; then the facts.
fn render(status: &Status, url: &str, program: &str, paint: Paint) -> String {
    let (dot, verdict) = match status.verdict {
        Verdict::Ok => (paint.green("●"), paint.green("ok")),
        Verdict::Degraded => (paint.yellow("●"), paint.yellow("degraded")),
        Verdict::Down => (paint.red("●"), paint.red("down")),
    };
    let mut lines = vec![format!("{dot} {} {verdict}", paint.bold(&out::plain(&status.node.name)))];
    for reason in &status.reasons {
        let since = when::relative(status.at, reason.since);
        lines.push(format!("  {} ({since})", out::plain(&reason.message)));
        lines.push(format!("    {}", paint.dim(&format!("→ {}", out::plain(&reason.remedy)))));
    }
    let node = &status.node;
    let mut fact = |name: &str, text: String| lines.push(format!("{name:>9}: {text}"));
    fact("node", format!("{} · pid {} · {url}", out::plain(&node.id), node.pid));
    let up = when::span(node.uptime_ms);
    fact(
        "up",
        format!("{up} · version {} · {} in memory", out::plain(&status.version), out::size(node.rss_bytes)),
    );
    if node.rescued > 0 {
        let rescued = format!("tasks rescued at the start: {}", node.rescued);
        lines.push(format!("           {rescued}; their processes had ended before them"));
    }
    let mut fact = |name: &str, text: String| lines.push(format!("{name:>9}: {text}"));
    fact("agents", counts(&status.agents));
    fact("tasks", counts(&status.tasks));
    if status.tasks.get("failed").is_some_and(|n| *n > 0) {
        // They are no reason to doubt the node, and wait for a person all the same.
        lines.push(format!("           {}", paint.dim(&format!("→ {program} tasks dead"))));
    }
    let mut fact = |name: &str, text: String| lines.push(format!("{name:>9}: {text}"));
    fact("store", facts(&status.store));
    fact("cache", facts(&status.cache));
    let crashes = &status.crashes;
    fact("crashes", format!("{} in the last hour", crashes.last_hour));
    for RecentCrash { report: crash, times } in &crashes.recent {
        let times = if *times > 1 { format!(" ({times} of these)") } else { String::new() };
        lines.push(format!(
            "           {}  {}  {}: {}{times}  {}",
            when::relative(status.at, crash.at),
            out::plain(&crash.subject),
            out::plain(crash.reason.kind.name()),
            out::plain(&crash.reason.message.chars().take(100).collect::<String>()),
            paint.dim(&format!("→ {program} crashes show {}", out::plain(&crash.id)))
        ));
    }
    lines.join("\n")
}

fn counts(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let some: Vec<String> =
        counts.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{n} {}", out::plain(name))).collect();
    if some.is_empty() { "none".to_owned() } else { some.join(" · ") }
}

/// The plain members of an object.
fn facts(value: &Value) -> String {
    let told = |(name, value): (&String, &Value)| match value {
        Value::String(text) => Some(format!("{name} {}", out::plain(text))),
        Value::Number(number) if name.ends_with("_bytes") => {
            Some(format!("{} {}", name.trim_end_matches("_bytes"), out::size(number.as_u64()?)))
        }
        Value::Number(_) | Value::Bool(_) => Some(format!("{name} {value}")),
        _ => None,
    };
    value.as_object().into_iter().flatten().filter_map(told).collect::<Vec<_>>().join(" · ")
}

/// `tree`.
pub(super) fn tree(session: &Session<'_>, args: &TreeArgs) -> Result<(), Failure> {
    args.again.show(|| tree_now(session))
}

fn tree_now(session: &Session<'_>) -> Result<(), Failure> {
    let reply = session.client()?.get("/api/v1/tree")?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let mut lines = Vec::new();
    branch(&reply.read()?, "", "", Paint::of_stdout(), &mut lines);
    Ok(out::line(&lines.join("\n"))?)
}

fn branch(node: &TreeNode, first: &str, rest: &str, paint: Paint, lines: &mut Vec<String>) {
    let status = match node.status.as_str() {
        "stopped" | "quarantined" => paint.red(&node.status),
        "restarting" | "paused" | "stopping" => paint.yellow(&node.status),
        other => paint.dim(&out::plain(other)),
    };
    let name = if node.name.is_empty() || node.name == node.role {
        out::plain(&node.role)
    } else {
        format!("{} {}", paint.dim(&out::plain(&node.role)), out::plain(&node.name))
    };
    let mut line = format!("{first}{name}  {status}");
    if node.restarts > 0 {
        line.push_str(&format!("  restarts {}", node.restarts));
    }
    if node.depth > 0 {
        line.push_str(&format!("  waiting {}", node.depth));
    }
    let current = match (&node.message, node.since_ms) {
        (Some(message), Some(ms)) => Some(format!("{message} for {}", when::span(ms))),
        _ => node.current.clone(),
    };
    if let Some(current) = current {
        line.push_str(&format!("  {}", paint.dim(&out::plain(&current))));
    }
    lines.push(line);
    let last = node.children.len().saturating_sub(1);
    for (n, child) in node.children.iter().enumerate() {
        let (tip, stem) = if n == last && node.more == 0 { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        branch(child, &format!("{rest}{tip}"), &format!("{rest}{stem}"), paint, lines);
    }
    if node.more > 0 {
        lines.push(format!("{rest}└─ {}", paint.dim(&format!("… and {} more", node.more))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_verdict_and_what_to_do_come_first() {
        let status: Status = serde_json::from_value(json!({
            "verdict": "degraded",
            "reasons": [{"code": "agent_stopped", "message": "1 agent is stopped", "since": "2026-01-01T11:57:00Z",
                "remedy": "greenroom agents ls --status stopped"}],
            "version": "0.1.0",
            "node": {"id": "b1", "name": "eu-1", "pid": 7, "started_at": "2026-01-01T10:00:00Z",
                "uptime_ms": 7_200_000, "rss_bytes": 1_048_576, "rescued": 2},
            "agents": {"active": 2, "stopped": 1, "idle": 0}, "tasks": {"failed": 3},
            "store": {"kind": "sqlite", "up": true, "size_bytes": 2048}, "cache": {"kind": "memory"},
            "crashes": {"last_hour": 0, "recent": []}, "at": "2026-01-01T12:00:00Z"
        }))
        .unwrap();
        let expected = "\
● eu-1 degraded
  1 agent is stopped (3 min ago)
    → greenroom agents ls --status stopped
     node: b1 · pid 7 · http://127.0.0.1:7710
       up: 2 h · version 0.1.0 · 1.0 MiB in memory
           tasks rescued at the start: 2; their processes had ended before them
   agents: 2 active · 1 stopped
    tasks: 3 failed
           → greenroom tasks dead
    store: kind sqlite · size 2.0 KiB · up true
    cache: kind memory
  crashes: 0 in the last hour";
        assert_eq!(render(&status, "http://127.0.0.1:7710", "greenroom", Paint::NONE), expected);
    }

    #[test]
    fn a_tree_is_drawn() {
        let node = |name: &str, children: Vec<TreeNode>, more| TreeNode {
            role: "agent".into(),
            name: name.into(),
            status: "active".into(),
            restarts: 0,
            depth: 0,
            current: None,
            message: None,
            since_ms: None,
            children,
            more,
        };
        let tree = node("a", vec![node("b", vec![node("c", vec![], 0)], 0), node("d", vec![], 3)], 0);
        let mut lines = Vec::new();
        branch(&tree, "", "", Paint::NONE, &mut lines);
        let expected = "agent a  active\n├─ agent b  active\n│  └─ agent c  active\n└─ agent d  active\n   └─ … and 3 more";
        assert_eq!(lines.join("\n"), expected);
    }
}
