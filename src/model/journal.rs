//! The journal of a task function: its calls with their answers, so that a rerun from its top continues where the
//! last run stopped.
//!
//! A call is identified by its target, its input and its occurrence (the n-th equal one), never by its place in
//! the code: calls may be concurrent, and answered in any order. Only the calls to *one* target are numbered, in
//! the order in which they are made, for one purpose: a rerun whose call differs from the one recorded under its
//! number has diverged, and stops. (Temporal and Restate compare each step, which forbids far more.)
//!
//! Across targets there is no order to compare: of two calls beside each other either may be the first that is
//! recorded. So it is looked at last whether a run that comes to its end has asked for all that was recorded. What a
//! run may well do without is marked when it is recorded, as *optional*: what came after a call that failed, or that
//! the function went on without, and what was answered beside another call or a wait for a signal. There the way depends
//! on what is not recorded, or not yet.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{event::Level, id::TaskId, task::ClaimId};

/// No new call begins when so many are recorded of a task function, or under way in its run: asks, submissions and waits
/// for signals among them. Each run of it reads them all. (The outcomes of a fan-out's 100,000 tasks have room.)
pub const MAX_CALLS: usize = 150_000;
/// Nor does one when the answers that are recorded of it have so many bytes.
pub const MAX_JOURNAL_BYTES: usize = 64 << 20;
/// At most so many signals of one task are kept that have answered no wait of it yet.
pub const MAX_SIGNALS: usize = 1_000;
/// The longest name of a signal, in bytes.
pub const MAX_SIGNAL_NAME_BYTES: usize = 100;

/// Which of a task's calls: the hash of its target and input, and the how manieth equal one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId {
    /// Of target and input.
    pub hash: [u8; 16],
    /// From 1.
    pub occurrence: u32,
}

/// A call as it is recorded.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which.
    pub call: CallId,
    /// Whom it was for: `tool:NAME`, `kind/key Message`, `wait NAME`, …
    pub target: String,
    /// The how manieth call to this target it was, from 1.
    pub ordinal: u32,
    /// A rerun may come to its end without it.
    pub optional: bool,
    /// `None`: it was begun, and must not be made twice.
    pub answer: Option<Answer>,
}

impl Entry {
    /// How long its answer is.
    fn bytes(&self) -> usize {
        match &self.answer {
            Some(Answer::Reply(body) | Answer::Refused(body) | Answer::Signal { body, .. }) => {
                body.get().len()
            }
            Some(Answer::TimedOut) | None => 0,
        }
    }
}

/// What a call came to, as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// This reply.
    Reply(Box<RawValue>),
    /// The message's own refusal.
    Refused(Box<RawValue>),
    /// A wait was answered by this signal.
    Signal {
        /// Which.
        id: Uuid,
        /// What it says.
        body: Box<RawValue>,
    },
    /// No signal came in time.
    TimedOut,
}

/// A wait for a signal: the n-th for that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// The signal's name.
    pub name: String,
    /// From 1.
    pub occurrence: u32,
    /// It ends then, signal or not.
    pub until: Option<Timestamp>,
    /// How many signals of that name the function has been answered with: another one ends the wait.
    pub seen: u32,
}

/// A signal that a task was sent.
#[derive(Debug, Clone)]
pub struct Signal {
    /// Its identity: the same one sent again counts once.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// What it says, as JSON.
    pub body: Box<RawValue>,
}

/// What is written of a running task function: entries, or that it waits.
#[derive(Debug, Clone)]
pub struct JournalWrite {
    /// Whose.
    pub task: TaskId,
    /// The claim under which it runs: else nothing is written.
    pub claim: ClaimId,
    /// What is recorded. One that is there already gets its answer.
    pub entries: Vec<Entry>,
    /// Calls that were begun and have come to nothing: they may be made again.
    pub undone: Vec<CallId>,
    /// Where there are some, the attempt ends here, and is given back: the task waits for the first of them,
    /// or is ready at once where its signal has come.
    pub waits: Vec<Wait>,
}

