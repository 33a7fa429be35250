//! One record of the log and its three forms: a console line, a JSON line, and back from JSON.

use std::fmt::Write as _;

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Map, Value};

use crate::model::event::{Event, Level};

/// Names that a JSON line uses itself; a fact of the same name is written with `_` behind it.
const RESERVED: [&str; 9] = ["ts", "level", "event", "msg", "node", "boot", "subject", "module", "hint"];

/// Whose log it is: two fields of every JSON line.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The node's name.
    pub node: String,
    /// The identity of its boot.
    pub boot: String,
}

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// The event's name; `log` for text of other crates.
    pub event: String,
    /// Whom it is about; may be empty.
    pub subject: String,
    /// Text, where facts do not tell all.
    pub msg: String,
    /// The module that wrote it, where it is no event of the runtime.
    pub module: String,
    /// The facts.
    pub fields: Map<String, Value>,
    /// What a person might do next.
    pub hint: Option<String>,
}

impl From<Event> for Record {
    fn from(event: Event) -> Self {
        Self {
            at: event.at,
            level: event.level,
            event: event.name.into_owned(),
            subject: event.subject,
            msg: String::new(),
            module: String::new(),
            fields: event.fields,
            hint: event.hint,
        }
    }
}

impl Record {
    /// The console line: `HH:MM:SS.mmm LEVL event subject  facts  → hint`, times in UTC.
    pub fn console(&self, colour: bool) -> String {
        let mut facts = escape(&self.msg);
        for (key, value) in &self.fields {
            fact(&mut facts, key, value);
        }
        self.console_with(&facts, colour)
    }

    /// The console line with other words in the place of the facts.
    pub(super) fn console_with(&self, facts: &str, colour: bool) -> String {
        let paint = if colour { Paint::of(self.level) } else { Paint::NONE };
        let at = self.at.to_zoned(TimeZone::UTC).strftime("%H:%M:%S%.3f").to_string();
        let event = if self.event == "log" && !self.module.is_empty() { &self.module } else { &self.event };
        let mut line = format!(
            "{dim}{at}{off} {tone}{level}{off} {bold}{event}{off}",
            dim = paint.dim,
            tone = paint.tone,
            bold = paint.bold,
            off = paint.off,
            level = self.level.short(),
            event = escape(event),
        );
        if !self.subject.is_empty() {
            let _ = write!(line, " {}", escape(&self.subject));
        }
        if !facts.is_empty() {
            let _ = write!(line, "  {facts}");
        }
        if let Some(hint) = &self.hint {
            let _ = write!(line, "  {dim}→ {}{off}", escape(hint), dim = paint.dim, off = paint.off);
        }
        line
    }

    /// The JSON line: `ts`, `level`, `event`, `msg`, `node`, `boot`, `subject`, then the facts.
    pub fn json(&self, origin: &Origin) -> String {
        let text = |s: &str| Value::from(s).to_string();
        let mut line = format!(
            "{{\"ts\":{},\"level\":\"{}\",\"event\":{},\"msg\":{},\"node\":{},\"boot\":{},\"subject\":{}",
            self.at.as_millisecond(),
            self.level.name(),
            text(&self.event),
            text(&self.msg_or_words()),
            text(&origin.node),
            text(&origin.boot),
            text(&self.subject),
        );
        if !self.module.is_empty() {
            let _ = write!(line, ",\"module\":{}", text(&self.module));
        }
        for (key, value) in &self.fields {
            let behind = if RESERVED.contains(&key.as_str()) { "_" } else { "" };
            let _ = write!(line, ",{}:{value}", text(&format!("{key}{behind}")));
        }
        if let Some(hint) = &self.hint {
            let _ = write!(line, ",\"hint\":{}", text(hint));
        }
        line.push('}');
        line
    }

    /// Reads a JSON line back, to show it on a console. What is missing is empty.
    pub fn from_json(line: &Value) -> Self {
        let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let ts = line.get("ts").and_then(Value::as_i64).unwrap_or_default();
        let mut record = Self {
            at: Timestamp::from_millisecond(ts).unwrap_or(Timestamp::UNIX_EPOCH),
            level: text("level").parse().unwrap_or(Level::Info),
            event: text("event"),
            subject: text("subject"),
            msg: text("msg"),
            module: text("module"),
            fields: Map::new(),
            hint: line.get("hint").and_then(Value::as_str).map(str::to_owned),
        };
        if record.msg == words(&record.event) {
            record.msg.clear();
        }
        for (key, value) in line.as_object().into_iter().flatten() {
            if !RESERVED.contains(&key.as_str()) {
                record.fields.insert(key.clone(), value.clone());
            }
        }
        record
    }

