//! `db` commands on Postgres.

use serde_json::json;

use crate::{
    postgres::Database,
    support::{Said, cli_alone},
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
