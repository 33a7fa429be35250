//! What people and scripts rely on is there: every command that is promised, with its options and the aliases that
//! are not shown.

use crate::support::cli_alone;

/// A command, and what its help must name: options, and the words of its arguments.
const COMMANDS: &[(&str, &[&str])] = &[
    ("run", &["--config", "--set", "--data-dir"]),
    ("demo", &["--kills", "--once", "--data-dir", "--limit", "[DIR]"]),
    ("status", &["--json", "--strict", "-w, --watch"]),
    ("tree", &["--json", "-w, --watch"]),
    ("stop", &["--url", "--token", "-y, --yes", "--dry-run"]),
    ("kinds ls", &["--json"]),
    ("kinds show", &["<KIND>"]),
    ("kinds pause", &[]),
    ("kinds resume", &[]),
    ("schema", &["--check <FILE>"]),
    ("agents ls", &["--kind", "--status", "-n, --limit", "--all", "-w, --watch"]),
    ("agents show", &["<KIND/KEY>"]),
    (
        "agents send",
        &["<KIND/KEY>", "<MESSAGE>", "[JSON]", "--tell", "--submit", "--timeout", "--idempotency-key"],
    ),
    ("agents state", &["<KIND/KEY>", "--version"]),
    ("agents snapshots", &["<KIND/KEY>", "-n, --limit"]),
    ("agents stop", &["<KIND/KEY>", "--clear", "-y, --yes", "--dry-run"]),
    ("agents restart", &["<KIND/KEY>", "--clear"]),
    ("agents pause", &["<KIND/KEY>"]),
    ("agents resume", &["<KIND/KEY>"]),
    ("agents quarantine", &["<KIND/KEY>"]),
    ("agents release", &["<KIND/KEY>", "--version", "-y, --yes", "--dry-run"]),
    ("agents rollback", &["<KIND/KEY>", "--to", "-y, --yes", "--dry-run"]),
    ("agents edit", &["<KIND/KEY>", "--if-version", "-y, --yes", "--dry-run"]),
    ("agents delete", &["<KIND/KEY>", "-y, --yes", "--dry-run"]),
    (
        "tasks submit",
        &[
            "<TARGET>",
            "[MESSAGE|JSON]",
            "--at",
            "--in",
            "--priority",
            "--max-attempts",
            "--timeout",
            "--after",
            "--idempotency-key",
            "--wait",
            "--tag",
        ],
    ),
    ("tasks batch", &["--idempotency-key"]),
    ("tasks ls", &["--state", "--target", "--tag", "-n, --limit", "--all", "-w, --watch"]),
    ("tasks show", &["<ID>", "--input"]),
    ("tasks history", &["<ID>"]),
    ("tasks wait", &["<IDS>..."]),
    ("tasks watch", &["<ID>", "--jsonl"]),
    ("tasks cancel", &["<IDS>...", "-y, --yes", "--dry-run"]),
    ("tasks retry", &["[IDS]...", "--state", "--target", "--tag", "--code", "--dry-run", "-y, --yes"]),
    ("tasks dismiss", &["[IDS]...", "--target", "--tag", "--code", "--all", "--dry-run", "-y, --yes"]),
    ("tasks dead", &["--target", "--tag", "-n, --limit", "--all", "-w, --watch"]),
    ("tasks resolve", &["<ID>", "--succeeded", "--failed", "-y, --yes", "--dry-run"]),
    ("tasks signal", &["<ID>", "<NAME>"]),
    ("schedules ls", &["-n, --limit", "-w, --watch"]),
    ("schedules show", &["<NAME>"]),
    ("schedules add", &["<NAME>", "<CRON>", "<TARGET>", "[MESSAGE|JSON]"]),
    ("schedules rm", &["<NAME>", "-y, --yes", "--dry-run"]),
    ("schedules pause", &["<NAME>"]),
    ("schedules resume", &["<NAME>"]),
    ("schedules run", &["<NAME>"]),
    ("tools ls", &["-w, --watch"]),
    ("tools show", &["<NAME>"]),
    ("tools call", &["<NAME>", "[JSON]"]),
    ("crashes ls", &["--groups", "--since", "--until", "-n, --limit", "--all", "-w, --watch"]),
    ("crashes show", &["<ID>"]),
    ("events", &["-f, --follow", "--subject", "--event", "-n", "--since", "--jsonl"]),
    ("logs", &["-f, --follow", "--level", "--subject", "-n", "--since", "--jsonl"]),
    ("nodes ls", &["-w, --watch"]),
    ("nodes drain", &[]),
    ("nodes resume", &[]),
    ("config show", &["--origin"]),
    ("config check", &["--connect"]),
    ("config init", &["--force", "-y, --yes", "--dry-run"]),
    ("config set", &["<KEY>", "<VALUE>", "--dry-run"]),
    ("config unset", &["<KEY>", "-y, --yes", "--dry-run"]),
    ("db migrate", &[]),
    ("db status", &[]),
    ("db verify", &[]),
    ("db backup", &["<FILE>"]),
    ("doctor", &["--json"]),
    ("tokens ls", &[]),
    ("tokens add", &["<NAME>"]),
    ("tokens rm", &["<NAME>", "-y, --yes", "--dry-run"]),
    ("audit", &["--who", "--subject", "--action", "--since", "--until", "-n, --limit", "--all"]),
    ("login", &[]),
    ("completions", &["<SHELL>"]),
];

#[test]
fn every_promised_command_is_there_with_its_options() {
    for (command, named) in COMMANDS {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let said = cli_alone(&words);
        assert_eq!(said.code, 0, "{command}: {said:?}");
        for name in *named {
            assert!(said.out.contains(name), "`{command} --help` does not name {name}:\n{}", said.out);
        }
        assert!(said.out.contains("--json"), "{command} prints no JSON");
        assert!(said.out.contains("-q, --quiet"), "{command} is never quiet");
    }
}

/// Whoever adds a command adds it above.
#[test]
fn no_command_is_forgotten_here() {
    let listed = |words: &[&str]| -> Vec<String> {
        let help = cli_alone(&[words, &["--help"]].concat()).out;
        let after = help.split_once("Commands:\n").map_or("", |(_, rest)| rest);
        let lines = after.lines().take_while(|line| line.starts_with("  "));
        lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    };
    let known = |command: &str| COMMANDS.iter().any(|(known, _)| *known == command);
    for group in listed(&[]).into_iter().filter(|name| name != "help") {
        let below: Vec<_> = listed(&[&group]).into_iter().filter(|name| name != "help").collect();
        if below.is_empty() {
            assert!(known(&group), "{group}");
        }
        for name in below {
            assert!(known(&format!("{group} {name}")), "{group} {name}");
        }
    }
}

#[test]
fn hidden_names_are_understood() {
    for (command, hidden) in [
        ("agents ls", "agent list"),
        ("agents show", "agent get"),
        ("agents show", "agents describe"),
        ("tasks ls", "task list"),
        ("tasks show", "task describe"),
        ("schedules ls", "schedule list"),
        ("schedules show", "schedule get"),
        ("tools ls", "tool list"),
        ("crashes ls", "crash list"),
        ("crashes show", "crash get"),
        ("nodes ls", "node list"),
        ("kinds show", "kind describe"),
        ("tokens ls", "token list"),
        ("events", "event"),
        ("logs", "log"),
    ] {
        let help = |words: &str| {
            let said = cli_alone(&words.split(' ').chain(["--help"]).collect::<Vec<_>>());
            assert_eq!(said.code, 0, "{words}: {said:?}");
            said.out
        };
        assert_eq!(help(command), help(hidden), "{hidden}");
    }
}