impl JournalWrite {
    /// Nothing yet.
    pub fn of(task: TaskId, claim: ClaimId) -> Self {
        Self { task, claim, entries: Vec::new(), undone: Vec::new(), waits: Vec::new() }
    }
}

/// All that is recorded of a task.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// Its calls.
    pub entries: Vec<Entry>,
    /// What it waited for last.
    pub waits: Vec<Wait>,
    /// Its signals, in the order in which they came.
    pub signals: Vec<Signal>,
}

/// What the journal says to a call.
#[derive(Debug)]
pub enum Known {
    /// It was answered so.
    Answered(Answer),
    /// It was begun, and nobody knows whether it has happened.
    Begun,
    /// It has not been made.
    New,
    /// Another call has been made in its place.
    Diverged {
        /// What was recorded.
        recorded: String,
    },
    /// It would be one too many.
    TooLong {
        /// What there is too much of.
        what: String,
    },
}

/// A call's identity, and what is known of it.
#[derive(Debug)]
pub struct Made {
    /// Which it is.
    pub call: CallId,
    /// Its number among those to its target.
    pub ordinal: u32,
    /// What the journal says.
    pub known: Known,
    /// The way to it may not be gone again.
    pub optional: bool,
}

/// What a wait comes to in this run.
#[derive(Debug)]
pub enum Awaited {
    /// It is answered.
    Signalled(Signal),
    /// Its time is over.
    TimedOut,
    /// The run ends here, unless something else in it goes on.
    Open(Wait),
}

/// A function's way through its journal, in one run.
#[derive(Debug, Default)]
pub struct Replay {
    entries: HashMap<CallId, Entry>,
    /// Which call was recorded as a target's n-th.
    places: HashMap<(String, u32), CallId>,
    /// How many equal calls were made in this run.
    equal: HashMap<[u8; 16], u32>,
    /// How many calls to a target were made in this run.
    made: HashMap<String, u32>,
    /// Occurrences, with their numbers, of calls that came to nothing.
    free: HashMap<[u8; 16], Vec<(u32, u32)>>,
    /// Recorded calls that this run has asked for.
    asked: HashSet<CallId>,
    waits: Vec<Wait>,
    signals: Vec<Signal>,
    /// Signals that have answered a wait.
    taken: HashSet<Uuid>,
    /// How many calls of this run were in no run before.
    fresh: usize,
    /// How many bytes are recorded.
    bytes: usize,
}

impl Replay {
    /// The way through what is recorded.
    pub fn of(journal: Journal) -> Self {
        let Journal { entries, waits, signals } = journal;
        let taken = entries.iter().filter_map(|entry| match entry.answer {
            Some(Answer::Signal { id, .. }) => Some(id),
            _ => None,
        });
        Self {
            bytes: entries.iter().map(Entry::bytes).sum(),
            taken: taken.collect(),
            places: entries.iter().map(|e| ((e.target.clone(), e.ordinal), e.call)).collect(),
            entries: entries.into_iter().map(|e| (e.call, e)).collect(),
            waits,
            signals,
            ..Self::default()
        }
    }

    /// Another call, whose target and input have this hash.
    pub fn call(&mut self, target: &str, hash: [u8; 16]) -> Made {
        let again = self.free.get_mut(&hash).and_then(Vec::pop);
        let is_another = again.is_none();
        let (occurrence, ordinal) = again.unwrap_or_else(|| {
            let occurrence = next(self.equal.entry(hash).or_default());
            (occurrence, next(self.made.entry(target.to_owned()).or_default()))
        });
        let call = CallId { hash, occurrence };
        if self.entries.contains_key(&call) {
            self.asked.insert(call);
        }
        let known = match self.entries.get(&call) {
            Some(Entry { answer: Some(answer), .. }) => Known::Answered(answer.clone()),
            Some(_) => Known::Begun,
            None => match self.places.get(&(target.to_owned(), ordinal)) {
                // What was recorded under this number may yet be asked for, but this was not there before.
                Some(_) => {
                    Known::Diverged { recorded: format!("call {ordinal} to {target} had another input") }
                }
                None => self.begin(is_another),
            },
        };
        Made { call, ordinal, known, optional: self.is_astray() }
    }

