//! Schedules, and how they are moved on.

use jiff::Timestamp;
use uuid::Uuid;

use super::state::{State, exact};
use crate::{
    model::schedule::{Schedule, ScheduleMove},
    store::{Refusal, schedules::DUE_AT_ONCE},
};

impl State {
    /// All, by name.
    pub(super) fn schedules(&self) -> Vec<Schedule> {
        self.schedules.iter().map(|(_, schedule)| schedule.clone()).collect()
    }

    /// Those that are due, and when the next of all others is.
    pub(super) fn due_schedules(&self, now: Timestamp) -> (Vec<Schedule>, Option<Timestamp>) {
        let live = self.schedules.iter().map(|(_, s)| s).filter(|s| !s.paused);
        let (mut due, later): (Vec<_>, Vec<_>) =
            live.filter_map(|s| Some((s.next_at?, s))).partition(|(next, _)| *next <= now);
        due.sort_by_key(|(next, _)| *next);
        let due = due.into_iter().take(DUE_AT_ONCE).map(|(_, s)| s.clone()).collect();
        (due, later.into_iter().map(|(next, _)| next).min())
    }

    /// Writes one over the one that was read, or as a new one.
    pub(super) fn put_schedule(&mut self, schedule: &Schedule, over: Option<&Schedule>) -> bool {
        let known = self.schedules.get(&schedule.name);
        let place = |s: &Schedule| (s.revision, s.next_at);
        let is_as_read = known.map(place) == over.map(place);
        let is_own = known.is_some_and(|s| s.revision == schedule.revision);
        if is_as_read {
            let (created_at, updated_at) = (exact(schedule.created_at), exact(schedule.updated_at));
            let row = Schedule { created_at, updated_at, ..schedule.clone() };
            self.schedules.insert(schedule.name.clone(), row);
        }
        is_as_read || is_own
    }

    /// Removes that of a revision.
    pub(super) fn remove_schedule(&mut self, name: &str, revision: Uuid) -> bool {
        let name = name.to_owned();
        let there = self.schedules.get(&name).is_some_and(|s| s.revision == revision);
        there && self.schedules.remove(&name).is_some()
    }

    /// Moves one on, if it is as it was read.
    pub(super) fn move_schedule(&mut self, to: &ScheduleMove) -> Result<(), Refusal> {
        let as_read =
            |s: &&mut Schedule| s.revision == to.revision && s.next_at == Some(to.from) && !s.paused;
        let Some(schedule) = self.schedules.get_mut(&to.name).filter(as_read) else {
            return Err(Refusal::ScheduleMoved(to.name.clone()));
        };
        schedule.next_at = to.next_at;
        if let Some((at, task)) = to.fired {
            (schedule.last_at, schedule.last_task) = (Some(at), Some(task));
        }
        Ok(())
    }

    /// Whether one stands where this very move leads.
    pub(super) fn is_moved(&self, to: &ScheduleMove) -> bool {
        let there = self.schedules.get(&to.name);
        there.is_some_and(|s| s.revision == to.revision && s.next_at == to.next_at)
    }
}
