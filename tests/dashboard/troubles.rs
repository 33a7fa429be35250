//! The troubles of agents, tools, tasks and stores in `docs/operations.md`, each found from the overview and mended with the
//! mouse alone.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    browser::Browser,
    is_clean,
    postgres::{Disk, Server},
    seed::{ask, task},
    signed_in,
    support::Node,
};

/// Sends without waiting for an answer.
fn tell(node: &Node, key: &str, message: &str, body: &str) -> u16 {
    node.post(&format!("/api/v1/agents/counter/{key}/messages/{message}?mode=tell"), body).status
}

/// Says yes to what a dialog asks.
fn confirm(page: &mut Browser) {
    page.until("document.querySelector('dialog[open]')");
    page.eval("[...document.querySelectorAll('dialog .button')].at(-1).click()");
    page.until("!document.querySelector('dialog')");
}

fn badge(page: &mut Browser, says: &str) {
    page.until(&format!("document.querySelector('main .badge').textContent === '{says}'"));
}

#[test]
fn an_agent_that_crashes_again_and_again_is_found_and_started() {
    let node = Node::start(&["agents.counter.backoff_min=1ms", "agents.counter.backoff_max=1ms"]);
    assert_eq!(ask(&node, "shop", "Add", json!({"n": 1})), json!({"total": 1}));
    while ask(&node, "shop", "Get", json!({}))["code"] != "wrong_state" {
        ask(&node, "shop", "Crash", json!({"message": "boom"}));
    }
    let mut page = signed_in(&node);
    page.sees("Somebody should look");
    page.sees("is stopped: it crashed more than 10 times");
    // why
    page.click("boom");
    let why =
        ["src/agent/counter.rs", "nothing: the state of version 1 was restored", "10 restarts within 1 min"];
    for told in why {
        page.sees(told);
    }
    // and what to do
    page.click("Overview");
    page.click("counter/shop");
    page.sees("it crashed more than 10 times");
    page.click("Restart");
    confirm(&mut page);
    page.until("document.querySelector('main .badge').textContent !== 'stopped'");
    assert_eq!(ask(&node, "shop", "Get", json!({})), json!({"total": 1}));
    page.click("Overview");
    page.sees("All is well");
}

