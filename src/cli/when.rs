//! Times for people: "3 min ago".

use jiff::Timestamp;

/// How long ago, or in how long.
pub(super) fn relative(now: Timestamp, at: Timestamp) -> String {
    let millis = now.as_millisecond().saturating_sub(at.as_millisecond());
    match millis {
        -999..0 => "now".to_owned(),
        0..1_000 => "just now".to_owned(),
        1_000.. => format!("{} ago", span(millis.unsigned_abs())),
        _ => format!("in {}", span(millis.unsigned_abs())),
    }
}

/// A moment, to the millisecond.
pub(super) fn exact(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// How long ago, from now.
pub(super) fn ago(at: Timestamp) -> String {
    relative(Timestamp::now(), at)
}

/// A span in its largest unit.
pub(super) fn span(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{} s", millis / 1_000),
        60_000..3_600_000 => format!("{} min", millis / 60_000),
        3_600_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} d", millis / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_one_unit() {
        let now: Timestamp = "2026-01-10T12:00:00Z".parse().unwrap();
        for (at, told) in [
            ("2026-01-10T12:00:00Z", "just now"),
            ("2026-01-10T11:59:18Z", "42 s ago"),
            ("2026-01-10T11:57:00Z", "3 min ago"),
            ("2026-01-09T12:00:00Z", "24 h ago"),
            ("2026-01-01T12:00:00Z", "9 d ago"),
            ("2026-01-10T12:05:00Z", "in 5 min"),
            ("2026-01-10T12:00:00.5Z", "now"),
        ] {
            assert_eq!(relative(now, at.parse().unwrap()), told);
        }
    }
}
