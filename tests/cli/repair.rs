//! `agents edit`, `rollback` and `delete`.

use crate::support::Node;

#[test]
fn a_state_is_edited_rolled_back_and_deleted() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":1}"#);
    let state = node.get("/api/v1/agents/counter/a/state").json["state"].to_string();
    std::fs::write(node.dir().join("state.json"), state.replace("\"total\":1", "\"total\":50")).unwrap();
    let edit =
        |version: &str| node.cli(&["agents", "edit", "counter/a", "@state.json", "--if-version", version]);
    let said = edit("1");
    assert!(said.code == 0 && said.err.contains("version 2 now"), "{said:?}");
    let stale = edit("1");
    assert!(stale.code == 4 && stale.err.contains("version 2"), "{stale:?}");
    let said = node.cli(&["agents", "edit", "counter/a", r#"{"total":"x"}"#, "--if-version", "2"]);
    assert!(said.code == 2 && said.err.contains("/total"), "{said:?}");
    assert_eq!(node.cli(&["agents", "edit", "counter/a", "@state.json"]).code, 2, "over which version?");
    assert_eq!(node.cli(&["agents", "edit", "counter/a"]).code, 2, "no terminal, no editor");

    let dry = node.cli(&["agents", "rollback", "counter/a", "--to", "1", "--dry-run"]);
    assert_eq!((dry.code, dry.out.as_str()), (0, "- /total: 50\n+ /total: 1\n"), "{dry:?}");
    assert_eq!(node.ask("a", "Get", "").json["total"], 50);
    assert_eq!(node.cli(&["agents", "rollback", "counter/a", "--to", "1"]).code, 0);
    assert_eq!(node.ask("a", "Get", "").json["total"], 1);
    assert_eq!(node.cli(&["agents", "rollback", "counter/a", "--to", "77"]).code, 3);

    assert_eq!(node.cli(&["agents", "delete", "counter/a"]).code, 2, "nobody is there to be asked");
    let said = node.cli(&["agents", "delete", "counter/a", "--yes"]);
    assert!(said.code == 0 && said.err.contains("is deleted"), "{said:?}");
    assert_eq!(node.cli(&["agents", "delete", "counter/a", "--yes"]).code, 3);
}

#[test]
fn a_node_is_drained_and_resumed() {
    let node = Node::start(&["node.name=eu-1"]);
    assert_eq!(node.cli(&["nodes", "drain", "eu-1"]).code, 0);
    assert!(node.cli(&["nodes", "ls"]).out.contains("draining"));
    assert_eq!(node.cli(&["status", "--strict"]).code, 7);
    assert_eq!(node.cli(&["nodes", "resume", "self"]).code, 0);
    assert!(!node.cli(&["nodes", "ls"]).out.contains("draining"));
    assert_eq!(node.cli(&["nodes", "drain", "nobody"]).code, 3);
}
