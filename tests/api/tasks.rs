//! Tasks over HTTP: refused while too much waits, and brought back by the many.

use serde_json::{Value, json};

use crate::support::Node;

fn failing(node: &Node, key: &str, tag: &str) -> String {
    let task = json!({
        "target": format!("counter/{key}"), "message": "Fail", "input": {"message": "no"},
        "max_attempts": 1, "tags": [tag],
    });
    let accepted = node.post("/api/v1/tasks", &task.to_string());
    let id = accepted.json["id"].as_str().unwrap().to_owned();
    let ended = node.get(&format!("/api/v1/tasks/{id}?wait=30s"));
    assert_eq!((&ended.json["state"], &ended.json["tags"]), (&json!("failed"), &json!([tag])), "{ended:?}");
    id
}

fn retry(node: &Node, filter: Value, dry_run: bool) -> Value {
    let answer = node.post("/api/v1/tasks/retry", &json!({"filter": filter, "dry_run": dry_run}).to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json
}

#[test]
fn a_submission_too_many_is_refused_and_told_when_to_come_again() {
    let node = Node::start(&["tasks.max_backlog=2"]);
    node.post("/api/v1/kinds/counter/pause", "");
    let task = r#"{"target":"counter/a","message":"Add","input":{"n":1}}"#;
    let first = node.send("POST", "/api/v1/tasks", &[("Idempotency-Key", "k")], Some(task));
    assert_eq!((first.status, node.post("/api/v1/tasks", task).status), (202, 202));
    for refused in [
        node.post("/api/v1/tasks", task),
        node.post("/api/v1/tasks/batch", &format!(r#"{{"tasks":[{task}]}}"#)),
        node.post("/api/v1/agents/counter/a/messages/Add?mode=submit", r#"{"n":1}"#),
    ] {
        refused.is_problem(429, "overloaded");
        assert_eq!(refused.header("retry-after"), Some("1"), "{refused:?}");
    }
    let again = node.send("POST", "/api/v1/tasks", &[("Idempotency-Key", "k")], Some(task));
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, Some("true")), "{again:?}");
    assert_eq!(again.json["id"], first.json["id"]);
    assert_eq!(node.ask("a", "Get", "").status, 200, "asks go on");
    node.post("/api/v1/kinds/counter/resume", "");
    let ended = node.get(&format!("/api/v1/tasks/{}?wait=30s", first.json["id"].as_str().unwrap()));
    assert_eq!(ended.json["state"], "succeeded");
    let room = (0..600).find(|_| {
        std::thread::yield_now();
        node.post("/api/v1/tasks", task).status == 202
    });
    assert!(room.is_some(), "there is room again");
}

#[test]
fn dead_letters_are_counted_then_brought_back() {
    let node = Node::start(&[]);
    let ids = [failing(&node, "a", "night"), failing(&node, "a", "day"), failing(&node, "b", "night")];
    let listed = node.get("/api/v1/tasks?state=failed&tag=night").json;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
    let count = |filter: Value| retry(&node, filter, true)["count"].clone();
    assert_eq!(retry(&node, json!({}), true), json!({"dry_run": true, "count": 3, "next_cursor": null}));
    assert_eq!(count(json!({"target": "counter/a"})), 2);
    assert_eq!(count(json!({"tag": "night"})), 2);
    assert_eq!(count(json!({"target": "counter/b", "tag": "day"})), 0);
    assert_eq!(count(json!({"state": "cancelled"})), 0);
    assert_eq!(node.get("/api/v1/tasks?state=failed").json["items"].as_array().unwrap().len(), 3);

    node.post("/api/v1/kinds/counter/pause", "");
    let answer = retry(&node, json!({"target": "counter/a"}), false);
    assert_eq!(answer, json!({"dry_run": false, "count": 2, "next_cursor": null}));
    let state = |id: &str| node.get(&format!("/api/v1/tasks/{id}")).json["state"].clone();
    assert_eq!([state(&ids[0]), state(&ids[1]), state(&ids[2])], ["ready", "ready", "failed"]);
    node.post(&format!("/api/v1/tasks/{}/cancel", ids[0]), "");
    assert_eq!(retry(&node, json!({"state": "cancelled"}), false)["count"], 1);
    assert_eq!(state(&ids[0]), "ready");

    for (body, status, code) in [
        (r#"{"filter":{"state":"succeeded"}}"#, 422, "invalid"),
        (r#"{"filter":{"state":"outcome_unknown"}}"#, 422, "invalid"),
        (r#"{"filter":{"target":"nope"}}"#, 422, "invalid"),
        (r#"{"filter":{"targets":"counter/a"}}"#, 422, "invalid"),
        (r#"{"dry_run":true}"#, 422, "invalid"),
        (r#"{"filter":{},"cursor":"x"}"#, 400, "malformed"),
    ] {
        node.post("/api/v1/tasks/retry", body).is_problem(status, code);
    }
    node.get("/api/v1/tasks/retry").is_problem(405, "method_not_allowed");
}
