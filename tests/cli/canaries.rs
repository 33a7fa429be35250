//! Secrets, put wherever one can be: nothing that people read holds them.

use std::fs;

use crate::{postgres::Database, support::Node};

const TOKEN: &str = "canary-token-61f0";
const STORE: &str = "canary-store-77b2";
const CACHE: &str = "canary/cache-0d3e";
const CACHE_IN_URL: &str = "canary%2Fcache-0d3e";
const APP: &str = "canary-\"app\"-c41a";

#[test]
fn nothing_that_people_read_holds_a_secret() {
    let database = Database::new();
    let store = database.url().replacen("://", &format!("://canary:{STORE}@"), 1);
    let store = match store.matches('@').count() {
        1 => store,
        // it names a user already
        _ => database.url().replacen('@', &format!(":{STORE}@"), 1),
    };
    let dir = tempfile::tempdir().unwrap();
    let log_file = dir.path().join("node.log");
    let mut node = Node::start(&[
        &format!("http.token={TOKEN}"),
        &format!("store.url={store}"),
        &format!("cache.url=redis://:{CACHE_IN_URL}@127.0.0.1:1/0"),
        &format!("app.pay.api_key={APP}"),
        &format!("log.file.path={}", log_file.display()),
        "log.level=debug",
    ]);
    let made = node.post("/api/v1/tokens", r#"{"name":"ci","scope":"admin"}"#);
    let further = made.json["token"].as_str().unwrap().to_owned();
    let link = node.cli(&["login"]).out;
    let code = link.trim().rsplit('=').next().unwrap().to_owned();
    let opened = node.send_bare("GET", &format!("/login?code={code}"), &[], None);
    let cookie = opened.header("set-cookie").unwrap().split(['=', ';']).nth(1).unwrap().to_owned();
    let canaries = [TOKEN, STORE, CACHE, CACHE_IN_URL, APP, &further, &code, &cookie];

    let mut seen = Vec::new();
    let all =
        serde_json::json!({ "message": format!("{TOKEN} {STORE} {CACHE} {CACHE_IN_URL} {APP}") }).to_string();
    for message in ["Crash", "Fail"] {
        let answer = node.ask("a", message, &all);
        assert!(answer.text.contains("***"), "{answer:?}");
        seen.push(answer.text);
        let task =
            format!(r#"{{"target":"counter/a","message":"{message}","input":{all},"max_attempts":1}}"#);
        let id = node.post("/api/v1/tasks", &task).json["id"].as_str().unwrap().to_owned();
        node.get(&format!("/api/v1/tasks/{id}?wait=30s"));
        for path in [format!("tasks/{id}"), format!("tasks/{id}/history"), format!("tasks/{id}/logs")] {
            seen.push(node.get(&format!("/api/v1/{path}")).text);
        }
    }
    seen.push(
        node.send_bare("GET", "/api/v1/me", &[("Authorization", &format!("Bearer x{further}"))], None).text,
    );
    seen.push(node.post(&format!("/api/v1/agents/{TOKEN}/a/stop"), "").text);
    for path in [
        "status",
        "tree",
        "config",
        "logs?tail=2000",
        "crashes",
        "crashes/groups",
        "audit",
        "tokens",
        "nodes",
        "tasks",
        "agents",
        "kinds",
        "tools",
    ] {
        let answer = node.get(&format!("/api/v1/{path}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        seen.push(answer.text);
    }
    let crash = node.get("/api/v1/crashes").json["items"][0]["id"].as_str().unwrap().to_owned();
    seen.push(node.get(&format!("/api/v1/crashes/{crash}")).text);
    seen.push(node.get("/metrics").text);
    for args in [&["status"][..], &["crashes", "ls"], &["audit"], &["tokens", "ls"], &["logs", "-n", "1000"]]
    {
        let said = node.cli(args);
        seen.extend([said.out, said.err]);
    }
    assert!(node.terminate().success());
    seen.push(node.log());
    seen.push(fs::read_to_string(&log_file).unwrap());
    assert!(seen.last().unwrap().contains("agent.crashed"), "it was logged");
    for text in &seen {
        for canary in canaries {
            let at = text.find(canary);
            assert!(at.is_none(), "{canary} stands in: {}", &text[at.unwrap().saturating_sub(300)..]);
        }
    }
}
