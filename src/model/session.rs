//! Sessions: JSON documents under a key, which expire after their last use.
//!
//! Each write draws a new [`Session::version`], so that a writer can say which one it has seen. Using a
//! session starts its time to live again; that is written down at most once per tenth of that time.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::units;

/// Largest session, in bytes of JSON.
pub const MAX_SESSION_BYTES: usize = 1 << 20;
/// The shortest time to live.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// The longest time to live: ten years.
pub const MAX_TTL: Duration = Duration::from_secs(3_650 * 86_400);

/// A session.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Session {
    /// Its key, chosen by its creator.
    pub id: String,
    /// Drawn anew by each write.
    pub version: Uuid,
    /// Its data.
    #[schemars(with = "serde_json::Value")]
    pub data: Arc<RawValue>,
    /// Its time to live after the last use.
    #[serde(rename = "ttl_ms", with = "units::millis")]
    #[schemars(with = "u64")]
    pub ttl: Duration,
    /// When it was created.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub created_at: Timestamp,
    /// When it was last written.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub updated_at: Timestamp,
    /// When it expires, unless it is used before.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub expires_at: Timestamp,
    /// Rises with each write and each use that is written down: of two copies, the newer has the
    /// larger one. For the cache alone.
    #[serde(skip)]
    pub revision: i64,
}

impl Session {
    /// Whether it has not expired at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at > now
    }

    /// Whether a use at `now` is to be written down: more than a tenth of its time has passed.
    pub fn is_worn(&self, now: Timestamp) -> bool {
        let left = Duration::try_from(now.duration_until(self.expires_at)).unwrap_or_default();
        left < self.ttl - self.ttl / 10
    }
}

/// The condition of a write to a session; if it is not met, the commit is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expect {
    /// No condition.
    #[default]
    Any,
    /// The session does not exist, or has expired.
    Absent,
    /// The session has this version.
    Version(Uuid),
}

/// What a commit does to a session. A commit has at most one write for each session.
#[derive(Debug, Clone)]
pub struct SessionWrite {
    /// The session.
    pub id: String,
    /// What happens to it.
    pub change: SessionChange,
}

/// What happens to a session.
#[derive(Debug, Clone)]
pub enum SessionChange {
    /// Its data is replaced.
    Put {
        /// Its new version.
        version: Uuid,
        /// Its data.
        data: Arc<RawValue>,
        /// Its time to live after the last use.
        ttl: Duration,
        /// The condition.
        expect: Expect,
    },
    /// It was used: its time to live starts again, if it exists.
    Touch,
    /// It is deleted, if it exists.
    Remove {
        /// The condition.
        expect: Expect,
    },
}

impl SessionChange {
    /// The condition of the write.
    pub fn condition(&self) -> Expect {
        match self {
            Self::Put { expect, .. } | Self::Remove { expect } => *expect,
            Self::Touch => Expect::Any,
        }
    }

    /// One change for two in a row: the last one counts, under the condition of the first.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        let first = self.condition();
        match (self, later) {
            (Self::Touch, later) => later,
            (earlier, Self::Touch) => earlier,
            (_, Self::Put { version, data, ttl, .. }) => Self::Put { version, data, ttl, expect: first },
            (_, Self::Remove { .. }) => Self::Remove { expect: first },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &str, expect: Expect) -> SessionChange {
        let data = RawValue::from_string(text.to_owned()).unwrap().into();
        SessionChange::Put { version: Uuid::now_v7(), data, ttl: MIN_TTL, expect }
    }

    #[test]
    fn a_use_is_written_down_once_per_tenth_of_the_time_to_live() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let session = Session {
            id: "a".into(),
            version: Uuid::nil(),
            data: RawValue::from_string("1".into()).unwrap().into(),
            ttl: Duration::from_secs(100),
            created_at: at(0),
            updated_at: at(0),
            expires_at: at(100),
            revision: 1,
        };
        assert!(!session.is_worn(at(0)) && !session.is_worn(at(10)));
        assert!(session.is_worn(at(11)) && session.is_worn(at(99)) && session.is_worn(at(200)));
        assert!(session.is_live(at(99)) && !session.is_live(at(100)));
    }

    #[test]
    fn of_two_changes_the_last_counts_under_the_condition_of_the_first() {
        let seen = Expect::Version(Uuid::from_u128(1));
        let both = put("1", seen).then(put("2", Expect::Any));
        assert!(
            matches!(&both, SessionChange::Put { data, expect, .. } if data.get() == "2" && *expect == seen)
        );
        assert!(matches!(both.then(SessionChange::Touch), SessionChange::Put { .. }));
        let gone = put("1", Expect::Absent).then(SessionChange::Remove { expect: seen });
        assert!(matches!(gone, SessionChange::Remove { expect: Expect::Absent }));
        assert!(matches!(SessionChange::Touch.then(put("1", seen)).condition(), e if e == seen));
    }
}
