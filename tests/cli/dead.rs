//! Dead letters, and a queue that is full, at the command line.

use serde_json::json;

use crate::support::Node;

fn failing(node: &Node, target: &str) -> String {
    let args = ["tasks", "submit", target, "Fail", r#"{"message":"no luck"}"#, "--max-attempts", "1"];
    let id = node.cli(&args).out.trim().to_owned();
    assert_eq!(node.cli(&["tasks", "wait", &id]).code, 1);
    id
}

#[test]
fn dead_letters_are_listed_and_brought_back_by_a_filter() {
    let node = Node::start(&[]);
    let none = node.cli(&["tasks", "dead"]);
    assert_eq!((none.code, none.out.as_str(), none.err.trim()), (0, "", "no dead letters"));
    let ids = [failing(&node, "counter/a"), failing(&node, "counter/a"), failing(&node, "counter/b")];
    assert_eq!(node.cli(&["tasks", "submit", "counter/a", "Get", "--wait"]).code, 0);
    let listed = node.cli(&["tasks", "dead"]);
    for shows in ["ATTEMPTS", "LOST", "CODE", "handler_failed", "no luck", &ids[0], &ids[2]] {
        assert!(listed.out.contains(shows), "{shows}: {listed:?}");
    }
    assert_eq!(listed.out.lines().count(), 4, "{listed:?}");
    assert!(
        listed.err.contains("tasks retry, else: tasks dismiss") && !listed.err.contains("poison"),
        "{listed:?}"
    );
    let shown = node.cli(&["tasks", "show", &ids[0]]);
    for next in [format!("tasks retry {}", ids[0]), format!("tasks dismiss {}", ids[0])] {
        assert!(shown.err.contains(&next), "{shown:?}");
    }
    let some = node.cli(&["tasks", "dead", "-n", "1", "--target", "counter/a", "--json"]);
    assert_eq!(some.json()["items"].as_array().unwrap().len(), 1);
    assert_eq!(some.json()["items"][0]["id"], ids[1], "the newest of that target");
    assert!(node.cli(&["tasks", "dead", "-n", "1"]).err.contains("--all"));

    node.cli(&["kinds", "pause", "counter"]);
    let count = node.cli(&["tasks", "retry", "--target", "counter/a", "--dry-run"]);
    assert_eq!((count.code, count.out.as_str()), (0, "2 tasks would be tried again\n"), "{count:?}");
    let one = node.cli(&["tasks", "retry", "--target", "counter/b", "--dry-run"]);
    assert_eq!(one.out, "1 task would be tried again\n");
    let night = ["tasks", "submit", "counter/c", "Get", "--tag", "nightly"];
    let night = node.cli(&night).out.trim().to_owned();
    assert_eq!(node.cli(&["tasks", "ls", "--tag", "nightly", "--json"]).json()["items"][0]["id"], night);
    let status = node.cli(&["status"]);
    assert!(status.out.contains("3 failed") && status.out.contains("greenroom tasks dead"), "{status:?}");
    let count = node.cli(&["tasks", "retry", "--state", "failed", "--dry-run", "--json"]);
    assert_eq!(count.json(), json!({"dry_run": true, "count": 3, "left_out": 0, "next_cursor": null}));
    let unasked = node.cli(&["tasks", "retry", "--target", "counter/a"]);
    assert_eq!((unasked.code, unasked.out.as_str()), (2, ""), "{unasked:?}");
    assert!(unasked.err.contains("2 tasks") && unasked.err.contains("--yes"), "{unasked:?}");
    assert_eq!(node.cli(&["tasks", "dead", "--json"]).json()["items"].as_array().unwrap().len(), 3);

    let back = node.cli(&["tasks", "retry", "--target", "counter/a", "--yes"]);
    assert_eq!((back.code, back.out.as_str()), (0, "2 tasks are tried again\n"), "{back:?}");
    let back = node.cli(&["tasks", "retry", &ids[2], "--yes"]);
    assert!(back.code == 0 && back.out.contains("ready"), "{back:?}");
    for id in &ids {
        assert!(node.cli(&["tasks", "history", id]).out.contains("retried"));
    }
    let nothing = node.cli(&["tasks", "retry", "--state", "failed"]);
    assert_eq!((nothing.code, nothing.out.as_str()), (0, "0 tasks are tried again\n"), "{nothing:?}");
    for (args, code) in [
        (&["retry"][..], 2),
        (&["retry", &ids[0], "--state", "failed"], 2),
        (&["retry", "--state", "nope"], 2),
        (&["retry", "--state", "ready", "--yes"], 2),
        (&["retry", "--target", "nope"], 2),
        (&["retry", "never"], 3),
    ] {
        let said = node.cli(&[&["tasks"][..], args].concat());
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{args:?}: {said:?}");
    }
}

#[test]
fn dead_letters_are_dismissed_by_their_ids_or_a_filter() {
    let node = Node::start(&[]);
    let ids = [failing(&node, "counter/a"), failing(&node, "counter/b"), failing(&node, "counter/b")];
    let count =
        node.cli(&["tasks", "dismiss", "--target", "counter/*", "--code", "handler_failed", "--dry-run"]);
    assert_eq!((count.code, count.out.as_str()), (0, "3 tasks would be dismissed\n"), "{count:?}");
    let none = node.cli(&["tasks", "dismiss", "--code", "timed_out", "--dry-run"]);
    assert_eq!(none.out, "0 tasks would be dismissed\n");
    let unasked = node.cli(&["tasks", "dismiss", "--all"]);
    assert_eq!((unasked.code, unasked.out.as_str()), (2, ""), "{unasked:?}");
    assert!(
        unasked.err.contains("3 tasks would be dismissed") && unasked.err.contains("--yes"),
        "{unasked:?}"
    );
    let one = node.cli(&["tasks", "dismiss", &ids[0]]);
    assert!(one.code == 0 && one.out.contains("cancelled"), "{one:?}");
    assert_eq!(node.cli(&["tasks", "dismiss", &ids[0]]).code, 4, "it is no dead letter any more");
    let rest = node.cli(&["tasks", "dismiss", "--target", "counter/b", "--yes"]);
    assert_eq!((rest.code, rest.out.as_str()), (0, "2 tasks are dismissed\n"), "{rest:?}");
    assert_eq!(node.cli(&["tasks", "dead"]).err.trim(), "no dead letters");
    assert!(!node.cli(&["status"]).out.contains("greenroom tasks dead"));
    let history = node.cli(&["tasks", "history", &ids[1]]).out;
    assert!(history.contains("failed") && history.contains("dismissed"), "{history}");
    assert!(node.cli(&["tasks", "show", &ids[1]]).out.contains("no luck"), "why is still known");
    let audit = node.cli(&["audit"]).out;
    assert!(audit.contains("task.dismiss") && audit.contains("tasks.dismiss"), "{audit}");
    node.cli(&["kinds", "pause", "counter"]);
    let back = node.cli(&["tasks", "retry", &ids[1]]);
    assert!(back.code == 0 && back.out.contains("ready"), "{back:?}");
    for (args, code) in [
        (&["dismiss"][..], 2),
        (&["dismiss", &ids[0], "--all"], 2),
        (&["dismiss", "--target", "nope"], 2),
        (&["dismiss", "never"], 3),
    ] {
        let said = node.cli(&[&["tasks"][..], args].concat());
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{args:?}: {said:?}");
    }
}

#[test]
fn tasks_are_listed_by_what_their_targets_begin_with() {
    let node = Node::start(&[]);
    node.cli(&["kinds", "pause", "counter"]);
    for target in ["counter/eu-1", "counter/eu-2", "counter/us-1"] {
        assert_eq!(node.cli(&["tasks", "submit", target, "Get"]).code, 0);
    }
    let listed = |target: &str| {
        let said = node.cli(&["tasks", "ls", "--target", target, "--json"]);
        said.json()["items"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(
        [listed("counter/*"), listed("counter/eu-*"), listed("counter/eu-1"), listed("tool:*")],
        [3, 2, 1, 0]
    );
    let wrong = node.cli(&["tasks", "ls", "--target", "coun*"]);
    assert!(wrong.code == 2 && wrong.err.contains("KIND/*"), "{wrong:?}");
    node.get("/api/v1/tasks?target=coun*").is_problem(400, "malformed");
}

#[test]
fn whoever_submits_too_much_is_told_to_come_again() {
    let node = Node::start(&["tasks.max_backlog=1"]);
    node.cli(&["kinds", "pause", "counter"]);
    let submit = ["tasks", "submit", "counter/a", "Get"];
    assert_eq!(node.cli(&submit).code, 0);
    let busy = node.cli(&submit);
    assert_eq!((busy.code, busy.out.as_str()), (10, ""), "{busy:?}");
    assert!(busy.err.contains("tasks.max_backlog") && busy.err.contains("try again"), "{busy:?}");
    assert!(node.cli(&["status"]).out.contains("tasks wait"));
}
