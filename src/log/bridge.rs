//! Records from other libraries: slog loggers, and crates that use the `log` facade.

use std::{fmt, panic::AssertUnwindSafe};

use jiff::Timestamp;
use serde_json::{Map, Value};
use slog::{Drain, KV, Key, Never, OwnedKVList};

use super::{Logger, limit, record::Record};
use crate::model::event::Level;

/// The drain under [`Logger::slog`]. The keys `event` and `subject` become what they are; a record
/// with an `event` is limited like the runtime's own.
pub(super) struct Front(pub(super) AssertUnwindSafe<Logger>);

impl Drain for Front {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &slog::Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let level = level_of(record.level());
        if !self.0.filter().lets(level, record.module()) {
            return Ok(());
        }
        let mut facts = Facts(Map::new());
        // A value that cannot be written is left out; the record still says the rest.
        let _ = values.serialize(record, &mut facts);
        let _ = record.kv().serialize(record, &mut facts);
        let mut text = |key: &str| match facts.0.remove(key) {
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let (event, subject) = (text("event"), text("subject"));
        let most = if event.is_empty() { limit::RECORDS } else { limit::EVENTS };
        let own = Record {
            at: Timestamp::now(),
            level,
            event: if event.is_empty() { "log".to_owned() } else { event },
            subject,
            msg: record.msg().to_string(),
            module: record.module().to_owned(),
            fields: facts.0,
            hint: None,
        };
        let site = format!("{}:{}", record.file(), record.line());
        self.0.admit(&own, &site, most);
        Ok(())
    }

    fn is_enabled(&self, level: slog::Level) -> bool {
        level_of(level) >= self.0.filter().least()
    }
}

fn level_of(level: slog::Level) -> Level {
    match level {
        slog::Level::Critical => Level::Critical,
        slog::Level::Error => Level::Error,
        slog::Level::Warning => Level::Warn,
        slog::Level::Info => Level::Info,
        slog::Level::Debug | slog::Level::Trace => Level::Debug,
    }
}

/// Collects a record's values as JSON.
struct Facts(Map<String, Value>);

impl Facts {
    fn put(&mut self, key: &Key, value: impl Into<Value>) -> slog::Result {
        self.0.insert(AsRef::<str>::as_ref(key).to_owned(), value.into());
        Ok(())
    }
}

impl slog::Serializer for Facts {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.put(&key, value.to_string())
    }
    fn emit_str(&mut self, key: Key, value: &str) -> slog::Result {
        self.put(&key, value)
    }
    fn emit_bool(&mut self, key: Key, value: bool) -> slog::Result {
        self.put(&key, value)
    }
    fn emit_i64(&mut self, key: Key, value: i64) -> slog::Result {
        self.put(&key, value)
    }
    fn emit_i32(&mut self, key: Key, value: i32) -> slog::Result {
        self.put(&key, value)
    }
    fn emit_isize(&mut self, key: Key, value: isize) -> slog::Result {
        self.put(&key, value)
    }
    fn emit_u64(&mut self, key: Key, value: u64) -> slog::Result {
        self.put(&key, value)
    }
    fn emit_u32(&mut self, key: Key, value: u32) -> slog::Result {
        self.put(&key, value)
    }
    fn emit_u16(&mut self, key: Key, value: u16) -> slog::Result {
        self.put(&key, value)
    }
    fn emit_u8(&mut self, key: Key, value: u8) -> slog::Result {
        self.put(&key, value)
    }
    fn emit_usize(&mut self, key: Key, value: usize) -> slog::Result {
        self.put(&key, value)
    }
    fn emit_f64(&mut self, key: Key, value: f64) -> slog::Result {
        self.put(&key, value)
    }
    fn emit_f32(&mut self, key: Key, value: f32) -> slog::Result {
        self.put(&key, value)
    }
    fn emit_unit(&mut self, key: Key) -> slog::Result {
        self.put(&key, Value::Null)
    }
    fn emit_none(&mut self, key: Key) -> slog::Result {
        self.put(&key, Value::Null)
    }
    fn emit_serde(&mut self, key: Key, value: &dyn slog::SerdeValue) -> slog::Result {
        let json = serde_json::to_value(value.as_serde()).map_err(|_| slog::Error::Other)?;
        self.put(&key, json)
    }
}

/// The way in for crates that use the `log` facade: info and up from our own, warn and up from
/// others, unless a level for their module says otherwise.
pub(super) struct Bridge(pub(super) Logger);

impl Bridge {
    fn lets(&self, metadata: &::log::Metadata<'_>) -> bool {
        let target = metadata.target();
        let ours = target == "greenroom" || target.starts_with("greenroom::");
        let own = if ours { Level::Info } else { Level::Warn };
        self.0.filter().lets_from(severity(metadata.level()), target, Some(own))
    }
}

fn severity(level: ::log::Level) -> Level {
    match level {
        ::log::Level::Error => Level::Error,
        ::log::Level::Warn => Level::Warn,
        ::log::Level::Info => Level::Info,
        ::log::Level::Debug | ::log::Level::Trace => Level::Debug,
    }
}

impl ::log::Log for Bridge {
    fn enabled(&self, metadata: &::log::Metadata<'_>) -> bool {
        self.lets(metadata)
    }

    fn log(&self, record: &::log::Record<'_>) {
        if !self.lets(record.metadata()) {
            return;
        }
        let own = Record {
            at: Timestamp::now(),
            level: severity(record.level()),
            event: "log".to_owned(),
            subject: String::new(),
            msg: record.args().to_string(),
            module: record.target().to_owned(),
            fields: Map::new(),
            hint: None,
        };
        let site = format!("{}:{}", record.target(), record.line().unwrap_or(0));
        self.0.admit(&own, &site, limit::RECORDS);
    }

    fn flush(&self) {}
}
