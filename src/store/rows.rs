//! The rows of the database, and their conversion.

use std::time::Duration;

use diesel::prelude::*;
use serde_json::value::RawValue;

use super::values::{Id, Micros, count, lane, micros, moment};
use crate::{
    model::{
        id::Target,
        task::{BatchNotify, ClaimId, Claimed, NewTask, Notify, OnParentFailed, TaskError, TaskState},
    },
    store::{
        StoreError,
        schema::{greenroom_task_archive, greenroom_tasks},
    },
};

pub(super) use super::agent_rows::{StoredAgent, status_of};

/// An unfinished task.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = greenroom_tasks)]
pub(super) struct TaskRow {
    pub(super) id: Id,
    pub(super) seq: i64,
    pub(super) target: String,
    pub(super) message: String,
    pub(super) state: i16,
    pub(super) priority: i16,
    pub(super) run_at: Option<Micros>,
    pub(super) attempt: i64,
    pub(super) lost: i64,
    pub(super) max_attempts: i64,
    pub(super) timeout_ms: Option<i64>,
    pub(super) run_after_failure: bool,
    pub(super) awaited: bool,
    pub(super) notify: Option<String>,
    pub(super) batch: Option<Id>,
    pub(super) parent: Option<Id>,
    pub(super) tags: Option<String>,
    pub(super) idempotency_key: Option<String>,
    pub(super) node: Option<Id>,
    pub(super) created_at: Micros,
    pub(super) started_at: Option<Micros>,
    pub(super) error: Option<Vec<u8>>,
    pub(super) input: Vec<u8>,
    pub(super) claim: i64,
    pub(super) expires_at: Option<Micros>,
}

/// A task as it is inserted.
#[derive(Debug, Insertable)]
#[diesel(table_name = greenroom_tasks, treat_none_as_default_value = false)]
pub(super) struct InsertTask<'a> {
    pub(super) id: Id,
    pub(super) seq: i64,
    pub(super) partition: i16,
    pub(super) lane: i16,
    pub(super) target: &'a str,
    pub(super) message: &'a str,
    pub(super) state: i16,
    pub(super) priority: i16,
    pub(super) run_at: Option<Micros>,
    pub(super) attempt: i64,
    pub(super) lost: i64,
    pub(super) lost_alone: i64,
    pub(super) alone: bool,
    pub(super) max_attempts: i64,
    pub(super) timeout_ms: Option<i64>,
    pub(super) waits_for: i64,
    pub(super) run_after_failure: bool,
    pub(super) awaited: bool,
    pub(super) cancel: bool,
    pub(super) notify: Option<&'a str>,
    pub(super) batch: Option<Id>,
    pub(super) parent: Option<Id>,
    pub(super) tags: Option<&'a str>,
    pub(super) expires_at: Option<Micros>,
    pub(super) idempotency_key: Option<&'a str>,
    pub(super) node: Option<Id>,
    pub(super) created_at: Micros,
    pub(super) started_at: Option<Micros>,
    pub(super) error: Option<&'a [u8]>,
    pub(super) input: &'a [u8],
}

/// A task that has ended, as it is inserted.
#[derive(Debug, Insertable)]
#[diesel(table_name = greenroom_task_archive, treat_none_as_default_value = false)]
pub(super) struct InsertArchived<'a> {
    pub(super) id: Id,
    pub(super) seq: i64,
    pub(super) target: &'a str,
    pub(super) message: &'a str,
    pub(super) state: i16,
    pub(super) priority: i16,
    pub(super) run_at: Option<Micros>,
    pub(super) attempt: i64,
    pub(super) lost: i64,
    pub(super) max_attempts: i64,
    pub(super) timeout_ms: Option<i64>,
    pub(super) run_after_failure: bool,
    pub(super) notify: Option<&'a str>,
    pub(super) batch: Option<Id>,
    pub(super) parent: Option<Id>,
    pub(super) tags: Option<&'a str>,
    pub(super) idempotency_key: Option<&'a str>,
    pub(super) node: Option<Id>,
    pub(super) created_at: Micros,
    pub(super) started_at: Option<Micros>,
    pub(super) finished_at: Micros,
    pub(super) result: Option<&'a [u8]>,
    pub(super) error: Option<&'a [u8]>,
    pub(super) input: &'a [u8],
}

