//! Schedules, by HTTP.

use serde_json::json;

use crate::support::Node;

const EACH_YEAR: &str = r#"{"name":"new year","cron":"0 0 1 1 * Europe/Berlin","target":"counter/a","message":"Add",
    "input":{"n":2},"overlap":"queue_one","misfire":"all","priority":3,"max_attempts":2,"timeout":"90s","tags":["t"]}"#;

#[test]
fn a_schedule_is_added_shown_held_up_run_and_removed() {
    let node = Node::start(&[]);
    assert_eq!(node.get("/api/v1/schedules").json, json!({"items": [], "next_cursor": null}));
    let added = node.post("/api/v1/schedules", EACH_YEAR);
    assert_eq!(
        (added.status, added.header("location")),
        (201, Some("/api/v1/schedules/new%20year")),
        "{added:?}"
    );
    let place = "/api/v1/schedules/new%20year";
    let mut shown = node.get(place).json;
    assert_eq!(shown, added.json);
    assert_eq!(node.get("/api/v1/schedules").json["items"], json!([shown.clone()]));
    let upcoming = shown["upcoming"].take();
    let upcoming = upcoming.as_array().unwrap();
    assert!(upcoming.len() == 5 && upcoming[0] == shown["next_at"], "{upcoming:?}");
    assert!(upcoming.iter().all(|at| at.as_str().unwrap().ends_with("-12-31T23:00:00Z")), "{upcoming:?}");
    for (member, is) in [
        ("cron", json!("0 0 1 1 * Europe/Berlin")),
        ("target", json!("counter/a")),
        ("message", json!("Add")),
        ("input", json!({"n": 2})),
        ("overlap", json!("queue_one")),
        ("misfire", json!("all")),
        ("priority", json!(3)),
        ("max_attempts", json!(2)),
        ("timeout_ms", json!(90_000)),
        ("tags", json!(["t"])),
        ("origin", json!("operator")),
        ("paused", json!(false)),
    ] {
        assert_eq!(shown[member], is, "{member}");
    }

    let paused = node.post(&format!("{place}/pause"), "");
    assert_eq!(
        (paused.status, &paused.json["paused"], &paused.json["upcoming"]),
        (202, &json!(true), &json!([]))
    );
    let run = node.send("POST", &format!("{place}/run"), &[("Idempotency-Key", "k")], None);
    assert_eq!(
        (run.status, &run.json["target"], &run.json["priority"]),
        (202, &json!("counter/a"), &json!(3))
    );
    let task = run.header("location").unwrap().to_owned();
    assert_eq!(node.get(&format!("{task}?wait=30s")).json["result"], json!({"total": 2}));
    let again = node.send("POST", &format!("{place}/run"), &[("Idempotency-Key", "k")], None);
    assert_eq!(
        (again.header("location"), again.header("idempotency-replayed")),
        (Some(&*task), Some("true"))
    );
    let resumed = node.post(&format!("{place}/resume"), "");
    assert_eq!((resumed.status, &resumed.json["next_at"]), (202, &shown["next_at"]));
    assert_eq!(node.send("DELETE", place, &[], None).status, 204);
    for (method, path) in [
        ("GET", place),
        ("DELETE", place),
        ("POST", &*format!("{place}/run")),
        ("POST", &*format!("{place}/pause")),
    ] {
        node.send(method, path, &[], None).is_problem(404, "not_found");
    }
}

#[test]
fn a_schedule_that_cannot_be_is_refused_with_its_places() {
    let node = Node::start(&[]);
    let wrong = node.post(
        "/api/v1/schedules",
        r#"{"name":"a/b","cron":"0 0 30 2 *","target":"counter/a","message":"Add","input":{"n":"x"}}"#,
    );
    wrong.is_problem(422, "invalid");
    let errors = wrong.json["errors"].as_array().unwrap();
    let places: Vec<_> = errors.iter().filter_map(|e| e["pointer"].as_str()).collect();
    assert_eq!(places, ["/name", "/cron", "/input/n"], "{wrong:?}");
    let of = |members: &str| {
        let body = format!(r#"{{"name":"a","target":"counter/a","message":"Get",{members}}}"#);
        node.post("/api/v1/schedules", &body)
    };
    for (members, pointer) in [
        (r#""cron":"@daily Mars/Base""#, "/cron"),
        (r#""cron":"@daily","timeout":"soon""#, "/timeout"),
        (r#""cron":"@daily","max_attempts":0"#, "/max_attempts"),
        (r#""cron":"@daily","overlap":"never""#, "/overlap"),
        (r#""cron":"@daily","every":1"#, ""),
    ] {
        let refused = of(members);
        refused.is_problem(422, "invalid");
        assert!(pointer.is_empty() || refused.json["errors"][0]["pointer"] == pointer, "{refused:?}");
    }
    node.post("/api/v1/schedules", r#"{"name":"a","cron":"@daily","target":"nope/a","message":"Get"}"#)
        .is_problem(404, "unknown_kind");
    node.post("/api/v1/schedules", r#"{"name":"a","cron":"@daily","target":"counter/a","message":"Nope"}"#)
        .is_problem(404, "unknown_message");
    assert_eq!(of(r#""cron":"every 1d""#).status, 201);
    of(r#""cron":"every 1d""#).is_problem(409, "wrong_state");
    node.send("PUT", "/api/v1/schedules/a", &[], None).is_problem(405, "method_not_allowed");
}

#[test]
fn a_schedule_outlives_a_node_that_is_killed() {
    let mut node = Node::start(&[]);
    let body = r#"{"name":"often","cron":"* * * * * *","target":"counter/a","message":"Add","input":{"n":1},"overlap":"allow","misfire":"all"}"#;
    assert_eq!(node.post("/api/v1/schedules", body).status, 201);
    let fired = |node: &Node| {
        let tasks = node.get("/api/v1/tasks?limit=1000").json["items"].as_array().unwrap().clone();
        let mut keys: Vec<_> =
            tasks.iter().filter_map(|t| Some(t["idempotency_key"].as_str()?.to_owned())).collect();
        keys.sort();
        keys
    };
    let began = std::time::Instant::now();
    for more in 1..=3 {
        let before = fired(&node).len();
        while fired(&node).len() < before + more {
            assert!(began.elapsed().as_secs() < 60, "{:?}", fired(&node));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        node.kill();
        node.start_again();
    }
    let keys = fired(&node);
    let second = |key: &String| {
        let at: jiff::Timestamp = key.strip_prefix("schedule:often:").unwrap().parse().unwrap();
        at.as_second()
    };
    let gaps: Vec<_> = keys.windows(2).map(|w| second(&w[1]) - second(&w[0])).collect();
    assert!(gaps.iter().all(|gap| *gap == 1), "{keys:?}");
}
