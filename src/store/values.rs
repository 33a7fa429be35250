//! Conversion of values between Rust and the databases: ids and times have a type of their own in each of them,
//! and one in Rust.

use diesel::{
    backend::Backend,
    deserialize::{self, FromSql, FromSqlRow},
    expression::{
        AppearsOnTable, AsExpression, Expression, SelectableExpression, ValidGrouping, is_aggregate,
    },
    pg::{Pg, PgValue},
    query_builder::{AstPass, QueryFragment, QueryId},
    serialize::{self, IsNull, Output, ToSql},
    sql_types::{BigInt, SmallInt},
    sqlite::Sqlite,
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::model::{
    id::{AgentId, TaskId},
    task::TaskState,
};
use crate::store::StoredStatus;

/// The types of columns that the databases keep differently.
pub(super) mod types {
    use diesel::{query_builder::QueryId, sql_types::SqlType};

    /// An id: `uuid` in Postgres, 16 bytes in SQLite.
    #[derive(Debug, Clone, Copy, SqlType, QueryId)]
    #[diesel(sqlite_type(name = "Binary"), postgres_type(oid = 2950, array_oid = 2951))]
    pub struct Uid;

    /// A moment: `timestamptz` in Postgres, microseconds since 1970 in SQLite.
    #[derive(Debug, Clone, Copy, SqlType, QueryId)]
    #[diesel(sqlite_type(name = "Long"), postgres_type(oid = 1184, array_oid = 1185))]
    pub struct Moment;

    impl diesel::sql_types::SqlOrd for Uid {}
    impl diesel::sql_types::SqlOrd for Moment {}
}
use types::{Moment, Uid};

/// A UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, AsExpression, FromSqlRow)]
#[diesel(sql_type = Uid)]
pub(super) struct Id(pub(super) Uuid);

impl ToSql<Uid, Sqlite> for Id {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.as_bytes().as_slice());
        Ok(IsNull::No)
    }
}

impl FromSql<Uid, Sqlite> for Id {
    fn from_sql(mut value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(Uuid::from_slice(value.read_blob())?))
    }
}

impl ToSql<Uid, Pg> for Id {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        use std::io::Write as _;
        out.write_all(self.0.as_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<Uid, Pg> for Id {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(Uuid::from_slice(value.as_bytes())?))
    }
}

impl From<TaskId> for Id {
    fn from(id: TaskId) -> Self {
        Self(id.0)
    }
}

impl From<Id> for TaskId {
    fn from(id: Id) -> Self {
        Self(id.0)
    }
}

impl From<AgentId> for Id {
    fn from(id: AgentId) -> Self {
        Self(id.0)
    }
}

/// Microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, AsExpression, FromSqlRow)]
#[diesel(sql_type = Moment)]
pub(super) struct Micros(pub(super) i64);

/// Where Postgres begins to count: the first of January 2000, in microseconds since 1970.
const PG_EPOCH: i64 = 946_684_800_000_000;

impl ToSql<Moment, Sqlite> for Micros {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        <i64 as ToSql<BigInt, Sqlite>>::to_sql(&self.0, out)
    }
}

impl FromSql<Moment, Sqlite> for Micros {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        <i64 as FromSql<BigInt, Sqlite>>::from_sql(value).map(Self)
    }
}

impl ToSql<Moment, Pg> for Micros {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let since = self.0.saturating_sub(PG_EPOCH);
        <i64 as ToSql<BigInt, Pg>>::to_sql(&since, &mut out.reborrow())
    }
}

impl FromSql<Moment, Pg> for Micros {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let since = <i64 as FromSql<BigInt, Pg>>::from_sql(value)?;
        Ok(Self(since.saturating_add(PG_EPOCH)))
    }
}

/// A moment as it is stored.
pub(super) fn micros(at: Timestamp) -> Micros {
    Micros(at.as_microsecond())
}

