//! `agents edit`, `release`, `rollback`, `delete`: what replaces an agent's state, or takes it away.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Command,
};

use clap::Args;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Session,
    agents::{One, act},
    care::{Care, answer, somebody_is_there},
    client::{Client, Reply, agent_path},
    exit::{Exit, Failure},
    input::{self, AgentName},
    out,
};
use crate::runtime::views::{AgentInfo, StateInfo};

#[derive(Debug, Args)]
pub(super) struct EditArgs {
    #[command(flatten)]
    one: One,
    /// The new state: @FILE, `-` for stdin, JSON [default: edit the current one in $EDITOR]
    #[arg(value_name = "STATE", requires = "if_version")]
    state: Option<String>,
    /// Only if the agent is at this version
    #[arg(long, value_name = "N")]
    if_version: Option<i64>,
    #[command(flatten)]
    care: Care,
}

#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    one: One,
    /// Go on from this kept version [default: the current one]
    #[arg(long, value_name = "N")]
    version: Option<i64>,
    #[command(flatten)]
    care: Care,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    one: One,
    /// The kept version to go on from
    #[arg(long, value_name = "N")]
    to: i64,
    /// Only if the agent is at this version
    #[arg(long, value_name = "N")]
    if_version: Option<i64>,
    #[command(flatten)]
    care: Care,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    care: Care,
    /// Cancel its waiting tasks
    #[arg(long)]
    cancel_tasks: bool,
}

/// `agents edit`.
pub(super) fn edit(session: &Session<'_>, args: &EditArgs) -> Result<(), Failure> {
    let (client, name) = (session.client()?, &args.one.agent);
    match (&args.state, args.if_version) {
        (Some(given), Some(version)) => {
            let state = input::json(Some(given))?;
            if args.care.dry_run {
                let present = present(&client, name, args.if_version)?;
                let next = serde_json::from_slice(&state).map_err(Failure::usage)?;
                return show_changes(session, &present, &next, None);
            }
            let subject = format!("{}/{}", name.kind, name.key);
            args.care.confirm(&format!("write this state over version {version} of {subject}?"))?;
            done(session, name, &put(&client, name, version, state)?)
        }
        _ if io::stdin().is_terminal() && io::stdout().is_terminal() => in_editor(session, &client, args),
        _ => Err(Failure::usage("which state, and over which version?").hint(format!(
            "{} agents edit {}/{} @FILE --if-version N",
            session.program, name.kind, name.key
        ))),
    }
}

fn put(client: &Client, name: &AgentName, version: i64, state: Vec<u8>) -> Result<Reply, Failure> {
    client.put(&format!("{}/state", agent_path(name)), state, &format!("\"{version}\""))
}

/// Has the person edit the present state. What was written and not taken is left in its file.
fn in_editor(session: &Session<'_>, client: &Client, args: &EditArgs) -> Result<(), Failure> {
    let name = &args.one.agent;
    let present = present(client, name, args.if_version)?;
    let text = serde_json::to_string_pretty(&present.state).map_err(Failure::usage)?;
    // Others may write to that directory as well: nobody knows the name before, and what is there is not followed.
    let file = std::env::temp_dir().join(format!("greenroom-{}-{}.json", name.kind, Uuid::new_v4()));
    let mut draft = File::options().write(true).create_new(true).mode(0o600).open(&file)?;
    draft.write_all((text + "\n").as_bytes())?;
    drop(draft);
    open_editor(&file)?;
    let edited = fs::read(&file)?;
    let state: Result<Value, _> = serde_json::from_slice(&edited);
    if state.as_ref().is_ok_and(|state| *state == present.state) {
        let _ = fs::remove_file(&file);
        out::note("nothing was changed");
        return Ok(());
    }
    let written = match state {
        Ok(next) if args.care.dry_run => {
            let _ = fs::remove_file(&file);
            return show_changes(session, &present, &next, None);
        }
        Ok(_) => put(client, name, present.version, edited),
        Err(error) => Err(Failure::usage(format!("this is not JSON: {error}"))),
    };
    match written {
        Ok(reply) => {
            // It holds a state, which is nobody else's business.
            let _ = fs::remove_file(&file);
            done(session, name, &reply)
        }
        Err(failure) => Err(failure.hint(format!(
            "what you wrote is kept: {} agents edit {}/{} @{} --if-version {}",
            session.program,
            name.kind,
            name.key,
            file.display(),
            present.version
        ))),
    }
}

