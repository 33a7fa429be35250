//! How values travel between Rust and SQLite, and the few statements without values.

use diesel::{
    backend::Backend,
    deserialize::{self, FromSql, FromSqlRow},
    expression::{
        AppearsOnTable, AsExpression, Expression, SelectableExpression, ValidGrouping, is_aggregate,
    },
    query_builder::{AstPass, QueryFragment, QueryId},
    serialize::{self, IsNull, Output, ToSql},
    sql_types::{Binary, SmallInt},
    sqlite::Sqlite,
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::model::{id::TaskId, task::TaskState};

/// A UUID in 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = Binary)]
pub(super) struct Id(pub(super) Uuid);

impl ToSql<Binary, Sqlite> for Id {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.as_bytes().as_slice());
        Ok(IsNull::No)
    }
}

impl FromSql<Binary, Sqlite> for Id {
    fn from_sql(mut value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(Uuid::from_slice(value.read_blob())?))
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
impl<const N: i16> QueryFragment<Sqlite> for Lit<N> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> diesel::QueryResult<()> {
        out.push_sql(&N.to_string());
        Ok(())
    }
}

pub(super) const BLOCKED: Lit<{ TaskState::Blocked as i16 }> = Lit;
pub(super) const SCHEDULED: Lit<{ TaskState::Scheduled as i16 }> = Lit;
pub(super) const READY: Lit<{ TaskState::Ready as i16 }> = Lit;
pub(super) const RUNNING: Lit<{ TaskState::Running as i16 }> = Lit;
pub(super) const PARKED: Lit<{ TaskState::Parked as i16 }> = Lit;
pub(super) const OUTCOME_UNKNOWN: Lit<{ TaskState::OutcomeUnknown as i16 }> = Lit;

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

macro_rules! plain {
    ($($name:ident = $sql:literal;)*) => {$(
        pub(super) struct $name;
        impl QueryId for $name {
            type QueryId = Self;
            const HAS_STATIC_QUERY_ID: bool = true;
        }
        impl QueryFragment<Sqlite> for $name {
            fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> diesel::QueryResult<()> {
                out.push_sql($sql);
                Ok(())
            }
        }
        impl<C> diesel::RunQueryDsl<C> for $name {}
    )*};
}

plain! {
    Begin = "BEGIN IMMEDIATE";
    Commit = "COMMIT";
    Savepoint = "SAVEPOINT unit";
    Release = "RELEASE unit";
    RollbackTo = "ROLLBACK TO unit";
}

/// A moment as it is stored.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// A stored moment; one that cannot be is the beginning of time.
pub(super) fn moment(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A stored count.
pub(super) fn count(n: i64) -> u32 {
    u32::try_from(n.max(0)).unwrap_or(u32::MAX)
}
