//! The command line, from outside: what is printed where, and how it ends.

mod canaries;
mod care;
mod config;
mod contract;
mod dead;
mod events;
mod logs;
#[path = "../support/postgres.rs"]
mod postgres;
mod repair;
mod schedules;
mod schema;
mod states;
mod stores;
#[path = "../support/mod.rs"]
mod support;
mod tokens;

use serde_json::json;
use support::{Node, cli_alone};

#[test]
fn exit_codes_without_a_node() {
    for (args, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&[], 2),
        (&["agents"], 2),
        (&["nonsense"], 2),
        (&["agents", "show", "nowhere"], 2),
        (&["config", "check"], 0),
        (&["config", "check", "--set", "http.bnd=1"], 9),
        (&["config", "check", "--set", "http.bind=0.0.0.0:0"], 9),
        (&["run", "--set", "nonsense=1"], 9),
        (&["run", "--set", "http.bind=0.0.0.0:0"], 9),
        (&["status", "--set", "http.bind=127.0.0.1:1"], 6),
        (&["agents", "ls", "--url", "http://127.0.0.1:1"], 6),
        (&["db", "migrate"], 0),
        (&["db", "status"], 4),
    ] {
        let said = cli_alone(args);
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        assert!(
            code == 0 || said.out.is_empty() || args.first() == Some(&"db"),
            "errors go to stderr: {said:?}"
        );
        assert!(code == 0 || !said.err.is_empty(), "{said:?}");
    }
    let said = cli_alone(&["status", "--set", "http.bind=127.0.0.1:1"]);
    assert!(said.err.contains("greenroom run"), "it says what to try: {said:?}");
    let said = cli_alone(&["config", "check", "--set", "http.bnd=1"]);
    assert!(said.err.contains("http.bind"), "it says what may have been meant: {said:?}");
}

/// Once, it said so as soon as the doors were shut.
#[test]
fn stop_waits_until_what_runs_has_ended() {
    let mut node = Node::start(&[]);
    let data = node.data_dir().to_string_lossy().into_owned();
    let slept = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            node.ask("a", "Sleep", r#"{"ms":1500}"#);
            slept.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        support::until("it sleeps", || node.get("/api/v1/tree").text.contains("Sleep"));
        let said = node.cli(&["stop", "--data-dir", &data]);
        assert_eq!((said.code, said.err.trim()), (0, "the node has stopped"));
        assert!(slept.load(std::sync::atomic::Ordering::SeqCst), "its turn was under way");
    });
    support::until("its process has ended", || node.is_over());
}

