//! Crashes grouped by site.
//!
//! Two crashes are of one [`Site`] when the same kind crashed in the same way at the same place. What a
//! site's crashes have in common is a [`CrashGroup`]; groups of one site [merge](CrashGroup::merge), in
//! memory until they are written and in the store from then on, in whatever order they come.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::supervision::{CrashKind, CrashReport};

/// How long a place may be, in characters.
const MAX_PLACE: usize = 200;
/// Under which ids of sites are drawn. Never changed: the store keeps what was drawn.
const NAMESPACE: Uuid = Uuid::from_u128(0x6772_6565_6e72_6f6f_6d00_6372_6173_6865);

/// What crashes of one group have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Site {
    /// The agent's kind, or `tool:NAME`.
    pub kind: String,
    /// In which way.
    pub reason: CrashKind,
    /// Where, `src/tally.rs:12`; of an error of `on_start` that; of other crashes without a place their
    /// message's first line.
    #[serde(rename = "site")]
    pub place: String,
}

impl Site {
    /// The site of a crash.
    pub fn of(report: &CrashReport) -> Self {
        let kind = match report.subject.split_once('/') {
            Some((kind, _)) => kind,
            None => &report.subject,
        };
        let place = match (report.reason.site.as_deref(), report.reason.kind) {
            (Some(site), _) => site,
            // What its error says may be another thing each time.
            (None, CrashKind::Start) => "on_start",
            (None, _) => first_line(&report.reason.message),
        };
        // It is a name: what would act on a terminal, or what a database refuses, has no place in it.
        let place = place.chars().filter(|c| !c.is_control()).take(MAX_PLACE).collect();
        Self { kind: kind.to_owned(), reason: report.reason.kind, place }
    }

    /// The id of its group: the same wherever and whenever it crashes.
    pub fn id(&self) -> Uuid {
        let name = format!("{}\n{}\n{}", self.kind, self.reason.name(), self.place);
        Uuid::new_v5(&NAMESPACE, name.as_bytes())
    }
}

fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}

/// The crashes of one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CrashGroup {
    /// Its id, drawn from the site.
    pub id: Uuid,
    /// What they have in common.
    #[serde(flatten)]
    pub site: Site,
    /// The first of them.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub first: Timestamp,
    /// The last of them.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub last: Timestamp,
    /// How many there were.
    pub count: u64,
    /// All that is known about the last one.
    #[serde(rename = "last_crash")]
    pub report: Arc<CrashReport>,
    /// The calls that led to one of them, the innermost first. Listings leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
}

impl CrashGroup {
    /// The group of a single crash.
    pub fn of(report: Arc<CrashReport>) -> Self {
        Self::at(Site::of(&report), report)
    }

    /// The same, where its site is known already.
    pub fn at(site: Site, report: Arc<CrashReport>) -> Self {
        Self { id: site.id(), site, first: report.at, last: report.at, count: 1, report, backtrace: None }
    }

    /// Takes in one more crash of its site.
    pub fn add(&mut self, report: Arc<CrashReport>) {
        self.take(report.at, report.at, 1, report);
    }

    /// Takes in what is known about other crashes of its site: counts are added, the earliest first and
    /// the latest last stay, with the report of the latest. Of two backtraces the other's stays.
    pub fn merge(&mut self, other: Self) {
        self.take(other.first, other.last, other.count, other.report);
        self.backtrace = other.backtrace.or(self.backtrace.take());
    }

