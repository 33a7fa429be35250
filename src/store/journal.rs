//! Journals, waits, progress and log lines of task functions: reads, once for every database.
//!
//! A journal is written by a [`Unit`](super::Unit) of its own, under the guard of the task's claim.

use async_trait::async_trait;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    StoreError,
    values::{Micros, count, moment},
};
use crate::model::{
    event::Level,
    id::TaskId,
    journal::{Entry, Journal, LogLine, Signal, TaskNotes, Wait},
    task::TaskState,
};

/// What a signal met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalFound {
    /// The task waited for it, or will find it: the state in which it was.
    Kept(TaskState),
    /// It has ended.
    Final(TaskState),
    /// It has [as many](crate::model::journal::MAX_SIGNALS) that it has not taken as are kept.
    TooMany,
}

/// The part of a store that keeps what task functions write.
#[async_trait]
pub trait Journals {
    /// All that is recorded of a task.
    async fn journal(&self, task: TaskId) -> Result<Journal, StoreError>;

    /// What a task that waits is waiting for, in no order.
    async fn waits(&self, task: TaskId) -> Result<Vec<Wait>, StoreError>;

    /// Keeps a signal, once, and makes the task ready that waits for it; `None`: nobody knows the task.
    async fn signal(&self, task: TaskId, signal: &Signal) -> Result<Option<SignalFound>, StoreError>;

    /// Writes down what tasks say of themselves; a power cut may take it back.
    async fn note(&self, notes: &[TaskNotes]) -> Result<(), StoreError>;

    /// How far a task last said it is.
    async fn progress(&self, task: TaskId) -> Result<Option<Box<RawValue>>, StoreError>;

    /// The lines that a task wrote, oldest first, those after this number: at most `limit` (1 to 1,000), each
    /// with its number.
    async fn task_logs(
        &self,
        task: TaskId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, LogLine)>, StoreError>;
}

/// JSON as it is stored.
pub(super) fn json(bytes: Vec<u8>, what: &str, task: TaskId) -> Result<Box<RawValue>, StoreError> {
    String::from_utf8(bytes)
        .map_err(|e| e.to_string())
        .and_then(|text| RawValue::from_string(text).map_err(|e| e.to_string()))
        .map_err(|e| StoreError::Corrupt(format!("{what} of task {task}: {e}")))
}

/// With how many bytes the answer of a call begins that took a signal, to tell by which one.
pub(super) const TAKING_BYTES: usize = 54;

/// With which bytes the answer of the call begins that took this signal.
pub(super) fn taking(signal: Uuid) -> Vec<u8> {
    format!("{{\"signal\":{{\"id\":\"{signal}\"").into_bytes()
}

/// The place of an entry as it is stored: below zero where a rerun may do without it.
pub(super) fn place(entry: &Entry) -> i64 {
    let ordinal = i64::from(entry.ordinal);
    if entry.optional { -ordinal } else { ordinal }
}

/// A wait as it is stored: its name, which of that name it is, and its end.
pub(super) type WaitRow = (String, i64, Option<Micros>);

/// A stored wait.
pub(super) fn wait_of((name, occurrence, until): WaitRow) -> Wait {
    Wait { name, occurrence: count(occurrence), until: until.map(moment), seen: 0 }
}

/// A level by its number.
pub(super) fn level_of(code: i16) -> Level {
    usize::try_from(code).ok().and_then(|n| Level::ALL.get(n).copied()).unwrap_or(Level::Info)
}

