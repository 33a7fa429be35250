//! `tasks dead`, `tasks retry` and `tasks dismiss`: lists dead letters, retries or dismisses them.

use clap::Args;
use serde_json::{Value, json};

use super::{
    Session,
    again::Again,
    care::{Care, ask, somebody_is_there},
    client::{Client, typed},
    exit::{Exit, Failure},
    input,
    limit::Limit,
    out::{self, Paint},
    table::Table,
    tasks, when,
};
use crate::{
    model::{
        targets::Targets,
        task::{POISON, TaskState, TaskView},
    },
    runtime::views::{DismissFilter, DismissRequest, RetryFilter, RetryRequest, Swept},
};

#[derive(Debug, Args)]
pub(super) struct DeadArgs {
    /// Only this target, or a prefix: KIND/*
    #[arg(long, value_parser = input::targets)]
    target: Option<Targets>,
    /// Only with this label
    #[arg(long)]
    tag: Option<String>,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    again: Again,
}

#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    /// The tasks
    #[arg(required_unless_present_any = ["state", "target", "tag", "code"],
          conflicts_with_all = ["state", "target", "tag", "code"])]
    ids: Vec<String>,
    /// All in this state: failed (default) or cancelled
    #[arg(long, value_parser = state)]
    state: Option<TaskState>,
    /// All for this target, or for those that begin so: KIND/*
    #[arg(long, value_parser = input::targets)]
    target: Option<Targets>,
    /// All with this label
    #[arg(long)]
    tag: Option<String>,
    /// All that failed with this code, such as timed_out. Tasks that took a node down are left out unless the
    /// code is `poison`
    #[arg(long)]
    code: Option<String>,
    #[command(flatten)]
    care: Care,
}

#[derive(Debug, Args)]
pub(super) struct DismissArgs {
    /// The tasks
    #[arg(required_unless_present_any = ["target", "tag", "code", "all"],
          conflicts_with_all = ["target", "tag", "code", "all"])]
    ids: Vec<String>,
    /// All for this target, or for those that begin so: KIND/*
    #[arg(long, value_parser = input::targets)]
    target: Option<Targets>,
    /// All with this label
    #[arg(long)]
    tag: Option<String>,
    /// All that failed with this code, such as timed_out or poison
    #[arg(long)]
    code: Option<String>,
    /// All dead letters
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    care: Care,
}

fn state(text: &str) -> Result<TaskState, String> {
    let known = TaskState::ALL.into_iter().find(|state| state.name() == text);
    known.ok_or_else(|| "write failed or cancelled".to_owned())
}

/// Lists dead letters.
pub(super) fn list(session: &Session<'_>, args: &DeadArgs) -> Result<(), Failure> {
    args.again.show(|| list_now(session, args))
}

