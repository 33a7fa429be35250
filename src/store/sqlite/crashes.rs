//! Crash groups.

use diesel::{prelude::*, sqlite::Sqlite};
use jiff::Timestamp;

use super::{
    claim::whole,
    error,
    tx::{Sync, Tx, Writer},
    values::{Id, Micros, micros},
};
use crate::{
    model::crash_group::CrashGroup,
    store::{
        MAX_CRASH_GROUPS, StoreError,
        crashes::{count_of, crash_reads, report_of, unreadable},
        schema::greenroom_crashes,
    },
};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

crash_reads!(SqliteConnection, Sqlite, [], []);

impl Writer {
    /// Merges groups into those that are there.
    pub(super) fn note_crashes(&mut self, groups: &[CrashGroup]) -> Result<(), StoreError> {
        // counts and reports are no promise: they do not wait for the device
        self.transaction(Sync::Lazy, Timestamp::now(), |tx| {
            groups.iter().try_for_each(|group| {
                let report = report_of(group)?;
                tx.note_crash(group, &report).map_err(|e| whole(e.into()))
            })
        })
    }
}

impl Tx<'_> {
    /// As [`CrashGroup::merge`]; the stored report is not read for it.
    fn note_crash(&mut self, group: &CrashGroup, report: &[u8]) -> QueryResult<()> {
        use greenroom_crashes::dsl;
        let (first, last) = (micros(group.first), micros(group.last));
        let row = dsl::greenroom_crashes.find(Id(group.id));
        let there: Option<(Micros, Micros, i64, String)> =
            row.select((dsl::first_at, dsl::last_at, dsl::count, dsl::crash)).first(self.conn).optional()?;
        let Some((first_there, last_there, count, crash)) = there else {
            let new = (
                dsl::id.eq(Id(group.id)),
                dsl::kind.eq(&group.site.kind),
                dsl::place.eq(&group.site.place),
                dsl::first_at.eq(first),
                dsl::last_at.eq(last),
                dsl::count.eq(count_of(group)),
                dsl::crash.eq(&group.report.id),
                dsl::report.eq(report),
                dsl::backtrace.eq(group.backtrace.as_ref().map(String::as_bytes)),
            );
            return diesel::insert_into(dsl::greenroom_crashes).values(new).execute(self.conn).map(drop);
        };
        let sums = (
            dsl::first_at.eq(first.min(first_there)),
            dsl::last_at.eq(last.max(last_there)),
            dsl::count.eq(count.saturating_add(count_of(group))),
        );
        diesel::update(row).set(sums).execute(self.conn)?;
        if (last, &group.report.id) > (last_there, &crash) {
            let newer = (dsl::crash.eq(&group.report.id), dsl::report.eq(report));
            diesel::update(row).set(newer).execute(self.conn)?;
        }
        if let Some(backtrace) = &group.backtrace {
            diesel::update(row).set(dsl::backtrace.eq(backtrace.as_bytes())).execute(self.conn)?;
        }
        Ok(())
    }

    /// Forgets groups without a crash since, and the longest quiet of those beyond the bound.
    pub(super) fn clean_crashes(&mut self, before: Micros) -> QueryResult<usize> {
        use greenroom_crashes::dsl;
        let old =
            diesel::delete(dsl::greenroom_crashes.filter(dsl::last_at.lt(before))).execute(self.conn)?;
        let kept = i64::try_from(MAX_CRASH_GROUPS).unwrap_or(i64::MAX);
        // the last one that is kept says which are not
        let last: Option<(Micros, Id)> = dsl::greenroom_crashes
            .order((dsl::last_at.desc(), dsl::id.desc()))
            .offset(kept - 1)
            .limit(1)
            .select((dsl::last_at, dsl::id))
            .first(self.conn)
            .optional()?;
        let Some((at, id)) = last else { return Ok(old) };
        let quiet = dsl::last_at.lt(at).or(dsl::last_at.eq(at).and(dsl::id.lt(id)));
        Ok(old + diesel::delete(dsl::greenroom_crashes.filter(quiet)).execute(self.conn)?)
    }
}

/// Reads all of them: what is wrong, a line each.
pub(super) fn verify(conn: &mut SqliteConnection) -> QueryResult<Vec<String>> {
    use greenroom_crashes::dsl;
    let rows = dsl::greenroom_crashes.select((dsl::id, dsl::report)).load(conn)?;
    Ok(unreadable(rows))
}
