//! `events`: what happened, and what happens.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::mpsc,
    time::Duration,
};

use serde_json::Value;

use crate::support::{Node, Said, until};

#[test]
fn what_happened_is_printed() {
    let node = Node::start(&[]);
    node.ask("a", "Crash", r#"{"message":"boom"}"#);
    let said = node.cli(&["events"]);
    assert!(said.code == 0 && said.out.contains("node.started"), "{said:?}");
    assert!(said.out.contains("agent.crashed counter/a") && said.out.contains("restart.planned"), "{said:?}");
    let crashes = |more: &[&str]| node.cli(&[&["events", "--event", "agent.crashed"][..], more].concat());
    assert_eq!(crashes(&["--json"]).json()["items"][0]["reason"]["message"], "boom");
    let line: Value = serde_json::from_str(crashes(&["--jsonl", "-n", "1"]).out.trim()).unwrap();
    assert_eq!(line["subject"], "counter/a");
    for nothing in [&["--subject", "counter/b"][..], &["--since", "0ms"]] {
        let said = crashes(nothing);
        assert!(said.code == 0 && said.out.is_empty() && said.err.contains("-f"), "{said:?}");
    }
}

#[test]
fn following_goes_on_when_the_node_is_started_again() {
    let port = crate::postgres::port::free();
    let mut node = Node::start(&[&format!("http.bind=127.0.0.1:{port}")]);
    let mut command = node.command(&["events", "-f", "--event", "agent.*,node.started", "--jsonl"]);
    let mut following = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (tell, told) = mpsc::channel();
    let lines = BufReader::new(following.stdout.take().unwrap()).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let wait_for = |event: &str| loop {
        let line = told.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("no {event}"));
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["event"] == event {
            return line;
        }
    };
    let first = wait_for("node.started");
    node.ask("a", "Crash", "{}");
    wait_for("agent.crashed");
    node.terminate();
    node.start_again();
    let second = wait_for("node.started");
    assert_ne!(first["boot"], second["boot"]);
    node.ask("a", "Crash", "{}");
    wait_for("agent.crashed");
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn what_is_watched_is_shown_again_also_when_the_node_was_away() {
    let port = crate::postgres::port::free();
    let mut node = Node::start(&[&format!("http.bind=127.0.0.1:{port}")]);
    let watch = |node: &Node, args: &[&str]| {
        let mut watching = node.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (tell, told) = mpsc::channel();
        let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        (watching, told)
    };
    let wait_for = |told: &mpsc::Receiver<String>, part: &str| loop {
        let line = told.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("no {part}"));
        if line.contains(part) {
            return;
        }
    };
    let (mut agents, listed) = watch(&node, &["agents", "ls", "-w", "100ms"]);
    let (mut status, told) = watch(&node, &["status", "-w", "100ms", "--strict"]);
    wait_for(&listed, "no agents");
    node.ask("a", "Add", r#"{"n":1}"#);
    wait_for(&listed, "counter/a");
    wait_for(&told, "ok");
    node.terminate();
    wait_for(&told, "cannot reach a node");
    node.start_again();
    wait_for(&told, "ok");
    wait_for(&listed, "counter/a");
    for child in [&mut agents, &mut status] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let never = node.cli(&["agents", "ls", "-w", "--url", "http://127.0.0.1:1"]);
    assert_eq!(never.code, 6, "one that was never there is not waited for");
}

#[test]
fn who_waits_for_a_task_goes_on_when_the_node_was_away() {
    let port = crate::postgres::port::free();
    let mut node = Node::start(&[&format!("http.bind=127.0.0.1:{port}")]);
    let begin = |args: &[&str]| {
        let mut command = node.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let submits = begin(&["tasks", "submit", "counter/a", "Add", r#"{"n":1}"#, "--in", "1h", "--wait"]);
    until("it is accepted", || !node.cli(&["tasks", "ls", "-q"]).out.is_empty());
    let id = node.cli(&["tasks", "ls", "-q"]).out.trim().to_owned();
    let mut watches = begin(&["tasks", "watch", &id]);
    let mut notes = BufReader::new(watches.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut wait_for = |part: &str| assert!(notes.by_ref().any(|line| line.contains(part)), "no {part}");
    wait_for("scheduled");
    node.terminate();
    wait_for("the node does not answer; waiting until it is back");
    node.start_again();
    assert_eq!(node.cli(&["tasks", "cancel", &id]).code, 0);
    let ended = format!("task {id} ended as cancelled");
    wait_for(&ended);
    assert_eq!(watches.wait().unwrap().code(), Some(1));
    let said: Said = submits.wait_with_output().unwrap().into();
    assert!(said.code == 1 && said.err.contains(&ended), "{said:?}");
    assert!(said.err.contains("the node does not answer"), "{said:?}");
    let never = node.cli(&["tasks", "wait", &id, "--url", "http://127.0.0.1:1"]);
    assert_eq!(never.code, 6, "one that was never there is not waited for");
}
