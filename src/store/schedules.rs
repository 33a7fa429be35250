//! Schedules: reads and writes, once for every database.
//!
//! Whoever moves one on does so in a [`Unit`](super::Unit), with the task that it fires. Everything else
//! about one is written whole, over what was read: guarded by its revision and its time to come.

use std::time::Duration;

use async_trait::async_trait;
use diesel::prelude::*;
use jiff::Timestamp;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    StoreError,
    schema::greenroom_schedules,
    values::{Id, Micros, micros, moment},
};
use crate::model::schedule::{Definition, Schedule};

/// At most so many due schedules are read at once.
pub(super) const DUE_AT_ONCE: usize = 100;

/// Schedules, beside the rest of the store.
#[async_trait]
pub trait Schedules: Send + Sync {
    /// All of them, by name.
    async fn schedules(&self) -> Result<Vec<Schedule>, StoreError>;

    /// One of them.
    async fn schedule(&self, name: &str) -> Result<Option<Schedule>, StoreError>;

    /// Those whose nominal time has come, a bounded number a call, the longest due first; and when the next
    /// one of all others comes.
    async fn due_schedules(&self, now: Timestamp) -> Result<(Vec<Schedule>, Option<Timestamp>), StoreError>;

    /// Writes a schedule over the one that was read, or as a new one where there was none. `false`: it is
    /// not, or not any more, as `over` says: of that revision, and with that time to come. (Whoever fires it
    /// moves it on and leaves the revision: it would stand again where it stood before, and fire twice.) Sent
    /// again it is recognised by its own revision.
    async fn put_schedule(&self, schedule: &Schedule, over: Option<&Schedule>) -> Result<bool, StoreError>;

    /// Removes the schedule of that revision; `false` where there is none.
    async fn remove_schedule(&self, name: &str, revision: Uuid) -> Result<bool, StoreError>;
}

/// A schedule's row.
#[derive(Debug, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = greenroom_schedules, primary_key(name))]
#[diesel(treat_none_as_null = true, treat_none_as_default_value = false)]
pub(super) struct ScheduleRow {
    pub(super) name: String,
    pub(super) revision: Id,
    origin: String,
    paused: bool,
    spec: String,
    overlap: String,
    misfire: String,
    target: String,
    message: String,
    priority: i16,
    max_attempts: Option<i64>,
    timeout_ms: Option<i64>,
    tags: Option<String>,
    next_at: Option<Micros>,
    last_at: Option<Micros>,
    last_task: Option<Id>,
    created_at: Micros,
    updated_at: Micros,
    input: Vec<u8>,
}

impl From<&Schedule> for ScheduleRow {
    fn from(schedule: &Schedule) -> Self {
        let d = &schedule.definition;
        Self {
            name: schedule.name.clone(),
            revision: Id(schedule.revision),
            origin: schedule.origin.to_string(),
            paused: schedule.paused,
            spec: d.spec.clone(),
            overlap: d.overlap.to_string(),
            misfire: d.misfire.to_string(),
            target: d.target.to_string(),
            message: d.message.clone(),
            priority: d.priority,
            max_attempts: d.max_attempts.map(i64::from),
            timeout_ms: d.timeout.map(|t| i64::try_from(t.as_millis()).unwrap_or(i64::MAX)),
            tags: (!d.tags.is_empty()).then(|| serde_json::to_string(&d.tags).unwrap_or_default()),
            next_at: schedule.next_at.map(micros),
            last_at: schedule.last_at.map(micros),
            last_task: schedule.last_task.map(Id::from),
            created_at: micros(schedule.created_at),
            updated_at: micros(schedule.updated_at),
            input: d.input.get().as_bytes().to_vec(),
        }
    }
}

impl ScheduleRow {
    /// # Errors
    /// [`StoreError::Corrupt`] where it is not as we write it.
    pub(super) fn into_model(self) -> Result<Schedule, StoreError> {
        let name = self.name;
        let corrupt = |why: String| StoreError::Corrupt(format!("schedule `{name}`: {why}"));
        let input = String::from_utf8(self.input).map_err(|e| corrupt(format!("its input: {e}")))?;
        let tags = self.tags.as_deref().map(serde_json::from_str).transpose();
        let definition = Definition {
            spec: self.spec,
            target: self.target.parse().map_err(|e| corrupt(format!("{e}")))?,
            message: self.message,
            input: RawValue::from_string(input).map_err(|e| corrupt(format!("its input: {e}")))?,
            priority: self.priority,
            max_attempts: self.max_attempts.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            timeout: self.timeout_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
            tags: tags.map_err(|e| corrupt(format!("its tags: {e}")))?.unwrap_or_default(),
            overlap: self.overlap.parse().map_err(corrupt)?,
            misfire: self.misfire.parse().map_err(corrupt)?,
        };
        Ok(Schedule {
            definition,
            origin: self.origin.parse().map_err(corrupt)?,
            paused: self.paused,
            next_at: self.next_at.map(moment),
            last_at: self.last_at.map(moment),
            last_task: self.last_task.map(Into::into),
            created_at: moment(self.created_at),
            updated_at: moment(self.updated_at),
            revision: self.revision.0,
            name,
        })
    }
}

