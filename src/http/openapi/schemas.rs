//! The schemas of requests and responses.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::patterns::narrower;

/// Draws schemas from types, and keeps what they share.
pub(super) struct Schemas {
    answers: SchemaGenerator,
    requests: SchemaGenerator,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            answers: settings().for_serialize().into_generator(),
            requests: settings().for_deserialize().into_generator(),
        }
    }

    /// What is written as `T`.
    pub(super) fn answer<T: JsonSchema>(&mut self) -> Value {
        self.answers.subschema_for::<T>().to_value()
    }

    /// What is read as `T`.
    pub(super) fn request<T: JsonSchema>(&mut self) -> Value {
        self.requests.subschema_for::<T>().to_value()
    }

    /// A list of `T`.
    pub(super) fn list<T: JsonSchema>(&mut self) -> Value {
        list(self.answer::<T>())
    }

    /// What they share, by name.
    pub(super) fn definitions(&mut self) -> Map<String, Value> {
        let mut all = self.requests.take_definitions(true);
        all.extend(self.answers.take_definitions(true));
        all.insert("Problem".to_owned(), problem());
        all.values_mut().for_each(bound);
        for (pointer, members) in narrower() {
            let found = pointer.split_once('/').and_then(|(name, rest)| {
                all.get_mut(name).and_then(|schema| schema.pointer_mut(&format!("/{rest}")))
            });
            if let (Some(Value::Object(schema)), Value::Object(members)) = (found, members) {
                schema.extend(members);
            }
        }
        all
    }
}

/// A list of what `item` says.
pub(super) fn list(item: Value) -> Value {
    json!({
        "type": "object",
        "required": ["items", "next_cursor"],
        "properties": {
            "items": {"type": "array", "items": item},
            "next_cursor": {
                "type": ["string", "null"],
                "description": "Give it back as `cursor` for the next page; null on the last one.",
            },
        },
    })
}

/// `{"accepted": true}`.
pub(super) fn accepted() -> Value {
    json!({
        "type": "object", "required": ["accepted"],
        "properties": {"accepted": {"const": true}},
    })
}

/// Whether nothing has to be said.
pub(super) fn needs_nothing(schema: &Value) -> bool {
    schema["required"].as_array().is_none_or(Vec::is_empty)
}

/// A schema of the program's own as a part of the document: what it shares is put into it.
pub(super) fn own(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let Value::Object(members) = &mut schema else { return schema };
    members.remove("$schema");
    let shared = members.remove("$defs");
    bound(&mut schema);
    let Some(Value::Object(mut shared)) = shared else { return schema };
    shared.values_mut().for_each(bound);
    // types that lead back to themselves end somewhere
    for _ in 0..4 {
        inline(&mut schema, &shared);
    }
    cut(&mut schema);
    schema
}

/// Says how large whole numbers may be, where only their format does.
fn bound(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let bounds = match members.get("format").and_then(Value::as_str) {
                Some("uint64" | "uint") => Some((json!(0), json!(u64::MAX))),
                Some("uint32") => Some((json!(0), json!(u32::MAX))),
                Some("int64") => Some((json!(i64::MIN), json!(i64::MAX))),
                Some("int16") => Some((json!(i16::MIN), json!(i16::MAX))),
                _ => None,
            };
            if let Some((least, most)) = bounds {
                members.entry("minimum").or_insert(least);
                members.entry("maximum").or_insert(most);
            }
            members.values_mut().for_each(bound);
        }
        Value::Array(items) => items.iter_mut().for_each(bound),
        _ => {}
    }
}

fn inline(schema: &mut Value, shared: &Map<String, Value>) {
    match schema {
        Value::Object(members) => {
            let name = members.get("$ref").and_then(Value::as_str).and_then(|at| at.strip_prefix("#/$defs/"));
            if let Some(found) = name.and_then(|name| shared.get(name)).cloned() {
                members.remove("$ref");
                if let Value::Object(found) = found {
                    members.extend(found);
                }
                return;
            }
            members.values_mut().for_each(|member| inline(member, shared));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| inline(item, shared)),
        _ => {}
    }
}

/// What still leads back may be anything.
fn cut(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("$ref").and_then(Value::as_str).is_some_and(|at| at.starts_with("#/$defs/")) {
                members.remove("$ref");
            }
            members.values_mut().for_each(cut);
        }
        Value::Array(items) => items.iter_mut().for_each(cut),
        _ => {}
    }
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "What was not done, and why (RFC 9457).",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "description": "Which of the contract's codes."},
            "errors": {
                "type": "array",
                "description": "For `invalid`: every finding, with its place as a JSON pointer.",
                "items": {
                    "type": "object", "required": ["pointer", "detail"],
                    "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
                },
            },
            "refusal": {"description": "For `refused`: the message's own typed refusal."},
            "crash_id": {"type": "string", "description": "After a crash: `GET /api/v1/crashes/{id}`."},
            "chain": {"type": "array", "items": {"type": "string"}, "description": "The causes of a failure."},
            "owner": {"type": "string", "description": "Where it is served instead."},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_own_schemas_stand_alone() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {"child": {"$ref": "#/$defs/Node"}, "word": {"$ref": "#/$defs/Word"}},
            "$defs": {
                "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}},
                "Word": {"type": "string"},
            },
        });
        let own = own(&schema);
        assert_eq!(own["properties"]["word"], json!({"type": "string"}));
        assert_eq!(own["properties"]["child"]["properties"]["next"]["type"], "object");
        assert!(!own.to_string().contains("$ref") && !own.to_string().contains("$schema"), "{own}");
    }
}
