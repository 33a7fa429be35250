//! The log: events and other crates' records on the console, in a file, and in memory.
//!
//! A record passes: level filter → rate limit for its site → the ring of the last records and its
//! followers → for the console and for the file a bounded queue and a writer thread of its own. A filtered record
//! costs one atomic load; limited records are counted and reported in one `log.suppressed`; records that find a
//! queue full are dropped and counted, except errors and operators' acts, which wait a second for room. Events
//! also go to the [`Stream`], which has rules of its own.
//!
//! ```
//! use greenroom::log::{Logger, Options};
//! use greenroom::model::event::{self, Event, Level};
//!
//! let (logger, guard) = Logger::start(Options::default()).unwrap();
//! logger.emit(Event::new(Level::Info, event::NODE_STARTED, "node:eu-1").field("agents", 3));
//! slog::info!(logger.slog(), "loaded"; "files" => 12);
//! drop(guard); // the last thing of all: writes what waits
//! ```

mod bridge;
mod filter;
mod limit;
mod output;
mod record;
mod report;
mod ring;
mod stream;
mod transport;

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    panic::AssertUnwindSafe,
    sync::{Arc, Weak, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::broadcast;

use self::{
    bridge::{Bridge, Front},
    filter::Filter,
    limit::{Limiter, Suppressed},
    output::{IfFull, Output, Writers},
    ring::Ring,
    transport::Entry,
};
pub use self::{
    output::FileOptions,
    record::{Origin, Record},
    report::crash as crash_text,
    ring::{KEPT, Line},
    stream::{Heard, Listener, Stream, Told},
    transport::{Format, Rules, Transport},
};
use crate::{
    model::{
        event::{self, Event, Level},
        supervision::{CrashReport, Decision},
    },
    secrets,
};

/// How often counts of suppressed and dropped records are looked after.
const TICK: Duration = Duration::from_secs(1);

/// What a log is made of.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What is written where.
    pub rules: Rules,
    /// A file besides the console.
    pub file: Option<FileOptions>,
    /// Whose log it is.
    pub origin: Origin,
    /// Colour or not; unset: on a terminal, unless `NO_COLOR` is set.
    pub colour: Option<bool>,
}

/// The one way to write the log. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Logger(Arc<Core>);

struct Core {
    filter: Filter,
    limiter: Mutex<Limiter>,
    ring: Ring,
    stream: Stream,
    output: Option<Output>,
    colour: bool,
    origin: Origin,
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger").finish_non_exhaustive()
    }
}

