//! The output: lines and a progress bar on stderr, the proof on stdout.

use std::io::{IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

/// The screen. Off a terminal there are lines alone.
pub(super) struct Screen {
    bar: ProgressBar,
    /// The last tenth that was told, off a terminal.
    told: Mutex<Option<u64>>,
}

impl Screen {
    pub fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("  {wide_bar} {human_pos} of {human_len} files {msg}")
        {
            bar.set_style(style);
        }
        Self { bar, told: Mutex::default() }
    }

    /// A line. A closed pipe is no error.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| drop(writeln!(std::io::stderr(), "{text}")));
    }

    /// A part of the proof.
    pub fn proof(&self, text: &str) {
        self.bar.suspend(|| drop(writeln!(std::io::stdout(), "{text}")));
    }

    /// How far it is.
    pub fn progress(&self, done: u64, all: u64, how: &'static str) {
        self.bar.set_length(all);
        self.bar.set_position(done);
        self.bar.set_message(how);
        let tenth = done.saturating_mul(10).checked_div(all).unwrap_or(0);
        if self.bar.is_hidden() && self.told.lock().replace(tenth) != Some(tenth) {
            self.line(&format!("  {} of {} files", thousands(done), thousands(all)));
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn thousands(n: u64) -> String {
    indicatif::HumanCount(n).to_string()
}
