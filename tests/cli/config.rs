//! `config set`, `unset`, `init` and `check`, `doctor` and `completions`.

use std::{fs, os::unix::fs::PermissionsExt as _};

use greenroom::store::{self, KeptSettings, StoreOptions};
use serde_json::json;

use crate::support::{Node, cli_alone};

#[test]
fn a_key_is_set_by_the_node_and_where_none_runs_in_the_store() {
    let mut node = Node::start(&[]);
    let data = node.data_dir().to_string_lossy().into_owned();
    let dry = node.cli(&["config", "set", "tasks.slots", "3", "--dry-run"]);
    assert_eq!(
        (dry.code, dry.out.as_str()),
        (0, "tasks.slots = 3  # would be in force at once\n"),
        "{dry:?}"
    );
    let set = node.cli_unaided(&["config", "set", "tasks.slots", "3", "--data-dir", &data]);
    assert_eq!((set.code, set.out.as_str()), (0, "tasks.slots = 3  # in force\n"), "{set:?}");
    let dry = node.cli(&["config", "set", "agents.default.mailbox", "9", "--dry-run"]);
    assert_eq!(dry.out, "agents.default.mailbox = 9  # would wait for a restart\n");
    let later = node.cli(&["config", "set", "agents.default.mailbox", "9"]);
    assert_eq!(later.out, "agents.default.mailbox = 9  # after a restart\n");
    let shown = node.cli(&["config", "show", "--origin"]);
    assert!(shown.out.contains("tasks.slots = 3  # config set"), "{shown:?}");
    assert!(shown.err.contains("agents.default.mailbox"), "{shown:?}");
    let wrong = node.cli(&["config", "set", "tasks.slts", "3"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.err.contains("did you mean tasks.slots?"), "{wrong:?}");
    let over = node.cli(&["config", "set", "node.threads", "3"]);
    assert!(over.code == 2 && over.err.contains("cannot be kept in the store"), "{over:?}");

    node.kill();
    let set = node.cli_unaided(&[
        "config",
        "set",
        "log.levels.\"greenroom::task\"",
        "debug",
        "--data-dir",
        &data,
        "--set",
        "http.bind=127.0.0.1:1",
    ]);
    assert_eq!(
        (set.code, set.out.as_str()),
        (0, "log.levels.\"greenroom::task\" = \"debug\"  # after a restart\n"),
        "{set:?}"
    );
    let wrong = node.cli_unaided(&[
        "config",
        "set",
        "log.level",
        "loud",
        "--data-dir",
        &data,
        "--set",
        "http.bind=127.0.0.1:1",
    ]);
    assert_eq!((wrong.code, wrong.out.as_str()), (9, ""), "{wrong:?}");
    let unset = node.cli_unaided(&[
        "config",
        "unset",
        "tasks",
        "--data-dir",
        &data,
        "--set",
        "http.bind=127.0.0.1:1",
    ]);
    assert!(unset.out.starts_with("tasks.slots = 64"), "{unset:?}");
    node.start_again();
    let shown = node.cli(&["config", "show"]).out;
    for line in
        ["agents.default.mailbox = 9", "log.levels.\"greenroom::task\" = \"debug\"", "tasks.slots = 64"]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let acts = node.get("/api/v1/audit?who=(config%20set)").json;
    let told = |n: usize| {
        json!([acts["items"][n]["before"], acts["items"][n]["after"], acts["items"][n]["outcome"]])
    };
    assert_eq!(told(0), json!([{"tasks.slots": 3}, {"tasks.slots": 64}, "ok"]), "also without a node");
    let level = "log.levels.\"greenroom::task\"";
    assert_eq!(told(1), json!([{level: null}, {level: "debug"}, "ok"]));
}

#[test]
fn a_kept_key_that_is_no_key_any_more_is_told_and_taken_away() {
    let mut node = Node::start(&[]);
    node.kill();
    let data = node.data_dir().to_string_lossy().into_owned();
    let values = [("tasks.slots", 3), ("tasks.gone", 1)].map(|(key, n)| (key.to_owned(), json!(n)));
    let kept = KeptSettings { generation: 1, values: values.into() };
    let url = format!("sqlite://{data}/greenroom.db");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = store::open(&url, &StoreOptions::default()).await.unwrap();
        assert!(store.keep_settings(&kept).await.unwrap());
    });
    let said = |args: &[&str]| {
        let there = ["--data-dir", &data, "--set", "http.bind=127.0.0.1:0"];
        node.cli_unaided(&[args, &there].concat())
    };
    for refused in [said(&["run"]), said(&["config", "check", "--connect"]), said(&["config", "show"])] {
        assert_eq!(refused.code, 9, "{refused:?}");
        assert!(
            refused.err.contains("config set: tasks.gone") && refused.err.contains("config unset tasks.gone"),
            "{refused:?}"
        );
    }
    let refused = said(&["config", "check", "--connect", "--json"]);
    assert_eq!((refused.code, &refused.json()["errors"][0]["key"]), (9, &json!("tasks.gone")));
    let unset = node.cli_unaided(&[
        "config",
        "unset",
        "tasks.gone",
        "--data-dir",
        &data,
        "--set",
        "http.bind=127.0.0.1:1",
    ]);
    assert_eq!(unset.code, 0, "{unset:?}");
    let shown = node.cli_unaided(&["config", "show", "--origin", "--data-dir", &data]);
    assert!(shown.out.contains("tasks.slots = 3  # config set"), "{shown:?}");
    let shown = node.cli_unaided(&["config", "show", "--local", "--data-dir", &data]);
    assert!(shown.out.contains("tasks.slots = 64"), "{shown:?}");
    node.start_again();
    assert!(node.cli(&["config", "show"]).out.contains("tasks.slots = 3"));
}

