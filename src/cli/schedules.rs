//! `schedules`: recurring tasks.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{
    Session,
    again::Again,
    care::Care,
    client::{REQUEST_TIMEOUT, Reply, encode, typed},
    exit::Failure,
    input,
    limit::Limit,
    out,
    table::Table,
    tasks, when,
};
use crate::{
    model::{
        id::Target,
        schedule::{Misfire, Overlap},
        task::TaskView,
        units::print_duration,
    },
    runtime::views::{ScheduleRequest, ScheduleView},
};

#[derive(Debug, Subcommand)]
pub(super) enum Schedules {
    /// List schedules
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Show a schedule and its next times
    #[command(alias = "get", alias = "describe")]
    Show {
        /// The schedule
        name: String,
    },
    /// Add a schedule
    Add(AddArgs),
    /// Remove a schedule; tasks already submitted are kept
    #[command(alias = "remove", alias = "delete")]
    Rm {
        /// The schedule
        name: String,
        #[command(flatten)]
        care: Care,
    },
    /// Pause a schedule
    Pause {
        /// The schedule
        name: String,
    },
    /// Resume a schedule from its next time
    Resume {
        /// The schedule
        name: String,
    },
    /// Submit one task of it now, in addition to its times; prints the task's id
    Run {
        /// The schedule
        name: String,
        /// Idempotency key: a repeated request returns the first result
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    again: Again,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Its name
    pub name: String,
    /// Times: "0 3 * * * Europe/Berlin", with seconds "30 0 3 * * *", or "every 10m"
    pub cron: String,
    /// KIND/KEY or tool:NAME
    #[arg(value_name = "TARGET", value_parser = input::target)]
    pub target: Target,
    /// For an agent: the message's name, then its content as JSON, `-` or @FILE; for a tool: the input
    #[arg(value_name = "MESSAGE|JSON", num_args = 0..=2)]
    pub rest: Vec<String>,
    /// If the previous task has not ended: allow, skip or queue_one
    #[arg(long, value_name = "POLICY", default_value_t)]
    pub overlap: Overlap,
    /// For missed times: once, skip or all
    #[arg(long, value_name = "POLICY", default_value_t)]
    pub misfire: Misfire,
    /// Higher runs first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub priority: Option<i16>,
    /// How many attempts each task has
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<u32>,
    /// How long one attempt may take
    #[arg(long, value_name = "DURATION", value_parser = input::duration)]
    pub timeout: Option<Duration>,
    /// A label for its tasks (may be repeated)
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Create it paused
    #[arg(long)]
    pub paused: bool,
}

pub(super) fn run(session: &Session<'_>, command: Schedules) -> Result<(), Failure> {
    match command {
        Schedules::Ls(args) => args.again.show(|| list(session, &args.limit)),
        Schedules::Show { name } => show(session, &name),
        Schedules::Add(args) => add(session, args),
        Schedules::Rm { name, care } => remove(session, &name, &care),
        Schedules::Pause { name } => act(session, &name, "pause"),
        Schedules::Resume { name } => act(session, &name, "resume"),
        Schedules::Run { name, idempotency_key } => submit(session, &name, idempotency_key.as_deref()),
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/schedules/{}", encode(name))
}

fn remove(session: &Session<'_>, name: &str, care: &Care) -> Result<(), Failure> {
    let client = session.client()?;
    let shown = out::plain(name);
    if care.dry_run {
        let reply = client.get(&path(name))?;
        if session.json() {
            return Ok(out::json(&reply.body)?);
        }
        let schedule: ScheduleView = reply.read()?;
        let next = schedule
            .next_at
            .map_or_else(|| "with no time to come".to_owned(), |at| format!("next {}", when::ago(at)));
        return Ok(out::line(&format!("{shown}  would be removed: {}, {next}", state(&schedule)))?);
    }
    care.confirm(&format!("remove the schedule `{shown}`?"))?;
    client.delete(&path(name)).map(drop)
}

/// How it is, in a word.
fn state(schedule: &ScheduleView) -> &'static str {
    if schedule.paused { "paused" } else { "active" }
}

fn list(session: &Session<'_>, limit: &Limit) -> Result<(), Failure> {
    let (items, rest) = session.client()?.pages("/api/v1/schedules", &[], limit.most())?;
    if session.json() {
        return Ok(rest.json(&items)?);
    }
    let mut table = Table::new(&["NAME", "STATE", "WHEN", "TARGET", "MESSAGE", "NEXT", "LAST", "LAST TASK"]);
    for schedule in typed::<ScheduleView>(items)? {
        let state = state(&schedule).to_owned();
        let last = schedule.last_task_state.map(|state| state.name().to_owned()).unwrap_or_default();
        table.row([
            schedule.name,
            state,
            schedule.cron,
            schedule.target.to_string(),
            schedule.message.unwrap_or_default(),
            schedule.next_at.map(when::ago).unwrap_or_default(),
            schedule.last_at.map(when::ago).unwrap_or_default(),
            last,
        ]);
    }
    table.print("no schedules")?;
    rest.tell();
    Ok(())
}

fn show(session: &Session<'_>, name: &str) -> Result<(), Failure> {
    let reply = session.client()?.get(&path(name))?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let schedule: ScheduleView = reply.read()?;
    let paint = out::Paint::of_stdout();
    let state = match schedule.paused {
        true => paint.yellow(state(&schedule)),
        false => paint.green(state(&schedule)),
    };
    let mut lines = vec![format!("{}  {state}", paint.bold(&out::plain(&schedule.name)))];
    let mut fact = |name: &str, text: String| lines.push(format!("{name:>9}: {}", out::plain(&text)));
    fact("when", schedule.cron);
    fact("target", schedule.target.to_string());
    if let Some(message) = schedule.message {
        fact("message", message);
    }
    fact("input", schedule.input.get().to_owned());
    fact("overlap", schedule.overlap.to_string());
    fact("misfire", schedule.misfire.to_string());
    fact("origin", schedule.origin.to_string());
    if schedule.priority != 0 {
        fact("priority", schedule.priority.to_string());
    }
    if let Some(n) = schedule.max_attempts {
        fact("attempts", n.to_string());
    }
    if let Some(ms) = schedule.timeout_ms {
        fact("timeout", print_duration(Duration::from_millis(ms)));
    }
    if !schedule.tags.is_empty() {
        fact("tags", schedule.tags.join(", "));
    }
    if let Some(at) = schedule.last_at {
        fact("last", format!("{at} ({})", when::ago(at)));
    }
    if let Some(task) = schedule.last_task {
        let state = schedule.last_task_state.map_or("forgotten", |state| state.name());
        fact("task", format!("{task} ({state})"));
    }
    for (n, at) in schedule.upcoming.iter().enumerate() {
        fact(if n == 0 { "next" } else { "then" }, at.to_string());
    }
    Ok(out::line(&lines.join("\n"))?)
}

fn add(session: &Session<'_>, args: AddArgs) -> Result<(), Failure> {
    let request = request(args)?;
    let body = serde_json::to_vec(&request).map_err(Failure::usage)?;
    let reply = session.client()?.post("/api/v1/schedules", body)?;
    told(session, &reply)
}

/// The request that the arguments say.
fn request(args: AddArgs) -> Result<ScheduleRequest, Failure> {
    let (message, input) = tasks::content(&args.target, args.rest, "schedules add NAME CRON")?;
    Ok(ScheduleRequest {
        name: args.name,
        cron: args.cron,
        target: args.target.to_string(),
        message,
        input,
        overlap: args.overlap,
        misfire: args.misfire,
        paused: args.paused,
        priority: args.priority,
        max_attempts: args.max_attempts,
        timeout: args.timeout.map(print_duration),
        tags: args.tags,
    })
}

fn act(session: &Session<'_>, name: &str, action: &str) -> Result<(), Failure> {
    let reply = session.client()?.post(&format!("{}/{action}", path(name)), Vec::new())?;
    told(session, &reply)
}

/// Its name, how it is, and when it comes next.
fn told(session: &Session<'_>, reply: &Reply) -> Result<(), Failure> {
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let schedule: ScheduleView = reply.read()?;
    let next = schedule.next_at.map(|at| format!("  next {at}")).unwrap_or_default();
    Ok(out::line(&format!("{}  {}{next}", out::plain(&schedule.name), state(&schedule)))?)
}

fn submit(session: &Session<'_>, name: &str, key: Option<&str>) -> Result<(), Failure> {
    let reply =
        session.client()?.post_with(&format!("{}/run", path(name)), Vec::new(), key, REQUEST_TIMEOUT)?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    Ok(out::line(&reply.read::<TaskView>()?.id.to_string())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Exit, args::Command, parse_for_test};

    fn read(line: &[&str]) -> Result<ScheduleRequest, Failure> {
        match parse_for_test(&[&["schedules", "add", "nightly"], line].concat()).unwrap().command {
            Command::Schedules(Schedules::Add(args)) => request(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_schedule_is_what_the_arguments_say() {
        let asked =
            read(&["0 3 * * *", "counter/a", "Add", "{\"n\":1}", "--overlap", "allow", "--timeout", "1m"]);
        let asked = asked.unwrap();
        assert_eq!((asked.name.as_str(), asked.cron.as_str()), ("nightly", "0 3 * * *"));
        assert_eq!((asked.target.as_str(), asked.message.as_deref()), ("counter/a", Some("Add")));
        assert_eq!((asked.input.unwrap()["n"].as_i64(), asked.timeout.as_deref()), (Some(1), Some("1m")));
        assert_eq!((asked.overlap, asked.misfire), (Overlap::Allow, Misfire::Once));
        let asked = read(&["every 10m", "tool:fs.read", "{\"path\":\"x\"}"]).unwrap();
        assert_eq!((asked.message, asked.input.is_some()), (None, true));
        assert_eq!(read(&["@daily", "counter/a"]).unwrap_err().exit, Exit::Usage);
        assert_eq!(read(&["@daily", "tool:fs.read", "{}", "{}"]).unwrap_err().exit, Exit::Usage);
    }
}
