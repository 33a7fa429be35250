//! Turns the outcome of an attempt into that of its task (succeeded, retried, or a dead letter), and into the
//! message to its submitter.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{json, value::RawValue};

use super::node::Node;
use crate::{
    agent::{AskError, JsonRefusal},
    clock,
    model::{
        id::Target,
        task::{AfterError, Claimed, NewTask, TaskError, TaskTerms},
    },
    store::{Finish, FinishOutcome, Guard, TELLING_ATTEMPTS},
};

/// What an attempt came to: the reply as JSON text, or the error.
pub(crate) type Attempt = Result<Vec<u8>, AskError<JsonRefusal>>;

/// Decides what an attempt's outcome makes of its task.
///
/// `jitter` is from 0 to 1.
pub(crate) fn settle(
    claim: &Claimed,
    attempt: Attempt,
    terms: &TaskTerms,
    now: Timestamp,
    jitter: f64,
) -> FinishOutcome {
    let (error, advice) = match attempt {
        Ok(result) => return FinishOutcome::Succeeded { result },
        Err(AskError::WrongState(_)) => return FinishOutcome::Parked,
        Err(error) => (error.to_task_error(), error.advice()),
    };
    match claim.after_error(&error.code, advice, terms, now, jitter) {
        AfterError::Retry { run_at } => FinishOutcome::Retry { run_at, error },
        AfterError::Failed => FinishOutcome::Failed { error },
        AfterError::OutcomeUnknown => FinishOutcome::OutcomeUnknown { error },
    }
}

impl Node {
    /// What holds for a target's tasks that say nothing themselves.
    pub(crate) fn terms_of(&self, target: &Target) -> TaskTerms {
        let own = match target {
            Target::Agent { kind, .. } => self.kind(kind).map(|(_, kind)| kind.policy().terms),
            Target::Tool(name) => self.tools.get(name.as_str()).map(|tool| tool.terms()),
        };
        own.unwrap_or_else(|| self.settings.load().tasks.terms())
    }

    /// Decides what an attempt makes of its task.
    pub(crate) fn settle(&self, claim: &Claimed, attempt: Attempt) -> FinishOutcome {
        settle(claim, attempt, &self.terms_of(&claim.target), clock::now(), fastrand::f64())
    }
}

