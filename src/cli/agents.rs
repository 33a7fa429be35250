//! `agents`: list, show, send messages, control.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Session,
    again::Again,
    care::Care,
    client::{LONG, agent_path, encode, query, typed},
    exit::Failure,
    input::{self, AgentName},
    limit::Limit,
    out, repair,
    table::Table,
    when,
};
use crate::{
    model::{task::TaskView, units::print_duration},
    runtime::views::{AgentInfo, SnapshotInfo, StateInfo},
};

/// What a node's answer may take longer than the ask itself.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(super) enum Agents {
    /// List agents
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Show an agent
    #[command(alias = "get", alias = "describe")]
    Show(One),
    /// Send an agent a message; prints the reply as JSON
    Send(SendArgs),
    /// Print an agent's state as JSON
    State {
        #[command(flatten)]
        agent: One,
        /// Of this kept version [default: the current one]
        #[arg(long, value_name = "N")]
        version: Option<i64>,
    },
    /// List an agent's kept snapshots, newest first
    Snapshots {
        #[command(flatten)]
        agent: One,
        #[command(flatten)]
        limit: Limit,
    },
    /// Stop an agent until it is restarted
    Stop(Clearing),
    /// Restart an agent with a fresh restart budget
    Restart(Clearing),
    /// Pause an agent; its messages queue
    Pause(Clearing),
    /// Resume a paused agent
    Resume(One),
    /// Quarantine an agent: it handles no messages until it is released
    Quarantine(One),
    /// Release an agent from quarantine
    Release(repair::ReleaseArgs),
    /// Replace an agent's state, from a file or in $EDITOR
    Edit(repair::EditArgs),
    /// Roll an agent's state back to a kept version
    Rollback(repair::RollbackArgs),
    /// Delete an agent; a later message starts it with an empty state
    #[command(alias = "rm")]
    Delete(repair::DeleteArgs),
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// The agent
    #[arg(value_name = "KIND/KEY", value_parser = input::agent)]
    pub agent: AgentName,
}

#[derive(Debug, Args)]
pub(super) struct Clearing {
    #[command(flatten)]
    one: One,
    /// Reject queued messages instead of running them (tasks are kept)
    #[arg(long)]
    clear: bool,
    #[command(flatten)]
    care: Care,
}

