//! What asks before something is lost, what only shows what would be, and what says nothing but data.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
};

use serde_json::json;

use crate::support::{Node, Said};

/// A command at a terminal, with what the person writes there.
fn at_a_terminal(node: &Node, args: &[&str], input: &str) -> Said {
    let mut child = begun_at_a_terminal(node, args);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

/// The same, where something happens between the question and the answer.
fn asked_at_a_terminal(node: &Node, args: &[&str], happens: impl FnOnce(), input: &str) -> Said {
    let mut child = begun_at_a_terminal(node, args);
    let (mut shown, mut byte) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&shown).contains("[y/N]") {
        let read = child.stdout.as_mut().unwrap().read(&mut byte).unwrap();
        assert_eq!(read, 1, "it does not ask: {}", String::from_utf8_lossy(&shown));
        shown.extend(byte);
    }
    happens();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

fn begun_at_a_terminal(node: &Node, args: &[&str]) -> Child {
    let own = node.command(args);
    let word = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy().replace('\'', r"'\''"));
    let line =
        std::iter::once(own.get_program()).chain(own.get_args()).map(word).collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(node.dir());
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn later(node: &Node) -> String {
    let args = ["tasks", "submit", "counter/a", "Add", r#"{"n":1}"#, "--in", "1h"];
    node.cli(&args).out.trim().to_owned()
}

#[test]
fn a_person_is_asked_and_a_script_is_not() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":1}"#);
    node.ask("a", "Add", r#"{"n":1}"#);
    assert_eq!(node.cli(&["tokens", "add", "ci"]).code, 0);
    let add = ["schedules", "add", "nightly", "@daily", "counter/a", "Add", r#"{"n":1}"#];
    assert_eq!(node.cli(&add).code, 0);
    let (one, two) = (later(&node), later(&node));
    let commands = [
        &["tokens", "rm", "ci"][..],
        &["schedules", "rm", "nightly"],
        &["tasks", "cancel", &one, &two],
        &["agents", "rollback", "counter/a", "--to", "1"],
        &["agents", "pause", "counter/a", "--clear"],
    ];
    for command in commands {
        let said = at_a_terminal(&node, command, "n\n");
        assert!(said.code == 1 && said.out.contains("[y/N]"), "{command:?}: {said:?}");
        assert!(said.out.contains("nothing was done"), "{command:?}: {said:?}");
    }
    assert_eq!(node.ask("a", "Get", "").json["total"], 2);
    let state = |id: &str| node.get(&format!("/api/v1/tasks/{id}")).json["state"].clone();
    assert_eq!(state(&one), "scheduled");
    let said = at_a_terminal(&node, commands[2], "y\n");
    assert!(said.code == 0 && said.out.contains("cancelled"), "{said:?}");
    assert_eq!([state(&one), state(&two)], ["cancelled", "cancelled"]);
    let said = at_a_terminal(&node, &["schedules", "rm", "nightly", "--yes"], "");
    assert!(said.code == 0 && !said.out.contains("[y/N]"), "{said:?}");
    for command in [commands[0], commands[3], commands[4]] {
        let said = node.cli(command);
        assert_eq!(said.code, 0, "off a terminal it is what scripts have always called: {said:?}");
    }
}

#[test]
fn a_dry_run_shows_and_does_nothing() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":1}"#);
    assert_eq!(node.cli(&["tokens", "add", "ci", "--scope", "operate"]).code, 0);
    let add = ["schedules", "add", "nightly", "@daily", "counter/a", "Add", r#"{"n":1}"#];
    assert_eq!(node.cli(&add).code, 0);
    let id = later(&node);
    for (command, shows) in [
        (&["tokens", "rm", "ci"][..], "ci  would be revoked: it may operate"),
        (&["schedules", "rm", "nightly"], "nightly  would be removed: active, next in "),
        (&["tasks", "cancel", &id], "scheduled  would be cancelled"),
        (&["agents", "stop", "counter/a"], "stop: 0 that wait would be refused, tasks parked"),
        (&["agents", "restart", "counter/a", "--clear"], "restart: 0 that wait would be rejected"),
        (&["agents", "delete", "counter/a"], "would be deleted: version 1, "),
    ] {
        let said = node.cli(&[command, &["--dry-run"]].concat());
        assert!(said.code == 0 && said.out.contains(shows), "{command:?}: {said:?}");
        let document = node.cli(&[command, &["--dry-run", "--json"]].concat()).json();
        assert!(document.is_object(), "{command:?}: {document}");
    }
    for missing in [&["tokens", "rm", "nobody"][..], &["schedules", "rm", "never"], &["tasks", "cancel", "x"]]
    {
        assert_eq!(node.cli(&[missing, &["--dry-run"]].concat()).code, 3, "{missing:?}");
    }
    assert_eq!(node.ask("a", "Get", "").json["total"], 1);
    assert_eq!(node.get(&format!("/api/v1/tasks/{id}")).json["state"], "scheduled");
    assert!(node.cli(&["tokens", "ls"]).out.contains("ci"));
    assert!(node.cli(&["schedules", "ls"]).out.contains("in "), "times are told as elsewhere");
}

/// These were done at once, and no dry run told of them.
#[test]
fn what_replaces_or_ends_something_is_shown_first_and_asked_about() {
    let mut node = Node::start(&[]);
    for key in ["a", "a", "b"] {
        node.ask(key, "Add", r#"{"n":1}"#);
    }
    assert_eq!(node.cli(&["agents", "quarantine", "counter/a"]).code, 0);
    let hold = ["tasks", "submit", "tool:probe.hold", r#"{"ms":600000}"#, "--timeout", "50ms", "--wait"];
    assert_eq!(node.cli(&hold).code, 1);
    let unknown = node.get("/api/v1/tasks?state=outcome_unknown").json;
    let id = unknown["items"][0]["id"].as_str().unwrap().to_owned();
    for (key, value) in [("tasks.slots", "3"), ("tasks.max_attempts", "7"), ("http.timeout", "20s")] {
        assert_eq!(node.cli(&["config", "set", key, value]).code, 0);
    }
    let file = node.dir().join("mine.toml");
    fs::write(&file, "# mine").unwrap();
    let edited = r#"{"total":41,"ids":[]}"#;
    let commands = [
        (&["agents", "edit", "counter/b", edited, "--if-version", "1"][..], "- /total: 1"),
        (
            &["agents", "release", "counter/a", "--version", "1"],
            "would be released with the state of version 1",
        ),
        (&["tasks", "resolve", &id, "--succeeded"], "outcome_unknown  would be taken for succeeded"),
        (&["config", "unset", "tasks"], "tasks.slots = 64  # would be in force at once"),
        (&["config", "init", "mine.toml", "--force"], "mine.toml  is there, and would be written over"),
        (&["stop"], "would be stopped: 0 tasks run"),
    ];
    let nothing_has_changed = |node: &Node| {
        assert_eq!(node.ask("b", "Get", "").json, json!({"total": 1}));
        assert_eq!(node.get("/api/v1/agents/counter/a").json["status"], "quarantined");
        assert_eq!(node.get(&format!("/api/v1/tasks/{id}")).json["state"], "outcome_unknown");
        assert!(node.cli(&["config", "show"]).out.contains("tasks.slots = 3"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "# mine");
    };
    for (command, shows) in commands {
        let said = node.cli(&[command, &["--dry-run"]].concat());
        assert!(said.code == 0 && said.out.contains(shows), "{command:?}: {said:?}");
        let document = node.cli(&[command, &["--dry-run", "--json"]].concat()).json();
        assert!(document.is_object(), "{command:?}: {document}");
        nothing_has_changed(&node);
        let said = at_a_terminal(&node, command, "n\n");
        assert!(said.code == 1 && said.out.contains("[y/N]"), "{command:?}: {said:?}");
        assert!(said.out.contains("nothing was done"), "{command:?}: {said:?}");
        nothing_has_changed(&node);
    }
    for (command, shows) in [
        (&["tasks", "dismiss", &id][..], "would be refused: it is no dead letter"),
        (&["tasks", "retry", &id], "would be tried again, though it may have taken effect"),
        (&["agents", "release", "counter/b"], "would be refused: it is not quarantined"),
        (&["config", "init", "mine.toml"], "would stay as it is"),
    ] {
        let said = node.cli(&[command, &["--dry-run"]].concat());
        assert!(said.code == 0 && said.out.contains(shows), "{command:?}: {said:?}");
    }
    let stale = node.cli(&["agents", "edit", "counter/b", edited, "--if-version", "9", "--dry-run"]);
    assert_eq!(stale.code, 4, "{stale:?}");
    nothing_has_changed(&node);
    let one = at_a_terminal(&node, &["config", "unset", "http.timeout"], "");
    assert!(one.code == 0 && !one.out.contains("[y/N]"), "one key that is named is meant: {one:?}");
    for (n, (command, _)) in commands.into_iter().enumerate() {
        let said = match n % 2 {
            0 => at_a_terminal(&node, command, "y\n"),
            _ => at_a_terminal(&node, &[command, &["-y"][..]].concat(), ""),
        };
        assert_eq!(said.code, 0, "{command:?}: {said:?}");
        assert_eq!(said.out.contains("[y/N]"), n % 2 == 0, "{command:?}: {said:?}");
        match n {
            0 => assert_eq!(node.ask("b", "Get", "").json, json!({"total": 41})),
            1 => assert_eq!(node.ask("a", "Get", "").json, json!({"total": 1})),
            2 => assert_eq!(node.get(&format!("/api/v1/tasks/{id}")).json["state"], "succeeded"),
            3 => assert!(node.cli(&["config", "show"]).out.contains("tasks.slots = 64")),
            4 => assert!(fs::read_to_string(&file).unwrap().contains("[tasks]")),
            _ => assert_eq!(node.wait_for_end().code(), Some(0), "{}", node.log()),
        }
    }
}

/// What was agreed to is done, and nothing else that has come meanwhile.
#[test]
fn a_section_is_unset_as_it_was_shown_or_not_at_all() {
    let node = Node::start(&[]);
    for (key, value) in [("tasks.slots", "3"), ("tasks.max_backlog", "7")] {
        assert_eq!(node.cli(&["config", "set", key, value]).code, 0);
    }
    let meanwhile = || assert_eq!(node.cli(&["config", "set", "tasks.retention", "9d"]).code, 0);
    let said = asked_at_a_terminal(&node, &["config", "unset", "tasks"], meanwhile, "y\n");
    assert!(said.code == 4 && said.out.contains("has been changed since"), "{said:?}");
    let shown = node.cli(&["config", "show"]).out;
    for line in ["tasks.slots = 3", "tasks.max_backlog = 7", "tasks.retention = \"9d\""] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let said = asked_at_a_terminal(&node, &["config", "unset", "tasks"], || (), "y\n");
    assert!(said.code == 0 && said.out.contains("tasks.retention = "), "{said:?}");
}

/// What this node does not see of it goes for all others.
#[test]
fn what_is_kept_and_overruled_here_is_asked_about_too() {
    let node = Node::start(&["tasks.slots=64"]);
    assert_eq!(node.cli(&["config", "set", "tasks.slots", "3"]).code, 0);
    let said = at_a_terminal(&node, &["config", "unset", "tasks"], "n\n");
    assert!(said.code == 1 && said.out.contains("unset tasks.slots?"), "{said:?}");
    let dry = node.cli(&["config", "unset", "tasks", "--dry-run"]);
    assert!(dry.out.contains("tasks.slots would be kept no more") && !dry.err.contains("nothing"), "{dry:?}");
    let dry = node.cli(&["config", "unset", "tasks", "--dry-run", "--json"]).json();
    assert_eq!((&dry["changed"], &dry["removed"]), (&json!([]), &json!(["tasks.slots"])));
    let said = at_a_terminal(&node, &["config", "unset", "tasks"], "y\n");
    assert!(said.code == 0 && said.out.contains("tasks.slots is kept no more"), "{said:?}");
}

#[test]
fn quiet_is_names_alone_and_no_notes() {
    let node = Node::start(&["node.name=eu-1"]);
    node.ask("a", "Add", r#"{"n":1}"#);
    let id = later(&node);
    let quiet = |args: &[&str]| {
        let said = node.cli(&[args, &["-q"]].concat());
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
        said.out
    };
    assert_eq!(quiet(&["agents", "ls"]), "counter/a\n");
    assert_eq!(quiet(&["tasks", "ls"]), format!("{id}\n"));
    assert_eq!(quiet(&["tasks", "dead"]), "");
    assert_eq!(quiet(&["agents", "pause", "counter/a"]), "");
    assert_eq!(quiet(&["nodes", "ls"]).trim().len(), 36);
    let failed = node.cli(&["agents", "show", "counter/never", "-q"]);
    assert!(failed.code == 3 && failed.err.contains("error:"), "{failed:?}");
}

/// Only `watch` told how far a task was; who waits for it saw nothing.
#[test]
fn progress_is_shown_at_a_terminal_to_whoever_waits() {
    let node = Node::start(&[]);
    let submit = ["tasks", "submit", "counter/a", "Sleep", r#"{"ms":1200}"#];
    let said = at_a_terminal(&node, &[&submit[..], &["--wait"]].concat(), "");
    assert!(said.code == 0 && said.out.contains('%') && said.out.contains("running"), "{said:?}");
    let id = node.cli(&submit).out.trim().to_owned();
    let said = at_a_terminal(&node, &["tasks", "wait", &id], "");
    assert!(said.code == 0 && said.out.contains('%') && said.out.contains("succeeded"), "{said:?}");
    let said = node.cli(&[&submit[..], &["--wait"]].concat());
    assert_eq!((said.code, said.err.as_str()), (0, ""), "off a terminal: none");
}
