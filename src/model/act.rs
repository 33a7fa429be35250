//! Acts: operators' actions, as the audit log keeps them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// What somebody did to the node or to what it runs. It is written down before it is done, and again with what
/// came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Act {
    /// Its id; later acts have higher ones.
    pub id: Uuid,
    /// When it began.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub at: Timestamp,
    /// The name of the token that was shown.
    pub who: String,
    /// The address that it came from.
    pub by: Option<String>,
    /// What: `agent.stop`, `task.retry`, `token.add`, …
    pub action: String,
    /// To whom: `kind/key`, `task:ID`, `token:NAME`, …
    pub subject: String,
    /// `ok`, `dry_run` where nothing was to be done, or the problem's code; absent while it is under way, and where the node ended before it knew.
    pub outcome: Option<String>,
    /// What was there before, where there is something to tell; no secrets.
    pub before: Option<Value>,
    /// What was asked for, or is there now.
    pub after: Option<Value>,
}

impl Act {
    /// What begins at this moment, which its id carries to the microsecond: a period is a range of ids.
    pub fn new(at: Timestamp, action: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            id: drawn_at(at),
            at,
            who: String::new(),
            by: None,
            action: action.into(),
            subject: subject.into(),
            outcome: None,
            before: None,
            after: None,
        }
    }
}

/// A UUIDv7 of a moment, with what it is past the millisecond where others have a counter: a period is a range of ids.
fn drawn_at(at: Timestamp) -> Uuid {
    let random = Uuid::new_v4().as_u128() & u128::from(u64::MAX);
    Uuid::from_u128(first_at(at).as_u128() | random)
}

/// Before the first id that can be drawn at a moment, and behind all that were drawn before it.
pub(super) fn first_at(at: Timestamp) -> Uuid {
    let micros = u64::try_from(at.as_microsecond()).unwrap_or(0);
    let (millis, rest) = (u128::from(micros / 1_000), u128::from(micros % 1_000));
    Uuid::from_u128(millis << 80 | 7 << 76 | rest << 64)
}

/// The outcome of what was done.
pub const OK: &str = "ok";
/// The outcome of what was only tried out: nothing was done.
pub const DRY_RUN: &str = "dry_run";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_version_7_and_in_the_order_of_time() {
        let ids: Vec<Uuid> = (0..3_000)
            .map(|n| Timestamp::from_microsecond(1_800_000_000_000_000 + n).unwrap())
            .map(|at| Act::new(at, "agent.stop", "counter/a").id)
            .collect();
        assert!(ids.is_sorted());
        for id in [ids[0], ids[2_999]] {
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        }
        let (seconds, nanos) = ids[1_000].get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos / 1_000_000), (1_800_000_000, 1));
    }
}