pub(crate) fn later(now: Timestamp, delay: Duration) -> Timestamp {
    now.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// The end of a claimed task, with the `Done` that its submitter asked for where it is final.
pub(crate) fn finish(claim: &Claimed, guard: Guard, outcome: FinishOutcome) -> (Finish, Option<NewTask>) {
    let done = done(claim, &outcome);
    (Finish { task: claim.id, guard, outcome, note: None }, done)
}

/// The `Done<M>` that a final outcome brings back.
fn done(claim: &Claimed, outcome: &FinishOutcome) -> Option<NewTask> {
    let notify = claim.notify.as_ref()?;
    let raw =
        |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|t| RawValue::from_string(t.to_owned()).ok());
    let fault = |e: &TaskError| json!({"message": e.message, "chain": e.chain, "crash_id": e.crash_id});
    let outcome = match outcome {
        FinishOutcome::Succeeded { result } => {
            let value = raw(result)?;
            format!(r#"{{"state":"succeeded","value":{}}}"#, value.get())
        }
        FinishOutcome::Failed { error } => match &error.refusal {
            Some(refusal) => json!({"state": "refused", "value": refusal}).to_string(),
            None => json!({"state": "failed", "value": fault(error)}).to_string(),
        },
        FinishOutcome::Cancelled => json!({"state": "cancelled"}).to_string(),
        FinishOutcome::OutcomeUnknown { .. } => json!({"state": "outcome_unknown"}).to_string(),
        FinishOutcome::Retry { .. } | FinishOutcome::Parked => return None,
    };
    let text = format!(r#"{{"task":"{}","input":{},"outcome":{outcome}}}"#, claim.id, claim.input.get());
    let input = RawValue::from_string(text).ok()?;
    let mut task = NewTask::new(
        notify.target.clone(),
        notify.message.clone(),
        input,
        claim.max_attempts.max(TELLING_ATTEMPTS),
    );
    task.parent = Some(claim.id);
    Some(task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::{Done, Fault, Outcome},
        message,
        model::{
            id::{Target, TaskId},
            task::{ClaimId, Notify},
        },
    };

    #[derive(Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    struct Read {
        path: String,
    }
    message!(Read -> u64);

    fn claim(attempt: u32, lost: u32) -> Claimed {
        Claimed {
            id: TaskId::fresh(),
            seq: 1,
            target: Target::agent("shelf", "a"),
            message: "Read".into(),
            input: RawValue::from_string(r#"{"path":"a b"}"#.into()).unwrap(),
            priority: 0,
            attempt,
            claim: ClaimId(1),
            lost,
            max_attempts: 3,
            timeout: None,
            notify: Some(Notify { target: Target::agent("librarian", "x"), message: "Read.done".into() }),
            batch: None,
            due: None,
            expires_at: None,
        }
    }

    fn decide(claim: &Claimed, attempt: Attempt) -> FinishOutcome {
        settle(claim, attempt, &TaskTerms::default(), Timestamp::UNIX_EPOCH, 0.5)
    }

    fn failed() -> Attempt {
        Err(AskError::Failed(Fault::new("no")))
    }

    #[test]
    fn an_error_is_tried_again_until_the_attempts_are_used_up() {
        let now = Timestamp::UNIX_EPOCH;
        assert!(
            matches!(decide(&claim(1, 0), failed()), FinishOutcome::Retry { run_at, .. } if run_at > now)
        );
        assert!(matches!(decide(&claim(3, 0), failed()), FinishOutcome::Failed { .. }));
        // a claim that was lost with its node is not a failed attempt
        assert!(matches!(decide(&claim(3, 1), failed()), FinishOutcome::Retry { .. }));
    }

    #[test]
    fn a_wait_counts_from_when_the_task_could_run() {
        let claimed = claim(1, 0);
        let later = |s| later(Timestamp::now(), Duration::from_secs(s));
        let waited = claimed.waited(later(10)).unwrap().as_secs_f64();
        assert!((9.0..=11.0).contains(&waited), "{waited}");
        let due = Claimed { due: Some(later(6)), ..claimed };
        let waited = due.waited(later(10)).unwrap().as_secs_f64();
        assert!((3.0..=5.0).contains(&waited), "{waited}");
        assert_eq!(claim(2, 0).waited(later(10)), None);
    }

    #[test]
    fn a_refusal_is_final_and_a_stopped_agent_parks() {
        let refusal = AskError::Refused(JsonRefusal { message: "no".into(), value: json!({"left": 1}) });
        assert!(
            matches!(decide(&claim(1, 0), Err(refusal)), FinishOutcome::Failed { error } if error.code == "refused")
        );
        let stopped = Err(AskError::WrongState("stopped".into()));
        assert!(matches!(decide(&claim(1, 0), stopped), FinishOutcome::Parked));
    }

    #[test]
    fn a_task_is_not_to_blame_for_a_store_without_room() {
        let outcome = |error: AskError<JsonRefusal>| decide(&claim(9, 0), Err(error));
        assert!(matches!(outcome(AskError::NoRoom("x".into())), FinishOutcome::Retry { .. }));
        assert!(matches!(outcome(AskError::Failed(Fault::new("x"))), FinishOutcome::Failed { .. }));
    }

    #[test]
    fn done_reads_back_as_the_typed_message() {
        let outcomes = [
            FinishOutcome::Succeeded { result: b"7".to_vec() },
            FinishOutcome::Failed {
                error: AskError::<JsonRefusal>::Failed(Fault::new("broken")).to_task_error(),
            },
            FinishOutcome::Cancelled,
            FinishOutcome::OutcomeUnknown { error: AskError::<JsonRefusal>::Unknown.to_task_error() },
        ];
        let read: Vec<Outcome<u64, crate::Never>> = outcomes
            .into_iter()
            .map(|o| {
                let (_, task) = finish(&claim(1, 0), Guard::Running { attempt: 1 }, o);
                let task = task.unwrap();
                assert_eq!(task.message, <Done<Read> as crate::Message>::NAME);
                let done: Done<Read> = serde_json::from_str(task.input.get()).unwrap();
                assert_eq!(done.input.path, "a b");
                done.outcome
            })
            .collect();
        assert_eq!(read[0], Outcome::Succeeded(7));
        assert!(matches!(&read[1], Outcome::Failed(f) if f.message == "broken"));
        assert_eq!(read[2], Outcome::Cancelled);
        assert_eq!(read[3], Outcome::Unknown);
    }
}
