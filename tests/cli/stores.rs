//! `db` commands on Postgres.

use serde_json::json;

use crate::{
    postgres::Database,
    support::{Node, Said, cli_alone},
};

fn db(command: &str, url: &str, more: &[&str]) -> Said {
    let set = format!("store.url={url}");
    cli_alone(&[&["db", command, "--set", &set], more].concat())
}

#[test]
fn the_tables_are_made_told_and_read() {
    let database = Database::new();
    let url = database.url();
    let said = db("status", &url, &[]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.out.contains("pending  00000000000001_ground"), "{said:?}");
    let said = db("verify", &url, &[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("there is no store at postgres://127.0.0.1"), "{said:?}");
    let said = db("migrate", &url, &["--json"]);
    assert_eq!((said.code, &said.json()["applied"][0]), (0, &json!("00000000000001_ground")), "{said:?}");
    let said = db("migrate", &url, &["--json"]);
    assert_eq!((said.code, said.json()), (0, json!({"applied": []})), "{said:?}");
    assert_eq!(db("status", &url, &[]).code, 0);
    let said = db("verify", &url, &[]);
    assert_eq!((said.code, said.out.as_str()), (0, "read 0 agents, 0 snapshots, 0 tasks\n"), "{said:?}");
}

#[test]
fn the_doctor_knows_the_server_its_clock_and_its_tables_without_a_node() {
    let database = Database::new();
    let store = format!("store.url={}", database.url());
    let doctor = || cli_alone(&["doctor", "--set", "http.bind=127.0.0.1:0", "--set", &store]);
    let said = doctor();
    assert!(said.code == 0 && said.out.contains("migrations are pending"), "{said:?}");
    assert_eq!(db("migrate", &database.url(), &[]).code, 0);
    let said = doctor();
    assert_eq!(said.code, 0, "{said:?}");
    for line in [
        "and has all ",
        "✓ store version  postgres 1",
        "✓ store clock    this machine's and the database's agree",
    ] {
        assert!(said.out.contains(line), "{line}: {said:?}");
    }
}

#[test]
fn somebody_elses_database_is_used_only_when_told() {
    let database = Database::new();
    database.psql("CREATE TABLE customers (id int)");
    let set = format!("store.url={}", database.url());
    let said = cli_alone(&[
        "run",
        "--set",
        "http.bind=127.0.0.1:0",
        "--set",
        "store.durability=relaxed",
        "--set",
        &set,
    ]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.err.contains("db migrate") && said.err.contains("customers"), "{said:?}");
    assert_eq!(db("migrate", &database.url(), &[]).code, 0);
    assert_eq!(db("status", &database.url(), &[]).code, 0);
    assert_eq!(database.psql("SELECT count(*) FROM customers"), "0");
}

#[test]
fn a_server_that_is_not_there_and_a_wrong_url_are_named_without_the_password() {
    for (url, word) in [
        ("postgres://u:hunter2@127.0.0.1:1/d", "cannot be reached"),
        ("postgres://u:hunter2@127.0.0.1:1/d?sslmode=prefer", "sslmode=prefer"),
    ] {
        for command in ["migrate", "status", "verify"] {
            let said = db(command, url, &[]);
            assert_eq!(said.code, 1, "{said:?}");
            assert!(said.err.contains(word) && !said.err.contains("hunter2"), "{said:?}");
        }
    }
}

#[test]
fn a_store_is_copied_while_its_node_works() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":7}"#);
    node.ask("b", "Add", r#"{"n":1}"#);
    let data = node.data_dir().to_string_lossy().into_owned();
    let backup = |file: &str| node.cli(&["db", "backup", file, "--data-dir", &data]);
    assert_eq!(backup("nowhere/greenroom.db").code, 1, "there is no such folder");
    std::fs::create_dir(node.dir().join("copy")).unwrap();
    let said = std::thread::scope(|scope| {
        let busy = scope.spawn(|| (0..200).for_each(|_| drop(node.ask("b", "Add", r#"{"n":1}"#))));
        let said = backup("copy/greenroom.db");
        busy.join().unwrap();
        said
    });
    assert!(said.code == 0 && said.err.contains("copy/greenroom.db has"), "{said:?}");
    assert_eq!(std::fs::read_dir(node.dir().join("copy")).unwrap().count(), 1, "and nothing else is left");
    let again = backup("copy/greenroom.db");
    assert!(again.code == 4 && again.err.contains("is there already"), "{again:?}");
    let verified = node.cli(&["db", "verify", "--data-dir", "copy"]);
    assert!(verified.code == 0 && verified.out.contains("read 2 agents"), "{verified:?}");
}

#[test]
fn of_postgres_it_is_said_what_copies_it() {
    let url = "store.url=postgres://me:secret@localhost/rooms";
    let said = cli_alone(&["db", "backup", "copy.dump", "--set", url]);
    assert!(said.code == 2 && said.err.contains("pg_dump --format=custom"), "{said:?}");
    assert!(!said.err.contains("secret"), "{said:?}");
}
