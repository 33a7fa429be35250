//! The log as its readers see it.

use std::{collections::BTreeMap, fs, time::Duration};

use serde_json::json;

use super::{report::tests::report, *};
use crate::model::{
    group::Strategy,
    supervision::{CrashReport, Decision},
};

/// A console that tests can read; `gate` holds the writer back.
#[derive(Clone, Default)]
struct Console {
    text: Arc<Mutex<Vec<u8>>>,
    gate: Arc<Mutex<()>>,
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _open = self.gate.lock();
        self.text.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Console {
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.text.lock().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

fn on_console(format: Format) -> Rules {
    Rules { console: Transport { level: Level::Info, format }, ..Rules::default() }
}

fn compact(level: Level) -> Rules {
    Rules { console: Transport { level, format: Format::Compact }, ..Rules::at(level) }
}

fn start(format: Format) -> (Logger, Guard, Console) {
    let console = Console::default();
    let origin = Origin { node: "n1".into(), boot: "b1".into() };
    let options = Options { rules: on_console(format), origin, ..Options::default() };
    let (logger, guard) = Logger::start_on(Box::new(console.clone()), options).unwrap();
    (logger, guard, console)
}

fn sample(n: u64) -> Event {
    Event::new(Level::Info, event::TASK_SUCCEEDED, format!("task:{n}")).field("n", n)
}

/// The number behind `count=`.
fn count(line: &str) -> u64 {
    line.split_once("count=").unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_crash_is_a_report_for_people_and_one_line_for_machines() {
    let (logger, guard, console) = start(Format::Pretty);
    logger.crash(&report());
    drop(guard);
    assert_eq!(console.lines().join("\n"), crash_text(&report(), false));

    let (logger, guard, console) = start(Format::Compact);
    logger.crash(&report());
    drop(guard);
    assert_eq!(
        console.lines(),
        ["14:05:06.789 ERRO agent.crashed tally/a  panicked: \"boom\" at src/tally.rs:12; \
          on add 01af (18 bytes), crash 2 in a row; lost nothing: state restored at version 41; \
          next restart 2 of 10 within 1m, in 5ms  → greenroom crashes show 0190"]
    );

    let (logger, guard, console) = start(Format::Json);
    logger.crash(&report());
    drop(guard);
    let line: Value = serde_json::from_str(&console.lines()[0]).unwrap();
    assert_eq!(line["reason"]["site"], "src/tally.rs:12");
    assert_eq!(line["message_type"], "add");
    assert_eq!((&line["level"], &line["node"], &line["boot"]), (&"error".into(), &"n1".into(), &"b1".into()));
    assert_eq!(line["msg"], "agent crashed: panicked: \"boom\" at src/tally.rs:12");
    let next: Value = serde_json::from_str(&console.lines()[1]).unwrap();
    let told = ["event", "subject", "strategy", "attempt", "max", "within_ms", "delay_ms"].map(|f| &next[f]);
    let meant = json!(["restart.planned", "tally/a", "one_for_one", 2, 10, 60_000, 5]);
    assert_eq!(json!(told), meant);
    let exceeded = CrashReport { decision: Decision::Exceeded { attempts: 10 }, ..report() };
    let group = Some(("market".to_owned(), Strategy::OneForAll));
    for (report, to) in [(exceeded.clone(), "operator"), (CrashReport { group, ..exceeded }, "group:market")]
    {
        let (logger, guard, console) = start(Format::Json);
        logger.crash(&report);
        drop(guard);
        let next: Value = serde_json::from_str(&console.lines()[1]).unwrap();
        assert_eq!((&next["event"], &next["escalated_to"]), (&"restart.exceeded".into(), &to.into()));
    }
}

#[test]
fn ten_thousand_crashes_are_few_lines_and_none_is_forgotten() {
    let (logger, guard, console) = start(Format::Compact);
    for _ in 0..10_000 {
        logger.crash(&report());
    }
    drop(guard);
    let lines = console.lines();
    assert!(lines.len() <= 20, "{} lines", lines.len());
    let counted: u64 =
        lines.iter().filter(|line| line.contains("log.suppressed")).map(|line| count(line)).sum();
    let crashes = lines.iter().filter(|line| line.contains("agent.crashed tally/a")).count();
    assert_eq!(counted + crashes as u64, 10_000);
    assert!(lines.last().unwrap().ends_with("site=src/tally.rs:12"), "{lines:?}");
}

#[test]
fn what_is_decided_after_a_crash_obeys_its_own_level() {
    let events = |levels: &[&str]| {
        let (logger, guard, console) = start(Format::Json);
        let levels = levels.iter().map(|part| (format!("greenroom::{part}"), Level::Critical)).collect();
        logger.set_rules(&Rules { levels, ..on_console(Format::Json) });
        logger.crash(&report());
        logger.crash(&CrashReport { decision: Decision::Exceeded { attempts: 10 }, ..report() });
        drop(guard);
        let events: Vec<String> = console
            .lines()
            .iter()
            .map(|l| serde_json::from_str::<Value>(l).unwrap()["event"].as_str().unwrap().to_owned())
            .collect();
        let kept: Vec<String> = logger.recent().iter().map(|line| line.event.to_string()).collect();
        assert_eq!(kept, events);
        events
    };
    let (crashed, planned, exceeded) = ("agent.crashed", "restart.planned", "restart.exceeded");
    assert_eq!(events(&[]), [crashed, planned, crashed, exceeded]);
    assert_eq!(events(&["restart"]), [crashed, crashed]);
    assert_eq!(events(&["agent"]), [planned, exceeded]);
    assert_eq!(events(&["agent", "restart"]), [""; 0]);
}

#[test]
fn that_an_agent_is_not_started_again_is_told_also_in_a_storm() {
    for format in [Format::Pretty, Format::Compact, Format::Json] {
        let (logger, guard, console) = start(format);
        for _ in 0..1_000 {
            logger.crash(&report());
        }
        let last = CrashReport { decision: Decision::Exceeded { attempts: 10 }, ..report() };
        for _ in 0..100 {
            logger.crash(&last);
        }
        drop(guard);
        let told = console.lines().iter().filter(|line| line.contains("restart.exceeded")).count();
        assert_eq!(told, 100, "{format:?}");
    }
}

#[test]
fn levels_change_at_run_time_and_debug_is_not_limited() {
    let (logger, guard, console) = start(Format::Compact);
    let debug = || Event::new(Level::Debug, event::AGENT_STARTED, "tally/a");
    logger.emit(debug());
    let levels = BTreeMap::from([("greenroom::agent".to_owned(), Level::Debug)]);
    logger.set_rules(&Rules { levels, ..Rules::at(Level::Warn) });
    (0..20).for_each(|_| logger.emit(debug()));
    logger.emit(sample(1));
    assert!(!logger.wants(Level::Debug, event::TASK_STARTED));
    drop(guard);
    assert_eq!(console.lines().len(), 20);
}

#[test]
fn a_full_queue_drops_what_it_may_and_says_how_many() {
    let (logger, guard, console) = start(Format::Compact);
    let closed = console.gate.lock();
    let logging = slog::Logger::clone(&logger.slog());
    logger.set_rules(&compact(Level::Debug));
    for n in 0..6_000 {
        slog::debug!(logging, "line"; "n" => n);
    }
    let must = {
        let logger = logger.clone();
        std::thread::spawn(move || logger.crash(&report()))
    };
    drop(closed);
    must.join().unwrap();
    drop(guard);
    let text = console.lines().join("\n");
    assert!(text.contains("agent.crashed"), "an error waits for room");
    let written = console.lines().iter().filter(|line| line.contains("n=")).count() as u64;
    let dropped: u64 =
        console.lines().iter().filter(|line| line.contains("of=any")).map(|line| count(line)).sum();
    assert!(dropped > 0 && dropped + written == 6_000, "{dropped} + {written}");
}

#[test]
fn slog_records_keep_their_facts() {
    let (logger, guard, console) = start(Format::Json);
    let log = logger.slog().new(slog::o!("subject" => "tally/a"));
    slog::warn!(log, "it is {}", "late"; "event" => "mailbox.backlog", "depth" => 9u64, "ok" => true);
    slog::info!(log, "plain"; "error" => %"no\ndisk");
    slog::debug!(log, "not written");
    drop(guard);
    let lines: Vec<Value> = console.lines().iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["event"], &lines[0]["subject"]), (&"mailbox.backlog".into(), &"tally/a".into()));
    assert_eq!((&lines[0]["depth"], &lines[0]["ok"]), (&9.into(), &true.into()));
    assert_eq!((&lines[0]["msg"], &lines[1]["event"]), (&"it is late".into(), &"log".into()));
    assert_eq!(lines[1]["module"], "greenroom::log::tests");
}

#[test]
fn the_last_records_are_kept_and_followed_without_a_gap() {
    let logger = Logger::quiet(Level::Debug);
    let fact = |n: u64| Event::new(Level::Debug, event::TASK_STARTED, format!("task:{n}"));
    (1..=3_000).for_each(|n| logger.emit(fact(n)));
    let (seen, mut news) = logger.follow();
    assert_eq!((seen.len(), seen[0].number, seen[KEPT - 1].number), (KEPT, 953, 3_000));
    logger.emit(fact(3_001));
    let next = news.try_recv().unwrap();
    assert_eq!((next.number, &*next.subject), (3_001, "task:3001"));
    assert_eq!(serde_json::from_str::<Value>(&next.json).unwrap()["event"], "task.started");
}

#[test]
fn the_file_takes_json_and_is_put_aside_when_it_has_grown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs/greenroom.log");
    let file = FileOptions { path: path.clone(), max_size: 4096, keep: 2 };
    let options = Options { file: Some(file), rules: compact(Level::Debug), ..Options::default() };
    let console = Console::default();
    let (logger, guard) = Logger::start_on(Box::new(console.clone()), options).unwrap();
    for n in 0..200 {
        logger.emit(Event::new(Level::Debug, event::TASK_STARTED, format!("task:{n}")));
    }
    drop(guard);
    let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!((2..=3).contains(&files.len()), "{files:?}");
    for file in &files {
        for line in fs::read_to_string(file).unwrap().lines() {
            assert!(serde_json::from_str::<Value>(line).unwrap()["ts"].is_i64());
        }
    }
    assert!(console.lines()[0].contains("DEBG task.started task:0"), "{:?}", console.lines()[0]);
}

