//! Tasks as they are counted from outside: their claims, their ends, who cancels them.

use std::{collections::BTreeSet, time::Duration};

use futures_util::FutureExt as _;
use greenroom::{
    model::{
        id::{Target, TaskId},
        task::{ClaimId, Claimed, NewTask, TaskState, TaskView, queue_of},
    },
    store::{CancelFound, Finish, FinishOutcome, Guard, MemoryStore, Store as _},
};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Commit, Ledger};
use crate::{
    op::{Op, short},
    work::{TOOL, effect_of, tool},
};

/// A claim that has not ended.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    pub boot: Uuid,
    pub alone: bool,
    pub claim: ClaimId,
}

/// What a task has come to.
pub struct Known {
    pub effect: u32,
    pub attempt: u32,
    pub lost: u32,
    pub lost_alone: u32,
    pub open: Option<Open>,
    /// How it ended, and when.
    pub ended: Option<(TaskState, Duration)>,
    /// The tasks that it comes after.
    pub parents: BTreeSet<TaskId>,
    /// Those of them whose end it waits for.
    pub after: BTreeSet<TaskId>,
    /// Whether it ends with one of these.
    pub with_parents: bool,
    /// One of them did not succeed, and it is to end too.
    pub doomed: bool,
    /// It is not to begin at that time or after it.
    pub expires_at: Option<Timestamp>,
    /// It has begun, as far as anybody knows: it does not expire any more.
    pub begun: bool,
    /// Somebody wanted it cancelled, at some time.
    pub unwanted: bool,
    /// That was written down while it ran.
    pub flagged: bool,
    /// Somebody was told that it is cancelled.
    pub cancelled: bool,
    /// A person has said how it ended.
    pub resolved: bool,
    /// How often a person has brought it back.
    pub back: u32,
    /// It is not to run before.
    not_before: Option<Timestamp>,
}

impl Known {
    pub fn of(task: &NewTask, effect: u32) -> Self {
        Self {
            effect,
            attempt: 0,
            lost: 0,
            lost_alone: 0,
            open: None,
            ended: None,
            parents: task.after.iter().copied().collect(),
            after: BTreeSet::new(),
            with_parents: task.on_parent_failed == greenroom::model::task::OnParentFailed::Cancel,
            doomed: false,
            expires_at: task.expires_at,
            begun: false,
            unwanted: false,
            flagged: false,
            cancelled: false,
            resolved: false,
            back: 0,
            not_before: task.run_at,
        }
    }

    /// Whether it may end because it has expired.
    pub fn may_expire(&self) -> bool {
        self.expires_at.is_some() && !self.begun
    }
}

/// The end of a claim under its attempt, in a commit of this boot.
fn end_of<'a>(commit: Commit<'a>, id: TaskId, attempt: u32) -> Option<&'a Finish> {
    let guard = Guard::Running { attempt };
    let mut ends = commit.durable().flat_map(|unit| &unit.finished);
    ends.find(|end| end.task == id && end.guard == guard)
}

impl Ledger {
    /// A boot has a new claim.
    pub(super) fn claimed(&mut self, boot: Uuid, alone: bool, claim: &Claimed, wall: Timestamp) {
        let id = claim.id;
        let t = short(id.0);
        self.joined_in_time(claim);
        let skew = SignedDuration::from_millis(self.skew_ms);
        let queue = queue_of(&claim.target);
        let paused = self.paused.get(&queue).copied().unwrap_or(false);
        self.must(!paused, || format!("t{t} of {queue} is claimed, which is paused"));
        let effect = effect_of(&claim.message, &claim.input);
        let Some(known) = self.tasks.get_mut(&id) else {
            // the store itself made it: it tells of the end of a batch
            let mut known = Known::of(&crate::work::task(id, claim.target.clone(), effect), effect);
            (known.attempt, known.open) = (1, Some(Open { boot, alone, claim: claim.claim }));
            self.tasks.insert(id, known);
            return;
        };
        known.attempt += 1;
        let before = known.open.replace(Open { boot, alone, claim: claim.claim });
        let (attempt, lost, flagged, due) = (known.attempt, known.lost, known.flagged, known.not_before);
        let waits = (!known.after.is_empty() || known.doomed).then(|| format!("{:?}", known.after));
        let ended = known.ended;
        self.must(before.is_none(), || format!("t{t} is claimed twice at once"));
        self.must(ended.is_none(), || format!("t{t} is claimed after its end: {ended:?}"));
        self.must((claim.attempt, claim.lost) == (attempt, lost), || {
            let found = (claim.attempt, claim.lost);
            format!("t{t} is {found:?}, attempt and lost, not {:?}", (attempt, lost))
        });
        let fits = (lost >= 2) == alone;
        self.must(fits, || format!("t{t}, lost {lost} times, alone or not"));
        self.must(!flagged, || format!("t{t} is claimed after somebody cancelled it while it ran"));
        self.must(waits.is_none(), || format!("t{t} runs and should not: it comes after {waits:?}"));
        self.must(due.is_none_or(|due| due <= wall + skew), || {
            format!("t{t} runs at {wall}, before {due:?}")
        });
        self.reads_its_journal(id);
    }

