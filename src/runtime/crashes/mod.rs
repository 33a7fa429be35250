//! Crashes: the list of recent ones, and their groups on the way to the store.
//!
//! A crash never waits: it is added to the list, and to the group of its site among those that the store
//! does not have yet. A keeper writes these, the first one at once and then once a second, so that a storm
//! of a hundred thousand is a handful of writes; what cannot be written stays, up to a bound. A process that
//! is killed loses what has not been written: at most the crashes of the last second, or those since the
//! store went away. They stand in the log all the same.

mod keep;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use backtrace::Backtrace;
use jiff::{Timestamp, ToSpan};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use self::keep::keep;
use super::views::{CrashSummary, RecentCrash};
pub(crate) use crate::agent::{
    drops::{drop_panicked, note as dropped_badly},
    guard::{error_text, guard, install_hook},
};
use crate::{
    agent::trace,
    model::{
        crash_group::{CrashGroup, Site},
        supervision::CrashReport,
    },
};

/// How many crashes are kept in memory.
const KEPT: usize = 1_024;
/// So many sorts of them are told at once.
const SORTS_TOLD: usize = 5;
/// How many groups wait for the store at most; crashes of further sites are in the log and the list alone.
const MAX_PENDING: usize = 1_000;

/// The last crashes, and the groups that the store does not have yet.
#[derive(Default)]
pub(crate) struct Crashes {
    recent: Mutex<VecDeque<Arc<CrashReport>>>,
    pending: Mutex<Pending>,
    /// Something is pending.
    news: Notify,
    /// Held by who writes: one at a time.
    writing: tokio::sync::Mutex<()>,
    /// Groups that the store has, and backtraces of theirs that have no names yet.
    unnamed: Mutex<Vec<(CrashGroup, Backtrace)>>,
    /// Held by who looks for names: whoever has it finds nothing under way.
    naming: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Pending {
    groups: HashMap<Site, Waiting>,
    /// Whose backtrace has been taken since the node started.
    traced: HashSet<Site>,
}

struct Waiting {
    group: CrashGroup,
    /// Without names yet.
    trace: Option<Backtrace>,
}

impl Pending {
    fn is_full(&self) -> bool {
        self.groups.len() >= MAX_PENDING
    }

    fn add(&mut self, report: Arc<CrashReport>) {
        let site = Site::of(&report);
        let (place, is_full) = (report.reason.site.clone(), self.is_full());
        match self.groups.get_mut(&site) {
            Some(waiting) => waiting.group.add(report),
            None if is_full => return,
            None => {
                let group = CrashGroup::at(site.clone(), report);
                self.groups.insert(site.clone(), Waiting { group, trace: None });
            }
        }
        if let Some(place) = place {
            self.trace(&site, &place);
        }
    }

    /// Takes the backtrace of a crash, if its site has none. Others may share the place: the next panic there
    /// is walked again where this one's backtrace is missing, or was of no use.
    fn trace(&mut self, site: &Site, place: &str) {
        let trace = trace::take(place);
        let wanted = !self.traced.contains(site) && self.traced.len() < MAX_PENDING;
        match (wanted, trace, self.groups.get_mut(site)) {
            (true, Some(trace), Some(waiting)) => {
                waiting.trace = Some(trace);
                self.traced.insert(site.clone());
            }
            (true, ..) | (false, Some(_), _) => trace::again(place),
            (false, None, _) => {}
        }
    }

    /// Its backtrace was lost: the next one is taken.
    fn want(&mut self, site: &Site) {
        self.traced.remove(site);
    }

    /// Takes back what could not be written.
    fn put_back(&mut self, waiting: Vec<Waiting>) {
        for mut old in waiting {
            let is_full = self.is_full();
            match self.groups.get_mut(&old.group.site) {
                Some(new) => {
                    std::mem::swap(&mut new.group, &mut old.group);
                    new.group.merge(old.group);
                    new.trace = old.trace.or(new.trace.take());
                }
                None if is_full => {
                    if old.trace.is_some() || old.group.backtrace.is_some() {
                        self.want(&old.group.site);
                    }
                }
                None => {
                    self.groups.insert(old.group.site.clone(), old);
                }
            }
        }
    }
}

impl Crashes {
    pub(crate) fn add(&self, report: CrashReport) {
        let report = Arc::new(report);
        {
            let mut recent = self.recent.lock();
            if recent.len() == KEPT {
                recent.pop_front();
            }
            recent.push_back(report.clone());
        }
        self.pending.lock().add(report);
        self.news.notify_one();
    }

