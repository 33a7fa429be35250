//! The JSON schema of `PATCH /config`, derived from the built-in defaults, so that no key is forgotten.

use serde_json::{Map, Value, json};

use super::{
    DEFAULTS, Origin,
    check::{agent_keys, is_number, put, tool_keys},
    is_local, layer,
    supervision::GROUP_KEYS,
};
use crate::model::units::{DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size};

/// Sections that only files, the environment and arguments set: they say where the store is.
const OUT_OF_REACH: [&str; 2] = ["store", "node"];

/// The schema of a JSON merge patch of all sections.
pub fn settings_schema() -> Value {
    let mut tree = Value::Object(Map::new());
    for entry in layer::from_toml(DEFAULTS, |_| Origin::Default, &mut Vec::new()).0 {
        let section = entry.key.0.first().map(String::as_str).unwrap_or_default();
        if !OUT_OF_REACH.contains(&section) && !is_local(&entry.key.to_string()) {
            put(&mut tree, &entry.key.0, entry.value);
        }
    }
    let mut schema = section(tree);
    let kind = of_keys(agent_keys());
    let tool = of_keys(tool_keys());
    let levels = json!({"type": ["object", "null"], "additionalProperties": level()});
    let groups = json!({"type": ["object", "null"], "additionalProperties": of_keys(GROUP_KEYS.into_iter())});
    for (pointer, open) in [
        ("/properties/log/properties/levels", levels.clone()),
        ("/properties/log/properties/subjects", levels),
        ("/properties/supervision/properties/groups", groups),
        ("/properties/agents/additionalProperties", kind.clone()),
        ("/properties/tools", json!({"type": ["object", "null"], "additionalProperties": tool})),
        ("/properties/app", json!({"type": ["object", "null"]})),
    ] {
        let (section, name) = pointer.rsplit_once('/').unwrap_or_default();
        if let Some(Value::Object(members)) = schema.pointer_mut(section) {
            members.insert(name.to_owned(), open);
        }
    }
    // What holds for one kind can be set for all of them too, also where it is not by default.
    if let Some(Value::Object(all)) = schema.pointer_mut("/properties/agents/properties/default/properties")
        && let Some(Value::Object(one)) = kind.get("properties")
    {
        for (key, value) in one {
            all.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    schema["patternProperties"] = json!({"\\.": {"description": "A dotted key."}});
    schema["type"] = json!("object");
    schema
}

/// A section with these values, or a value such as this one.
fn section(sample: Value) -> Value {
    match sample {
        Value::Object(members) => {
            let members: Map<String, Value> =
                members.into_iter().map(|(name, sample)| (name.clone(), named(&name, sample))).collect();
            json!({"type": ["object", "null"], "properties": members, "additionalProperties": false})
        }
        // numbers and yes or no are also read from text
        Value::Bool(_) => json!({"enum": [true, false, "true", "false", null]}),
        Value::Number(_) => {
            json!({"type": ["integer", "string", "null"], "minimum": 0, "pattern": "^[0-9]+$"})
        }
        Value::Array(_) => {
            json!({"type": ["array", "string", "null"], "items": {"type": "string"}})
        }
        Value::String(text) if parse_duration(&text).is_ok() => with_unit(DURATION_PATTERN),
        Value::String(text) if parse_size(&text).is_ok() => with_unit(SIZE_PATTERN),
        _ => json!({"type": ["string", "null"]}),
    }
}

/// Nothing needs no unit.
fn with_unit(pattern: &str) -> Value {
    json!({
        "type": ["string", "integer", "null"], "pattern": format!("^{pattern}$"), "minimum": 0, "maximum": 0,
    })
}

fn named(name: &str, sample: Value) -> Value {
    let mut schema = match name {
        "level" => level(),
        "format" => json!({"enum": ["pretty", "compact", "json", null]}),
        _ => return section(sample),
    };
    // It may be that of another key.
    if let (true, Some(Value::Array(words))) = (sample == json!(""), schema.get_mut("enum")) {
        words.push(sample);
    }
    schema
}

fn level() -> Value {
    json!({"enum": ["debug", "info", "warn", "error", "critical", null]})
}

fn of_keys(keys: impl Iterator<Item = &'static str>) -> Value {
    let value = |key: &str| match key {
        "priority" => {
            let text = "^-?[0-9]+$";
            json!({"type": ["integer", "string", "null"], "minimum": i16::MIN, "maximum": i16::MAX, "pattern": text})
        }
        key if is_number(key) => section(json!(0)),
        _ => section(json!("")),
    };
    let members: Map<String, Value> = keys.map(|key| ((*key).to_owned(), value(key))).collect();
    json!({"type": ["object", "null"], "properties": members, "additionalProperties": false})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    #[test]
    fn every_key_that_can_be_set_is_in_the_schema_and_nothing_that_cannot() {
        let schema = settings_schema();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let settings = load(&Sources::default()).unwrap();
        for shown in settings.show() {
            let mut patch = json!({});
            let path: Vec<String> = shown.key.split('.').map(str::to_owned).collect();
            put(&mut patch, &path, shown.value.clone());
            let settable = !OUT_OF_REACH.contains(&path[0].as_str()) && !is_local(&shown.key);
            assert_eq!(validator.is_valid(&patch), settable, "{patch}");
        }
        for good in [
            json!({"agents": {"counter": {"mailbox": "5", "persistence": "relaxed"}, "default": {"within": "1m"}}}),
            json!({"tools": {"fs.read": {"rate": "100/1s", "priority": -1}}}),
            json!({"log": {"levels": {"greenroom::store": "debug"}, "subjects": null}}),
            json!({"supervision": {"groups": {"pair": {"strategy": "one_for_all"}}}}),
            json!({"app": {"mine": {"word": [1]}}, "sessions.ttl": "1h", "audit": null}),
        ] {
            assert!(validator.is_valid(&good), "{good}");
        }
        for bad in [
            json!([]),
            json!({"nope": {}}),
            json!({"log": {"levle": "info"}}),
            json!({"agents": {"counter": {"mailbox": "five"}}}),
            json!({"sessions": {"ttl": 5}}),
            json!({"limits": {"state_bytes": "1 furlong"}}),
            json!({"tasks": {"slots": -1}}),
            json!({"tools": {"fs": {"roots": "docs"}}}),
        ] {
            assert!(!validator.is_valid(&bad), "{bad}");
        }
    }
}