#[test]
fn a_tool_that_crashes_again_and_again_is_found_and_resumed() {
    let node = Node::start(&["tools.probe.crash.max_restarts=1", "tools.probe.crash.backoff_min=1ms"]);
    let call = |input: &str| node.post("/api/v1/tools/probe.crash/call", input).status;
    assert!((0..20).any(|_| call(r#"{"message":"boom"}"#) == 409), "it is never stopped");
    let waits = task(&node, json!({"target": "tool:probe.crash", "input": {}}));
    let mut page = signed_in(&node);
    page.sees("Somebody should look");
    page.sees("tool:probe.crash is stopped: it crashed more than 1 times");
    // why
    page.click("boom");
    page.sees("src/tool/probe.rs");
    // and what to do
    page.click("Overview");
    page.click("tool:probe.crash");
    page.sees("it crashed more than 1 times");
    page.click("Resume");
    page.sees("probe.crash takes calls again");
    page.click("Overview");
    page.sees("All is well");
    assert_eq!(call("{}"), 200);
    let waited = node.get(&format!("/api/v1/tasks/{waits}?wait=20s")).json;
    assert_eq!(waited["state"], "succeeded", "its tasks go on too");
    is_clean(&page, &node);
}

#[test]
fn a_message_that_takes_the_process_down_is_found_and_put_away() {
    let mut node = Node::start(&[]);
    ask(&node, "a", "Add", json!({"n": 1}));
    let poison = task(&node, json!({"target": "counter/poison", "message": "Abort", "run_in": "1s"}));
    let (began, state) = (Instant::now(), format!("/api/v1/tasks/{poison}"));
    while node.try_get(&state).is_none_or(|task| task["state"] != "failed") {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", node.log());
        if node.is_over() {
            node.start_again();
        }
    }
    let mut page = signed_in(&node);
    page.click("Tasks");
    page.click("Dead letters1");
    page.click("Retry");
    page.sees("will again until the program is mended");
    page.click("Cancel");
    page.click("poison its node died each time it ran alone");
    for told in ["poison", "counter/poison", "Abort", "its node ended without a word"] {
        page.sees(told);
    }
    page.click("Dismiss");
    confirm(&mut page);
    badge(&mut page, "cancelled");
    assert_eq!(ask(&node, "a", "Get", json!({})), json!({"total": 1}), "what others had is there");
    is_clean(&page, &node);
}

#[test]
fn a_database_that_is_gone_is_told_and_found_again() {
    let mut server = Server::start();
    let node = Node::start(&[&format!("store.url={}", server.url())]);
    ask(&node, "a", "Add", json!({"n": 1}));
    let mut page = signed_in(&node);
    page.sees("All is well");
    server.stop_immediate();
    page.sees("Not serving");
    page.sees("the store is down (unreachable)");
    page.sees("is the server up, and reached from here?");
    server.go_on();
    page.sees("All is well");
    assert_eq!(ask(&node, "a", "Get", json!({})), json!({"total": 1}));
}

#[test]
fn a_full_disk_is_told_until_there_is_room() {
    let Some(disk) = Disk::of(48) else { return };
    let url = format!("store.url=sqlite://{}/greenroom.db", disk.folder("data").display());
    let node = Node::start(&[&url]);
    ask(&node, "a", "Add", json!({"n": 1}));
    let mut page = signed_in(&node);
    disk.fill();
    let began = Instant::now();
    while ask(&node, "a", "Append", json!({"id": "x".repeat(4_096)}))["code"] != "full" {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", node.log());
    }
    page.sees("Not serving");
    page.sees("the store is down (disk_full)");
    disk.free();
    let began = Instant::now();
    while ask(&node, "a", "Add", json!({"n": 1}))["total"] != 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", node.log());
    }
    page.sees("All is well");
}

#[test]
fn a_handler_that_does_not_end_is_found_and_cut_short() {
    let node = Node::start(&["agents.counter.turn_timeout=1h"]);
    ask(&node, "report", "Add", json!({"n": 1}));
    assert_eq!(tell(&node, "report", "Sleep", r#"{"ms": 3600000}"#), 202);
    let mut page = signed_in(&node);
    page.click("Tree");
    page.sees("Sleep");
    page.click("counter/report");
    page.sees("Sleep for ");
    page.click("Restart");
    page.sees("cut short and undone");
    confirm(&mut page);
    page.until("!document.querySelector('main').innerText.includes('Sleep for ')");
    assert_eq!(ask(&node, "report", "Add", json!({"n": 1})), json!({"total": 2}));
    is_clean(&page, &node);
}

#[test]
fn a_mailbox_that_is_full_is_found_and_cleared() {
    let node = Node::start(&["agents.counter.turn_timeout=1h", "agents.counter.mailbox=8"]);
    ask(&node, "queue", "Add", json!({"n": 1}));
    assert_eq!(tell(&node, "queue", "Sleep", r#"{"ms": 3600000}"#), 202);
    while tell(&node, "queue", "Add", r#"{"n": 1}"#) != 429 {}
    let mut page = signed_in(&node);
    page.sees("the mailbox of counter/queue is nearly full");
    page.click("counter/queue");
    page.sees("8 of 8");
    page.click("Restart");
    page.until("document.querySelector('dialog[open] input[type=checkbox]')");
    page.eval("document.querySelector('dialog[open] input[type=checkbox]').click()");
    confirm(&mut page);
    page.sees("0 of 8");
    assert_eq!(ask(&node, "queue", "Add", json!({"n": 1})), json!({"total": 2}));
    page.click("Overview");
    page.sees("All is well");
}

#[test]
fn a_task_that_has_failed_for_good_is_found_and_tried_again() {
    let node = Node::start(&["tasks.retry_min=1ms"]);
    ask(&node, "billing", "Add", json!({"n": 1}));
    // its agent takes no tasks until somebody has mended it: stopped ones park them, so it fails by itself here
    let failed = json!({"target": "counter/billing", "message": "Crash", "input": {"message": "no such customer: 4711"}, "max_attempts": 2});
    let failed = task(&node, failed);
    assert_eq!(node.get(&format!("/api/v1/tasks/{failed}?wait=20s")).json["state"], "failed");
    let mut page = signed_in(&node);
    page.click("failed1");
    page.click("handler_crashed crashed: no such customer: 4711");
    page.sees("2 of 2");
    page.click("The crash report");
    page.sees("src/agent/counter.rs");
    page.eval("history.back()");
    page.click("Retry");
    confirm(&mut page);
    page.sees("It is tried again");
    let history = format!("/api/v1/tasks/{failed}/history");
    let retried = |event: &serde_json::Value| event["event"] == "retried";
    assert!(node.get(&history).json["items"].as_array().unwrap().iter().any(retried));
}