fn list_now(session: &Session<'_>, args: &DeadArgs) -> Result<(), Failure> {
    let failed = Some(TaskState::Failed.name().to_owned());
    let target = args.target.as_ref().map(Targets::to_string);
    let wanted = [("state", failed), ("target", target), ("tag", args.tag.clone())];
    let (items, rest) = session.client()?.pages("/api/v1/tasks", &wanted, args.limit.most())?;
    if session.json() {
        return Ok(rest.json(&items)?);
    }
    let mut table = Table::new(&["ID", "TARGET", "MESSAGE", "FAILED", "ATTEMPTS", "LOST", "CODE", "ERROR"]);
    let items = typed::<TaskView>(items)?;
    let hints = hints(&items, session.program);
    for task in items {
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
    rest.tell();
    for hint in hints {
        out::note(&Paint::of_stderr().dim(&format!("→ {hint}")));
    }
    Ok(())
}

/// What may be done about these.
fn hints(dead: &[TaskView], program: &str) -> Vec<String> {
    let is_poison = |task: &&TaskView| task.error.as_ref().is_some_and(|error| error.code == POISON);
    let poison = dead.iter().filter(is_poison).count();
    let mut hints = Vec::new();
    if !dead.is_empty() {
        hints.push(format!(
            "{program} tasks show ID; when the cause is mended: tasks retry, else: tasks dismiss (ID, --target, --tag, --code)"
        ));
    }
    if poison > 0 {
        hints.push(format!(
            "{POISON}: what takes its node down when it runs; not to be tried again before the program is mended"
        ));
    }
    hints
}

/// Brings dead letters back.
pub(super) fn retry(session: &Session<'_>, args: &RetryArgs) -> Result<(), Failure> {
    if !args.ids.is_empty() {
        if args.care.dry_run {
            return tasks::preview(session, &args.ids, |state| match state {
                TaskState::Failed | TaskState::Cancelled => "would be tried again",
                TaskState::OutcomeUnknown => "would be tried again, though it may have taken effect",
                _ => "would be refused: there is nothing to try again",
            });
        }
        return tasks::act(session, &args.ids, "retry");
    }
    let filter = RetryFilter {
        state: args.state,
        target: args.target.as_ref().map(Targets::to_string),
        tag: args.tag.clone(),
        code: args.code.clone(),
    };
    let deed = Deed { place: "/api/v1/tasks/retry", ask: ["try", "again"], done: "tried again" };
    let request = |dry_run, cursor| json!(RetryRequest { filter: filter.clone(), dry_run, cursor });
    deed.sweep(session, &args.care, request)
}

/// Lets dead letters rest.
pub(super) fn dismiss(session: &Session<'_>, args: &DismissArgs) -> Result<(), Failure> {
    if !args.ids.is_empty() {
        if args.care.dry_run {
            return tasks::preview(session, &args.ids, |state| match state {
                TaskState::Failed => "would be dismissed",
                _ => "would be refused: it is no dead letter",
            });
        }
        if args.ids.len() > 1 {
            args.care.confirm(&format!("dismiss {} tasks?", args.ids.len()))?;
        }
        return tasks::act(session, &args.ids, "dismiss");
    }
    let target = args.target.as_ref().map(Targets::to_string);
    let filter = DismissFilter { target, tag: args.tag.clone(), code: args.code.clone() };
    let deed = Deed { place: "/api/v1/tasks/dismiss", ask: ["dismiss", ""], done: "dismissed" };
    let request = |dry_run, cursor| json!(DismissRequest { filter: filter.clone(), dry_run, cursor });
    deed.sweep(session, &args.care, request)
}

/// What is done to many, in words.
struct Deed {
    place: &'static str,
    /// Before and behind them, as it is asked for.
    ask: [&'static str; 2],
    /// As it has been done.
    done: &'static str,
}

impl Deed {
    /// Counts them, asks, and does it in steps.
    fn sweep(
        &self,
        session: &Session<'_>,
        care: &Care,
        request: impl Fn(bool, Option<String>) -> Value,
    ) -> Result<(), Failure> {
        let (client, done) = (session.client()?, self.done);
        if care.dry_run || !care.yes {
            let counted: Swept = self.asked(&client, request(true, None))?;
            if care.dry_run && session.json() {
                return Ok(out::line(&json!(counted).to_string())?);
            }
            let many = many(&counted);
            if care.dry_run {
                out::line(&format!("{many} would be {done}"))?;
                told_left_out(&counted);
                return Ok(());
            }
            told_left_out(&counted);
            if counted.count > 0 && !self.confirmed(&many)? {
                return Err(Failure::new(Exit::Failed, format!("nothing was {done}")));
            }
        }
        let mut all = Swept { dry_run: false, count: 0, left_out: 0, next_cursor: None };
        let mut cursor = None;
        loop {
            let some = self
                .asked(&client, request(false, cursor))
                .map_err(|failure| failure.detail(format!("{done} before: {}", many(&all))))?;
            (all.count, all.left_out) = (all.count + some.count, all.left_out + some.left_out);
            cursor = some.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        if session.json() {
            return Ok(out::line(&json!(all).to_string())?);
        }
        let verb = if all.count == 1 { "is" } else { "are" };
        out::line(&format!("{} {verb} {done}", many(&all)))?;
        if care.yes {
            told_left_out(&all);
        }
        Ok(())
    }

    fn asked(&self, client: &Client, request: Value) -> Result<Swept, Failure> {
        client.post(self.place, request.to_string().into_bytes())?.read()
    }

    /// Asks the person at the terminal; where there is none, refuses.
    fn confirmed(&self, many: &str) -> Result<bool, Failure> {
        if !somebody_is_there() {
            return Err(Failure::usage(format!("{many} would be {}", self.done)).hint("to do so, add --yes"));
        }
        let [before, behind] = self.ask;
        ask(&format!("{}?", format!("{before} {many} {behind}").trim()))
    }
}

/// Says what must be named.
fn told_left_out(counted: &Swept) {
    if counted.left_out > 0 {
        let them = if counted.left_out == 1 {
            "that took its node down is"
        } else {
            "that took their node down are"
        };
        out::note(&format!("{} {them} left out: --code poison names them", counted.left_out));
    }
}

fn many(counted: &Swept) -> String {
    let least = if counted.next_cursor.is_some() { "at least " } else { "" };
    format!("{least}{} {}", counted.count, if counted.count == 1 { "task" } else { "tasks" })
}
