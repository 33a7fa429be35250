//! What processes believe to own, and how they restart their agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Ledger;
use crate::{cell::policy, world::Pid};

/// Until when a process believes that it owns its partitions.
struct Belief {
    epochs: Vec<i64>,
    until: Duration,
}

#[derive(Default)]
pub struct Beliefs {
    held: BTreeMap<Pid, Belief>,
    /// Whose clock stood still.
    dozers: BTreeSet<Pid>,
    /// The newest epoch of each partition.
    epochs: BTreeMap<usize, i64>,
    restarts: BTreeMap<(Pid, &'static str), Vec<Duration>>,
    /// When tasks of a queue have begun on a process, by its own clock.
    begun: BTreeMap<(Pid, String), Vec<Duration>>,
}

impl Beliefs {
    /// Under which epoch a partition is owned.
    pub fn epoch(&self, partition: usize) -> i64 {
        self.epochs.get(&partition).copied().unwrap_or(0)
    }
}

impl Ledger {
    /// The store says what a process owns.
    pub(super) fn owned(&mut self, epochs: &[i64]) {
        for (n, epoch) in epochs.iter().enumerate().filter(|(_, epoch)| **epoch != 0) {
            let newest = self.beliefs.epochs.entry(n).or_default();
            let was = std::mem::replace(newest, (*newest).max(*epoch));
            if was != *epoch && was != 0 {
                self.note("takeovers");
            }
            self.must(was <= *epoch, || format!("partition {n} is owned under {epoch} after {was}"));
        }
    }

    pub fn believes(&mut self, pid: Pid, epochs: &[i64], until: Duration) {
        if !self.beliefs.dozers.contains(&pid) {
            self.beliefs.held.insert(pid, Belief { epochs: epochs.to_vec(), until });
        }
    }

    /// Its clock stands still: it may believe for too long, and the epochs alone hold it back.
    pub fn dozes(&mut self, pid: Pid) {
        self.beliefs.dozers.insert(pid);
        self.beliefs.held.remove(&pid);
    }

    pub fn dies(&mut self, pid: Pid) {
        self.beliefs.held.remove(&pid);
        self.note("kills");
    }

    /// A process starts a turn.
    pub fn runs(&mut self, pid: Pid, partition: usize, now: Duration) {
        let owns = |b: &Belief| b.epochs.get(partition).is_some_and(|e| *e != 0) && b.until > now;
        let held = &self.beliefs.held;
        if !held.get(&pid).is_some_and(owns) {
            return; // it dozes, or its belief has been told already
        }
        let other = held.iter().find(|(other, b)| **other != pid && owns(b)).map(|(other, _)| *other);
        self.must(other.is_none(), || {
            format!("p{pid} and another, {other:?}, both hold partition {partition}")
        });
    }

    /// A process restarts an agent, by its own clock.
    pub fn restarts(&mut self, pid: Pid, key: &'static str, now: Duration) {
        let policy = policy();
        let times = self.beliefs.restarts.entry((pid, key)).or_default();
        times.push(now);
        let recent = times.iter().filter(|at| now.saturating_sub(**at) < policy.within).count();
        let holds = recent <= policy.max_restarts as usize;
        self.must(holds, || format!("{key} was restarted {recent} times within {:?}", policy.within));
    }

    /// A person has it begin afresh.
    pub fn pardons(&mut self, pid: Pid, key: &'static str) {
        self.beliefs.restarts.remove(&(pid, key));
    }

    /// A task of a queue begins on a process, by its own clock, beside so many others.
    pub fn begins(
        &mut self,
        pid: Pid,
        queue: &str,
        bounds: greenroom::model::task::Bounds,
        beside: usize,
        now: Duration,
    ) {
        if let Some(most) = bounds.concurrency {
            if beside + 1 == most {
                self.note("limited");
            }
            self.must(beside < most, || format!("p{pid} runs {} tasks of {queue}, not {most}", beside + 1));
        }
        let Some(rate) = bounds.rate else { return };
        let begun = self.beliefs.begun.entry((pid, queue.to_owned())).or_default();
        begun.push(now);
        let recent = begun.iter().filter(|at| now.saturating_sub(**at) < rate.within).count();
        if recent == rate.n as usize {
            self.note("paced");
        }
        self.must(recent <= rate.n as usize, || {
            format!("p{pid} began {recent} tasks of {queue} within {:?}, not {}", rate.within, rate.n)
        });
    }
}
