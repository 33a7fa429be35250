//! Settings as files, environment and arguments make them.

use std::{collections::BTreeSet, fs, time::Duration};

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn sources() -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let sources = Sources { cwd: dir.path().to_owned(), ..Sources::default() };
    (dir, sources)
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

fn errors(sources: &Sources) -> Vec<String> {
    load(sources).unwrap_err().0.iter().map(ToString::to_string).collect()
}

fn origin(settings: &Settings, key: &str) -> String {
    settings.show().iter().find(|s| s.key == key).unwrap().origin.to_string()
}

#[test]
fn the_defaults_are_valid_and_what_the_contract_says() {
    let (_dir, sources) = sources();
    let settings = load(&sources).unwrap();
    assert_eq!(settings.node.name, "node");
    assert_eq!(&*settings.store.url, "sqlite://./greenroom-data/greenroom.db");
    assert_eq!(settings.http.bind.to_string(), "127.0.0.1:7710");
    assert!(settings.http.token.is_none() && settings.log.file.path.is_none());
    let agent = settings.agent("tally");
    assert_eq!((agent.mailbox, agent.idle_timeout), (1024, Duration::from_secs(300)));
    assert_eq!(agent.restart, crate::model::supervision::RestartPolicy::default());
    assert_eq!(settings.tasks.retention, Duration::from_secs(7 * 86_400));
    assert_eq!(settings.tasks.retention_failed, Duration::from_secs(30 * 86_400));
    assert_eq!(settings.tasks.max_backlog, 1_000_000);
    let live = ["slots", "max_backlog", "retention", "retention_failed"];
    assert!(live.iter().all(|key| is_live(&format!("tasks.{key}"))) && !is_live("tasks.max_lost"));
    assert!(settings.tools.fs.roots.is_empty());
}

/// The keys that the structs write, and the keys that the file explains, are the same.
#[test]
fn the_file_of_defaults_and_the_structs_have_the_same_keys() {
    fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, inner) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    leaves(inner, &path, found);
                }
            }
            Value::Object(_) => {}
            _ => {
                found.insert(path.to_owned());
            }
        }
    }
    let (_dir, sources) = sources();
    let settings = load(&sources).unwrap();
    let mut in_structs = BTreeSet::new();
    leaves(&serde_json::to_value(&settings).unwrap(), "", &mut in_structs);
    let in_file: BTreeSet<String> = settings.show().iter().map(|s| s.key.clone()).collect();
    assert_eq!(in_structs, in_file);
}

#[test]
fn every_default_has_a_comment_above_it() {
    let lines: Vec<&str> = DEFAULTS.lines().collect();
    for pair in lines.windows(2) {
        if pair[1].contains('=') && !pair[1].starts_with('#') {
            assert!(pair[0].starts_with("# "), "no comment above: {}", pair[1]);
        }
    }
}

#[test]
fn the_production_example_is_valid_as_it_is_and_uncommented() {
    let (dir, mut sources) = sources();
    let uncommented: String = PRODUCTION
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") || rest.starts_with('[') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    fs::write(dir.path().join("a.toml"), PRODUCTION).unwrap();
    fs::write(dir.path().join("b.toml"), uncommented).unwrap();
    sources.files = vec!["a.toml".into(), "b.toml".into()];
    let settings = load(&sources).unwrap();
    assert_eq!(settings.agent("librarian").mailbox, 4096);
    assert_eq!(settings.agent("other").idle_timeout, Duration::from_secs(900));
}

