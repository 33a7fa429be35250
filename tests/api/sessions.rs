//! `/sessions`: written as they were seen, and forgotten when nobody uses them.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use crate::support::{Answer, Node};

fn put(node: &Node, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    node.send("PUT", path, headers, Some(body))
}

fn expiry(answer: &Answer) -> Timestamp {
    answer.json["expires_at"].as_str().unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap()
}

#[test]
fn a_session_is_written_read_and_removed() {
    let mut node = Node::start(&["sessions.ttl=2h"]);
    let path = "/api/v1/sessions/gr%C3%BCn%20b%2Bc";
    node.get(path).is_problem(404, "not_found");
    let first = put(&node, path, &[], r#"{"data":{"cart":[1]}}"#);
    assert_eq!((first.status, &first.json["id"]), (200, &json!("grün b+c")), "{first:?}");
    assert_eq!((&first.json["data"], &first.json["ttl_ms"]), (&json!({"cart": [1]}), &json!(7_200_000)));
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(tag, format!("{}", first.json["version"]));
    let read = node.get(path);
    assert_eq!((read.header("etag"), &read.json), (Some(tag.as_str()), &first.json));
    let second = put(&node, path, &[], r#"{"data":null,"ttl":"30m"}"#);
    assert_eq!((&second.json["data"], &second.json["ttl_ms"]), (&json!(null), &json!(1_800_000)));
    assert_eq!(second.json["created_at"], first.json["created_at"]);
    assert_ne!(second.json["version"], first.json["version"]);
    assert_eq!(node.get(path).json, second.json, "whatever the cache held");
    node.kill();
    node.start_again();
    assert_eq!(node.get(path).json, second.json);
    let gone = node.send("DELETE", path, &[], None);
    assert_eq!((gone.status, gone.text.as_str()), (204, ""));
    node.get(path).is_problem(404, "not_found");
    node.send("DELETE", path, &[], None).is_problem(404, "not_found");
}

#[test]
fn a_session_is_written_only_as_it_was_seen() {
    let node = Node::start(&[]);
    let path = "/api/v1/sessions/a";
    let nobody = [("If-Match", "\"01890000-0000-7000-8000-000000000000\"")];
    put(&node, path, &nobody, r#"{"data":1}"#).is_problem(412, "precondition_failed");
    let none = [("If-None-Match", "*")];
    let first = put(&node, path, &none, r#"{"data":1}"#);
    assert_eq!(first.status, 200, "{first:?}");
    put(&node, path, &none, r#"{"data":2}"#).is_problem(412, "precondition_failed");
    let seen = [("If-Match", first.header("etag").unwrap())];
    // A use is not a change.
    assert_eq!(node.get(path).json["data"], 1);
    let second = put(&node, path, &seen, r#"{"data":2}"#);
    assert_eq!(second.status, 200, "{second:?}");
    for stale in [seen, nobody, [("If-Match", "W/\"x\"")], [("If-Match", "\"x\"")]] {
        put(&node, path, &stale, r#"{"data":3}"#).is_problem(412, "precondition_failed");
        node.send("DELETE", path, &stale, None).is_problem(412, "precondition_failed");
    }
    assert_eq!(node.get(path).json, second.json);
    let seen = [("If-Match", second.header("etag").unwrap())];
    assert_eq!(node.send("DELETE", path, &seen, None).status, 204);
    put(&node, path, &seen, r#"{"data":4}"#).is_problem(412, "precondition_failed");
    let bare = [("If-Match", "x")];
    for bad in [&[("If-Match", "*")][..], &bare, &[("If-None-Match", "\"x\"")], &[seen[0], none[0]]] {
        put(&node, path, bad, r#"{"data":4}"#).is_problem(400, "malformed");
    }
}

#[test]
fn of_many_who_saw_the_same_session_one_writes_it() {
    let node = Node::start(&[]);
    let path = "/api/v1/sessions/a";
    let first = put(&node, path, &[], r#"{"data":0}"#);
    let tag = first.header("etag").unwrap();
    let written: Vec<Answer> = std::thread::scope(|scope| {
        let write = |n: u32| put(&node, path, &[("If-Match", tag)], &format!("{{\"data\":{n}}}"));
        let threads: Vec<_> = (1..=8).map(|n| scope.spawn(move || write(n))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let winners: Vec<_> = written.iter().filter(|a| a.status == 200).collect();
    assert_eq!(winners.len(), 1, "{written:?}");
    assert!(written.iter().all(|a| matches!(a.status, 200 | 412)), "{written:?}");
    assert_eq!(node.get(path).json, winners[0].json);
}

#[test]
fn a_session_lives_as_long_as_somebody_uses_it() {
    let node = Node::start(&[]);
    let (used, unused) = ("/api/v1/sessions/used", "/api/v1/sessions/unused");
    let first = put(&node, used, &[], r#"{"data":1,"ttl":"2s"}"#);
    let end = expiry(&put(&node, unused, &[], r#"{"data":1,"ttl":"2s"}"#));
    while Timestamp::now() < end {
        assert_eq!(node.get(used).json["data"], 1);
        std::thread::sleep(Duration::from_millis(20));
    }
    let read = node.get(used);
    assert!(expiry(&read) > end, "{read:?}");
    assert_eq!(
        (&read.json["version"], &read.json["updated_at"]),
        (&first.json["version"], &first.json["updated_at"])
    );
    node.get(unused).is_problem(404, "not_found");
    let began = Instant::now();
    // that it was read is written down a moment later, and counts from then on
    let last = Timestamp::now() + Duration::from_secs(2);
    while node.get(unused).status != 404 || Timestamp::now() < last {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    node.get(used).is_problem(404, "not_found");
}

#[test]
fn what_is_no_session_is_refused() {
    let node = Node::start(&[]);
    let path = "/api/v1/sessions/a";
    for bad in [
        r#"{"data":1,"ttl":"0s"}"#,
        r#"{"data":1,"ttl":"10"}"#,
        r#"{"data":1,"ttl":"5000d"}"#,
        "{}",
        r#"{"data":1,"x":1}"#,
    ] {
        put(&node, path, &[], bad).is_problem(422, "invalid");
    }
    let long = json!({"data": "x".repeat(1 << 20)}).to_string();
    put(&node, path, &[], &long).is_problem(413, "too_large");
    for key in ["a%2Fb", "%2e%2e", "%00", "a%25b"] {
        put(&node, &format!("/api/v1/sessions/{key}"), &[], r#"{"data":1}"#).is_problem(400, "malformed");
    }
    node.post(path, "{}").is_problem(405, "method_not_allowed");
}
