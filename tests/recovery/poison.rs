//! A message that ends its process, among many that do not.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::Node;

const NEIGHBOURS: usize = 200;

/// It is found by being alone when the process dies, and is a dead letter by its third such loss; whoever was
/// claimed beside it is not blamed.
///
/// The node has slots for all of them.
pub fn is_found(mut node: Node) {
    // All due at once, so that they are claimed together.
    let due = (Timestamp::now() + Duration::from_secs(5)).to_string();
    let task = |n: usize| {
        let id = format!("i{n}");
        let mut task = match n {
            n if n == NEIGHBOURS / 2 => json!({"target": "counter/poison", "message": "Abort"}),
            n if n.is_multiple_of(2) => {
                json!({"target": format!("counter/c{n}"), "message": "Append", "input": {"id": id}})
            }
            n => {
                let input = json!({"to": format!("c{n}"), "id": id, "percent": 0});
                json!({"target": "tool:probe.stumble", "input": input})
            }
        };
        task["run_at"] = json!(due);
        task
    };
    let tasks: Vec<Value> = (0..=NEIGHBOURS).map(task).collect();
    let accepted = node.post("/api/v1/tasks/batch", &json!({"tasks": tasks}).to_string());
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let ids: Vec<String> = accepted.json["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["id"].as_str().unwrap().to_owned())
        .collect();
    let poison = format!("/api/v1/tasks/{}", ids[NEIGHBOURS / 2]);
    let (began, mut deaths) = (Instant::now(), 0);
    let dead = loop {
        if node.is_over() {
            deaths += 1;
            node.start_again();
        }
        match node.try_get(&poison) {
            Some(task) if task["state"] == "failed" => break task,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
        assert!(began.elapsed() < Duration::from_secs(90), "after {deaths} deaths:\n{}", node.log());
    };
    assert_eq!(dead["error"]["code"], "poison", "{dead}");
    assert!(node.get("/api/v1/status").json["node"]["rescued"].as_u64() >= Some(1), "people are told");
    // Twice among others, three times alone.
    assert_eq!((deaths, dead["lost"].as_u64()), (5, Some(5)), "{dead}");
    let starts = |task: &str| -> Vec<Timestamp> {
        let history = node.get(&format!("{task}/history")).json;
        let lines = history["items"].as_array().unwrap().iter().filter(|line| line["event"] == "started");
        lines.map(|line| line["at"].as_str().unwrap().parse().unwrap()).collect()
    };
    let started_again = starts(&poison)[1];
    for (n, id) in ids.iter().enumerate().filter(|(n, _)| *n != NEIGHBOURS / 2) {
        let task = node.get(&format!("/api/v1/tasks/{id}?wait=30s")).json;
        assert_eq!(task["state"], "succeeded", "{task}");
        assert_eq!(node.ask(&format!("c{n}"), "List", "").json["ids"], json!([format!("i{n}")]));
        let first = starts(&format!("/api/v1/tasks/{id}"))[0];
        assert!(first < started_again, "claimed before the process died first: {task}");
    }
    // It does not come back with the others, only by its name.
    let count = |filter: Value| {
        node.post("/api/v1/tasks/retry", &json!({"filter": filter, "dry_run": true}).to_string()).json
    };
    let all = count(json!({"state": "failed"}));
    assert_eq!((&all["count"], &all["left_out"]), (&json!(0), &json!(1)), "{all}");
    let named = count(json!({"code": "poison"}));
    assert_eq!((&named["count"], &named["left_out"]), (&json!(1), &json!(0)), "{named}");
    let said = node.cli(&["tasks", "dead"]);
    assert!(said.err.contains("poison: what takes its node down"), "{said:?}");
    assert!(!node.is_over());
}
