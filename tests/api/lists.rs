//! Lists tell all there is, also what is in memory alone or in the store alone; and who asks what is paused is
//! told so.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::Node;

fn names(page: &Value) -> Vec<String> {
    let name =
        |agent: &Value| format!("{}/{}", agent["kind"].as_str().unwrap(), agent["key"].as_str().unwrap());
    page["items"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn agents_that_run_and_have_kept_nothing_are_listed_too() {
    let node = Node::start(&[]);
    for (key, message, body) in
        [("b", "Get", ""), ("a", "Add", r#"{"n":1}"#), ("c", "Get", ""), ("d", "Add", r#"{"n":1}"#)]
    {
        assert_eq!(node.ask(key, message, body).status, 200);
    }
    let all = ["counter/a", "counter/b", "counter/c", "counter/d"];
    for limit in 1..=5 {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = node.get(&format!("/api/v1/agents?kind=counter&limit={limit}{cursor}"));
            assert_eq!(page.status, 200, "{page:?}");
            seen.extend(names(&page.json));
            match page.json["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={}", next.replace('/', "%2F")),
                None => break,
            }
        }
        assert_eq!(seen, all, "by {limit}");
    }
    let of = |status: &str| names(&node.get(&format!("/api/v1/agents?status={status}")).json);
    let awake: Vec<_> = ["active", "idle"].iter().flat_map(|status| of(status)).collect();
    assert_eq!(awake.len(), 4, "{awake:?}");
    assert_eq!(node.post("/api/v1/agents/counter/c/stop", "").status, 202);
    assert_eq!((of("stopped"), of("quarantined")), (vec!["counter/c".to_owned()], Vec::new()));
    node.get("/api/v1/agents?cursor=x").is_problem(400, "malformed");
    node.get("/api/v1/agents?cursor=X%2Fa").is_problem(400, "malformed");
}

#[test]
fn the_tree_shows_what_an_operator_has_stopped() {
    let node = Node::start(&[]);
    for key in ["a", "b", "c"] {
        node.ask(key, "Add", r#"{"n":1}"#);
    }
    assert_eq!(node.post("/api/v1/agents/counter/b/stop", "").status, 202);
    assert_eq!(node.post("/api/v1/agents/counter/z/pause", "").status, 202);
    let tree = node.get("/api/v1/tree").json;
    let kinds = tree["children"].as_array().unwrap();
    let counter = kinds.iter().find(|child| child["name"] == "counter").unwrap();
    let shown = |nodes: &Value| {
        let line = |agent: &Value| {
            (agent["name"].as_str().unwrap().to_owned(), agent["status"].as_str().unwrap().to_owned())
        };
        nodes.as_array().unwrap().iter().map(line).collect::<Vec<_>>()
    };
    let children = shown(&counter["children"]);
    let held: Vec<_> =
        children.iter().filter(|(_, status)| status == "stopped" || status == "paused").collect();
    let expected =
        [("counter/b", "stopped"), ("counter/z", "paused")].map(|(n, s)| (n.to_owned(), s.to_owned()));
    assert_eq!(held, expected.iter().collect::<Vec<_>>(), "{children:?}");
    assert_eq!((children.len(), &counter["more"]), (4, &json!(0)));
    let first = node.get("/api/v1/tree/counter?limit=2").json;
    assert_eq!(first["next_cursor"], "b");
    assert_eq!(first["items"][1]["current"], "stopped by an operator");
    assert_eq!(shown(&node.get("/api/v1/tree/counter?limit=2&cursor=b").json["items"]), children[2..]);
    assert_eq!(
        node.get("/api/v1/tree?children=1").json["children"]
            .as_array()
            .unwrap()
            .iter()
            .find(|child| child["name"] == "counter")
            .unwrap()["more"],
        3
    );
}

#[test]
fn who_asks_an_agent_that_is_paused_is_told_so_in_time() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":1}"#);
    assert_eq!(node.post("/api/v1/agents/counter/a/pause", "").status, 202);
    let ask = "/api/v1/agents/counter/a/messages/Get";
    let late = node.post(&format!("{ask}?timeout=200ms"), "");
    late.is_problem(504, "timed_out");
    let told = late.json["detail"].as_str().unwrap();
    assert!(told.contains("paused") && told.contains("greenroom agents resume counter/a"), "{told}");
    // Who gives no time waits a few seconds, not the half minute of an agent that runs.
    let begun = Instant::now();
    node.post(ask, "").is_problem(504, "timed_out");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // A short pause goes unnoticed. (Those who have gone are still counted among what waits.)
    let depth = || node.get("/api/v1/agents/counter/a").json["mailbox"]["depth"].as_u64().unwrap();
    let before = depth();
    thread::scope(|scope| {
        let asked = scope.spawn(|| node.post(ask, ""));
        while depth() == before {
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
        assert_eq!(node.post("/api/v1/agents/counter/a/resume", "").status, 202);
        let answer = asked.join().unwrap();
        assert_eq!((answer.status, &answer.json), (200, &json!({"total": 1})), "{answer:?}");
    });
}

#[test]
fn the_last_crashes_are_leafed_through() {
    let node = Node::start(&[]);
    for key in ["a", "b", "c"] {
        node.ask(key, "Crash", "{}").is_problem(500, "handler_crashed");
    }
    let all = node.get("/api/v1/crashes").json;
    assert_eq!((all["items"].as_array().unwrap().len(), &all["next_cursor"]), (3, &Value::Null));
    let first = node.get("/api/v1/crashes?limit=2").json;
    assert_eq!(first["items"].as_array().unwrap()[..], all["items"].as_array().unwrap()[..2]);
    let rest =
        node.get(&format!("/api/v1/crashes?limit=2&cursor={}", first["next_cursor"].as_str().unwrap())).json;
    assert_eq!((&rest["items"][0], &rest["next_cursor"]), (&all["items"][2], &Value::Null));
    node.get("/api/v1/crashes?cursor=never").is_problem(400, "malformed");
    // of a period, as well
    let at = all["items"][1]["at"].as_str().unwrap();
    let of = |query: &str| node.get(&format!("/api/v1/crashes?{query}")).json;
    let (since, until) = (of(&format!("since={at}")), of(&format!("until={at}")));
    let both: Vec<Value> =
        [&since, &until].into_iter().flat_map(|part| part["items"].as_array().unwrap().clone()).collect();
    assert_eq!(json!(both), all["items"], "each of them is in one of the two");
    let paged = of(&format!("since={at}&limit=1"));
    assert_eq!((&paged["items"][0], paged["next_cursor"].is_string()), (&all["items"][0], true));
    assert_eq!(of("since=2100-01-01T00:00:00Z")["items"], json!([]));
    node.get("/api/v1/crashes?until=soon").is_problem(400, "malformed");
    for listing in [&["crashes", "ls"][..], &["crashes", "ls", "--groups"]] {
        let found = |period: &[&str]| {
            let said = node.cli(&[listing, period, &["--json"]].concat());
            said.json()["items"].as_array().unwrap().is_empty()
        };
        assert!(!found(&["--since", "1h"]) && found(&["--until", "1h"]), "{listing:?}");
    }
    let said = node.cli(&["crashes", "ls", "-n", "1"]);
    assert!(said.code == 0 && said.out.lines().count() == 2 && said.err.contains("--all"), "{said:?}");
    assert_eq!(node.cli(&["crashes", "ls", "--all", "--json"]).json()["items"].as_array().unwrap().len(), 3);
}

/// A page of them may otherwise be gigabytes.
#[test]
fn a_list_of_tasks_leaves_out_what_one_task_shows() {
    let node = Node::start(&[]);
    let body = json!({"target": "counter/a", "message": "Add", "input": {"n": 1}});
    let id = node.post("/api/v1/tasks", &body.to_string()).json["id"].as_str().unwrap().to_owned();
    let whole = node.get(&format!("/api/v1/tasks/{id}?wait=30s")).json;
    assert_eq!((&whole["state"], &whole["result"]), (&json!("succeeded"), &json!({"total": 1})));
    let listed = &node.get("/api/v1/tasks").json["items"][0];
    let mut expected = whole.clone();
    expected.as_object_mut().unwrap().remove("result");
    assert_eq!(*listed, expected, "and nothing else");
}