    fn msg_or_words(&self) -> String {
        if self.msg.is_empty() { words(&self.event) } else { self.msg.clone() }
    }
}

/// `agent.crashed` in words.
fn words(event: &str) -> String {
    event.replace(['.', '_'], " ")
}

/// Appends ` key=value`; an object's parts one by one.
fn fact(line: &mut String, key: &str, value: &Value) {
    let shown = match value {
        Value::Null => return,
        Value::Object(map) => {
            for (part, inner) in map {
                fact(line, &format!("{key}.{part}"), inner);
            }
            return;
        }
        Value::String(text) => {
            let escaped = escape(text);
            let bare = !escaped.is_empty() && !escaped.contains([' ', '"', '=']);
            if bare { escaped } else { format!("\"{}\"", escaped.replace('"', "\\\"")) }
        }
        other => escape(&other.to_string()),
    };
    if !line.is_empty() {
        line.push(' ');
    }
    let _ = write!(line, "{}={shown}", escape(key));
}

/// Text in which no control or bidirectional formatting character acts on the terminal.
pub(super) fn escape(text: &str) -> String {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// Colours of a terminal.
pub(super) struct Paint {
    pub(super) tone: &'static str,
    pub(super) bold: &'static str,
    pub(super) dim: &'static str,
    pub(super) off: &'static str,
}

impl Paint {
    pub(super) const NONE: Self = Self { tone: "", bold: "", dim: "", off: "" };

    pub(super) fn of(level: Level) -> Self {
        let tone = match level {
            Level::Debug => "\x1b[2m",
            Level::Info => "\x1b[32m",
            Level::Warn => "\x1b[33m",
            Level::Error => "\x1b[31m",
            Level::Critical => "\x1b[1;31m",
        };
        Self { tone, bold: "\x1b[1m", dim: "\x1b[2m", off: "\x1b[0m" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event;

    fn record() -> Record {
        let at = "2026-11-03T14:05:06.789Z".parse().unwrap();
        Event::at(at, Level::Warn, event::MAILBOX_BACKLOG, "tally/a")
            .field("depth", 900)
            .field("note", "two words")
            .field("event", "clash")
            .hint("greenroom agents show tally/a")
            .into()
    }

    #[test]
    fn the_console_line_has_the_contracts_form() {
        assert_eq!(
            record().console(false),
            "14:05:06.789 WARN mailbox.backlog tally/a  depth=900 event=clash note=\"two words\"  \
             → greenroom agents show tally/a"
        );
        assert!(record().console(true).contains("\x1b[33mWARN\x1b[0m"));
    }

    #[test]
    fn the_json_line_has_the_contracts_fields_first() {
        let origin = Origin { node: "n1".into(), boot: "b1".into() };
        assert_eq!(
            record().json(&origin),
            "{\"ts\":1793714706789,\"level\":\"warn\",\"event\":\"mailbox.backlog\",\
             \"msg\":\"mailbox backlog\",\"node\":\"n1\",\"boot\":\"b1\",\"subject\":\"tally/a\",\
             \"depth\":900,\"event_\":\"clash\",\"note\":\"two words\",\
             \"hint\":\"greenroom agents show tally/a\"}"
        );
    }

    #[test]
    fn a_json_line_reads_back_to_the_same_console_line() {
        let mut plain = record();
        plain.fields.remove("event");
        let line: Value = serde_json::from_str(&plain.json(&Origin::default())).unwrap();
        assert_eq!(Record::from_json(&line), plain);
        assert_eq!(Record::from_json(&Value::Null).event, "");
    }

    #[test]
    fn nothing_in_a_message_acts_on_the_terminal() {
        let mut evil = record();
        evil.msg = "a\x1b[2Jb\nc\u{202e}d\u{9b}".into();
        evil.subject = "x/\x07".into();
        let line = evil.console(false);
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
        assert!(line.contains("a\\u{1b}[2Jb\\nc\\u{202e}d\\u{9b}"), "{line}");
    }
}
