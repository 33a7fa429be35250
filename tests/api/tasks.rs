//! Tasks over HTTP: refused while too much waits, and brought back by the many.

use serde_json::{Value, json};

use crate::support::{Answer, Node};

fn failing(node: &Node, key: &str, tag: &str) -> String {
    let task = json!({
        "target": format!("counter/{key}"), "message": "Fail", "input": {"message": "no"},
        "max_attempts": 1, "tags": [tag],
    });
    let accepted = node.post("/api/v1/tasks", &task.to_string());
    let id = accepted.json["id"].as_str().unwrap().to_owned();
    let ended = node.get(&format!("/api/v1/tasks/{id}?wait=30s"));
    assert_eq!((&ended.json["state"], &ended.json["tags"]), (&json!("failed"), &json!([tag])), "{ended:?}");
    id
}

fn retry(node: &Node, filter: Value, dry_run: bool) -> Value {
    let answer = node.post("/api/v1/tasks/retry", &json!({"filter": filter, "dry_run": dry_run}).to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json
}

#[test]
fn a_key_stands_for_all_that_was_chosen_with_it() {
    let node = Node::start(&[]);
    let submit = |more: &str| {
        let task = format!(r#"{{"target":"counter/a","message":"Add","input":{{"n":1}}{more}}}"#);
        node.send("POST", "/api/v1/tasks", &[("Idempotency-Key", "k")], Some(&task))
    };
    let chosen = r#","run_in":"1h","priority":3,"tags":["x"]"#;
    let first = submit(chosen);
    let again = submit(chosen);
    assert_eq!((first.status, again.header("idempotency-replayed")), (202, Some("true")), "{again:?}");
    assert_eq!(first.json["id"], again.json["id"]);
    for other in ["", r#","run_in":"2h","priority":3,"tags":["x"]"#, r#","run_in":"1h","priority":3"#] {
        submit(other).is_problem(409, "idempotency_conflict");
    }
}

#[test]
fn a_task_is_shown_with_what_it_waits_for_and_what_was_chosen() {
    let node = Node::start(&[]);
    let submit = |task: Value| {
        let accepted = node.post("/api/v1/tasks", &task.to_string());
        assert_eq!(accepted.status, 202, "{accepted:?}");
        accepted.json
    };
    let shown = |id: &Value| node.get(&format!("/api/v1/tasks/{}", id.as_str().unwrap())).json;
    let plain = submit(json!({"target": "counter/a", "message": "Get", "run_in": "1h"}));
    let members = plain.as_object().unwrap();
    let unset = ["waits", "prerequisites", "timeout_ms", "expires_at", "on_parent_failed", "notify", "tags"];
    assert!(unset.iter().all(|name| !members.contains_key(*name)), "{plain}");

    let until = "2100-01-01T00:00:00Z";
    let chosen = submit(json!({
        "target": "counter/a", "message": "Get", "after": [plain["id"]], "on_parent_failed": "run",
        "expires_at": until, "timeout": "1m 30s",
    }));
    let seen = shown(&chosen["id"]);
    assert_eq!(
        [&seen["timeout_ms"], &seen["expires_at"], &seen["on_parent_failed"], &seen["waiting_for"]],
        [&json!(90_000), &json!(until), &json!("run"), &json!(1)]
    );
    let parent = json!({"id": plain["id"], "target": "counter/a", "state": "scheduled"});
    assert_eq!(seen["prerequisites"], json!([parent]));

    let input = json!({"signal": "approved", "within": "1h"});
    let waiting = submit(json!({"target": "tool:probe.wait", "input": input}))["id"].clone();
    let waits = (0..600).map(|_| shown(&waiting)).find(|task| task["state"] == "waiting").unwrap();
    assert_eq!(waits["waits"][0]["signal"], "approved", "{waits}");
    let deadline: jiff::Timestamp = waits["waits"][0]["until"].as_str().unwrap().parse().unwrap();
    let left = jiff::Timestamp::now().duration_until(deadline).as_secs();
    assert!((3_000..=3_600).contains(&left), "{waits}");
}

#[test]
fn a_batch_under_a_key_is_submitted_once() {
    let node = Node::start(&[]);
    let send = |key: &str, body: &Value| {
        node.send("POST", "/api/v1/tasks/batch", &[("Idempotency-Key", key)], Some(&body.to_string()))
    };
    let add = |n: i64, name: &str, after: &[&str]| json!({"target": "counter/a", "message": "Add", "input": {"n": n}, "name": name, "after": after});
    let ids = |answer: &Answer| {
        let items = answer.json["items"].as_array().unwrap();
        items.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let three = json!({"tasks": [add(1, "a", &[]), add(10, "b", &["a"]), add(100, "c", &["a"])]});
    let first = send("k", &three);
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, None), "{first:?}");
    for id in ids(&first) {
        assert_eq!(node.get(&format!("/api/v1/tasks/{id}?wait=60s")).json["state"], "succeeded");
    }
    let again = send("k", &three);
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, Some("true")), "{again:?}");
    assert_eq!(ids(&again), ids(&first), "in the order in which they stand");
    assert_eq!(ids(&first).len(), 3);

    // one task is a batch too, and none of a single submission's
    let one = json!({"tasks": [add(1_000, "a", &[])]});
    send("k", &one).is_problem(409, "idempotency_conflict");
    let alone = send("l", &one);
    assert_eq!(ids(&send("l", &one)), ids(&alone));
    send("l", &three).is_problem(409, "idempotency_conflict");
    let single = json!({"target": "counter/a", "message": "Add", "input": {"n": 10_000}}).to_string();
    let single = node.send("POST", "/api/v1/tasks", &[("Idempotency-Key", "l")], Some(&single));
    assert_eq!((single.status, single.header("idempotency-replayed")), (202, None), "{single:?}");
    for id in [&ids(&alone)[0], single.json["id"].as_str().unwrap()] {
        assert_eq!(node.get(&format!("/api/v1/tasks/{id}?wait=60s")).json["state"], "succeeded");
    }
    assert_eq!(node.ask("a", "Get", "").json["total"], 11_111);
    assert_eq!(node.get("/api/v1/tasks").json["items"].as_array().unwrap().len(), 5);

    // all at the same time
    let two = json!({"tasks": [add(0, "a", &[]), add(0, "b", &["a"])]});
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let sent: Vec<_> = (0..8).map(|_| scope.spawn(|| send("n", &two))).collect();
        sent.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    assert!(
        answers.iter().all(|answer| answer.status == 202 && ids(answer) == ids(&answers[0])),
        "{answers:?}"
    );
    let first = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_none());
    assert_eq!(first.count(), 1, "{answers:?}");

    let keyed = json!({"tasks": [{"target": "counter/a", "message": "Get", "idempotency_key": "k"}]});
    send("m", &keyed).is_problem(422, "invalid");
}

