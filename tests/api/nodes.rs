//! Nodes that are drained.

use serde_json::json;

use crate::support::Node;

#[test]
fn a_drained_node_begins_no_tasks_until_it_is_resumed() {
    let node = Node::start(&["node.name=eu-1"]);
    let id = node.get("/api/v1/nodes").json["items"][0]["id"].as_str().unwrap().to_owned();
    let act = |id: &str, action: &str| node.post(&format!("/api/v1/nodes/{id}/{action}"), "");
    assert_eq!(act("self", "drain").status, 202);
    assert_eq!(node.get("/api/v1/nodes").json["items"][0]["status"], "draining");
    node.get("/health/ready").is_problem(503, "unavailable");
    let status = node.get("/api/v1/status").json;
    assert_eq!((&status["verdict"], &status["reasons"][0]["code"]), (&json!("degraded"), &json!("draining")));
    let submit = |target: &str| {
        let body = json!({"target": target, "message": "Add", "input": {"n": 1}}).to_string();
        node.post("/api/v1/tasks", &body).json["id"].as_str().unwrap().to_owned()
    };
    let waits = submit("counter/a");
    let begins = node.post("/api/v1/tasks", r#"{"target":"tool:probe.hold","input":{"ms":1}}"#);
    assert_eq!(node.ask("a", "Add", r#"{"n":1}"#).json["total"], 1, "messages are taken");
    assert_eq!(node.get(&format!("/api/v1/tasks/{waits}?wait=300ms")).json["state"], "ready");
    let begins = begins.json["id"].as_str().unwrap();
    assert_eq!(node.get(&format!("/api/v1/tasks/{begins}")).json["state"], "ready");

    assert_eq!(act("eu-1", "resume").status, 202);
    for task in [&waits, begins] {
        assert_eq!(node.get(&format!("/api/v1/tasks/{task}?wait=30s")).json["state"], "succeeded");
    }
    assert_eq!(node.get("/health/ready").status, 200);
    assert_eq!(node.get("/api/v1/nodes").json["items"][0]["status"], "active");
    assert_eq!(act(&id[..13], "drain").status, 202);
    act("nobody", "drain").is_problem(404, "not_found");
    assert!(node.log().contains("node.draining") && node.log().contains("node.resumed"));
}

#[test]
fn a_restart_ends_it() {
    let mut node = Node::start(&[]);
    node.post("/api/v1/nodes/self/drain", "");
    node.terminate();
    node.start_again();
    assert_eq!(node.get("/health/ready").status, 200);
}