/// A stored moment; one that cannot be is the beginning of time.
pub(super) fn moment(at: Micros) -> Timestamp {
    Timestamp::from_microsecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The day of a moment, since 1970.
pub(super) fn day(at: Micros) -> i32 {
    i32::try_from(at.0.div_euclid(86_400_000_000)).unwrap_or(i32::MAX)
}

/// The hour of a moment, since 1970.
pub(super) fn hour(at: Micros) -> i32 {
    i32::try_from(at.0.div_euclid(3_600_000_000)).unwrap_or(i32::MAX)
}

/// A moment so long after another; the last one there is, where that is further.
pub(super) fn later(at: Micros, ms: i64) -> Micros {
    let last = Timestamp::MAX.as_microsecond();
    Micros(at.0.saturating_add(ms.saturating_mul(1_000)).min(last))
}

/// A stored count.
pub(super) fn count(n: i64) -> u32 {
    u32::try_from(n.max(0)).unwrap_or(u32::MAX)
}

/// A number that stands in the statement itself: partial indexes want their condition literally,
/// and a bound value compared with one makes SQLite prepare the statement anew each time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lit<const N: i16>;

impl<const N: i16> Expression for Lit<N> {
    type SqlType = SmallInt;
}
impl<const N: i16, QS> AppearsOnTable<QS> for Lit<N> {}
impl<const N: i16, QS> SelectableExpression<QS> for Lit<N> {}
impl<const N: i16, G> ValidGrouping<G> for Lit<N> {
    type IsAggregate = is_aggregate::Never;
}
impl<const N: i16> QueryId for Lit<N> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}
impl<const N: i16, DB: Backend> QueryFragment<DB> for Lit<N> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> diesel::QueryResult<()> {
        out.push_sql(&N.to_string());
        Ok(())
    }
}

pub(super) const BLOCKED: Lit<{ TaskState::Blocked as i16 }> = Lit;
pub(super) const SCHEDULED: Lit<{ TaskState::Scheduled as i16 }> = Lit;
pub(super) const READY: Lit<{ TaskState::Ready as i16 }> = Lit;
pub(super) const RUNNING: Lit<{ TaskState::Running as i16 }> = Lit;
/// A task that waits for a signal.
pub(super) const WAITING: Lit<{ TaskState::Waiting as i16 }> = Lit;
pub(super) const PARKED: Lit<{ TaskState::Parked as i16 }> = Lit;
pub(super) const OUTCOME_UNKNOWN: Lit<{ TaskState::OutcomeUnknown as i16 }> = Lit;

pub(super) const QUARANTINED: Lit<{ StoredStatus::Quarantined as i16 }> = Lit;

pub(super) const FAILED: Lit<{ TaskState::Failed as i16 }> = Lit;

/// Who may claim a task. From [`lane::DOOMED`] on nobody: it is to be ended.
pub(super) mod lane {
    use crate::model::id::Target;

    pub(in super::super) const AGENTS: i16 = 0;
    pub(in super::super) const TOOLS: i16 = 1;
    pub(in super::super) const SUSPECTS: i16 = 2;
    pub(in super::super) const DOOMED: i16 = 3;
    pub(in super::super) const PARENT_FAILED: i16 = 3;
    pub(in super::super) const EXPIRED: i16 = 4;
    pub(in super::super) const POISON: i16 = 5;
    pub(in super::super) const CANCELLED: i16 = 6;

    /// The lane of a task that has not been lost twice.
    pub(in super::super) fn of(target: &Target) -> i16 {
        match target {
            Target::Agent { .. } => AGENTS,
            Target::Tool(_) => TOOLS,
        }
    }
}

/// From so many losses on a task runs alone.
pub(super) const SUSPECT_FROM: i64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_come_back() {
        let at: Timestamp = "2026-11-25T16:45:00.123456Z".parse().unwrap();
        assert_eq!(moment(micros(at)), at);
        assert_eq!(moment(Micros(i64::MAX)), Timestamp::UNIX_EPOCH);
    }
}
