//! Claiming, giving back, promoting: transitions of tasks that do not end them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    convert::Infallible,
};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    state::State,
    task::{Lane, Task},
};
use crate::{
    model::{
        id::TaskId,
        task::{ClaimId, Claimed, TaskState, in_turn, queue_of, share_out},
    },
    store::{ClaimRequest, Doom, Doomed, Promoted, StoreError, told},
};

/// How many tasks one pass moves, per reason.
const MOVE_BATCH: usize = 1_000;

impl State {
    /// The queues with ready tasks, each with since when the next of them is ready.
    pub(super) fn ready_queues(&self) -> Vec<(String, Timestamp)> {
        let mut found: BTreeMap<String, (Reverse<i16>, i64, Timestamp)> = BTreeMap::new();
        let tasks = self.hot.iter().map(|(_, task)| task);
        for task in tasks.filter(|task| task.is_ready(Lane::Agents) || task.is_ready(Lane::Tools)) {
            let since = task.new.run_at.map_or(task.created_at, |at| at.max(task.created_at));
            let place = (Reverse(task.new.priority), task.seq, since);
            let best = found.entry(queue_of(&task.new.target)).or_insert(place);
            *best = place.min(*best);
        }
        found.into_iter().map(|(name, (.., since))| (name, since)).collect()
    }

    /// Claims ready tasks of the boot's partitions, and for tools. Whose lease has ended claims nothing.
    pub(super) fn claim(&mut self, boot: Uuid, request: &ClaimRequest) -> Vec<Claimed> {
        if !self.is_live(boot) {
            return Vec::new();
        }
        let wanted = if request.alone {
            vec![(Lane::Alone, 1)]
        } else {
            vec![(Lane::Agents, request.agents), (Lane::Tools, request.tools)]
        };
        let except: HashSet<&str> = request.except.iter().map(String::as_str).collect();
        let (each, look) = (request.each.unwrap_or(usize::MAX), request.look.unwrap_or(usize::MAX));
        let mut taken_each: HashMap<String, usize> = HashMap::new();
        let mut best: Vec<(Reverse<i16>, i64, TaskId)> = Vec::new();
        for (lane, at_most) in wanted {
            let mut ready: BTreeMap<String, VecDeque<_>> = BTreeMap::new();
            for task in self.hot.iter().map(|(_, task)| task) {
                let open = task.is_ready(lane)
                    && !task.has_expired(self.now)
                    && self.may_claim(boot, task.partition);
                let queue = queue_of(&task.new.target);
                if open && !self.paused.has(&queue) {
                    let place =
                        (Reverse(task.new.priority), task.seq, task.new.id, task.new.target.to_string());
                    ready.entry(queue).or_default().push_back(place);
                }
            }
            ready.values_mut().for_each(|queue| queue.make_contiguous().sort_unstable());
            let queues = in_turn(ready.keys().cloned().collect(), &request.queues);
            let shared = share_out::<Infallible>(at_most, queues, |queue, n| {
                let Some(there) = ready.get_mut(queue) else { return Ok(0) };
                let (mut taken, mut passed) = (0, 0);
                there.retain(|(priority, seq, id, target)| {
                    if taken == n || passed > look {
                        return true;
                    }
                    let held = taken_each.entry(target.clone()).or_default();
                    if except.contains(target.as_str()) || (lane == Lane::Agents && *held >= each) {
                        passed += 1;
                        return true;
                    }
                    (*held, taken) = (*held + 1, taken + 1);
                    best.push((*priority, *seq, *id));
                    false
                });
                Ok(taken)
            });
            match shared {
                Ok(()) => {}
                Err(never) => match never {},
            }
        }
        best.sort_unstable();
        best.into_iter().filter_map(|(.., id)| self.take(boot, id, request.alone)).collect()
    }

    fn take(&mut self, boot: Uuid, id: TaskId, alone: bool) -> Option<Claimed> {
        let now = self.now;
        // any number, as long as it is drawn once
        let claim = ClaimId(self.next_seq());
        let task = self.hot.get_mut(&id)?;
        task.state = TaskState::Running;
        task.attempt += 1;
        task.claim = claim;
        (task.node, task.started_at, task.alone) = (Some(boot), Some(now), alone);
        Some(task.claimed())
    }

