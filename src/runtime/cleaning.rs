//! Deletes expired rows: once when the node starts, then once a minute.

use std::time::Duration;

use jiff::Timestamp;

use super::node::Node;
use crate::{clock, config, store::Past};

/// How often.
pub(super) const CLEANING_INTERVAL: Duration = Duration::from_secs(60);
/// How often in a row it goes on while it finds something.
const IN_A_ROW: usize = 100;

/// Forgets keys, ended tasks, acts, sessions and conversations. What cannot be forgotten now is the next time.
pub(super) async fn clean(node: &Node) {
    let now = clock::now();
    let ago = |d: Duration| now.checked_sub(d).unwrap_or(Timestamp::MIN);
    let settings = node.settings.load_full();
    let past = past(&settings.tasks, ago);
    for _ in 0..IN_A_ROW {
        match node.store.clean(now, past).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    let kept = settings.audit.retention;
    for _ in 0..IN_A_ROW {
        if kept.is_zero() || !matches!(node.store.forget_acts(ago(kept)).await, Ok(1..)) {
            break;
        }
    }
    let retention = settings.conversations.retention;
    let idle_since = (!retention.is_zero()).then(|| ago(retention));
    for _ in 0..IN_A_ROW {
        let Ok(forgotten) = node.store.forget(now, idle_since).await else { return };
        node.keeper.deleted(&forgotten.conversations).await;
        if forgotten.rows == 0 {
            return;
        }
    }
}

/// The moments before which ended tasks are forgotten. No dead letter is forgotten earlier than a task that
/// succeeded at the same time.
fn past(tasks: &config::Tasks, ago: impl Fn(Duration) -> Timestamp) -> Past {
    let failed = tasks.retention.max(tasks.retention_failed);
    Past { ended: ago(tasks.retention), failed: ago(failed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_dead_letter_goes_before_that_which_succeeded() {
        let mut tasks = config::load(&config::Sources::default()).unwrap().tasks;
        let ago = |d: Duration| Timestamp::UNIX_EPOCH.checked_sub(d).unwrap();
        let day = Duration::from_secs(86_400);
        assert_eq!(past(&tasks, ago), Past { ended: ago(7 * day), failed: ago(30 * day) });
        tasks.retention = 90 * day;
        assert_eq!(past(&tasks, ago), Past::before(ago(90 * day)));
        (tasks.retention, tasks.retention_failed) = (Duration::ZERO, day);
        assert_eq!(past(&tasks, ago), Past { ended: ago(Duration::ZERO), failed: ago(day) });
    }
}
