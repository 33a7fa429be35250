//! Tasks as lists show them: without inputs and results, which may be megabytes each, and with bounded errors.

use diesel::prelude::*;

use super::{
    StoreError,
    rows::{error_bytes, error_of, json_of, notify_of, state_of, tags_of, target_of},
    schema::{greenroom_task_archive, greenroom_tasks},
    sql_text::part,
    values::{Id, Micros, count, moment},
};
use crate::model::task::{OnParentFailed, TaskError, TaskState, TaskView};

/// So many bytes of an error are read for a list: a larger one is shown without its causes and refusal.
pub(super) const ERROR_BYTES: i32 = 32 << 10;

/// The same of either table, and what it alone has.
macro_rules! listed {
    ($(#[$doc:meta])* $row:ident of $table:ident $(, $own:ident: $own_type:ty)+) => {
        $(#[$doc])*
        #[derive(Debug, Queryable, Selectable)]
        #[diesel(table_name = $table)]
        pub(super) struct $row {
            id: Id,
            target: String,
            message: String,
            state: i16,
            priority: i16,
            run_at: Option<Micros>,
            attempt: i64,
            lost: i64,
            max_attempts: i64,
            batch: Option<Id>,
            parent: Option<Id>,
            tags: Option<String>,
            idempotency_key: Option<String>,
            node: Option<Id>,
            created_at: Micros,
            started_at: Option<Micros>,
            #[diesel(select_expression = part($table::error, 1, ERROR_BYTES))]
            #[diesel(select_expression_type = part<$table::error, i32, i32>)]
            error: Option<Vec<u8>>,
            timeout_ms: Option<i64>,
            run_after_failure: bool,
            notify: Option<String>,
            $($own: $own_type,)+
        }

        impl $row {
            fn view(self) -> Result<TaskView, StoreError> {
                Ok(TaskView {
                    id: self.id.into(),
                    target: target_of(&self.target),
                    message: Some(self.message).filter(|m| !m.is_empty()),
                    state: state_of(self.state)?,
                    attempt: count(self.attempt),
                    lost: count(self.lost),
                    max_attempts: count(self.max_attempts),
                    priority: self.priority,
                    run_at: Some(moment(self.run_at.unwrap_or(self.created_at))),
                    created_at: moment(self.created_at),
                    started_at: self.started_at.map(moment),
                    finished_at: None,
                    input: None,
                    result: None,
                    error: self.error.as_deref().and_then(error_of_beginning),
                    progress: None,
                    parent: self.parent.map(Into::into),
                    batch: self.batch.map(Into::into),
                    waiting_for: None,
                    prerequisites: Vec::new(),
                    waits: Vec::new(),
                    node: self.node.map(|node| node.0.to_string()),
                    idempotency_key: self.idempotency_key,
                    tags: tags_of(self.tags.as_deref()),
                    timeout_ms: self.timeout_ms.and_then(|ms| u64::try_from(ms).ok()),
                    expires_at: None,
                    on_parent_failed: self.run_after_failure.then_some(OnParentFailed::Run),
                    notify: notify_of(self.notify.as_deref()).ok().flatten(),
                })
            }
        }
    };
}

listed!(
    /// An unfinished task in a list.
    ListedTask of greenroom_tasks, waits_for: i64, expires_at: Option<Micros>
);
listed!(
    /// A task that has ended in a list.
    ListedEnd of greenroom_task_archive, finished_at: Micros
);

impl ListedTask {
    pub(super) fn into_view(self) -> Result<TaskView, StoreError> {
        let (waits_for, expires_at) = (count(self.waits_for), self.expires_at.map(moment));
        let view = self.view()?;
        let waiting_for = (view.state == TaskState::Blocked).then_some(waits_for);
        let node = view.node.filter(|_| view.state == TaskState::Running);
        Ok(TaskView { waiting_for, node, expires_at, ..view })
    }

    /// With its whole error.
    pub(super) fn whole(self, error: Option<Vec<u8>>) -> Result<TaskView, StoreError> {
        Ok(TaskView { error: error_of(error.as_deref()), ..self.into_view()? })
    }
}

impl ListedEnd {
    pub(super) fn into_view(self) -> Result<TaskView, StoreError> {
        let finished_at = Some(moment(self.finished_at));
        Ok(TaskView { finished_at, ..self.view()? })
    }

    /// With its result and its whole error.
    pub(super) fn whole(
        self,
        result: Option<Vec<u8>>,
        error: Option<Vec<u8>>,
    ) -> Result<TaskView, StoreError> {
        let result = result.map(|result| json_of(result, self.id)).transpose()?;
        Ok(TaskView { result, error: error_of(error.as_deref()), ..self.into_view()? })
    }
}

/// An error of which only the beginning was read: where it was cut, its code, and its message unless that is cut.
pub(super) fn error_of_beginning(bytes: &[u8]) -> Option<TaskError> {
    // it is written in this order, and within a text each quotation mark is escaped
    let closed = |next: &[u8], end: &[u8]| {
        let at = bytes.windows(next.len()).position(|part| part == next)?;
        error_of(Some(&[bytes.get(..at)?, end].concat()))
    };
    error_of(Some(bytes))
        .or_else(|| closed(br#","chain":"#, b"}"))
        .or_else(|| closed(br#","message":"#, ",\"message\":\"…\"}".as_bytes()))
}

/// An error as lists show it.
pub(super) fn error_in_list(error: &TaskError) -> Option<TaskError> {
    let mut bytes = error_bytes(error);
    bytes.truncate(usize::try_from(ERROR_BYTES).unwrap_or(usize::MAX));
    error_of_beginning(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(message: &str, chain: Vec<String>) -> TaskError {
        let (code, message) = ("refused".to_owned(), message.to_owned());
        TaskError { code, message, chain, crash_id: None, refusal: None }
    }

    #[test]
    fn a_large_error_is_cut_and_a_small_one_is_whole() {
        let small = error("small", vec!["because".to_owned()]);
        assert_eq!(error_in_list(&small), Some(small));
        let message = r#"it said ","chain":["a"]"#;
        let large = error(message, vec!["x".repeat(100_000)]);
        assert_eq!(error_in_list(&large), Some(error(message, Vec::new())));
        let larger = error(&"\u{7}".repeat(10_000), Vec::new());
        assert_eq!(error_in_list(&larger), Some(error("…", Vec::new())));
    }
}