fn is_ours(variable: &OsStr) -> bool {
    variable.to_string_lossy().starts_with("GREENROOM_")
}

fn open_editor(file: &Path) -> Result<(), Failure> {
    let set = |name| std::env::var(name).ok().filter(|text: &String| !text.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // It may have arguments: `code --wait`.
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let mut command = Command::new(program);
    command.args(words).arg(file);
    // The token among them.
    std::env::vars_os().map(|(name, _)| name).filter(|name| is_ours(name)).for_each(|name| {
        command.env_remove(name);
    });
    let ended = command.status();
    let ended = ended.map_err(|error| {
        Failure::usage(format!("cannot open the editor `{editor}`: {error}")).hint("set EDITOR")
    })?;
    if ended.success() {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, format!("`{editor}` ended with {ended}")))
    }
}

fn done(session: &Session<'_>, name: &AgentName, reply: &Reply) -> Result<(), Failure> {
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let version = reply.read::<Value>()?.get("version").and_then(Value::as_i64).unwrap_or_default();
    out::note(&format!("{}/{} is at version {version} now", name.kind, name.key));
    Ok(())
}

fn state_at(client: &Client, name: &AgentName, version: Option<i64>) -> Result<StateInfo, Failure> {
    let at = version.map(|version| format!("?version={version}")).unwrap_or_default();
    client.get(&format!("{}/state{at}", agent_path(name)))?.read()
}

/// The present state, which is to be of this version where one is named.
fn present(client: &Client, name: &AgentName, version: Option<i64>) -> Result<StateInfo, Failure> {
    let present = state_at(client, name, None)?;
    match version {
        Some(version) if version != present.version => {
            Err(Failure::new(Exit::Refused, format!("it is at version {} now", present.version)))
        }
        _ => Ok(present),
    }
}

/// Shows what would differ from the present state, a line each; `to`: the kept version that would be gone back to.
fn show_changes(
    session: &Session<'_>,
    present: &StateInfo,
    next: &Value,
    to: Option<i64>,
) -> Result<(), Failure> {
    let mut lines = Vec::new();
    differences("", &present.state, next, &mut lines);
    if session.json() {
        let document = json!({"version": present.version, "to": to, "changes": lines});
        return Ok(out::value_pretty(&document)?);
    }
    if lines.is_empty() {
        out::note("nothing would change");
        return Ok(());
    }
    match to {
        Some(to) => {
            out::note(&format!("from version {} to the state of version {to}:", present.version));
        }
        None => out::note(&format!("over version {}:", present.version)),
    }
    Ok(out::line(&out::plain_lines(&lines.join("\n")))?)
}

/// `agents release`.
pub(super) fn release(session: &Session<'_>, args: &ReleaseArgs) -> Result<(), Failure> {
    let (name, version) = (&args.one.agent, args.version);
    let subject = format!("{}/{}", name.kind, name.key);
    if args.care.dry_run {
        return show_release(session, name, version);
    }
    if let Some(version) = version {
        args.care.confirm(&format!("release {subject} with the state of version {version}?"))?;
    }
    act(session, name, "release", version.map(|version| json!({"version": version})))
}

/// What a release would go on from. The present state may be one that cannot be read: it is not needed.
fn show_release(session: &Session<'_>, name: &AgentName, version: Option<i64>) -> Result<(), Failure> {
    let client = session.client()?;
    let reply = client.get(&agent_path(name))?;
    let agent: AgentInfo = reply.read()?;
    if let Some(kept) = version.filter(|version| *version != agent.version) {
        state_at(&client, name, Some(kept))?;
    }
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let would = match &*agent.status {
        "quarantined" => {
            let version = version.unwrap_or(agent.version);
            // its present state is tried by the release itself
            let provided = if version == agent.version { ", if that can be read now" } else { "" };
            format!("would be released with the state of version {version}{provided}")
        }
        _ => "would be refused: it is not quarantined".to_owned(),
    };
    Ok(out::line(&format!("{}/{}  {}  {would}", name.kind, name.key, agent.status))?)
}

