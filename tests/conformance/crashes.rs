//! Crash groups: what is added up, what is listed, what is forgotten.

use std::{sync::Arc, time::Duration};

use greenroom::{
    model::{
        crash_group::CrashGroup,
        period::Period,
        supervision::{CrashKind, CrashReason, CrashReport, Decision},
    },
    store::{CrashFilter, MAX_CRASH_GROUPS, Past},
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::support::*;

/// A crash of `tally` at this line and second.
fn crash(line: u32, second: i64) -> CrashReport {
    CrashReport {
        id: Uuid::now_v7().to_string(),
        at: Timestamp::from_second(second).unwrap(),
        subject: "tally/a".into(),
        reason: CrashReason {
            kind: CrashKind::Panic,
            message: "it says \"Zoë\", and \0".into(),
            site: Some(format!("src/tally.rs:{line}")),
        },
        message_type: Some("add".into()),
        message_id: Some(Uuid::now_v7().to_string()),
        message_bytes: Some(18),
        repeat: 2,
        version: Some(41),
        group: None,
        lost: None,
        decision: Decision::Restart { attempt: 2, delay: Duration::from_millis(5) },
        max_restarts: 10,
        within: Duration::from_secs(60),
    }
}

fn group(reports: impl IntoIterator<Item = CrashReport>) -> CrashGroup {
    let groups = reports.into_iter().map(|report| CrashGroup::of(Arc::new(report)));
    groups
        .reduce(|mut all, one| {
            all.merge(one);
            all
        })
        .unwrap()
}

fn traced(line: u32, second: i64, trace: &str) -> CrashGroup {
    CrashGroup { backtrace: Some(trace.to_owned()), ..group([crash(line, second)]) }
}

impl World {
    async fn note(&self, groups: &[CrashGroup]) {
        self.store.note_crashes(groups).await.unwrap();
    }

    async fn groups(&self) -> Vec<CrashGroup> {
        let filter = CrashFilter { limit: 1_000, ..CrashFilter::default() };
        self.store.crash_groups(&filter).await.unwrap()
    }

    async fn named(&self, name: &str) -> Option<CrashGroup> {
        let filter = CrashFilter { named: Some(name.to_owned()), ..CrashFilter::default() };
        self.store.crash_groups(&filter).await.unwrap().pop()
    }
}

rules! {
    async fn a_crash_group_is_read_back_as_it_was_noted(w: &mut World) {
        assert_eq!(w.groups().await, []);
        let noted = group([crash(1, 10), crash(1, 20)]);
        w.note(std::slice::from_ref(&noted)).await;
        assert_eq!(w.groups().await, std::slice::from_ref(&noted));
        w.crash().await;
        assert_eq!(w.groups().await, [noted]);
    }

    /// As two nodes note them, one of them late.
    async fn groups_of_one_site_add_up_in_any_order(w: &mut World) {
        let parts = [
            group([crash(1, 30), crash(1, 40)]),
            group([crash(1, 10), crash(1, 20), crash(1, 50)]),
            group([crash(1, 5)]),
        ];
        let mut whole = parts[0].clone();
        parts[1..].iter().for_each(|part| whole.merge(part.clone()));
        for part in &parts {
            w.note(&[group([crash(2, 60)]), part.clone()]).await;
        }
        let groups = w.groups().await;
        assert_eq!(groups.len(), 2);
        assert_eq!((groups[0].count, groups[0].site.place.as_str()), (3, "src/tally.rs:2"));
        assert_eq!(groups[1], whole);
        assert_eq!((whole.count, whole.first.as_second(), whole.last.as_second()), (6, 5, 50));
    }

    async fn notes_that_come_together_are_all_counted(w: &mut World) {
        let notes = (0..20).map(|n| {
            let store = w.store.clone();
            // in other orders, and with others beside it
            let mut groups: Vec<_> = (0..8).map(|line| group([crash(line, n)])).collect();
            groups.rotate_left(usize::try_from(n).unwrap() % 8);
            tokio::spawn(async move { store.note_crashes(&groups).await.unwrap() })
        });
        for note in notes.collect::<Vec<_>>() {
            note.await.unwrap();
        }
        let groups = w.groups().await;
        assert_eq!(groups.len(), 8);
        assert!(groups.iter().all(|g| g.count == 20 && g.last.as_second() == 19), "{groups:?}");
    }

    async fn counts_do_not_run_over(w: &mut World) {
        let many = CrashGroup { count: u64::try_from(i64::MAX).unwrap() - 1, ..group([crash(1, 10)]) };
        w.note(&[many]).await;
        w.note(&[CrashGroup { count: u64::MAX, ..group([crash(1, 11)]) }]).await;
        assert_eq!(w.groups().await[0].count, u64::try_from(i64::MAX).unwrap());
    }

    async fn of_two_crashes_at_one_moment_the_greater_id_is_the_later(w: &mut World) {
        let at = |id: &str| group([CrashReport { id: id.into(), ..crash(1, 10) }]);
        for (first, second) in [("B", "a"), ("a", "B"), ("c", "b")] {
            w.note(&[at(first)]).await;
            w.note(&[at(second)]).await;
        }
        assert_eq!(w.groups().await[0].report.id, "c");
    }

    async fn a_backtrace_is_kept_and_not_listed(w: &mut World) {
        let (with, without) = (traced(1, 10, "0: tally::add\n1: main\0"), group([crash(1, 20)]));
        w.note(std::slice::from_ref(&with)).await;
        w.note(std::slice::from_ref(&without)).await;
        let found = w.named(&with.id.to_string()).await.unwrap();
        assert_eq!((found.count, found.backtrace), (2, with.backtrace.clone()));
        assert_eq!(w.groups().await[0].backtrace, None);
        w.note(&[traced(1, 5, "another")]).await;
        assert_eq!(w.named(&with.id.to_string()).await.unwrap().backtrace.as_deref(), Some("another"));
    }

    async fn a_group_is_found_by_its_id_and_by_its_last_crash(w: &mut World) {
        let (old, new) = (crash(1, 10), crash(1, 20));
        w.note(&[group([old.clone(), new.clone()]), group([crash(2, 30)])]).await;
        let id = group([old.clone()]).id;
        assert_eq!(w.named(&id.to_string()).await.unwrap().report.id, new.id);
        assert_eq!(w.named(&new.id).await.unwrap().id, id);
        assert_eq!(w.named(&old.id).await, None, "its report is not kept");
        assert_eq!(w.named("nonsense").await, None);
    }

    async fn groups_are_paged_by_their_last_crash(w: &mut World) {
        // some at the same moment
        let groups: Vec<_> = (0..25).map(|line| group([crash(line, i64::from(line) / 3)])).collect();
        w.note(&groups).await;
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let filter = CrashFilter { before, limit: 4, ..CrashFilter::default() };
            let page = w.store.crash_groups(&filter).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some((last.last, last.id));
            seen.extend(page);
        }
        assert_eq!(seen.len(), 25);
        assert!(seen.is_sorted_by(|a, b| (a.last, a.id) > (b.last, b.id)));
    }

    async fn groups_are_found_by_the_period_of_their_crashes(w: &mut World) {
        let groups =
            [group([crash(1, 10), crash(1, 20)]), group([crash(2, 15), crash(2, 40)]), group([crash(3, 40)])];
        w.note(&groups).await;
        let find = async |since: Option<i64>, until: Option<i64>| {
            let second = |at: Option<i64>| at.map(|at| Timestamp::from_second(at).unwrap());
            let period = Period { since: second(since), until: second(until) };
            let filter = CrashFilter { period, limit: 10, ..CrashFilter::default() };
            let mut lines: Vec<String> =
                w.store.crash_groups(&filter).await.unwrap().into_iter().map(|g| g.site.place).collect();
            lines.sort();
            lines.iter().map(|place| place.rsplit(':').next().unwrap().parse().unwrap()).collect::<Vec<u32>>()
        };
        assert_eq!(find(Some(20), None).await, [1, 2, 3]);
        assert_eq!(find(Some(21), None).await, [2, 3]);
        assert_eq!(find(None, Some(15)).await, [1], "not what began at its end");
        assert_eq!(find(Some(21), Some(40)).await, [2]);
        assert_eq!(find(Some(41), None).await, [0; 0]);
    }

    async fn cleaning_keeps_the_latest_groups_up_to_a_bound(w: &mut World) {
        let many = i64::try_from(MAX_CRASH_GROUPS).unwrap() + 20;
        let groups: Vec<_> =
            (0..many).map(|n| group([crash(u32::try_from(n).unwrap(), 1_000 + n)])).collect();
        w.note(&groups).await;
        let cleaned = async |before| w.store.clean(Timestamp::now(), Past::before(before)).await.unwrap();
        assert_eq!(cleaned(Timestamp::UNIX_EPOCH).await, 20);
        let kept = w.groups().await;
        assert_eq!((kept.len(), kept.last().unwrap().last.as_second()), (MAX_CRASH_GROUPS, 1_020));
        assert_eq!(cleaned(Timestamp::UNIX_EPOCH).await, 0);
        // and of those none that has been quiet for too long
        assert_eq!(cleaned(Timestamp::from_second(1_000 + many - 3).unwrap()).await, 997);
        assert_eq!(w.groups().await.len(), 3);
    }
}