/// Console and file at once: what each has written of the same records.
fn on_both(rules: &Rules, later: Option<&Rules>, log: impl Fn(&Logger)) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("greenroom.log");
    let file = FileOptions { path: path.clone(), max_size: 1 << 30, keep: 1 };
    let console = Console::default();
    let options = Options { file: Some(file), rules: rules.clone(), ..Options::default() };
    let (logger, guard) = Logger::start_on(Box::new(console.clone()), options).unwrap();
    log(&logger);
    if let Some(later) = later {
        logger.set_rules(later);
        log(&logger);
    }
    drop(guard);
    (console.lines().join("\n"), fs::read_to_string(path).unwrap_or_default())
}

#[test]
fn console_and_file_have_each_their_own_level_and_format() {
    let (warn, debug) = (Level::Warn, Level::Debug);
    let at = |level, format| Transport { level, format };
    let log = |logger: &Logger| {
        logger.emit(Event::new(Level::Debug, event::TASK_STARTED, "task:1"));
        logger.emit(Event::new(Level::Warn, event::STORE_DOWN, "store"));
    };
    let rules =
        Rules { console: at(warn, Format::Json), file: at(debug, Format::Compact), ..Rules::default() };
    let (console, file) = on_both(&rules, None, log);
    let line: Value = serde_json::from_str(&console).unwrap();
    assert_eq!(line["event"], "store.down", "it alone, as JSON");
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!(lines.len(), 2, "{file}");
    assert!(lines[0].contains("DEBG task.started task:1") && lines[1].contains("WARN store.down"), "{file}");

    // the other way round, while it runs
    let other = Rules { console: at(debug, Format::Compact), file: at(warn, Format::Json), ..rules.clone() };
    let (console, file) = on_both(&rules, Some(&other), log);
    let told = |text: &str| text.matches("task.started").count();
    assert_eq!((told(&console), told(&file)), (1, 1), "{console}\n{file}");
    assert!(console.lines().next().unwrap().starts_with('{'), "{console}");
    assert!(file.lines().last().unwrap().starts_with('{'), "{file}");
}

