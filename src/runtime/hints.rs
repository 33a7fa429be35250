//! Hints between nodes that share a store: that there is work for another one. They only save the time
//! until the dispatcher looks by itself.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::node::Node;
use crate::{
    model::event::{Event, Level},
    store::Hint,
};

/// Tasks may be ready.
const TASKS: &str = "tasks";

/// Acts upon other nodes' hints, and sends this node's own, until `end`.
pub(crate) async fn exchange(node: Arc<Node>, end: CancellationToken) {
    let Some(shared) = node.store.shared() else { return end.cancelled().await };
    let me = node.me.clone();
    let _heard = shared.watch(Box::new(move |hint| {
        let Some(node) = me.upgrade() else { return };
        match hint {
            Hint::Resync => node.wake_dispatcher(true),
            Hint::Nudge(what) if what == TASKS => node.wake_dispatcher(true),
            Hint::Nudge(_) => {}
            Hint::Polling(why) => {
                let event = Event::new(Level::Info, "store.polling", "node").field("reason", why);
                node.logger
                    .emit(event.hint("other nodes' work is found by looking for it every few seconds"));
            }
        }
    }));
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = node.news.notified() => {}
        }
        // One for all that has been committed meanwhile; a hint that is lost is only time.
        let _ = shared.nudge(TASKS).await;
    }
}
