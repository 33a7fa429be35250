//! The encoding of what is kept under an idempotency key: an outcome, or the tasks of a batch.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    agent::{AskError, Fault, JsonRefusal},
    model::{id::TaskId, task::NewTask},
};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    Reply(Box<RawValue>),
    Refused(JsonRefusal),
    Failed(Fault),
    TooLarge(String),
}

/// An outcome as it is kept.
pub(crate) fn write(outcome: &Result<Vec<u8>, AskError<JsonRefusal>>) -> Vec<u8> {
    let kept = match outcome {
        Ok(reply) => {
            match String::from_utf8(reply.clone()).ok().and_then(|t| RawValue::from_string(t).ok()) {
                Some(raw) => Kept::Reply(raw),
                None => Kept::Failed(Fault::new("the reply was no JSON")),
            }
        }
        Err(AskError::Refused(refusal)) => Kept::Refused(refusal.clone()),
        Err(AskError::Failed(fault)) => Kept::Failed(fault.clone()),
        Err(AskError::TooLarge(why)) => Kept::TooLarge(why.clone()),
        Err(other) => Kept::Failed(Fault::new(other.to_string())),
    };
    serde_json::to_vec(&kept).unwrap_or_default()
}

/// A kept outcome; a key that stands for a task gives the task's id.
pub(crate) fn read(
    reply: Option<&[u8]>,
    task: Option<TaskId>,
) -> Result<Box<RawValue>, AskError<JsonRefusal>> {
    if let (None, Some(task)) = (reply, task) {
        return Err(AskError::WrongState(format!("this key was used to submit task {task}")));
    }
    match serde_json::from_slice::<Kept>(reply.unwrap_or_default()) {
        Ok(Kept::Reply(raw)) => Ok(raw),
        Ok(Kept::Refused(refusal)) => Err(AskError::Refused(refusal)),
        Ok(Kept::Failed(fault)) => Err(AskError::Failed(fault)),
        Ok(Kept::TooLarge(why)) => Err(AskError::TooLarge(why)),
        Err(e) => Err(AskError::Failed(Fault::new(format!("the first outcome cannot be read: {e}")))),
    }
}

/// Tasks that were submitted together, as they are kept: their ids, 16 bytes each.
pub(crate) fn write_ids(tasks: &[NewTask]) -> Vec<u8> {
    tasks.iter().flat_map(|task| *task.id.0.as_bytes()).collect()
}

/// Which tasks those are.
pub(crate) fn read_ids(kept: &[u8]) -> Vec<TaskId> {
    let (ids, _) = kept.as_chunks::<16>();
    ids.iter().map(|id| TaskId(Uuid::from_bytes(*id))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_read_back() {
        assert_eq!(read(Some(&write(&Ok(b"{\"n\":1}".to_vec()))), None).unwrap().get(), "{\"n\":1}");
        let refusal = JsonRefusal { message: "no".into(), value: serde_json::json!(1) };
        assert_eq!(
            read(Some(&write(&Err(AskError::Refused(refusal.clone())))), None).unwrap_err(),
            AskError::Refused(refusal)
        );
        assert_eq!(read(Some(b"x"), None).unwrap_err().code(), "handler_failed");
    }
}