#[test]
fn rules_for_modules_and_subjects_hold_on_console_and_file() {
    let named = |name: &str, level| BTreeMap::from([(name.to_owned(), level)]);
    let rules = Rules {
        console: Transport { level: Level::Critical, format: Format::Compact },
        file: Transport { level: Level::Debug, format: Format::Json },
        levels: named("greenroom::task", Level::Info),
        subjects: named("task:1", Level::Debug),
    };
    let (console, file) = on_both(&rules, None, |logger| {
        for subject in ["task:1", "task:2"] {
            logger.emit(Event::new(Level::Debug, event::TASK_STARTED, subject));
        }
        logger.emit(Event::new(Level::Info, event::TASK_SUCCEEDED, "task:2"));
        logger.emit(Event::new(Level::Debug, event::AGENT_STARTED, "tally/a"));
    });
    let told = |text: &str| {
        let of =
            |line: &str| ["task:1", "task:2", "tally/a"].into_iter().find(|s| line.contains(*s)).unwrap();
        text.lines().map(of).collect::<Vec<_>>()
    };
    assert_eq!(told(&console), ["task:1", "task:2"], "{console}");
    assert_eq!(told(&file), ["task:1", "task:2", "tally/a"], "{file}");
}

#[test]
fn a_crash_is_written_on_each_as_its_level_and_format_have_it() {
    let critical = Transport { level: Level::Critical, format: Format::Pretty };
    let info = Transport { level: Level::Info, format: Format::Compact };
    let rules = Rules { console: critical, file: info, ..Rules::default() };
    let (console, file) = on_both(&rules, None, |logger| logger.crash(&report()));
    assert_eq!((console.as_str(), file.lines().count()), ("", 1), "{file}");
    assert!(file.contains("agent.crashed tally/a  panicked"), "{file}");
    let json = Transport { level: Level::Info, format: Format::Json };
    let (console, file) =
        on_both(&Rules { console: info, file: json, ..rules }, None, |logger| logger.crash(&report()));
    assert_eq!((console.lines().count(), file.lines().count()), (1, 2), "{console}\n{file}");
}

