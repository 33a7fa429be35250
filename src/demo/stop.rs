//! Interruption: SIGINT, SIGTERM or SIGHUP.

use std::{sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};

/// Whether somebody asked for the end. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// One that the signals raise.
    pub fn on_signals() -> anyhow::Result<Self> {
        let stop = Self::default();
        let raised = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(signalled());
            raised.raise();
        })?;
        Ok(stop)
    }

    /// Asks for the end.
    pub fn raise(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    /// Whether the end is asked for.
    pub fn is_raised(&self) -> bool {
        *self.0.0.lock()
    }

    /// Waits so long, or until the end is asked for; then true.
    pub fn wait(&self, time: Duration) -> bool {
        let mut raised = self.0.0.lock();
        self.0.1.wait_while_for(&mut raised, |raised| !*raised, time);
        *raised
    }
}

async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let each = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals: Vec<_> = each.into_iter().filter_map(|kind| signal(kind).ok()).collect();
    let waits = signals.iter_mut().map(|s| Box::pin(s.recv()));
    futures_util::future::select_all(waits).await;
}
