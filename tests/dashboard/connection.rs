//! What comes by itself, and what is shown when nothing comes.

use std::process::Command;

use serde_json::json;

use crate::{
    browser::Browser,
    is_clean, port,
    seed::{ask, task},
    signed_in,
    support::Node,
};

#[test]
fn what_happens_is_seen_without_reloading() {
    let node = Node::start(&[]);
    ask(&node, "a", "Add", json!({"n": 1}));
    let mut page = signed_in(&node);
    page.eval("window.same = true");
    page.go("#/logs");
    ask(&node, "a", "Crash", json!({"message": "here it is"}));
    page.sees("here it is");
    page.go("#/tasks");
    let id = task(&node, json!({"target": "counter/b", "message": "Get"}));
    page.until(&format!(
        "document.querySelector('[data-href=\"#/tasks/{id}\"] .badge').textContent === 'succeeded'"
    ));
    page.go("#/agents/counter/a");
    ask(&node, "a", "Add", json!({"n": 41}));
    page.sees("total: 42");
    assert_eq!(page.eval("window.same"), true);
    is_clean(&page, &node);
}

#[test]
fn a_lost_node_is_told_and_found_again() {
    let bind = format!("http.bind=127.0.0.1:{}", port::free());
    let mut node = Node::start(&[&bind]);
    ask(&node, "a", "Add", json!({"n": 1}));
    let mut page = signed_in(&node);
    page.go("#/agents/counter/a");
    page.until("document.getElementById('banner').hidden");
    node.kill();
    page.until("!document.getElementById('banner').hidden");
    page.sees("The connection to the node is lost.");
    // what was there stays
    page.sees("total: 1");
    node.start_again();
    // it knows its tokens, and not the sessions that were begun before it started
    page.sees("Your session has ended, or the node has started anew.");
    page.fill("#token", &node.token);
    page.click("Sign in");
    page.until("document.getElementById('banner').hidden && location.hash === '#/agents/counter/a'");
    ask(&node, "a", "Add", json!({"n": 1}));
    page.sees("total: 2");
}

#[test]
fn a_node_that_hangs_is_as_good_as_lost() {
    let node = Node::start(&[]);
    ask(&node, "a", "Add", json!({"n": 1}));
    let mut page = signed_in(&node);
    page.go("#/agents/counter/a");
    page.sees("total: 1");
    signal(&node, "STOP");
    page.until("!document.getElementById('banner').hidden");
    signal(&node, "CONT");
    page.until("document.getElementById('banner').hidden");
    ask(&node, "a", "Add", json!({"n": 1}));
    page.sees("total: 2");
}

fn signal(node: &Node, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &node.pid().to_string()]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn what_a_scope_does_not_allow_cannot_be_pressed() {
    let node = Node::start(&[]);
    ask(&node, "a", "Add", json!({"n": 1}));
    let made = node.post("/api/v1/tokens", r#"{"name":"onlooker","scope":"read"}"#);
    assert_eq!(made.status, 201, "{made:?}");
    let mut page = Browser::open(&format!("{}/", node.url));
    page.fill("#token", made.json["token"].as_str().unwrap());
    page.click("Sign in");
    page.until("document.querySelector('.who')?.textContent === 'onlooker'");
    page.go("#/agents/counter/a");
    page.until("document.querySelectorAll('.tools button').length === 5");
    let pressable =
        page.eval("[...document.querySelectorAll('.tools button')].filter((b) => !b.disabled).length");
    assert_eq!(pressable, 0);
    let why = page.eval("document.querySelector('.tools button').title");
    assert!(why.as_str().unwrap().contains("needs the scope “operate”"), "{why}");
    page.go("#/system/config");
    page.until("document.querySelector('tbody button').disabled");
    page.go("#/system/tokens");
    page.sees("Tokens are not shown");
}

#[test]
fn nobody_comes_in_without_a_token() {
    let node = Node::start(&[]);
    let mut page = Browser::open(&format!("{}/#/tasks", node.url));
    page.fill("#token", "guessed");
    page.click("Sign in");
    page.sees("does not know this token");
    assert_eq!(page.eval("document.querySelector('.side')"), json!(null));
    page.fill("#token", &node.token);
    page.click("Sign in");
    page.until("document.querySelector('.side') && location.hash === '#/tasks' && document.querySelector('main .page')");
    page.eval("document.querySelector('[aria-label=\"Sign out\"]').click()");
    page.until("document.querySelector('#token') && !document.querySelector('.side')");
}
