//! `-w`: repeats a command's output at an interval.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use clap::Args;
use console::{Term, truncate_str};

use super::{
    exit::{Exit, Failure},
    input,
    out::{self, Paint},
};

/// It is not asked more often than this.
const LEAST: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Args)]
pub(super) struct Again {
    /// Refresh the output every 2s, or at this interval
    #[arg(
        short = 'w',
        long = "watch",
        value_name = "TIME",
        num_args = 0..=1,
        default_missing_value = "2s",
        value_parser = input::duration
    )]
    every: Option<Duration>,
}

impl Again {
    /// Does it once, or for ever: on a terminal in the same place, else one after the other. A node that does
    /// not answer for a while is waited for.
    pub fn show(&self, draw: impl Fn() -> Result<(), Failure>) -> Result<(), Failure> {
        let Some(every) = self.every else { return draw() };
        let (mut first, on_terminal) = (true, io::stdout().is_terminal());
        loop {
            let (text, done) = out::captured(&draw);
            let text = match done {
                Ok(()) => text,
                // All that is to be said of it is in the text.
                Err(failure) if failure.exit == Exit::Degraded => text,
                Err(failure) if passes(&failure) && !first => format!("{failure}\n"),
                Err(failure) => return Err(failure),
            };
            if on_terminal {
                let size = Term::stdout().size();
                let frame = frame(&text, (size.0.into(), size.1.into()), first, Paint::of_stdout(), every);
                let mut stdout = io::stdout().lock();
                stdout.write_all(frame.as_bytes())?;
                stdout.flush()?;
            } else {
                out::line(text.trim_end_matches('\n'))?;
            }
            first = false;
            std::thread::sleep(every.max(LEAST));
        }
    }
}

/// Whether it may be better the next time.
fn passes(failure: &Failure) -> bool {
    matches!(failure.exit, Exit::Unreachable | Exit::TimedOut | Exit::Busy)
}

/// The screen's next content, written over the last one without wiping it first, which would flicker.
fn frame(text: &str, (rows, columns): (usize, usize), first: bool, paint: Paint, every: Duration) -> String {
    let now = jiff::Timestamp::now().strftime("%H:%M:%S UTC");
    let head =
        paint.dim(&format!("{now} · every {} · Ctrl-C ends", crate::model::units::print_duration(every)));
    let mut frame = if first { "\x1b[2J\x1b[H" } else { "\x1b[H" }.to_owned();
    // One line is kept free: the cursor stands there.
    let room = rows.saturating_sub(2).max(1);
    let (shown, all) = (text.lines().take(room), text.lines().count());
    for line in std::iter::once(head.as_str()).chain(shown) {
        frame.push_str(&truncate_str(line, columns, "…"));
        frame.push_str("\x1b[K\n");
    }
    if all > room {
        frame.push_str(&paint.dim(&format!("… and {} lines more", all - room)));
    }
    frame.push_str("\x1b[J");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_screen_and_wipes_what_is_left_of_the_last_one() {
        let every = Duration::from_secs(2);
        let text = "a long line that does not fit\nb\nc\nd\n";
        let drawn = frame(text, (4, 10), false, Paint::NONE, every);
        let lines: Vec<&str> = drawn.split('\n').collect();
        assert!(lines[0].starts_with("\x1b[H") && drawn.ends_with("\x1b[J"), "{drawn:?}");
        assert_eq!(&lines[1..], ["a long li…\x1b[K", "b\x1b[K", "… and 2 lines more\x1b[J"]);
        assert!(frame("a", (9, 9), true, Paint::NONE, every).starts_with("\x1b[2J"));
    }
}