    /// Gives back what did not start, or may have and was broken off.
    pub(super) fn give_back(&mut self, boot: Uuid, claims: &[(TaskId, ClaimId)], begun: bool) {
        for (id, claim) in claims {
            let known = self.hot.get_mut(id).filter(|task| task.is_claimed(boot));
            if let Some(task) = known.filter(|task| task.claim == *claim) {
                let (attempt, started_at) = (task.attempt, task.started_at);
                let is_broken_off = begun && task.partition < 0;
                task.state = TaskState::Ready;
                task.attempt -= 1;
                task.started_at = task.started_at.filter(|_| task.attempt > 0);
                if is_broken_off {
                    task.new.run_at.get_or_insert(task.created_at);
                    task.new.expires_at = None;
                }
                task.let_go();
                if is_broken_off {
                    self.began(*id, started_at, attempt, Some(boot));
                    self.event(*id, "broken_off", attempt, Some(boot), Some(told::BROKEN_OFF));
                }
            }
        }
    }

    /// Moves what is due, dooms what has expired, ends the doomed that nobody is to be told of.
    pub(super) fn promote(&mut self) -> Result<Promoted, StoreError> {
        let ready = self.promote_due();
        let ready = ready + self.end_waits().map_err(|e| StoreError::Corrupt(e.to_string()))?;
        self.doom_expired();
        let mut cancelled = Vec::new();
        for task in self.doomed(true) {
            if let Some(why) = told::untold_end(task.why)
                && self.end_doomed(task.id, why).map_err(|e| StoreError::Corrupt(e.to_string()))?
            {
                cancelled.push(task);
            }
        }
        Ok(Promoted { ready, cancelled, next: self.next_due() })
    }

    fn promote_due(&mut self) -> u64 {
        let scheduled = self.hot.iter().filter(|(_, task)| task.state == TaskState::Scheduled);
        let mut due: Vec<(Timestamp, TaskId)> = scheduled
            .filter_map(|(id, task)| task.new.run_at.filter(|at| *at <= self.now).map(|at| (at, *id)))
            .collect();
        due.sort_unstable();
        let mut promoted = 0;
        for (_, id) in due.into_iter().take(MOVE_BATCH) {
            let seq = self.next_seq();
            if let Some(task) = self.hot.get_mut(&id) {
                (task.state, task.seq) = (TaskState::Ready, seq);
                promoted += u64::from(task.doom.is_none());
            }
        }
        promoted
    }

    /// Dooms what has expired before it began. What runs is looked at when it comes back, if it does.
    fn doom_expired(&mut self) {
        let now = self.now;
        for id in self.hot.some(MOVE_BATCH, |task| {
            task.state != TaskState::Running && task.new.expires_at.is_some_and(|at| at <= now)
        }) {
            if let Some(task) = self.hot.get_mut(&id) {
                if !task.has_begun() {
                    task.doom = task.doom.or(Some(Doom::Expired));
                }
                // where it has begun, its expiry has no meaning any more
                task.new.expires_at = None;
            }
        }
    }

    /// The doomed: those that the store may end by itself, or those that it may not.
    pub(super) fn doomed(&self, untold: bool) -> Vec<Doomed> {
        let idle = self.hot.iter().filter(|(_, task)| task.state != TaskState::Running);
        let doomed = idle.filter_map(|(id, task)| {
            // A tool's task that has run and was lost may have begun something that takes effect once: the runtime looks.
            let judged = match task.doom {
                Some(Doom::Cancelled) => task.lost > 0 && task.partition < 0,
                doom => doom == Some(Doom::Poison),
            };
            let may = task.new.notify.is_none() && !judged;
            let doomed = |why| Doomed { id: *id, target: task.new.target.clone(), why };
            task.doom.filter(|_| may == untold).map(doomed)
        });
        doomed.take(MOVE_BATCH).collect()
    }

    /// When the next task is due or expires.
    fn next_due(&self) -> Option<Timestamp> {
        if !self.doomed(true).is_empty() {
            return Some(Timestamp::UNIX_EPOCH);
        }
        let due = |task: &Task| task.new.run_at.filter(|_| task.state == TaskState::Scheduled);
        let expires = |task: &Task| task.new.expires_at.filter(|_| task.state != TaskState::Running);
        self.hot
            .iter()
            .flat_map(|(_, task)| due(task).into_iter().chain(expires(task)))
            .chain(self.next_wait_end())
            .min()
    }
}
