//! Tasks: submitting, watching, deciding.

use serde_json::{Value, json};

use super::{
    operation::{Operation, get, post},
    patterns::{ID, NUMBER, targets, whole_or_empty},
    schemas::{Schemas, list},
};
use crate::{
    model::task::{TaskEvent, TaskState, TaskView},
    runtime::views::{DismissRequest, Family, RetryRequest, Swept, TaskLine, TaskRequest},
};

pub(super) fn operations(s: &mut Schemas, to: &Value) -> Vec<Operation> {
    let (task, view) = ("/tasks/{id}", s.answer::<TaskView>());
    let states = TaskState::ALL.map(TaskState::name);
    let mut all = vec![
        get("/tasks", "listTasks", "Lists tasks, newest first.")
            .word("state", "Only this state.", &states)
            .query("target", "Only for this target, or with a `*` at the end for all that begin so, such as `KIND/*`.", whole_or_empty(&targets()))
            .says("A call looks at some ten thousand tasks. Where few of them are meant, a page is short, or empty, and has a cursor all the same: go on with it until it is null.")
            .says("An entry has no `result`, and of an error over 32 KiB only its `code` and `message`: `GET /tasks/{id}` has all of it.")
            .text("tag", "Only with this label.")
            .paged(ID)
            .answers(200, "A page.", s.list::<TaskView>()),
        post("/tasks", "submitTask", "Submits a task.")
            .says("The header `Idempotency-Key` does what the field does.")
            .takes(json!({"allOf": [s.request::<TaskRequest>(), {"properties": {"name": {"type": "null"}}}, to.clone()]}))
            .answers(202, "Accepted: durable.", view.clone())
            .tells("Location", "Where it is.")
            .refuses(&[(404, "unknown_kind"), (404, "unknown_message"), (404, "not_found"), (409, "wrong_state"), (429, "overloaded")])
            .refuses(&[(504, "outcome_unknown")])
            .writes(),
        post("/tasks/batch", "submitBatch", "Submits tasks with an order among them, all or none.")
            .takes(json!({
                "type": "object", "required": ["tasks"], "additionalProperties": false,
                "properties": {"tasks": {"type": "array", "minItems": 1, "items": {"allOf": [
                    s.request::<TaskRequest>(), {"properties": {"idempotency_key": {"type": "null"}}}, to.clone(),
                ]}}},
            }))
            .says("An entry of the answer is as in a list. An idempotency key is one for all of them.")
            .answers(202, "Accepted.", list(view.clone()))
            .tells("Idempotency-Replayed", "Where these are the first ones under the key.")
            .idempotent()
            .refuses(&[(404, "unknown_kind"), (404, "unknown_message"), (404, "not_found")])
            .refuses(&[(409, "wrong_state"), (429, "overloaded"), (504, "outcome_unknown")])
            .writes(),
        post("/tasks/retry", "retryTasks", "Retries the dead letters that match a filter, or counts them.")
            .takes(s.request::<RetryRequest>())
            .answers(200, "The result.", s.answer::<Swept>())
            .writes(),
        post("/tasks/dismiss", "dismissTasks", "Dismisses the dead letters that match a filter, or counts them.")
            .takes(s.request::<DismissRequest>())
            .answers(200, "The result.", s.answer::<Swept>())
            .writes(),
        get(task, "getTask", "Shows a task, at once or when it has ended.")
            .duration("wait", "How long to wait for its end; at most a minute.")
            .flag("input", "Also what it was given, at once.")
            .answers(200, "The item.", view.clone()),
        get(&format!("{task}/history"), "getTaskHistory", "Lists the history of a task.").answers(200, "The lines.", s.list::<TaskEvent>()),
        get(&format!("{task}/family"), "getTaskFamily", "Shows a task's prerequisites, dependents, submitter and submissions.")
            .answers(200, "The family, as far as it is known.", s.answer::<Family>()),
        get(&format!("{task}/logs"), "getTaskLogs", "Lists the log lines of a task, oldest first.")
            .paged(NUMBER)
            .answers(200, "A page.", s.list::<TaskLine>()),
        post(&format!("{task}/resolve"), "resolveTask", "Decides the outcome of a task whose effect was interrupted.")
            .takes(json!({
                "oneOf": [
                    {"type": "object", "required": ["succeeded"], "properties": {"succeeded": {}}, "additionalProperties": false},
                    {"type": "object", "required": ["failed"], "properties": {"failed": {"type": "string"}}, "additionalProperties": false},
                ],
            }))
            .answers(202, "Done.", view.clone())
            .refuses(&[(409, "wrong_state"), (504, "outcome_unknown")])
            .writes(),
        post(&format!("{task}/signals/{{name}}"), "signalTask", "Sends a signal to a task; the body is its content.")
            .idempotent()
            .may_take(json!({}))
            .answers(202, "Sent.", view.clone())
            .refuses(&[(409, "wrong_state"), (504, "outcome_unknown")])
            .writes(),
    ];
    for (action, does) in [
        ("cancel", "Cancels it, also while it runs."),
        ("retry", "Tries it again."),
        ("dismiss", "Lets a dead letter rest: it is cancelled, with its error and its history."),
    ] {
        all.push(
            post(&format!("{task}/{action}"), &format!("{action}Task"), does)
                .answers(202, "Started.", view.clone())
                .refuses(&[(409, "wrong_state"), (504, "outcome_unknown")])
                .writes(),
        );
    }
    all
}