impl Logger {
    /// Starts a log on stderr. Keep the guard to the very end of `main`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn start(options: Options) -> io::Result<(Self, Guard)> {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = options.colour.unwrap_or_else(|| io::stderr().is_terminal() && !plain);
        Self::start_on(Box::new(io::stderr()), Options { colour: Some(colour), ..options })
    }

    /// Starts a log that writes elsewhere than to stderr.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn start_on(console: Box<dyn Write + Send>, options: Options) -> io::Result<(Self, Guard)> {
        let (output, writers) = Output::start(console, options.file.as_ref())?;
        let logger = Self::build(options, Some(output));
        let (stop, stopped) = mpsc::channel();
        let core = Arc::downgrade(&logger.0);
        let ticker = std::thread::Builder::new()
            .name("greenroom-log-count".to_owned())
            .spawn(move || tick(&core, &stopped))?;
        let guard =
            Guard { logger: logger.clone(), stop: Some(stop), ticker: Some(ticker), writers: Some(writers) };
        Ok((logger, guard))
    }

    /// A log that writes nothing and keeps the last records only: for tests, and before there is one.
    pub fn quiet(level: Level) -> Self {
        Self::build(Options { rules: Rules::at(level), ..Options::default() }, None)
    }

    fn build(options: Options, output: Option<Output>) -> Self {
        Self(Arc::new(Core {
            filter: Filter::new(&options.rules, options.file.is_some()),
            limiter: Mutex::new(Limiter::default()),
            ring: Ring::new(),
            stream: Stream::default(),
            output,
            colour: options.colour.unwrap_or(false),
            origin: options.origin,
        }))
    }

    /// Writes an event, unless its level is off or its site has just been written too often; and tells
    /// those who follow the events.
    pub fn emit(&self, event: Event) {
        // What operators do is written whatever the level: it is they who set it.
        let logged =
            event.name == event::OPERATOR_ACTED || self.lets_about(event.level, &event.name, &event.subject);
        if !logged && event.level < Level::Info && !self.0.stream.is_heard(&event.name) {
            return;
        }
        let site = kind_of(&event);
        let record = Record::from(event);
        let most = if record.event == event::OPERATOR_ACTED { limit::ALL } else { limit::EVENTS };
        let logged =
            logged && (record.level == Level::Debug || self.admits(&record.event, &site, most, record.at));
        let told = self.0.stream.admits(record.level, &record.event, &site, record.at);
        if !logged && !told {
            return;
        }
        let json: Arc<str> = self.0.json(&record);
        if told {
            self.0.stream.push(&record.event, &record.subject, json.clone());
        }
        if logged {
            self.0.write_text(&record, json, None, if_full(&record));
        }
    }

    /// Writes a crash: over several lines where people read it, as `agent.crashed` elsewhere, and then the
    /// decision as an event of its own. Each is written as its own level says; that an agent is not started
    /// again is written also where crashes of its site are only counted. Those who follow the events are
    /// told of all.
    pub fn crash(&self, report: &CrashReport) {
        let lets = |level, name: &str| self.lets_about(level, name, &report.subject);
        let wanted = lets(Level::Error, event::AGENT_CRASHED);
        let kind = kind_of_subject(&report.subject);
        let site = report.reason.site.as_deref().unwrap_or(kind);
        let decision = || report.decision_event().filter(|event| lets(event.level, &event.name));
        // Most of a storm's crashes are only counted, with what follows: nothing is built for those. That one
        // was the last is not among what is only counted.
        let is_last = matches!(report.decision, Decision::Exceeded { .. });
        if wanted && self.admits(event::AGENT_CRASHED, site, limit::EVENTS, report.at) {
            self.0.write(&report.event().into(), Some((report, decision().map(Record::from))));
        } else if (is_last || !wanted)
            && let Some(decision) = decision()
        {
            let most = if is_last { limit::MAX_FINAL } else { limit::EVENTS };
            self.admit(&decision.into(), kind, most);
        }
        self.tell_crash(report, site, kind);
    }

    /// Tells those who follow the events of a crash, and of what was decided: that it was the last, also
    /// where crashes of its site are left out.
    fn tell_crash(&self, report: &CrashReport, site: &str, kind: &str) {
        let stream = &self.0.stream;
        let crash = stream.admits(Level::Error, event::AGENT_CRASHED, site, report.at);
        if crash {
            let json = self.0.crash_json(&report.event().into(), report);
            stream.push(event::AGENT_CRASHED, &report.subject, json);
        }
        let is_last = matches!(report.decision, Decision::Exceeded { .. });
        let follows = |event: &Event| {
            crash
                || stream.is_heard(&event.name)
                || (is_last && stream.admits(event.level, &event.name, kind, report.at))
        };
        if let Some(decision) = report.decision_event().filter(follows).map(Record::from) {
            stream.push(&decision.event, &decision.subject, self.0.json(&decision));
        }
    }

    /// Whether an event of this name and level may be streamed, or written for some subject: ask before
    /// gathering expensive fields.
    #[inline]
    pub fn wants(&self, level: Level, event: &str) -> bool {
        level >= Level::Info || self.0.stream.is_heard(event) || self.may_log(level, event)
    }

    fn may_log(&self, level: Level, event: &str) -> bool {
        level >= self.0.filter.least() && self.0.filter.may_let(level, &module_of(event))
    }

    fn lets_about(&self, level: Level, event: &str, subject: &str) -> bool {
        level >= self.0.filter.least() && self.0.filter.lets_about(level, &module_of(event), subject)
    }

    /// The last events, and those to come.
    pub fn stream(&self) -> &Stream {
        &self.0.stream
    }

    /// The boot whose log it is.
    pub fn boot(&self) -> &str {
        &self.0.origin.boot
    }

    /// A slog logger into this log, for code that brings its own records.
    pub fn slog(&self) -> slog::Logger {
        slog::Logger::root(Front(AssertUnwindSafe(self.clone())), slog::o!())
    }

    /// Takes in what other crates write with the `log` facade. Once a process; says whether this was it.
    pub fn install(&self) -> bool {
        let first = ::log::set_boxed_logger(Box::new(Bridge(self.clone()))).is_ok();
        if first {
            // The filter decides; this is the facade's own short cut.
            ::log::set_max_level(::log::LevelFilter::Debug);
        }
        first
    }

    /// Puts other rules in force, at once.
    pub fn set_rules(&self, rules: &Rules) {
        self.0.filter.set(rules);
    }

    /// The last records that were written, oldest first; at most [`KEPT`].
    pub fn recent(&self) -> Vec<Line> {
        self.0.ring.recent()
    }

    /// The last records, and all that follow, without a gap. Who falls far behind is told so by the
    /// receiver.
    pub fn follow(&self) -> (Vec<Line>, broadcast::Receiver<Line>) {
        self.0.ring.follow()
    }

    fn filter(&self) -> &Filter {
        &self.0.filter
    }

    /// Passes the rate limit, then writes.
    fn admit(&self, record: &Record, site: &str, most: u32) {
        // Those who look for a fault want everything.
        if record.level == Level::Debug || self.admits(&record.event, site, most, record.at) {
            self.0.write(record, None);
        }
    }

    /// Whether one more of this site is to be written in full.
    fn admits(&self, event: &str, site: &str, most: u32, at: Timestamp) -> bool {
        let mut done = Vec::new();
        let admitted = self.0.limiter.lock().admit(event, site, most, (Instant::now(), at), &mut done);
        self.0.tell(done);
        if !admitted {
            metrics::counter!("greenroom_log_records_suppressed_total").increment(1);
        }
        admitted
    }
}

