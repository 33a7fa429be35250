//! What asks before something is lost, what only shows what would be, and what says nothing but data.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use crate::support::{Node, Said};

/// A command at a terminal, with what the person writes there.
fn at_a_terminal(node: &Node, args: &[&str], input: &str) -> Said {
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
    let mut child =
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
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
