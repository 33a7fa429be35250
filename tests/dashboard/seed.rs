//! Something to look at: agents, tasks in every state that can be brought about, crashes, schedules.

use serde_json::{Value, json};

use crate::support::Node;

/// What a page may never take for more than text.
pub const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\"> \u{202e}evil\u{202c}\u{7}\u{1b}[2J";
/// A key that is allowed, and hostile.
pub const HOSTILE_KEY: &str = "<img src=x onerror=document.title='taken'>";

/// What was made, by its part in it.
pub struct Seed {
    /// A dead letter.
    pub dead: String,
    /// A task in the middle of a family.
    pub middle: String,
    /// A task that waits for the signal `approved`.
    pub waiting: String,
    /// A crash.
    pub crash: String,
}

/// Fills a node.
pub fn seed(node: &Node) -> Seed {
    for n in 0..12 {
        ask(node, &format!("shop-{n:02}"), "Add", json!({"n": n}));
    }
    for n in 0..4 {
        ask(node, "ledger", "Append", json!({"id": format!("order-{n}")}));
    }
    ask(node, &encoded(HOSTILE_KEY), "Append", json!({"id": HOSTILE}));
    for n in 0..3 {
        ask(node, "flaky", "Crash", json!({"message": format!("the bank did not answer, try {n}")}));
    }
    let crash =
        ask(node, "flaky", "Crash", json!({"message": HOSTILE}))["crash_id"].as_str().unwrap().to_owned();
    for (key, action) in [("shop-01", "pause"), ("shop-02", "stop"), ("shop-03", "quarantine")] {
        assert_eq!(node.post(&format!("/api/v1/agents/counter/{key}/{action}"), "").status, 202);
    }
    for key in ["shop-04", "shop-05", "shop-01"] {
        task(
            node,
            json!({"target": format!("counter/{key}"), "message": "Add", "input": {"n": 1}, "tags": ["nightly"]}),
        );
    }
    task(node, json!({"target": "counter/later", "message": "Add", "input": {"n": 1}, "run_in": "2h"}));
    let cancelled =
        task(node, json!({"target": "counter/later", "message": "Add", "input": {"n": 1}, "run_in": "3h"}));
    assert_eq!(node.post(&format!("/api/v1/tasks/{cancelled}/cancel"), "").status, 202);
    task(
        node,
        json!({"target": "counter/failing", "message": "Fail", "input": {"message": HOSTILE}, "max_attempts": 1}),
    );
    let dead = task(
        node,
        json!({"target": "counter/failing", "message": "Refuse", "input": {"reason": "closed on sundays"}, "max_attempts": 1}),
    );
    assert_eq!(node.get(&format!("/api/v1/tasks/{dead}?wait=20s")).json["state"], "failed");
    task(
        node,
        json!({"target": "counter/slow", "message": "Sleep", "input": {"ms": 600_000}, "timeout": "20m"}),
    );
    let waiting = task(node, json!({"target": "tool:probe.wait", "input": {"signal": "approved"}}));
    let family = json!({"tasks": [
        {"name": "fetch", "target": "tool:probe.wait", "input": {"signal": "data"}},
        {"name": "left", "target": "counter/left", "message": "Add", "input": {"n": 1}, "after": ["fetch"]},
        {"name": "right", "target": "counter/right", "message": "Add", "input": {"n": 1}, "after": ["fetch"]},
        {"name": "join", "target": "counter/join", "message": "Append", "input": {"id": "x"}, "after": ["left", "right"]},
        {"name": "mail", "target": "counter/mail", "message": "Get", "after": ["join", "left"]},
    ]});
    let family = node.post("/api/v1/tasks/batch", &family.to_string());
    assert_eq!(family.status, 202, "{family:?}");
    for (name, cron) in [("nightly", "0 3 * * * Europe/Berlin"), ("heartbeat", "every 10m")] {
        let schedule = json!({"name": name, "cron": cron, "target": "counter/beat", "message": "Add", "input": {"n": 1}});
        assert_eq!(node.post("/api/v1/schedules", &schedule.to_string()).status, 201);
    }
    let middle = family.json["items"][1]["id"].as_str().unwrap().to_owned();
    Seed { dead, middle, waiting, crash }
}

/// Says something to a counter.
pub fn ask(node: &Node, key: &str, message: &str, body: Value) -> Value {
    node.ask(key, message, &body.to_string()).json
}

/// Submits a task: its id.
pub fn task(node: &Node, body: Value) -> String {
    let accepted = node.post("/api/v1/tasks", &body.to_string());
    assert_eq!(accepted.status, 202, "{accepted:?}");
    accepted.json["id"].as_str().unwrap().to_owned()
}

/// A part of a path.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}