/// `agents rollback`.
pub(super) fn rollback(session: &Session<'_>, args: &RollbackArgs) -> Result<(), Failure> {
    let (client, name) = (session.client()?, &args.one.agent);
    if args.care.dry_run {
        let (present, kept) = (state_at(&client, name, None)?, state_at(&client, name, Some(args.to))?);
        return show_changes(session, &present, &kept.state, Some(kept.version));
    }
    let subject = format!("{}/{}", name.kind, name.key);
    args.care.confirm(&format!("roll {subject} back to the state of version {}?", args.to))?;
    let path = format!("{}/rollback", agent_path(name));
    let tag = args.if_version.map(|version| format!("\"{version}\""));
    let reply = client.post_if(&path, json!({"to": args.to}).to_string().into_bytes(), tag.as_deref())?;
    done(session, name, &reply)
}

/// `agents delete`.
pub(super) fn delete(session: &Session<'_>, args: &DeleteArgs) -> Result<(), Failure> {
    let name = &args.one.agent;
    let subject = format!("{}/{}", name.kind, name.key);
    if args.care.dry_run {
        let reply = session.client()?.get(&agent_path(name))?;
        if session.json() {
            return Ok(out::json(&reply.body)?);
        }
        let agent: AgentInfo = reply.read()?;
        let size = agent.state_bytes.map_or_else(|| "no state".to_owned(), out::size);
        let told = format!(
            "{subject}  {}  would be deleted: version {}, {size}, {} messages wait",
            agent.status, agent.version, agent.mailbox.depth
        );
        return Ok(out::line(&told)?);
    }
    if !args.care.yes && !is_meant(&subject)? {
        return Err(Failure::usage(format!("{subject} was not deleted")).hint("--yes deletes it unasked"));
    }
    let query = if args.cancel_tasks { "?cancel_tasks=true" } else { "" };
    let reply = session.client()?.delete(&format!("{}{query}", agent_path(name)))?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let cancelled = reply.read::<Value>()?.get("cancelled_tasks").and_then(Value::as_u64).unwrap_or_default();
    let tasks = if cancelled > 0 { format!("; {cancelled} tasks were cancelled") } else { String::new() };
    out::note(&format!("{subject} is deleted{tasks}"));
    Ok(())
}

/// Asks the person, where there is one.
fn is_meant(subject: &str) -> Result<bool, Failure> {
    if !somebody_is_there() {
        return Ok(false);
    }
    let question =
        format!("delete {subject}, its state and all that is kept of it? Write its name to confirm:");
    Ok(answer(&question)? == subject)
}

/// What differs, a line each, with its place as a JSON pointer: `-` goes, `+` comes.
fn differences(place: &str, now: &Value, then: &Value, lines: &mut Vec<String>) {
    let inner = |key: &str| format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"));
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => {
            for (key, value) in now {
                match then.get(key) {
                    Some(other) => differences(&inner(key), value, other, lines),
                    None => lines.push(format!("- {}: {value}", inner(key))),
                }
            }
            let come = then.iter().filter(|(key, _)| !now.contains_key(*key));
            lines.extend(come.map(|(key, value)| format!("+ {}: {value}", inner(key))));
        }
        (Value::Array(now), Value::Array(then)) => {
            for n in 0..now.len().max(then.len()) {
                match (now.get(n), then.get(n)) {
                    (Some(value), Some(other)) => differences(&inner(&n.to_string()), value, other, lines),
                    (Some(value), None) => lines.push(format!("- {}: {value}", inner(&n.to_string()))),
                    (None, Some(value)) => lines.push(format!("+ {}: {value}", inner(&n.to_string()))),
                    (None, None) => {}
                }
            }
        }
        (now, then) if now == then => {}
        (now, then) => {
            let place = if place.is_empty() { "/" } else { place };
            lines.push(format!("- {place}: {now}"));
            lines.push(format!("+ {place}: {then}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_with_its_place() {
        let (now, then) = (
            json!({"a": 1, "b": [1, 2, 3], "c": {"x/y": 1}}),
            json!({"a": 2, "b": [1, 5], "c": {}, "d": null}),
        );
        let mut lines = Vec::new();
        differences("", &now, &then, &mut lines);
        let expected =
            ["- /a: 1", "+ /a: 2", "- /b/1: 2", "+ /b/1: 5", "- /b/2: 3", "- /c/x~1y: 1", "+ /d: null"];
        assert_eq!(lines, expected);
    }
}
