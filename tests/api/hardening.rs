//! What somebody found who tried to break in.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Node, until};

/// A stored token.
fn add(node: &Node, name: &str, scope: &str) -> String {
    let made =
        node.send("POST", "/api/v1/tokens", &[], Some(&json!({"name": name, "scope": scope}).to_string()));
    made.json["token"].as_str().unwrap().to_owned()
}

fn send_as(node: &Node, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    node.send_bare(method, path, &[("Authorization", &bearer)], Some(&body.to_string()))
}

fn change(node: &Node, patch: Value) -> Answer {
    node.send("PATCH", "/api/v1/config", &[], Some(&patch.to_string()))
}

#[test]
fn a_stream_ends_with_its_token() {
    let node = Node::start(&[]);
    let token = add(&node, "reader", "read");
    // else it would last as long as the node
    let limit = Some(Duration::from_secs(25));
    let agent = ureq::Agent::config_builder().proxy(None).timeout_global(limit).build().new_agent();
    let stream =
        agent.get(format!("{}/api/v1/events", node.url)).header("Authorization", format!("Bearer {token}"));
    let mut stream = stream.call().unwrap().into_body().into_reader();
    assert_eq!(node.send("DELETE", "/api/v1/tokens/reader", &[], None).status, 204);
    std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
}

#[test]
fn who_has_no_token_yet_has_few_words() {
    let node = Node::start(&[]);
    let long = json!({"token": "x".repeat(5_000)}).to_string();
    node.send_bare("POST", "/login", &[], Some(&long)).is_problem(413, "too_large");
    node.send_bare("POST", "/login", &[], Some(r#"{"token":"gr_guess"}"#)).is_problem(401, "unauthorized");
    until("a wrong token is told", || node.log().contains("route=/login"));
    assert!(!node.log().contains("gr_guess"), "but not itself");
}

#[test]
fn another_site_cannot_have_a_browser_act_as_somebody_else() {
    let node = Node::start(&[]);
    let link = node.post("/api/v1/login-links", "").json["url"].as_str().unwrap().to_owned();
    let path = link.strip_prefix(&node.url).unwrap();
    // as a browser does with a link that is clicked
    let link = [("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")];
    let follow = |from| node.send_bare("GET", path, &[link[0], link[1], ("Sec-Fetch-Site", from)], None);
    // a page on another port of this host is of the same site
    for from in ["cross-site", "same-site"] {
        follow(from).is_problem(403, "forbidden");
    }
    assert_eq!(follow("none").status, 303, "and the link can still be used");
}

/// What a token can change does not outlive it as a way into the machine.
#[test]
fn what_opens_the_machine_is_not_kept_in_the_store() {
    let node = Node::start(&[]);
    for patch in [
        json!({"tools": {"fs": {"roots": ["/"]}}}),
        json!({"log": {"file": {"path": "/tmp/x"}}}),
        json!({"http": {"token_file": "/etc/hostname"}}),
        json!({"http.behind_proxy": true}),
        json!({"http": {"tls": {"cert": "/x", "key": "/y"}}}),
        json!({"http": {"bind": "0.0.0.0:7710"}}),
        json!({"cache": {"url": "redis://127.0.0.1/"}}),
        json!({"cache.tls_ca": "/x"}),
        json!({"cache": {"url": "redis://:hunter2@127.0.0.1/"}}),
    ] {
        let refused = change(&node, patch.clone());
        refused.is_problem(422, "invalid");
        assert!(refused.text.contains("not kept in the store"), "{patch}: {refused:?}");
    }
}

#[test]
fn an_admin_cannot_hide_what_they_do() {
    let mut node = Node::start(&[]);
    change(&node, json!({"audit.retention": "1s"})).is_problem(422, "invalid");
    assert_eq!(change(&node, json!({"log.level": "critical"})).status, 200);
    node.post("/api/v1/agents/counter/a/pause", "");
    let told = || node.log().matches("operator.acted").count();
    until("all of it is told", || told() >= 3);
    let padded = format!("/api/v1/tokens?x={}", "A".repeat(4_100));
    node.send("POST", &padded, &[], Some(r#"{"name":"bd","scope":"admin"}"#));
    let acts = node.get("/api/v1/audit").json;
    let made = acts["items"].as_array().unwrap().iter().find(|act| act["subject"] == "token:bd").unwrap();
    assert_eq!(made["after"]["scope"], "admin", "{made}");
    assert!(node.terminate().success());
}

#[test]
fn draining_a_node_is_an_admins() {
    let node = Node::start(&[]);
    let operate = add(&node, "hand", "operate");
    for action in ["drain", "resume"] {
        send_as(&node, &operate, "POST", &format!("/api/v1/nodes/self/{action}"), &Value::Null)
            .is_problem(403, "forbidden");
    }
    until("it is told who tried", || node.log().contains("http.refused") && node.log().contains("who=hand"));
    send_as(&node, "gr_guessed", "GET", "/api/v1/status", &Value::Null).is_problem(401, "unauthorized");
    until("it is told that somebody guesses", || node.log().contains("status=401"));
}

#[test]
fn what_a_task_says_of_itself_has_bounds() {
    let node = Node::start(&[]);
    let task = |tags: Value| {
        let body = json!({"target": "counter/a", "message": "Get", "tags": tags});
        node.post("/api/v1/tasks", &body.to_string())
    };
    assert_eq!(task(json!(vec!["x".repeat(256); 32])).status, 202);
    task(json!(vec!["x"; 33])).is_problem(422, "invalid");
    task(json!(["x".repeat(257)])).is_problem(422, "invalid");

    let body = json!({"target": "counter/a", "message": "Fail", "max_attempts": 1,
        "input": {"message": "long ".repeat(100_000)}});
    let id = node.post("/api/v1/tasks", &body.to_string()).json["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/tasks/{id}");
    until("it has failed", || node.get(&path).json["state"] == "failed");
    let failed = node.get(&path);
    assert!(failed.text.len() < 40_000, "{} bytes", failed.text.len());
    assert!(failed.json["error"]["message"].as_str().unwrap().ends_with('…'), "and one sees that it is cut");
}
