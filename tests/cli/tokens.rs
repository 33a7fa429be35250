//! Tokens and login links from the command line, and on the other nodes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    postgres::Database,
    support::{Answer, Node},
};

fn me(node: &Node, token: &str) -> Answer {
    node.send_bare("GET", "/api/v1/me", &[("Authorization", &format!("Bearer {token}"))], None)
}

#[test]
fn a_token_is_made_listed_and_taken_away() {
    let node = Node::start(&[]);
    assert!(node.cli(&["tokens", "ls"]).err.contains("no tokens but the node's own"));
    let made = node.cli(&["tokens", "add", "ci", "--expires", "30d"]);
    let token = made.out.trim_end().to_owned();
    assert!(made.code == 0 && token.starts_with("gr_") && !token.contains(char::is_whitespace), "{made:?}");
    assert!(made.err.contains("`ci` may read") && !made.err.contains(&token), "{made:?}");
    assert_eq!(me(&node, &token).json["scope"], "read");
    let listed = node.cli(&["tokens", "ls"]);
    assert!(listed.out.contains("ci") && listed.out.contains("in 29 d"), "{listed:?}");
    assert!(!listed.out.contains(&token));
    let again = node.cli(&["tokens", "add", "ci"]);
    assert_eq!((again.code, again.out.as_str()), (4, ""), "{again:?}");
    assert_eq!(node.cli(&["tokens", "add", "Ci"]).code, 2);

    let refused = node.cli(&["stop", "--token", &token]);
    assert!(refused.code == 5 && refused.err.contains("scope `admin`"), "{refused:?}");
    assert_eq!(node.cli(&["tokens", "rm", "ci"]).code, 0);
    assert_eq!(node.cli(&["tokens", "rm", "ci"]).code, 3);
    assert_eq!(node.cli(&["status", "--token", &token]).code, 5);
}

#[test]
fn a_login_link_is_printed_alone() {
    let node = Node::start(&[]);
    let said = node.cli(&["login"]);
    let path = said.out.trim_end().strip_prefix(&node.url).unwrap().to_owned();
    assert!(said.code == 0 && said.err.is_empty() && path.starts_with("/login?code=gr_"), "{said:?}");
    assert_eq!(node.send_bare("GET", &path, &[], None).status, 303);
    assert!(node.cli(&["login", "--json"]).json()["expires_at"].is_string());
    assert!(!node.log().contains("code="), "it is in no log: {}", node.log());
    assert!(!node.get("/api/v1/logs?tail=1000").text.contains("code="));
}

#[test]
fn what_one_node_gives_and_takes_the_others_know() {
    let database = Database::new();
    let store = format!("store.url={}", database.url());
    let (here, there) = (Node::start(&[&store]), Node::start(&[&store]));
    let made = here.post("/api/v1/tokens", r#"{"name":"ci","scope":"operate"}"#);
    let token = made.json["token"].as_str().unwrap();
    let known_within = |status: u16| {
        let began = Instant::now();
        while me(&there, token).status != status {
            assert!(began.elapsed() < Duration::from_secs(5), "it is to be known within a few seconds");
        }
    };
    known_within(200);
    assert_eq!(here.send("DELETE", "/api/v1/tokens/ci", &[], None).status, 204);
    assert_eq!(me(&here, token).status, 401, "at once where it was taken away");
    known_within(401);
    assert_eq!(me(&there, &there.token).json["name"], json!("node"));
    assert_ne!(here.token, there.token);
}

#[test]
fn what_cannot_be_written_down_is_not_done() {
    let database = Database::new();
    let node = Node::start(&[&format!("store.url={}", database.url())]);
    node.ask("a", "Add", r#"{"n":1}"#);
    database.psql("ALTER TABLE greenroom_acts RENAME TO gone");
    let refused = node.post("/api/v1/agents/counter/a/stop", "");
    refused.is_problem(503, "unavailable");
    assert!(refused.text.contains("not done"), "{refused:?}");
    assert_eq!(node.ask("a", "Add", r#"{"n":1}"#).json, json!({"total": 2}), "it goes on");
    database.psql("ALTER TABLE gone RENAME TO greenroom_acts");
    assert_eq!(node.post("/api/v1/agents/counter/a/stop", "").status, 202);
}