#[test]
fn crashes_and_what_operators_did_wait_for_room_whatever_is_written_beside() {
    let info = Transport { level: Level::Info, format: Format::Compact };
    let debug = Transport { level: Level::Debug, format: Format::Json };
    for rules in [
        Rules { console: info, file: debug, ..Rules::default() },
        Rules { console: debug, file: info, ..Rules::default() },
    ] {
        let (console, file) = on_both(&rules, None, |logger| {
            let flood = logger.slog();
            for round in 0..20 {
                (0..1_000).for_each(|n| slog::debug!(flood, "line"; "n" => n));
                logger.emit(Event::new(Level::Info, event::OPERATOR_ACTED, "kind").field("round", round));
            }
            logger.crash(&report());
        });
        for text in [console, file] {
            let told = |event: &str| text.lines().filter(|line| line.contains(event)).count();
            let last = text.lines().last();
            assert_eq!((told("operator.acted"), told("agent.crashed")), (20, 1), "{last:?}");
        }
    }
}

#[test]
fn nothing_blocks_or_panics_after_the_end() {
    let (logger, guard, _console) = start(Format::Compact);
    drop(guard);
    let before = Instant::now();
    logger.crash(&report());
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_console_that_takes_nothing_holds_nobody_for_ever() {
    let (logger, guard, console) = start(Format::Compact);
    let closed = console.gate.lock();
    logger.set_rules(&compact(Level::Debug));
    for n in 0..6_000 {
        logger.emit(Event::new(Level::Debug, event::TASK_STARTED, format!("task:{n}")));
    }
    let error = || Event::new(Level::Error, event::STORE_DOWN, "store");
    let time = |step: &dyn Fn()| {
        let before = Instant::now();
        step();
        before.elapsed()
    };
    assert!(time(&|| logger.emit(error())) >= output::ROOM_TIMEOUT, "an error waits for room");
    assert!(time(&|| logger.emit(error())) < output::ROOM_TIMEOUT, "one wait is enough to know");
    drop(guard);
    drop(closed);
}

/// One writer served both: a stopped terminal stopped the file too.
#[test]
fn a_console_that_takes_nothing_does_not_hold_up_the_file() {
    let (nobody_reads, console) = io::pipe().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("greenroom.log");
    let file = FileOptions { path: path.clone(), max_size: 1 << 30, keep: 1 };
    let options = Options { file: Some(file), rules: compact(Level::Debug), ..Options::default() };
    let (logger, guard) = Logger::start_on(Box::new(console), options).unwrap();
    let figures = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let in_file = |event: &str| {
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.lines().filter(|line| line.contains(event)).count()
    };
    metrics::with_local_recorder(&figures, || {
        // The pipe is full long before the queue is. What the file has written makes room for the next.
        for n in 1..=10_000 {
            logger.emit(Event::new(Level::Debug, event::TASK_STARTED, format!("task:{n}")));
            while n % 2_000 == 0 && in_file("task.started") < n {
                std::thread::yield_now();
            }
        }
        for n in 0..100 {
            logger.emit(Event::new(Level::Info, event::OPERATOR_ACTED, "kind").field("n", n));
        }
        logger.crash(&report());
    });
    drop(guard);
    drop(nobody_reads);
    assert_eq!(
        [in_file("task.started"), in_file("operator.acted"), in_file("agent.crashed")],
        [10_000, 100, 1]
    );
    let text = fs::read_to_string(&path).unwrap();
    let lost: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["event"] == "log.suppressed")
        .collect();
    assert!(!lost.is_empty() && lost.iter().all(|line| line["transport"] == "console"), "{lost:?}");
    let lost: u64 = lost.iter().map(|line| line["count"].as_u64().unwrap()).sum();
    assert!(
        (3_000..10_101).contains(&lost),
        "the console's losses are counted, and no notice of them: {lost}"
    );
    let counted = format!("greenroom_log_records_dropped_total {lost}\n");
    assert!(figures.handle().render().contains(&counted), "{}", figures.handle().render());
}

#[test]
fn subjects_of_one_kind_share_a_limit() {
    for (subject, kind) in
        [("tally/a", "tally"), ("task:1", "task"), ("tool:fs.read", "tool:fs.read"), ("log", "log")]
    {
        assert_eq!(kind_of(&Event::new(Level::Info, event::TASK_STARTED, subject)), kind);
    }
}

#[test]
fn records_of_other_crates_come_in_from_warn_up() {
    let logger = Logger::quiet(Level::Info);
    let bridge = Bridge(logger.clone());
    for (target, level) in [
        ("hyper::client", ::log::Level::Info),
        ("hyper::client", ::log::Level::Warn),
        ("greenroom::store", ::log::Level::Info),
        ("greenroom::store", ::log::Level::Debug),
    ] {
        let args = format_args!("text");
        ::log::Log::log(&bridge, &::log::Record::builder().args(args).target(target).level(level).build());
    }
    let lines = logger.recent();
    assert_eq!(lines.iter().map(|l| l.level).collect::<Vec<_>>(), [Level::Warn, Level::Info]);
    assert!(lines[0].json.contains("\"module\":\"hyper::client\""));
}
