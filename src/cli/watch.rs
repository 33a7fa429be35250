//! `tasks watch`, `tasks wait` and `--wait`: until tasks have ended, with their progress meanwhile.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::{
    Session,
    client::{Client, Reply, query},
    exit::{Exit, Failure},
    out,
    tasks::path,
};
use crate::{
    model::{
        task::{TaskState, TaskView},
        units::print_duration,
    },
    runtime::views::{Page, TaskLine},
};

/// How long one look waits for the task's end.
const POLL_WAIT: Duration = Duration::from_millis(500);
/// … and where nobody looks on; the next one goes on.
const LONG_WAIT: Duration = Duration::from_secs(30);
/// How many log lines are asked for at once.
const PAGE: usize = 1_000;
/// How long its answer may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a node that has answered once is waited for when it is gone: it may be starting again.
const GONE: Duration = Duration::from_secs(300);
/// Between two looks for it.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks at what a node has, also across a restart of it.
pub(super) struct Looks<'c> {
    client: &'c Client,
    has_answered: bool,
    gone: Option<Instant>,
}

impl<'c> Looks<'c> {
    fn of(client: &'c Client) -> Self {
        Self { client, has_answered: false, gone: None }
    }

    /// Of a node that has answered already.
    pub fn there(client: &'c Client) -> Self {
        Self { has_answered: true, ..Self::of(client) }
    }

    /// `None`: it is gone, and may be asked again.
    fn at(&mut self, path: &str, within: Duration) -> Result<Option<Reply>, Failure> {
        let failure = match self.client.get_within(path, within) {
            Ok(reply) => {
                (self.has_answered, self.gone) = (true, None);
                return Ok(Some(reply));
            }
            Err(failure) => failure,
        };
        let is_away = matches!(failure.exit, Exit::Unreachable | Exit::TimedOut | Exit::Busy);
        if !self.has_answered || !is_away || self.gone.is_some_and(|since| since.elapsed() > GONE) {
            return Err(failure);
        }
        if self.gone.is_none() {
            out::note("the node does not answer; waiting until it is back");
        }
        self.gone.get_or_insert_with(Instant::now);
        std::thread::sleep(PAUSE);
        Ok(None)
    }
}

/// `tasks wait`.
pub(super) fn wait(session: &Session<'_>, ids: &[String], timeout: Option<Duration>) -> Result<(), Failure> {
    let client = session.client()?;
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let (mut failed, mut looks) = (None, Looks::of(&client));
    for id in ids {
        let (task, body) = ended(&mut looks, id, until)?;
        if session.json() {
            out::json(&body)?;
        } else {
            out::line(&format!("{}  {}", task.id, task.state.name()))?;
        }
        if task.state != TaskState::Succeeded {
            failed.get_or_insert(unsuccessful(&task, session.program));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Waits for a task's end, or until a person must decide. At a terminal its progress is shown meanwhile.
pub(super) fn ended(
    looks: &mut Looks<'_>,
    id: &str,
    until: Option<Instant>,
) -> Result<(TaskView, Vec<u8>), Failure> {
    let bar = Bar::of_stderr();
    let most = if bar.is_some() { POLL_WAIT } else { LONG_WAIT };
    let mut state = None;
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // The first answer comes at once: who has it waits for a node that goes.
        let most = if looks.has_answered { most } else { Duration::ZERO };
        let wait = left.map_or(most, |left| left.min(most));
        let asked = format!("{}{}", path(id), query(&[("wait", Some(print_duration(wait)))]));
        if let Some(reply) = looks.at(&asked, wait + REQUEST_TIMEOUT)? {
            let task: TaskView = reply.read()?;
            if let Some(bar) = &bar {
                bar.show(&task);
            }
            if task.state.is_final() || task.state == TaskState::OutcomeUnknown {
                if let Some(bar) = &bar {
                    bar.end();
                }
                return Ok((task, reply.body));
            }
            state = Some(task.state);
        }
        if until.is_some_and(|until| until <= Instant::now()) {
            let state = state.map_or("not ended", TaskState::name);
            return Err(Failure::new(Exit::TimedOut, format!("task {id} is still {state}")));
        }
    }
}

pub(super) fn unsuccessful(task: &TaskView, program: &str) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("task {} ended as {}", task.id, task.state.name()));
    let Some(error) = &task.error else { return failure };
    let mut failure = failure.detail(format!("{}: {}", error.code, error.message));
    for cause in &error.chain {
        failure = failure.detail(format!("because {cause}"));
    }
    match &error.crash_id {
        Some(crash) => failure.hint(format!("{program} crashes show {crash}")),
        None => failure.hint(format!("{program} tasks history {}", task.id)),
    }
}

