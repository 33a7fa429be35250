//! Thousands of tasks that fail at random, while their node is killed again and again: every one ends, and
//! what it does to its agent it does once; and a schedule beside them fires each of its times once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{clients::sized, support::Node};

/// How many tasks one request submits.
const AT_ONCE: usize = 500;
/// How many of them append to one agent.
const EACH: usize = 100;
/// Past this without any end of a task, none will come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A task: its id, the agent, what it appends.
struct Accepted {
    task: String,
    agent: String,
    id: String,
}

/// Submits some: a tenth one by one, so that they may begin at once, and the rest together. Every other one is a
/// message for the agent, the rest is a function that stumbles.
fn submit(node: &Node, numbers: std::ops::Range<usize>) -> Vec<Accepted> {
    let some: Vec<(String, String)> = numbers.map(|i| (format!("c{}", i / EACH), format!("i{i}"))).collect();
    let tasks = some.iter().enumerate().map(|(i, (agent, id))| request(i, agent, id));
    let (singly, together): (Vec<_>, Vec<_>) = tasks.enumerate().partition(|(i, _)| *i < some.len() / 10);
    let mut items: Vec<Value> = singly
        .into_iter()
        .map(|(_, task)| {
            let answer = node.post("/api/v1/tasks", &task.to_string());
            assert_eq!(answer.status, 202, "{answer:?}");
            answer.json
        })
        .collect();
    let together: Vec<Value> = together.into_iter().map(|(_, task)| task).collect();
    let answer = node.post("/api/v1/tasks/batch", &json!({"tasks": together}).to_string());
    assert_eq!(answer.status, 202, "{answer:?}");
    items.extend(answer.json["items"].as_array().unwrap().iter().cloned());
    let accepted = |(item, (agent, id)): (&Value, _)| {
        let task = item["id"].as_str().unwrap().to_owned();
        Accepted { task, agent, id }
    };
    items.iter().zip(some).map(accepted).collect()
}

fn request(i: usize, agent: &str, id: &str) -> Value {
    if i.is_multiple_of(2) {
        json!({"target": format!("counter/{agent}"), "message": "Append", "input": {"id": id}})
    } else {
        let input = json!({"to": agent, "id": id, "percent": 20});
        json!({"target": "tool:probe.stumble", "input": input, "max_attempts": 3})
    }
}

/// How many tasks have ended, and how many have not.
fn ended(node: &Node) -> (u64, u64) {
    let tasks = node.get("/api/v1/status").json["tasks"].clone();
    let of = |states: &[&str]| states.iter().map(|state| tasks[state].as_u64().unwrap_or(0)).sum();
    (of(&["succeeded", "failed", "cancelled"]), of(&["blocked", "scheduled", "ready", "running", "parked"]))
}

/// A schedule that fires once a second all the while, and makes up for what it missed.
fn schedule(node: &Node) {
    let ticks = r#"{"name":"ticks","cron":"* * * * * *","target":"counter/ticks","message":"Add","input":{"n":1},
        "overlap":"allow","misfire":"all","max_attempts":9}"#;
    let added = node.post("/api/v1/schedules", ticks);
    assert_eq!(added.status, 201, "{added:?}");
}

/// All tasks that a list shows, page by page.
fn listed(node: &Node, filter: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = node.get(&format!("/api/v1/tasks?{filter}&limit=1000{cursor}")).json;
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { return all };
        cursor = format!("&cursor={next}");
    }
}

/// Each of its nominal times, from the first to the last, has fired one task.
fn fired_once_each_second(node: &Node) {
    assert_eq!(node.send("DELETE", "/api/v1/schedules/ticks", &[], None).status, 204);
    let nominal = |task: Value| -> Timestamp {
        task["idempotency_key"].as_str().unwrap().trim_start_matches("schedule:ticks:").parse().unwrap()
    };
    let mut times: Vec<Timestamp> = listed(node, "target=counter/ticks").into_iter().map(nominal).collect();
    times.sort_unstable();
    println!("{} nominal times", times.len());
    assert!(times.len() > 3, "{times:?}");
    for pair in times.windows(2) {
        assert_eq!(pair[1].duration_since(pair[0]).as_secs(), 1, "{} and {}", pair[0], pair[1]);
    }
}

/// Submits them, a part at a time, with `trouble` in the midst of each; waits until all have ended, and looks
/// at each of them.
pub fn end_whatever_happens(node: &mut Node, n: usize, mut trouble: impl FnMut(&mut Node, usize)) {
    schedule(node);
    let mut all = Vec::with_capacity(n);
    let every = (n / AT_ONCE / sized(4, 60)).max(1);
    for part in 0..n.div_ceil(AT_ONCE) {
        let first = part * AT_ONCE;
        all.extend(submit(node, first..n.min(first + AT_ONCE)));
        if part % every == 0 {
            trouble(node, part / every);
        }
    }
    let (mut known, mut moved) = (0, Instant::now());
    loop {
        let (done, open) = ended(node);
        if done >= n as u64 && open == 0 {
            break;
        }
        if done > known {
            (known, moved) = (done, Instant::now());
        }
        assert!(moved.elapsed() < PATIENCE, "{done} of {n} have ended, {open} have not:\n{}", node.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    fired_once_each_second(node);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let states: HashMap<String, String> =
        listed(node, "").iter().map(|task| (text(&task["id"]), text(&task["state"]))).collect();
    let mut lists: HashMap<String, HashMap<String, usize>> = HashMap::new();
    let (mut succeeded, mut failed) = (0, 0);
    for Accepted { task, agent, id } in all {
        let state = states.get(&task).unwrap_or_else(|| panic!("{task} is not listed"));
        let list = lists.entry(agent.clone()).or_insert_with(|| appended(node, &agent));
        let times = list.get(&id).copied().unwrap_or(0);
        match state.as_str() {
            "succeeded" => assert_eq!(times, 1, "{task} succeeded: {id} stands in {agent}"),
            "failed" => assert!(times <= 1, "{task} failed: {id} stands in {agent} {times} times"),
            other => panic!("{task} is {other}"),
        }
        *(if *state == "succeeded" { &mut succeeded } else { &mut failed }) += 1;
    }
    println!("{succeeded} succeeded, {failed} failed for good");
    assert!(succeeded > n * 9 / 10, "of {n}, {failed} failed");
}

fn appended(node: &Node, agent: &str) -> HashMap<String, usize> {
    let ids = node.ask(agent, "List", "").json["ids"].clone();
    let mut times = HashMap::new();
    for id in ids.as_array().unwrap() {
        *times.entry(id.as_str().unwrap().to_owned()).or_default() += 1;
    }
    times
}
