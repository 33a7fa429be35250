//! `kinds`: the kinds of agents and their messages, and pausing them.

use clap::Subcommand;

use super::{
    Session,
    client::encode,
    exit::Failure,
    out::{self, Paint},
    table::Table,
};
use crate::runtime::views::{KindInfo, Page};

#[derive(Debug, Subcommand)]
pub(super) enum Kinds {
    /// List the kinds
    #[command(alias = "list")]
    Ls,
    /// Pause a kind: no node starts its tasks; running ones continue
    Pause {
        /// The kind, or tool:NAME
        kind: String,
    },
    /// Resume a paused kind, or a tool that has crashed too often
    Resume {
        /// The kind, or tool:NAME
        kind: String,
    },
    /// Show a kind's messages with their schemas
    #[command(alias = "get", alias = "describe")]
    Show {
        /// The kind
        kind: String,
    },
}

pub(super) fn run(session: &Session<'_>, command: Kinds) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Kinds::Ls => {
            let reply = client.get("/api/v1/kinds")?;
            if session.json() {
                return Ok(out::json(&reply.body)?);
            }
            let mut table = Table::new(&["KIND", "VERSION", "PERSISTENCE", "TASKS", "MESSAGES"]);
            for kind in reply.read::<Page<KindInfo>>()?.items {
                let names: Vec<&str> = kind.messages.iter().map(|message| message.name.as_str()).collect();
                table.row([
                    kind.kind.clone(),
                    kind.version.to_string(),
                    kind.persistence.clone(),
                    if kind.paused { "paused" } else { "run" }.to_owned(),
                    names.join(", "),
                ]);
            }
            Ok(table.print("this program has no kinds of agents")?)
        }
        Kinds::Pause { kind } => pause(session, &kind, "pause"),
        Kinds::Resume { kind } => pause(session, &kind, "resume"),
        Kinds::Show { kind } => {
            let reply = client.get(&format!("/api/v1/kinds/{}", encode(&kind)))?;
            if session.json() {
                return Ok(out::json(&reply.body)?);
            }
            let kind: KindInfo = reply.read()?;
            let paint = Paint::of_stdout();
            let mut lines =
                vec![format!("{}  version {}  {}", paint.bold(&kind.kind), kind.version, kind.persistence)];
            for message in &kind.messages {
                let query = if message.read_only { "  (reads only)" } else { "" };
                lines.push(format!("\n{}{query}", paint.bold(&message.name)));
                lines.push(format!("  takes   {}", message.schema));
                lines.push(format!("  replies {}", message.reply));
                if !message.refusal.is_null() && message.refusal != false {
                    lines.push(format!("  refuses {}", message.refusal));
                }
            }
            Ok(out::line(&lines.join("\n"))?)
        }
    }
}

fn pause(session: &Session<'_>, kind: &str, action: &str) -> Result<(), Failure> {
    let path = format!("/api/v1/kinds/{}/{action}", encode(kind));
    let reply = session.client()?.post(&path, Vec::new())?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    out::note(&format!("{kind}: {action} accepted"));
    Ok(())
}
