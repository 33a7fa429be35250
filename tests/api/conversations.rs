//! `/conversations`: made, added to, read page by page, deleted.

use serde_json::{Value, json};

use crate::support::Node;

fn made(node: &Node) -> String {
    let answer = node.post("/api/v1/conversations", "");
    assert_eq!(answer.status, 201, "{answer:?}");
    format!("/api/v1/conversations/{}", answer.json["id"].as_str().unwrap())
}

fn say(node: &Node, conversation: &str, text: &str) -> Value {
    let body = json!({"role": "user", "content": {"text": text}}).to_string();
    let answer = node.post(&format!("{conversation}/messages"), &body);
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json
}

/// The places on a page, and its cursor.
fn page(node: &Node, path: &str) -> (Vec<i64>, Value) {
    let answer = node.get(path);
    assert_eq!(answer.status, 200, "{answer:?}");
    let items = answer.json["items"].as_array().unwrap();
    (items.iter().map(|m| m["seq"].as_i64().unwrap()).collect(), answer.json["next_cursor"].clone())
}

#[test]
fn a_conversation_is_made_added_to_and_deleted() {
    let mut node = Node::start(&[]);
    let body = r#"{"title":"Schuhe","metadata":{"customer":7}}"#;
    let answer = node.post("/api/v1/conversations", body);
    assert_eq!(answer.status, 201, "{answer:?}");
    let path = answer.header("location").unwrap().to_owned();
    assert_eq!(path, format!("/api/v1/conversations/{}", answer.json["id"].as_str().unwrap()));
    assert_eq!((&answer.json["title"], &answer.json["metadata"]["customer"]), (&json!("Schuhe"), &json!(7)));
    assert_eq!(answer.json["last_seq"], 0);

    let first = say(&node, &path, "one");
    assert_eq!((&first["seq"], &first["role"]), (&json!(1), &json!("user")));
    assert_eq!((&first["content"], &first["conversation"]), (&json!({"text": "one"}), &answer.json["id"]));
    // What was answered is seen at once, whatever the cache held.
    for n in 2..=20 {
        assert_eq!(say(&node, &path, "more")["seq"], n);
        assert_eq!(node.get(&path).json["last_seq"], n);
        assert_eq!(page(&node, &format!("{path}/messages?limit=2")).0, [n, n - 1]);
    }
    let listed = node.get("/api/v1/conversations").json;
    assert_eq!((listed["items"].as_array().unwrap().len(), &listed["items"][0]["last_seq"]), (1, &json!(20)));

    node.kill();
    node.start_again();
    assert_eq!(node.get(&path).json["last_seq"], 20);
    assert_eq!(node.get(&format!("{path}/messages?order=asc&limit=1")).json["items"][0], first);

    let gone = node.send("DELETE", &path, &[], None);
    assert_eq!((gone.status, gone.text.as_str()), (204, ""), "{gone:?}");
    for again in [
        node.get(&path),
        node.get(&format!("{path}/messages")),
        node.send("DELETE", &path, &[], None),
        node.post(&format!("{path}/messages"), r#"{"role":"user","content":1}"#),
        node.get("/api/v1/conversations/never"),
        node.post("/api/v1/conversations/never/messages", r#"{"role":"user","content":1}"#),
    ] {
        again.is_problem(404, "not_found");
    }
    assert_eq!(node.get("/api/v1/conversations").json["items"], json!([]));

    let acts = node.get("/api/v1/audit?action=conversation.delete").json;
    let told = |act: &Value| (act["subject"].clone(), act["outcome"].clone());
    let subject = json!(format!("conversation:{}", answer.json["id"].as_str().unwrap()));
    let found: Vec<_> = acts["items"].as_array().unwrap().iter().map(told).collect();
    assert_eq!(found, [(subject.clone(), json!("not_found")), (subject, json!("ok"))]);
}

#[test]
fn conversations_and_messages_are_read_page_by_page() {
    let node = Node::start(&["cache.messages.keep=3"]);
    let all: Vec<String> = (0..5).map(|_| made(&node)).collect();
    let (mut seen, mut path) = (Vec::new(), "/api/v1/conversations?limit=2".to_owned());
    loop {
        let answer = node.get(&path).json;
        let items = answer["items"].as_array().unwrap();
        seen.extend(items.iter().map(|c| format!("/api/v1/conversations/{}", c["id"].as_str().unwrap())));
        let Some(cursor) = answer["next_cursor"].as_str() else { break };
        path = format!("/api/v1/conversations?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, all.iter().rev().cloned().collect::<Vec<_>>());

    let one = &all[0];
    assert_eq!(page(&node, &format!("{one}/messages")), (vec![], Value::Null));
    for n in 1..=7 {
        say(&node, one, &n.to_string());
    }
    let read = |query: &str| page(&node, &format!("{one}/messages?{query}"));
    for _ in 0..2 {
        assert_eq!(read("limit=3"), (vec![7, 6, 5], json!("5")));
        assert_eq!(read("limit=3&cursor=5"), (vec![4, 3, 2], json!("2")));
        assert_eq!(read("limit=3&cursor=2"), (vec![1], Value::Null));
        assert_eq!(read("limit=7"), (vec![7, 6, 5, 4, 3, 2, 1], Value::Null));
        assert_eq!(read("order=asc&limit=4"), (vec![1, 2, 3, 4], json!("4")));
        assert_eq!(read("order=asc&cursor=4"), (vec![5, 6, 7], Value::Null));
    }
    // Who has read up to 7 comes back for what was said since.
    say(&node, one, "8");
    assert_eq!(read("order=asc&cursor=7"), (vec![8], Value::Null));
    for bad in ["limit=0", "cursor=x", "order=up", "limit=1&limit=2"] {
        node.get(&format!("{one}/messages?{bad}")).is_problem(400, "malformed");
    }
    node.get("/api/v1/conversations?cursor=x").is_problem(400, "malformed");
}

#[test]
fn a_key_makes_a_message_come_once() {
    let mut node = Node::start(&[]);
    let one = made(&node);
    let send = |node: &Node, path: &str, key: &str, body: &str| {
        node.send("POST", path, &[("Idempotency-Key", key)], Some(body))
    };
    let messages = format!("{one}/messages");
    let body = r#"{"role":"user","content":"hello"}"#;
    let first = send(&node, &messages, "k", body);
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, None), "{first:?}");
    say(&node, &one, "in between");
    node.kill();
    node.start_again();
    let again = send(&node, &messages, "k", body);
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")), "{again:?}");
    assert_eq!(again.json, first.json);
    send(&node, &messages, "k", r#"{"role":"user","content":"other"}"#)
        .is_problem(409, "idempotency_conflict");
    // The key belongs to its conversation.
    let two = made(&node);
    assert_eq!(send(&node, &format!("{two}/messages"), "k", body).json["seq"], 1);
    assert_eq!(node.get(&one).json["last_seq"], 2);

    let first = send(&node, "/api/v1/conversations", "k", r#"{"title":"a"}"#);
    let again = send(&node, "/api/v1/conversations", "k", r#"{"title":"a"}"#);
    assert_eq!((first.status, first.json["id"].clone()), (201, again.json["id"].clone()), "{again:?}");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    send(&node, "/api/v1/conversations", "k", r#"{"title":"b"}"#).is_problem(409, "idempotency_conflict");
}

#[test]
fn what_is_no_message_is_refused() {
    let node = Node::start(&["limits.message_bytes=64KiB"]);
    let one = made(&node);
    let messages = format!("{one}/messages");
    let long = json!({"role": "user", "content": "x".repeat(70_000)}).to_string();
    node.post(&messages, &long).is_problem(413, "too_large");
    for bad in [
        r#"{"role":"user"}"#,
        r#"{"content":1}"#,
        r#"{"role":"","content":1}"#,
        r#"{"role":"a\nb","content":1}"#,
        r#"{"role":"user","content":1,"seq":5}"#,
        "[]",
    ] {
        node.post(&messages, bad).is_problem(422, "invalid");
    }
    node.post(&messages, r#"{"role":"user","content":tru}"#).is_problem(400, "malformed");
    let title = json!({"title": "x".repeat(2_000)}).to_string();
    node.post("/api/v1/conversations", &title).is_problem(422, "invalid");
    node.post("/api/v1/conversations", r#"{"metadata":[]}"#).is_problem(422, "invalid");
    let put = node.send("PUT", &one, &[], Some("{}"));
    put.is_problem(405, "method_not_allowed");
    assert_eq!(node.get(&one).json["last_seq"], 0);
    // What is said comes back as it was said.
    let said = node.post(&messages, r#"{"role":"tool","content":{"b":1.50,"a":"\u0000"}}"#);
    assert!(said.text.contains(r#""content":{"b":1.50,"a":"\u0000"}"#), "{said:?}");
}
