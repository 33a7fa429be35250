//! What a submitter chooses of a task beside its message, whichever door it comes through.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{NewTask, OnParentFailed};
use crate::model::{
    id::{MAX_IDEMPOTENCY_KEY_BYTES, Target, TaskId},
    units,
};

/// How many labels a task may have, …
const MOST_TAGS: usize = 32;
/// … and of how many letters: they stand in every list.
const MOST_TAG_LETTERS: usize = 256;

/// What was chosen; what was not is as the target has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TaskOptions {
    /// Runs no earlier than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// Runs no earlier than this long after it is submitted.
    #[serde(skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    pub run_in: Option<Duration>,
    /// Higher runs first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i16>,
    /// How many attempts it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How long one attempt may take.
    #[serde(skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    pub timeout: Option<Duration>,
    /// Tasks that must have ended first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<TaskId>,
    /// What happens when one of those does not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_parent_failed: Option<OnParentFailed>,
    /// Free labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// It is cancelled if it has not started by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// It is cancelled if it has not started this long after it is submitted.
    #[serde(skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    pub expires_in: Option<Duration>,
    /// A repetition under it is not submitted again.
    #[serde(skip)]
    pub idempotency_key: Option<String>,
}

impl TaskOptions {
    /// Gives a task what was chosen. More may be chosen later, and the same task be given all of it again.
    pub fn apply(&self, task: &mut NewTask, now: Timestamp) {
        let later = |d| now.checked_add(d).unwrap_or(Timestamp::MAX);
        task.run_at = self.run_at.or_else(|| self.run_in.map(later));
        task.priority = self.priority.unwrap_or(task.priority);
        task.max_attempts = self.max_attempts.unwrap_or(task.max_attempts).max(1);
        task.timeout = self.timeout;
        task.after.clone_from(&self.after);
        task.on_parent_failed = self.on_parent_failed.unwrap_or_default();
        task.tags.clone_from(&self.tags);
        task.expires_at = self.expires_at.or_else(|| self.expires_in.map(later));
        task.idempotency_key.clone_from(&self.idempotency_key);
    }

    /// Whether they may be a task's.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn check(&self) -> Result<(), Flaw> {
        check_tags(&self.tags)?;
        self.idempotency_key.as_deref().map_or(Ok(()), check_idempotency_key)
    }

    /// What tells a request under its key from others that have the same message and input, as text: all that its
    /// submitter chose. `None`: nothing.
    pub fn chosen(&self, target: &Target) -> Option<String> {
        // a call of a tool that takes effect once has one attempt, which its caller did not choose
        let max_attempts = self.max_attempts.filter(|n| *n != 1 || !matches!(target, Target::Tool(_)));
        let chosen = Self { max_attempts, idempotency_key: None, ..self.clone() };
        if chosen == Self::default() { None } else { serde_json::to_string(&chosen).ok() }
    }
}

/// Why a choice cannot be a task's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct Flaw {
    /// Where: a JSON pointer.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// Whether these may be a task's labels.
///
/// # Errors
/// There are more than 32, or one has more than 256 letters.
fn check_tags(tags: &[String]) -> Result<(), Flaw> {
    let flaw = |pointer: String, detail| Err(Flaw { pointer, detail });
    if tags.len() > MOST_TAGS {
        return flaw("/tags".to_owned(), format!("a task has {MOST_TAGS} labels at most"));
    }
    match tags.iter().position(|tag| tag.chars().nth(MOST_TAG_LETTERS).is_some()) {
        Some(n) => flaw(format!("/tags/{n}"), format!("a label has {MOST_TAG_LETTERS} letters at most")),
        None => Ok(()),
    }
}

/// Whether `key` may be an idempotency key.
///
/// # Errors
/// It is empty, too long, or has control characters.
pub fn check_idempotency_key(key: &str) -> Result<(), Flaw> {
    let good = (1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&key.len()) && !key.chars().any(char::is_control);
    if good {
        return Ok(());
    }
    let detail = "an idempotency key has 1 to 255 bytes and no control characters".to_owned();
    Err(Flaw { pointer: "/idempotency_key".to_owned(), detail })
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn task() -> NewTask {
        NewTask::new(Target::agent("tally", "a"), "Add", RawValue::NULL.to_owned(), 5)
    }

    #[test]
    fn what_was_not_chosen_stays_and_what_was_is_given_again() {
        let mut new = NewTask { priority: 7, ..task() };
        let now = Timestamp::UNIX_EPOCH;
        TaskOptions::default().apply(&mut new, now);
        assert_eq!((new.priority, new.max_attempts, new.run_at), (7, 5, None));
        let mut options = TaskOptions { run_in: Some(Duration::from_secs(1)), ..TaskOptions::default() };
        options.apply(&mut new, now);
        options.tags.push("a".to_owned());
        (options.max_attempts, options.expires_in) = (Some(0), Some(Duration::MAX));
        options.apply(&mut new, now);
        assert_eq!((new.priority, new.max_attempts, new.tags), (7, 1, vec!["a".to_owned()]));
        assert_eq!(new.run_at, Timestamp::from_second(1).ok());
        assert_eq!(new.expires_at, Some(Timestamp::MAX));
    }

    #[test]
    fn each_choice_makes_another_request_and_the_key_makes_none() {
        let agent = Target::agent("tally", "a");
        let of = |change: fn(&mut TaskOptions)| {
            let mut options = TaskOptions::default();
            change(&mut options);
            options.chosen(&agent)
        };
        let all = [
            of(|o| o.run_at = Some(Timestamp::UNIX_EPOCH)),
            of(|o| o.run_in = Some(Duration::from_secs(1))),
            of(|o| o.priority = Some(0)),
            of(|o| o.max_attempts = Some(1)),
            of(|o| o.timeout = Some(Duration::from_secs(1))),
            of(|o| o.after = vec![TaskId::fresh()]),
            of(|o| o.on_parent_failed = Some(OnParentFailed::Run)),
            of(|o| o.tags = vec!["a".to_owned()]),
            of(|o| o.expires_at = Some(Timestamp::UNIX_EPOCH)),
            of(|o| o.expires_in = Some(Duration::from_secs(1))),
        ];
        let told: std::collections::HashSet<_> = all.iter().flatten().collect();
        assert_eq!(told.len(), all.len(), "{all:?}");
        assert_eq!(of(|o| o.idempotency_key = Some("k".to_owned())), None);
        let once = TaskOptions { max_attempts: Some(1), ..TaskOptions::default() };
        assert_eq!(once.chosen(&Target::Tool("pay".to_owned())), None);
    }

    #[test]
    fn too_many_labels_and_what_is_no_key_are_told_where_they_stand() {
        let of = |tags, key: Option<&str>| {
            let idempotency_key = key.map(str::to_owned);
            TaskOptions { tags, idempotency_key, ..TaskOptions::default() }.check().map_err(|f| f.pointer)
        };
        assert_eq!(of(vec![String::new(); MOST_TAGS], Some("k")), Ok(()));
        assert_eq!(of(vec![String::new(); MOST_TAGS + 1], None), Err("/tags".to_owned()));
        assert_eq!(of(vec!["a".to_owned(), "ä".repeat(257)], None), Err("/tags/1".to_owned()));
        for key in ["", "a\nb"] {
            assert_eq!(of(Vec::new(), Some(key)), Err("/idempotency_key".to_owned()));
        }
    }
}
