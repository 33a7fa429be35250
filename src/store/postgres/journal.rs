//! What task functions write, as [`crate::store::Journals`] says. What the functions do stands beside them, in
//! `migrations/postgres`.

use diesel::{
    prelude::*,
    sql_types::{Array, Binary, Integer, SmallInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    call::RecordCall,
    error,
    values::{
        micros,
        types::{Moment, Uid},
    },
};
use crate::{
    model::{
        journal::{JournalWrite, MAX_SIGNALS, TaskNotes},
        task::TaskState,
    },
    store::{
        SignalFound, Unit,
        journal::{journal_reads, place},
    },
};

/// How many waits one call ends.
const ENDED_AT_ONCE: i32 = 1_000;

mod functions {
    use super::*;
    use diesel::define_sql_function;

    define_sql_function!(fn greenroom_signal_1(task: Uid, name: Text, id: Uid, body: Binary, max: Integer) -> Nullable<SmallInt>);
    define_sql_function!(fn greenroom_end_waits_1(now: Moment, limit: Integer) -> BigInt);
    define_sql_function!(fn greenroom_note_tasks_1(task: Array<Uid>, at: Array<Moment>, progress: Array<Binary>, of: Array<Uid>, line_at: Array<Moment>, level: Array<SmallInt>, text: Array<Text>) -> Bool);
}
use functions::*;

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

journal_reads!(AsyncPgConnection, [async], [.await]);

impl<'a> RecordCall<'a> {
    /// What these units record, each with what it is called by.
    pub(super) fn of(boot: Uuid, units: &'a [Unit], wave: &[usize]) -> Self {
        let mut call = Self { node: Some(Id(boot)), ..Self::default() };
        for n in wave {
            if let Some(write) = units.get(*n).and_then(|unit| unit.journal.as_ref()) {
                call.write(super::commit::wire(*n), write);
            }
        }
        call
    }

    fn write(&mut self, n: i32, write: &'a JournalWrite) {
        let id = Id::from(write.task);
        self.u_unit.push(n);
        self.u_task.push(id);
        self.u_claim.push(write.claim.0);
        for entry in &write.entries {
            self.j_unit.push(n);
            self.j_task.push(id);
            self.j_hash.push(&entry.call.hash);
            self.j_occurrence.push(i64::from(entry.call.occurrence));
            self.j_target.push(&entry.target);
            self.j_ordinal.push(place(entry));
            let answer = entry.answer.as_ref();
            self.j_answer.push(answer.and_then(|answer| serde_json::to_vec(answer).ok()));
        }
        for call in &write.undone {
            self.d_unit.push(n);
            self.d_task.push(id);
            self.d_hash.push(&call.hash);
            self.d_occurrence.push(i64::from(call.occurrence));
        }
        for wait in &write.waits {
            self.w_unit.push(n);
            self.w_task.push(id);
            self.w_name.push(&wait.name);
            self.w_occurrence.push(i64::from(wait.occurrence));
            self.w_until.push(wait.until.map(micros));
            self.w_seen.push(i64::from(wait.seen));
        }
    }
}

/// Records what a wave of units says, which says nothing else; answers those whose claim is lost.
pub(super) async fn record(
    conn: &mut AsyncPgConnection,
    boot: Uuid,
    units: &[Unit],
    wave: &[usize],
) -> QueryResult<Vec<(usize, TaskId)>> {
    let refused: Vec<i32> = RunQueryDsl::load(RecordCall::of(boot, units, wave), conn).await?;
    let lost = |n: i32| {
        let n = usize::try_from(n).ok()?;
        Some((n, units.get(n)?.journal.as_ref()?.task))
    };
    Ok(refused.into_iter().filter_map(lost).collect())
}

/// Keeps a signal.
pub(super) async fn signal(
    conn: &mut AsyncPgConnection,
    task: TaskId,
    signal: &Signal,
) -> Result<Option<SignalFound>, StoreError> {
    let max = i32::try_from(MAX_SIGNALS).unwrap_or(i32::MAX);
    let body = signal.body.get().as_bytes();
    let call = greenroom_signal_1(Id::from(task), &signal.name, Id(signal.id), body, max);
    let found = diesel::select(call).get_result::<Option<i16>>(conn).await;
    let found = found.map_err(|e| error::of_commit(&e))?;
    Ok(found.map(|code| match TaskState::from_code(code) {
        None => SignalFound::TooMany,
        Some(state) if state.is_final() => SignalFound::Final(state),
        Some(state) => SignalFound::Kept(state),
    }))
}

/// Writes down what tasks say of themselves.
pub(super) async fn note(conn: &mut AsyncPgConnection, notes: &[TaskNotes]) -> Result<(), StoreError> {
    let said = |note: &TaskNotes| {
        let progress = note.progress.as_ref()?.get().as_bytes().to_vec();
        Some((Id::from(note.task), (micros(note.at), progress)))
    };
    let (tasks, said): (Vec<Id>, Vec<(Micros, Vec<u8>)>) = notes.iter().filter_map(said).unzip();
    let (at, progress): (Vec<_>, Vec<_>) = said.into_iter().unzip();
    let lines = notes.iter().flat_map(|note| note.logs.iter().map(|line| (Id::from(note.task), line)));
    let (of, lines): (Vec<Id>, Vec<&LogLine>) = lines.unzip();
    let call = greenroom_note_tasks_1(
        tasks,
        at,
        progress,
        of,
        lines.iter().map(|line| micros(line.at)).collect::<Vec<_>>(),
        lines.iter().map(|line| line.level as i16).collect::<Vec<_>>(),
        lines.iter().map(|line| line.text.replace('\0', "\u{FFFD}")).collect::<Vec<_>>(),
    );
    diesel::select(call).get_result::<bool>(conn).await.map(drop).map_err(sql)
}

/// Lets tasks go on whose wait has ended without a signal; says how many.
pub(super) async fn end_waits(conn: &mut AsyncPgConnection, now: Timestamp) -> Result<u64, StoreError> {
    let call = diesel::select(greenroom_end_waits_1(micros(now), ENDED_AT_ONCE));
    let woken: i64 = call.get_result(conn).await.map_err(|e| error::of_commit(&e))?;
    Ok(u64::try_from(woken).unwrap_or(0))
}
