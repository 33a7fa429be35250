//! The supervision tree over HTTP: a few children at first, the others a page at a time.

use serde_json::{Value, json};

use crate::support::Node;

fn names(nodes: &Value) -> Vec<&str> {
    nodes.as_array().unwrap().iter().filter_map(|node| node["name"].as_str()).collect()
}

#[test]
fn a_large_kind_is_leafed_through() {
    let node = Node::start(&[]);
    let keys: Vec<String> = (0..25).map(|n| format!("counter/{n:02}")).collect();
    for key in &keys {
        node.ask(key.trim_start_matches("counter/"), "Get", "");
    }
    let tree = node.get("/api/v1/tree?children=10").json;
    let kind = tree["children"].as_array().unwrap().iter().find(|child| child["name"] == "counter").unwrap();
    assert_eq!(
        (names(&kind["children"]), &kind["more"]),
        (keys[..10].iter().map(String::as_str).collect(), &json!(15))
    );
    let (mut read, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = node.get(&format!("/api/v1/tree/counter?limit=10{cursor}"));
        assert_eq!(page.status, 200, "{page:?}");
        read.extend(names(&page.json["items"]).into_iter().map(str::to_owned));
        match page.json["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(read, keys);
    node.get("/api/v1/tree/nope").is_problem(404, "unknown_kind");
    node.get("/api/v1/tree/counter?limit=0").is_problem(400, "malformed");
    node.get("/api/v1/tree/counter?cursor=a%2Fb").is_problem(400, "malformed");
    for children in ["x", "-1", "1001"] {
        node.get(&format!("/api/v1/tree?children={children}")).is_problem(400, "malformed");
    }
}

#[test]
fn what_an_agent_waits_for_is_told_and_for_how_long() {
    let node = Node::start(&[]);
    let slow = r#"{"target":"counter/slow","message":"Sleep","input":{"ms":600000},"timeout":"20m"}"#;
    assert_eq!(node.post("/api/v1/tasks", slow).status, 202);
    let mut looks = (0..2_000).map(|_| node.get("/api/v1/tree/counter").json["items"][0].clone());
    let agent = looks.find(|agent| agent["message"] == "Sleep").expect("it sleeps");
    assert_eq!(agent["name"], "counter/slow");
    assert!(agent["since_ms"].is_u64(), "{agent}");
}
