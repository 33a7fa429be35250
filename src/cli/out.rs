//! Output: data to stdout, notes to stderr.

use std::{
    cell::RefCell,
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use console::Term;
use serde_json::Value;

thread_local! {
    /// What is written goes here, where somebody captures it.
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes are not wanted.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Has notes left out, and of tables all but the names.
pub(super) fn be_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether notes are left out.
pub(super) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// What `work` writes and says, in place of writing it.
pub(super) fn captured<T>(work: impl FnOnce() -> T) -> (String, T) {
    CAPTURED.replace(Some(String::new()));
    let done = work();
    (CAPTURED.take().unwrap_or_default(), done)
}

/// Keeps a line for whoever captures it; `false`: nobody does.
fn capture(text: &str) -> bool {
    CAPTURED.with_borrow_mut(|captured| match captured {
        Some(all) => {
            all.push_str(text);
            all.push('\n');
            true
        }
        None => false,
    })
}

/// Writes a line, or lines, to stdout. A closed pipe is an error here, and silent further up.
pub(super) fn line(text: &str) -> io::Result<()> {
    if capture(text) {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// How many columns the terminal has that stdout is, if it is one.
pub(super) fn width() -> Option<usize> {
    io::stdout().is_terminal().then(|| usize::from(Term::stdout().size().1))
}

/// Says something on stderr, for the person and not for the script.
pub(super) fn note(text: &str) {
    if !is_quiet() && !capture(text) {
        // Where stderr is closed there is nobody to tell.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Writes a JSON document as it came; on a terminal, indented.
pub(super) fn json(bytes: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(bytes);
    if io::stdout().is_terminal()
        && let Ok(value) = serde_json::from_str::<Value>(&text)
    {
        return value_pretty(&value);
    }
    line(&spelt(text.trim_end()))
}

/// Writes a value, indented.
pub(super) fn value_pretty(value: &Value) -> io::Result<()> {
    line(&spelt(&serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())))
}

/// JSON text in which what acts on a terminal is spelt out. JSON itself asks for that of the first 32 characters
/// only; outside its texts there are none of these.
fn spelt(json: &str) -> String {
    let mut spelt = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' | '\t' | '\r' => spelt.push(c),
            c if acts(c) => spelt.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => spelt.push(c),
        }
    }
    spelt
}

/// Whether a character does something on a terminal in place of being seen: controls, and what turns the order of
/// letters or hides between them.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Text from elsewhere in one line, with what acts on a terminal spelt out.
pub(super) fn plain(text: &str) -> String {
    let spell = |c: char| if acts(c) { c.escape_unicode().to_string() } else { c.to_string() };
    let usual = |c: char| if c.is_ascii_control() { c.escape_debug().to_string() } else { spell(c) };
    text.chars().map(usual).collect()
}

/// The same, but line breaks stay.
pub(super) fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// Colour, where somebody looks who has not asked for none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    /// For stdout.
    pub fn of_stdout() -> Self {
        Self(io::stdout().is_terminal() && wanted())
    }

    /// For stderr.
    pub fn of_stderr() -> Self {
        Self(io::stderr().is_terminal() && wanted())
    }

    /// None at all.
    #[cfg(test)]
    pub const NONE: Self = Self(false);

    /// Whether there is colour.
    pub fn is_on(self) -> bool {
        self.0
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A size for people: `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, f64); 3] = [("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1_024.0)];
    // Beyond 2^53 bytes the last digits are not shown anyway.
    let exact = bytes as f64;
    match UNITS.iter().find(|(_, unit)| exact >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", exact / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_text_is_harmless() {
        for (bytes, text) in [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (3 << 30, "3.0 GiB")] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(plain("a\x1b[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(plain_lines("a\nb\x07"), "a\nb\\u{7}");
        assert_eq!(plain("\u{9b}31m \u{202e}x\u{200b}"), "\\u{9b}31m \\u{202e}x\\u{200b}");
        assert_eq!(
            spelt("{\n  \"a\": \"\u{9b}ü\u{7f}\u{202e}\"\n}"),
            "{\n  \"a\": \"\\u009bü\\u007f\\u202e\"\n}"
        );
    }
}
