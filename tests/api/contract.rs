//! The document of the API: that every answer is held against it is the work of `support::contract`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::support::{Answer, Contract, Node};

fn answer(status: u16, media: &str, json: Value) -> Answer {
    let headers = vec![("content-type".to_owned(), media.to_owned())];
    Answer { status, headers, text: json.to_string(), json }
}

#[test]
fn an_answer_that_the_document_does_not_say_is_found() {
    let node = Node::start(&[]);
    let contract = Contract::new(node.get("/api/v1/openapi.json").json);
    let holds = |method: &str, path: &str, answer: &Answer| {
        catch_unwind(AssertUnwindSafe(|| contract.holds(method, path, answer))).is_ok()
    };
    let path = "/api/v1/agents/counter/a/messages/Get?mode=ask";
    let plain = "application/json";
    assert!(holds("POST", path, &answer(200, plain, json!({"total": 1}))));
    for (wrong, media, body) in [
        (418, plain, json!({"total": 1})),
        (200, "text/html", json!({"total": 1})),
        (200, plain, json!({"total": "1"})),
        (200, plain, json!({})),
        (404, "application/problem+json", json!({"code": "not_found"})),
    ] {
        assert!(!holds("POST", path, &answer(wrong, media, body.clone())), "{wrong} {media} {body}");
    }
    assert!(!holds("GET", "/api/v1/tasks", &answer(200, plain, json!({"items": [{"id": 1}]}))));
    assert!(!holds("DELETE", "/api/v1/tasks", &answer(204, plain, json!({}))), "there is no such method");
}

#[test]
fn the_programs_own_messages_and_tools_are_described() {
    let node = Node::start(&[]);
    let document = node.get("/api/v1/openapi.json").json;
    let body = |path: &str| {
        document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"].clone()
    };
    assert_eq!(body("/api/v1/agents/counter/{key}/messages/Add")["properties"]["n"]["type"], "integer");
    assert_eq!(body("/api/v1/tools/fs.read/call")["properties"]["path"]["type"], "string");
    let done = "/api/v1/agents/librarian/{key}/messages/fs.list.done";
    assert_eq!(
        body(done)["properties"]["outcome"]["oneOf"].as_array().map(Vec::len),
        Some(5),
        "{}",
        body(done)
    );
}

