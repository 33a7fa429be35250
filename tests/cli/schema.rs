//! `schema`.

use serde_json::json;
use tempfile::TempDir;

use crate::support::cli_alone;

#[test]
fn a_program_is_held_to_what_it_promised() {
    let said = cli_alone(&["schema", "--set", "node.probe=true"]);
    let mut earlier = said.json();
    let add = &earlier["kinds"]["counter"]["messages"]["Add"];
    assert_eq!((said.code, &add["takes"]["properties"]["n"]["type"]), (0, &json!("integer")), "{said:?}");
    assert_eq!(earlier["tools"]["fs.read"]["effect"], "pure");

    let dir = TempDir::new().unwrap();
    let file = dir.path().join("schema.json").display().to_string();
    let check = |document: &serde_json::Value, more: &[&str]| {
        std::fs::write(&file, document.to_string()).unwrap();
        cli_alone(&[&["schema", "--check", &file, "--set", "node.probe=true"], more].concat())
    };
    assert_eq!(check(&earlier, &[]).code, 0);
    let messages = earlier["kinds"]["counter"]["messages"].as_object_mut().unwrap();
    messages["Add"]["takes"]["properties"]["by"] = json!({"type": "string"});
    messages.insert("Take".to_owned(), json!({"takes": {}, "replies": {}, "refuses": {}}));
    let said = check(&earlier, &[]);
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    for line in [
        "/kinds/counter/messages/Add/takes/properties/by: the field is gone",
        "/kinds/counter/messages/Take: the message is gone",
    ] {
        assert!(said.err.contains(line), "{said:?}");
    }
    let said = check(&earlier, &["--json"]);
    assert_eq!((said.code, said.json()["breaks"].as_array().unwrap().len()), (1, 2));
    assert_eq!(check(&json!([]), &[]).code, 2);
    assert_eq!(cli_alone(&["schema", "--check", "/nowhere/at/all"]).code, 2);
}
