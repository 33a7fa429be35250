//! Schedule specs: cron with an optional time zone, or an interval.

use std::{fmt, str::FromStr, time::Duration};

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::model::units::{UnitError, parse_duration};

/// The most that is written.
const MAX_BYTES: usize = 256;
/// Lists of so many times of day are told apart; longer ones are taken for what comes at intervals.
const MAX_TIMES: usize = 96;
/// The shortest interval.
const LEAST: Duration = Duration::from_secs(1);
/// The longest: what is longer is written as cron.
const MAX_INTERVAL: Duration = Duration::from_secs(366 * 86_400);

/// What is wrong with a specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Neither cron nor an interval.
    #[error(
        "`{0}` is neither cron (`0 3 * * *` or, with seconds first, `30 0 3 * * *`, then perhaps a time zone such as `Europe/Berlin`) nor an interval (`every 10m`)"
    )]
    Shape(String),
    /// A field of the cron expression.
    #[error("`{cron}` cannot be read: {why}")]
    Cron {
        /// The expression without its time zone.
        cron: String,
        /// Why.
        why: String,
    },
    /// The time zone is none.
    #[error("`{0}` is no time zone: write one of the IANA names, such as `Europe/Berlin`")]
    Zone(String),
    /// It never comes.
    #[error("`{0}` names a time that never comes")]
    Never(String),
    /// No duration stands behind `every`.
    #[error(transparent)]
    Duration(#[from] UnitError),
    /// The interval is too short, too long, or not of whole seconds.
    #[error("an interval is of whole seconds, from 1s to 366d")]
    Interval,
}

/// When: cron with 5 fields, or 6 with seconds first, and an IANA time zone behind it (UTC when there is
/// none); or an interval, `every 10m`.
///
/// A cron expression means the wall clock of its time zone. Where that is set forward, a time of day that
/// is left out comes at the first moment after the gap; where it is set back, a time of day comes once, at
/// the first of its two moments. What names no times of day but repeats within the hour or the day
/// (`*/10 * * * *`, `0 1-5 * * *`) follows the time that passes: it leaves a gap out, and comes in both of
/// two equal hours.
///
/// Intervals are counted from 1970 on: those of one length come together, on every node and after every
/// restart.
#[derive(Debug, Clone)]
pub struct Spec {
    text: String,
    when: When,
}

#[derive(Debug, Clone)]
enum When {
    Every(i64),
    /// The union of these, in a time zone.
    Cron(Vec<Cron>, TimeZone),
}

impl Spec {
    /// The first nominal time after `at`; `None` where the calendar ends before. Whole seconds.
    pub fn next(&self, at: Timestamp) -> Option<Timestamp> {
        // a part of a second that has begun is over
        let second = at.as_second() - i64::from(at.subsec_nanosecond() < 0);
        match &self.when {
            When::Every(every) => {
                let next = second.div_euclid(*every).checked_add(1)?.checked_mul(*every)?;
                Timestamp::from_second(next).ok()
            }
            When::Cron(all, zone) => {
                let at = Timestamp::from_second(second).ok()?;
                all.iter().filter_map(|cron| next_of(cron, zone, at)).min()
            }
        }
    }

    /// Whether there is any nominal time, at whatever moment it is asked.
    fn ever_comes(&self) -> bool {
        match &self.when {
            When::Every(_) => true,
            // they differ in the time of day, and there is none that no day has
            When::Cron(all, zone) => {
                all.first().is_some_and(|cron| next_of(cron, zone, Timestamp::UNIX_EPOCH).is_some())
            }
        }
    }

    /// The first nominal times after `at`.
    pub fn upcoming(&self, at: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.next(at), |at| self.next(*at))
    }

    /// Of the nominal times from `from`, which is one, up to `now`, the first of the last `count`; `from`
    /// itself where there are fewer. Costs some hundred steps, however many there are.
    pub(super) fn last(&self, count: usize, from: Timestamp, now: Timestamp) -> Timestamp {
        let reaches = |at: Timestamp| self.upcoming(at).nth(count).is_some_and(|beyond| beyond <= now);
        let just_before = from - SignedDuration::from_secs(1);
        if !reaches(just_before) {
            return from;
        }
        // more than `count` come after `low`, and no more than that after `high`
        let (mut low, mut high) = (just_before.as_second(), now.as_second());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match Timestamp::from_second(middle) {
                Ok(at) if reaches(at) => low = middle,
                _ => high = middle,
            }
        }
        Timestamp::from_second(high).ok().and_then(|at| self.next(at)).unwrap_or(from)
    }
}

