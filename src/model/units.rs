//! Durations and sizes as text: `"30s"`, `"1h30m"`, `"64MiB"`; times to the millisecond.
//!
//! A bare number is refused, because nobody can see what it counts. Config structs use the serde
//! modules: `#[serde(with = "units::duration")]`, `units::size`, and for what goes out as an integer
//! named `…_ms`, `units::millis`. What tells times has them written by [`moment`].

use std::{fmt, time::Duration};

use jiff::Timestamp;

/// What is wrong with a duration or a size, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A number alone.
    #[error("`{number}` has no unit: write \"{number}{example}\"")]
    NoUnit {
        /// The number.
        number: String,
        /// A unit that may have been meant.
        example: &'static str,
    },
    /// Not a duration at all.
    #[error("`{0}` is not a duration: write it like \"30s\", \"5ms\" or \"1h30m\" (units: d h m s ms us ns)")]
    Duration(String),
    /// Not a size at all.
    #[error("`{0}` is not a size: write it like \"64MiB\", \"10MB\" or \"512B\"")]
    Size(String),
    /// Longer or larger than can be represented.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// Units of duration, longest first, in nanoseconds.
const TIMES: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of size, the binary ones first, in the order in which a size tries to be printed.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// What [`parse_duration`] reads, as a pattern: numbers that can be represented, without white space around.
pub const DURATION_PATTERN: &str = "(0|[0-9]{1,9}(d|h|m|s|ms|us|ns)( *[0-9]{1,9}(d|h|m|s|ms|us|ns))*)";
/// What [`parse_size`] reads, likewise.
pub const SIZE_PATTERN: &str = "(0|[0-9]{1,6} *(([tT]|[gG]|[mM]|[kK])[iI]?)?[bB])";

/// Reads a duration such as `30s`, `5ms`, `24h` or `1h30m`; `0` needs no unit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let bad = || UnitError::Duration(text.to_owned());
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(Duration::ZERO);
    }
    if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
        return Err(UnitError::NoUnit { number: trimmed.to_owned(), example: "s" });
    }
    let mut rest = trimmed;
    let mut nanos: u128 = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let (number, after) = split_digits(rest).ok_or_else(bad)?;
        let unit_len = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at_checked(unit_len).ok_or_else(bad)?;
        let (_, factor) = TIMES.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        let count: u128 = number.parse().map_err(|_| UnitError::TooLarge(text.to_owned()))?;
        nanos = count
            .checked_mul(*factor)
            .and_then(|n| nanos.checked_add(n))
            .ok_or_else(|| UnitError::TooLarge(text.to_owned()))?;
        rest = after.trim_start();
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| UnitError::TooLarge(text.to_owned()))?;
    // Below a second by construction, so the conversion cannot fail.
    let below = u32::try_from(nanos % 1_000_000_000).unwrap_or(0);
    Ok(Duration::new(seconds, below))
}

/// Writes a duration so that [`parse_duration`] reads the same one: `1h30m`, `5ms`, `0s`.
pub fn print_duration(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in TIMES {
        let count = nanos / factor;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            nanos %= factor;
        }
    }
    text
}

/// Reads a size such as `64MiB`, `10MB` or `512B`; the unit may be in any case, `0` needs none.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let bad = || UnitError::Size(text.to_owned());
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(0);
    }
    let (number, unit) = split_digits(trimmed).ok_or_else(bad)?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Err(UnitError::NoUnit { number: number.to_owned(), example: "B" });
    }
    let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(bad)?;
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(*factor))
        .ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// Writes a size so that [`parse_size`] reads the same one, in the largest unit that divides it.
pub fn print_size(bytes: u64) -> String {
    let unit = SIZES.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// Digits (at least one) and what follows them.
fn split_digits(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 { None } else { text.split_at_checked(digits) }
}

/// Reads text with a unit, and answers bare numbers with advice.
struct WithUnit<T> {
    parse: fn(&str) -> Result<T, UnitError>,
    example: &'static str,
    expecting: &'static str,
}

impl<T> serde::de::Visitor<'_> for WithUnit<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        if number == 0 {
            return self.visit_str("0");
        }
        Err(E::custom(UnitError::NoUnit { number: number.to_string(), example: self.example }))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        if number == 0 {
            return self.visit_str("0");
        }
        Err(E::custom(UnitError::NoUnit { number: number.to_string(), example: self.example }))
    }
}

/// `#[serde(with = "units::duration")]`: a [`Duration`] as text with units.
pub mod duration {
    use super::*;

    /// Writes it as text.
    pub fn serialize<S: serde::Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&print_duration(*value))
    }

    /// Reads it from text.
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let expecting = "a duration such as \"30s\"";
        d.deserialize_any(WithUnit { parse: parse_duration, example: "s", expecting })
    }
}

/// `#[serde(with = "units::size")]`: a count of bytes as text with a unit.
pub mod size {
    use super::*;