#[test]
fn a_signal_under_the_key_of_another_is_refused() {
    let node = Node::start(&[]);
    let task = node.post("/api/v1/tasks", r#"{"target":"tool:probe.wait","input":{"signal":"go"}}"#);
    let path = format!("{}/signals/later", task.header("location").unwrap());
    let signal = |body| node.send("POST", &path, &[("Idempotency-Key", "k")], Some(body));
    assert_eq!((signal("1").status, signal("1").status), (202, 202));
    signal("2").is_problem(409, "idempotency_conflict");
}

#[test]
fn a_call_under_a_key_is_made_once() {
    let node = Node::start(&[]);
    let call = |id: &str, key: &str| {
        let input = format!(r#"{{"to":"a","id":"{id}","percent":0}}"#);
        node.send("POST", "/api/v1/tools/probe.stumble/call", &[("Idempotency-Key", key)], Some(&input))
    };
    let (first, again) = (call("x", "k"), call("x", "k"));
    assert_eq!((first.status, first.header("idempotency-replayed")), (200, None), "{first:?}");
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")), "{again:?}");
    assert_eq!((&first.json, &again.json), (&json!(1), &json!(1)));
    call("y", "k").is_problem(409, "idempotency_conflict");
    assert_eq!(node.ask("a", "List", "").json["ids"], json!(["x"]));
    let hold = |key: &str| {
        node.send("POST", "/api/v1/tools/probe.hold/call", &[("Idempotency-Key", key)], Some(r#"{"ms":1}"#))
    };
    assert_eq!((hold("k").status, hold("k").header("idempotency-replayed")), (200, Some("true")));
}

#[test]
fn a_submission_too_many_is_refused_and_told_when_to_come_again() {
    let node = Node::start(&["tasks.max_backlog=2"]);
    node.post("/api/v1/kinds/counter/pause", "");
    let task = r#"{"target":"counter/a","message":"Add","input":{"n":1}}"#;
    let first = node.send("POST", "/api/v1/tasks", &[("Idempotency-Key", "k")], Some(task));
    assert_eq!((first.status, node.post("/api/v1/tasks", task).status), (202, 202));
    for refused in [
        node.post("/api/v1/tasks", task),
        node.post("/api/v1/tasks/batch", &format!(r#"{{"tasks":[{task}]}}"#)),
        node.post("/api/v1/agents/counter/a/messages/Add?mode=submit", r#"{"n":1}"#),
    ] {
        refused.is_problem(429, "overloaded");
        assert_eq!(refused.header("retry-after"), Some("1"), "{refused:?}");
    }
    let again = node.send("POST", "/api/v1/tasks", &[("Idempotency-Key", "k")], Some(task));
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, Some("true")), "{again:?}");
    assert_eq!(again.json["id"], first.json["id"]);
    assert_eq!(node.ask("a", "Get", "").status, 200, "asks go on");
    node.post("/api/v1/kinds/counter/resume", "");
    let ended = node.get(&format!("/api/v1/tasks/{}?wait=30s", first.json["id"].as_str().unwrap()));
    assert_eq!(ended.json["state"], "succeeded");
    let room = (0..600).find(|_| {
        std::thread::yield_now();
        node.post("/api/v1/tasks", task).status == 202
    });
    assert!(room.is_some(), "there is room again");
}

#[test]
fn dead_letters_are_counted_then_brought_back() {
    let node = Node::start(&[]);
    let ids = [failing(&node, "a", "night"), failing(&node, "a", "day"), failing(&node, "b", "night")];
    let listed = node.get("/api/v1/tasks?state=failed&tag=night").json;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
    let count = |filter: Value| retry(&node, filter, true)["count"].clone();
    assert_eq!(
        retry(&node, json!({}), true),
        json!({"dry_run": true, "count": 3, "left_out": 0, "next_cursor": null})
    );
    assert_eq!(count(json!({"target": "counter/a"})), 2);
    assert_eq!(count(json!({"tag": "night"})), 2);
    assert_eq!(count(json!({"target": "counter/b", "tag": "day"})), 0);
    assert_eq!(count(json!({"state": "cancelled"})), 0);
    assert_eq!(node.get("/api/v1/tasks?state=failed").json["items"].as_array().unwrap().len(), 3);

    node.post("/api/v1/kinds/counter/pause", "");
    let answer = retry(&node, json!({"target": "counter/a"}), false);
    assert_eq!(answer, json!({"dry_run": false, "count": 2, "left_out": 0, "next_cursor": null}));
    let state = |id: &str| node.get(&format!("/api/v1/tasks/{id}")).json["state"].clone();
    assert_eq!([state(&ids[0]), state(&ids[1]), state(&ids[2])], ["ready", "ready", "failed"]);
    node.post(&format!("/api/v1/tasks/{}/cancel", ids[0]), "");
    assert_eq!(retry(&node, json!({"state": "cancelled"}), false)["count"], 1);
    assert_eq!(state(&ids[0]), "ready");

    for (body, status, code) in [
        (r#"{"filter":{"state":"succeeded"}}"#, 422, "invalid"),
        (r#"{"filter":{"state":"outcome_unknown"}}"#, 422, "invalid"),
        (r#"{"filter":{"target":"nope"}}"#, 422, "invalid"),
        (r#"{"filter":{"targets":"counter/a"}}"#, 422, "invalid"),
        (r#"{"dry_run":true}"#, 422, "invalid"),
        (r#"{"filter":{},"cursor":"x"}"#, 400, "malformed"),
    ] {
        node.post("/api/v1/tasks/retry", body).is_problem(status, code);
    }
    node.get("/api/v1/tasks/retry").is_problem(405, "method_not_allowed");
}

#[test]
fn a_family_is_told_as_far_as_it_is_known() {
    let node = Node::start(&[]);
    let batch = json!({"tasks": [
        {"name": "first", "target": "tool:probe.wait", "input": {"signal": "go"}},
        {"name": "left", "target": "counter/l", "message": "Get", "after": ["first"]},
        {"name": "right", "target": "counter/r", "message": "Get", "after": ["first"]},
        {"name": "last", "target": "counter/z", "message": "Get", "after": ["left", "right"]},
    ]});
    let accepted = node.post("/api/v1/tasks/batch", &batch.to_string());
    let ids: Vec<&str> =
        accepted.json["items"].as_array().unwrap().iter().filter_map(|task| task["id"].as_str()).collect();
    let other = node.post("/api/v1/tasks", r#"{"target":"counter/o","message":"Get"}"#).json;
    for id in &ids {
        let family = node.get(&format!("/api/v1/tasks/{id}/family"));
        assert_eq!((family.status, &family.json["more"]), (200, &json!(false)), "{family:?}");
        let members: Vec<&str> =
            family.json["tasks"].as_array().unwrap().iter().filter_map(|task| task["id"].as_str()).collect();
        assert_eq!(members, ids, "{family:?}");
        let mut edges: Vec<(&str, &str)> = family.json["edges"]
            .as_array()
            .unwrap()
            .iter()
            .inspect(|edge| assert_eq!(edge["how"], "after"))
            .filter_map(|edge| Some((edge["from"].as_str()?, edge["to"].as_str()?)))
            .collect();
        edges.sort_unstable();
        let mut expected = vec![(ids[0], ids[1]), (ids[0], ids[2]), (ids[1], ids[3]), (ids[2], ids[3])];
        expected.sort_unstable();
        assert_eq!(edges, expected);
    }
    let alone = node.get(&format!("/api/v1/tasks/{}/family", other["id"].as_str().unwrap())).json;
    assert_eq!((alone["tasks"].as_array().unwrap().len(), &alone["edges"]), (1, &json!([])));
    node.get("/api/v1/tasks/never/family").is_problem(404, "not_found");
}

#[test]
fn what_a_task_was_given_is_shown_to_who_asks_while_it_is_kept() {
    let node = Node::start(&[]);
    let body = r#"{"target":"counter/a","message":"Fail","input":{"message":"no luck"},"max_attempts":1}"#;
    let id = node.post("/api/v1/tasks", body).json["id"].as_str().unwrap().to_owned();
    assert_eq!(node.get(&format!("/api/v1/tasks/{id}?wait=30s")).json["state"], "failed");
    assert!(node.get(&format!("/api/v1/tasks/{id}")).json["input"].is_null(), "nobody asked");
    assert_eq!(
        node.get(&format!("/api/v1/tasks/{id}?wait=soon&input=true")).status,
        400,
        "it is read beside the input"
    );
    let asked = node.get(&format!("/api/v1/tasks/{id}?input=true")).json;
    assert_eq!(asked["input"], json!({"message": "no luck"}));
    let slow = node.post("/api/v1/tasks", r#"{"target":"counter/a","message":"Sleep","input":{"ms":500}}"#);
    let slow = format!("/api/v1/tasks/{}?wait=30s&input=true", slow.json["id"].as_str().unwrap());
    assert_eq!(node.get(&slow).json["state"], "succeeded", "it is waited for beside the input");
    let done = node.post("/api/v1/tasks", r#"{"target":"counter/a","message":"Add","input":{"n":1}}"#);
    let id = done.json["id"].as_str().unwrap();
    assert_eq!(node.get(&format!("/api/v1/tasks/{id}?wait=30s")).json["state"], "succeeded");
    assert!(node.get(&format!("/api/v1/tasks/{id}?input=true")).json["input"].is_null(), "it was let go");
}