#[test]
fn later_layers_win_and_origins_are_known() {
    let (dir, mut sources) = sources();
    fs::write(dir.path().join(FILE), "[tasks]\nslots = 1\nmax_lost = 7\n\n[http]\nbind = \"[::1]:1\"\n")
        .unwrap();
    let origin_of = |sources: &Sources| {
        let settings = load(sources).unwrap();
        (settings.tasks.slots, origin(&settings, "tasks.slots"))
    };
    assert_eq!(origin_of(&sources), (1, "greenroom.toml:2".into()));
    sources.stored = vec![("tasks.slots".into(), 2.into())];
    assert_eq!(origin_of(&sources), (2, "config set".into()));
    sources.env = pairs(&[("GREENROOM_TASKS__SLOTS", "3"), ("GREENROOM_URL", "x"), ("HOSTNAME", "box")]);
    assert_eq!(origin_of(&sources), (3, "env GREENROOM_TASKS__SLOTS".into()));
    sources.overrides = pairs(&[("tasks.slots", "4")]);
    assert_eq!(origin_of(&sources), (4, "program".into()));
    sources.sets = vec!["tasks.slots=5".into()];
    assert_eq!(origin_of(&sources), (5, "--set tasks.slots".into()));
    sources.data_dir = Some("/d".into());
    let settings = load(&sources).unwrap();
    assert_eq!((&*settings.store.url, settings.node.name.as_str()), ("sqlite:///d/greenroom.db", "box"));
    assert_eq!((settings.tasks.max_lost, origin(&settings, "http.bind")), (7, "greenroom.toml:6".into()));
}

#[test]
fn named_files_replace_the_one_in_the_directory() {
    let (dir, mut sources) = sources();
    fs::write(dir.path().join(FILE), "[tasks]\nslots = 1\n").unwrap();
    fs::write(dir.path().join("a.toml"), "tasks.slots = 8\ntasks.max_lost = 9\n").unwrap();
    fs::write(dir.path().join("b.toml"), "[tasks]\nslots = 10\n").unwrap();
    sources.files = vec!["a.toml".into(), "b.toml".into()];
    let settings = load(&sources).unwrap();
    assert_eq!((settings.tasks.slots, settings.tasks.max_lost), (10, 9));
    sources.files.push("gone.toml".into());
    assert!(errors(&sources)[0].starts_with("cannot read gone.toml"));
}

#[test]
fn all_errors_are_reported_at_once_with_their_places() {
    let (dir, mut sources) = sources();
    let text = "[tasks]\nslot = 1\nslots = \"many\"\n[node]\nlease = 30\n[log]\nlevel = \"loud\"\n";
    fs::write(dir.path().join(FILE), text).unwrap();
    sources.env = pairs(&[("GREENROOM_STORE__POOLSIZE", "3"), ("GREENROOM_STORE__URL", "mysql://x")]);
    sources.sets = vec!["nonsense".into(), "supervision.backoff_min=1h".into(), "log=5".into()];
    let said = errors(&sources).join("\n");
    for part in [
        "greenroom.toml:2: tasks.slot: there is no such key  → did you mean tasks.slots?",
        "greenroom.toml:3: tasks.slots: invalid type: string \"many\", expected u32",
        "greenroom.toml:5: node.lease: `30` has no unit: write \"30s\"",
        "greenroom.toml:7: log.level: unknown variant `loud`",
        "env GREENROOM_STORE__POOLSIZE: store.poolsize: there is no such key  → did you mean store.pool_size?",
        "env GREENROOM_STORE__URL: store.url: `mysql://` is not supported  → use one of sqlite://",
        "--set nonsense cannot be read  → write --set section.key=value",
        "--set supervision.backoff_min: supervision.backoff_min: this is longer than backoff_max",
        "--set log: log: this is a section, not a value",
    ] {
        assert!(said.contains(part), "{part}\nnot in:\n{said}");
    }
    assert_eq!(said.lines().count(), 9, "{said}");
}

#[test]
fn broken_toml_is_told_with_its_line() {
    let (dir, sources) = sources();
    fs::write(dir.path().join(FILE), "[tasks]\nslots = = 3\n").unwrap();
    let said = errors(&sources);
    assert!(said[0].starts_with("greenroom.toml:2: this is not TOML:"), "{said:?}");
}

#[test]
fn general_variables_give_way_to_ours() {
    let (_dir, mut sources) = sources();
    sources.env = pairs(&[
        ("GREENROOM_CACHE__URL", "rediss://ours"),
        ("DATABASE_URL", "postgres://me:pw@db/x"),
        ("REDIS_URL", "redis://theirs"),
    ]);
    let settings = load(&sources).unwrap();
    assert_eq!(&*settings.cache.url, "rediss://ours");
    assert_eq!(&*settings.store.url, "postgres://me:pw@db/x");
    assert_eq!(origin(&settings, "store.url"), "env DATABASE_URL");
    let shown = serde_json::to_string(settings.show()).unwrap();
    assert!(shown.contains("postgres://me:***@db/x") && !shown.contains("pw@"), "{shown}");
}

