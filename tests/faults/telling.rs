//! What nodes tell of what happens to them: the events and the metrics of the contract, under its names, from real
//! nodes that meet what each of them is for.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    postgres::Database,
    support::{Node, until},
};

/// The figure of a sample whose labels are these, however they are ordered; with none, of the one without labels.
fn sample(metrics: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let of = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(name)?;
        let (given, figure) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let mut given: Vec<&str> = given.split(',').filter(|label| !label.is_empty()).collect();
        let mut wanted: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        given.sort_unstable();
        wanted.sort_unstable();
        if given == wanted { figure.parse().ok() } else { None }
    };
    metrics.lines().find_map(of)
}

fn submit(node: &Node, task: Value) -> String {
    let answer = node.post("/api/v1/tasks", &task.to_string());
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json["id"].as_str().unwrap().to_owned()
}

fn state(node: &Node, id: &str) -> String {
    node.get(&format!("/api/v1/tasks/{id}")).json["state"].as_str().unwrap_or_default().to_owned()
}

/// Waits for an event about a subject, and gives the first.
#[track_caller]
fn told(node: &Node, event: &str, subject: &str) -> Value {
    let mut found = None;
    until(&format!("{event} {subject}"), || {
        found = node.told(&[event]).into_iter().find(|record| record["subject"] == subject);
        found.is_some()
    });
    found.unwrap()
}

fn signal(node: &Node, name: &str) {
    assert!(Command::new("kill").args([name, &node.pid().to_string()]).status().unwrap().success());
}