/// What people and scripts rely on: method, path, the parameters behind the `?`, the statuses of what is done.
const ROUTES: &[(&str, &str, &str, &[u16])] = &[
    ("get", "/health/live", "", &[200, 503]),
    ("get", "/health/ready", "", &[200, 503]),
    ("get", "/metrics", "", &[200]),
    ("get", "/api/v1/openapi.json", "", &[200]),
    ("get", "/api/v1/status", "", &[200]),
    ("get", "/api/v1/tree", "", &[200]),
    ("get", "/api/v1/kinds", "", &[200]),
    ("get", "/api/v1/kinds/{kind}", "", &[200]),
    ("post", "/api/v1/kinds/{kind}/pause", "", &[202]),
    ("post", "/api/v1/kinds/{kind}/resume", "", &[202]),
    ("get", "/api/v1/agents", "kind status cursor limit", &[200]),
    ("get", "/api/v1/agents/{kind}/{key}", "", &[200]),
    ("delete", "/api/v1/agents/{kind}/{key}", "", &[200]),
    ("get", "/api/v1/agents/{kind}/{key}/state", "version", &[200]),
    ("put", "/api/v1/agents/{kind}/{key}/state", "If-Match", &[200, 412, 428]),
    ("get", "/api/v1/agents/{kind}/{key}/snapshots", "", &[200]),
    ("post", "/api/v1/agents/{kind}/{key}/rollback", "", &[200]),
    ("post", "/api/v1/agents/{kind}/{key}/stop", "", &[202]),
    ("post", "/api/v1/agents/{kind}/{key}/restart", "", &[202]),
    ("post", "/api/v1/agents/{kind}/{key}/pause", "", &[202]),
    ("post", "/api/v1/agents/{kind}/{key}/resume", "", &[202]),
    ("post", "/api/v1/agents/{kind}/{key}/quarantine", "", &[202]),
    ("post", "/api/v1/agents/{kind}/{key}/release", "", &[202]),
    (
        "post",
        "/api/v1/agents/counter/{key}/messages/Add",
        "mode timeout Idempotency-Key",
        &[200, 202, 409, 500, 504],
    ),
    ("post", "/api/v1/tasks", "", &[202]),
    ("post", "/api/v1/tasks/batch", "", &[202]),
    ("post", "/api/v1/tasks/retry", "", &[200]),
    ("post", "/api/v1/tasks/dismiss", "", &[200]),
    ("get", "/api/v1/tasks", "state target tag cursor limit", &[200]),
    ("get", "/api/v1/tasks/{id}", "wait input", &[200]),
    ("get", "/api/v1/tasks/{id}/history", "", &[200]),
    ("get", "/api/v1/tasks/{id}/family", "", &[200]),
    ("get", "/api/v1/tasks/{id}/logs", "cursor limit", &[200]),
    ("post", "/api/v1/tasks/{id}/cancel", "", &[202]),
    ("post", "/api/v1/tasks/{id}/retry", "", &[202]),
    ("post", "/api/v1/tasks/{id}/dismiss", "", &[202]),
    ("post", "/api/v1/tasks/{id}/resolve", "", &[202]),
    ("post", "/api/v1/tasks/{id}/signals/{name}", "Idempotency-Key", &[202]),
    ("get", "/api/v1/tools", "", &[200]),
    ("get", "/api/v1/tools/{name}", "", &[200]),
    ("post", "/api/v1/tools/fs.read/call", "timeout Idempotency-Key", &[200]),
    ("get", "/api/v1/events", "subject event Last-Event-ID", &[200]),
    ("get", "/api/v1/crashes", "since until cursor limit", &[200]),
    ("get", "/api/v1/crashes/groups", "since until cursor limit", &[200]),
    ("get", "/api/v1/crashes/{id}", "", &[200]),
    ("get", "/api/v1/logs", "level subject", &[200]),
    ("get", "/api/v1/nodes", "", &[200]),
    ("post", "/api/v1/nodes/{boot}/drain", "", &[202]),
    ("post", "/api/v1/nodes/{boot}/resume", "", &[202]),
    ("post", "/api/v1/nodes/{boot}/stop", "", &[202]),
    ("get", "/api/v1/schedules", "", &[200]),
    ("post", "/api/v1/schedules", "", &[201]),
    ("delete", "/api/v1/schedules/{name}", "", &[204]),
    ("post", "/api/v1/schedules/{name}/run", "", &[202]),
    ("post", "/api/v1/schedules/{name}/pause", "", &[202]),
    ("post", "/api/v1/schedules/{name}/resume", "", &[202]),
    ("get", "/api/v1/tokens", "", &[200]),
    ("post", "/api/v1/tokens", "", &[201]),
    ("delete", "/api/v1/tokens/{name}", "", &[204]),
    ("get", "/api/v1/config", "", &[200]),
    ("patch", "/api/v1/config", "dry_run If-Match", &[200]),
    ("get", "/api/v1/audit", "who subject action since until cursor limit", &[200]),
    ("get", "/api/v1/conversations", "cursor limit", &[200]),
    ("post", "/api/v1/conversations", "Idempotency-Key", &[201]),
    ("get", "/api/v1/conversations/{id}", "", &[200]),
    ("delete", "/api/v1/conversations/{id}", "", &[204]),
    ("get", "/api/v1/conversations/{id}/messages", "order cursor limit", &[200]),
    ("post", "/api/v1/conversations/{id}/messages", "Idempotency-Key", &[201]),
    ("get", "/api/v1/sessions/{id}", "", &[200]),
    ("put", "/api/v1/sessions/{id}", "If-Match If-None-Match", &[200, 412]),
    ("delete", "/api/v1/sessions/{id}", "If-Match", &[204, 412]),
];

#[test]
fn every_promised_route_is_described_with_what_it_takes_and_answers() {
    let node = Node::start(&[]);
    let document = node.get("/api/v1/openapi.json").json;
    for (method, path, takes, answers) in ROUTES {
        let operation = &document["paths"][path][method];
        assert!(operation.is_object(), "{method} {path} is not described");
        let parameters = operation["parameters"].as_array().unwrap();
        for name in takes.split_whitespace() {
            let there = parameters
                .iter()
                .any(|p| p["name"] == name && matches!(p["in"].as_str(), Some("query" | "header")));
            assert!(there, "{method} {path} does not take {name}: {parameters:?}");
        }
        for status in *answers {
            assert!(
                operation["responses"][status.to_string()].is_object(),
                "{method} {path} does not say {status}"
            );
        }
    }
}