fn next_of(cron: &Cron, zone: &TimeZone, at: Timestamp) -> Option<Timestamp> {
    let find =
        |at: Timestamp, inclusive| cron.find_next_occurrence(&at.to_zoned(zone.clone()), inclusive).ok();
    // it is not looked across a day that a place leaves out, as Samoa did in 2011: behind that it is
    let behind = || find(zone.following(at).next()?.timestamp(), true);
    Some(find(at, false).or_else(behind)?.timestamp())
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let shown = || text.chars().take(64).filter(|c| !c.is_control()).collect::<String>();
        if text.len() > MAX_BYTES {
            return Err(SpecError::Shape(shown()));
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let when = match words.as_slice() {
            ["every", duration @ ..] if !duration.is_empty() => interval(&duration.join(" "))?,
            [fields @ .., zone] if (5..=6).contains(&fields.len()) && is_zone(zone) => cron(fields, zone)?,
            fields if (5..=6).contains(&fields.len()) => cron(fields, "UTC")?,
            [nickname] if nickname.starts_with('@') => cron(&words, "UTC")?,
            [nickname, zone] if nickname.starts_with('@') => cron(&[*nickname], zone)?,
            _ => return Err(SpecError::Shape(shown())),
        };
        let spec = Self { text: words.join(" "), when };
        if spec.ever_comes() { Ok(spec) } else { Err(SpecError::Never(spec.text)) }
    }
}

fn interval(duration: &str) -> Result<When, SpecError> {
    let every = parse_duration(duration)?;
    if every.subsec_nanos() != 0 || !(LEAST..=MAX_INTERVAL).contains(&every) {
        return Err(SpecError::Interval);
    }
    Ok(When::Every(i64::try_from(every.as_secs()).map_err(|_| SpecError::Interval)?))
}

/// Whether a word can be no field of a cron expression, so that it is meant for a time zone.
fn is_zone(word: &str) -> bool {
    let names = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let upper = word.to_ascii_uppercase();
    let is_day = names.iter().any(|day| upper.trim_start_matches('+').starts_with(day));
    word.starts_with(|c: char| c.is_ascii_alphabetic()) && upper != "L" && !is_day
}

fn cron(fields: &[&str], zone: &str) -> Result<When, SpecError> {
    let zone = TimeZone::get(zone).map_err(|_| SpecError::Zone(zone.to_owned()))?;
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let times = times_of_day(fields).unwrap_or_else(|| vec![fields.join(" ")]);
    let all = times.into_iter().map(|cron| match parser.parse(&cron) {
        Ok(parsed) => Ok(parsed),
        Err(e) => Err(SpecError::Cron { cron: fields.join(" "), why: e.to_string() }),
    });
    Ok(When::Cron(all.collect::<Result<_, _>>()?, zone))
}