impl Core {
    /// The JSON line, without secrets.
    fn json(&self, record: &Record) -> Arc<str> {
        secrets::cleaned(record.json(&self.origin)).into()
    }

    /// Writes what is no event of the stream, or has been told there.
    fn write(&self, record: &Record, crash: Option<(&CrashReport, Option<Record>)>) {
        let json = match &crash {
            Some((report, _)) => self.crash_json(record, report),
            None => self.json(record),
        };
        self.write_text(record, json, crash, if_full(record));
    }

    fn crash_json(&self, record: &Record, report: &CrashReport) -> Arc<str> {
        let msg = format!("agent crashed: {}", report::headline(report));
        self.json(&Record { msg, ..record.clone() })
    }

    /// A crash comes with its report, and with the decision where that is to be written.
    fn write_text(
        &self,
        record: &Record,
        json: Arc<str>,
        crash: Option<(&CrashReport, Option<Record>)>,
        if_full: IfFull,
    ) {
        let (report, decision) = crash.unzip();
        self.ring.push(record.level, &record.event, &record.subject, json.clone());
        let decision = decision.flatten().map(|decision| {
            let json: Arc<str> = self.json(&decision);
            self.ring.push(decision.level, &decision.event, &decision.subject, json.clone());
            (decision, json)
        });
        let Some(output) = &self.output else { return };
        let entry = |record, json| Entry { record, json, to: self.filter.to(record) };
        let mut entries = vec![entry(record, &*json)];
        entries.extend(decision.iter().map(|(decision, json)| entry(decision, &**json)));
        let console = transport::text(&entries, report, |to| to.console, self.colour);
        let file = transport::text(&entries, report, |to| to.file, false);
        output.write(console.as_deref(), file.as_deref(), if_full);
    }

    /// Reports what was counted instead of written.
    fn tell(&self, counts: Vec<Suppressed>) {
        for count in counts {
            let event = Event::new(Level::Warn, event::LOG_SUPPRESSED, "log")
                .field("of", count.event)
                .field("site", count.site)
                .field("count", count.count)
                .field("since", count.since.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
            self.write_and_tell(event, IfFull::Drop);
        }
    }

    /// Reports what the console and the file had no room for.
    fn tell_dropped(&self, end: bool) {
        for (transport, count) in self.output.iter().flat_map(|output| output.take_dropped(end)) {
            let event = Event::new(Level::Warn, event::LOG_SUPPRESSED, "log")
                .field("of", "any")
                .field("transport", transport)
                .field("count", count)
                .field("cause", format!("the {transport} did not keep up"));
            self.write_and_tell(event, IfFull::Notice);
        }
    }

    /// Writes an event of the log's own.
    fn write_and_tell(&self, event: Event, if_full: IfFull) {
        let record = Record::from(event);
        let json: Arc<str> = self.json(&record);
        self.stream.push(&record.event, &record.subject, json.clone());
        self.write_text(&record, json, None, if_full);
    }
}

/// Errors and what operators did wait for room.
fn if_full(record: &Record) -> IfFull {
    if record.level >= Level::Error || record.event == event::OPERATOR_ACTED {
        IfFull::Wait
    } else {
        IfFull::Drop
    }
}

/// The part of the program that an event of this name is from.
fn module_of(event: &str) -> String {
    format!("greenroom::{}", event.split('.').next().unwrap_or(event))
}

/// What an event's subject is one of: the agent's kind, the tool, `task`, `node`.
fn kind_of(event: &Event) -> String {
    if let Some(site) = event.fields.get("reason").and_then(|r| r.get("site")).and_then(Value::as_str) {
        return site.to_owned();
    }
    kind_of_subject(&event.subject).to_owned()
}

fn kind_of_subject(subject: &str) -> &str {
    match subject.split_once(['/', ':']) {
        Some(("tool", _)) | None => subject,
        Some((kind, _)) => kind,
    }
}

/// Looks after the counts until the guard goes.
fn tick(core: &Weak<Core>, stopped: &mpsc::Receiver<()>) {
    while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
        let Some(core) = core.upgrade() else { return };
        let mut done = Vec::new();
        core.limiter.lock().due(Instant::now(), &mut done);
        core.tell(done);
        core.tell_dropped(false);
    }
}

/// Writes what waits, when it goes: the last thing that `main` drops. Records that come later are
/// counted as dropped.
#[must_use = "the log ends when its guard is dropped"]
pub struct Guard {
    logger: Logger,
    stop: Option<mpsc::Sender<()>>,
    ticker: Option<JoinHandle<()>>,
    writers: Option<Writers>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(ticker) = self.ticker.take() {
            // A ticker that panicked has nothing left to say.
            let _ = ticker.join();
        }
        let core = &self.logger.0;
        let mut done = Vec::new();
        core.limiter.lock().all(&mut done);
        core.tell(done);
        core.tell_dropped(true);
        if let (Some(output), Some(writers)) = (&core.output, self.writers.take()) {
            output.close(writers);
        }
    }
}

#[cfg(test)]
mod tests;
