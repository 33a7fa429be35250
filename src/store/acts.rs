//! The audit log: its reads and writes, once for every database.

use async_trait::async_trait;
use diesel::prelude::*;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::{
    StoreError,
    schema::greenroom_acts,
    values::{Id, Micros, micros, moment},
};
use crate::model::act::Act;

/// At most so many acts are forgotten at once.
pub(super) const FORGOTTEN_AT_ONCE: i64 = 1_000;
/// At most so many a page.
pub(super) const MAX_LISTED: usize = 1_000;

/// Which acts to list: those for which all that is given holds. Pages go by id, the latest first.
#[derive(Debug, Clone, Default)]
pub struct ActFilter {
    /// Only whose token has this name.
    pub who: Option<String>,
    /// Only what was done to this.
    pub subject: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// From this one on: the first of a period.
    pub from: Option<Uuid>,
    /// Before this one.
    pub before: Option<Uuid>,
    /// At most so many; 1 to 1,000.
    pub limit: usize,
}

/// Acts, beside the rest of the store.
#[async_trait]
pub trait Acts: Send + Sync {
    /// Writes an act down before it is done. Sent again it is recognised by its id.
    async fn begin_act(&self, act: &Act) -> Result<(), StoreError>;

    /// Writes down what came of it: `outcome`, `before` and `after`.
    async fn end_act(&self, act: &Act) -> Result<(), StoreError>;

    /// One page of them, the latest first.
    async fn acts(&self, filter: &ActFilter) -> Result<Vec<Act>, StoreError>;

    /// Forgets those before a moment, a bounded number a call; says how many.
    async fn forget_acts(&self, before: Timestamp) -> Result<u64, StoreError>;
}

/// An act's row.
#[derive(Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = greenroom_acts)]
pub(super) struct ActRow {
    id: Id,
    at: Micros,
    who: String,
    address: Option<String>,
    action: String,
    subject: String,
    pub(super) outcome: Option<String>,
    pub(super) before: Option<Vec<u8>>,
    pub(super) after: Option<Vec<u8>>,
}

impl From<&Act> for ActRow {
    fn from(act: &Act) -> Self {
        let bytes = |value: &Option<Value>| value.as_ref().map(|value| value.to_string().into_bytes());
        Self {
            id: Id(act.id),
            at: micros(act.at),
            who: act.who.clone(),
            address: act.by.clone(),
            action: act.action.clone(),
            subject: act.subject.clone(),
            outcome: act.outcome.clone(),
            before: bytes(&act.before),
            after: bytes(&act.after),
        }
    }
}

impl ActRow {
    /// # Errors
    /// [`StoreError::Corrupt`] where it is not as we write it.
    pub(super) fn into_model(self) -> Result<Act, StoreError> {
        let id = self.id.0;
        let json = |bytes: Option<Vec<u8>>| bytes.map(|b| serde_json::from_slice(&b)).transpose();
        let corrupt = |e: serde_json::Error| StoreError::Corrupt(format!("act {id}: {e}"));
        Ok(Act {
            id,
            at: moment(self.at),
            who: self.who,
            by: self.address,
            action: self.action,
            subject: self.subject,
            outcome: self.outcome,
            before: json(self.before).map_err(corrupt)?,
            after: json(self.after).map_err(corrupt)?,
        })
    }
}

/// Writes what is read and written for one connection, as
/// [`schedule_statements`](super::schedules::schedule_statements) does.
macro_rules! act_statements {
    ($conn:ty, $db:ty, [$($async:tt)*], [$($wait:tt)*]) => {
        use crate::{
            model::act::Act,
            store::{
                StoreError,
                acts::{ActFilter, ActRow, FORGOTTEN_AT_ONCE, MAX_LISTED},
                schema::greenroom_acts,
                values::{Id, micros},
            },
        };

        /// Writes one down.
        pub(super) $($async)* fn begin(conn: &mut $conn, act: &Act) -> Result<(), StoreError> {
            use greenroom_acts::dsl;
            let row = ActRow::from(act);
            let new = diesel::insert_into(dsl::greenroom_acts).values(&row).on_conflict_do_nothing();
            RunQueryDsl::execute(new, conn)$($wait)*.map(drop).map_err(written_error)
        }

        /// Writes down what came of it.
        pub(super) $($async)* fn end(conn: &mut $conn, act: &Act) -> Result<(), StoreError> {
            use greenroom_acts::dsl;
            let row = ActRow::from(act);
            let now = (dsl::outcome.eq(row.outcome), dsl::before.eq(row.before), dsl::after.eq(row.after));
            let told = diesel::update(dsl::greenroom_acts.find(Id(act.id))).set(now);
            RunQueryDsl::execute(told, conn)$($wait)*.map(drop).map_err(written_error)
        }

        /// One page, the latest first.
        pub(super) $($async)* fn page(conn: &mut $conn, filter: &ActFilter) -> Result<Vec<Act>, StoreError> {
            use greenroom_acts::dsl;
            let mut query = dsl::greenroom_acts.select(ActRow::as_select()).into_boxed::<$db>();
            if let Some(who) = &filter.who {
                query = query.filter(dsl::who.eq(who));
            }
            if let Some(subject) = &filter.subject {
                query = query.filter(dsl::subject.eq(subject));
            }
            if let Some(action) = &filter.action {
                query = query.filter(dsl::action.eq(action));
            }
            if let Some(from) = filter.from {
                query = query.filter(dsl::id.ge(Id(from)));
            }
            if let Some(before) = filter.before {
                query = query.filter(dsl::id.lt(Id(before)));
            }
            let limit = i64::try_from(filter.limit.clamp(1, MAX_LISTED)).unwrap_or(1);
            let page = query.order(dsl::id.desc()).limit(limit);
            let rows: Vec<ActRow> = RunQueryDsl::load(page, conn)$($wait)*.map_err(sql)?;
            rows.into_iter().map(ActRow::into_model).collect()
        }

        /// Forgets those before a moment.
        pub(super) $($async)* fn forget(conn: &mut $conn, before: jiff::Timestamp) -> Result<u64, StoreError> {
            use greenroom_acts::dsl;
            let old = dsl::greenroom_acts.filter(dsl::at.lt(micros(before)));
            let old = old.select(dsl::id).order(dsl::at).limit(FORGOTTEN_AT_ONCE);
            let old: Vec<Id> = RunQueryDsl::load(old, conn)$($wait)*.map_err(sql)?;
            let gone = diesel::delete(dsl::greenroom_acts.filter(dsl::id.eq_any(old)));
            RunQueryDsl::execute(gone, conn)$($wait)*.map(|n| n as u64).map_err(written_error)
        }

        /// Reads all of them: what is wrong, a line each.
        pub(super) $($async)* fn verify(conn: &mut $conn) -> QueryResult<Vec<String>> {
            use greenroom_acts::dsl;
            let all = dsl::greenroom_acts.select(ActRow::as_select());
            let rows = RunQueryDsl::load::<ActRow>(all, conn)$($wait)*?;
            Ok(rows.into_iter().filter_map(|row| Some(row.into_model().err()?.to_string())).collect())
        }
    };
}
pub(super) use act_statements;