/// A list of times of day (`0,30 2,14 * * *`) as one expression each, so that a change of the clock treats
/// each of them as a time of day.
fn times_of_day(fields: &[&str]) -> Option<Vec<String>> {
    let is_list = |field: &&str| field.bytes().all(|b| b.is_ascii_digit() || b == b',');
    let (clock, calendar) = fields.split_at_checked(fields.len().checked_sub(3)?)?;
    if clock.is_empty() || !clock.iter().all(is_list) {
        return None;
    }
    let mut all = vec![String::new()];
    for field in clock {
        let with = |begun: &String| field.split(',').map(|n| format!("{begun}{n} ")).collect::<Vec<_>>();
        all = all.iter().flat_map(with).collect();
        if all.len() > MAX_TIMES {
            return None;
        }
    }
    Some(all.into_iter().map(|clock| clock + &calendar.join(" ")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn comes(spec: &str, after: &str) -> Vec<String> {
        let spec: Spec = spec.parse().unwrap();
        spec.upcoming(at(after)).take(3).map(|at| at.to_string()).collect()
    }

    fn wrong(spec: &str) -> String {
        spec.parse::<Spec>().unwrap_err().to_string()
    }

    #[test]
    fn cron_has_minutes_or_seconds_and_a_time_zone_or_utc() {
        assert_eq!(
            comes("0 3 * * *", "2026-07-01T03:00:00Z"),
            ["2026-07-02T03:00:00Z", "2026-07-03T03:00:00Z", "2026-07-04T03:00:00Z"]
        );
        assert_eq!(comes("0 3 * * * Europe/Berlin", "2026-07-01T12:00:00Z")[0], "2026-07-02T01:00:00Z");
        assert_eq!(
            comes("*/20 * * * * *", "2026-07-01T12:00:05.25Z"),
            ["2026-07-01T12:00:20Z", "2026-07-01T12:00:40Z", "2026-07-01T12:01:00Z"]
        );
        assert_eq!(comes("15 0 3 * * MON Asia/Tokyo", "2026-07-01T12:00:00Z")[0], "2026-07-05T18:00:15Z");
        assert_eq!(comes("0 0 L * mon-fri", "2026-07-27T00:00:00Z")[0], "2026-07-28T00:00:00Z");
        assert_eq!(comes("@daily Europe/Berlin", "2026-07-01T12:00:00Z")[0], "2026-07-01T22:00:00Z");
    }

    #[test]
    fn intervals_are_counted_from_1970() {
        assert_eq!(
            comes("every 10m", "2026-07-01T12:03:00.5Z"),
            ["2026-07-01T12:10:00Z", "2026-07-01T12:20:00Z", "2026-07-01T12:30:00Z"]
        );
        assert_eq!(comes("every 1d", "2026-07-01T00:00:00Z")[0], "2026-07-02T00:00:00Z");
        assert_eq!(comes("every 1h 30m", "1969-12-31T23:59:59.5Z")[0], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (spec, told) in [
            ("", "neither cron"),
            ("0 3 * *", "neither cron"),
            ("0 3 * * * * * UTC", "neither cron"),
            ("0 3 * * * Europe/Nowhere", "no time zone"),
            ("@daily Nowhere", "no time zone"),
            ("61 * * * *", "`61 * * * *` cannot be read"),
            ("0 0 * FOO *", "cannot be read"),
            ("0 0 30 2 *", "never comes"),
            ("0 0 31 2,4,6,9,11 * Europe/Berlin", "never comes"),
            ("every 10", "no unit"),
            ("every 1500ms", "whole seconds"),
            ("every 0s", "whole seconds"),
            ("every 400d", "whole seconds"),
        ] {
            let said = wrong(spec);
            assert!(said.contains(told), "{spec}: {said}");
        }
        assert!(wrong(&"*".repeat(1_000)).len() < 400);
    }

    #[test]
    fn a_time_of_day_in_a_gap_comes_once_right_after_it() {
        // in Berlin the hour from two to three is left out on the 29th of March
        for spec in ["30 2 * * * Europe/Berlin", "15,30 2 * * * Europe/Berlin", "0 30 2 * * * Europe/Berlin"]
        {
            let spec: Spec = spec.parse().unwrap();
            let day: Vec<_> = spec
                .upcoming(at("2026-03-28T12:00:00Z"))
                .take_while(|t| *t < at("2026-03-29T12:00:00Z"))
                .collect();
            assert_eq!(day, [at("2026-03-29T01:00:00Z")], "{spec}");
        }
        // midnight itself, in São Paulo
        assert_eq!(comes("0 0 * * * America/Sao_Paulo", "2018-11-03T12:00:00Z")[0], "2018-11-04T03:00:00Z");
    }

    #[test]
    fn a_time_of_day_that_comes_twice_is_taken_once() {
        // in Berlin the hour from two to three comes twice on the 25th of October
        for (spec, times) in [("30 2 * * * Europe/Berlin", 1), ("0,30 2,14 * * * Europe/Berlin", 4)] {
            let spec: Spec = spec.parse().unwrap();
            let day: Vec<_> = spec
                .upcoming(at("2026-10-24T22:00:00Z"))
                .take_while(|t| *t < at("2026-10-25T23:00:00Z"))
                .collect();
            assert_eq!(day.len(), times, "{spec}: {day:?}");
        }
        assert_eq!(
            comes("30 2 * * * Europe/Berlin", "2026-10-24T12:00:00Z")[..2],
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        // also where it is asked between the two
        assert_eq!(comes("30 2 * * * Europe/Berlin", "2026-10-25T00:45:00Z")[0], "2026-10-26T01:30:00Z");
    }

    #[test]
    fn what_repeats_follows_the_time_that_passes() {
        for (spec, begin, end, times) in [
            ("*/30 * * * * Europe/Berlin", "2026-10-24T21:59:59Z", "2026-10-25T23:00:00Z", 50),
            ("*/30 * * * * Europe/Berlin", "2026-03-28T22:59:59Z", "2026-03-29T22:00:00Z", 46),
            ("every 30m", "2026-10-24T21:59:59Z", "2026-10-25T23:00:00Z", 50),
        ] {
            let spec: Spec = spec.parse().unwrap();
            let day = spec.upcoming(at(begin)).take_while(|t| *t < at(end));
            assert_eq!(day.count(), times, "{spec}");
        }
    }

    #[test]
    fn a_day_that_a_place_leaves_out_is_gone_past() {
        // Samoa had no 30th of December
        assert_eq!(comes("0 12 * * * Pacific/Apia", "2011-12-30T00:00:00Z")[0], "2011-12-30T22:00:00Z");
    }

    #[test]
    fn the_last_of_many_are_found_without_a_walk() {
        let spec: Spec = "* * * * * *".parse().unwrap();
        let (from, now) = (at("1996-07-01T00:00:00Z"), at("2026-07-01T12:00:00.5Z"));
        assert_eq!(spec.last(1, from, now), at("2026-07-01T12:00:00Z"));
        assert_eq!(spec.last(100, from, now), at("2026-07-01T11:58:21Z"));
        assert_eq!(spec.last(100, at("2026-07-01T11:59:00Z"), now), at("2026-07-01T11:59:00Z"));
        assert_eq!(spec.last(1, at("2026-07-01T12:00:00Z"), now), at("2026-07-01T12:00:00Z"));
        let rare: Spec = "0 0 29 2 *".parse().unwrap();
        assert_eq!(rare.last(1, at("1996-02-29T00:00:00Z"), now), at("2024-02-29T00:00:00Z"));
        assert_eq!(rare.last(2, at("1996-02-29T00:00:00Z"), now), at("2020-02-29T00:00:00Z"));
    }
}
