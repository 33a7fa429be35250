//! What a running call, or a turn of a task, reports: progress, log lines and heartbeats.

use std::collections::VecDeque;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;

use crate::model::{
    event::Level,
    id::TaskId,
    journal::{LogLine, TaskNotes},
};

/// Of a text of progress so many characters are kept.
const MAX_TEXT: usize = 1_000;
/// Of a line of a log.
const MAX_LINE: usize = 4_000;
/// At most so many lines wait to be written: the oldest go.
const MAX_LINES: usize = 1_000;

/// The latest word of a call.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    progress: Option<(f32, String)>,
    partial: Option<Box<RawValue>>,
    lines: VecDeque<LogLine>,
    /// Lines that were let go.
    lost: usize,
    /// Progress that nobody has taken.
    fresh: bool,
    /// When it last gave a sign of life.
    beat: Option<Instant>,
}

/// Progress as every surface shows it.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    fraction: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<&'a RawValue>,
}

impl Said {
    fn shown(&self) -> Option<Box<RawValue>> {
        if self.progress.is_none() && self.partial.is_none() {
            return None;
        }
        let progress = self.progress.as_ref();
        let shown = Shown {
            fraction: progress.map(|(fraction, _)| *fraction),
            text: progress.map(|(_, text)| &**text),
            partial: self.partial.as_deref(),
        };
        to_raw_value(&shown).ok()
    }

    fn beats(&mut self) {
        self.beat = Some(Instant::now());
    }
}

impl Notes {
    pub(crate) fn progress(&self, fraction: f32, text: String) {
        let mut said = self.0.lock();
        let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
        said.progress = Some((fraction, cut(text, MAX_TEXT)));
        said.fresh = true;
        said.beats();
    }

    /// `limit`: its largest size, in bytes.
    ///
    /// # Errors
    /// It is larger, or cannot be serialised.
    pub(crate) fn partial(&self, part: &impl Serialize, limit: usize) -> anyhow::Result<()> {
        let part = to_raw_value(part)?;
        anyhow::ensure!(
            part.get().len() <= limit,
            "the partial result is over limits.message_bytes ({limit})"
        );
        let mut said = self.0.lock();
        (said.partial, said.fresh) = (Some(part), true);
        said.beats();
        Ok(())
    }

    pub(crate) fn log(&self, at: Timestamp, level: Level, text: String) {
        let mut said = self.0.lock();
        if said.lines.len() == MAX_LINES {
            said.lines.pop_front();
            said.lost += 1;
        }
        said.lines.push_back(LogLine { at, level, text: cut(text, MAX_LINE) });
        said.beats();
    }

    pub(super) fn beat(&self) {
        self.0.lock().beats();
    }

    /// When it last gave a sign of life.
    pub(crate) fn last_beat(&self) -> Option<Instant> {
        self.0.lock().beat
    }

    /// How far it says it is.
    pub(crate) fn latest(&self) -> Option<Box<RawValue>> {
        self.0.lock().shown()
    }

    /// What is new since this was asked last.
    pub(crate) fn take(&self, task: TaskId, at: Timestamp) -> Option<TaskNotes> {
        let mut said = self.0.lock();
        let progress = if std::mem::take(&mut said.fresh) { said.shown() } else { None };
        let mut logs: Vec<LogLine> = std::mem::take(&mut said.lines).into();
        let lost = std::mem::take(&mut said.lost);
        if lost > 0 {
            let text = format!("{lost} lines before this were let go: there were too many at once");
            logs.insert(0, LogLine { at, level: Level::Warn, text });
        }
        (progress.is_some() || !logs.is_empty()).then_some(TaskNotes { task, at, progress, logs })
    }
}

fn cut(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => text.get(..at).unwrap_or_default().to_owned() + "…",
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_taken_once() {
        let (notes, task, now) = (Notes::default(), TaskId::fresh(), Timestamp::UNIX_EPOCH);
        assert!(notes.take(task, now).is_none() && notes.latest().is_none());
        notes.progress(f32::NAN, "a".repeat(2_000));
        notes.progress(2.0, "half".to_owned());
        notes.partial(&[1], 3).unwrap();
        assert!(notes.partial(&[10], 3).is_err());
        let taken = notes.take(task, now).unwrap().progress.unwrap();
        assert_eq!(taken.get(), r#"{"fraction":1.0,"text":"half","partial":[1]}"#);
        assert!(notes.take(task, now).is_none());
        assert!(notes.latest().is_some() && notes.last_beat().is_some());
    }

    #[test]
    fn of_too_many_lines_the_first_are_let_go_and_that_is_told() {
        let (notes, task, now) = (Notes::default(), TaskId::fresh(), Timestamp::UNIX_EPOCH);
        for n in 0..MAX_LINES + 3 {
            notes.log(now, Level::Info, n.to_string());
        }
        let taken = notes.take(task, now).unwrap();
        assert!(taken.progress.is_none());
        assert_eq!(taken.logs.len(), MAX_LINES + 1);
        assert!(taken.logs[0].text.starts_with("3 lines"));
        assert_eq!(taken.logs[1].text, "3");
    }
}