/// A task that has ended.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = greenroom_task_archive)]
pub(super) struct ArchivedRow {
    pub(super) id: Id,
    pub(super) seq: i64,
    pub(super) target: String,
    pub(super) message: String,
    pub(super) state: i16,
    pub(super) priority: i16,
    pub(super) run_at: Option<Micros>,
    pub(super) attempt: i64,
    pub(super) lost: i64,
    pub(super) max_attempts: i64,
    pub(super) timeout_ms: Option<i64>,
    pub(super) run_after_failure: bool,
    pub(super) notify: Option<String>,
    pub(super) batch: Option<Id>,
    pub(super) parent: Option<Id>,
    pub(super) tags: Option<String>,
    pub(super) idempotency_key: Option<String>,
    pub(super) node: Option<Id>,
    pub(super) created_at: Micros,
    pub(super) started_at: Option<Micros>,
    pub(super) finished_at: Micros,
    pub(super) error: Option<Vec<u8>>,
    pub(super) input: Vec<u8>,
}

/// What a claim needs of a task.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = greenroom_tasks)]
pub(super) struct ClaimedRow {
    id: Id,
    seq: i64,
    target: String,
    message: String,
    priority: i16,
    attempt: i64,
    lost: i64,
    max_attempts: i64,
    timeout_ms: Option<i64>,
    notify: Option<String>,
    batch: Option<Id>,
    run_at: Option<Micros>,
    input: Vec<u8>,
    claim: i64,
    expires_at: Option<Micros>,
}

/// The state that a stored number stands for.
pub(super) fn state_of(code: i16) -> Result<TaskState, StoreError> {
    TaskState::from_code(code).ok_or_else(|| StoreError::Corrupt(format!("{code} is no task's state")))
}

/// A stored target. Names were checked when it was accepted.
pub(super) fn target_of(text: &str) -> Target {
    match (text.strip_prefix("tool:"), text.split_once('/')) {
        (Some(name), _) => Target::Tool(name.to_owned()),
        (None, Some((kind, key))) => Target::agent(kind, key),
        (None, None) => Target::agent(text, ""),
    }
}

/// Stored JSON text.
pub(super) fn json_of(bytes: Vec<u8>, id: Id) -> Result<Box<RawValue>, StoreError> {
    let unreadable =
        |e: &dyn std::fmt::Display| StoreError::Corrupt(format!("payload of task {}: {e}", id.0));
    let text = String::from_utf8(bytes).map_err(|e| unreadable(&e))?;
    RawValue::from_string(text).map_err(|e| unreadable(&e))
}

/// Who is to be told, as it is stored.
pub(super) fn notify_text(notify: Option<&Notify>) -> Option<String> {
    notify.and_then(|n| serde_json::to_string(n).ok())
}

/// Who is to be told.
pub(super) fn notify_of(text: Option<&str>) -> Result<Option<Notify>, StoreError> {
    text.map(serde_json::from_str)
        .transpose()
        .map_err(|e| StoreError::Corrupt(format!("a task's notify: {e}")))
}

pub(super) fn batch_notify_text(notify: Option<&BatchNotify>) -> Option<String> {
    notify.and_then(|n| serde_json::to_string(n).ok())
}

/// Who is to be told of a batch.
pub(super) fn batch_notify_of(text: Option<&str>) -> Result<Option<BatchNotify>, StoreError> {
    text.map(serde_json::from_str)
        .transpose()
        .map_err(|e| StoreError::Corrupt(format!("a batch's notify: {e}")))
}

/// An error as it is stored.
pub(super) fn error_bytes(error: &TaskError) -> Vec<u8> {
    serde_json::to_vec(error).unwrap_or_default()
}

/// A stored error.
pub(super) fn error_of(bytes: Option<&[u8]>) -> Option<TaskError> {
    bytes.and_then(|b| serde_json::from_slice(b).ok())
}

/// Stored labels.
pub(super) fn tags_of(text: Option<&str>) -> Vec<String> {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn millis(ms: Option<i64>) -> Option<Duration> {
    ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis)
}

/// The claim that a row stands for; the rows that can say it have the same columns for it.
macro_rules! claimable {
    ($($row:ty: |$of:ident| $claim:expr, $expires:expr;)*) => {$(
        impl $row {
            pub(super) fn into_claimed(self) -> Result<Claimed, StoreError> {
                let $of = &self;
                let (claim, expires_at): (_, Option<Micros>) = (ClaimId($claim), $expires);
                Ok(Claimed {
                    id: self.id.into(),
                    seq: self.seq,
                    target: target_of(&self.target),
                    message: self.message,
                    input: json_of(self.input, self.id)?,
                    priority: self.priority,
                    attempt: count(self.attempt),
                    claim,
                    lost: count(self.lost),
                    max_attempts: count(self.max_attempts),
                    timeout: millis(self.timeout_ms),
                    notify: notify_of(self.notify.as_deref())?,
                    batch: self.batch.map(Into::into),
                    due: self.run_at.map(moment),
                    expires_at: expires_at.map(moment),
                })
            }
        }
    )*};
}
claimable! {
    ClaimedRow: |row| row.claim, row.expires_at;
    TaskRow: |row| row.claim, row.expires_at;
    // nobody holds it
    ArchivedRow: |_row| 0, None;
}

