//! The audit log: what operators do is written down, or not done.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::support::Node;

fn acts(node: &Node, query: &str) -> Vec<Value> {
    let page = node.get(&format!("/api/v1/audit{query}"));
    assert_eq!(page.status, 200, "{page:?}");
    page.json["items"].as_array().unwrap().clone()
}

/// Of one act what stays the same from run to run.
fn told(act: &Value) -> Value {
    json!([act["who"], act["by"], act["action"], act["subject"], act["outcome"], act["before"], act["after"]])
}

#[test]
fn what_operators_do_is_written_down_with_who_and_what_came_of_it() {
    let mut node = Node::start(&["log.format=json"]);
    node.ask("a", "Add", r#"{"n":1}"#);
    node.post("/api/v1/tasks", r#"{"target":"counter/a","message":"Get"}"#);
    assert!(acts(&node, "").is_empty(), "messages and tasks are no acts");

    let made = node.post("/api/v1/tokens", r#"{"name":"anna","scope":"operate"}"#);
    let bearer = format!("Bearer {}", made.json["token"].as_str().unwrap());
    let anna = [("Authorization", bearer.as_str())];
    let stop = "/api/v1/agents/counter/a/stop?clear=false";
    assert_eq!(node.send_bare("POST", stop, &anna, Some("")).status, 202);
    node.post("/api/v1/agents/counter/a/release", r#"{"version":99}"#).is_problem(409, "wrong_state");
    node.send_bare("POST", "/api/v1/nodes/self/stop", &anna, Some("")).is_problem(403, "forbidden");
    let task = node.post("/api/v1/tasks", r#"{"target":"tool:probe.wait","input":{"signal":"go"}}"#);
    let id = task.json["id"].as_str().unwrap();
    node.post(&format!("/api/v1/tasks/{id}/signals/go"), r#"{"pin":"canary-1234"}"#);
    let schedule = r#"{"name":"n","cron":"@daily","target":"counter/a","message":"Get","paused":true}"#;
    assert_eq!(node.post("/api/v1/schedules", schedule).status, 201);
    assert_eq!(node.send("DELETE", "/api/v1/schedules/n", &[], None).status, 204);

    let all = acts(&node, "");
    let found: Vec<Value> = all.iter().map(told).collect();
    let was = json!({"cron": "@daily", "target": "counter/a", "message": "Get"});
    assert_eq!(found[0], json!(["node", "127.0.0.1", "schedule.remove", "schedule:n", "ok", was, null]));
    assert_eq!(found[1][2], "schedule.add");
    assert_eq!((&found[2][2], &found[2][6]), (&json!("task.signal"), &json!({"pin": "…"})));
    let asked = json!({"version": 99});
    let refused = json!([
        "node", "127.0.0.1", "agent.release", "counter/a", "wrong_state", {"status": "stopped"}, asked
    ]);
    assert_eq!(found[3], refused);
    let asked = json!({"clear": "false"});
    let stopped = json!(["anna", "127.0.0.1", "agent.stop", "counter/a", "ok", all[4]["before"], asked]);
    assert_eq!(found[4], stopped);
    assert!(all[4]["before"]["status"].is_string(), "{all:?}");
    let asked = json!({"name": "anna", "scope": "operate"});
    assert_eq!(found[5], json!(["node", "127.0.0.1", "token.add", "token:anna", "ok", null, asked]));
    assert_eq!(found.len(), 6, "who may not, has done nothing");
    assert!(!format!("{all:?}").contains("canary-1234"));

    assert_eq!(acts(&node, "?who=anna").len(), 1);
    assert_eq!(acts(&node, "?subject=counter/a&action=agent.release").len(), 1);
    let first = node.get("/api/v1/audit?limit=4").json;
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(acts(&node, &format!("?limit=4&cursor={cursor}")), all[4..]);
    node.get("/api/v1/audit?cursor=x").is_problem(400, "malformed");

    let listed = node.cli(&["audit", "--who", "anna"]);
    assert!(
        listed.code == 0 && listed.out.contains("agent.stop") && listed.out.contains("127.0.0.1"),
        "{listed:?}"
    );
    assert!(node.terminate().success());
    assert_eq!(node.told(&["operator.acted"]).len(), 6, "{}", node.log());
    node.start_again();
    assert_eq!(acts(&node, ""), all, "it outlives the node");
}

#[test]
fn many_acts_are_all_logged() {
    let mut node = Node::start(&["log.format=json"]);
    for _ in 0..40 {
        node.post("/api/v1/kinds/counter/pause", "");
    }
    assert!(node.terminate().success());
    assert_eq!(node.told(&["operator.acted"]).len(), 40, "none is only counted");
}

#[test]
fn an_act_goes_on_when_its_client_goes() {
    let node = Node::start(&[]);
    for n in 0..20 {
        let mut stream = std::net::TcpStream::connect(node.url.trim_start_matches("http://")).unwrap();
        let (action, token) = (if n % 2 == 0 { "pause" } else { "resume" }, &node.token);
        let head = format!(
            "POST /api/v1/kinds/counter/{action} HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        drop(stream);
    }
    let began = std::time::Instant::now();
    loop {
        let acts = acts(&node, "");
        if acts.len() == 20 && acts.iter().all(|act| act["outcome"] == "ok") {
            break;
        }
        assert!(began.elapsed().as_secs() < 20, "{acts:?}");
    }
}

#[test]
fn old_acts_are_forgotten() {
    let mut node = Node::start(&["audit.retention=1ms"]);
    node.post("/api/v1/kinds/counter/pause", "");
    assert_eq!(acts(&node, "").len(), 1);
    node.kill();
    node.start_again(); // it cleans when it starts
    let began = std::time::Instant::now();
    while !acts(&node, "").is_empty() {
        assert!(began.elapsed().as_secs() < 20, "it is to be forgotten");
    }
}