    /// Lets a call begin that is not recorded, where there is room for it.
    fn begin(&mut self, is_another: bool) -> Known {
        let what = if self.entries.len() + self.fresh >= MAX_CALLS && is_another {
            format!("it has made {MAX_CALLS} calls")
        } else if self.bytes > MAX_JOURNAL_BYTES {
            format!("more than {} MiB are recorded of it", MAX_JOURNAL_BYTES >> 20)
        } else {
            self.fresh += usize::from(is_another);
            return Known::New;
        };
        let hint = "which is as much as a task function may: let child tasks do a part of it each";
        Known::TooLong { what: format!("{what}, {hint}") }
    }

    /// A call as it is to be recorded.
    pub fn entry(&mut self, made: &Made, target: &str, answer: Option<Answer>) -> Entry {
        let optional = made.optional || self.is_astray();
        let entry =
            Entry { call: made.call, target: target.to_owned(), ordinal: made.ordinal, optional, answer };
        self.bytes += entry.bytes();
        entry
    }

    /// Whether a rerun may go another way from here: something came to nothing, and was not made good.
    fn is_astray(&self) -> bool {
        self.free.values().any(|calls| !calls.is_empty())
    }

    /// A recorded call that this run has not asked for, and should have by its end.
    pub fn missing(&self) -> Option<&str> {
        let missing = self.entries.values().filter(|e| !e.optional && !self.asked.contains(&e.call));
        missing.min_by_key(|e| (e.ordinal, &*e.target)).map(|e| &*e.target)
    }

    /// A call has come to nothing, and nothing is recorded of it: an equal one is its repetition.
    pub fn failed(&mut self, call: CallId, ordinal: u32) {
        self.free.entry(call.hash).or_default().push((call.occurrence, ordinal));
    }

    /// The signal that answers a wait for this name, where one has come that answered none before. (That a batch
    /// has ended answers everyone who waits for it.)
    fn signal(&mut self, name: &str) -> Option<Signal> {
        let lasts = name.starts_with(JOINED);
        let free = |signal: &&Signal| signal.name == name && (lasts || !self.taken.contains(&signal.id));
        let signal = self.signals.iter().find(free)?.clone();
        self.taken.insert(signal.id);
        Some(signal)
    }

