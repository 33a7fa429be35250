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
        let is_silent = || source.wires().iter().any(|wire| wire.silence().is_some_and(|s| s >= SILENCE));
        // the line is made while all is well, so that it is there when it is needed
        let asked = match &line {
            Some(client) if is_silent() => timeout(ANSWER, client.batch_execute("")).await.map(|_| ()),
            Some(_) => continue,
            None => match timeout(ANSWER, source.client(None)).await {
                Ok(made) => {
                    line = made.ok().map(|(client, _)| client);
                    Ok(())
                }
                Err(late) => Err(late),
            },
        };
        // any answer is a sign of life, "too many connections" too; a server that is gone for good has
        // its connections end by themselves
        if asked.is_err() {
            line = None;
            for wire in source.wires().iter().filter(|w| w.silence().is_some_and(|s| s >= SILENCE)) {
                wire.end();
            }
        }
    }
}
