//! Notices a server that is there and does not answer: one that is frozen, or behind a network that
//! swallows everything. A connection to such a server never fails by itself.
//!
//! Where a statement has heard nothing for a while, the doctor asks for a sign of life on a
//! connection of its own. A server that gives it is only slow, and is waited for. Where none comes,
//! the silent connections are closed: their callers learn it at once, and the next ones from the
//! pool, which then cannot connect.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::connect::Source;

/// Between rounds.
const ROUND: Duration = Duration::from_millis(200);

/// Silence that makes a round look closer.
const SILENCE: Duration = Duration::from_millis(500);

/// How long a sign of life may take.
const ANSWER: Duration = Duration::from_secs(1);

/// Begins its rounds, which end with the source.
pub(super) fn begin(source: &Arc<Source>) {
    let weak = Arc::downgrade(source);
    source.home().spawn(rounds(weak));
}

async fn rounds(source: Weak<Source>) {
    let mut line: Option<Client> = None;
    loop {
        sleep(ROUND).await;
        let Some(source) = source.upgrade() else { return };
        line = line.filter(|client| !client.is_closed());
        let is_silent = source.wires().iter().any(|wire| wire.silence().is_some_and(|s| s >= SILENCE));
        if line.is_none() {
            // made while all is well, so that it is there when it is needed
            line = timeout(ANSWER, source.client(None))
                .await
                .ok()
                .and_then(Result::ok)
                .map(|(client, _)| client);
        }
        if !is_silent {
            continue;
        }
        let alive = match &line {
            // through a pooler, and in every session, this is the least that can be asked
            Some(client) => timeout(ANSWER, client.batch_execute("")).await.is_ok_and(|a| a.is_ok()),
            None => false,
        };
        if !alive {
            line = None;
            for wire in source.wires().iter().filter(|w| w.silence().is_some_and(|s| s >= SILENCE)) {
                wire.end();
            }
        }
    }
}