    /// Newest first.
    pub(crate) fn list(&self) -> Vec<Arc<CrashReport>> {
        self.recent.lock().iter().rev().cloned().collect()
    }

    pub(crate) fn find(&self, id: &str) -> Option<Arc<CrashReport>> {
        self.recent.lock().iter().rev().find(|c| c.id == id).cloned()
    }

    pub(crate) fn summary(&self, now: Timestamp) -> CrashSummary {
        let recent = self.recent.lock();
        let since = now.checked_sub(1.hour()).unwrap_or(Timestamp::MIN);
        let last_hour = recent.iter().filter(|c| c.at >= since).count() as u64;
        let mut sorts: Vec<(&Arc<CrashReport>, u64)> = Vec::new();
        for crash in recent.iter().rev() {
            let alike = |(other, _): &(&Arc<CrashReport>, u64)| {
                other.subject == crash.subject && other.reason.message == crash.reason.message
            };
            let is_room = sorts.len() < SORTS_TOLD;
            match sorts.iter_mut().find(|sort| alike(sort)) {
                Some((_, times)) => *times += 1,
                None if is_room => sorts.push((crash, 1)),
                None => {}
            }
        }
        let told = sorts.into_iter().map(|(last, times)| RecentCrash { report: (**last).clone(), times });
        CrashSummary { last_hour, recent: told.collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::supervision::{CrashKind, CrashReason, Decision},
        store::{CrashFilter, MemoryStore, Store},
    };

    #[test]
    fn crashes_that_are_alike_are_told_once_and_hide_no_others() {
        let crashes = Crashes::default();
        crashes.add(report("other", "a"));
        for n in 0..7 {
            crashes.add(CrashReport { id: format!("{n}"), ..report("tally", "a") });
        }
        let told = crashes.summary(Timestamp::UNIX_EPOCH).recent;
        let told: Vec<_> = told.iter().map(|sort| (&*sort.report.id, sort.times)).collect();
        assert_eq!(told, [("6", 7), ("other", 1)]);
    }

    fn report(kind: &str, site: &str) -> CrashReport {
        CrashReport {
            id: kind.into(),
            at: Timestamp::UNIX_EPOCH,
            subject: format!("{kind}/a"),
            reason: CrashReason { kind: CrashKind::Panic, message: "boom".into(), site: Some(site.into()) },
            message_type: None,
            message_id: None,
            message_bytes: None,
            repeat: 1,
            version: None,
            group: None,
            lost: None,
            decision: Decision::Leave,
            max_restarts: 10,
            within: Duration::from_secs(60),
        }
    }

    fn waiting(kind: &str) -> Waiting {
        let group = CrashGroup::of(Arc::new(report(kind, "a.rs:1")));
        Waiting { group, trace: Some(Backtrace::new_unresolved()) }
    }

    #[tokio::test]
    async fn groups_are_written_while_names_are_looked_for() {
        let (crashes, store) = (Crashes::default(), MemoryStore::new());
        crashes.pending.lock().put_back(vec![waiting("tally")]);
        let naming = crashes.naming.lock().await;
        let flushed = tokio::time::timeout(Duration::from_secs(20), crashes.flush(&store)).await;
        flushed.expect("it does not wait").unwrap();
        let named = Some(waiting("tally").group.id.to_string());
        let filter = CrashFilter { named, limit: 1, ..CrashFilter::default() };
        let written = store.crash_groups(&filter).await.unwrap();
        assert_eq!((written[0].count, &written[0].backtrace), (1, &None));
        drop(naming);
        crashes.name(&store).await.unwrap();
        let written = store.crash_groups(&filter).await.unwrap();
        assert!(written[0].count == 1 && written[0].backtrace.is_some(), "{written:?}");
    }

    #[test]
    fn a_backtrace_that_was_lost_is_taken_again() {
        let (mut pending, site) = (Pending::default(), waiting("tally").group.site);
        pending.traced.insert(site.clone());
        pending.put_back(vec![waiting("tally")]);
        assert!(pending.traced.contains(&site), "it waits");
        pending.groups.clear();
        pending.put_back((0..MAX_PENDING).map(|n| waiting(&format!("k{n}"))).collect());
        pending.put_back(vec![waiting("tally")]);
        assert!(!pending.groups.contains_key(&site) && !pending.traced.contains(&site));
    }
}