    /// A task begins: a turn, or a call of a tool.
    pub fn starts(&mut self, id: TaskId, wall: Timestamp) {
        let skew = SignedDuration::from_millis(self.skew_ms);
        let Some(known) = self.tasks.get(&id) else { return };
        let late = known.expires_at.filter(|at| !known.begun && *at <= wall - skew);
        self.must(late.is_none(), || format!("t{} begins at {wall}, after {late:?}", short(id.0)));
    }

    /// Looks which claims have ended, and whether they were those to end them; tells how many were lost.
    pub(super) fn settle(&mut self, store: &MemoryStore, commit: Option<Commit<'_>>, op: &Op) -> u64 {
        let mut rescued = 0;
        let mut wrong = Vec::new();
        let effects = &self.effects;
        let is_tool = |effect: u32| {
            effects.get(effect as usize).is_some_and(|effect| matches!(effect.target, Target::Tool(_)))
        };
        for (id, known) in &mut self.tasks {
            let Some(open) = known.open else { continue };
            let Some(view) = view(store, *id) else {
                wrong.push(format!("t{} is gone", short(id.0)));
                continue;
            };
            if view.state == TaskState::Running {
                continue;
            }
            known.open = None;
            let attempt = known.attempt;
            match (op, commit) {
                (Op::Join(_) | Op::Renew(_), _) => {
                    rescued += 1;
                    known.lost += 1;
                    known.lost_alone += u32::from(open.alone);
                    // of a turn that was lost nothing has happened
                    known.begun |= is_tool(known.effect);
                }
                (Op::GiveBack(back), _) => {
                    known.attempt -= 1;
                    if !back.contains(&(*id, open.claim)) {
                        wrong.push(format!("t{} was given back by an earlier claim", short(id.0)));
                    }
                }
                (_, Some(commit)) => {
                    let mine = open.boot == commit.boot;
                    let waits = commit.durable().filter_map(|unit| unit.journal.as_ref()).any(|write| {
                        !write.waits.is_empty() && (write.task, write.claim) == (*id, open.claim)
                    });
                    match end_of(commit, *id, attempt).filter(|_| mine) {
                        Some(Finish { outcome: FinishOutcome::Parked, .. }) => known.attempt -= 1,
                        Some(Finish { outcome: FinishOutcome::Retry { run_at, .. }, .. }) => {
                            known.not_before = Some(*run_at);
                            known.begun = true;
                        }
                        Some(_) => known.begun = true,
                        None if waits && mine => {
                            known.attempt -= 1;
                            known.begun = true;
                        }
                        None => wrong.push(format!("t{} was ended by one who does not hold it", short(id.0))),
                    }
                }
                _ => {}
            }
            if (view.attempt, view.lost) != (known.attempt, known.lost) {
                let (found, counted) = ((view.attempt, view.lost), (known.attempt, known.lost));
                wrong.push(format!("t{} is {found:?}, attempt and lost, not {counted:?}", short(id.0)));
            }
        }
        wrong.into_iter().for_each(|what| self.must(false, || what));
        *self.busy.entry("rescued").or_default() += rescued;
        rescued
    }

    /// Which tasks have come to their end by a commit.
    pub(super) fn ended_by(&mut self, store: &MemoryStore, commit: Commit<'_>, now: Duration) {
        for end in commit.durable().flat_map(|unit| &unit.finished) {
            if matches!(end.outcome, FinishOutcome::OutcomeUnknown { .. }) {
                self.note("interrupted");
            }
            let said = match &end.outcome {
                FinishOutcome::Succeeded { .. } => true,
                FinishOutcome::Failed { error } => error.code == "resolved",
                _ => false,
            };
            let open = |known: &&mut Known| known.ended.is_none() && said && end.guard == Guard::Idle;
            if let Some(known) = self.tasks.get_mut(&end.task).filter(open) {
                known.resolved = true;
                self.note("resolved");
            }
            self.has_ended(store, end.task, now);
        }
    }

    /// The store has ended those that nobody is to be told of.
    pub(super) fn swept(&mut self, store: &MemoryStore, now: Duration) {
        let may = |known: &Known| known.doomed || known.may_expire() || known.unwanted;
        let open = self.tasks.iter().filter(|(_, known)| known.ended.is_none() && may(known));
        let open: Vec<TaskId> = open.map(|(id, _)| *id).collect();
        open.into_iter().for_each(|id| self.has_ended(store, id, now));
    }