/// Writes what is read and written for one connection, as [`entity_reads`](super::entities::entity_reads)
/// does. Whoever uses it says what the errors of a read (`sql`) and of a write (`written_error`) mean.
macro_rules! schedule_statements {
    ($conn:ty, [$($async:tt)*], [$($wait:tt)*]) => {
        use crate::{
            model::schedule::Schedule,
            store::{
                StoreError,
                schedules::{DUE_AT_ONCE, ScheduleRow},
                schema::greenroom_schedules,
                values::{Id, Micros, micros, moment},
            },
        };

        /// All, by name.
        pub(super) $($async)* fn all(conn: &mut $conn) -> Result<Vec<Schedule>, StoreError> {
            use greenroom_schedules::dsl;
            let all = dsl::greenroom_schedules.select(ScheduleRow::as_select()).order(dsl::name);
            let rows = RunQueryDsl::load(all, conn)$($wait)*.map_err(sql)?;
            rows.into_iter().map(ScheduleRow::into_model).collect()
        }

        /// One.
        pub(super) $($async)* fn one(conn: &mut $conn, name: &str) -> Result<Option<Schedule>, StoreError> {
            use greenroom_schedules::dsl;
            let row = dsl::greenroom_schedules.find(name).select(ScheduleRow::as_select());
            let row = RunQueryDsl::first(row, conn)$($wait)*.optional().map_err(sql)?;
            row.map(ScheduleRow::into_model).transpose()
        }

        /// Those that are due, and when the next of all others is.
        pub(super) $($async)* fn due(
            conn: &mut $conn,
            now: jiff::Timestamp,
        ) -> Result<(Vec<Schedule>, Option<jiff::Timestamp>), StoreError> {
            use greenroom_schedules::dsl;
            let is_due = dsl::next_at.le(micros(now)).and(dsl::paused.eq(false));
            let due = dsl::greenroom_schedules.filter(is_due).select(ScheduleRow::as_select());
            let due = due.order((dsl::next_at, dsl::name)).limit(DUE_AT_ONCE as i64);
            let rows = RunQueryDsl::load(due, conn)$($wait)*.map_err(sql)?;
            let is_later = dsl::next_at.gt(micros(now)).and(dsl::paused.eq(false));
            let later = dsl::greenroom_schedules.filter(is_later).select(diesel::dsl::min(dsl::next_at));
            let next: Option<Micros> = RunQueryDsl::first(later, conn)$($wait)*.map_err(sql)?;
            let due = rows.into_iter().map(ScheduleRow::into_model).collect::<Result<_, _>>()?;
            Ok((due, next.map(moment)))
        }

        /// Writes one over that of a revision, or as a new one.
        pub(super) $($async)* fn put(
            conn: &mut $conn,
            schedule: &Schedule,
            over: Option<&Schedule>,
        ) -> Result<bool, StoreError> {
            use greenroom_schedules::dsl;
            let row = ScheduleRow::from(schedule);
            let written = match over {
                Some(over) => {
                    let never = over.next_at.is_none().into_sql::<diesel::sql_types::Bool>();
                    let next = dsl::next_at.eq(over.next_at.map(micros)).or(dsl::next_at.is_null().and(never));
                    let as_read = dsl::revision.eq(Id(over.revision)).and(next);
                    let old = dsl::greenroom_schedules.find(&schedule.name).filter(as_read);
                    RunQueryDsl::execute(diesel::update(old).set(&row), conn)$($wait)*
                }
                None => {
                    let new = diesel::insert_into(dsl::greenroom_schedules).values(&row).on_conflict_do_nothing();
                    RunQueryDsl::execute(new, conn)$($wait)*
                }
            };
            if written.map_err(written_error)? == 1 {
                return Ok(true);
            }
            // sent again: it is there since an earlier try
            let own = dsl::greenroom_schedules.find(&schedule.name).filter(dsl::revision.eq(row.revision));
            let own = RunQueryDsl::first::<String>(own.select(dsl::name), conn)$($wait)*;
            Ok(own.optional().map_err(sql)?.is_some())
        }

        /// Removes that of a revision.
        pub(super) $($async)* fn remove(
            conn: &mut $conn,
            name: &str,
            revision: uuid::Uuid,
        ) -> Result<bool, StoreError> {
            use greenroom_schedules::dsl;
            let old = dsl::greenroom_schedules.find(name).filter(dsl::revision.eq(Id(revision)));
            let gone = RunQueryDsl::execute(diesel::delete(old), conn)$($wait)*;
            Ok(gone.map_err(written_error)? == 1)
        }

        /// Reads all of them: what is wrong, a line each.
        pub(super) $($async)* fn verify(conn: &mut $conn) -> QueryResult<Vec<String>> {
            use greenroom_schedules::dsl;
            let all = dsl::greenroom_schedules.select(ScheduleRow::as_select());
            let rows = RunQueryDsl::load::<ScheduleRow>(all, conn)$($wait)*?;
            Ok(rows.into_iter().filter_map(|row| Some(row.into_model().err()?.to_string())).collect())
        }
    };
}
pub(super) use schedule_statements;
