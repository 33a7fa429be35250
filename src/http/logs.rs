//! `/logs`: the last records, and waiting for new ones.

use std::{collections::VecDeque, str::FromStr, time::Duration};

use actix_web::{HttpResponse, web::Data};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::{body::ok, params::Params, problem::Problem, server::Ctx};
use crate::{log::Line, model::event::Level};

/// How many records are given that were not asked for by number.
const TAIL: usize = 100;
/// The most that one answer holds.
const MAX_RECORDS: usize = 2_048;
/// The longest number of a record; each of so many digits is one.
const MAX_DIGITS: usize = 19;
/// The longest wait of one request.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Which records are wanted.
#[derive(Debug, Default)]
struct Wanted {
    level: Option<Level>,
    subject: Option<String>,
    /// Those after this one; else the last `tail`.
    after: Option<After>,
    tail: usize,
}

/// A record that somebody has seen: `BOOT:N`, or `N` of whatever boot this is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct After {
    boot: Option<String>,
    number: u64,
}

impl FromStr for After {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (boot, number) = text.split_once(':').map_or((None, text), |(boot, n)| (Some(boot), n));
        let is_number = number.len() <= MAX_DIGITS && number.bytes().all(|b| b.is_ascii_digit());
        if boot == Some("") || !is_number {
            return Err(());
        }
        Ok(Self { boot: boot.map(str::to_owned), number: number.parse().map_err(drop)? })
    }
}

/// `GET /logs?level=&subject=&tail=100&after=BOOT:N&wait=20s`.
///
/// Each item is the record's JSON line with its number as `seq`; `boot` and `last` name the one to go on from.
/// With `after`, at most `wait` passes until there is something. Of one that is another boot's, or that this
/// boot has not reached, all follows that is kept.
pub(super) async fn list(ctx: Data<Ctx>, params: Params) -> Result<HttpResponse, Problem> {
    let wanted = Wanted {
        level: params.parsed("level", "debug, info, warn, error or critical")?,
        subject: params.owned("subject")?,
        after: params.parsed("after", "a record's boot and number, BOOT:N")?,
        tail: {
            let (tail, n) = (params.parsed("tail", "a number")?, params.parsed("n", "a number")?);
            tail.or(n).unwrap_or(TAIL)
        },
    };
    let wait = params.duration("wait")?.unwrap_or_default().min(MAX_WAIT);
    let (kept, mut news) = ctx.logger.follow();
    let boot = ctx.logger.boot();
    let (mut items, mut last) = wanted.select(boot, &kept);
    if items.is_empty() && wanted.after.is_some() && !wait.is_zero() {
        let next = async {
            loop {
                match news.recv().await {
                    Ok(line) => {
                        last = line.number;
                        if wanted.takes(&line) {
                            items.push(item(&line));
                            return;
                        }
                    }
                    // Fallen behind or ended: the next request finds what the ring still holds.
                    Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                }
            }
        };
        tokio::select! {
            () = next => {}
            () = actix_web::rt::time::sleep(wait) => {}
            () = ctx.stop.cancelled() => {}
        }
    }
    ok(&json!({"items": items, "next_cursor": null, "boot": boot, "last": last}))
}

impl Wanted {
    fn takes(&self, line: &Line) -> bool {
        self.level.is_none_or(|least| line.level >= least)
            && self.subject.as_deref().is_none_or(|subject| &*line.subject == subject)
    }

    /// Those that are wanted, and the number to go on from.
    fn select(&self, boot: &str, kept: &[Line]) -> (Vec<Value>, u64) {
        let newest = kept.last().map_or(0, |line| line.number);
        let after = self.after.as_ref().map(|after| {
            let is_ours = after.boot.as_ref().is_none_or(|of| of == boot) && after.number <= newest;
            if is_ours { after.number } else { 0 }
        });
        let found =
            kept.iter().filter(|line| after.is_none_or(|after| line.number > after) && self.takes(line));
        let most = if after.is_some() { MAX_RECORDS } else { self.tail.min(MAX_RECORDS) };
        let mut lines: VecDeque<&Line> = VecDeque::new();
        for line in found {
            lines.push_back(line);
            if lines.len() > most {
                lines.pop_front();
            }
        }
        (lines.into_iter().map(item).collect(), newest)
    }
}

/// The record's line as JSON, with its number.
fn item(line: &Line) -> Value {
    let mut record: Value = serde_json::from_str(&line.json).unwrap_or_default();
    if let Value::Object(members) = &mut record {
        members.insert("seq".to_owned(), line.number.into());
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, level: Level, subject: &str) -> Line {
        Line { number, level, event: "e".into(), subject: subject.into(), json: r#"{"event":"e"}"#.into() }
    }

    fn numbers(wanted: &Wanted, kept: &[Line]) -> (Vec<u64>, u64) {
        let (items, last) = wanted.select("b2", kept);
        (items.iter().map(|item| item["seq"].as_u64().unwrap()).collect(), last)
    }

    #[test]
    fn the_tail_and_what_follows_are_found() {
        let kept = [line(3, Level::Info, "a/1"), line(4, Level::Error, "a/2"), line(5, Level::Warn, "a/1")];
        let all = Wanted { tail: 100, ..Wanted::default() };
        assert_eq!(numbers(&all, &kept), (vec![3, 4, 5], 5));
        assert_eq!(numbers(&Wanted { tail: 2, ..Wanted::default() }, &kept), (vec![4, 5], 5));
        assert_eq!(numbers(&Wanted { tail: 0, ..Wanted::default() }, &kept), (vec![], 5));
        let after = |text: &str| Wanted { after: Some(text.parse().unwrap()), ..Wanted::default() };
        for (seen, found) in [("4", vec![5]), ("5", vec![]), ("99", vec![3, 4, 5])] {
            assert_eq!(numbers(&after(seen), &kept), (found.clone(), 5), "{seen}");
            assert_eq!(numbers(&after(&format!("b2:{seen}")), &kept), (found, 5), "b2:{seen}");
        }
        let warn = Wanted { level: Some(Level::Warn), tail: 9, ..Wanted::default() };
        assert_eq!(numbers(&warn, &kept).0, [4, 5]);
        let subject = Wanted { subject: Some("a/1".into()), tail: 9, ..Wanted::default() };
        assert_eq!(numbers(&subject, &kept).0, [3, 5]);
        assert_eq!(numbers(&all, &[]), (vec![], 0));
    }

    /// The new boot's first records were never given to whoever had seen more of the old one's.
    #[test]
    fn a_record_of_an_earlier_boot_is_followed_by_all_that_is_kept() {
        let kept = [line(1, Level::Info, "a/1"), line(2, Level::Info, "a/1"), line(3, Level::Info, "a/1")];
        let after = Wanted { after: Some("b1:2".parse().unwrap()), ..Wanted::default() };
        assert_eq!(numbers(&after, &kept), (vec![1, 2, 3], 3));
        for wrong in ["b1:x", "b1:", ":1", "b1:b2:1", "+1"] {
            assert!(wrong.parse::<After>().is_err(), "{wrong}");
        }
    }
}