    fn has_ended(&mut self, store: &MemoryStore, id: TaskId, now: Duration) {
        let Some(view) = view(store, id).filter(|view| view.state.is_final()) else { return };
        let Some(known) = self.tasks.get_mut(&id).filter(|known| known.ended.is_none()) else { return };
        known.ended = Some((view.state, now));
        let (doomed, unwanted, expired) = (known.doomed, known.unwanted, known.may_expire());
        self.parent_ended(id, view.state);
        match view.state {
            TaskState::Cancelled if doomed => self.note("children cancelled"),
            TaskState::Cancelled if unwanted => self.note("cancelled"),
            TaskState::Cancelled if expired => self.note("expired"),
            TaskState::Succeeded => self.note("succeeded"),
            TaskState::Failed => self.note("dead letters"),
            _ => {}
        }
    }

    /// The tasks of a target wait for it, and for no moment any more.
    pub(super) fn parked(&mut self, target: &str) {
        let effects = &self.effects;
        let of = |known: &&mut Known| {
            effects.get(known.effect as usize).is_some_and(|effect| effect.target.to_string() == target)
        };
        self.tasks.values_mut().filter(of).for_each(|known| known.not_before = None);
    }

    /// Somebody wants a task to end.
    pub(super) fn cancels(&mut self, id: TaskId, found: CancelFound) {
        let Some(known) = self.tasks.get_mut(&id) else { return };
        known.unwanted |= known.ended.is_none();
        known.flagged |= found == CancelFound::Running;
    }

    /// Somebody has heard that a task is cancelled.
    pub fn hears_of_cancel(&mut self, store: &MemoryStore, id: TaskId) {
        let state = view(store, id).map(|view| view.state);
        let Some(known) = self.tasks.get_mut(&id) else { return };
        // who hears of it late may hear of what was: it may have been brought back since
        if known.back == 0 {
            known.cancelled = true;
            let t = short(id.0);
            self.must(state == Some(TaskState::Cancelled), || {
                format!("t{t} is {state:?}, and somebody was told that it is cancelled")
            });
        }
    }

    /// A person has brought a task back.
    pub(super) fn brought_back(&mut self, id: TaskId) {
        let Some(known) = self.tasks.get(&id) else { return };
        let is_open = |parent: &&TaskId| self.tasks.get(parent).is_some_and(|known| known.ended.is_none());
        // one that waited for a person had run: those that it comes after had ended
        let after = match known.ended {
            Some(_) => known.parents.iter().filter(is_open).copied().collect(),
            None => BTreeSet::new(),
        };
        let Some(known) = self.tasks.get_mut(&id) else { return };
        (known.attempt, known.lost, known.lost_alone) = (0, 0, 0);
        // who cancels it may do so once more, by a call that comes late
        (known.flagged, known.cancelled) = (false, false);
        (known.doomed, known.begun, known.expires_at) = (false, false, None);
        known.after = after;
        (known.ended, known.not_before, known.resolved) = (None, None, false);
        known.back += 1;
        self.open_again(id);
        self.note("brought back");
    }

    /// The tasks that a client may know of, and whether each has ended.
    pub fn known_tasks(&self) -> impl Iterator<Item = (TaskId, Option<TaskState>)> {
        self.tasks.iter().map(|(id, known)| (*id, known.ended.map(|(state, _)| state)))
    }

    /// Whether a tool's effect may have happened that happens once, and nobody has said whether it has.
    pub fn may_be_paid(&self, id: TaskId) -> bool {
        let pays = |known: &Known| self.target(known.effect) == tool(TOOL) && known.lost > 0;
        self.begun(id).is_some() || self.tasks.get(&id).is_some_and(pays)
    }

    /// The kinds and tools that are paused.
    pub fn paused(&self) -> Vec<String> {
        self.paused.iter().filter(|(_, paused)| **paused).map(|(queue, _)| queue.clone()).collect()
    }

    /// Whether a task is claimed.
    pub fn runs_now(&self, id: TaskId) -> bool {
        self.tasks.get(&id).is_some_and(|known| known.open.is_some())
    }

    /// Whether a tool's effect happened.
    pub fn was_paid(&self, effect: u32) -> bool {
        self.paid.contains_key(&effect)
    }

    /// The effect of a task.
    pub fn effect_of(&self, id: TaskId) -> Option<u32> {
        self.tasks.get(&id).map(|known| known.effect)
    }
}

/// A task in the store.
pub fn view(store: &MemoryStore, id: TaskId) -> Option<TaskView> {
    store.task(id).now_or_never().and_then(Result::ok).flatten()
}