    fn take(&mut self, first: Timestamp, last: Timestamp, count: u64, report: Arc<CrashReport>) {
        // Of two at one moment the greater id is the later one, whoever is asked first.
        if (last, &report.id) > (self.last, &self.report.id) {
            self.report = report;
        }
        self.first = self.first.min(first);
        self.last = self.last.max(last);
        self.count = self.count.saturating_add(count);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::supervision::{CrashReason, Decision};

    fn report(subject: &str, kind: CrashKind, message: &str, site: Option<&str>) -> CrashReport {
        CrashReport {
            id: "0190".into(),
            at: Timestamp::UNIX_EPOCH,
            subject: subject.into(),
            reason: CrashReason { kind, message: message.into(), site: site.map(str::to_owned) },
            message_type: Some("add".into()),
            message_id: None,
            message_bytes: Some(2),
            repeat: 1,
            version: Some(1),
            group: None,
            lost: None,
            decision: Decision::Restart { attempt: 1, delay: Duration::ZERO },
            max_restarts: 10,
            within: Duration::from_secs(60),
        }
    }

    fn site(subject: &str, kind: CrashKind, message: &str, place: Option<&str>) -> Site {
        Site::of(&report(subject, kind, message, place))
    }

    #[test]
    fn crashes_are_of_one_site_when_kind_and_way_and_place_are_the_same() {
        let one = site("tally/a", CrashKind::Panic, "boom 1", Some("src/tally.rs:12"));
        assert_eq!(one, site("tally/b", CrashKind::Panic, "boom 2", Some("src/tally.rs:12")));
        assert_eq!((one.kind.as_str(), one.place.as_str()), ("tally", "src/tally.rs:12"));
        for other in [
            site("shelf/a", CrashKind::Panic, "boom 1", Some("src/tally.rs:12")),
            site("tally/a", CrashKind::Start, "boom 1", Some("src/tally.rs:12")),
            site("tally/a", CrashKind::Panic, "boom 1", Some("src/tally.rs:13")),
            site("tool:tally", CrashKind::Panic, "boom 1", Some("src/tally.rs:12")),
        ] {
            assert_ne!(one, other);
            assert_ne!(one.id(), other.id());
        }
        assert_eq!(site("tool:fs.read", CrashKind::Panic, "", None).kind, "tool:fs.read");
        assert_eq!(one.id().to_string(), "2d5e83d9-bc41-5cfe-9b78-1d0e66c436c2", "the store keeps it");
    }

    #[test]
    fn without_a_place_the_first_line_of_its_message_is_one() {
        let told = |message: &str| site("shy/a", CrashKind::Timeout, message, None).place;
        assert_eq!(told("\n  too late\nbecause of this\n"), "too late");
        assert_eq!(told("a\0b\x1b[2J"), "ab[2J");
        assert_eq!(told(&"ü".repeat(9_999)).chars().count(), MAX_PLACE);
        assert_eq!(told(""), "");
    }

    #[test]
    fn errors_of_a_start_are_of_one_site_whatever_they_say() {
        let told = |message: &str| site("shy/a", CrashKind::Start, message, None);
        assert_eq!(told("on_start: no answer in 17 ms"), told("on_start: no answer in 18 ms"));
        assert_eq!(told("on_start: no disk").place, "on_start");
    }

    prop_compose! {
        /// Crashes of one site at moments that may be the same.
        fn crashes()(at in prop::collection::vec((0i64..20, 0u8..20), 1..30)) -> Vec<Arc<CrashReport>> {
            at.into_iter()
                .map(|(second, id)| {
                    let at = Timestamp::from_second(second).unwrap();
                    let id = format!("{id:04}");
                    Arc::new(CrashReport { id, at, ..report("tally/a", CrashKind::Panic, "boom", Some("a.rs:1")) })
                })
                .collect()
        }
    }

    fn grouped(reports: &[Arc<CrashReport>]) -> CrashGroup {
        let mut group = CrashGroup::of(reports[0].clone());
        reports[1..].iter().for_each(|report| group.add(report.clone()));
        group
    }

    proptest! {
        #[test]
        fn a_group_tells_how_many_and_the_first_and_the_last(reports in crashes()) {
            let group = grouped(&reports);
            prop_assert_eq!(group.count, reports.len() as u64);
            prop_assert_eq!(group.first, reports.iter().map(|r| r.at).min().unwrap());
            prop_assert_eq!(group.last, reports.iter().map(|r| r.at).max().unwrap());
            prop_assert_eq!(group.report.at, group.last);
            prop_assert_eq!(group.id, Site::of(&reports[0]).id());
        }

        /// However they are cut into batches, and in whatever order the batches come.
        #[test]
        fn merging_forgets_nothing_and_asks_for_no_order(reports in crashes(), cuts in prop::collection::vec(1usize..6, 30), turned: bool) {
            let (mut left, mut parts) = (reports.as_slice(), Vec::new());
            for cut in cuts {
                if left.is_empty() {
                    break;
                }
                let (part, rest) = left.split_at(cut.min(left.len()));
                parts.push(grouped(part));
                left = rest;
            }
            parts.extend((!left.is_empty()).then(|| grouped(left)));
            if turned {
                parts.reverse();
            }
            let mut parts = parts.into_iter();
            let mut merged = parts.next().unwrap();
            parts.for_each(|part| merged.merge(part));
            let whole = grouped(&reports);
            prop_assert_eq!((merged.first, merged.last, merged.count), (whole.first, whole.last, whole.count));
            prop_assert_eq!(&merged.report.id, &whole.report.id);
        }

        #[test]
        fn a_backtrace_once_known_stays(mine: bool, theirs: bool, reports in crashes()) {
            let traced = |of: &str, is: bool| CrashGroup { backtrace: is.then(|| of.to_owned()), ..grouped(&reports) };
            let mut group = traced("mine", mine);
            group.merge(traced("theirs", theirs));
            prop_assert_eq!(group.backtrace.is_some(), mine || theirs);
            prop_assert!(!theirs || group.backtrace.as_deref() == Some("theirs"));
        }
    }
}
