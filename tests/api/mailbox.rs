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
