//! A mailbox that is nearly full is told, and that it is not any more.

use serde_json::json;

use crate::support::{Node, until};

#[test]
fn a_mailbox_that_is_nearly_full_is_told_once_until_it_is_half_empty() {
    let node = Node::start(&["agents.counter.mailbox=8", "log.format=json"]);
    let tell = |message: &str, body: &str| {
        node.post(&format!("/api/v1/agents/counter/slow/messages/{message}?mode=tell"), body).status
    };
    assert_eq!(tell("Sleep", r#"{"ms":3000}"#), 202);
    until("it sleeps", || node.get("/api/v1/tree").text.contains("Sleep"));
    while tell("Add", r#"{"n":1}"#) == 202 {}
    until("it is told", || !node.told(&["mailbox.backlog"]).is_empty());
    let status = node.get("/api/v1/status").json;
    assert_eq!(
        (&status["verdict"], &status["reasons"][0]["code"]),
        (&json!("degraded"), &json!("mailbox_full"))
    );
    until("that it is not any more, too", || !node.told(&["mailbox.cleared"]).is_empty());
    let told = node.told(&["mailbox.backlog", "mailbox.cleared"]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((&told[0]["subject"], &told[0]["capacity"]), (&json!("counter/slow"), &json!(8)));
    assert!(told[0]["depth"].as_u64().unwrap() >= 7 && told[1]["depth"].as_u64().unwrap() <= 4, "{told:?}");
    assert_eq!(node.get("/api/v1/status").json["verdict"], "ok");
}

/// The new activation has an inbox of its own; what was told of its mailbox was forgotten with the old one. The turn
/// that was cut short on the way is told of, which nobody waits for.
#[test]
fn that_a_mailbox_is_half_empty_is_told_although_its_agent_was_restarted_in_between() {
    let sets = ["agents.counter.mailbox=8", "agents.counter.turn_timeout=1h", "log.format=json"];
    let node = Node::start(&sets);
    let tell = |message: &str, body: &str| {
        node.post(&format!("/api/v1/agents/counter/slow/messages/{message}?mode=tell"), body).status
    };
    assert_eq!(tell("Sleep", r#"{"ms":3600000}"#), 202);
    while tell("Add", r#"{"n":1}"#) == 202 {}
    until("it is told", || !node.told(&["mailbox.backlog"]).is_empty());
    let reason = &node.get("/api/v1/status").json["reasons"][0];
    assert!(
        reason["remedy"].as_str().unwrap().contains("greenroom agents restart counter/slow;"),
        "{reason}"
    );
    assert_eq!(node.post("/api/v1/agents/counter/slow/restart", "").status, 202);
    until("it is cleared", || !node.told(&["mailbox.cleared"]).is_empty());
    let cut = &node.told(&["agent.turn_cut"])[0];
    assert_eq!((&cut["subject"], &cut["message"]), (&json!("counter/slow"), &json!("Sleep")), "{cut}");
    assert!(cut["ran_ms"].as_u64().unwrap() >= 5_000 && cut["by"] == "its stop or restart", "{cut}");
    assert_eq!(node.ask("slow", "Get", "").json, json!({"total": 8}), "what waited has run");
    assert_eq!(node.get("/api/v1/status").json["verdict"], "ok");
}

/// Whoever is to start an agent again has to know whether those have stopped who made it crash.
#[test]
fn what_a_stopped_agent_refuses_is_counted_until_it_is_started_again() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":1}"#);
    assert_eq!(node.post("/api/v1/agents/counter/a/stop", "").status, 202);
    let mailbox = || node.get("/api/v1/agents/counter/a").json["mailbox"].clone();
    assert_eq!((&mailbox()["refused"], &mailbox()["refused_at"]), (&json!(0), &json!(null)));
    for _ in 0..3 {
        node.ask("a", "Add", r#"{"n":1}"#).is_problem(409, "wrong_state");
    }
    // a task is parked
    node.post("/api/v1/tasks", r#"{"target":"counter/a","message":"Get"}"#);
    until("the task is parked", || node.get("/api/v1/tasks?state=parked").text.contains("counter/a"));
    assert_eq!(mailbox()["refused"], 3);
    assert_eq!(node.post("/api/v1/agents/counter/a/quarantine", "").status, 202);
    assert_eq!(mailbox()["refused"], 3, "it has not been started since");
    assert_eq!(node.post("/api/v1/agents/counter/a/release", "").status, 202);
    assert_eq!(node.post("/api/v1/agents/counter/a/stop", "").status, 202);
    assert_eq!(mailbox()["refused"], 0);
    node.ask("a", "Add", r#"{"n":1}"#).is_problem(409, "wrong_state");
    assert!(mailbox()["refused_at"].is_string(), "{}", mailbox());
    assert_eq!(node.post("/api/v1/agents/counter/a/restart", "").status, 202);
    assert_eq!(mailbox()["refused"], 0);
}
