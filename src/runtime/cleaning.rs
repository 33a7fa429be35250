//! Deletes expired rows: once when the node starts, then once a minute.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::node::Node;
use crate::{clock, config, store::Past};

/// How often.
pub(super) const CLEANING_INTERVAL: Duration = Duration::from_secs(60);
/// For how long it goes on while it finds something.
const AT_MOST: Duration = Duration::from_secs(50);

/// Forgets keys, ended tasks, acts, sessions and conversations, in small steps. What is left in the end is the next
/// time's.
pub(super) async fn clean(node: &Node) {
    let now = clock::now();
    let ago = |d: Duration| now.checked_sub(d).unwrap_or(Timestamp::MIN);
    let settings = node.settings.load_full();
    let past = past(&settings.tasks, ago);
    let (acts, talks) = (settings.audit.retention, settings.conversations.retention);
    let idle_since = (!talks.is_zero()).then(|| ago(talks));
    let tasks = go_on(async || matches!(node.store.clean(now, past).await, Ok(1..)));
    let audit = go_on(async || !acts.is_zero() && matches!(node.store.forget_acts(ago(acts)).await, Ok(1..)));
    let talked = go_on(async || {
        let Ok(forgotten) = node.store.forget(now, idle_since).await else { return false };
        node.keeper.deleted(&forgotten.conversations).await;
        forgotten.rows > 0
    });
    futures_util::join!(tasks, audit, talked);
}

/// Goes on while a step finds something, and rests after each for as long as it took.
async fn go_on(mut step: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < AT_MOST {
        let step_begun = Instant::now();
        if !step().await {
            return;
        }
        tokio::time::sleep(step_begun.elapsed()).await;
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

    #[tokio::test(start_paused = true)]
    async fn a_clean_up_takes_half_of_the_time_and_not_all_of_the_minute() {
        let (mut steps, begun) = (0, Instant::now());
        go_on(async || {
            steps += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
            true
        })
        .await;
        assert_eq!((steps, begun.elapsed().as_secs()), (25, 50));
        let mut left = 3;
        go_on(async || {
            left -= 1;
            left > 0
        })
        .await;
        assert_eq!(left, 0, "it ends when nothing is found");
    }

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