#[test]
fn a_file_is_written_that_says_what_there_is() {
    let node = Node::start(&[]);
    let said = node.cli_unaided(&["config", "init"]);
    assert_eq!((said.code, said.out.as_str()), (0, ""), "{said:?}");
    let text = fs::read_to_string(node.dir().join("greenroom.toml")).unwrap();
    for line in ["[tasks]", "#slots = 64", "# How many tasks for tools run at the same time."] {
        assert!(text.lines().any(|there| there.starts_with(line)), "{line}: {text}");
    }
    assert_eq!(node.cli_unaided(&["config", "check"]).code, 0);
    let again = node.cli_unaided(&["config", "init"]);
    assert!(again.code == 4 && again.err.contains("--force"), "{again:?}");
    assert_eq!(node.cli_unaided(&["config", "init", "--force", "--production"]).code, 0);
    assert_eq!(node.cli_unaided(&["config", "check"]).code, 0);
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let node = Node::start(&[]);
    let data = node.data_dir().to_string_lossy().into_owned();
    let well = node.cli(&["doctor", "--data-dir", &data]);
    assert_eq!(well.code, 0, "{well:?}");
    for check in [
        "✓ configuration",
        "✓ node",
        "✓ version",
        "✓ clock",
        "✓ store",
        "✓ cache",
        "✓ permissions",
        " disk",
        " open files",
    ] {
        assert!(well.out.contains(check), "{check}: {well:?}");
    }
    assert!(well.out.contains("has all ") && well.out.contains("and so is its token"), "{well:?}");
    let token = node.data_dir().join("token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let open = node.cli(&["doctor", "--json", "--data-dir", &data]);
    assert_eq!(open.code, 1, "{open:?}");
    let told = open.json();
    assert_eq!(told["healthy"], json!(false));
    let wrong: Vec<_> = told["checks"].as_array().unwrap().iter().filter(|c| c["state"] == "wrong").collect();
    assert_eq!(wrong.len(), 1, "{told}");
    assert_eq!(wrong[0]["check"], "permissions");
    assert_eq!(wrong[0]["remedy"], format!("chmod 600 {}", token.display()));
}

#[test]
fn without_a_node_the_doctor_and_check_look_at_the_neighbours() {
    let said = cli_alone(&["doctor", "--set", "http.bind=127.0.0.1:0"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("none runs") && said.out.contains("✓ port"), "{said:?}");
    // what needs no node to be known
    for check in
        ["✓ version", "✓ clock", "✓ store version  sqlite 3.", "✓ store clock", "✓ permissions", " disk "]
    {
        assert!(said.out.contains(check), "{check}: {said:?}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert!(said.out.contains(&format!("this program is {version}; there is no node")), "{said:?}");
    let logs = tempfile::tempdir().unwrap();
    let path = format!("log.file.path={}", logs.path().join("node.log").display());
    let said = cli_alone(&["doctor", "--set", "http.bind=127.0.0.1:0", "--set", &path]);
    assert!(said.out.contains(&format!("free for {}", logs.path().display())), "{said:?}");
    for (set, check) in [
        ("store.url=postgres://nobody@127.0.0.1:1/x", "✗ store"),
        ("cache.url=redis://127.0.0.1:1", "! cache"),
        ("cache.tls_ca=nowhere.pem", "✗ cache.tls_ca"),
        ("tools.fs.roots=nowhere", "! tools.fs.roots"),
        ("log.file.path=nowhere/log", "✗ log.file.path"),
    ] {
        let said = cli_alone(&["config", "check", "--connect", "--set", set]);
        assert_eq!(said.code, i32::from(check.starts_with('✗')), "{set}: {said:?}");
        assert!(said.out.contains(check) && said.out.contains('→'), "{set}: {said:?}");
    }
}

/// A pair that did not belong together passed, and `run` failed with it.
#[test]
fn files_that_run_cannot_use_do_not_pass_the_check() {
    let file = |name: &str| format!("{}/tests/support/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "secret\n").unwrap();
    let check = |cert: &str, mode: u32| {
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
        let sets = [
            format!("http.tls.cert={}", file(cert)),
            format!("http.tls.key={}", file("server.key")),
            format!("http.token_file={}", token.display()),
        ];
        let args = sets.iter().flat_map(|set| ["--set", set]);
        cli_alone(&["config", "check", "--connect"].into_iter().chain(args).collect::<Vec<_>>())
    };
    let well = check("server.pem", 0o600);
    assert!(well.code == 0 && well.out.contains("✓ http.tls "), "{well:?}");
    let other = check("ca.pem", 0o600);
    assert!(
        other.code == 1 && other.out.contains("✗ http.tls ") && other.out.contains("cannot be used with"),
        "{other:?}"
    );
    let open = check("server.pem", 0o644);
    assert!(open.code == 1 && open.out.contains("✗ http.token_file"), "{open:?}");
    assert!(open.out.contains(&format!("chmod 600 {}", token.display())), "{open:?}");
    let group = check("server.pem", 0o640);
    assert!(group.code == 0 && group.out.contains("! http.token_file"), "{group:?}");
}

#[test]
fn shells_are_given_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = cli_alone(&["completions", shell]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains("greenroom") && said.out.contains("schedules"), "{shell}: {said:?}");
    }
    assert_eq!(cli_alone(&["completions", "dos"]).code, 2);
}
