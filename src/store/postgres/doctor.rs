//! Detects a server that is connected and does not answer: one that is frozen, or behind a network that drops
//! everything. A connection to such a server never fails by itself.
//!
//! When a statement has heard nothing for a while, the doctor pings the server on a connection of its own. A server
//! that answers is only slow, and is waited for. If it does not, the silent connections are closed: their callers
//! fail at once, and later ones at the pool, which then cannot connect.

use std::{
    pin::pin,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::connect::Source;

/// Between rounds.
const ROUND: Duration = Duration::from_millis(100);

/// Silence that makes a round look closer. Together with the time for an answer it is less than a
/// second: by then whoever waits is to have heard something.
const SILENCE: Duration = Duration::from_millis(250);

/// How long a sign of life may take, in parts.
const ANSWER: (u32, Duration) = (5, Duration::from_millis(100));

/// A part that took longer than this says that we are late ourselves, and nothing of the server.
const LATE: Duration = Duration::from_millis(200);

/// So many late parts count as one: a machine that is always late must not wait for ever.
const LATES: u32 = 4;

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
        // the line is made while all is well, so that it is there when it is needed
        let lives = match &line {
            Some(_) if source.silence().is_none_or(|silence| silence < SILENCE) => continue,
            Some(client) => sign(client.batch_execute("")).await.is_some(),
            None => match sign(source.client(None)).await {
                Some(made) => {
                    line = made.ok().map(|(client, _)| client);
                    true
                }
                None => false,
            },
        };
        // any answer is a sign of life, "too many connections" too; a server that is gone for good has
        // its connections end by themselves
        if !lives {
            line = None;
            for wire in source.wires().iter().filter(|w| w.silence().is_some_and(|s| s >= SILENCE)) {
                wire.end();
            }
        }
    }
}

/// A sign of life, if it comes in time.
async fn sign<T>(call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let (mut left, mut late) = (ANSWER.0, 0);
    while left > 0 {
        let began = Instant::now();
        if let Ok(answer) = timeout(ANSWER.1, &mut call).await {
            return Some(answer);
        }
        if began.elapsed() > LATE && late < LATES {
            late += 1;
        } else {
            (left, late) = (left - 1, 0);
        }
    }
    None
}
