//! Crashes: the list of the last ones, and their groups on the way to the store.
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
use super::views::CrashSummary;
pub(crate) use crate::agent::{
    drops::{drop_panicked, note as dropped_badly},
    guard::{guard, install_hook},
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
                None if is_full => {}
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
        CrashSummary { last_hour, recent: recent.iter().rev().take(5).map(|c| (**c).clone()).collect() }
    }
}
