//! The stored tokens, as this node last read them.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::time::{Instant, timeout};

use super::super::problem::Problem;
use crate::{
    model::access::{Digest, StoredToken},
    runtime::operator::Operator,
};

/// For how long what was read is taken for what is: a token that another node took away works this long.
const FRESH: Duration = Duration::from_secs(2);
/// How long the store may take to say; then what was read before is good enough.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// For how long that is so, with a store that does not answer: nobody who shares it can take a token away
/// meanwhile.
const STALE: Duration = Duration::from_secs(300);
/// How often at most it is noted that a token was shown.
const NOTED: SignedDuration = SignedDuration::from_secs(60);

/// All stored tokens. They are few, so all are read at once, and no guess costs a read.
pub(super) struct Keyring {
    operator: Operator,
    ring: RwLock<Arc<Ring>>,
    /// One reads, the others wait for it.
    reading: tokio::sync::Mutex<()>,
    /// When it was last noted that a token was shown.
    noted: Mutex<HashMap<Digest, Timestamp>>,
}

#[derive(Default)]
struct Ring {
    tokens: HashMap<Digest, StoredToken>,
    read_at: Option<Instant>,
    tried_at: Option<Instant>,
}

impl Ring {
    fn knows(&self, now: Instant, within: Duration) -> bool {
        self.read_at.is_some_and(|at| now.duration_since(at) < within)
    }

    /// What is known once the store has said what it keeps, or nothing: then nobody who waits for their turn asks it
    /// again at once.
    fn after(&self, said: Option<Vec<StoredToken>>, now: Instant) -> Self {
        match said {
            Some(tokens) => {
                let tokens = tokens.into_iter().map(|token| (token.digest, token)).collect();
                Self { tokens, read_at: Some(now), tried_at: None }
            }
            None => Self { tokens: self.tokens.clone(), read_at: self.read_at, tried_at: Some(now) },
        }
    }

    /// Whether the store was asked a moment ago, and has not answered.
    fn has_tried(&self, now: Instant) -> bool {
        self.tried_at.is_some_and(|at| now.duration_since(at) < FRESH)
    }
}

/// What was last read of a store that does not answer, where that is not too long ago.
fn good_enough(ring: Arc<Ring>, now: Instant) -> Result<Arc<Ring>, Problem> {
    if ring.knows(now, STALE) {
        return Ok(ring);
    }
    let why = "whose token this is stands in the store, which does not answer; the node's own token works";
    Err(Problem::new("unavailable", why))
}

impl Keyring {
    pub(super) fn new(operator: Operator) -> Self {
        let (ring, reading) = (RwLock::default(), tokio::sync::Mutex::default());
        Self { operator, ring, reading, noted: Mutex::default() }
    }

    /// The token with this digest, where there is one that has not expired.
    ///
    /// # Errors
    /// The store has not said for too long.
    pub(super) async fn find(&self, digest: Digest, now: Timestamp) -> Result<Option<StoredToken>, Problem> {
        let ring = self.current().await?;
        let found = ring.tokens.get(&digest).filter(|token| token.is_valid(now)).cloned();
        if let Some(token) = &found {
            self.note(token, now);
        }
        Ok(found)
    }

    /// Runs a change to the stored tokens, and reads them anew before the next look.
    pub(super) async fn changing<T>(&self, change: impl Future<Output = T>) -> T {
        let _turn = self.reading.lock().await;
        let changed = change.await;
        // What was known is not good enough any more, with or without a store that answers.
        *self.ring.write() = Arc::default();
        changed
    }

    async fn current(&self) -> Result<Arc<Ring>, Problem> {
        let ring = self.ring.read().clone();
        if ring.knows(Instant::now(), FRESH) {
            return Ok(ring);
        }
        let _turn = self.reading.lock().await;
        let ring = self.ring.read().clone();
        let now = Instant::now();
        if ring.knows(now, FRESH) {
            return Ok(ring);
        }
        if ring.has_tried(now) {
            return good_enough(ring, now);
        }
        let read = timeout(STORE_TIMEOUT, self.operator.stored_tokens()).await;
        let now = Instant::now();
        let next = Arc::new(ring.after(read.ok().and_then(Result::ok), now));
        self.noted.lock().retain(|digest, _| next.tokens.contains_key(digest));
        *self.ring.write() = next.clone();
        good_enough(next, now)
    }

    /// Has it noted that a token was shown, once a minute.
    fn note(&self, token: &StoredToken, now: Timestamp) {
        let mut noted = self.noted.lock();
        let last = noted.get(&token.digest).copied().max(token.used_at);
        if last.is_some_and(|last| now.duration_since(last) < NOTED) {
            return;
        }
        noted.insert(token.digest, now);
        let (operator, digest) = (self.operator.clone(), token.digest);
        actix_web::rt::spawn(async move { operator.token_used(digest, now).await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_hangs_is_not_asked_once_more_by_each_who_waits() {
        let now = Instant::now();
        for known in [Ring::default(), Ring { read_at: now.checked_sub(STALE), ..Ring::default() }] {
            let ring = Arc::new(known.after(None, now));
            assert!(ring.has_tried(now) && good_enough(ring.clone(), now).is_err());
            assert!(!ring.has_tried(now + FRESH), "then it is");
        }
        let read = Ring::default().after(Some(Vec::new()), now).after(None, now + FRESH);
        assert!(good_enough(Arc::new(read), now + FRESH).is_ok(), "for a while what was read is good enough");
    }
}
