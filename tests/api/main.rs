//! The HTTP API, from outside: a real node, real sockets.

mod access;
mod audit;
mod config;
mod contract;
mod conversations;
mod events;
mod hardening;
mod limits;
mod lists;
mod mailbox;
mod nodes;
mod pipelines;
mod repair;
mod schedules;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod tls;
mod tree;

use std::io::{Read as _, Write as _};

use serde_json::json;
use support::Node;

#[test]
fn health_needs_no_token_and_the_rest_does() {
    let node = Node::start(&[]);
    for path in ["/health/live", "/health/ready", "/"] {
        assert_eq!(node.send_bare("GET", path, &[], None).status, 200, "{path}");
    }
    for path in ["/api/v1/status", "/api/v1/agents", "/metrics", "/%61pi/v1/status", "/api/v1/nowhere"] {
        let answer = node.send_bare("GET", path, &[], None);
        answer.is_problem(401, "unauthorized");
        assert!(answer.header("www-authenticate").is_some_and(|scheme| scheme.starts_with("Bearer")));
        node.send_bare("GET", path, &[("Authorization", "Bearer x")], None).is_problem(401, "unauthorized");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(node.data_dir().join("token")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn other_hosts_names_are_refused_on_loopback() {
    let node = Node::start(&[]);
    let mut stream = std::net::TcpStream::connect(node.url.trim_start_matches("http://")).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("\"forbidden\""), "{text}");
}

#[test]
fn an_ask_is_answered_with_the_bare_reply() {
    let node = Node::start(&[]);
    let answer = node.ask("a", "Add", r#"{"n":2}"#);
    assert_eq!((answer.status, &answer.json), (200, &json!({"total": 2})), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let version: i64 = answer.header("greenroom-version").unwrap().parse().unwrap();
    assert!(version >= 1);
    // Nothing, null and {} are the same for a message without fields.
    for body in ["", "null", "{}"] {
        assert_eq!(node.ask("a", "Get", body).json, json!({"total": 2}), "{body:?}");
    }
    let slept = node.ask("a", "Sleep", r#"{"ms":1}"#);
    assert_eq!((slept.status, slept.text.as_str()), (200, "null"));
    // Keys are percent-decoded, and any text that is allowed works.
    assert_eq!(node.ask("gr%C3%BCn%20b%2Bc", "Add", r#"{"n":1}"#).status, 200);
    assert_eq!(node.get("/api/v1/agents/counter/gr%C3%BCn%20b%2Bc").json["key"], "grün b+c");
}

#[test]
fn what_fails_says_how() {
    let node = Node::start(&["limits.message_bytes=64KiB"]);
    node.ask("a", "Add", r#"{"n":2}"#);
    let refused = node.ask("a", "Refuse", r#"{"reason":"no"}"#);
    refused.is_problem(409, "refused");
    assert!(refused.json["refusal"].to_string().contains("no"), "{refused:?}");
    node.ask("a", "Fail", r#"{"message":"broken"}"#).is_problem(500, "handler_failed");
    let crashed = node.ask("a", "Crash", r#"{"message":"boom"}"#);
    crashed.is_problem(500, "handler_crashed");
    let crash = node.get(&format!("/api/v1/crashes/{}", crashed.json["crash_id"].as_str().unwrap()));
    assert_eq!((crash.status, crash.json["subject"].as_str()), (200, Some("counter/a")), "{crash:?}");
    assert_eq!(node.get("/api/v1/crashes").json["items"][0]["id"], crashed.json["crash_id"]);
    node.ask("b", "Crash", r#"{"message":"bang"}"#).is_problem(500, "handler_crashed");
    let groups = node.get("/api/v1/crashes/groups?limit=1");
    let group = &groups.json["items"][0];
    assert_eq!((groups.status, &group["kind"], &group["count"]), (200, &json!("counter"), &json!(2)));
    assert_eq!(group["last_crash"]["subject"], "counter/b", "{groups:?}");
    // Names are looked for; each answer waits a second for them.
    let show = |_| node.get(&format!("/api/v1/crashes/{}", group["id"].as_str().unwrap())).json;
    let mut shown = (0..60).map(show).skip_while(|shown| shown["backtrace"].is_null());
    let shown = shown.next().expect("a backtrace");
    assert_eq!((&shown["subject"], &shown["group"]["count"]), (&json!("counter/b"), &json!(2)), "{shown}");
    assert!(shown["backtrace"].as_str().unwrap().contains("src/agent/counter.rs"), "{shown}");
    let next = groups.json["next_cursor"].as_str().unwrap();
    let rest = node.get(&format!("/api/v1/crashes/groups?cursor={next}"));
    assert_eq!(rest.json, json!({"items": [], "next_cursor": null}));
    node.get("/api/v1/crashes/groups?cursor=nonsense").is_problem(400, "malformed");
    assert_eq!(node.ask("a", "Get", "").json, json!({"total": 2}), "nothing of it has happened");

    let invalid = node.ask("a", "Add", r#"{"n":"two"}"#);
    invalid.is_problem(422, "invalid");
    assert_eq!(invalid.json["errors"][0]["pointer"], "/n", "{invalid:?}");
    node.ask("a", "Add", "{").is_problem(400, "malformed");
    node.ask("a", "Nope", "{}").is_problem(404, "unknown_message");
    node.ask("a", "Add", &format!("{{\"n\":1,\"x\":\"{}\"}}", "x".repeat(70_000)))
        .is_problem(413, "too_large");
    node.post("/api/v1/agents/nope/a/messages/Add", "{}").is_problem(404, "unknown_kind");
    for key in ["a%2Fb", "%2e%2e", "%00", "%FF", "a%25b", "a%zz"] {
        node.ask(key, "Get", "").is_problem(400, "malformed");
    }
    let late = node.post("/api/v1/agents/counter/a/messages/Sleep?timeout=100ms", r#"{"ms":5000}"#);
    late.is_problem(504, "timed_out");
    for query in ["timeout=30", "timeout=soon", "mode=shout"] {
        let answer = node.post(&format!("/api/v1/agents/counter/a/messages/Get?{query}"), "");
        answer.is_problem(400, "malformed");
    }
}

#[test]
fn routes_and_methods_that_are_not_there_are_problems_too() {
    let node = Node::start(&[]);
    node.get("/nowhere").is_problem(404, "not_found");
    node.get("/api/v1/nowhere").is_problem(404, "not_found");
    let answer = node.send("DELETE", "/api/v1/status", &[], None);
    answer.is_problem(405, "method_not_allowed");
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")));
    node.get("/api/v1/agents/counter/never").is_problem(404, "not_found");
    node.get("/api/v1/tasks/never").is_problem(404, "not_found");
    node.get("/api/v1/crashes/never").is_problem(404, "not_found");
    node.get("/api/v1/tools/never").is_problem(404, "not_found");
    node.get("/api/v1/kinds/never").is_problem(404, "unknown_kind");
    for query in
        ["agents?limit=0", "agents?limit=1001", "agents?limit=x", "tasks?state=nope", "tasks?target=nope"]
    {
        node.get(&format!("/api/v1/{query}")).is_problem(400, "malformed");
    }
}

#[test]
fn a_family_of_tasks_is_submitted_at_once_by_names() {
    let node = Node::start(&[]);
    let batch = |tasks: &str| node.post("/api/v1/tasks/batch", &format!(r#"{{"tasks":[{tasks}]}}"#));
    let task = |name: &str, id: &str, after: &str| {
        format!(
            r#"{{"name":"{name}","target":"counter/f","message":"Append","input":{{"id":"{id}"}},"after":[{after}]}}"#
        )
    };
    let earlier =
        node.post("/api/v1/tasks", r#"{"target":"counter/f","message":"Append","input":{"id":"0"}}"#);
    let earlier = format!("{}", earlier.json["id"]);
    // The last first: a parent may stand behind its child.
    let family = [
        task("d", "4", r#""b","c""#),
        task("c", "3", r#""a","b""#),
        task("b", "2", r#""a""#),
        task("a", "1", &earlier),
    ];
    assert_eq!(node.post("/api/v1/kinds/counter/pause", "").status, 202);
    let answer = batch(&family.join(","));
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json["items"][0]["waiting_for"], 2);
    assert_eq!(node.post("/api/v1/kinds/counter/resume", "").status, 202);
    let last = answer.json["items"][0]["id"].as_str().unwrap();
    assert_eq!(node.get(&format!("/api/v1/tasks/{last}?wait=30s")).json["state"], "succeeded");
    assert_eq!(node.ask("f", "List", "").json["ids"], json!(["0", "1", "2", "3", "4"]));

    let circle =
        batch(&[task("a", "1", r#""c""#), task("b", "2", r#""a""#), task("c", "3", r#""b""#)].join(","));
    circle.is_problem(422, "invalid");
    assert_eq!(circle.json["errors"][0]["pointer"], "/tasks/0/after");
    assert!(circle.text.contains("`a` after `c` after `b` after `a`"), "{circle:?}");
    for (tasks, pointer) in [
        ([task("a", "1", ""), task("a", "2", "")], "/tasks/1/name"),
        ([task("a", "1", ""), task("b", "2", r#""x""#)], "/tasks/1/after/0"),
        (
            [task("a", "1", ""), r#"{"target":"counter/f","message":"Append","input":{"id":1}}"#.to_owned()],
            "/tasks/1/input/id",
        ),
    ] {
        let wrong = batch(&tasks.join(","));
        wrong.is_problem(422, "invalid");
        assert_eq!(wrong.json["errors"][0]["pointer"], pointer, "{wrong:?}");
    }
    let alone = node.post("/api/v1/tasks", &task("a", "1", ""));
    alone.is_problem(422, "invalid");
    assert_eq!(
        node.ask("f", "List", "").json["ids"].as_array().unwrap().len(),
        5,
        "nothing else was accepted"
    );
}

#[test]
fn a_task_is_signalled_and_its_log_is_read() {
    let node = Node::start(&[]);
    let body = r#"{"target":"tool:probe.wait","input":{"signal":"go"}}"#;
    let task = node.post("/api/v1/tasks", body);
    let place = task.header("location").unwrap().to_owned();
    let signal = |body: &str| {
        node.send("POST", &format!("{place}/signals/go"), &[("Idempotency-Key", "k")], Some(body))
    };
    assert_eq!(signal(r#"{"by":1}"#).status, 202);
    let ended = node.get(&format!("{place}?wait=30s"));
    assert_eq!((&ended.json["state"], &ended.json["result"]), (&json!("succeeded"), &json!({"by": 1})));
    signal("1").is_problem(409, "wrong_state");
    let began = std::time::Instant::now();
    let lines = loop {
        let page = node.get(&format!("{place}/logs"));
        if page.json["items"][0].is_object() || began.elapsed() > std::time::Duration::from_secs(30) {
            break page;
        }
    };
    let line = &lines.json["items"][0];
    assert_eq!((&line["level"], &line["text"]), (&json!("info"), &json!("`go` has come")));
    assert_eq!(node.get(&place).json["progress"]["fraction"], 1.0);
    node.post(&format!("{place}/signals/a%20b"), "1").is_problem(422, "invalid");
    node.post("/api/v1/tasks/never/signals/go", "1").is_problem(404, "not_found");
    node.post(&format!("{place}/resolve"), r#"{"succeeded":1}"#).is_problem(409, "wrong_state");
    for bad in ["{}", r#"{"failed":1}"#, r#"{"succeeded":1,"failed":"x"}"#] {
        node.post(&format!("{place}/resolve"), bad).is_problem(400, "malformed");
    }
    let submitted = node.post("/api/v1/tasks", r#"{"target":"counter/a","message":"Get","run_in":"1h"}"#);
    let of_agent = submitted.header("location").unwrap();
    node.post(&format!("{of_agent}/signals/go"), "1").is_problem(409, "wrong_state");
}

#[test]
fn a_tell_and_a_submission_are_accepted() {
    let node = Node::start(&[]);
    let told = node.post("/api/v1/agents/counter/a/messages/Add?mode=tell", r#"{"n":1}"#);
    assert_eq!((told.status, &told.json), (202, &json!({"accepted": true})));
    let submitted = node.post("/api/v1/agents/counter/a/messages/Add?mode=submit", r#"{"n":2}"#);
    assert_eq!(submitted.status, 202, "{submitted:?}");
    let id = submitted.json["id"].as_str().unwrap();
    assert_eq!(submitted.header("location"), Some(format!("/api/v1/tasks/{id}").as_str()));
    let ended = node.get(&format!("/api/v1/tasks/{id}?wait=30s"));
    assert_eq!(ended.json["state"], "succeeded", "{ended:?}");
    assert_eq!(ended.json["result"], json!({"total": 3}));
    let history = node.get(&format!("/api/v1/tasks/{id}/history"));
    assert!(!history.json["items"].as_array().unwrap().is_empty() && history.json["next_cursor"].is_null());

    let body = r#"{"target":"counter/a","message":"Fail","input":{"message":"no"},"max_attempts":1}"#;
    let failing = node.post("/api/v1/tasks", body);
    assert_eq!(failing.status, 202, "{failing:?}");
    let id = failing.json["id"].as_str().unwrap();
    let ended = node.get(&format!("/api/v1/tasks/{id}?wait=30s"));
    assert_eq!(ended.json["state"], "failed", "{ended:?}");
    assert_eq!(ended.json["error"]["code"], "handler_failed");
    assert_eq!(node.get("/api/v1/tasks?state=failed").json["items"][0]["id"], id);

    node.post("/api/v1/tasks", r#"{"target":"counter/a","mesage":"Add"}"#).is_problem(422, "invalid");
    // Its schema says nothing against such a sleep; its own check does.
    let sleep = r#"{"target":"counter/long","message":"Sleep","input":{"ms":86400001}}"#;
    for (route, body, pointer) in [
        ("tasks", sleep.to_owned(), "/input/ms"),
        ("tasks/batch", format!(r#"{{"tasks":[{sleep}]}}"#), "/tasks/0/input/ms"),
        ("schedules", sleep.replacen('{', r#"{"name":"a","cron":"@daily","#, 1), "/input/ms"),
    ] {
        let refused = node.post(&format!("/api/v1/{route}"), &body);
        refused.is_problem(422, "invalid");
        assert_eq!(refused.json["errors"][0]["pointer"], pointer, "{refused:?}");
    }
    assert!(node.get("/api/v1/tasks?target=counter/long").json["items"].as_array().unwrap().is_empty());
    node.post("/api/v1/tasks", "[").is_problem(400, "malformed");
    let batch = node.post(
        "/api/v1/tasks/batch",
        r#"{"tasks":[{"target":"counter/b","message":"Add","input":{"n":1}},{"target":"counter/b","message":"Add","input":{"n":2}}]}"#,
    );
    assert_eq!((batch.status, batch.json["items"].as_array().unwrap().len()), (202, 2), "{batch:?}");
}

#[test]
fn an_idempotency_key_makes_a_repetition_safe() {
    let node = Node::start(&[]);
    let path = "/api/v1/agents/counter/a/messages/Add";
    let key = [("Idempotency-Key", "k-1")];
    let first = node.send("POST", path, &key, Some(r#"{"n":2}"#));
    let again = node.send("POST", path, &key, Some(r#"{"n":2}"#));
    assert_eq!((first.status, first.header("idempotency-replayed")), (200, None), "{first:?}");
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")), "{again:?}");
    assert_eq!(first.json, again.json);
    node.send("POST", path, &key, Some(r#"{"n":3}"#)).is_problem(409, "idempotency_conflict");
    node.send("POST", &format!("{path}?mode=tell"), &key, Some(r#"{"n":2}"#)).is_problem(400, "malformed");
    let long = "x".repeat(256);
    node.send("POST", path, &[("Idempotency-Key", long.as_str())], Some("{}")).is_problem(400, "malformed");
    assert_eq!(node.ask("a", "Get", "").json, json!({"total": 2}));

    let submit = format!("{path}?mode=submit");
    let first = node.send("POST", &submit, &[("Idempotency-Key", "k-2")], Some(r#"{"n":1}"#));
    let again = node.send("POST", &submit, &[("Idempotency-Key", "k-2")], Some(r#"{"n":1}"#));
    assert_eq!((first.status, again.status), (202, 202), "{first:?} {again:?}");
    assert_eq!(first.json["id"], again.json["id"]);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}

#[test]
fn agents_are_stopped_restarted_paused_and_resumed() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":5}"#);
    let agents = node.get("/api/v1/agents?kind=counter");
    assert_eq!(agents.json["items"][0]["key"], "a", "{agents:?}");
    assert!(agents.json["next_cursor"].is_null());
    let state = node.get("/api/v1/agents/counter/a/state");
    assert_eq!(state.status, 200, "{state:?}");
    assert!(state.json["version"].as_i64().unwrap() >= 1 && state.json["state"].is_object());
    assert_eq!(node.get("/api/v1/agents/counter/a/snapshots").status, 200);

    let act = |action: &str| {
        let answer = node.post(&format!("/api/v1/agents/counter/a/{action}"), "");
        assert_eq!(answer.status, 202, "{action}: {answer:?}");
    };
    act("stop");
    node.ask("a", "Get", "").is_problem(409, "wrong_state");
    assert_eq!(node.get("/api/v1/agents/counter/a").json["status"], "stopped");
    act("restart");
    assert_eq!(node.ask("a", "Get", "").json, json!({"total": 5}));
    act("pause");
    assert_eq!(node.get("/api/v1/agents/counter/a").json["status"], "paused");
    act("resume");
    assert_eq!(node.ask("a", "Get", "").json, json!({"total": 5}));
    act("quarantine");
    assert_eq!(node.get("/api/v1/agents/counter/a").json["status"], "quarantined");
    let status = node.get("/api/v1/status").json;
    assert_eq!(
        (&status["verdict"], &status["reasons"][0]["code"]),
        (&json!("degraded"), &json!("agents_quarantined"))
    );
    act("release");
    assert_eq!(node.ask("a", "Get", "").json, json!({"total": 5}));
}

#[test]
fn the_node_tells_about_itself() {
    let node = Node::start(&["node.name=eu-1"]);
    node.ask("a", "Add", r#"{"n":1}"#);
    let status = node.get("/api/v1/status").json;
    assert_eq!(
        (status["verdict"].as_str(), status["node"]["name"].as_str()),
        (Some("ok"), Some("eu-1")),
        "{status}"
    );
    for member in ["reasons", "version", "agents", "tasks", "store", "cache", "crashes", "at"] {
        assert!(!status[member].is_null(), "no {member}: {status}");
    }
    let kind = node.get("/api/v1/kinds/counter").json;
    let names: Vec<&str> =
        kind["messages"].as_array().unwrap().iter().filter_map(|m| m["name"].as_str()).collect();
    for name in ["Add", "Get", "Append", "List", "Crash", "Sleep", "Fail", "Refuse"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert_eq!(node.get("/api/v1/tree").json["children"].as_array().map(Vec::is_empty), Some(false));
    assert!(node.get("/api/v1/tools").json["items"].is_array());
    let config = node.get("/api/v1/config");
    let one =
        config.json["items"].as_array().unwrap().iter().find(|item| item["key"] == "node.name").unwrap();
    assert_eq!((&one["value"], &one["origin"]), (&json!("eu-1"), &json!("--set node.name")));
    assert!(!config.text.contains(&node.token));
    let logs = node.get("/api/v1/logs?tail=1000").json;
    let started = logs["items"].as_array().unwrap().iter().any(|item| item["event"] == "node.started");
    assert!(started && logs["last"].as_u64().unwrap() > 0, "{logs}");
    let metrics = node.get("/metrics").text;
    assert!(metrics.contains("greenroom_build_info"), "{metrics}");
    assert!(metrics.contains(r#"route="/api/v1/kinds/{kind}""#), "{metrics}");
}

/// What was first told when it had happened was no increase, and raised no alert.
#[test]
fn what_an_alert_is_about_is_told_before_it_happens() {
    let node = Node::start(&[]);
    let alerts = include_str!("../../config/alerts.yml");
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let names = alerts.split(|c| !is_name(c)).filter(|word| word.starts_with("greenroom_"));
    let metrics = node.get("/metrics").text;
    for name in names.chain(["greenroom_state_restore_duration_seconds"]) {
        let tells =
            |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ', '_']));
        assert!(metrics.lines().any(tells), "{name}: {metrics}");
    }
}

/// The alert on agents that are out of service could never be raised.
#[test]
fn metrics_tell_of_agents_that_are_held_and_what_each_figure_is() {
    let node = Node::start(&[]);
    let agents = |status: &str| {
        let metrics = node.get("/metrics").text;
        let line = format!("greenroom_agents{{kind=\"counter\",status=\"{status}\"}} ");
        metrics.lines().find_map(|found| found.strip_prefix(&line).map(str::to_owned))
    };
    assert_eq!(agents("stopped").as_deref(), Some("0"), "before there is any");
    for (key, action) in [("a", "stop"), ("b", "stop"), ("c", "quarantine"), ("d", "pause")] {
        node.ask(key, "Add", r#"{"n":1}"#);
        assert_eq!(node.post(&format!("/api/v1/agents/counter/{key}/{action}"), "").status, 202);
    }
    let held = ["stopped", "quarantined", "paused"].map(agents);
    assert_eq!(held.map(Option::unwrap_or_default), ["2", "1", "1"]);
    node.post("/api/v1/agents/counter/a/restart", "");
    assert_eq!(agents("stopped").as_deref(), Some("1"));
    let metrics = node.get("/metrics").text;
    let told = |what: &str| -> Vec<String> {
        let lines =
            metrics.lines().filter_map(|line| line.strip_prefix(what)?.split(' ').next().map(str::to_owned));
        lines.collect()
    };
    let (helped, typed) = (told("# HELP "), told("# TYPE "));
    assert!(typed.len() > 8 && typed.iter().all(|name| helped.contains(name)), "{typed:?} {helped:?}");
}

#[test]
fn it_stops_in_good_order_and_remembers() {
    let mut node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":7}"#);
    assert_eq!(node.post("/api/v1/nodes/self/stop", "").status, 202);
    assert_eq!(node.wait_for_end().code(), Some(0), "{}", node.log());
    assert!(!node.data_dir().join("node.json").exists(), "what it announced goes with it");
    node.start_again();
    assert_eq!(node.ask("a", "Get", "").json, json!({"total": 7}));
    node.kill();
    node.start_again();
    assert_eq!(node.ask("a", "Get", "").json, json!({"total": 7}));
    assert_eq!(node.terminate().code(), Some(0), "{}", node.log());
}

#[test]
fn a_node_says_who_owns_what_and_keeps_its_instance() {
    let mut node = Node::start(&["node.name=eu-1"]);
    let answer = node.get("/api/v1/nodes");
    let items = answer.json["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{answer:?}");
    let me = &items[0];
    assert_eq!((&me["name"], &me["status"], &me["this"]), (&json!("eu-1"), &json!("active"), &json!(true)));
    assert_eq!(me["url"], json!(node.url));
    assert_eq!(me["partitions"].as_array().map(Vec::len), Some(64));
    let listed = node.cli(&["nodes", "ls"]);
    assert!(listed.code == 0 && listed.out.contains("eu-1 (this one)"), "{listed:?}");
    assert_eq!(node.cli(&["nodes", "ls", "--json"]).json()["items"][0]["id"], me["id"]);

    let instance = std::fs::read(node.data_dir().join("instance")).unwrap();
    assert!(node.terminate().success());
    node.start_again();
    assert_eq!(std::fs::read(node.data_dir().join("instance")).unwrap(), instance);
    let again = node.get("/api/v1/nodes");
    assert_eq!(again.json["items"].as_array().map(Vec::len), Some(1), "the boot before has left: {again:?}");
    assert_ne!(again.json["items"][0]["id"], me["id"]);
}

#[test]
fn a_kind_is_paused_and_resumed() {
    let node = Node::start(&[]);
    let paused = |kind: &str| node.get(&format!("/api/v1/kinds/{kind}")).json["paused"].clone();
    assert_eq!(paused("counter"), false);
    assert_eq!(node.post("/api/v1/kinds/counter/pause", "").status, 202);
    assert_eq!(paused("counter"), true);
    assert_eq!(node.get("/api/v1/status").json["reasons"][0]["code"], "kind_paused");
    let task = node.post("/api/v1/tasks", r#"{"target":"counter/a","message":"Add","input":{"n":1}}"#);
    let waited = node.get(&format!("/api/v1/tasks/{}?wait=1ms", task.json["id"].as_str().unwrap()));
    assert_eq!(waited.json["state"], "ready");
    assert_eq!(node.ask("a", "Add", r#"{"n":1}"#).json, json!({"total": 1}), "asks are not touched");
    assert_eq!(node.post("/api/v1/kinds/counter/resume", "").status, 202);
    let ended = node.get(&format!("/api/v1/tasks/{}?wait=30s", task.json["id"].as_str().unwrap()));
    assert_eq!(ended.json["state"], "succeeded");
    assert_eq!(node.post("/api/v1/kinds/tool:fs.read/pause", "").status, 202);
    assert_eq!(node.get("/api/v1/tools/fs.read").json["paused"], true);
    node.post("/api/v1/kinds/nobody/pause", "").is_problem(404, "unknown_kind");
    node.post("/api/v1/kinds/tool:nobody/pause", "").is_problem(404, "not_found");
}
