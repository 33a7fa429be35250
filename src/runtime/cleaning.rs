//! Forgetting what has had its time: once when the node starts, then once a minute.

use std::time::Duration;

use jiff::Timestamp;

use super::node::Node;
use crate::clock;

/// How often.
pub(super) const EVERY: Duration = Duration::from_secs(60);
/// How often in a row it goes on while it finds something.
const IN_A_ROW: usize = 100;

/// Forgets keys, ended tasks, sessions and conversations. What cannot be forgotten now is the next time.
pub(super) async fn clean(node: &Node) {
    let now = clock::now();
    let ago = |d: Duration| now.checked_sub(d).unwrap_or(Timestamp::MIN);
    for _ in 0..IN_A_ROW {
        match node.store.clean(now, ago(node.settings.tasks.retention)).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    let retention = node.settings.conversations.retention;
    let idle_since = (!retention.is_zero()).then(|| ago(retention));
    for _ in 0..IN_A_ROW {
        let Ok(forgotten) = node.store.forget(now, idle_since).await else { return };
        node.keeper.deleted(&forgotten.conversations).await;
        if forgotten.rows == 0 {
            return;
        }
    }
}
