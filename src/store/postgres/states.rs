//! Units that only write an agent's next state.

use diesel::QueryResult;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use jiff::Timestamp;

use super::{
    call::StatesCall,
    commit::{Keeping, wire},
    values::micros,
};
use crate::{
    model::snapshot,
    store::{StateWrite, Unit},
};

/// Whether the unit is nothing but the next state of an agent: its update is all that can be refused.
pub(super) fn is_state_alone(unit: &Unit) -> bool {
    let next = |state: &StateWrite| {
        state.base_version > 0 && unit.owner.is_none_or(|owner| owner == (state.id.partition(), state.epoch))
    };
    unit.state.as_ref().is_some_and(next)
        && unit.finished.is_empty()
        && unit.accepted.is_empty()
        && unit.batches.is_empty()
        && unit.keys.is_empty()
        && !unit.has_entities()
        && unit.subscriptions.is_empty()
        && unit.journal.is_none()
        && unit.schedule.is_none()
}

impl<'a> StatesCall<'a> {
    /// The states of a wave whose units are nothing else.
    fn of(units: &'a [Unit], wave: &[usize], keeping: &Keeping) -> Self {
        let mut call = Self { history: keeping.kept(), ..Self::default() };
        let now = micros(Timestamp::now());
        for n in wave {
            let Some(state) = units.get(*n).and_then(|unit| unit.state.as_ref()) else { continue };
            call.unit.push(wire(*n));
            call.id.push(state.id.into());
            call.partition.push(state.id.partition());
            call.epoch.push(state.epoch);
            call.base.push(state.base_version);
            call.schema.push(i64::from(state.schema_version));
            call.state.push(snapshot::pack(&state.bytes, keeping.packed_from));
            call.keep.push(keeping.keeps(state, now));
        }
        call
    }
}

/// Writes the states of a wave of such units: which of them were fenced.
pub(super) async fn write(
    conn: &mut AsyncPgConnection,
    keeping: &Keeping,
    units: &[Unit],
    wave: &[usize],
) -> QueryResult<Vec<usize>> {
    let call = StatesCall::of(units, wave, keeping);
    let met: Vec<i32> = RunQueryDsl::load(call, conn).await?;
    if met.len() == wave.len() {
        return Ok(Vec::new());
    }
    Ok(wave.iter().filter(|n| !met.contains(&wire(**n))).copied().collect())
}
