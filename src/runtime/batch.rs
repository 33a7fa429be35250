//! How much is committed at once.

use crate::store::{FinishOutcome, Unit};

/// At most so many units with a state a transaction, or twice as many without: more adds latency and hardly speed.
pub(super) const MAX_BATCH: usize = 256;
/// At most so many units without a state, where others commit beside them: each transaction waits for the disk.
const MAX_PLAIN_BATCH: usize = 2_048;
/// At most so many bytes of states, inputs and results a transaction, or one unit: a database bounds its messages.
const MAX_BATCH_BYTES: usize = 64 << 20;

/// How many of those who wait make a batch. `alone`: nobody else commits while this writer does.
pub(super) fn batch_of<'u>(waiting: impl Iterator<Item = &'u Unit>, alone: bool) -> usize {
    let plain = if alone { 2 * MAX_BATCH } else { MAX_PLAIN_BATCH };
    let (mut room, mut bytes) = (plain, 0_usize);
    let fits = |unit: &&Unit| {
        let is_first = bytes == 0;
        let takes = if unit.state.is_some() { plain / MAX_BATCH } else { 1 };
        bytes = bytes.saturating_add(bytes_of(unit));
        let has_room = room.checked_sub(takes).map(|left| room = left).is_some();
        has_room && (is_first || bytes <= MAX_BATCH_BYTES)
    };
    waiting.take_while(fits).count()
}

fn bytes_of(unit: &Unit) -> usize {
    let states = unit.state.iter().map(|state| state.bytes.len());
    let inputs = unit.accepted.iter().map(|task| task.input.get().len());
    let results = unit.finished.iter().map(|finish| match &finish.outcome {
        FinishOutcome::Succeeded { result } => result.len(),
        _ => 0,
    });
    states.chain(inputs).chain(results).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        model::{
            id::{AgentId, Target},
            task::NewTask,
        },
        store::StateWrite,
    };

    #[test]
    fn a_batch_has_more_units_without_a_state() {
        let state = StateWrite {
            id: AgentId::of("tally", "a"),
            kind: "tally".into(),
            key: "a".into(),
            epoch: 1,
            base_version: 1,
            schema_version: 1,
            bytes: Arc::default(),
            keeps_base: false,
        };
        let turn = || Unit { state: Some(state.clone()), ..Unit::default() };
        let all = |turns: usize, ends: usize| {
            let units: Vec<Unit> =
                (0..turns).map(|_| turn()).chain((0..ends).map(|_| Unit::default())).collect();
            [true, false].map(|alone| batch_of(units.iter(), alone))
        };
        assert_eq!((all(0, 0), all(3, 4)), ([0; 2], [7; 2]));
        assert_eq!(all(1_000, 0), [MAX_BATCH; 2]);
        assert_eq!(all(0, 5_000), [2 * MAX_BATCH, MAX_PLAIN_BATCH]);
        assert_eq!(all(200, 1_000), [200 + 112, 200 + 448]);
    }

    #[test]
    fn a_batch_has_few_large_units_and_one_at_least() {
        let input = |bytes: usize| {
            let text = format!("\"{}\"", "x".repeat(bytes - 2));
            let input = serde_json::value::RawValue::from_string(text).unwrap();
            let task = NewTask::new(Target::Tool("t".into()), "", input, 1);
            Unit { accepted: vec![task], ..Unit::default() }
        };
        let units = |bytes, n| -> Vec<Unit> { vec![input(bytes); n] };
        assert_eq!(batch_of(units(MAX_BATCH_BYTES / 4, 9).iter(), false), 4);
        assert_eq!(batch_of(units(MAX_BATCH_BYTES + 1, 2).iter(), false), 1);
    }
}
