//! Agents' states, written by a person.

use serde_json::json;

use crate::support::{Answer, Node, until};

const STATE: &str = "/api/v1/agents/counter/a/state";

fn edit(node: &Node, version: &str, state: &str) -> Answer {
    node.send("PUT", STATE, &[("If-Match", &format!("\"{version}\""))], Some(state))
}

fn roll_back(node: &Node, body: &str) -> Answer {
    node.post("/api/v1/agents/counter/a/rollback", body)
}

#[test]
fn a_state_is_edited_by_whoever_has_seen_it() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":2}"#);
    let seen = node.get(STATE);
    assert_eq!((seen.header("etag"), &seen.json["version"]), (Some("\"1\""), &json!(1)));
    assert_eq!(node.get("/api/v1/agents/counter/a").header("etag"), Some("\"1\""));
    let mut state = seen.json["state"].clone();
    state["total"] = json!(40);
    let written = edit(&node, "1", &state.to_string());
    assert_eq!(
        (written.status, written.header("etag"), &written.json),
        (200, Some("\"2\""), &json!({"version": 2}))
    );
    assert_eq!(node.ask("a", "Add", r#"{"n":2}"#).json["total"], 42, "it goes on from there");
    assert_eq!(node.get(&format!("{STATE}?version=1")).json["state"]["total"], 2, "the one before is kept");
    assert!(node.log().contains("agent.edited"));

    edit(&node, "1", &state.to_string()).is_problem(412, "precondition_failed");
    edit(&node, "x", &state.to_string()).is_problem(412, "precondition_failed");
    node.send("PUT", STATE, &[], Some("{}")).is_problem(428, "precondition_required");
    node.send("PUT", STATE, &[("If-Match", "3")], Some("{}")).is_problem(400, "malformed");
    edit(&node, "3", "{").is_problem(400, "malformed");
    edit(&node, "3", "").is_problem(400, "malformed");
    state["total"] = json!("much");
    let invalid = edit(&node, "3", &state.to_string());
    invalid.is_problem(422, "invalid");
    assert_eq!(invalid.json["errors"][0]["pointer"], "/total", "{invalid:?}");
    state["total"] = json!(1);
    state["tota1"] = json!(1);
    let invalid = edit(&node, "3", &state.to_string());
    assert_eq!(invalid.json["errors"][0]["pointer"], "/tota1", "{invalid:?}");
    assert_eq!(node.ask("a", "Get", "").json["total"], 42, "nothing of it was written");
    let nobody = node.send("PUT", "/api/v1/agents/counter/never/state", &[("If-Match", "\"1\"")], Some("{}"));
    assert!(matches!(nobody.status, 404 | 422), "{nobody:?}");
}

#[test]
fn an_agent_goes_on_from_a_kept_version() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":1}"#);
    let state = node.get(STATE).json["state"].to_string();
    edit(&node, "1", &state.replace("\"total\":1", "\"total\":100"));
    let back = roll_back(&node, r#"{"to":1}"#);
    assert_eq!((back.status, &back.json), (200, &json!({"version": 3})), "{back:?}");
    assert_eq!(node.ask("a", "Get", "").json["total"], 1);
    assert_eq!(node.get(&format!("{STATE}?version=2")).json["state"]["total"], 100);
    roll_back(&node, r#"{"to":3}"#).is_problem(409, "wrong_state");
    roll_back(&node, r#"{"to":77}"#).is_problem(404, "not_found");
    roll_back(&node, "{}").is_problem(422, "invalid");
    let path = "/api/v1/agents/counter/a/rollback";
    let stale = node.send("POST", path, &[("If-Match", "\"2\"")], Some(r#"{"to":2}"#));
    stale.is_problem(412, "precondition_failed");
}

#[test]
fn a_turn_that_runs_meanwhile_is_not_undone_and_what_waits_goes_on_from_the_new_state() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":1}"#);
    let state = node.get(STATE).json["state"].to_string().replace("\"total\":1", "\"total\":10");
    std::thread::scope(|scope| {
        let long = scope.spawn(|| node.ask("a", "Sleep", r#"{"ms":1500}"#));
        until("it sleeps", || node.get("/api/v1/tree").text.contains("Sleep"));
        let edited = scope.spawn(|| edit(&node, "1", &state));
        until("it is held", || node.get("/api/v1/agents/counter/a").json["status"] == "paused");
        let task = node.post("/api/v1/tasks", r#"{"target":"counter/a","message":"Add","input":{"n":5}}"#);
        let waits = scope.spawn(|| node.ask("a", "Add", r#"{"n":1}"#));
        assert_eq!(long.join().unwrap().status, 200, "it ended as if nothing were");
        let edited = edited.join().unwrap();
        assert!(matches!(edited.status, 200), "{edited:?}");
        assert_eq!(waits.join().unwrap().status, 200);
        let id = task.json["id"].as_str().unwrap();
        assert_eq!(node.get(&format!("/api/v1/tasks/{id}?wait=30s")).json["state"], "succeeded");
    });
    assert_eq!(node.ask("a", "Get", "").json["total"], 16);
}

#[test]
fn what_is_paused_is_edited_and_stays_so() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":1}"#);
    let state = node.get(STATE).json["state"].to_string().replace("\"total\":1", "\"total\":10");
    assert_eq!(node.post("/api/v1/agents/counter/a/pause", "").status, 202);
    assert_eq!(edit(&node, "1", &state).status, 200);
    assert_eq!(node.get("/api/v1/agents/counter/a").json["status"], "paused");
    node.post("/api/v1/agents/counter/a/resume", "");
    assert_eq!(node.ask("a", "Get", "").json["total"], 10);
}

#[test]
fn a_deleted_agent_starts_anew() {
    let node = Node::start(&[]);
    let delete = |query: &str| node.send("DELETE", &format!("/api/v1/agents/counter/a{query}"), &[], None);
    delete("").is_problem(404, "not_found");
    node.ask("a", "Add", r#"{"n":5}"#);
    let later = r#"{"target":"counter/a","message":"Add","input":{"n":1},"run_in":"1h"}"#;
    let task = node.post("/api/v1/tasks", later).json["id"].as_str().unwrap().to_owned();
    let waits = delete("");
    waits.is_problem(409, "wrong_state");
    assert!(waits.text.contains("1 task waits"), "{waits:?}");
    assert_eq!(node.ask("a", "Get", "").json["total"], 5, "it goes on");

    let path = "/api/v1/agents/counter/a?cancel_tasks=true";
    let stale = node.send("DELETE", path, &[("If-Match", "\"7\"")], None);
    stale.is_problem(412, "precondition_failed");
    assert_eq!(node.ask("a", "Get", "").json["total"], 5, "it goes on");

    let tag = node.get("/api/v1/agents/counter/a").header("etag").unwrap().to_owned();
    let gone = node.send("DELETE", path, &[("If-Match", &tag)], None);
    assert_eq!((gone.status, &gone.json), (200, &json!({"deleted": true, "cancelled_tasks": 1})));
    assert_eq!(node.get(&format!("/api/v1/tasks/{task}")).json["state"], "cancelled");
    node.get("/api/v1/agents/counter/a").is_problem(404, "not_found");
    node.get(STATE).is_problem(404, "not_found");
    assert_eq!(node.get("/api/v1/agents?kind=counter").json["items"], json!([]));
    assert_eq!(node.get("/api/v1/agents/counter/a/snapshots").json["items"], json!([]));
    delete("").is_problem(404, "not_found");
    assert!(node.log().contains("agent.deleted"));

    let anew = node.ask("a", "Add", r#"{"n":2}"#);
    assert_eq!((&anew.json["total"], anew.header("greenroom-version")), (&json!(2), Some("4")), "{anew:?}");
    assert_eq!(node.get("/api/v1/agents/counter/a").json["status"], "idle");
    let versions = node.get("/api/v1/agents/counter/a/snapshots").json["items"].clone();
    assert_eq!(versions.as_array().unwrap().len(), 1, "{versions}");
    node.post("/api/v1/agents/counter/a/rollback", r#"{"to":1}"#).is_problem(404, "not_found");
}

#[test]
fn a_deletion_survives_the_node_and_a_task_starts_the_agent_anew() {
    let mut node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":5}"#);
    node.post("/api/v1/agents/counter/a/stop", "");
    assert_eq!(node.send("DELETE", "/api/v1/agents/counter/a", &[], None).status, 200);
    node.kill();
    node.start_again();
    node.get("/api/v1/agents/counter/a").is_problem(404, "not_found");
    let task = r#"{"target":"counter/a","message":"Add","input":{"n":1}}"#;
    let id = node.post("/api/v1/tasks", task).json["id"].as_str().unwrap().to_owned();
    let ended = node.get(&format!("/api/v1/tasks/{id}?wait=30s"));
    assert_eq!((&ended.json["state"], &ended.json["result"]["total"]), (&json!("succeeded"), &json!(1)));
}
