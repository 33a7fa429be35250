//! The supervision report of one crash, in a form that is understood at a glance.

use std::time::Duration;

use super::record::{Paint, Record, escape};
use crate::model::{
    supervision::{CrashKind, CrashReport, Decision, restart_command},
    units::print_duration,
};

/// How long a panic's message may be on the console; the crash list has all of it.
const MESSAGE_CHARS: usize = 240;

/// What crashed, why and where; on which message; what was lost; what happens next. Never a
/// message's body. Several lines, without a line break at the end.
///
/// ```text
/// 14:05:06.789 ERRO agent.crashed tally/a  panicked: "boom" at src/tally.rs:12  → greenroom crashes show 0190
///              on    add 01af (18 bytes), crash 2 in a row
///              lost  nothing: state restored at version 41
///              next  restart 2 of 10 within 1m, in 5ms
/// ```
pub fn crash(report: &CrashReport, colour: bool) -> String {
    let record = Record::from(report.event());
    let paint = if colour { Paint::of(record.level) } else { Paint::NONE };
    let mut text = record.console_with(&headline(report), colour);
    for (label, words) in parts(report) {
        text.push_str(&format!("\n             {}{label:<4}{}  {words}", paint.dim, paint.off));
    }
    text
}

/// The same in one line, for those who count lines.
pub(super) fn crash_line(report: &CrashReport) -> String {
    let facts = parts(report)
        .iter()
        .fold(headline(report), |facts, (label, words)| format!("{facts}; {label} {words}"));
    Record::from(report.event()).console_with(&facts, false)
}

fn parts(report: &CrashReport) -> [(&'static str, String); 3] {
    [("on", on(report)), ("lost", escape(&report.lost())), ("next", next(report))]
}

/// Why, and where: the facts of the first line.
pub(super) fn headline(report: &CrashReport) -> String {
    let mut message: String = report.reason.message.chars().take(MESSAGE_CHARS).collect();
    if message.len() < report.reason.message.len() {
        message.push('…');
    }
    let what = match report.reason.kind {
        CrashKind::Panic => "panicked",
        CrashKind::Timeout => "ran past its deadline",
        CrashKind::Start => "could not start",
        CrashKind::State => "its state could not be kept",
    };
    let site = report.reason.site.as_ref().map(|site| format!(" at {}", escape(site))).unwrap_or_default();
    if message.is_empty() {
        format!("{what}{site}")
    } else {
        format!("{what}: \"{}\"{site}", escape(&message))
    }
}

fn on(report: &CrashReport) -> String {
    let mut words = match &report.message_type {
        Some(name) => escape(name),
        None => "no message".to_owned(),
    };
    if let Some(id) = &report.message_id {
        words.push_str(&format!(" {}", escape(id)));
    }
    match report.message_bytes {
        Some(1) => words.push_str(" (1 byte)"),
        Some(bytes) => words.push_str(&format!(" ({bytes} bytes)")),
        None => {}
    }
    if report.repeat > 1 {
        words.push_str(&format!(", crash {} in a row", report.repeat));
    }
    words
}

fn next(report: &CrashReport) -> String {
    let window = print_duration(report.within);
    match report.decision {
        Decision::Restart { attempt, delay } => {
            // Whole milliseconds are precise enough for a person.
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            let delay = print_duration(Duration::from_millis(millis));
            format!("restart {attempt} of {} within {window}, in {delay}", report.max_restarts)
        }
        Decision::Exceeded { attempts } => format!(
            "stopped: {attempts} restarts within {window} are the limit; {}",
            restart_command(&escape(&report.subject))
        ),
        Decision::Leave => "stays down: it is not to be restarted".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::supervision::CrashReason;

    pub(in crate::log) fn report() -> CrashReport {
        CrashReport {
            id: "0190".into(),
            at: "2026-11-03T14:05:06.789Z".parse().unwrap(),
            subject: "tally/a".into(),
            reason: CrashReason {
                kind: CrashKind::Panic,
                message: "boom".into(),
                site: Some("src/tally.rs:12".into()),
            },
            message_type: Some("add".into()),
            message_id: Some("01af".into()),
            message_bytes: Some(18),
            repeat: 2,
            version: Some(41),
            group: None,
            lost: None,
            decision: Decision::Restart { attempt: 2, delay: Duration::from_micros(5_300) },
            max_restarts: 10,
            within: Duration::from_secs(60),
        }
    }

    #[test]
    fn a_crash_is_told_in_four_lines() {
        let expected = "\
14:05:06.789 ERRO agent.crashed tally/a  panicked: \"boom\" at src/tally.rs:12  → greenroom crashes show 0190
             on    add 01af (18 bytes), crash 2 in a row
             lost  nothing: state restored at version 41
             next  restart 2 of 10 within 1m, in 5ms";
        assert_eq!(crash(&report(), false), expected);
    }

    #[test]
    fn the_end_of_the_line_says_what_a_person_can_do() {
        let mut report = report();
        report.decision = Decision::Exceeded { attempts: 10 };
        report.version = None;
        report.message_type = None;
        report.message_id = None;
        report.message_bytes = None;
        report.repeat = 1;
        report.reason = CrashReason { kind: CrashKind::Start, message: "no\ndisk".into(), site: None };
        let expected = "\
14:05:06.789 ERRO agent.crashed tally/a  could not start: \"no\\ndisk\"  → greenroom crashes show 0190
             on    no message
             lost  nothing: it had not committed yet, and starts afresh
             next  stopped: 10 restarts within 1m are the limit; greenroom agents restart tally/a";
        assert_eq!(crash(&report, false), expected);
    }

    #[test]
    fn a_long_message_is_cut_and_its_control_characters_are_harmless() {
        let mut report = report();
        report.reason.message = format!("\x1b[31m{}", "x".repeat(10_000));
        let text = crash(&report, false);
        assert!(text.len() < 700 && text.contains("\\u{1b}") && text.contains('…'));
        assert!(!text.contains('\x1b'));
    }
}