/// The node takes an empty parameter for an absent one, and so has the document to say.
#[test]
fn no_parameter_is_described_as_if_it_could_not_be_empty() {
    let node = Node::start(&[]);
    let document = node.get("/api/v1/openapi.json").json;
    let operations = document["paths"].as_object().unwrap().values().flat_map(|p| p.as_object().unwrap());
    for (name, operation) in operations.filter(|(_, operation)| operation["operationId"].is_string()) {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
            let schema = json!({"allOf": [parameter["schema"]], "components": document["components"]});
            let takes = jsonschema::draft202012::new(&schema).unwrap();
            assert!(takes.is_valid(&json!("")), "{name} {}: {parameter}", operation["operationId"]);
        }
    }
    assert_eq!(node.get("/api/v1/events?follow=false&tail=").status, 200);
}

/// What stands in the document as a pattern is what is taken: neither less nor more.
#[test]
fn patterns_take_what_the_node_takes() {
    let node = Node::start(&[]);
    let document = node.get("/api/v1/openapi.json").json;
    let parameter = |path: &str, method: &str, name: &str| {
        let all = document["paths"][path][method]["parameters"].as_array().unwrap();
        all.iter().find(|p| p["name"] == name).unwrap()["schema"].clone()
    };
    let fits = |schema: &Value, value: Value| {
        let schema = json!({"allOf": [schema], "components": document["components"]});
        jsonschema::draft202012::new(&schema).unwrap().is_valid(&value)
    };
    let target = parameter("/api/v1/tasks", "get", "target");
    for name in [
        "counter/a",
        "counter/*",
        "counter/eu-*",
        "tool:fs.read",
        "tool:fs.*",
        "counter/grün b+c",
        "counter/a b",
        "",
        "coun*",
        "Counter/a",
        "counter/",
        "counter/..",
        "counter/a/b",
        "tool:Fs",
        "default/a",
        "counter/a?b",
        "x",
    ] {
        let text = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let path = format!("/api/v1/tasks?target={text}");
        let taken = node.get(&path).status == 200;
        assert_eq!(fits(&target, json!(name)), taken, "target {name}");
    }
    let timeout = parameter("/api/v1/agents/counter/{key}/messages/Add", "post", "timeout");
    for text in [
        "30s", "1h30m", "1h 30m", "5ms", "90us", "0s1m", "", "0", "0s", "30", "1.5s", "s", "-1s", "soon",
        "0s 0m",
    ] {
        let path = format!("/api/v1/agents/counter/a/messages/Get?timeout={}", text.replace(' ', "%20"));
        let taken = node.post(&path, "").status != 400;
        assert_eq!(fits(&timeout, json!(text)), taken, "timeout {text}");
    }
    let pause = &document["paths"]["/api/v1/agents/{kind}/{key}/pause"]["post"]["requestBody"]["content"];
    for body in [json!(null), json!({}), json!({"clear": true}), json!({"other": 1}), json!(1)] {
        let answer = node.post("/api/v1/agents/counter/b/pause", &body.to_string());
        let described = fits(&pause["application/json"]["schema"], body.clone());
        assert_eq!(described, answer.status == 202, "pause with {body}: {answer:?}");
    }
    let tag = parameter("/api/v1/sessions/{id}", "put", "If-Match");
    for text in ["\"1\"", "*", "1", "\"1", "\"1\", \"2\""] {
        let answer = node.send("PUT", "/api/v1/sessions/none", &[("If-Match", text)], Some("{\"data\":1}"));
        assert_eq!(fits(&tag, json!(text)), answer.status == 412, "If-Match {text}: {answer:?}");
    }
    let cron = document["components"]["schemas"]["ScheduleRequest"]["properties"]["cron"].clone();
    for (n, text) in cron["examples"].as_array().unwrap().iter().enumerate() {
        let schedule = json!({"name": format!("n{n}"), "cron": text, "target": "counter/a", "message": "Get", "paused": true});
        assert_eq!(node.post("/api/v1/schedules", &schedule.to_string()).status, 201, "{text}");
    }
    let key = document["components"]["schemas"]["TaskRequest"]["properties"]["idempotency_key"].clone();
    for text in ["k", "grün 1", "a\u{7}b", "a\u{85}b", "", &"x".repeat(256)] {
        let task = json!({"target": "counter/a", "message": "Get", "idempotency_key": text});
        assert_eq!(
            fits(&key, json!(text)),
            node.post("/api/v1/tasks", &task.to_string()).status == 202,
            "key {text:?}"
        );
    }
}