    /// Writes it as text.
    pub fn serialize<S: serde::Serializer>(value: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&print_size(*value))
    }

    /// Reads it from text.
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        let expecting = "a size such as \"64MiB\"";
        d.deserialize_any(WithUnit { parse: parse_size, example: "B", expecting })
    }
}

/// `#[serde(default, with = "units::duration_option")]`: a duration that need not be there.
pub mod duration_option {
    use super::*;

    /// Writes it as text, or as nothing.
    pub fn serialize<S: serde::Serializer>(value: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => s.serialize_some(&print_duration(*value)),
            None => s.serialize_none(),
        }
    }

    /// Reads it from text.
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(d).map(Some)
    }
}

/// `#[serde(with = "units::millis")]`: a [`Duration`] as an integer of milliseconds, for outputs
/// named `…_ms`.
pub mod millis {
    use super::*;
    use serde::Deserialize;

    /// Writes whole milliseconds.
    pub fn serialize<S: serde::Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    /// Reads whole milliseconds.
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_millis)
    }
}

/// A time to the millisecond, as it is told: what clocks and stores know beyond that is nobody's business.
pub fn to_the_millisecond(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

/// `#[serde(serialize_with = "units::moment")]`: a time, or some, to the millisecond.
///
/// # Errors
/// The serializer's.
pub fn moment<S: serde::Serializer>(at: &impl Moments, s: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&at.told(), s)
}

/// What [`moment`] writes.
pub trait Moments: Sized + serde::Serialize {
    /// The same to the millisecond.
    #[must_use]
    fn told(&self) -> Self;
}

impl Moments for Timestamp {
    fn told(&self) -> Self {
        to_the_millisecond(*self)
    }
}

impl Moments for Option<Timestamp> {
    fn told(&self) -> Self {
        self.map(to_the_millisecond)
    }
}

impl Moments for Vec<Timestamp> {
    fn told(&self) -> Self {
        self.iter().copied().map(to_the_millisecond).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_told_to_the_millisecond() {
        #[derive(serde::Serialize)]
        struct Told {
            #[serde(serialize_with = "moment")]
            at: Timestamp,
            #[serde(serialize_with = "moment")]
            then: Option<Timestamp>,
            #[serde(serialize_with = "moment")]
            all: Vec<Timestamp>,
        }
        let at: Timestamp = "2026-11-26T17:21:14.061780336Z".parse().unwrap();
        let whole: Timestamp = "2026-11-26T17:21:14Z".parse().unwrap();
        let told = serde_json::to_value(Told { at, then: None, all: vec![at, whole] }).unwrap();
        let (at, whole) = ("2026-11-26T17:21:14.061Z", "2026-11-26T17:21:14Z");
        assert_eq!(told, serde_json::json!({"at": at, "then": null, "all": [at, whole]}));
    }

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, ms) in
            [("30s", 30_000), ("5ms", 5), ("24h", 86_400_000), ("1h30m", 5_400_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse_duration(" 1m 5s "), Ok(Duration::from_secs(65)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn a_bare_number_is_told_to_take_a_unit() {
        let said = parse_duration("30").unwrap_err().to_string();
        assert_eq!(said, "`30` has no unit: write \"30s\"");
        assert_eq!(parse_size("512").unwrap_err().to_string(), "`512` has no unit: write \"512B\"");
        #[derive(Debug, serde::Deserialize)]
        struct Holder {
            #[serde(with = "duration")]
            _d: Duration,
        }
        let said = serde_json::from_str::<Holder>("{\"_d\": 30}").unwrap_err().to_string();
        assert!(said.contains("has no unit"), "{said}");
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "s", "1.5s", "-3s", "5 parsecs", "1h-", "5sec"] {
            assert!(matches!(parse_duration(text), Err(UnitError::Duration(_))), "{text}");
        }
        for text in ["", "MiB", "1.5MiB", "-1B", "5 pages"] {
            assert!(matches!(parse_size(text), Err(UnitError::Size(_))), "{text}");
        }
        assert!(matches!(parse_duration("99999999999999999999999999d"), Err(UnitError::TooLarge(_))));
        assert!(matches!(parse_size("99999999999TiB"), Err(UnitError::TooLarge(_))));
    }

    #[test]
    fn sizes_print_in_the_unit_that_divides_them() {
        for (bytes, text) in
            [(64 << 20, "64MiB"), (10_000_000, "10MB"), (512, "512B"), (0, "0B"), (1001, "1001B")]
        {
            assert_eq!(print_size(bytes), text);
        }
        assert_eq!(parse_size("64 mib"), Ok(64 << 20));
    }

    proptest! {
        #[test]
        fn durations_survive_printing(seconds in any::<u64>(), nanos in 0u32..1_000_000_000) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse_duration(&print_duration(duration)), Ok(duration));
        }

        #[test]
        fn sizes_survive_printing(bytes in any::<u64>()) {
            prop_assert_eq!(parse_size(&print_size(bytes)), Ok(bytes));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,24}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
