//! Schedules: no nominal time gets two tasks, and which get none.

use std::{collections::BTreeMap, time::Duration};

use greenroom::{
    model::{
        id::TaskId,
        schedule::{Misfire, Overlap, Schedule, ScheduleMove, Spec},
        task::{NewTask, TaskState},
    },
    store::MemoryStore,
};
use jiff::Timestamp;

use super::{Commit, Ledger, Source, claims::view};
use crate::{schedules, work::effect_of, world::dawn};

/// What became of a schedule's nominal times.
pub struct Fired {
    spec: Spec,
    overlap: Overlap,
    misfire: Misfire,
    /// The one that comes next.
    next: Option<Timestamp>,
    /// The tasks of those that were fired.
    fired: BTreeMap<Timestamp, TaskId>,
    /// The effects of those that somebody was about to fire.
    effects: BTreeMap<Timestamp, u32>,
}

impl Ledger {
    /// A schedule is there from the beginning.
    pub fn knows(&mut self, name: &'static str, schedule: &Schedule) {
        let d = &schedule.definition;
        let fired = Fired {
            spec: d.spec.parse().expect("a specification"),
            overlap: d.overlap,
            misfire: d.misfire,
            next: schedule.next_at,
            fired: BTreeMap::new(),
            effects: BTreeMap::new(),
        };
        self.schedules.insert(name, fired);
    }

    pub fn schedules(&self) -> Vec<&'static str> {
        self.schedules.keys().copied().collect()
    }

    /// The effect of the task of a nominal time, whoever fires that.
    pub fn nominal(&mut self, name: &str, at: Timestamp) -> u32 {
        let known = |ledger: &Self| ledger.schedules.get(name).and_then(|s| s.effects.get(&at).copied());
        if let Some(effect) = known(self) {
            return effect;
        }
        let effect = self.plan(schedules::target(name), Source::Nominal);
        if name == schedules::LONG {
            self.set_plan(effect, schedules::long());
        }
        if let Some(schedule) = self.schedules.get_mut(name) {
            schedule.effects.insert(at, effect);
        }
        effect
    }

    /// A person has held a schedule up, or let it go on.
    pub(super) fn put(&mut self, schedule: &Schedule) {
        let Some(known) = self.schedules.get_mut(&*schedule.name) else { return };
        let last = known.fired.keys().next_back().copied();
        known.next = schedule.next_at;
        let again = last.is_some_and(|last| schedule.next_at.is_some_and(|next| next <= last));
        self.must(!again, || format!("{} comes again, after {last:?}", schedule.name));
        self.note(if schedule.paused { "schedules held up" } else { "schedules let go on" });
    }

    /// Schedules that were moved on.
    pub(super) fn moved(&mut self, store: &MemoryStore, commit: Commit<'_>, now: Duration) {
        for unit in commit.durable() {
            let Some(to) = &unit.schedule else { continue };
            self.move_on(store, to, unit.accepted.first(), now);
        }
    }

    fn move_on(&mut self, store: &MemoryStore, to: &ScheduleMove, task: Option<&NewTask>, now: Duration) {
        let name = &to.name;
        let Some(known) = self.schedules.get_mut(&**name) else { return };
        let again = task.is_some_and(|task| known.fired.values().any(|id| *id == task.id))
            || (task.is_none() && known.next == to.next_at);
        if again {
            return; // sent again
        }
        let (next, misfire, overlap) = (known.next, known.misfire, known.overlap);
        let last = known.fired.last_key_value().map(|(at, id)| (*at, *id));
        let (fired, moved_to) = (to.fired.map(|(at, _)| at), to.next_at);
        known.next = to.next_at;
        let mut wrong = Vec::new();
        if next != Some(to.from) {
            wrong.push(format!("moves on from {}, and stood at {next:?}", to.from));
        }
        let to_come = known.spec.next(fired.unwrap_or(to.from));
        if fired.is_some() && moved_to != to_come {
            wrong.push(format!("moves on to {moved_to:?}, not {to_come:?}"));
        }
        if let (Some(at), Some(task)) = (fired, task) {
            let just_before = at - Duration::from_secs(1);
            if known.spec.next(just_before) != Some(at) {
                wrong.push(format!("fires {at}, which is no time of it"));
            }
            if known.fired.insert(at, task.id).is_some() || last.is_some_and(|(last, _)| last >= at) {
                wrong.push(format!("fires {at} again"));
            }
            if misfire == Misfire::All && at != to.from {
                wrong.push(format!("leaves {} out", to.from));
            }
            let missed = at != to.from;
            let state = |(_, id): (Timestamp, TaskId)| view(store, id).map(|view| view.state);
            let open = last.and_then(state).filter(|state| !state.is_final());
            let waits = task.after == last.iter().map(|(_, id)| *id).collect::<Vec<_>>();
            match (overlap, open) {
                (Overlap::Skip, Some(state)) if self.was_never_back(last.map(|(_, id)| id)) => {
                    wrong.push(format!("fires {at} while its last task is {state:?}"));
                }
                (Overlap::QueueOne, Some(TaskState::Blocked)) => {
                    wrong.push(format!("has two tasks wait, by {at}"));
                }
                (Overlap::QueueOne, Some(_)) if !waits && self.was_never_back(last.map(|(_, id)| id)) => {
                    wrong.push(format!("does not have {at} wait for the one before"));
                }
                _ => {}
            }
            if overlap == Overlap::QueueOne && !task.after.is_empty() {
                self.note("firings that wait");
            }
            self.note("fired");
            if missed {
                self.note("missed");
            }
            self.heard(effect_of(&task.message, &task.input));
        } else {
            self.note("overlapped");
            if overlap == Overlap::Allow {
                wrong.push(format!("leaves {} out, at {now:?}", to.from));
            }
        }
        wrong.into_iter().for_each(|what| self.must(false, || format!("{name} {what}")));
    }

    fn was_never_back(&self, id: Option<TaskId>) -> bool {
        id.and_then(|id| self.tasks.get(&id)).is_none_or(|known| known.back == 0)
    }

    /// Whether each nominal time within these moments got its task, where nothing stood in its way.
    pub fn fired_all(&mut self, from: Duration, to: Duration) {
        let mut wrong = Vec::new();
        for (name, schedule) in &self.schedules {
            let (from, to) = (dawn() + from, dawn() + to);
            for at in schedule.spec.upcoming(from).take_while(|at| *at < to) {
                // an earlier task had not ended when it came, or a little later, when it was looked at
                let after = at + Duration::from_millis(1_500);
                let stood = schedule.fired.range(..at).any(|(_, id)| {
                    let known = self.tasks.get(id);
                    known.is_some_and(|k| k.back > 0 || k.ended.is_none_or(|(_, when)| dawn() + when >= at))
                });
                let may_be_left_out = schedule.overlap != Overlap::Allow && stood;
                if !may_be_left_out && !schedule.fired.contains_key(&at) && after < to {
                    wrong.push(format!("{name} did not come at {at}"));
                }
            }
        }
        wrong.into_iter().for_each(|what| self.must(false, || what));
    }
}
