//! What happens when a nominal time has come.

use std::time::Duration;

use jiff::Timestamp;

use super::{Last, MAX_MADE_UP, Misfire, Overlap, Spec};
use crate::model::id::TaskId;

/// What is fired so late, at most, was not missed.
pub const ON_TIME: Duration = Duration::from_secs(60);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firing {
    /// The nominal time that gets a task.
    pub fire: Option<Timestamp>,
    /// The task that it waits for.
    pub behind: Option<TaskId>,
    /// The nominal time that gets none because the last task has not ended.
    pub overlapped: Option<Timestamp>,
    /// The first of those that get none because they were missed.
    pub missed: Option<Timestamp>,
    /// The one that comes next: after all of these.
    pub next: Option<Timestamp>,
}

/// Decides what is done at `now` about a schedule whose next nominal time is `nominal`; `None` where that
/// is still to come. Whoever carries it out moves the schedule on from `nominal` to `next`, and decides
/// again.
pub fn decide(
    spec: &Spec,
    nominal: Timestamp,
    now: Timestamp,
    (overlap, misfire): (Overlap, Misfire),
    last: Last,
) -> Option<Firing> {
    if nominal > now {
        return None;
    }
    let made_up = if misfire == Misfire::All { MAX_MADE_UP } else { 1 };
    let due = spec.last(made_up, nominal, now);
    let next = spec.next(due);
    let is_late = Duration::try_from(due.duration_until(now)).is_ok_and(|late| late > ON_TIME);
    if misfire == Misfire::Skip && is_late {
        return Some(Firing { fire: None, behind: None, overlapped: None, missed: Some(nominal), next });
    }
    let (fire, behind) = match (overlap, last) {
        (Overlap::Allow, _) | (_, Last::Ended) => (Some(due), None),
        (Overlap::QueueOne, Last::Open(task)) => (Some(due), Some(task)),
        (Overlap::QueueOne, Last::Queued(_)) | (Overlap::Skip, _) => (None, None),
    };
    let overlapped = fire.is_none().then_some(due);
    Some(Firing { fire, behind, overlapped, missed: (due > nominal).then_some(nominal), next })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const NOON: &str = "2026-07-01T12:00:00Z";

    fn minutely(now: &str, overlap: Overlap, misfire: Misfire, last: Last) -> Option<Firing> {
        let spec: Spec = "* * * * *".parse().unwrap();
        decide(&spec, at(NOON), at(now), (overlap, misfire), last)
    }

    #[test]
    fn what_is_to_come_is_left_alone() {
        assert_eq!(minutely("2026-07-01T11:59:59.9Z", Overlap::Skip, Misfire::Once, Last::Ended), None);
        let fired = minutely(NOON, Overlap::Skip, Misfire::Once, Last::Ended).unwrap();
        assert_eq!((fired.fire, fired.missed), (Some(at(NOON)), None));
        assert_eq!(fired.next, Some(at("2026-07-01T12:01:00Z")));
    }

    #[test]
    fn what_was_missed_is_fired_once_not_at_all_or_each() {
        let late = "2026-07-01T12:10:30Z";
        let of = |misfire| minutely(late, Overlap::Skip, misfire, Last::Ended).unwrap();
        let (last, next) = (at("2026-07-01T12:10:00Z"), Some(at("2026-07-01T12:11:00Z")));
        let once = of(Misfire::Once);
        assert_eq!((once.fire, once.missed, once.next), (Some(last), Some(at(NOON)), next));
        let skip = of(Misfire::Skip);
        assert_eq!(
            (skip.fire, skip.missed, skip.next),
            (Some(last), Some(at(NOON)), next),
            "the last is on time"
        );
        let all = of(Misfire::All);
        assert_eq!(
            (all.fire, all.missed, all.next),
            (Some(at(NOON)), None, Some(at("2026-07-01T12:01:00Z")))
        );
        // a day later, and more than is made up for
        let spec: Spec = "0 * * * *".parse().unwrap();
        let later = |hours: i64, misfire| {
            let now =
                at(NOON) + jiff::SignedDuration::from_hours(hours) + jiff::SignedDuration::from_mins(30);
            decide(&spec, at(NOON), now, (Overlap::Skip, misfire), Last::Ended).unwrap()
        };
        assert_eq!(later(24, Misfire::Skip).fire, None);
        assert_eq!(later(24, Misfire::Skip).next, Some(at("2026-07-02T13:00:00Z")));
        assert_eq!(later(24, Misfire::Once).fire, Some(at("2026-07-02T12:00:00Z")));
        let all = later(i64::try_from(MAX_MADE_UP).unwrap() + 9, Misfire::All);
        assert_eq!((all.fire, all.missed), (Some(at("2026-07-01T22:00:00Z")), Some(at(NOON))));
    }

    #[test]
    fn what_overlaps_runs_beside_passes_or_waits() {
        let (open, queued) = (Last::Open(TaskId::fresh()), Last::Queued(TaskId::fresh()));
        let of = |overlap, last| minutely(NOON, overlap, Misfire::Once, last).unwrap();
        let noon = Some(at(NOON));
        assert_eq!(of(Overlap::Allow, open).fire, noon);
        let skip = of(Overlap::Skip, open);
        assert_eq!((skip.fire, skip.overlapped, skip.next), (None, noon, Some(at("2026-07-01T12:01:00Z"))));
        let queue = of(Overlap::QueueOne, open);
        assert_eq!((queue.fire, queue.behind.map(Last::Open)), (noon, Some(open)));
        let queue = of(Overlap::QueueOne, queued);
        assert_eq!((queue.fire, queue.overlapped), (None, noon));
    }

    fn specs() -> impl Strategy<Value = Spec> {
        prop::sample::select(vec![
            "* * * * *",
            "*/7 * * * * *",
            "30 2 * * * Europe/Berlin",
            "0,30 1-3 * * * America/New_York",
            "15,45 1,2 * * * Australia/Lord_Howe",
            "0 0 L * *",
            "0 12 * * MON#1 Asia/Kathmandu",
            "every 90s",
            "every 36h",
        ])
        .prop_map(|text| text.parse().unwrap())
    }

    /// Any moment of 2026, in which the clocks of these places change twice.
    fn moments() -> impl Strategy<Value = Timestamp> {
        (1_767_225_600_000i64..1_798_761_600_000).prop_map(|ms| Timestamp::from_millisecond(ms).unwrap())
    }

    fn policies() -> impl Strategy<Value = (Overlap, Misfire)> {
        let overlaps = prop::sample::select(vec![Overlap::Allow, Overlap::Skip, Overlap::QueueOne]);
        (overlaps, prop::sample::select(vec![Misfire::Once, Misfire::Skip, Misfire::All]))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nominal_times_strictly_increase(spec in specs(), from in moments()) {
            let mut before = from;
            for nominal in spec.upcoming(from).take(50) {
                prop_assert!(nominal > before);
                // whoever asks later, but before it, is told the same
                let between = before + nominal.duration_since(before) / 2;
                prop_assert_eq!(spec.next(between), Some(nominal));
                before = nominal;
            }
        }

        /// Whatever the clock does, and wherever a node ends between two decisions.
        #[test]
        fn no_nominal_time_is_fired_twice(
            spec in specs(),
            policies in policies(),
            begin in moments(),
            clocks in prop::collection::vec((moments(), 0u8..3), 1..16),
        ) {
            let (mut next, mut fired) = (spec.next(begin), BTreeSet::new());
            for (now, last) in clocks {
                let task = TaskId::fresh();
                let last = [Last::Ended, Last::Open(task), Last::Queued(task)][usize::from(last)];
                for _ in 0..3 {
                    let Some(nominal) = next else { break };
                    let Some(firing) = decide(&spec, nominal, now, policies, last) else { break };
                    if let Some(at) = firing.fire {
                        prop_assert!(at >= nominal && at <= now);
                        prop_assert!(fired.last().is_none_or(|last| *last < at), "{at} again");
                        fired.insert(at);
                    }
                    prop_assert!(firing.next.is_none_or(|next| next > nominal));
                    next = firing.next;
                }
            }
        }

        /// On time, and with nothing in the way, each is fired.
        #[test]
        fn every_nominal_time_is_fired(spec in specs(), policies in policies(), begin in moments()) {
            let mut next = spec.next(begin);
            for expected in spec.upcoming(begin).take(20) {
                let now = expected + jiff::SignedDuration::from_millis(3);
                let firing = decide(&spec, next.unwrap(), now, policies, Last::Ended).unwrap();
                prop_assert_eq!(firing.fire, Some(expected));
                next = firing.next;
            }
        }
    }
}
