//! The audit log: what operators do is written down, or not done.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::support::{Node, until};

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
    let was = &all[0]["before"];
    assert_eq!(found[0], json!(["node", "127.0.0.1", "schedule.remove", "schedule:n", "ok", was, null]));
    let parts = [&was["cron"], &was["target"], &was["message"], &was["paused"]];
    assert_eq!(parts, [&json!("@daily"), &json!("counter/a"), &json!("Get"), &json!(true)]);
    assert_eq!(found[1][2], "schedule.add");
    assert_eq!((&found[2][2], &found[2][6]), (&json!("task.signal"), &json!({"pin": "…"})));
    let asked = json!({"version": 99});
    let refused = json!([
        "node", "127.0.0.1", "agent.release", "counter/a", "wrong_state", {"status": "stopped"}, asked
    ]);
    assert_eq!(found[3], refused);
    let version = &all[4]["after"]["now"]["version"];
    let asked = json!({"clear": "false", "now": {"status": "stopped", "version": version}});
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

/// What was there before, of the latest act.
fn before(node: &Node, action: &str) -> Value {
    acts(node, &format!("?action={action}&limit=1"))[0]["before"].clone()
}

#[test]
fn what_was_there_before_is_written_down() {
    let node = Node::start(&[]);
    node.send("PATCH", "/api/v1/config", &[], Some(r#"{"tasks":{"slots":3},"app":{"x":{"y":1}}}"#));
    assert_eq!(before(&node, "config.change"), json!({"tasks.slots": 64, "app.x.y": null}));
    node.post("/api/v1/tokens", r#"{"name":"anna","scope":"operate"}"#);
    node.send("DELETE", "/api/v1/tokens/anna", &[], None);
    assert_eq!(before(&node, "token.remove"), json!({"scope": "operate", "expires_at": null}));
    for kind in ["counter", "tool:fs.read"] {
        node.post(&format!("/api/v1/kinds/{kind}/pause"), "");
        assert_eq!(before(&node, "kind.pause"), json!({"paused": false}));
    }
    node.post("/api/v1/kinds/counter/resume", "");
    assert_eq!(before(&node, "kind.resume"), json!({"paused": true}));
    node.post("/api/v1/nodes/self/drain", "");
    assert_eq!(before(&node, "node.drain")["status"], "active");
    node.post("/api/v1/nodes/self/resume", "");
    assert_eq!(before(&node, "node.resume")["status"], "draining");
    node.post("/api/v1/schedules", r#"{"name":"n","cron":"@daily","target":"counter/a","message":"Get"}"#);
    node.post("/api/v1/schedules/n/pause", "");
    assert_eq!(before(&node, "schedule.pause"), json!({"paused": false}));
    let run = node.post("/api/v1/schedules/n/run", "").json;
    let after = acts(&node, "?action=schedule.run&limit=1")[0]["after"].clone();
    assert_eq!(after, json!({"now": {"task": run["id"]}}));
    let task = node.post("/api/v1/tasks", r#"{"target":"tool:probe.wait","input":{"signal":"go"}}"#);
    let id = task.json["id"].as_str().unwrap();
    node.post(&format!("/api/v1/tasks/{id}/signals/later"), "1");
    assert!(before(&node, "task.signal")["state"].is_string());
    node.post("/api/v1/tasks/retry", r#"{"filter":{},"dry_run":true}"#);
    assert_eq!(acts(&node, "?action=tasks.retry")[0]["outcome"], "dry_run", "nothing was done");
    node.post("/api/v1/tasks/retry", r#"{"filter":{}}"#);
    assert_eq!(acts(&node, "?action=tasks.retry")[0]["outcome"], "ok");
    node.post("/api/v1/tasks/dismiss", r#"{"filter":{},"dry_run":true}"#);
    assert_eq!(acts(&node, "?action=tasks.dismiss")[0]["outcome"], "dry_run");
    node.send("PATCH", "/api/v1/config?dry_run=true", &[], Some(r#"{"tasks.slots":3}"#));
    assert_eq!(acts(&node, "?action=config.change")[0]["outcome"], "dry_run");
    assert_eq!(before(&node, "tasks.retry"), json!({"state": "failed", "tasks": 0}));
}

#[test]
fn the_acts_of_a_period_are_found_page_by_page() {
    let node = Node::start(&[]);
    for _ in 0..2 {
        for action in ["pause", "resume"] {
            assert_eq!(node.post(&format!("/api/v1/kinds/counter/{action}"), "").status, 202);
        }
    }
    let all = acts(&node, "");
    let at = |n: usize| all[n]["at"].as_str().unwrap().to_owned();
    // an act may have begun in the same millisecond as the next
    let from = |moment: &str| all.iter().filter(|act| act["at"].as_str() >= Some(moment)).count();
    for n in 0..4 {
        let since = acts(&node, &format!("?since={}", at(n)));
        assert_eq!(since, all[..from(&at(n))], "since the act {n}");
        let until = acts(&node, &format!("?until={}", at(n)));
        assert_eq!(until, all[from(&at(n))..], "until the act {n}");
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = node.get(&format!("/api/v1/audit?since={}&limit=1&cursor={cursor}", at(2))).json;
        seen.extend(page["items"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen, all[..from(&at(2))]);
    node.get("/api/v1/audit?since=10m").is_problem(400, "malformed");
    let shown = |args: &[&str]| {
        let said = node.cli(&[&["audit", "--json"][..], args].concat());
        assert_eq!(said.code, 0, "{said:?}");
        said.json()["items"].as_array().unwrap().len()
    };
    assert_eq!(shown(&["--since", "1h"]), 4);
    assert_eq!(shown(&["--until", "1h"]), 0);
    assert_eq!(shown(&["--since", &at(0), "--action", "kind.resume"]), 1);
    assert_eq!(node.cli(&["audit", "--since", "yesterday"]).code, 2);
}

#[test]
fn logins_and_what_a_signal_changes_are_written_down() {
    let node = Node::start(&[]);
    let link = node.post("/api/v1/login-links", "").json["url"].as_str().unwrap().to_owned();
    let path = link.strip_prefix(&node.url).unwrap();
    let cookie = node.send_bare("GET", path, &[], None).header("set-cookie").unwrap().to_owned();
    let cookie = [("Cookie", cookie.split(';').next().unwrap())];
    let csrf = node.send_bare("GET", "/api/v1/me", &cookie, None).json["csrf"].as_str().unwrap().to_owned();
    node.send_bare("POST", "/login", &[], Some(&json!({"token": node.token}).to_string()));
    node.send_bare("POST", "/logout", &[cookie[0], ("X-CSRF-Token", &csrf)], None);
    std::fs::write(node.dir().join("greenroom.toml"), "[tasks]\nslots = 5\n").unwrap();
    let pid = node.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    // none of them waits for the store
    until("all are", || acts(&node, "").len() == 5);
    let find = |action: &str| {
        let mut all: Vec<Value> = acts(&node, &format!("?action={action}")).iter().map(told).collect();
        all.sort_by_key(ToString::to_string);
        all
    };
    let by =
        |action: &str, after: Value| json!(["node", "127.0.0.1", action, "dashboard", "ok", null, after]);
    assert_eq!(find("login.link"), [by("login.link", Value::Null)]);
    let logins = ["link", "token"].map(|with| by("login", json!({"with": with})));
    assert_eq!(find("login"), logins);
    assert_eq!(find("logout"), [by("logout", Value::Null)]);
    let (before, after) = (json!({"tasks.slots": 64}), json!({"tasks.slots": 5}));
    let reload = json!(["(SIGHUP)", null, "config.reload", "config", "ok", before, after]);
    assert_eq!(find("config.reload"), [reload]);
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
