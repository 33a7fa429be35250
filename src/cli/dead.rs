//! `tasks dead` and `tasks retry`: what failed, and how it comes back.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Args;
use serde_json::json;

use super::{
    Session,
    client::{Client, document, typed},
    exit::{Exit, Failure},
    input, out,
    table::Table,
    tasks, when,
};
use crate::{
    model::{
        id::Target,
        task::{TaskState, TaskView},
    },
    runtime::views::{Retried, RetryFilter, RetryRequest},
};

const PLACE: &str = "/api/v1/tasks/retry";

#[derive(Debug, Args)]
pub(super) struct DeadArgs {
    /// Only this target
    #[arg(long, value_parser = input::target)]
    target: Option<Target>,
    /// Only with this label
    #[arg(long)]
    tag: Option<String>,
    /// At most this many
    #[arg(short = 'n', long = "limit", value_name = "N", default_value_t = 100)]
    limit: usize,
    /// All of them
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    /// The tasks
    #[arg(required_unless_present_any = ["state", "target", "tag"],
          conflicts_with_all = ["state", "target", "tag", "dry_run"])]
    ids: Vec<String>,
    /// All in this state: failed (as where only the others are given) or cancelled
    #[arg(long, value_parser = state)]
    state: Option<TaskState>,
    /// All for this target
    #[arg(long, value_parser = input::target)]
    target: Option<Target>,
    /// All with this label
    #[arg(long)]
    tag: Option<String>,
    /// Only say how many there are
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

fn state(text: &str) -> Result<TaskState, String> {
    let known = TaskState::ALL.into_iter().find(|state| state.name() == text);
    known.ok_or_else(|| "write failed or cancelled".to_owned())
}

/// Lists dead letters.
pub(super) fn list(session: &Session<'_>, args: DeadArgs) -> Result<(), Failure> {
    let failed = Some(TaskState::Failed.name().to_owned());
    let target = args.target.map(|target| target.to_string());
    let wanted = [("state", failed), ("target", target), ("tag", args.tag)];
    let limit = if args.all { None } else { Some(args.limit) };
    let (items, more) = session.client()?.pages("/api/v1/tasks", &wanted, limit)?;
    if session.json() {
        return Ok(out::json(document(&items).to_string().as_bytes())?);
    }
    let mut table = Table::new(&["ID", "TARGET", "MESSAGE", "FAILED", "ATTEMPTS", "LOST", "CODE", "ERROR"]);
    for task in typed::<TaskView>(items)? {
        let (code, error) = task.error.map(|error| (error.code, error.message)).unwrap_or_default();
        table.row([
            task.id.to_string(),
            task.target.to_string(),
            task.message.unwrap_or_default(),
            task.finished_at.map(when::ago).unwrap_or_default(),
            task.attempt.to_string(),
            task.lost.to_string(),
            code,
            error,
        ]);
    }
    table.print("no dead letters")?;
    if more {
        out::note("there are more: --all shows them");
    }
    Ok(())
}

/// Brings dead letters back.
pub(super) fn retry(session: &Session<'_>, args: &RetryArgs) -> Result<(), Failure> {
    if !args.ids.is_empty() {
        return tasks::act(session, &args.ids, "retry");
    }
    let client = session.client()?;
    let filter = RetryFilter {
        state: args.state,
        target: args.target.as_ref().map(Target::to_string),
        tag: args.tag.clone(),
    };
    let mut request = RetryRequest { filter, dry_run: true, cursor: None };
    if args.dry_run || !args.yes {
        let counted = asked(&client, &request)?;
        if args.dry_run && session.json() {
            return Ok(out::line(&json!(counted).to_string())?);
        }
        let many = many(&counted);
        if args.dry_run {
            return Ok(out::line(&format!("{many} would be tried again"))?);
        }
        if counted.count > 0 && !confirmed(&many)? {
            return Err(Failure::new(Exit::Failed, "nothing was tried again"));
        }
    }
    request.dry_run = false;
    let mut all = Retried { dry_run: false, count: 0, next_cursor: None };
    loop {
        let some = asked(&client, &request)
            .map_err(|failure| failure.detail(format!("tried again before: {}", many(&all))))?;
        all.count += some.count;
        request.cursor = some.next_cursor;
        if request.cursor.is_none() {
            break;
        }
    }
    if session.json() {
        return Ok(out::line(&json!(all).to_string())?);
    }
    let verb = if all.count == 1 { "is" } else { "are" };
    Ok(out::line(&format!("{} {verb} tried again", many(&all)))?)
}

fn asked(client: &Client, request: &RetryRequest) -> Result<Retried, Failure> {
    client.post(PLACE, serde_json::to_vec(request).map_err(Failure::usage)?)?.read()
}

fn many(counted: &Retried) -> String {
    let least = if counted.next_cursor.is_some() { "at least " } else { "" };
    format!("{least}{} {}", counted.count, if counted.count == 1 { "task" } else { "tasks" })
}

/// Asks the person at the terminal; where there is none, refuses.
fn confirmed(many: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(format!("{many} would be tried again")).hint("to do so, add --yes"));
    }
    let mut stderr = io::stderr();
    write!(stderr, "try {many} again? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
