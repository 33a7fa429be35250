//! Sessions, as used from a turn.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Turn;
use crate::{
    agent::{
        Agent,
        answer::{AskError, Fault},
    },
    model::{
        id::check_key,
        session::{Expect, MAX_SESSION_BYTES, MAX_TTL, MIN_TTL, SessionChange},
    },
};

/// A session, as used from a turn: a JSON document under a key, which expires after its last use.
///
/// ```
/// # use greenroom::prelude::*;
/// # #[derive(Default, Serialize, Deserialize)] struct Shop {}
/// # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Visit { who: String }
/// # message!(Visit -> u32);
/// # impl Agent for Shop { const KIND: &'static str = "shop"; type Messages = Visit; }
/// impl Handler<Visit> for Shop {
///     async fn handle(&mut self, visit: Visit, turn: &Turn<Self>) -> Result<u32> {
///         let session = turn.session(visit.who);
///         let visits = session.get::<u32>().await?.unwrap_or(0) + 1;
///         session.put(visits).ttl(Duration::from_secs(1_800)); // durable with this turn, once
///         Ok(visits)
///     }
/// }
/// ```
///
/// Writes leave with the turn's commit, exactly once, or not at all. If a session that a turn has read is written
/// by somebody else before the turn commits its own write, the turn is undone and runs again. A write without a
/// read replaces whatever is there.
pub struct SessionPeer<'c, A: Agent> {
    pub(super) turn: &'c Turn<A>,
    pub(super) id: String,
}

impl<'c, A: Agent> SessionPeer<'c, A> {
    /// Its data, including what this turn has written; `None` if it does not exist. Using it restarts its time
    /// to live. Waits until earlier turns of this agent are durable, as an ask does.
    ///
    /// # Errors
    /// [`AskError::Failed`] if the data is not a `T`; [`AskError::Unavailable`].
    pub async fn get<T: DeserializeOwned>(&self) -> Result<Option<T>, AskError> {
        check_key(&self.id).map_err(|e| AskError::NotFound(e.to_string()))?;
        let own = self.turn.outbox().session(&self.id).cloned();
        let data = match own {
            Some(SessionChange::Put { data, .. }) => Some(data),
            Some(SessionChange::Remove { .. }) => None,
            Some(SessionChange::Touch) | None => {
                let found = self.turn.reads().await?.session(self.id.clone()).await?;
                let seen = found.as_ref().map_or(Expect::Absent, |s| Expect::Version(s.version));
                self.turn.reach().seen.insert(self.id.clone(), seen);
                found.map(|s| s.data)
            }
        };
        let read = data.map(|data| serde_json::from_str(data.get())).transpose();
        read.map_err(|e| {
            AskError::Failed(Fault::new(format!("the session `{}` holds something else: {e}", self.id)))
        })
    }

    /// Replaces the session's data when this turn commits. The turn fails if the key is invalid, or if the data
    /// cannot be serialised to JSON or exceeds 1 MiB.
    pub fn put(&self, data: impl Serialize) -> Held<'c, A> {
        let data = serde_json::value::to_raw_value(&data).map_err(|e| e.to_string()).and_then(|data| {
            let fits = data.get().len() <= MAX_SESSION_BYTES;
            fits.then_some(data).ok_or_else(|| "it would have more than 1 MiB".to_owned())
        });
        match data {
            Ok(data) => {
                let (data, ttl): (Arc<RawValue>, _) = (data.into(), self.turn.host.session_ttl());
                let put = SessionChange::Put { version: Uuid::now_v7(), data, ttl, expect: self.seen() };
                self.write(put);
            }
            Err(e) => self.refuse(&e),
        }
        Held { turn: self.turn, id: self.id.clone() }
    }

    /// Deletes it with this turn's commit.
    pub fn remove(&self) {
        self.write(SessionChange::Remove { expect: self.seen() });
    }

    fn seen(&self) -> Expect {
        self.turn.reach().seen.get(&self.id).copied().unwrap_or_default()
    }

    fn write(&self, change: SessionChange) {
        match check_key(&self.id) {
            Ok(()) => self.turn.outbox().write_session(&self.id, change),
            Err(e) => self.refuse(&e.to_string()),
        }
    }

    fn refuse(&self, why: &str) {
        self.turn.outbox().refuse(format!("cannot write the session `{}`: {why}", self.id));
    }
}

impl<A: Agent> fmt::Debug for SessionPeer<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionPeer({})", self.id)
    }
}

/// A session's new data; its time to live can be set until the turn ends.
pub struct Held<'c, A: Agent> {
    turn: &'c Turn<A>,
    id: String,
}

impl<A: Agent> Held<'_, A> {
    /// Its time to live after the last use, from a second to ten years; by default `sessions.ttl`.
    pub fn ttl(self, d: Duration) -> Self {
        let mut outbox = self.turn.outbox();
        if !(MIN_TTL..=MAX_TTL).contains(&d) {
            outbox.refuse(format!("the session `{}` cannot live for {d:?}: from 1s to ten years", self.id));
        } else if let Some(SessionChange::Put { ttl, .. }) = outbox.session_mut(&self.id) {
            *ttl = d;
        }
        drop(outbox);
        self
    }
}