/// Writes the reads for one connection: synchronous ones, or (`[async], [.await]`) asynchronous ones. The
/// module that calls it gives `sql`, which turns diesel's errors into the store's.
macro_rules! journal_reads {
    ($conn:ty, [$($async:tt)*], [$($wait:tt)*]) => {
        use serde_json::value::RawValue;
        use crate::{
            model::{
                id::TaskId,
                journal::{CallId, Entry, Journal, LogLine, Signal, Wait},
            },
            store::{
                StoreError,
                journal::{WaitRow, json, level_of, wait_of},
                read::page,
                schema::{
                    greenroom_journal, greenroom_signals, greenroom_task_logs, greenroom_task_progress,
                    greenroom_waits,
                },
                values::{Id, Micros, count, moment},
            },
        };

        /// All that is recorded of a task.
        pub(super) $($async)* fn journal(conn: &mut $conn, task: TaskId) -> Result<Journal, StoreError> {
            use greenroom_journal::dsl as j;
            use greenroom_signals::dsl as s;
            use greenroom_waits::dsl as w;
            type Row = (Vec<u8>, i64, String, i64, Option<Vec<u8>>);
            let id = Id::from(task);
            // In this order: what a call took is there when its entry is.
            let rows: Vec<Row> = j::greenroom_journal
                .filter(j::task.eq(id))
                .select((j::hash, j::occurrence, j::target, j::ordinal, j::answer))
                .load(conn)$($wait)*
                .map_err(sql)?;
            let waits: Vec<WaitRow> = w::greenroom_waits
                .filter(w::task.eq(id))
                .select((w::name, w::occurrence, w::until))
                .load(conn)$($wait)*
                .map_err(sql)?;
            let signals: Vec<(Id, String, Vec<u8>)> = s::greenroom_signals
                .filter(s::task.eq(id))
                .order(s::rowid.asc())
                .select((s::id, s::name, s::body))
                .load(conn)$($wait)*
                .map_err(sql)?;
            let entry = |(hash, occurrence, target, ordinal, answer): Row| {
                let corrupt = |e: &dyn std::fmt::Display| {
                    StoreError::Corrupt(format!("the journal of task {task}: {e}"))
                };
                let hash = hash.try_into().map_err(|_| corrupt(&"a hash has not 16 bytes"))?;
                let answer = answer.map(|bytes| serde_json::from_slice(&bytes)).transpose();
                Ok(Entry {
                    call: CallId { hash, occurrence: count(occurrence) },
                    target,
                    ordinal: count(ordinal.saturating_abs()),
                    optional: ordinal < 0,
                    answer: answer.map_err(|e| corrupt(&e))?,
                })
            };
            let signal = |(id, name, body): (Id, String, Vec<u8>)| {
                Ok(Signal { id: id.0, name, body: json(body, "a signal", task)? })
            };
            Ok(Journal {
                entries: rows.into_iter().map(entry).collect::<Result<_, StoreError>>()?,
                waits: waits.into_iter().map(wait_of).collect(),
                signals: signals.into_iter().map(signal).collect::<Result<_, StoreError>>()?,
            })
        }

        /// What a task that waits is waiting for.
        pub(super) $($async)* fn waits(conn: &mut $conn, task: TaskId) -> Result<Vec<Wait>, StoreError> {
            use greenroom_waits::dsl;
            let rows: Vec<WaitRow> = dsl::greenroom_waits
                .filter(dsl::task.eq(Id::from(task)))
                .filter(dsl::open.eq(true))
                .select((dsl::name, dsl::occurrence, dsl::until))
                .load(conn)$($wait)*
                .map_err(sql)?;
            Ok(rows.into_iter().map(wait_of).collect())
        }

        /// How far a task last said it is.
        pub(super) $($async)* fn progress(
            conn: &mut $conn,
            task: TaskId,
        ) -> Result<Option<Box<RawValue>>, StoreError> {
            use greenroom_task_progress::dsl;
            let bytes: Option<Vec<u8>> = dsl::greenroom_task_progress
                .filter(dsl::task.eq(Id::from(task)))
                .select(dsl::progress)
                .first(conn)$($wait)*
                .optional()
                .map_err(sql)?;
            bytes.map(|bytes| json(bytes, "the progress", task)).transpose()
        }

        /// The lines that a task wrote.
        pub(super) $($async)* fn task_logs(
            conn: &mut $conn,
            task: TaskId,
            after: i64,
            limit: usize,
        ) -> Result<Vec<(i64, LogLine)>, StoreError> {
            use greenroom_task_logs::dsl;
            let rows: Vec<(i64, Micros, i16, String)> = dsl::greenroom_task_logs
                .filter(dsl::task.eq(Id::from(task)))
                .filter(dsl::rowid.gt(after))
                .order(dsl::rowid.asc())
                .limit(page(limit))
                .select((dsl::rowid, dsl::at, dsl::level, dsl::text))
                .load(conn)$($wait)*
                .map_err(sql)?;
            let line = |(n, at, level, text): (i64, Micros, i16, String)| {
                (n, LogLine { at: moment(at), level: level_of(level), text })
            };
            Ok(rows.into_iter().map(line).collect())
        }
    };
}
pub(super) use journal_reads;
