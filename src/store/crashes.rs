//! Crash groups: reads, once for every database.

use std::sync::Arc;

use diesel::prelude::*;
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    StoreError,
    schema::greenroom_crashes,
    values::{Id, Micros, moment},
};
use crate::model::{
    crash_group::{CrashGroup, Site},
    period::Period,
    supervision::CrashReport,
};

/// How many groups outlive a clean-up.
pub const MAX_CRASH_GROUPS: usize = 1_000;
/// At most so many groups a page.
pub(super) const MAX_LISTED: usize = 1_000;
/// A count that is kept goes no further.
pub(super) const MAX_COUNT: u64 = i64::MAX as u64;

/// Which crash groups to list. Pages go by the last crash and id, latest first.
#[derive(Debug, Clone, Default)]
pub struct CrashFilter {
    /// Only the one with this id, or whose last crash has it; with its backtrace. Listings have none.
    pub named: Option<String>,
    /// Only those that had a crash since its beginning, and one before its end.
    pub period: Period,
    /// Behind this one.
    pub before: Option<(Timestamp, Uuid)>,
    /// At most so many; 1 to 1,000.
    pub limit: usize,
}

/// A group's row.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = greenroom_crashes)]
pub(super) struct GroupRow {
    id: Id,
    kind: String,
    place: String,
    first_at: Micros,
    last_at: Micros,
    count: i64,
    report: Vec<u8>,
}

impl GroupRow {
    pub(super) fn into_model(self, backtrace: Option<Vec<u8>>) -> Result<CrashGroup, StoreError> {
        let report: CrashReport = serde_json::from_slice(&self.report)
            .map_err(|e| StoreError::Corrupt(format!("the report of crash group {}: {e}", self.id.0)))?;
        Ok(CrashGroup {
            id: self.id.0,
            site: Site { kind: self.kind, reason: report.reason.kind, place: self.place },
            first: moment(self.first_at),
            last: moment(self.last_at),
            count: u64::try_from(self.count).unwrap_or(0),
            report: Arc::new(report),
            backtrace: backtrace.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        })
    }
}

/// A group's report as it is stored.
pub(super) fn report_of(group: &CrashGroup) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(&group.report).map_err(|e| StoreError::NotDone(format!("a crash report: {e}")))
}

/// A group's count as it is stored.
pub(super) fn count_of(group: &CrashGroup) -> i64 {
    i64::try_from(group.count.min(MAX_COUNT)).unwrap_or(i64::MAX)
}

/// What is wrong with these rows (id, report), a line each.
pub(super) fn unreadable(rows: Vec<(Id, Vec<u8>)>) -> Vec<String> {
    let is_wrong = |report: &[u8]| serde_json::from_slice::<CrashReport>(report).is_err();
    let wrong = rows.into_iter().filter(|(_, report)| is_wrong(report));
    wrong.map(|(id, _)| format!("crash group {}: its report cannot be read", id.0)).collect()
}

/// Writes the reads for one connection, as [`entity_reads`](super::entities::entity_reads) does.
macro_rules! crash_reads {
    ($conn:ty, $db:ty, [$($async:tt)*], [$($wait:tt)*]) => {
        use crate::store::crashes::{CrashFilter, GroupRow, MAX_LISTED};

        /// One page of crash groups, those with the latest crashes first.
        pub(super) $($async)* fn crash_groups(
            conn: &mut $conn,
            filter: &CrashFilter,
        ) -> Result<Vec<CrashGroup>, StoreError> {
            use greenroom_crashes::dsl;
            if let Some(name) = &filter.named {
                let id = name.parse().map_or(uuid::Uuid::nil(), |id: uuid::Uuid| id);
                let rows: Vec<(GroupRow, Option<Vec<u8>>)> = dsl::greenroom_crashes
                    .filter(dsl::id.eq(Id(id)).or(dsl::crash.eq(name)))
                    .select((GroupRow::as_select(), dsl::backtrace))
                    .limit(1)
                    .load(conn)$($wait)*
                    .map_err(sql)?;
                return rows.into_iter().map(|(row, trace)| row.into_model(trace)).collect();
            }
            let mut query = dsl::greenroom_crashes.select(GroupRow::as_select()).into_boxed::<$db>();
            if let Some(since) = filter.period.since {
                query = query.filter(dsl::last_at.ge(micros(since)));
            }
            if let Some(until) = filter.period.until {
                query = query.filter(dsl::first_at.lt(micros(until)));
            }
            if let Some((at, id)) = filter.before {
                let at = micros(at);
                query = query.filter(dsl::last_at.lt(at).or(dsl::last_at.eq(at).and(dsl::id.lt(Id(id)))));
            }
            let rows: Vec<GroupRow> = query
                .order((dsl::last_at.desc(), dsl::id.desc()))
                .limit(i64::try_from(filter.limit.clamp(1, MAX_LISTED)).unwrap_or(1))
                .load(conn)$($wait)*
                .map_err(sql)?;
            rows.into_iter().map(|row| row.into_model(None)).collect()
        }
    };
}
pub(super) use crash_reads;
