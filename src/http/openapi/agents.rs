//! Agents: queries, messages and actions. Each message of the program is an operation of its own.

use serde_json::json;

use super::{
    operation::{Operation, delete, get, post, put},
    patterns,
    schemas::{Schemas, accepted, own},
};
use crate::{
    model::{access::Scope, task::TaskView},
    runtime::views::{AgentInfo, KindInfo, MessageInfo, SnapshotInfo, StateInfo},
};

const STATUSES: &[&str] = &[
    "starting",
    "active",
    "idle",
    "passivated",
    "restarting",
    "paused",
    "stopping",
    "stopped",
    "quarantined",
    "elsewhere",
];
const MODES: &[&str] = &["ask", "tell", "submit"];
const ACTIONS: [(&str, &str); 6] = [
    ("stop", "Stops it until it is restarted; what waits is refused, its tasks are parked."),
    ("restart", "Starts it anew, with a fresh budget of restarts."),
    ("pause", "Lets its messages wait."),
    ("resume", "Ends a pause."),
    ("quarantine", "Takes it out of service, as unreadable states are."),
    ("release", "Ends a quarantine, also with an earlier state."),
];

pub(super) fn operations(s: &mut Schemas, kinds: &[KindInfo]) -> Vec<Operation> {
    let agent = "/agents/{kind}/{key}";
    let mut all = vec![
        get("/agents", "listAgents", "Lists agents, by kind and key.")
            .text("kind", "Only this kind.")
            .word("status", "Only this status.", STATUSES)
            .paged(&format!("{}/[\\s\\S]*", patterns::KIND))
            .answers(200, "A page.", s.list::<AgentInfo>())
            .refuses(&[(404, "unknown_kind")]),
        get(agent, "getAgent", "Shows an agent.")
            .answers(200, "The item, as far as this node can tell.", s.answer::<AgentInfo>())
            .tells("ETag", "Its version, for `If-Match`."),
        get(&format!("{agent}/state"), "getState", "Shows an agent's state, current or of a kept version.")
            .number("version", "At this version.", 0, i64::MAX as u64)
            .answers(200, "The state.", s.answer::<StateInfo>())
            .tells("ETag", "Its version, for `If-Match`.")
            .refuses(&[(409, "wrong_state")]),
        get(&format!("{agent}/snapshots"), "listSnapshots", "Lists the kept versions of an agent's state.")
            .answers(200, "The items.", s.list::<SnapshotInfo>()),
    ]
    .into_iter()
    .map(|operation| operation.refuses(&[(404, "unknown_kind")]))
    .collect::<Vec<_>>();
    let clear = json!({"type": "boolean"});
    for (action, does) in ACTIONS {
        let act = post(&format!("{agent}/{action}"), &format!("{action}Agent"), does);
        let (act, members) = match action {
            "stop" | "restart" | "pause" => {
                (act.flag("clear", "Also clear what waits."), json!({"clear": clear}))
            }
            "release" => {
                let version = json!({"type": "integer", "minimum": 1, "maximum": i64::MAX, "description": "The kept version to go on from."});
                (act, json!({"version": version}))
            }
            _ => (act, json!({})),
        };
        all.push(
            act.may_take(
                json!({"type": ["object", "null"], "properties": members, "additionalProperties": false}),
            )
            .answers(202, "Started.", accepted())
            .refuses(&[(404, "unknown_kind"), (409, "wrong_state")])
            .writes(),
        );
    }
    all.extend(repair(agent));
    for kind in kinds {
        all.extend(kind.messages.iter().map(|message| send(s, &kind.kind, message)));
    }
    all
}

/// What a person writes.
fn repair(agent: &str) -> impl Iterator<Item = Operation> {
    let version = json!({
        "type": "object", "required": ["version"], "properties": {"version": {"type": "integer"}},
    });
    let to = json!({
        "type": "object", "required": ["to"],
        "properties": {"to": {"type": "integer", "minimum": 0, "maximum": i64::MAX, "description": "The kept version."}},
        "additionalProperties": false,
    });
    let gone = json!({
        "type": "object", "required": ["deleted", "cancelled_tasks"],
        "properties": {"deleted": {"const": true}, "cancelled_tasks": {"type": "integer"}},
    });
    let all = [
        put(
            &format!("{agent}/state"),
            "editState",
            "Replaces an agent's state, if it is still at the given version.",
        )
        .needs_if_match()
        .takes(json!({}))
        .answers(200, "The new version.", version.clone())
        .tells("ETag", "The same.")
        .refuses(&[(413, "too_large"), (422, "invalid")]),
        post(&format!("{agent}/rollback"), "rollBackAgent", "Rolls an agent's state back to a kept version.")
            .if_match()
            .takes(to)
            .answers(200, "The new version.", version)
            .tells("ETag", "The same."),
        delete(agent, "deleteAgent", "Deletes an agent; a later message starts it with an empty state.")
            .flag("cancel_tasks", "Also cancel the tasks that wait for it.")
            .if_match()
            .answers(200, "Deleted.", gone),
    ];
    let refusals =
        [(404, "unknown_kind"), (409, "wrong_state"), (429, "overloaded"), (504, "outcome_unknown")];
    all.into_iter().map(move |operation| operation.needs(Scope::Admin).refuses(&refusals).writes())
}

fn send(s: &mut Schemas, kind: &str, message: &MessageInfo) -> Operation {
    let path = format!("/agents/{kind}/{{key}}/messages/{}", message.name);
    post(&path, &format!("send_{kind}_{}", message.name), &format!("Sends `{}` to a `{kind}`.", message.name))
        .word("mode", "Whether to wait for the reply, for its acceptance as a task, or for nothing.", MODES)
        .patience()
        .flag("urgent", "Before all that waits and is not.")
        .idempotent()
        .takes_own(own(&message.schema))
        .answers(200, "The reply.", own(&message.reply))
        .tells("Greenroom-Version", "The agent's version after the turn.")
        .answers(
            202,
            "The task, or an acknowledgement of the tell.",
            json!({"anyOf": [s.answer::<TaskView>(), accepted()]}),
        )
        .tells("Idempotency-Replayed", "Where this is the first outcome under its key.")
        .runs_code()
        .says("`mode=tell` takes no idempotency key, which could make nothing safe.")
}