#[test]
fn secrets_are_never_shown() {
    let (_dir, mut sources) = sources();
    sources.sets = vec!["http.token=hunter2-hunter2-hunter2".into(), "app.mail.api_key=hunter2".into()];
    let settings = load(&sources).unwrap();
    assert_eq!(settings.http.token.as_ref().unwrap().reveal(), "hunter2-hunter2-hunter2");
    assert!(!serde_json::to_string(settings.show()).unwrap().contains("hunter2"));
    assert!(!format!("{:?}", settings.http).contains("hunter2"));
    sources.sets.push("http.token_file=/x".into());
    assert_eq!(errors(&sources).len(), 1);
}

#[test]
fn secrets_within_lists_are_neither_shown_nor_kept_in_the_store() {
    let (dir, mut sources) = sources();
    let text = "[app.mail]\nurls = [\"smtp://me:hunter2@h\"]\n[[app.mail.accounts]]\nname = \"a\"\npassword = \"hunter2\"\n";
    fs::write(dir.path().join(FILE), text).unwrap();
    let shown = serde_json::to_string(load(&sources).unwrap().show()).unwrap();
    assert!(!shown.contains("hunter2") && shown.contains(r#""name":"a","password":"***""#), "{shown}");
    fs::remove_file(dir.path().join(FILE)).unwrap();
    for kept in [json!([{"password": "hunter2"}]), json!(["a", ["smtp://me:hunter2@h"]])] {
        sources.stored = vec![("app.mail.accounts".into(), kept)];
        let errors = errors(&sources);
        assert!(errors.len() == 1 && errors[0].contains("a secret is not kept"), "{errors:?}");
    }
}

#[test]
fn a_token_that_can_be_guessed_is_refused() {
    let (_dir, mut sources) = sources();
    sources.sets = vec!["http.token=hunter2".into()];
    let errors = errors(&sources);
    assert!(errors[0].contains("fewer than 16 bytes") && errors[0].contains("openssl rand"), "{errors:?}");
    assert!(!errors[0].contains("hunter2"), "{errors:?}");
}

#[test]
fn a_secret_of_the_wrong_type_is_not_quoted() {
    #[derive(serde::Deserialize)]
    struct Pay {
        #[allow(dead_code)]
        api_key: u16,
    }
    let (dir, sources) = sources();
    fs::write(dir.path().join(FILE), "[http]\ntoken = 1234567890123456\n").unwrap();
    let said = errors(&sources);
    assert!(said[0].contains("greenroom.toml:2: http.token") && said[0].contains("quotation"), "{said:?}");
    assert!(!said[0].contains("1234567890123456"), "{said:?}");
    fs::write(dir.path().join(FILE), "[app.pay]\napi_key = \"hunter2\"\n").unwrap();
    let said = load(&sources).unwrap().app_as::<Pay>("pay").err().unwrap().to_string();
    assert!(said.contains("app.pay.api_key") && !said.contains("hunter2"), "{said}");
}

#[test]
fn kinds_of_agents_lie_over_the_default() {
    let (dir, mut sources) = sources();
    let text = "[agents.default]\nmailbox = 7\nmax_restarts = 3\n[agents.shelf]\nidle_timeout = \"1s\"\n";
    fs::write(dir.path().join(FILE), text).unwrap();
    sources.sets = vec!["agents.shelf.persistence=relaxed".into(), "agents.shelf={\"within\":\"2s\"}".into()];
    let settings = load(&sources).unwrap();
    let shelf = settings.agent("shelf");
    assert_eq!(
        (shelf.mailbox, shelf.idle_timeout, shelf.restart.max_restarts),
        (7, Duration::from_secs(1), 3)
    );
    assert_eq!(shelf.restart.within, Duration::from_secs(2));
    assert_eq!(shelf.persistence, Some(Persistence::Relaxed));
    assert_eq!(settings.agent("other").idle_timeout, Duration::from_secs(300));
    sources.sets = vec!["agents.shelf.mailbx=1".into(), "agents.Shelf.mailbox=1".into()];
    let said = errors(&sources);
    assert!(said[0].contains("did you mean agents.shelf.mailbox?"), "{said:?}");
    assert!(said[1].contains("`Shelf` is not a kind"), "{said:?}");
}

#[test]
fn roots_are_one_path_or_a_list() {
    let (_dir, mut sources) = sources();
    for (given, expected) in [("docs", vec!["docs"]), ("[\"a\",\"b\"]", vec!["a", "b"]), ("", vec![])] {
        sources.sets = vec![format!("tools.fs.roots={given}")];
        let roots = load(&sources).unwrap().tools.fs.roots;
        assert_eq!(roots, expected.into_iter().map(PathBuf::from).collect::<Vec<_>>());
    }
}

#[test]
fn a_module_with_colons_or_dots_has_its_level() {
    let (dir, mut sources) = sources();
    fs::write(dir.path().join(FILE), "[log.levels]\n\"greenroom::store\" = \"debug\"\n").unwrap();
    sources.sets = vec!["log.levels.\"a.b\"=WARN".into()];
    let settings = load(&sources).unwrap();
    assert_eq!(settings.log.levels["greenroom::store"].name(), "debug");
    assert_eq!(settings.log.levels["a.b"].name(), "warn");
}

#[test]
fn the_store_keeps_nothing_about_itself_or_the_node() {
    let (_dir, mut sources) = sources();
    sources.stored = vec![("store.url".into(), "memory://".into())];
    assert!(errors(&sources)[0].contains("cannot be kept in the store"));
}

#[test]
fn the_programs_own_section_is_read_with_its_errors_in_place() {
    #[derive(Debug, serde::Deserialize, PartialEq)]
    #[serde(default)]
    struct Crawl {
        depth: u32,
        agent: String,
    }
    impl Default for Crawl {
        fn default() -> Self {
            Self { depth: 3, agent: "007".into() }
        }
    }
    let (dir, mut sources) = sources();
    assert_eq!(load(&sources).unwrap().app_as::<Crawl>("crawl").unwrap(), Crawl::default());
    fs::write(dir.path().join(FILE), "[app.crawl]\nagent = \"x\"\n").unwrap();
    sources.env = pairs(&[("GREENROOM_APP__CRAWL__DEPTH", "5")]);
    let settings = load(&sources).unwrap();
    assert_eq!(settings.app_as::<Crawl>("crawl").unwrap(), Crawl { depth: 5, agent: "x".into() });
    assert_eq!(settings.app("crawl")["agent"], "x");
    sources.env = pairs(&[("GREENROOM_APP__CRAWL__DEPTH", "deep"), ("GREENROOM_APP__CRAWL__DEPHT", "1")]);
    let said = load(&sources).unwrap().app_as::<Crawl>("crawl").unwrap_err().to_string();
    assert!(said.contains("env GREENROOM_APP__CRAWL__DEPTH: app.crawl.depth:"), "{said}");
}

#[test]
fn a_change_says_whether_it_needs_a_restart() {
    let (_dir, mut sources) = sources();
    let before = load(&sources).unwrap();
    sources.sets = ["tasks.slots=3", "http.token=hunter2-hunter2-hunter2", "app.x.y=1", "log.format=PRETTY"]
        .map(str::to_owned)
        .to_vec();
    let changes = before.changes(&load(&sources).unwrap());
    let told: Vec<_> = changes.iter().map(|c| (c.key.as_str(), c.live)).collect();
    assert_eq!(told, [("app.x.y", true), ("http.token", false), ("tasks.slots", true)]);
    assert_eq!(changes[1].value, Some("***".into()));
}

#[test]
fn a_tool_is_named_with_its_dots_however_it_is_written() {
    let (dir, mut sources) = sources();
    let text = "[tools.fs.read]\nmax_attempts = 2\n[tools.\"fs.list\"]\nretry_min = \"1s\"\n[tools.fs]\nroots = \"docs\"\n";
    fs::write(dir.path().join(FILE), text).unwrap();
    sources.env = pairs(&[("GREENROOM_TOOLS__BANK__MAX_ATTEMPTS", "3")]);
    sources.sets = vec![
        "tools.fs.read.retry_max=9s".into(),
        "agents.clerk.max_attempts=4".into(),
        "agents.clerk.priority=-2".into(),
        "tools.fs.read.max_restarts=1".into(),
        "tools.fs.read.backoff_max=1m".into(),
    ];
    let settings = load(&sources).unwrap();
    let restarts = settings.tool("fs.read").intensity.over(settings.supervision.policy());
    assert_eq!((restarts.max_restarts, restarts.backoff_max), (1, Duration::from_secs(60)));
    assert_eq!(restarts.within, settings.supervision.within);
    let read = settings.tool("fs.read").tasks;
    assert_eq!((read.max_attempts, read.retry_max), (Some(2), Some(Duration::from_secs(9))));
    assert_eq!(settings.tool("fs.list").tasks.retry_min, Some(Duration::from_secs(1)));
    assert_eq!(settings.tool("bank").tasks.max_attempts, Some(3));
    assert_eq!(settings.tools.fs.roots, [std::path::PathBuf::from("docs")]);
    let clerk = settings.agent("clerk").terms;
    assert_eq!((clerk.max_attempts, clerk.min, clerk.priority), (4, Duration::from_millis(200), -2));
    sources.sets = vec!["tools.fs.read.max_attempt=9".into(), "tools.bank.retry_min=1h".into()];
    let errors = errors(&sources);
    assert!(errors.iter().any(|e| e.contains("did you mean tools.fs.read.max_attempts")), "{errors:?}");
    sources.sets = vec!["tools.bank.retry_min=1h".into()];
    let errors = self::errors(&sources);
    assert!(errors.iter().any(|e| e.contains("longer than retry_max")), "{errors:?}");
    // its code may say more
    sources.sets = vec!["tools.bank.backoff_min=1h".into()];
    assert!(load(&sources).is_ok());
    sources.sets.extend(["tools.bank.backoff_max=1m".into(), "tools.fs.read.within=0s".into()]);
    let errors = self::errors(&sources);
    for told in ["longer than backoff_max", "fs.read\".within"] {
        assert!(errors.iter().any(|e| e.contains(told)), "{told}: {errors:?}");
    }
}

proptest! {
    /// Whatever stands in a file, in the environment or in arguments is read or refused, and nothing else.
    #[test]
    fn nothing_is_too_strange_to_be_refused(
        file in text(),
        name in "GREENROOM_[A-Za-z_.\"]{0,20}",
        value in text(),
        sets in proptest::collection::vec(text(), 0..3),
        kept in proptest::collection::vec((text(), json()), 0..3),
    ) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), &file).unwrap();
        let sources = Sources {
            cwd: dir.path().into(),
            env: vec![(name, value)],
            sets,
            stored: kept.clone(),
            ..Sources::default()
        };
        if let Err(errors) = load(&sources) {
            prop_assert!(!errors.0.is_empty() && !errors.to_string().is_empty());
            errors.0.iter().for_each(|problem| drop(problem.pointer()));
        }
        let kept = kept.into_iter().collect();
        if let Ok(next) = patched(&kept, &json!({"log": {"level": "debug"}})) {
            prop_assert_eq!(&next["log.level"], &json!("debug"));
        }
    }
}

/// Texts, many of which look like settings.
fn text() -> impl Strategy<Value = String> {
    let key = "(\\[)?(node|store|http|log|tasks|agents|app|tools|limits)(\\.[a-z_\"*]{0,9}){0,3}(\\])?";
    let value =
        "( ?= ?)?(-?[0-9]{0,20}|\"[^\"]{0,9}\"|true|\\[.{0,5}|\\{.{0,5}|[0-9]{1,25}(ms|s|d|MiB|TiB)?)";
    prop_oneof![(key, value, "\n?").prop_map(|(key, value, end)| format!("{key}{value}{end}")), ".{0,40}",]
}

fn json() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
        proptest::collection::vec(text().prop_map(Value::from), 0..3).prop_map(Value::from),
        (text(), text()).prop_map(|(key, value)| json!({key: value})),
    ]
}