#[test]
fn what_happens_is_in_the_log_and_in_the_metrics() {
    let database = Database::new();
    let url = format!("store.url={}", database.url());
    let sets = [
        &*url,
        "node.lease=3s",
        "http.token=of-both-of-them-0123456789",
        "log.format=json",
        "log.level=debug",
        "agents.counter.idle_timeout=300ms",
        "tools.probe.crash.max_restarts=1",
    ];
    let mut node = Node::start(&[&sets[..], &["node.name=eu-1"]].concat());

    // A state that nobody can read, met after a restart.
    node.ask("broken", "Add", r#"{"n":1}"#);
    told(&node, "agent.passivated", "counter/broken");
    assert!(node.terminate().success());
    assert_eq!(told(&node, "node.stopped", "node:eu-1")["clean"], true);
    database.psql(r"UPDATE greenroom_agents SET state = '\x00' WHERE key = 'broken'");
    node.start_again();
    assert_eq!(node.ask("broken", "Get", "").status, 409);
    assert!(told(&node, "state.quarantined", "counter/broken")["cause"].is_string());

    // Another node comes and goes.
    let mut other = Node::start(&[&sets[..], &["node.name=eu-2"]].concat());
    told(&node, "node.joined", "node:eu-2");
    assert!(other.terminate().success());
    assert_eq!(told(&other, "node.stopped", "node:eu-2")["clean"], true);
    told(&node, "node.left", "node:eu-2");

    // Turns that go well, fail, and crash.
    for _ in 0..50 {
        assert_eq!(node.ask("a", "Add", r#"{"n":1}"#).status, 200);
    }
    node.ask("a", "Fail", r#"{"message":"no"}"#).is_problem(500, "handler_failed");
    node.ask("a", "Crash", r#"{"message":"boom"}"#).is_problem(500, "handler_crashed");
    let crashed = told(&node, "agent.crashed", "counter/a")["ts"].as_i64();
    told(&node, "restart.planned", "counter/a");
    until("it is put away", || {
        let away = node.told(&["agent.passivated"]);
        away.iter().any(|record| record["subject"] == "counter/a" && record["ts"].as_i64() > crashed)
    });
    assert_eq!(node.ask("a", "Get", "").json["total"], 50);
    until("its state is told to have come back", || {
        let restored = node.told(&["state.restored"]);
        restored.iter().any(|record| record["subject"] == "counter/a" && record["version"] == 50)
    });

    // Calls that go well and crash, until their tool is stopped.
    let call = |input: &str| node.post("/api/v1/tools/probe.crash/call", input);
    assert_eq!(call("{}").status, 200);
    for _ in 0..2 {
        call(r#"{"message":"boom"}"#).is_problem(500, "handler_crashed");
    }
    told(&node, "agent.stopped", "tool:probe.crash");
    call("{}").is_problem(409, "wrong_state");

    // What tasks can come to.
    let done = submit(&node, json!({"target": "counter/a", "message": "Add", "input": {"n": 1}}));
    let fails =
        json!({"target": "counter/a", "message": "Fail", "input": {"message": "no"}, "max_attempts": 2});
    let failed = submit(&node, fails);
    let held = json!({"target": "tool:probe.hold", "input": {"ms": 600_000}, "timeout": "50ms"});
    let unknown = submit(&node, held);
    let waiting = submit(&node, json!({"target": "tool:probe.wait", "input": {"signal": "go"}}));
    let sleep = |key: &str| json!({"target": format!("counter/{key}"), "message": "Sleep", "input": {"ms": 600_000}, "timeout": "20m"});
    let (cancelled, parked) = (submit(&node, sleep("b")), submit(&node, sleep("c")));
    for id in [&cancelled, &parked] {
        until("it runs", || state(&node, id) == "running");
    }
    let queued = submit(&node, json!({"target": "counter/c", "message": "Add", "input": {"n": 1}}));
    let mailbox = sample(&node.get("/metrics").text, "greenroom_mailbox_messages", &[("kind", "counter")]);
    assert!(mailbox.is_some_and(|waiting| waiting >= 0.0));
    assert_eq!(node.post(&format!("/api/v1/tasks/{cancelled}/cancel"), "").status, 202);
    assert_eq!(node.post("/api/v1/agents/counter/c/stop", "").status, 202);
    for (event, id) in [
        ("task.succeeded", &done),
        ("task.retry", &failed),
        ("task.failed", &failed),
        ("task.outcome_unknown", &unknown),
        ("task.waiting", &waiting),
        ("task.cancelled", &cancelled),
        ("task.parked", &parked),
    ] {
        told(&node, event, &format!("task:{id}"));
    }
    until("it is parked too", || state(&node, &queued) == "parked");

    // A write under an epoch that is not in force any more: another node has the partition, says the store.
    let place = "(SELECT partition FROM greenroom_agents WHERE key = 'a')";
    database.psql(&format!("UPDATE greenroom_partitions SET epoch = epoch + 1 WHERE id = {place}"));
    until("a commit is refused", || {
        node.ask("a", "Add", r#"{"n":1}"#);
        let fenced = sample(&node.get("/metrics").text, "greenroom_commits_fenced_total", &[]);
        fenced.is_some_and(|n| n > 0.0)
    });

    let metrics = node.get("/metrics").text;
    let at_least = |least: f64, name: &str, labels: &[(&str, &str)]| {
        let found = sample(&metrics, name, labels);
        assert!(found.is_some_and(|n| n >= least), "{name} {labels:?}: {found:?}\n{metrics}");
    };
    let counter = ("kind", "counter");
    at_least(1.0, "greenroom_agent_restarts_total", &[counter, ("reason", "panic")]);
    at_least(1.0, "greenroom_agent_restarts_total", &[counter, ("reason", "quarantined")]);
    at_least(51.0, "greenroom_messages_total", &[counter, ("outcome", "ok")]);
    at_least(1.0, "greenroom_messages_total", &[counter, ("outcome", "failed")]);
    let tool = ("tool", "probe.crash");
    at_least(1.0, "greenroom_tool_calls_total", &[tool, ("outcome", "ok")]);
    at_least(2.0, "greenroom_tool_calls_total", &[tool, ("outcome", "failed")]);
    at_least(2.0, "greenroom_tool_crashes_total", &[tool]);
    at_least(1.0, "greenroom_tool_up", &[("tool", "probe.wait")]);
    assert_eq!(sample(&metrics, "greenroom_tool_up", &[tool]), Some(0.0), "it is stopped");
    at_least(1.0, "greenroom_message_handle_duration_seconds_count", &[counter]);
    at_least(1.0, "greenroom_agents", &[counter, ("status", "stopped")]);
    at_least(1.0, "greenroom_agents", &[counter, ("status", "quarantined")]);
    for state in ["succeeded", "failed", "cancelled", "waiting", "outcome_unknown"] {
        at_least(1.0, "greenroom_tasks", &[("state", state)]);
    }
    at_least(2.0, "greenroom_tasks", &[("state", "parked")]);
    for outcome in ["ok", "retry", "failed", "unknown", "cancelled", "parked"] {
        at_least(1.0, "greenroom_task_attempts_total", &[("outcome", outcome)]);
    }
    at_least(6.0, "greenroom_task_run_duration_seconds_count", &[]);
    at_least(1.0, "greenroom_task_wait_duration_seconds_count", &[]);
    at_least(50.0, "greenroom_commit_duration_seconds_count", &[]);
    at_least(1.0, "greenroom_commits_fenced_total", &[]);
    at_least(1.0, "greenroom_state_restore_duration_seconds_count", &[]);
    at_least(1.0, "greenroom_store_up", &[]);
    for state in ["idle", "used", "waited_for"] {
        at_least(0.0, "greenroom_store_pool_connections", &[("state", state)]);
    }

    // What a person says of the one of which nobody knows.
    let resolution = node.post(&format!("/api/v1/tasks/{unknown}/resolve"), r#"{"failed":"it was not"}"#);
    assert_eq!(resolution.status, 202, "{resolution:?}");
    assert_eq!(told(&node, "task.failed", &format!("task:{unknown}"))["by"], "operator");

    // A node that was away for longer than its lease.
    other.start_again();
    signal(&node, "-STOP");
    until("the other one serves", || other.ask("d", "Add", r#"{"n":1}"#).status == 200);
    signal(&node, "-CONT");
    until("it says that its lease had ended", || {
        node.told(&["node.fenced"]).iter().any(|record| record["reason"] == "its lease had ended")
    });
}
