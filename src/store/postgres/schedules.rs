//! Schedules. How one is moved on stands beside its function, in `migrations/postgres`.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{call::MoveArguments, commit::wire, error};
use crate::{model::schedule::ScheduleMove, store::schedules::schedule_statements};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

fn written_error(e: diesel::result::Error) -> StoreError {
    error::of_commit(&e)
}

schedule_statements!(AsyncPgConnection, [async], [.await]);

impl<'a> MoveArguments<'a> {
    /// How a unit moves a schedule on.
    pub(super) fn of(n: usize, to: &'a ScheduleMove) -> Self {
        Self {
            unit: wire(n),
            name: &to.name,
            revision: Some(Id(to.revision)),
            from: Some(micros(to.from)),
            next: to.next_at.map(micros),
            fired: to.fired.map(|(at, _)| micros(at)),
            task: to.fired.map(|(_, task)| Id::from(task)),
        }
    }
}

/// Where schedules stand: revision, and the nominal time to come.
pub(super) type Places = HashMap<String, (Id, Option<Micros>)>;

/// Where these schedules stand.
pub(super) async fn places(conn: &mut AsyncPgConnection, names: &[&str]) -> QueryResult<Places> {
    use greenroom_schedules::dsl;
    let rows = dsl::greenroom_schedules.filter(dsl::name.eq_any(names));
    let rows: Vec<(String, (Id, Option<Micros>))> =
        RunQueryDsl::load(rows.select((dsl::name, (dsl::revision, dsl::next_at))), conn).await?;
    Ok(rows.into_iter().collect())
}

/// Whether a schedule stands where this very move leads.
pub(super) fn is_moved(places: &Places, to: &ScheduleMove) -> bool {
    places.get(&to.name) == Some(&(Id(to.revision), to.next_at.map(micros)))
}