    /// What the n-th wait for a name comes to.
    ///
    /// Its time is never over in the run that begins it: a signal may have come since the journal was read,
    /// and the store, which is told of the wait, knows.
    pub fn await_signal(
        &mut self,
        name: &str,
        occurrence: u32,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> Awaited {
        if let Some(signal) = self.signal(name) {
            return Awaited::Signalled(signal);
        }
        let begun = self.begun(name, occurrence).is_some();
        let wait = self.wait(name, occurrence, until);
        if begun && wait.until.is_some_and(|until| until <= now) {
            return Awaited::TimedOut;
        }
        Awaited::Open(wait)
    }

    fn begun(&self, name: &str, occurrence: u32) -> Option<&Wait> {
        self.waits.iter().find(|wait| wait.name == name && wait.occurrence == occurrence)
    }

    /// The n-th wait for a name: one that was begun before lasts as long as it was to then.
    fn wait(&self, name: &str, occurrence: u32, until: Option<Timestamp>) -> Wait {
        let begun = self.begun(name, occurrence);
        let seen = self.signals.iter().filter(|signal| signal.name == name).count();
        Wait {
            name: name.to_owned(),
            occurrence,
            until: begun.map_or(until, |wait| wait.until),
            seen: u32::try_from(seen).unwrap_or(u32::MAX),
        }
    }
}

/// Counts one up, and says which it is.
fn next(n: &mut u32) -> u32 {
    *n = n.saturating_add(1);
    *n
}

/// Whether `name` may be a signal's.
///
/// # Errors
/// What a person reads.
pub fn check_signal_name(name: &str) -> Result<(), String> {
    let good = (1..=MAX_SIGNAL_NAME_BYTES).contains(&name.len())
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'));
    if good {
        return Ok(());
    }
    Err(format!(
        "a signal's name has 1 to {MAX_SIGNAL_NAME_BYTES} bytes: letters, digits, `_`, `-`, `.`, `:`"
    ))
}

/// The name of the signal that a batch has ended: it has a space, so that nobody else can send it.
pub fn joined(batch: TaskId) -> String {
    format!("{JOINED}{batch}")
}

/// With what the names of such signals begin.
pub const JOINED: &str = "joined ";

/// What a task says of itself while it runs.
#[derive(Debug, Clone)]
pub struct TaskNotes {
    /// Which.
    pub task: TaskId,
    /// When.
    pub at: Timestamp,
    /// How far it is, as every surface shows it; `None`: nothing new.
    pub progress: Option<Box<RawValue>>,
    /// Lines for its log.
    pub logs: Vec<LogLine>,
}

/// A line that a task wrote.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at: Timestamp,
    /// How grave.
    pub level: Level,
    /// What.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn hash(n: u8) -> [u8; 16] {
        [n; 16]
    }

    /// Makes these calls (target, input), each answered with its input.
    fn run(replay: &mut Replay, calls: &[(&str, u8)]) -> Vec<Entry> {
        let made = calls.iter().map(|(target, input)| {
            let made = replay.call(target, hash(*input));
            assert!(matches!(made.known, Known::New), "{target} {input}");
            replay.entry(&made, target, Some(Answer::Reply(raw(&input.to_string()))))
        });
        made.collect()
    }

    fn answers(replay: &mut Replay, calls: &[(&str, u8)]) -> Vec<String> {
        let answer = |(target, input): &(&str, u8)| match replay.call(target, hash(*input)).known {
            Known::Answered(Answer::Reply(body)) => body.get().to_owned(),
            Known::New => "new".to_owned(),
            Known::Diverged { .. } => "diverged".to_owned(),
            Known::TooLong { .. } => "too long".to_owned(),
            other => format!("{other:?}"),
        };
        calls.iter().map(answer).collect()
    }

    #[test]
    fn a_rerun_gets_what_was_recorded_whatever_the_order_between_targets() {
        let calls = [("tool:a", 1), ("tool:b", 2), ("tool:a", 3), ("tool:a", 1)];
        let entries = run(&mut Replay::default(), &calls);
        let again = || Replay::of(Journal { entries: entries.clone(), ..Journal::default() });
        assert_eq!(answers(&mut again(), &calls), ["1", "2", "3", "1"]);
        let otherwise =
            [("tool:a", 1), ("tool:a", 3), ("tool:a", 1), ("tool:b", 2), ("tool:c", 9), ("tool:a", 8)];
        assert_eq!(answers(&mut again(), &otherwise), ["1", "3", "1", "2", "new", "new"]);
    }

    #[test]
    fn a_rerun_that_goes_another_way_is_noticed() {
        let entries = run(&mut Replay::default(), &[("tool:a", 1), ("tool:b", 2)]);
        let again = || Replay::of(Journal { entries: entries.clone(), ..Journal::default() });
        assert_eq!(answers(&mut again(), &[("tool:a", 7)]), ["diverged"]);
        assert_eq!(
            answers(&mut again(), &[("tool:b", 2), ("tool:b", 2), ("tool:a", 2)]),
            ["2", "new", "diverged"]
        );
    }

    #[test]
    fn a_run_that_ends_without_what_was_recorded_is_noticed() {
        let entries = run(&mut Replay::default(), &[("tool:a", 1), ("tool:b", 2)]);
        let mut again = Replay::of(Journal { entries, ..Journal::default() });
        assert_eq!(again.missing(), Some("tool:a"));
        assert_eq!(answers(&mut again, &[("tool:c", 3), ("tool:b", 2)]), ["new", "2"]);
        assert_eq!(again.missing(), Some("tool:a"));
        assert_eq!(answers(&mut again, &[("tool:a", 1)]), ["1"]);
        assert_eq!(again.missing(), None);
    }

    #[test]
    fn what_came_after_a_call_that_failed_may_be_missing_until_that_is_made_good() {
        let mut first = Replay::default();
        let failed = first.call("tool:a", hash(1));
        first.failed(failed.call, failed.ordinal);
        let mut entries = run(&mut first, &[("tool:b", 2)]);
        entries.extend(run(&mut first, &[("tool:a", 1), ("tool:c", 3)]));
        let optional: Vec<_> = entries.iter().map(|e| (&*e.target, e.optional)).collect();
        assert_eq!(optional, [("tool:b", true), ("tool:a", false), ("tool:c", false)]);
        let mut again = Replay::of(Journal { entries, ..Journal::default() });
        assert_eq!(answers(&mut again, &[("tool:a", 1), ("tool:c", 3)]), ["1", "3"]);
        assert_eq!(again.missing(), None);
    }

    /// Two calls beside each other, of which the later one was answered first: the earlier is made again.
    #[test]
    fn a_call_that_was_not_answered_is_made_again() {
        let mut entries = run(&mut Replay::default(), &[("tool:a", 1), ("tool:a", 2)]);
        entries.remove(0);
        let mut again = Replay::of(Journal { entries: entries.clone(), ..Journal::default() });
        assert_eq!(answers(&mut again, &[("tool:a", 1), ("tool:a", 2)]), ["new", "2"]);
        entries[0].answer = None;
        let mut again = Replay::of(Journal { entries, ..Journal::default() });
        assert!(matches!(again.call("tool:a", hash(1)).known, Known::New));
        assert!(matches!(again.call("tool:a", hash(2)).known, Known::Begun));
    }

    #[test]
    fn a_call_that_failed_and_was_made_again_is_one_call() {
        let mut first = Replay::default();
        let failed = first.call("tool:a", hash(1));
        first.failed(failed.call, failed.ordinal);
        let entries = run(&mut first, &[("tool:a", 1), ("tool:a", 1)]);
        assert_eq!(entries[0].call, failed.call);
        let mut again = Replay::of(Journal { entries, ..Journal::default() });
        assert_eq!(answers(&mut again, &[("tool:a", 1), ("tool:a", 1), ("tool:a", 1)]), ["1", "1", "new"]);
    }

    #[test]
    fn a_function_makes_so_many_calls_and_no_more_in_all_its_runs() {
        let calls: Vec<_> = (0..MAX_CALLS).map(|n| ("tool:a", u8::try_from(n % 251).unwrap())).collect();
        let mut first = Replay::default();
        let (half, rest) = calls.split_at(MAX_CALLS / 2);
        let mut entries = run(&mut first, half);
        let failed = first.call("tool:a", hash(251));
        first.failed(failed.call, failed.ordinal);
        entries.extend(run(&mut first, &[("tool:a", 251)]));
        entries.extend(run(&mut first, &rest[1..]));
        assert_eq!(answers(&mut first, &[("tool:b", 1)]), ["too long"]);
        let mut again = Replay::of(Journal { entries, ..Journal::default() });
        let all = [half, &[("tool:a", 251)], &rest[1..], &[("tool:b", 1)]].concat();
        assert_eq!(answers(&mut again, &all).last().unwrap(), "too long");
    }

    #[test]
    fn no_more_is_recorded_than_a_rerun_can_read() {
        let long = || raw(&format!("\"{}\"", "x".repeat(MAX_JOURNAL_BYTES / 2)));
        // What others send to it does not count until it is taken.
        let send = || Signal { id: Uuid::now_v7(), name: "go".into(), body: long() };
        let signals = vec![send(), send(), send()];
        let mut first = Replay::of(Journal { signals: signals.clone(), ..Journal::default() });
        let made = first.call("wait go", hash(1));
        let signal = Some(Answer::Signal { id: signals[0].id, body: long() });
        let mut entries = vec![first.entry(&made, "wait go", signal)];
        let made = first.call("tool:a", hash(1));
        assert!(matches!(made.known, Known::New));
        entries.push(first.entry(&made, "tool:a", Some(Answer::Reply(long()))));
        assert_eq!(answers(&mut first, &[("tool:a", 2)]), ["too long"]);
        let mut again = Replay::of(Journal { entries, signals, waits: Vec::new() });
        assert!(
            matches!(again.call("tool:a", hash(1)).known, Known::Answered(_)),
            "what is recorded is answered"
        );
        assert_eq!(answers(&mut again, &[("tool:a", 2)]), ["too long"]);
    }

    #[test]
    fn a_signal_answers_one_wait() {
        let signal =
            |name: &str, body: &str| Signal { id: Uuid::now_v7(), name: name.into(), body: raw(body) };
        let signals = vec![signal("go", "1"), signal("stop", "2"), signal("go", "3")];
        let mut replay = Replay::of(Journal { signals: signals.clone(), ..Journal::default() });
        let bodies: Vec<_> =
            std::iter::from_fn(|| replay.signal("go")).map(|s| s.body.get().to_owned()).collect();
        assert_eq!(bodies, ["1", "3"]);
        let made = Replay::default().call("wait go", hash(1));
        let answer = Answer::Signal { id: signals[0].id, body: raw("1") };
        let entries = vec![Replay::default().entry(&made, "wait go", Some(answer))];
        let mut again = Replay::of(Journal { entries, signals, waits: Vec::new() });
        assert_eq!(again.signal("go").unwrap().body.get(), "3");
    }

    #[test]
    fn a_wait_that_has_no_time_is_put_to_the_store_once() {
        let now = Timestamp::UNIX_EPOCH;
        let mut first = Replay::default();
        let Awaited::Open(wait) = first.await_signal("go", 1, Some(now), now) else {
            panic!("a signal that came since the journal was read is lost");
        };
        let again = |signals| Replay::of(Journal { waits: vec![wait.clone()], signals, entries: Vec::new() });
        let later = Some(now + std::time::Duration::from_secs(9));
        assert!(matches!(again(Vec::new()).await_signal("go", 1, later, now), Awaited::TimedOut));
        let came = Signal { id: Uuid::now_v7(), name: "go".into(), body: raw("1") };
        assert!(matches!(again(vec![came]).await_signal("go", 1, later, now), Awaited::Signalled(_)));
    }

    #[test]
    fn answers_are_read_as_they_were_written() {
        let answers = [
            Answer::Reply(raw("null")),
            Answer::Refused(raw(r#"{"left":1}"#)),
            Answer::Signal { id: Uuid::now_v7(), body: raw("[1]") },
            Answer::TimedOut,
        ];
        for answer in answers {
            let text = serde_json::to_string(&answer).unwrap();
            let read: Answer = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
    }

    #[test]
    fn names_of_signals_are_plain() {
        assert!(check_signal_name("approved").is_ok() && check_signal_name("order:7.paid").is_ok());
        for bad in ["", "a b", "a/b", &"x".repeat(101)] {
            assert!(check_signal_name(bad).is_err(), "{bad}");
        }
    }
}
