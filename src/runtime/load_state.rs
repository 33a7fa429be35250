//! Loads an agent's state, from the cache if its epoch and version match the store's.

use super::node::Node;
use crate::{
    cache::CachedState,
    model::{id::AgentId, snapshot},
    store::{AgentRow, StoreError},
};

impl Node {
    /// Reads an agent's row, with the cached state if it is of the same commit as the store's row.
    pub(crate) async fn load(&self, id: AgentId) -> Result<Option<AgentRow>, StoreError> {
        if let Some(cached) = self.cache.get_state(id).await {
            let head = self.loads.head(id).await?;
            match head {
                None => return Ok(None),
                Some(mut row) if cached.is(row.epoch, row.version) && is_whole(&cached, id) => {
                    row.bytes = cached.bytes.to_vec();
                    return Ok(Some(row));
                }
                Some(_) => self.cache.drop_state(id, cached.epoch, cached.version).await,
            }
        }
        self.loads.row(id).await
    }
}

/// Whether cached bytes are the snapshot that they claim to be: damaged bytes are a cache miss, not an agent to
/// quarantine.
fn is_whole(cached: &CachedState, id: AgentId) -> bool {
    let opened = snapshot::open(&cached.bytes);
    opened.is_ok_and(|(header, _)| header.matches(id, cached.epoch, cached.version).is_ok())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::snapshot::{Codec, Header};

    fn cached(agent: AgentId, version: i64, spoil: impl FnOnce(&mut Vec<u8>)) -> CachedState {
        let (mut bytes, header) =
            (Vec::new(), Header { codec: Codec::Json, agent, version, epoch: 3, schema_version: 1 });
        snapshot::begin(&header, &mut bytes);
        bytes.extend_from_slice(b"{}");
        snapshot::seal(&mut bytes).unwrap();
        spoil(&mut bytes);
        CachedState { epoch: 3, version: 7, bytes: Arc::new(bytes) }
    }

    #[test]
    fn only_a_whole_snapshot_of_that_very_commit_is_used_from_the_cache() {
        let (me, other) = (AgentId::of("tally", "a"), AgentId::of("tally", "b"));
        assert!(is_whole(&cached(me, 7, |_| {}), me));
        assert!(!is_whole(&cached(me, 7, |bytes| bytes.truncate(20)), me));
        assert!(!is_whole(&cached(me, 7, |bytes| *bytes.last_mut().unwrap() ^= 1), me));
        assert!(!is_whole(&cached(me, 7, Vec::clear), me));
        assert!(!is_whole(&cached(me, 6, |_| {}), me));
        assert!(!is_whole(&cached(other, 7, |_| {}), me));
    }
}
