//! `/config`: seen with its origins, changed as it was seen, read again on SIGHUP.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::support::{Answer, Node, until};

fn patch(node: &Node, headers: &[(&str, &str)], body: Value) -> Answer {
    node.send("PATCH", "/api/v1/config", headers, Some(&body.to_string()))
}

fn item(node: &Node, key: &str) -> Value {
    let config = node.get("/api/v1/config").json;
    config["items"].as_array().unwrap().iter().find(|item| item["key"] == key).cloned().unwrap_or_default()
}

#[test]
fn a_change_is_applied_as_one_generation_and_survives_a_kill() {
    let mut node = Node::start(&["http.timeout=29s"]);
    let seen = node.get("/api/v1/config");
    let tag = seen.header("etag").unwrap().to_owned();
    assert_eq!((&seen.json["generation"], &seen.json["needs_restart"]), (&json!(0), &json!([])));
    let change = json!({"limits": {"message_bytes": "1KiB"}, "http": {"timeout": "20s"}});
    let changed = patch(&node, &[("If-Match", &tag)], change.clone());
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(changed.json["generation"], 1);
    assert_eq!(changed.json["applied"], json!(["limits.message_bytes"]));
    assert_eq!(changed.json["overruled"], json!([{"key": "http.timeout", "by": "--set http.timeout"}]));
    assert_ne!(changed.header("etag"), Some(&*tag));
    patch(&node, &[("If-Match", &tag)], change).is_problem(412, "precondition_failed");
    assert_eq!(
        item(&node, "limits.message_bytes"),
        json!({"key": "limits.message_bytes", "value": "1KiB", "origin": "config set"})
    );
    // in force at once
    let long = json!({"id": "x".repeat(2_000)}).to_string();
    node.ask("a", "Append", &long).is_problem(413, "too_large");
    node.kill();
    node.start_again();
    node.ask("a", "Append", &long).is_problem(413, "too_large");
    let back = patch(&node, &[], json!({"limits": {"message_bytes": null}}));
    assert_eq!(
        back.json["changed"],
        json!([{"key": "limits.message_bytes", "value": "10MiB", "live": true}])
    );
    assert_eq!(node.ask("a", "Append", &long).status, 200);
}

#[test]
fn a_change_that_is_wrong_changes_nothing() {
    let node = Node::start(&[]);
    let tag = node.get("/api/v1/config").header("etag").unwrap().to_owned();
    let wrong =
        patch(&node, &[], json!({"tasks": {"slots": 0, "slts": 1}, "limits": {"state_bytes": "2MiB"}}));
    wrong.is_problem(422, "invalid");
    let pointers: Vec<&str> =
        wrong.json["errors"].as_array().unwrap().iter().filter_map(|e| e["pointer"].as_str()).collect();
    assert!(pointers.contains(&"/tasks/slts"), "{wrong:?}");
    assert!(wrong.text.contains("did you mean tasks.slots?"), "{wrong:?}");
    node.send("PATCH", "/api/v1/config", &[], Some("{")).is_problem(400, "malformed");
    patch(&node, &[], json!([])).is_problem(422, "invalid");
    assert_eq!(node.get("/api/v1/config").header("etag"), Some(&*tag));
    let dry = node.send("PATCH", "/api/v1/config?dry_run=true", &[], Some(r#"{"tasks":{"slots":3}}"#));
    assert_eq!((dry.status, &dry.json["applied"]), (200, &json!(["tasks.slots"])), "{dry:?}");
    assert_eq!(dry.header("etag"), Some(&*tag), "what it was made upon");
    assert_eq!(item(&node, "tasks.slots")["value"], 64);
}

#[test]
fn sighup_has_it_read_its_files_again() {
    let mut node = Node::start(&["log.format=json"]);
    let file = node.dir().join("greenroom.toml");
    let hang_up = |node: &Node| {
        let pid = node.pid().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    };
    fs::write(&file, "[limits]\nmessage_bytes = \"1KiB\"\n[node]\nthreads = 3\n").unwrap();
    hang_up(&node);
    until("it is told", || node.told(&["config.changed"]).len() == 1);
    let told = &node.told(&["config.changed"])[0];
    assert_eq!((&told["by"], &told["needs_restart"]), (&json!("SIGHUP"), &json!("node.threads")), "{told}");
    assert_eq!(item(&node, "limits.message_bytes")["origin"], "greenroom.toml:2");
    assert_eq!(node.get("/api/v1/config").json["needs_restart"], json!(["node.threads"]));
    // a file that is wrong changes nothing, and the node goes on
    fs::write(&file, "[limits]\nmessage_bytes = \"2KiB\"\nmesage_bytes = 1\n").unwrap();
    hang_up(&node);
    until("it is refused", || node.told(&["config.refused"]).len() == 1);
    let told = node.told(&["config.refused"]).remove(0);
    assert!(told["error"].as_str().unwrap().contains("greenroom.toml:3: limits.mesage_bytes"), "{told}");
    assert_eq!(item(&node, "limits.message_bytes")["value"], "1KiB");
    assert!(node.terminate().success());
}

#[test]
fn the_log_tells_more_of_one_subject_from_then_on() {
    let mut node = Node::start(&["log.format=json"]);
    let changed = patch(&node, &[], json!({"log": {"subjects": {"counter/a": "debug"}}}));
    assert_eq!(changed.json["applied"], json!(["log.subjects.\"counter/a\""]), "{changed:?}");
    for key in ["a", "b"] {
        assert_eq!(node.ask(key, "Add", r#"{"n":1}"#).status, 200);
    }
    assert!(node.terminate().success());
    node.start_again();
    for key in ["b", "a"] {
        assert_eq!(node.ask(key, "Get", "").status, 200);
    }
    let restored = || node.told(&["state.restored"]).iter().map(|r| r["subject"].clone()).collect::<Vec<_>>();
    until("its restore is told", || !restored().is_empty());
    assert_eq!(restored(), ["counter/a"]);
}
