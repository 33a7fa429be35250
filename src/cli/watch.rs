//! `tasks watch`: follows a task's progress and log lines until it ends.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::{
    Session,
    client::{Client, query},
    exit::Failure,
    out,
    tasks::{path, unsuccessful},
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
/// How long its answer may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn run(session: &Session<'_>, id: &str, json: bool) -> Result<(), Failure> {
    let client = session.client()?;
    let (mut lines, mut shown) = (Lines::default(), Shown::new(json));
    loop {
        let asked = format!("{}{}", path(id), query(&[("wait", Some(print_duration(POLL_WAIT)))]));
        let reply = client.get_within(&asked, REQUEST_TIMEOUT)?;
        let task: TaskView = reply.read()?;
        for line in lines.fresh(&client, id)? {
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
    fn fresh(&mut self, client: &Client, id: &str) -> Result<Vec<TaskLine>, Failure> {
        let after = self.after.map(|n| n.to_string());
        let reply = client.get(&format!("{}/logs{}", path(id), query(&[("cursor", after)])))?;
        let lines = reply.read::<Page<TaskLine>>()?.items;
        self.after = lines.last().map(|line| line.n).or(self.after);
        Ok(lines)
    }
}

/// What the person has seen: a bar on a terminal, else a line for each change, on stderr; or JSON on stdout.
struct Shown {
    bar: Option<ProgressBar>,
    json: bool,
    last: String,
}

impl Shown {
    fn new(json: bool) -> Self {
        let style = ProgressStyle::with_template("{bar:24.green} {percent:>3} %  {elapsed}  {msg}");
        let bar = (!json && std::io::stderr().is_terminal()).then(|| ProgressBar::new(1_000));
        let bar = bar.zip(style.ok()).map(|(bar, style)| bar.with_style(style));
        Self { bar, json, last: String::new() }
    }

    fn line(&self, line: &TaskLine) -> Result<(), Failure> {
        if self.json {
            let text = serde_json::to_string(line).map_err(Failure::usage)?;
            return Ok(out::line(&text)?);
        }
        let text = format!("{}  {}  {}", line.at, line.level.short(), out::plain(&line.text));
        match &self.bar {
            Some(bar) => bar.println(text),
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
            bar.set_position((fraction.unwrap_or_default() * 1_000.0) as u64);
            bar.set_message(format!("{}  {text}", task.state.name()));
            bar.tick();
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
            bar.finish_and_clear();
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
