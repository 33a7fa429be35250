//! The states of agents: each stands upon the one before it, and was written by the owner.

use futures_util::FutureExt as _;
use greenroom::{
    model::id::AgentId,
    store::{MemoryStore, StateWrite, Store as _, Unit},
};

use super::{Commit, Ledger};
use crate::{
    cell::read,
    node::partition,
    work::{KEYS, KIND},
};

/// An agent in the store: version, epoch, state.
type Head = (i64, i64, Vec<u32>);

/// What the store held before a commit.
pub struct Heads(Vec<(&'static str, Head)>);

impl Heads {
    pub fn of(store: &MemoryStore, units: &[Unit]) -> Self {
        let written = |key: &&'static str| {
            let writes = |unit: &Unit| unit.state.as_ref().is_some_and(|s| *s.key == **key);
            units.iter().any(writes)
        };
        Self(KEYS.into_iter().filter(written).map(|key| (key, head(store, key))).collect())
    }
}

impl Ledger {
    pub(super) fn committed(&mut self, store: &MemoryStore, commit: Commit<'_>, before: &Heads) {
        for (key, (version, _, state)) in &before.0 {
            let (new_version, new_epoch, new_state) = head(store, key);
            if new_version == *version {
                let same = new_state == *state;
                self.must(same, || format!("{key} v{version} has changed without a new version"));
                continue;
            }
            self.note("durable");
            let next = *version + 1;
            self.must(new_version == next, || format!("{key} went from v{version} to v{new_version}"));
            let owner = self.beliefs.epoch(partition(key));
            self.must(new_epoch == owner, || {
                format!("{key} v{new_version} was committed under epoch {new_epoch}, when it was {owner}")
            });
            self.must(new_state.starts_with(state), || {
                format!("{key} v{new_version} is {new_state:?}, and forgets something of {state:?}")
            });
            let fits = |s: &StateWrite| *s.key == **key && (s.base_version, s.epoch) == (*version, new_epoch);
            let written = commit.durable().any(|unit| unit.state.as_ref().is_some_and(fits));
            self.must(written, || format!("{key} v{new_version} is what nobody wrote"));
            let mut twice = new_state.clone();
            twice.sort_unstable();
            let twice = twice.windows(2).find_map(|pair| (pair[0] == pair[1]).then_some(pair[0]));
            self.must(twice.is_none(), || format!("effect {twice:?} is twice in {key} v{new_version}"));
        }
    }
}

/// An agent in the store.
pub fn head(store: &MemoryStore, key: &str) -> Head {
    let loaded = store.load(&[AgentId::of(KIND, key)]).now_or_never();
    let row = loaded.and_then(Result::ok).and_then(|mut rows| rows.pop().flatten());
    row.filter(|row| row.version > 0)
        .map_or((0, 0, Vec::new()), |row| (row.version, row.epoch, read(&row.bytes)))
}
