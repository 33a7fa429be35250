//! Schedules, and how they are moved on.

use diesel::prelude::*;

use super::{commit::Stop, error, tx::Tx};
use crate::{
    model::schedule::ScheduleMove,
    store::{Refusal, schedules::schedule_statements},
};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

// the transaction around it says what became of it
use sql as written_error;

schedule_statements!(SqliteConnection, [], []);

impl Tx<'_> {
    /// Moves one on, if it is as it was read.
    pub(super) fn move_schedule(&mut self, to: &ScheduleMove) -> Result<(), Stop> {
        use greenroom_schedules::dsl;
        let row = dsl::greenroom_schedules
            .find(&to.name)
            .filter(dsl::revision.eq(Id(to.revision)))
            .filter(dsl::next_at.eq(micros(to.from)))
            .filter(dsl::paused.eq(false));
        let next = dsl::next_at.eq(to.next_at.map(micros));
        let met = match to.fired {
            Some((at, task)) => {
                let last = (dsl::last_at.eq(micros(at)), dsl::last_task.eq(Id::from(task)));
                diesel::update(row).set((next, last)).execute(self.conn)?
            }
            None => diesel::update(row).set(next).execute(self.conn)?,
        };
        if met == 1 { Ok(()) } else { Err(Refusal::ScheduleMoved(to.name.clone()).into()) }
    }

    /// Whether one stands where this very move leads.
    pub(super) fn is_moved(&mut self, to: &ScheduleMove) -> QueryResult<bool> {
        use greenroom_schedules::dsl;
        let row = dsl::greenroom_schedules.find(&to.name).select((dsl::revision, dsl::next_at));
        let found: Option<(Id, Option<Micros>)> = row.first(self.conn).optional()?;
        Ok(found == Some((Id(to.revision), to.next_at.map(micros))))
    }
}
