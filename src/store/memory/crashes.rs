//! Crash groups.

use std::cmp::Reverse;

use jiff::Timestamp;
use uuid::Uuid;

use super::state::State;
use crate::{
    model::{crash_group::CrashGroup, period::Period},
    store::{
        CrashFilter, MAX_CRASH_GROUPS,
        crashes::{MAX_COUNT, MAX_LISTED},
    },
};

impl State {
    /// Merges groups into those that are there.
    pub(super) fn note_crashes(&mut self, groups: &[CrashGroup]) {
        for group in groups {
            let mut group = group.clone();
            if let Some(mut there) = self.crashes.remove(&group.id) {
                there.merge(group);
                group = there;
            }
            group.count = group.count.min(MAX_COUNT);
            self.crashes.insert(group.id, group);
        }
    }

    /// One page of crash groups, those with the latest crashes first.
    pub(super) fn crash_groups(&self, filter: &CrashFilter) -> Vec<CrashGroup> {
        let all = self.crashes.iter().map(|(_, group)| group);
        if let Some(name) = &filter.named {
            let id = name.parse().unwrap_or(Uuid::nil());
            return all.filter(|g| g.id == id || g.report.id == *name).take(1).cloned().collect();
        }
        let behind = |g: &&CrashGroup| filter.before.is_none_or(|before| (g.last, g.id) < before);
        let Period { since, until } = filter.period;
        let within = |g: &&CrashGroup| {
            since.is_none_or(|since| since <= g.last) && until.is_none_or(|until| g.first < until)
        };
        let mut found: Vec<&CrashGroup> = all.filter(within).filter(behind).collect();
        found.sort_unstable_by_key(|g| Reverse((g.last, g.id)));
        let page = found.into_iter().take(filter.limit.clamp(1, MAX_LISTED));
        page.map(|group| CrashGroup { backtrace: None, ..group.clone() }).collect()
    }

    /// Forgets groups without a crash since, and the longest quiet of those beyond the bound.
    pub(super) fn clean_crashes(&mut self, before: Timestamp) -> usize {
        let mut all: Vec<(Timestamp, Uuid)> = self.crashes.iter().map(|(id, g)| (g.last, *id)).collect();
        all.sort_unstable_by_key(|last| Reverse(*last));
        let old = all.iter().enumerate().filter(|(n, (last, _))| *n >= MAX_CRASH_GROUPS || *last < before);
        let old: Vec<Uuid> = old.map(|(_, (_, id))| *id).collect();
        old.iter().for_each(|id| drop(self.crashes.remove(id)));
        old.len()
    }
}
