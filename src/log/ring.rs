//! The last records, for `greenroom logs`, and waiting for new ones.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::model::event::Level;

/// How many records are kept.
pub const KEPT: usize = 2048;
/// How far a follower may fall behind before it loses records.
const BEHIND: usize = 1024;

/// A record that was written, as its JSON line.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its number, from 1, without gaps.
    pub number: u64,
    /// How much it matters.
    pub level: Level,
    /// The event's name.
    pub event: Arc<str>,
    /// Whom it is about.
    pub subject: Arc<str>,
    /// The JSON line, without a line break.
    pub json: Arc<str>,
}

#[derive(Debug)]
pub(super) struct Ring {
    lines: Mutex<(u64, VecDeque<Line>)>,
    news: broadcast::Sender<Line>,
}

impl Ring {
    pub(super) fn new() -> Self {
        let (news, _) = broadcast::channel(BEHIND);
        Self { lines: Mutex::new((0, VecDeque::with_capacity(KEPT))), news }
    }

    pub(super) fn push(&self, level: Level, event: &str, subject: &str, json: Arc<str>) {
        let mut guard = self.lines.lock();
        let (last, lines) = &mut *guard;
        *last += 1;
        let line = Line { number: *last, level, event: event.into(), subject: subject.into(), json };
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line.clone());
        // Sent under the lock, so that nothing falls between what was read and what follows.
        // That nobody listens is no error.
        let _ = self.news.send(line);
    }

    pub(super) fn recent(&self) -> Vec<Line> {
        self.lines.lock().1.iter().cloned().collect()
    }

    pub(super) fn follow(&self) -> (Vec<Line>, broadcast::Receiver<Line>) {
        let guard = self.lines.lock();
        (guard.1.iter().cloned().collect(), self.news.subscribe())
    }
}
