//! `tasks`: submit, show, wait, cancel.

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Session,
    again::Again,
    care::Care,
    client::{REQUEST_TIMEOUT, Reply, encode, typed},
    dead,
    exit::Failure,
    input,
    limit::Limit,
    out,
    table::Table,
    task, watch, when,
};
use crate::{
    model::{
        id::Target,
        targets::Targets,
        task::{OnParentFailed, TaskEvent, TaskState, TaskView},
        units::print_duration,
    },
    runtime::views::{Page, TaskRequest},
};

/// How long one request waits; the next one goes on.
const WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(super) enum Tasks {
    /// Submit a task; prints its id
    #[command(alias = "add")]
    Submit(SubmitArgs),
    /// Submit several tasks, all or none; prints their ids
    Batch {
        /// `{"tasks":[…]}` or the list alone: JSON, `-` or @FILE; `after` may name others by their `name`
        #[arg(value_name = "JSON")]
        tasks: String,
        /// Submit them once, however often this is repeated
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// List tasks, newest first
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Show a task
    #[command(alias = "get", alias = "describe")]
    Show {
        /// The task
        id: String,
        /// Also show its input, if it is kept
        #[arg(long)]
        input: bool,
    },
    /// Show a task's history
    History {
        /// The task
        id: String,
    },
    /// Wait until tasks have ended; exit 1 unless all succeeded
    Wait {
        /// The tasks
        #[arg(required = true)]
        ids: Vec<String>,
        /// Give up after this time
        #[arg(long, value_name = "TIME", value_parser = input::duration)]
        timeout: Option<Duration>,
    },
    /// Cancel tasks
    Cancel {
        /// The tasks
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        care: Care,
    },
    /// Send a signal to a task that waits for it
    Signal {
        /// The task
        id: String,
        /// The signal's name
        name: String,
        /// The signal's content: JSON, `-` or @FILE
        body: Option<String>,
        /// Idempotency key: a repeated request returns the first result
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// Decide the outcome of a task that is in `outcome_unknown`
    Resolve {
        /// The task
        id: String,
        /// It took effect, with this result (JSON, default null)
        #[arg(long, value_name = "JSON", num_args = 0..=1, default_missing_value = "null", conflicts_with = "failed")]
        succeeded: Option<String>,
        /// It did not take effect, for this reason
        #[arg(long, value_name = "MESSAGE", required_unless_present = "succeeded")]
        failed: Option<String>,
        #[command(flatten)]
        care: Care,
    },
    /// Follow a task's progress and log lines until it ends; exit 1 unless it succeeded
    Watch {
        /// The task
        id: String,
        /// Print each change and each log line as one line of JSON
        #[arg(long)]
        jsonl: bool,
    },
    /// List dead letters: the tasks that failed, newest first
    Dead(dead::DeadArgs),
    /// Retry dead letters, by id or by filter
    Retry(dead::RetryArgs),
    /// Dismiss dead letters, by id or by filter: they become cancelled
    Dismiss(dead::DismissArgs),
}

#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// KIND/KEY or tool:NAME
    #[arg(value_name = "TARGET", value_parser = input::target)]
    pub target: Target,
    /// For an agent: the message's name, then its content as JSON, `-` or @FILE; for a tool: the input
    #[arg(value_name = "MESSAGE|JSON", num_args = 0..=2)]
    pub rest: Vec<String>,
    /// Run no earlier than this time (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "run_in")]
    pub at: Option<Timestamp>,
    /// Run no earlier than after this delay
    #[arg(long = "in", value_name = "DURATION", value_parser = input::duration)]
    pub run_in: Option<Duration>,
    /// Higher runs first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub priority: Option<i16>,
    /// How many attempts it has
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<u32>,
    /// How long one attempt may take
    #[arg(long, value_name = "DURATION", value_parser = input::duration)]
    pub timeout: Option<Duration>,
    /// Run only after this task has ended (may be repeated)
    #[arg(long, value_name = "ID")]
    pub after: Vec<String>,
    /// Run it also where one of those has not succeeded
    #[arg(long, requires = "after")]
    pub even_if_failed: bool,
    /// Cancel it if it has not started by this time (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "expires_in")]
    pub expires_at: Option<Timestamp>,
    /// Cancel it if it has not started after this time from now
    #[arg(long, value_name = "DURATION", value_parser = input::duration)]
    pub expires_in: Option<Duration>,
    /// A label, for finding and retrying tasks (may be repeated)
    #[arg(long)]
    pub tag: Vec<String>,
    /// Idempotency key: a repeated request returns the first result
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Wait for its end, and print its result; exit 1 unless it succeeded
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only this state
    #[arg(long)]
    pub state: Option<String>,
    /// Only this target, or a prefix: KIND/*, KIND/eu-*, tool:fs.*
    #[arg(long, value_parser = input::targets)]
    pub target: Option<Targets>,
    /// Only with this label
    #[arg(long)]
    pub tag: Option<String>,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    again: Again,
}

pub(super) fn run(session: &Session<'_>, command: Tasks) -> Result<(), Failure> {
    match command {
        Tasks::Submit(args) => submit(session, args),
        Tasks::Batch { tasks, idempotency_key } => batch(session, &tasks, idempotency_key.as_deref()),
        Tasks::Ls(args) => args.again.show(|| list(session, &args)),
        Tasks::Show { id, input } => task::show(session, &id, input),
        Tasks::History { id } => history(session, &id),
        Tasks::Wait { ids, timeout } => watch::wait(session, &ids, timeout),
        Tasks::Signal { id, name, body, idempotency_key } => {
            signal(session, &id, &name, body.as_deref(), idempotency_key.as_deref())
        }
        Tasks::Resolve { id, succeeded, failed, care } => resolve(session, &id, succeeded, failed, &care),
        Tasks::Watch { id, jsonl } => watch::run(session, &id, jsonl || session.json()),
        Tasks::Cancel { ids, care } => cancel(session, &ids, &care),
        Tasks::Dead(args) => dead::list(session, &args),
        Tasks::Retry(args) => dead::retry(session, &args),
        Tasks::Dismiss(args) => dead::dismiss(session, &args),
    }
}

pub(super) fn path(id: &str) -> String {
    format!("/api/v1/tasks/{}", encode(id))
}

fn submit(session: &Session<'_>, args: SubmitArgs) -> Result<(), Failure> {
    let (wait, json) = (args.wait, session.json());
    let request = request(args)?;
    let client = session.client()?;
    let body = serde_json::to_vec(&request).map_err(Failure::usage)?;
    let reply = client.post("/api/v1/tasks", body)?;
    let accepted: TaskView = reply.read()?;
    match (wait, json) {
        (false, true) => Ok(out::json(&reply.body)?),
        (false, false) => Ok(out::line(&accepted.id.to_string())?),
        (true, _) => {
            let id = accepted.id.to_string();
            let ended = watch::ended(&mut watch::Looks::there(&client), &id, None);
            // It goes on whoever waits for it.
            let (task, body) =
                ended.map_err(|failure| failure.hint(format!("{} tasks wait {id}", session.program)))?;
            if json {
                out::json(&body)?;
            } else if let Some(result) = task.result.as_ref().filter(|_| task.state == TaskState::Succeeded) {
                out::json(result.get().as_bytes())?;
            }
            if task.state == TaskState::Succeeded {
                Ok(())
            } else {
                Err(watch::unsuccessful(&task, session.program))
            }
        }
    }
}

fn batch(session: &Session<'_>, tasks: &str, key: Option<&str>) -> Result<(), Failure> {
    let tasks = match input::value(Some(tasks))? {
        Some(list @ Value::Array(_)) => json!({ "tasks": list }),
        other => other.unwrap_or_default(),
    };
    let client = session.client()?;
    let reply = client.post_with("/api/v1/tasks/batch", tasks.to_string().into(), key, REQUEST_TIMEOUT)?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    for task in reply.read::<Page<TaskView>>()?.items {
        out::line(&task.id.to_string())?;
    }
    Ok(())
}

/// The request that the arguments say.
fn request(args: SubmitArgs) -> Result<TaskRequest, Failure> {
    let (message, input) = content(&args.target, args.rest, "tasks submit")?;
    Ok(TaskRequest {
        target: args.target.to_string(),
        message,
        input,
        run_at: args.at,
        run_in: args.run_in.map(print_duration),
        priority: args.priority,
        max_attempts: args.max_attempts,
        timeout: args.timeout.map(print_duration),
        after: args.after,
        on_parent_failed: args.even_if_failed.then_some(OnParentFailed::Run),
        expires_at: args.expires_at,
        expires_in: args.expires_in.map(print_duration),
        tags: args.tag,
        idempotency_key: args.idempotency_key,
        ..TaskRequest::default()
    })
}

/// What stands behind a target: for an agent the message and its content, for a tool the input.
pub(super) fn content(
    target: &Target,
    rest: Vec<String>,
    command: &str,
) -> Result<(Option<String>, Option<Value>), Failure> {
    let mut rest = rest.into_iter();
    let message = match target {
        Target::Agent { .. } => Some(rest.next().ok_or_else(|| {
            Failure::usage(format!("which message? write {command} KIND/KEY MESSAGE [JSON]"))
                .hint("kinds ls lists them")
        })?),
        Target::Tool(_) => None,
    };
    let input = rest.next();
    if rest.next().is_some() {
        return Err(Failure::usage(format!("a tool takes its input alone: {command} tool:NAME [JSON]")));
    }
    Ok((message, input::value(input.as_deref())?))
}

fn list(session: &Session<'_>, args: &ListArgs) -> Result<(), Failure> {
    let wanted = [
        ("state", args.state.clone()),
        ("target", args.target.as_ref().map(Targets::to_string)),
        ("tag", args.tag.clone()),
    ];
    let (items, rest) = session.client()?.pages("/api/v1/tasks", &wanted, args.limit.most())?;
    if session.json() {
        return Ok(rest.json(&items)?);
    }
    let mut table = Table::new(&["ID", "STATE", "TARGET", "MESSAGE", "ATTEMPT", "ACCEPTED", "ERROR"]);
    for task in typed::<TaskView>(items)? {
        table.row([
            task.id.to_string(),
            task.state.name().to_owned(),
            task.target.to_string(),
            task.message.unwrap_or_default(),
            format!("{} of {}", task.attempt, task.max_attempts),
            when::ago(task.created_at),
            task.error.map(|error| format!("{}: {}", error.code, error.message)).unwrap_or_default(),
        ]);
    }
    table.print("no tasks")?;
    rest.tell();
    Ok(())
}

fn history(session: &Session<'_>, id: &str) -> Result<(), Failure> {
    let reply = session.client()?.get(&format!("{}/history", path(id)))?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let mut table = Table::new(&["AT", "", "EVENT", "ATTEMPT", "NODE", "DETAIL"]);
    for event in reply.read::<Page<TaskEvent>>()?.items {
        let (node, detail) = (event.node.unwrap_or_default(), event.detail.unwrap_or_default());
        let (at, ago) = (when::exact(event.at), when::ago(event.at));
        table.row([at, ago, event.event, event.attempt.to_string(), node, detail]);
    }
    Ok(table.print("nothing is known of it")?)
}

fn cancel(session: &Session<'_>, ids: &[String], care: &Care) -> Result<(), Failure> {
    if care.dry_run {
        let would = |state: TaskState| if state.is_final() { "has ended" } else { "would be cancelled" };
        return preview(session, ids, would);
    }
    if ids.len() > 1 {
        care.confirm(&format!("cancel {} tasks?", ids.len()))?;
    }
    act(session, ids, "cancel")
}

/// Shows each task, and what would become of it.
pub(super) fn preview(
    session: &Session<'_>,
    ids: &[String],
    would: impl Fn(TaskState) -> &'static str,
) -> Result<(), Failure> {
    let client = session.client()?;
    for id in ids {
        let reply = client.get(&path(id))?;
        if session.json() {
            out::json(&reply.body)?;
            continue;
        }
        let task: TaskView = reply.read()?;
        out::line(&format!("{}  {}  {}", task.id, task.state.name(), would(task.state)))?;
    }
    Ok(())
}

pub(super) fn act(session: &Session<'_>, ids: &[String], action: &str) -> Result<(), Failure> {
    let client = session.client()?;
    for id in ids {
        told(session, &client.post(&format!("{}/{action}", path(id)), Vec::new())?)?;
    }
    Ok(())
}

fn signal(
    session: &Session<'_>,
    id: &str,
    name: &str,
    body: Option<&str>,
    key: Option<&str>,
) -> Result<(), Failure> {
    let said = input::value(body)?.unwrap_or(Value::Null);
    let said = serde_json::to_vec(&said).map_err(Failure::usage)?;
    let place = format!("{}/signals/{}", path(id), encode(name));
    told(session, &session.client()?.post_with(&place, said, key, WAIT)?)
}

fn resolve(
    session: &Session<'_>,
    id: &str,
    succeeded: Option<String>,
    failed: Option<String>,
    care: &Care,
) -> Result<(), Failure> {
    let (end, said) = match (succeeded, failed) {
        (Some(result), _) => ("succeeded", json!({"succeeded": input::value(Some(&result))?})),
        (None, why) => ("failed", json!({"failed": why.unwrap_or_default()})),
    };
    if care.dry_run {
        let would = |state: TaskState| match (state, end) {
            (TaskState::OutcomeUnknown, "succeeded") => "would be taken for succeeded",
            (TaskState::OutcomeUnknown, _) => "would be taken for failed",
            _ => "would be refused: its outcome is not in question",
        };
        return preview(session, &[id.to_owned()], would);
    }
    care.confirm(&format!("tell whoever submitted {} that it has {end}?", out::plain(id)))?;
    told(session, &session.client()?.post(&format!("{}/resolve", path(id)), said.to_string().into())?)
}

/// Prints the task that an action answered with.
fn told(session: &Session<'_>, reply: &Reply) -> Result<(), Failure> {
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let task: TaskView = reply.read()?;
    Ok(out::line(&format!("{}  {}", task.id, task.state.name()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Exit, args::Command, parse_for_test};

    fn read(line: &[&str]) -> Result<TaskRequest, Failure> {
        match parse_for_test(line).unwrap().command {
            Command::Tasks(Tasks::Submit(args)) => request(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_submission_is_what_the_arguments_say() {
        let task =
            read(&["tasks", "submit", "counter/a", "Add", "{\"n\":1}", "--in", "5m", "--priority", "-3"])
                .unwrap();
        assert_eq!((task.target.as_str(), task.message.as_deref()), ("counter/a", Some("Add")));
        assert_eq!((task.input.unwrap()["n"].as_i64(), task.run_in.as_deref()), (Some(1), Some("5m")));
        assert_eq!(task.priority, Some(-3));
        let task = read(&["tasks", "submit", "tool:fs.read", "{\"path\":\"x\"}"]).unwrap();
        assert_eq!((task.message, task.input.is_some()), (None, true));
        assert_eq!(read(&["tasks", "submit", "counter/a"]).unwrap_err().exit, Exit::Usage);
        assert_eq!(read(&["tasks", "submit", "tool:fs.read", "{}", "{}"]).unwrap_err().exit, Exit::Usage);
        assert_eq!(read(&["tasks", "submit", "counter/a", "Add", "{"]).unwrap_err().exit, Exit::Usage);
    }
}
