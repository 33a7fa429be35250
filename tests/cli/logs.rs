//! `logs`: the last records, those of a while, and new ones.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde_json::Value;

use crate::support::{Node, until};

/// Only the last 100 were looked at, and with `--json` the time was not looked at at all.
#[test]
fn records_of_a_while_are_all_that_are_kept_and_none_that_are_older() {
    let node = Node::start(&["log.level=debug"]);
    for _ in 0..150 {
        node.ask("a", "Add", r#"{"n":1}"#);
        node.post("/api/v1/tasks", r#"{"target":"counter/a","message":"Add","input":{"n":1}}"#);
    }
    let items = |more: &[&str]| {
        let said = node.cli(&[&["logs", "--json"][..], more].concat()).json();
        assert!(said["next_cursor"].is_null() && said["last"].is_u64() && said["boot"].is_string(), "{said}");
        said["items"].as_array().unwrap().clone()
    };
    until("enough is written", || items(&["--since", "1h"]).len() > 150);
    assert_eq!(items(&[]).len(), 100);
    assert!(items(&["--since", "1h"]).iter().any(|record| record["event"] == "node.started"));
    assert_eq!(items(&["--since", "1h", "-n", "5"]).len(), 5);
    let lines = |more: &[&str]| node.cli(&[&["logs"][..], more].concat()).out.lines().count();
    assert!(lines(&["--since", "1h"]) > 150 && lines(&["--since", "1h", "--jsonl"]) > 150);
    for format in [&["--json"][..], &["--jsonl"], &[]] {
        let said = node.cli(&[&["logs", "--since", "0ms"], format].concat());
        assert!(said.code == 0 && !said.out.contains("\"ts\"") && !said.out.contains(" INFO "), "{said:?}");
    }
}

/// Who had seen N records of the old boot was never given the first N of the new one.
#[test]
fn following_misses_nothing_of_a_boot_that_has_written_more_meanwhile() {
    let port = crate::postgres::port::free();
    let mut node = Node::start(&[&format!("http.bind=127.0.0.1:{port}"), "log.level=debug"]);
    let mut following = node
        .command(&["logs", "-f", "--jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = following.id().to_string();
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    let (tell, told) = mpsc::channel();
    let lines = BufReader::new(following.stdout.take().unwrap()).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let next = || -> Value {
        serde_json::from_str(&told.recv_timeout(Duration::from_secs(30)).expect("a record")).unwrap()
    };
    let old = next()["boot"].clone();
    signal("-STOP");
    let seen = || node.get("/api/v1/logs").json["last"].as_u64().unwrap();
    let before = seen();
    node.terminate();
    node.start_again();
    until("the new boot has written more than the old one", || {
        node.ask("a", "Add", r#"{"n":1}"#);
        node.post("/api/v1/tasks", r#"{"target":"counter/a","message":"Add","input":{"n":1}}"#);
        node.get("/api/v1/logs").json["last"].as_u64().unwrap() > before + 50
    });
    signal("-CONT");
    let first = loop {
        let record = next();
        if record["boot"] != old {
            break record;
        }
    };
    assert_eq!(first["seq"], 1, "{first}");
    let mut last = 1;
    while last < before + 50 {
        let record = next();
        last += 1;
        assert_eq!(record["seq"], last, "without a gap: {record}");
    }
    following.kill().unwrap();
    following.wait().unwrap();
}