#[test]
fn messages_are_sent_and_replies_printed() {
    let node = Node::start(&[]);
    let said = node.cli(&["agents", "send", "counter/a", "Add", r#"{"n":2}"#]);
    assert_eq!((said.code, said.out.as_str()), (0, "{\"total\":2}\n"), "{said:?}");
    let said = node.cli_with(&["agent", "send", "counter/a", "Add", "-"], r#"{"n":1}"#);
    assert_eq!(said.json(), json!({"total": 3}));
    std::fs::write(node.dir().join("in.json"), r#"{"n":1}"#).unwrap();
    let said = node.cli(&["agents", "send", "counter/a", "Add", "@in.json", "--idempotency-key", "k"]);
    assert_eq!(said.json(), json!({"total": 4}));
    assert_eq!(node.cli(&["agents", "send", "counter/a", "Get"]).json(), json!({"total": 4}));
    let told = node.cli(&["agents", "send", "counter/a", "Add", r#"{"n":1}"#, "--tell"]);
    assert_eq!((told.code, told.out.as_str()), (0, ""), "{told:?}");
    for (args, code) in [
        (["counter/a", "Refuse", r#"{"reason":"no"}"#], 4),
        (["counter/a", "Fail", r#"{"message":"no"}"#], 1),
        (["counter/a", "Crash", "{}"], 1),
        (["counter/a", "Add", r#"{"n":"x"}"#], 2),
        (["counter/a", "Add", "{"], 2),
        (["counter/a", "Nope", "{}"], 3),
        (["nope/a", "Add", "{}"], 3),
    ] {
        let said = node.cli(&[&["agents", "send"][..], &args[..]].concat());
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{args:?}: {said:?}");
    }
    let late = node.cli(&["agents", "send", "counter/a", "Sleep", r#"{"ms":5000}"#, "--timeout", "100ms"]);
    assert_eq!(late.code, 8, "{late:?}");
}

#[test]
fn tasks_are_submitted_and_waited_for() {
    let node = Node::start(&[]);
    let said = node.cli(&["tasks", "submit", "counter/a", "Add", r#"{"n":2}"#]);
    let id = said.out.trim();
    assert!(said.code == 0 && id.len() == 36 && said.out.lines().count() == 1, "the id alone: {said:?}");
    let waited = node.cli(&["tasks", "wait", id]);
    assert!(waited.code == 0 && waited.out.contains("succeeded"), "{waited:?}");
    assert_eq!(node.cli(&["tasks", "show", id, "--json"]).json()["result"], json!({"total": 2}));
    assert!(node.cli(&["tasks", "history", id]).out.contains("succeeded"));
    let said = node.cli(&["tasks", "submit", "counter/a", "Add", r#"{"n":1}"#, "--wait"]);
    assert_eq!((said.code, said.json()), (0, json!({"total": 3})));
    let said = node.cli(&["tasks", "submit", "counter/a", "Add", r#"{"n":1}"#, "--json"]);
    assert_eq!(said.json()["target"], "counter/a");
    let args =
        ["tasks", "submit", "counter/a", "Fail", r#"{"message":"no"}"#, "--max-attempts", "1", "--wait"];
    let failed = node.cli(&args);
    assert_eq!((failed.code, failed.out.as_str()), (1, ""), "{failed:?}");
    let dead = node.cli(&["tasks", "ls", "--state", "failed", "--json"]).json();
    let dead = dead["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(node.cli(&["tasks", "retry", &dead]).code, 0);
    let later = node.cli(&["tasks", "submit", "counter/a", "Add", r#"{"n":1}"#, "--in", "1h"]);
    let cancelled = node.cli(&["tasks", "cancel", later.out.trim()]);
    assert!(cancelled.code == 0 && cancelled.out.contains("cancelled"), "{cancelled:?}");
    assert_eq!(node.cli(&["tasks", "show", "never"]).code, 3);
}

#[test]
fn tasks_that_belong_together_are_submitted_at_once() {
    let node = Node::start(&[]);
    let family = r#"[{"name":"b","target":"counter/f","message":"Add","input":{"n":1},"after":["a"]},
                     {"name":"a","target":"counter/f","message":"Add","input":{"n":1}}]"#;
    let said = node.cli_with(&["tasks", "batch", "-"], family);
    assert!(said.code == 0 && said.out.lines().count() == 2, "{said:?}");
    let first = said.out.lines().next().unwrap();
    assert_eq!(node.cli(&["tasks", "wait", first]).code, 0);
    assert_eq!(node.ask("f", "Get", "").json["total"], 2);
    assert_eq!(node.cli_with(&["tasks", "batch", "-"], r#"[{"target":"nope"}]"#).code, 2);
}

#[test]
fn a_task_that_waits_is_signalled_and_watched() {
    let node = Node::start(&[]);
    let submit = |input: &str| node.cli(&["tasks", "submit", "tool:probe.wait", input]).out.trim().to_owned();
    let id = submit(r#"{"signal":"go"}"#);
    let shown =
        (0..600).map(|_| node.cli(&["tasks", "show", &id])).find(|said| said.out.contains("  waiting"));
    let shown = shown.unwrap();
    assert!(shown.out.contains("\nwaits for: signal go\n"), "{shown:?}");
    // The command that it names is the one that answers it.
    let hint = shown.err.trim().strip_prefix("→ greenroom ").unwrap_or_else(|| panic!("{shown:?}"));
    let answer: Vec<&str> =
        hint.split(' ').map(|word| if word == "JSON" { r#"{"by":"Ada"}"# } else { word }).collect();
    let said = node.cli(&answer);
    assert!(said.code == 0 && said.out.starts_with(&id), "{said:?}");
    let said = node.cli(&["tasks", "watch", &id]);
    assert_eq!((said.code, said.json()), (0, json!({"by": "Ada"})), "{said:?}");
    assert!(said.err.contains("`go` has come"), "{said:?}");
    assert!(node.cli(&["tasks", "history", &id]).out.contains("signalled"));
    assert_eq!(node.cli(&["tasks", "signal", &id, "go"]).code, 4, "it has ended");
    assert_eq!(node.cli(&["tasks", "signal", "never", "go"]).code, 3);
    let late = submit(r#"{"signal":"go","within":"1ms"}"#);
    let said = node.cli(&["tasks", "watch", &late, "--json"]);
    assert!(
        said.code == 1 && said.out.lines().last().unwrap().contains("no signal `go` came in time"),
        "{said:?}"
    );
}

#[test]
fn a_task_may_expire_and_may_run_after_one_that_has_not_succeeded() {
    let node = Node::start(&[]);
    let submit = |more: &[&str]| {
        let said = node.cli(&[&["tasks", "submit", "counter/a", "Add", r#"{"n":1}"#], more].concat());
        assert_eq!(said.code, 0, "{said:?}");
        said.out.trim().to_owned()
    };
    let state = |id: &str| node.cli(&["tasks", "show", id, "--json"]).json()["state"].clone();
    let late = submit(&["--in", "1h", "--expires-in", "1ms"]);
    let after = submit(&["--after", &late, "--even-if-failed"]);
    let with = submit(&["--after", &late]);
    assert_eq!(node.cli(&["tasks", "wait", &late, &after, &with]).code, 1);
    assert_eq!([&late, &after, &with].map(|id| state(id)), ["cancelled", "succeeded", "cancelled"]);
    let both = ["--expires-in", "1s", "--expires-at", "2999-01-01T00:00:00Z"];
    let args = [&["tasks", "submit", "counter/a", "Get"][..], &both].concat();
    assert_eq!(node.cli(&args).code, 2);
    let body =
        r#"{"target":"counter/a","message":"Get","expires_in":"1s","expires_at":"2999-01-01T00:00:00Z"}"#;
    node.post("/api/v1/tasks", body).is_problem(422, "invalid");
}

#[test]
fn a_person_says_what_became_of_an_interrupted_effect() {
    let node = Node::start(&[]);
    let interrupted = || {
        let args = ["tasks", "submit", "tool:probe.hold", r#"{"ms":600000}"#, "--timeout", "50ms", "--wait"];
        let said = node.cli(&args);
        assert!(said.code == 1 && said.err.contains("outcome_unknown"), "{said:?}");
        let unknown = node.cli(&["tasks", "ls", "--state", "outcome_unknown", "--json"]).json();
        unknown["items"][0]["id"].as_str().unwrap().to_owned()
    };
    let id = interrupted();
    assert!(node.cli(&["tasks", "resolve", &id, "--succeeded"]).out.contains("succeeded"));
    assert_eq!(node.cli(&["tasks", "show", &id, "--json"]).json()["state"], "succeeded");
    assert_eq!(node.cli(&["tasks", "resolve", &id, "--failed", "no"]).code, 4, "it is resolved");
    let id = interrupted();
    assert!(node.cli(&["tasks", "resolve", &id, "--failed", "the bank says no"]).out.contains("failed"));
    assert!(node.cli(&["tasks", "show", &id]).out.contains("the bank says no"));
    assert_eq!(node.cli(&["tasks", "resolve", &id]).code, 2, "how?");
}

#[test]
fn a_person_sees_how_things_are() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":2}"#);
    let crash = node.ask("a", "Crash", r#"{"message":"boom"}"#).json["crash_id"].as_str().unwrap().to_owned();
    for (args, shows) in [
        (&["status"][..], "agents:"),
        (&["tree"], "counter/a"),
        (&["kinds", "ls"], "counter"),
        (&["kind", "describe", "counter"], "Add"),
        (&["agents", "list"], "counter/a"),
        (&["agents", "show", "counter/a"], "version"),
        (&["agents", "state", "counter/a"], "{"),
        (&["crashes", "ls"], "boom"),
        (&["crashes", "ls", "--groups"], "src/agent/counter.rs"),
        (&["crashes", "show", &crash], "agent.crashed"),
        (&["crashes", "show", &crash], "seen  once, "),
        (&["logs", "-n", "1000"], "node.started"),
        (&["logs", "--subject", "counter/a"], "agent.crashed"),
        (&["config", "show", "--origin"], "# default"),
    ] {
        let said = node.cli(args);
        assert!(said.code == 0 && said.out.contains(shows), "{args:?}: {said:?}");
    }
    for listing in ["kinds", "agents", "tasks", "tools", "crashes"] {
        let said = node.cli(&[listing, "ls", "--json"]);
        assert!(said.json()["items"].is_array() && said.json()["next_cursor"].is_null(), "{said:?}");
    }
    let never = node.cli(&["agents", "show", "counter/never"]);
    assert!(never.code == 3 && never.err.contains("→ greenroom agents ls --kind counter"), "{never:?}");
    node.ask("b", "Add", r#"{"n":2}"#);
    let one = node.cli(&["agents", "ls", "-n", "1", "--json"]);
    assert_eq!(one.json()["next_cursor"], json!("counter/a"), "{one:?}");
    assert!(one.err.contains("there are more"), "{one:?}");
    assert_eq!(node.cli(&["agents", "ls", "--token", "wrong"]).code, 5);
}

#[test]
fn the_data_directory_tells_a_client_all() {
    let mut node = Node::start(&[]);
    let data = node.data_dir().to_string_lossy().into_owned();
    let usual = ["--data-dir", &data, "--set", "http.bind=127.0.0.1:0"];
    let said = node.cli_unaided(&[&["agents", "ls", "--json"][..], &usual].concat());
    assert_eq!(said.code, 0, "{said:?}");
    let second = node.cli_unaided(&[&["run"][..], &usual].concat());
    assert_eq!(second.code, 4, "the data directory is in use: {second:?}");
    let said = node.cli_unaided(&[&["stop"][..], &usual].concat());
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(node.wait_for_end().code(), Some(0), "{}", node.log());
}

#[test]
fn a_closed_pipe_is_no_error() {
    let node = Node::start(&[]);
    let script = format!("{} config show | true; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_greenroom"));
    let output =
        std::process::Command::new("bash").args(["-c", &script]).current_dir(node.dir()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn kinds_are_paused_and_resumed() {
    let node = Node::start(&[]);
    let row = || {
        let said = node.cli(&["kinds", "ls"]);
        said.out.lines().find(|line| line.starts_with("counter")).unwrap().to_owned()
    };
    assert!(!row().contains("paused"));
    assert_eq!(node.cli(&["kinds", "pause", "counter"]).code, 0);
    assert!(row().contains("paused"));
    assert!(node.cli(&["status"]).out.contains("kinds resume counter"));
    assert_eq!(node.cli(&["kinds", "resume", "counter"]).code, 0);
    assert!(!row().contains("paused"));
    assert_eq!(node.cli(&["kinds", "pause", "nobody"]).code, 3);
}
