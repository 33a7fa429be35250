//! The document of the API: that every answer is held against it is the work of `support::contract`.

use std::panic::{AssertUnwindSafe, catch_unwind};

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
    assert!(document["paths"]["/api/v1/agents/librarian/{key}/messages/fs.list.done"].is_null());
}