impl TaskRow {
    pub(super) fn state(&self) -> Result<TaskState, StoreError> {
        state_of(self.state)
    }

    /// The task as it is archived.
    pub(super) fn archived<'a>(
        &'a self,
        state: TaskState,
        now: Micros,
        result: Option<&'a [u8]>,
        error: Option<&'a [u8]>,
    ) -> InsertArchived<'a> {
        InsertArchived {
            id: self.id,
            seq: self.seq,
            target: &self.target,
            message: &self.message,
            state: state as i16,
            priority: self.priority,
            run_at: self.run_at,
            attempt: self.attempt,
            lost: self.lost,
            max_attempts: self.max_attempts,
            timeout_ms: self.timeout_ms,
            run_after_failure: self.run_after_failure,
            notify: self.notify.as_deref(),
            batch: self.batch,
            parent: self.parent,
            tags: self.tags.as_deref(),
            idempotency_key: self.idempotency_key.as_deref(),
            node: self.node,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: now,
            result,
            error: error.or(self.error.as_deref()).filter(|_| state != TaskState::Succeeded),
            input: if state == TaskState::Succeeded { RawValue::NULL.get().as_bytes() } else { &self.input },
        }
    }
}

impl ArchivedRow {
    /// Why it failed, where it did.
    pub(super) fn failure(&self) -> Option<String> {
        error_of(self.error.as_deref()).map(|error| error.message)
    }

    /// The task as it comes back: a new place in the order, ready as of now, nothing counted against it, no batch
    /// (`batch` says which, if any) and no expiry.
    pub(super) fn revived(&self, seq: i64, batch: Option<Id>, now: Micros) -> InsertTask<'_> {
        let target = target_of(&self.target);
        InsertTask {
            id: self.id,
            seq,
            partition: target.partition(),
            lane: lane::of(&target),
            target: &self.target,
            message: &self.message,
            state: TaskState::Ready as i16,
            priority: self.priority,
            run_at: Some(now),
            attempt: 0,
            lost: 0,
            lost_alone: 0,
            alone: false,
            max_attempts: self.max_attempts,
            timeout_ms: self.timeout_ms,
            waits_for: 0,
            run_after_failure: self.run_after_failure,
            awaited: false,
            cancel: false,
            notify: self.notify.as_deref(),
            batch,
            parent: self.parent,
            tags: self.tags.as_deref(),
            expires_at: None,
            idempotency_key: self.idempotency_key.as_deref(),
            node: None,
            created_at: self.created_at,
            started_at: None,
            error: None,
            input: &self.input,
        }
    }
}

/// The texts that an accepted task is stored with, made once.
pub(super) struct Texts {
    pub(super) target: String,
    pub(super) notify: Option<String>,
    pub(super) tags: Option<String>,
}

impl Texts {
    pub(super) fn of(task: &NewTask) -> Self {
        Self {
            target: task.target.to_string(),
            notify: notify_text(task.notify.as_ref()),
            tags: (!task.tags.is_empty()).then(|| serde_json::to_string(&task.tags).unwrap_or_default()),
        }
    }
}

/// An accepted task as it is inserted.
pub(super) fn accepted<'a>(
    task: &'a NewTask,
    texts: &'a Texts,
    seq: i64,
    state: TaskState,
    now: Micros,
) -> InsertTask<'a> {
    InsertTask {
        id: task.id.into(),
        seq,
        partition: task.target.partition(),
        lane: lane::of(&task.target),
        target: &texts.target,
        message: &task.message,
        state: state as i16,
        priority: task.priority,
        run_at: task.run_at.map(micros),
        attempt: 0,
        lost: 0,
        lost_alone: 0,
        alone: false,
        max_attempts: i64::from(task.max_attempts.max(1)),
        timeout_ms: task.timeout.map(|t| i64::try_from(t.as_millis()).unwrap_or(i64::MAX)),
        waits_for: 0,
        run_after_failure: task.on_parent_failed == OnParentFailed::Run,
        awaited: false,
        cancel: false,
        notify: texts.notify.as_deref(),
        batch: task.batch.map(Into::into),
        parent: task.parent.map(Into::into),
        tags: texts.tags.as_deref(),
        expires_at: task.expires_at.map(micros),
        idempotency_key: task.idempotency_key.as_deref(),
        node: None,
        created_at: now,
        started_at: None,
        error: None,
        input: task.input.get().as_bytes(),
    }
}
