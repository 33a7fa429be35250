//! Two nodes on one database: which of them does what, and what is told to whoever asks the other one.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{postgres::Database, support::Node};

/// Two nodes on one database that know each other: all partitions are the first one's.
struct Pair {
    owner: Node,
    other: Node,
    _database: Database,
}

fn until(what: &str, nodes: &[&Node], mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        let logs: Vec<String> = nodes.iter().map(|node| node.log()).collect();
        assert!(began.elapsed() < Duration::from_secs(40), "never: {what}\n{}", logs.join("\n---\n"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Pair {
    fn start() -> Self {
        let database = Database::new();
        let url = format!("store.url={}", database.url());
        // one token for both, as whoever operates both has it
        let sets = [&url, "node.lease=3s", "http.token=of-both-of-them-0123456789"];
        let owner = Node::start(&[&sets[..], &["node.name=eu-1"]].concat());
        let other = Node::start(&[&sets[..], &["node.name=eu-2"]].concat());
        let pair = Self { owner, other, _database: database };
        // it may answer before it has looked round
        until("it knows the owner", &[&pair.owner, &pair.other], || {
            pair.other.ask("a", "Get", "").json["owner"] == pair.owner.url.as_str()
        });
        pair
    }

    /// How both tell of a node.
    fn told(&self, name: &str) -> [Value; 2] {
        [&self.owner, &self.other].map(|node| {
            let nodes = node.get("/api/v1/nodes").json["items"].as_array().unwrap().clone();
            nodes.into_iter().find(|row| row["name"] == name).unwrap()
        })
    }
}

fn submit(node: &Node, id: &str) -> String {
    let body = json!({"target": "counter/a", "message": "Append", "input": {"id": id}});
    node.post("/api/v1/tasks", &body.to_string()).json["id"].as_str().unwrap().to_owned()
}

fn state(node: &Node, id: &str, wait: &str) -> String {
    node.get(&format!("/api/v1/tasks/{id}?wait={wait}")).json["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_drained_node_keeps_its_partitions_and_takes_messages_and_both_say_so() {
    let pair = Pair::start();
    let owned = pair.told("eu-1")[0]["partitions"].as_array().unwrap().len();
    assert_eq!(owned, 64);
    // asked for at the other one
    let drained = pair.other.cli(&["nodes", "drain", "eu-1"]);
    assert_eq!(drained.code, 0, "{drained:?}");
    assert!(drained.err.contains("it keeps its 64 partitions"), "{drained:?}");
    for told in pair.told("eu-1") {
        assert_eq!(
            (&told["status"], told["partitions"].as_array().unwrap().len()),
            (&json!("draining"), owned)
        );
        assert!(told["drained_at"].is_string(), "{told}");
    }
    for told in pair.told("eu-2") {
        assert_eq!((&told["status"], &told["drained_at"]), (&json!("active"), &Value::Null));
    }
    let listed = pair.other.cli(&["nodes", "ls"]);
    let line = listed.out.lines().find(|line| line.contains("eu-1")).unwrap();
    assert!(line.contains("draining") && line.contains("64"), "{listed:?}");

    // its tasks wait, wherever they come from; messages are answered, and survive
    let (here, there) = (submit(&pair.owner, "1"), submit(&pair.other, "2"));
    assert_eq!(pair.owner.ask("a", "Append", r#"{"id":"m"}"#).json["len"], 1);
    for task in [&here, &there] {
        assert_eq!(state(&pair.owner, task, "300ms"), "ready");
    }
    pair.owner.get("/health/ready").is_problem(503, "unavailable");
    assert_eq!(pair.other.get("/health/ready").status, 200, "the other one is not drained");
    // what is nobody's own may be done by the other one, but the tools' partition is the owner's
    let resumed = pair.other.cli(&["nodes", "resume", "eu-1"]);
    assert_eq!(resumed.code, 0, "{resumed:?}");
    for task in [&here, &there] {
        assert_eq!(state(&pair.other, task, "30s"), "succeeded");
    }
    for told in pair.told("eu-1") {
        assert_eq!((&told["status"], &told["drained_at"]), (&json!("active"), &Value::Null));
    }
    let list = pair.owner.ask("a", "List", "").json["ids"].clone();
    assert_eq!(list.as_array().unwrap().len(), 3, "{list}");
}

#[test]
fn a_drained_node_that_ends_leaves_its_tasks_to_the_other_one() {
    let mut pair = Pair::start();
    assert_eq!(pair.owner.cli(&["nodes", "drain", "self"]).code, 0);
    let task = submit(&pair.owner, "1");
    assert_eq!(state(&pair.owner, &task, "100ms"), "ready");
    assert!(pair.owner.terminate().success());
    assert_eq!(state(&pair.other, &task, "30s"), "succeeded");
    let nodes = pair.other.get("/api/v1/nodes").json["items"].as_array().unwrap().clone();
    assert_eq!((nodes.len(), &nodes[0]["status"]), (1, &json!("active")), "{nodes:?}");
}

#[test]
fn a_command_that_is_sent_to_the_wrong_node_is_sent_on_to_the_owner() {
    let pair = Pair::start();
    // HTTP tells who serves it, and leaves the rest to whoever asked
    let answer = pair.other.ask("a", "Append", r#"{"id":"x"}"#);
    answer.is_problem(503, "unavailable");
    assert_eq!(answer.json["owner"], pair.owner.url.as_str());
    // the command line asks there
    let sent = pair.other.cli(&["agents", "send", "counter/a", "Append", r#"{"id":"1"}"#]);
    assert_eq!((sent.code, sent.out.trim()), (0, r#"{"len":1}"#), "{sent:?}");
    for args in [
        &["agents", "pause", "counter/a"][..],
        &["agents", "resume", "counter/a"],
        &["agents", "delete", "counter/a", "--yes"],
    ] {
        let said = pair.other.cli(args);
        assert_eq!(said.code, 0, "{args:?} {said:?}");
    }
    assert_eq!(pair.owner.ask("a", "List", "").json["ids"], json!([]), "it was deleted there");
    // what the owner refuses is told as its word
    let no = pair.other.cli(&["agents", "send", "counter/a", "Refuse", r#"{"reason":"not today"}"#]);
    assert_eq!(no.code, 4, "{no:?}");
    assert!(no.err.contains(&format!("asked at {}, which serves it", pair.owner.url)), "{no:?}");
}

#[test]
fn a_command_for_an_agent_whose_node_is_gone_says_so_and_works_after_the_takeover() {
    let mut pair = Pair::start();
    pair.owner.kill();
    let lost = pair.other.cli(&["agents", "send", "counter/a", "Append", r#"{"id":"1"}"#]);
    // until its lease ends, nobody is there where it is served
    assert!(matches!(lost.code, 0 | 6), "{lost:?}");
    assert!(lost.code == 0 || lost.err.contains("cannot reach a node at"), "{lost:?}");
    until("the other one takes over", &[&pair.other], || {
        pair.other.cli(&["agents", "send", "counter/a", "Append", r#"{"id":"2"}"#]).code == 0
    });
}

/// The machine of the node is ten minutes ahead of the database.
#[test]
fn a_node_whose_clock_is_wrong_goes_by_the_databases() {
    let database = Database::new();
    for (name, volatility) in [("now", "STABLE"), ("clock_timestamp", "VOLATILE")] {
        database.psql(&format!(
            "CREATE FUNCTION public.{name}() RETURNS timestamptz LANGUAGE sql {volatility} AS \
             $$ SELECT pg_catalog.{name}() - interval '10 minutes' $$"
        ));
    }
    let search = "ALTER DATABASE %I SET search_path = public, pg_catalog";
    database.psql(&format!("DO $$ BEGIN EXECUTE format('{search}', current_database()); END $$"));
    let node = Node::start(&[&format!("store.url={}", database.url())]);
    // five minutes ago by the machine, in five minutes by the database
    let soon = (jiff::Timestamp::now() - Duration::from_secs(300)).to_string();
    let submit = |id: &str, options: Value| {
        let mut task = json!({"target": "counter/a", "message": "Append", "input": {"id": id}});
        task.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let task = node.post("/api/v1/tasks", &task.to_string());
        assert_eq!(task.status, 202, "{task:?}");
        task.json["id"].as_str().unwrap().to_owned()
    };
    let later = submit("later", json!({"run_at": soon}));
    let expires = submit("expires", json!({"after": [later], "expires_at": soon}));
    let first = submit("first", json!({"run_in": "300ms"}));
    assert_eq!(state(&node, &first, "30s"), "succeeded");
    // it has looked for what is due and expired
    assert_eq!(
        (state(&node, &later, "0s"), state(&node, &expires, "0s")),
        ("scheduled".into(), "blocked".into())
    );
    let at: jiff::Timestamp = node.get("/api/v1/status").json["at"].as_str().unwrap().parse().unwrap();
    assert!(at < jiff::Timestamp::now() - Duration::from_secs(590), "{at}");
}
