//! Schedules, at the command line.

use serde_json::json;

use crate::support::Node;

#[test]
fn schedules_are_added_looked_at_and_removed() {
    let node = Node::start(&[]);
    let none = node.cli(&["schedules", "ls"]);
    assert_eq!((none.code, none.out.as_str(), none.err.trim()), (0, "", "no schedules"));
    let cron = "0 3 * * * Europe/Berlin";
    let added = node.cli(&[
        "schedules",
        "add",
        "nightly",
        cron,
        "counter/a",
        "Add",
        r#"{"n":2}"#,
        "--misfire",
        "skip",
    ]);
    assert!(added.code == 0 && added.out.starts_with("nightly  active  next 20"), "{added:?}");
    let often = ["schedules", "add", "often", "every 10m", "counter/b", "Get", "--paused", "--json"];
    assert_eq!(node.cli(&often).json()["paused"], true);
    let listed = node.cli(&["schedule", "list"]);
    for shows in ["NAME", "nightly  active", cron, "counter/a", "often    paused", "every 10m"] {
        assert!(listed.out.contains(shows), "{shows}: {listed:?}");
    }
    assert_eq!(node.cli(&["schedules", "ls", "--json"]).json()["items"].as_array().unwrap().len(), 2);
    let shown = node.cli(&["schedules", "show", "nightly"]);
    for shows in
        ["when: 0 3 * * *", "input: {\"n\":2}", "misfire: skip", "overlap: skip", "next: 20", "then: 20"]
    {
        assert!(shown.out.contains(shows), "{shows}: {shown:?}");
    }
    let task = node.cli(&["schedules", "run", "nightly"]);
    assert!(task.code == 0 && task.out.trim().len() == 36, "{task:?}");
    assert_eq!(node.cli(&["tasks", "wait", task.out.trim()]).code, 0);
    assert_eq!(node.cli(&["agents", "send", "counter/a", "Get"]).json(), json!({"total": 2}));
    let paused = node.cli(&["schedules", "pause", "nightly"]);
    assert_eq!((paused.code, paused.out.as_str()), (0, "nightly  paused\n"), "{paused:?}");
    let resumed = node.cli(&["schedules", "resume", "nightly"]);
    assert!(resumed.code == 0 && resumed.out.starts_with("nightly  active  next"), "{resumed:?}");
    let removed = node.cli(&["schedules", "rm", "nightly"]);
    assert_eq!((removed.code, removed.out.as_str()), (0, ""), "{removed:?}");
    for (args, code) in [
        (&["show", "nightly"][..], 3),
        (&["rm", "nightly"], 3),
        (&["run", "nightly"], 3),
        (&["add", "often", "@daily", "counter/b", "Get"], 4),
        (&["add", "never", "0 0 30 2 *", "counter/b", "Get"], 2),
        (&["add", "wrong", "@daily", "counter/b", "Add", r#"{"n":"x"}"#], 2),
        (&["add", "wrong", "@daily", "nope/b", "Get"], 3),
        (&["add", "wrong", "@daily", "counter/b"], 2),
    ] {
        let said = node.cli(&[&["schedules"][..], args].concat());
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{args:?}: {said:?}");
        assert!(!said.err.is_empty());
    }
}