impl Clearing {
    fn act(&self, session: &Session<'_>, action: &str) -> Result<(), Failure> {
        let name = &self.one.agent;
        let subject = format!("{}/{}", name.kind, name.key);
        if self.care.dry_run {
            let reply = session.client()?.get(&agent_path(name))?;
            if session.json() {
                return Ok(out::json(&reply.body)?);
            }
            let agent: AgentInfo = reply.read()?;
            let fate = match (self.clear, action) {
                (true, _) => "would be rejected",
                (false, "stop") => "would be refused, tasks parked",
                (false, _) => "would stay",
            };
            let told =
                format!("{subject}  {}  {action}: {} that wait {fate}", agent.status, agent.mailbox.depth);
            return Ok(out::line(&told)?);
        }
        if self.clear {
            self.care.confirm(&format!("{action} {subject}, and reject the messages that wait?"))?;
        }
        // what is told of it afterwards; nobody is to wait for that who only pauses, or reads JSON
        let is_told = !session.json() && (self.clear || action != "pause");
        let found: Option<AgentInfo> = match is_told {
            true => session.client()?.get(&agent_path(name)).ok().and_then(|reply| reply.read().ok()),
            false => None,
        };
        act(session, &self.one.agent, action, self.clear.then(|| json!({"clear": true})))?;
        if let Some(agent) = found {
            agent.message.into_iter().filter(|_| action != "pause").for_each(|message| {
                out::note(&format!(
                    "its turn ({message}, for {}) is asked to end, and cut short and undone if it does not",
                    when::span(agent.since_ms.unwrap_or_default())
                ));
            });
            let waiting = agent.mailbox.depth;
            if self.clear && waiting > 0 {
                out::note(&format!("about {waiting} messages that waited are refused"));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only this kind
    #[arg(long)]
    pub kind: Option<String>,
    /// Only this status
    #[arg(long)]
    pub status: Option<String>,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    again: Again,
}

#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// The agent
    #[arg(value_name = "KIND/KEY", value_parser = input::agent)]
    pub agent: AgentName,
    /// The message's name
    #[arg(value_name = "MESSAGE")]
    pub message: String,
    /// Its content: JSON, `-` for stdin, @FILE
    #[arg(value_name = "JSON")]
    pub body: Option<String>,
    /// Do not wait for a reply; the message may be lost
    #[arg(long, conflicts_with_all = ["submit", "timeout", "idempotency_key"])]
    pub tell: bool,
    /// Submit it as a durable task; prints the task's id
    #[arg(long)]
    pub submit: bool,
    /// Handle it before waiting messages that are not urgent
    #[arg(long, conflicts_with = "submit")]
    pub urgent: bool,
    /// Give up after this time
    #[arg(long, value_name = "TIME", value_parser = input::duration)]
    pub timeout: Option<Duration>,
    /// Idempotency key: a repeated request returns the first result
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

pub(super) fn run(session: &Session<'_>, command: Agents) -> Result<(), Failure> {
    match command {
        Agents::Ls(args) => args.again.show(|| list(session, &args)),
        Agents::Show(one) => show(session, &one.agent),
        Agents::Send(args) => send(session, &args),
        Agents::State { agent, version } => state(session, &agent.agent, version),
        Agents::Snapshots { agent, limit } => snapshots(session, &agent.agent, &limit),
        Agents::Stop(args) => args.act(session, "stop"),
        Agents::Restart(args) => args.act(session, "restart"),
        Agents::Pause(args) => args.act(session, "pause"),
        Agents::Resume(one) => act(session, &one.agent, "resume", None),
        Agents::Quarantine(one) => act(session, &one.agent, "quarantine", None),
        Agents::Release(args) => repair::release(session, &args),
        Agents::Edit(args) => repair::edit(session, &args),
        Agents::Rollback(args) => repair::rollback(session, &args),
        Agents::Delete(args) => repair::delete(session, &args),
    }
}

fn list(session: &Session<'_>, args: &ListArgs) -> Result<(), Failure> {
    let wanted = [("kind", args.kind.clone()), ("status", args.status.clone())];
    let (items, rest) = session.client()?.pages("/api/v1/agents", &wanted, args.limit.most())?;
    if session.json() {
        return Ok(rest.json(&items)?);
    }
    let mut table = Table::new(&["AGENT", "STATUS", "VERSION", "WAITING", "RESTARTS", "UPDATED", "REASON"]);
    for agent in typed::<AgentInfo>(items)? {
        table.row([
            format!("{}/{}", agent.kind, agent.key),
            agent.status,
            agent.version.to_string(),
            agent.mailbox.depth.to_string(),
            agent.restarts.to_string(),
            agent.updated_at.map(when::ago).unwrap_or_default(),
            agent.reason.unwrap_or_default(),
        ]);
    }
    table.print("no agents")?;
    rest.tell();
    Ok(())
}

fn show(session: &Session<'_>, name: &AgentName) -> Result<(), Failure> {
    let reply = session.client()?.get(&agent_path(name))?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let agent: AgentInfo = reply.read()?;
    let paint = out::Paint::of_stdout();
    let mut lines =
        vec![format!("{}  {}", paint.bold(&format!("{}/{}", agent.kind, agent.key)), agent.status)];
    let mut fact = |name: &str, text: String| lines.push(format!("{name:>10}: {}", out::plain(&text)));
    if let Some(reason) = agent.reason {
        fact("reason", reason);
    }
    fact("version", format!("{} (epoch {})", agent.version, agent.epoch));
    fact("node", agent.node);
    fact("mailbox", format!("{} of {}", agent.mailbox.depth, agent.mailbox.capacity));
    if let Some(at) = agent.mailbox.refused_at {
        fact("refused", format!("{} messages since then, the last {}", agent.mailbox.refused, when::ago(at)));
    }
    if let Some(message) = agent.message {
        fact("handles", format!("{message}, for {}", when::span(agent.since_ms.unwrap_or_default())));
    }
    fact("restarts", agent.restarts.to_string());
    if let Some(bytes) = agent.state_bytes {
        fact("state", out::size(bytes));
    }
    if let Some(at) = agent.updated_at {
        fact("updated", format!("{} ({})", when::exact(at), when::ago(at)));
    }
    if let Some(at) = agent.created_at {
        fact("created", format!("{} ({})", when::exact(at), when::ago(at)));
    }
    if !agent.children.is_empty() {
        fact("children", agent.children.join(", "));
    }
    Ok(out::line(&lines.join("\n"))?)
}

fn send(session: &Session<'_>, args: &SendArgs) -> Result<(), Failure> {
    let body = input::json(args.body.as_deref())?;
    let mode = match (args.tell, args.submit) {
        (true, _) => "tell",
        (_, true) => "submit",
        _ => "ask",
    };
    let pairs = [
        ("mode", Some(mode.to_owned())),
        ("timeout", args.timeout.map(print_duration)),
        ("urgent", args.urgent.then(|| "true".to_owned())),
    ];
    let path = format!("{}/messages/{}{}", agent_path(&args.agent), encode(&args.message), query(&pairs));
    let patience =
        args.timeout.filter(|_| mode == "ask").map_or(LONG, |timeout| timeout.saturating_add(GRACE));
    let key = args.idempotency_key.as_deref();
    let reply = session.client()?.post_with(&path, body, key, patience)?;
    match mode {
        "tell" if !session.json() => Ok(()),
        "submit" if !session.json() => Ok(out::line(&reply.read::<TaskView>()?.id.to_string())?),
        _ => Ok(out::json(&reply.body)?),
    }
}

fn state(session: &Session<'_>, name: &AgentName, version: Option<i64>) -> Result<(), Failure> {
    let at = query(&[("version", version.map(|version| version.to_string()))]);
    let reply = session.client()?.get(&format!("{}/state{at}", agent_path(name)))?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let info: StateInfo = reply.read()?;
    out::note(&format!("version {}, schema {}", info.version, info.schema_version));
    Ok(out::value_pretty(&info.state)?)
}

fn snapshots(session: &Session<'_>, name: &AgentName, limit: &Limit) -> Result<(), Failure> {
    let path = format!("{}/snapshots", agent_path(name));
    let (items, rest) = session.client()?.pages(&path, &[], limit.most())?;
    if session.json() {
        return Ok(rest.json(&items)?);
    }
    let mut table = Table::new(&["VERSION", "AT", "", "SIZE"]);
    for snapshot in typed::<SnapshotInfo>(items)? {
        let (at, size) = (snapshot.at, out::size(snapshot.bytes));
        table.row([snapshot.version.to_string(), when::exact(at), when::ago(at), size]);
    }
    table.print("no snapshots are kept")?;
    rest.tell();
    Ok(())
}

pub(super) fn act(
    session: &Session<'_>,
    name: &AgentName,
    action: &str,
    how: Option<Value>,
) -> Result<(), Failure> {
    let body = how.map(|how| how.to_string().into_bytes()).unwrap_or_default();
    let reply = session.client()?.post(&format!("{}/{action}", agent_path(name)), body)?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    out::note(&format!("{}/{}: {action} accepted", name.kind, name.key));
    Ok(())
}