/// `tasks watch`: with what the task writes.
pub(super) fn run(session: &Session<'_>, id: &str, json: bool) -> Result<(), Failure> {
    let client = session.client()?;
    let (mut lines, mut shown) = (Lines::default(), Shown::new(json));
    let mut looks = Looks::of(&client);
    loop {
        let asked = format!("{}{}", path(id), query(&[("wait", Some(print_duration(POLL_WAIT)))]));
        let Some(reply) = looks.at(&asked, REQUEST_TIMEOUT)? else { continue };
        let task: TaskView = reply.read()?;
        for line in lines.fresh(&mut looks, id)? {
            shown.line(&line)?;
        }
        shown.task(&task, &reply.body)?;
        if task.state.is_final() || task.state == TaskState::OutcomeUnknown {
            shown.end();
            if task.state != TaskState::Succeeded {
                return Err(unsuccessful(&task, session.program));
            }
            return match task.result {
                Some(result) if !json => Ok(out::json(result.get().as_bytes())?),
                _ => Ok(()),
            };
        }
    }
}

/// What the task has written, each line once.
#[derive(Default)]
struct Lines {
    after: Option<i64>,
}

impl Lines {
    fn fresh(&mut self, looks: &mut Looks<'_>, id: &str) -> Result<Vec<TaskLine>, Failure> {
        let mut fresh = Vec::new();
        loop {
            let after = self.after.map(|n| n.to_string());
            let asked = query(&[("cursor", after), ("limit", Some(PAGE.to_string()))]);
            let asked = format!("{}/logs{asked}", path(id));
            let Some(reply) = looks.at(&asked, REQUEST_TIMEOUT)? else { continue };
            let page: Page<TaskLine> = reply.read()?;
            self.after = page.items.last().map(|line| line.n).or(self.after);
            fresh.extend(page.items);
            if page.next_cursor.is_none() {
                return Ok(fresh);
            }
        }
    }
}

/// A bar on stderr for whoever waits for a task at a terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Where there is a terminal.
    pub fn of_stderr() -> Option<Self> {
        let style = ProgressStyle::with_template("{bar:24.green} {percent:>3} %  {elapsed}  {msg}").ok()?;
        let shows = std::io::stderr().is_terminal() && !out::is_quiet();
        shows.then(|| Self(ProgressBar::new(1_000).with_style(style)))
    }

    /// Shows how far the task is.
    pub fn show(&self, task: &TaskView) {
        let (fraction, text) = said(task);
        self.0.set_position((fraction.unwrap_or_default() * 1_000.0) as u64);
        self.0.set_message(format!("{}  {text}", task.state.name()));
        self.0.tick();
    }

    /// Takes it away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// What the person has seen: a bar on a terminal, else a line for each change, on stderr; or JSON on stdout.
struct Shown {
    bar: Option<Bar>,
    json: bool,
    last: String,
}

impl Shown {
    fn new(json: bool) -> Self {
        let bar = if json { None } else { Bar::of_stderr() };
        Self { bar, json, last: String::new() }
    }

    fn line(&self, line: &TaskLine) -> Result<(), Failure> {
        if self.json {
            let text = serde_json::to_string(line).map_err(Failure::usage)?;
            return Ok(out::line(&text)?);
        }
        let text = format!("{}  {}  {}", line.at, line.level.short(), out::plain(&line.text));
        match &self.bar {
            Some(Bar(bar)) => bar.println(text),
            None => out::note(&text),
        }
        Ok(())
    }

    fn task(&mut self, task: &TaskView, body: &[u8]) -> Result<(), Failure> {
        let (fraction, text) = said(task);
        let now = match fraction {
            Some(fraction) => format!("{}  {:.0} %  {text}", task.state.name(), fraction * 100.0),
            None => format!("{}  {text}", task.state.name()),
        };
        let now = now.trim_end().to_owned();
        if let Some(bar) = &self.bar {
            bar.show(task);
        } else if now != self.last {
            if self.json {
                out::line(String::from_utf8_lossy(body).trim_end())?;
            } else {
                out::note(&now);
            }
        }
        self.last = now;
        Ok(())
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.end();
            out::note(&self.last);
        }
    }
}

/// How far the task says it is.
fn said(task: &TaskView) -> (Option<f64>, String) {
    let Some(progress) = &task.progress else { return (None, String::new()) };
    let text = progress.get("text").and_then(Value::as_str).unwrap_or_default();
    (progress.get("fraction").and_then(Value::as_f64), out::plain(text))
}
