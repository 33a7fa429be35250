//! `db verify` reads every state as the program's kinds would.

use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection, sql_types};
use greenroom::model::{
    id::AgentId,
    snapshot::{self, Codec, Header},
};
use serde_json::json;

use crate::support::{Node, Said};

fn verify(node: &Node, more: &[&str]) -> Said {
    let data = node.data_dir().to_string_lossy().into_owned();
    node.cli_unaided(&[&["db", "verify", "--data-dir", &data][..], more].concat())
}

#[derive(diesel::QueryableByName)]
struct Row {
    #[diesel(sql_type = sql_types::BigInt)]
    epoch: i64,
    #[diesel(sql_type = sql_types::BigInt)]
    version: i64,
}

/// Puts another state in the place of an agent's, as a program would have written it.
fn replace(node: &Node, key: &str, schema_version: u32, body: &str) {
    let file = node.data_dir().join("greenroom.db");
    let mut store = SqliteConnection::establish(&file.to_string_lossy()).unwrap();
    let found = diesel::sql_query("SELECT epoch, version FROM greenroom_agents WHERE key = ?");
    let row: Row = found.bind::<sql_types::Text, _>(key).get_result(&mut store).unwrap();
    let agent = AgentId::of("counter", key);
    let header = Header { codec: Codec::Json, agent, version: row.version, epoch: row.epoch, schema_version };
    let mut frame = Vec::new();
    snapshot::begin(&header, &mut frame);
    frame.extend_from_slice(body.as_bytes());
    snapshot::seal(&mut frame).unwrap();
    let put = diesel::sql_query("UPDATE greenroom_agents SET state = ?, schema_version = ? WHERE key = ?");
    let put = put.bind::<sql_types::Binary, _>(frame);
    let put = put.bind::<sql_types::BigInt, _>(i64::from(schema_version)).bind::<sql_types::Text, _>(key);
    assert_eq!(put.execute(&mut store).unwrap(), 1);
}

#[test]
fn states_that_the_program_cannot_read_are_counted_and_named() {
    let mut node = Node::start(&[]);
    for key in ["a", "b", "c"] {
        node.ask(key, "Add", r#"{"n":2}"#);
        node.ask(key, "Add", r#"{"n":2}"#);
    }
    node.terminate();
    let probe = ["--set", "node.probe=true"];
    let said = verify(&node, &[&probe[..], &["--json"]].concat());
    assert_eq!(said.code, 0, "{said:?}");
    let kind = &said.json()["kinds"][0];
    assert_eq!((&kind["kind"], &kind["version"]), (&json!("counter"), &json!(1)));
    assert_eq!(kind["current"], json!({"as_they_are": 3, "migrated": 0, "unreadable": 0}));
    assert_eq!(kind["kept"]["as_they_are"], 3, "{said:?}");

    replace(&node, "b", 1, r#"{"total":"four"}"#);
    replace(&node, "c", 9, r#"{"total":4}"#);
    let said = verify(&node, &probe);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("2 problems") && said.err.contains("counter/b"), "{said:?}");
    assert!(said.err.contains("schema version 9") && said.err.contains("upgrade the program"), "{said:?}");
    assert!(said.err.contains("invalid type") && !said.err.contains("four"), "no values are told: {said:?}");
    let table = said.out.lines().find(|line| line.starts_with("counter")).unwrap();
    let counts: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(counts, ["counter", "1", "1", "0", "2", "0"], "{said:?}");

    // A program without the kind says that it has not tried them.
    let said = verify(&node, &["--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.json()["kinds"][0]["version"].is_null(), "{said:?}");
}

#[test]
fn a_quarantine_ends_with_a_kept_state() {
    let node = Node::start(&[]);
    for n in 1..=3 {
        assert_eq!(node.ask("a", "Add", r#"{"n":1}"#).json, json!({"total": n}));
    }
    let release = |more: &[&str]| node.cli(&[&["agents", "release", "counter/a"][..], more].concat()).code;
    assert_eq!(release(&["--version", "1"]), 4, "it is not quarantined");
    assert_eq!(node.cli(&["agents", "quarantine", "counter/a"]).code, 0);
    assert_eq!(release(&["--version", "9"]), 3);
    assert_eq!(release(&["--version", "one"]), 2);
    assert_eq!(release(&["--version", "1"]), 0);
    assert_eq!(node.cli(&["agents", "send", "counter/a", "Get"]).json(), json!({"total": 1}));
    let state = node.cli(&["agents", "state", "counter/a", "--json"]).json();
    assert_eq!(state["version"], 4, "{state}");
    node.post("/api/v1/agents/counter/a/stop", r#"{"version":1}"#).is_problem(400, "malformed");
    node.post("/api/v1/agents/counter/a/release", r#"{"vers":1}"#).is_problem(422, "invalid");
}

#[test]
fn an_agent_is_stopped_and_restarted_with_its_mailbox_cleared() {
    let node = Node::start(&[]);
    let add = || {
        let (url, token) = (node.url.clone(), node.token.clone());
        std::thread::spawn(move || {
            let path = format!("{url}/api/v1/agents/counter/a/messages/Add");
            let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
            let request = ureq::http::Request::post(path).header("Authorization", format!("Bearer {token}"));
            let mut answer = config.new_agent().run(request.body(r#"{"n":1}"#).unwrap()).unwrap();
            (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
        })
    };
    for (action, back) in [("restart", None), ("stop", Some("restart"))] {
        assert_eq!(node.cli(&["agents", "pause", "counter/a"]).code, 0);
        let asked = add();
        let began = std::time::Instant::now();
        while node.get("/api/v1/agents/counter/a").json["mailbox"]["depth"] != 1 {
            assert!(began.elapsed().as_secs() < 30, "it never waits");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let said = node.cli(&["agents", action, "counter/a", "--clear"]);
        assert!(said.code == 0 && said.err.contains("about 1 messages that waited are refused"), "{said:?}");
        let (status, said) = asked.join().unwrap();
        assert!(status == 409 && said.contains("cleared"), "{status} {said}");
        if let Some(back) = back {
            assert_eq!(node.cli(&["agents", back, "counter/a"]).code, 0);
        }
    }
    assert_eq!(node.cli(&["agents", "send", "counter/a", "Get"]).json(), json!({"total": 0}));
    node.post("/api/v1/agents/counter/a/resume?clear=true", "").is_problem(400, "malformed");
}
