//! `/openapi.json`: the API's requests and responses, as OpenAPI 3.1.
//!
//! One file a group of routes says what each of them takes, answers and refuses; the schemas are drawn from the
//! types that are read and written. Messages and tools have operations of their own, with the program's own
//! schemas. A test holds that every route is here and nothing else; the tests of the API hold every answer
//! against it.
//!
//! To add a route: its line in `router.rs`, and its operation here.

mod access;
mod agents;
mod node;
mod operation;
mod patterns;
mod schemas;
mod talk;
mod tasks;
mod work;

use std::sync::OnceLock;

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::{Map, Value, json};

use self::{operation::Operation, schemas::Schemas};
use super::{deliver::Packed, problem::Problem, server::Ctx};
#[cfg(test)]
use crate::model::access::Scope;
use crate::runtime::views::{KindInfo, ToolInfo};

/// `GET /openapi.json`. It holds nothing that is secret.
pub(super) async fn show(ctx: Data<Ctx>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    // the program's kinds and tools stay what they are while it runs; written and packed once, for all who ask
    static DOCUMENT: OnceLock<Packed> = OnceLock::new();
    let text = match DOCUMENT.get() {
        Some(text) => text,
        None => {
            let (kinds, tools) = (ctx.operator.kinds().await, ctx.operator.tools().await);
            DOCUMENT.get_or_init(|| Packed::new(document(&kinds, &tools).to_string()))
        }
    };
    Ok(text.answer(request.headers(), "application/json"))
}

/// All operations of a program with these kinds and tools.
fn operations(schemas: &mut Schemas, kinds: &[KindInfo], tools: &[ToolInfo]) -> Vec<Operation> {
    let mut all = node::operations(schemas);
    all.extend(access::operations(schemas));
    all.extend(agents::operations(schemas, kinds));
    let to = addressed(kinds, tools);
    all.extend(tasks::operations(schemas, &to));
    all.extend(work::operations(schemas, &to, tools));
    all.extend(talk::operations(schemas));
    all
}

/// Whom a task may be for, and what it brings them.
fn addressed(kinds: &[KindInfo], tools: &[ToolInfo]) -> Value {
    let some = |pattern: String| json!({"type": "string", "pattern": pattern});
    let input = |schema: &Value| match schemas::needs_nothing(schema) {
        true => json!({"input": {"anyOf": [schemas::own(schema), {"type": "null"}]}}),
        false => json!({"input": schemas::own(schema)}),
    };
    let mut all = Vec::new();
    for kind in kinds {
        for message in &kind.messages {
            let mut members = input(&message.schema);
            members["target"] = some(format!("^{}/{}$", kind.kind, patterns::KEY));
            members["message"] = json!({"const": message.name});
            let brings = if schemas::needs_nothing(&message.schema) { None } else { Some("input") };
            let required: Vec<&str> = ["target", "message"].into_iter().chain(brings).collect();
            all.push(json!({"required": required, "properties": members}));
        }
    }
    for tool in tools {
        let mut members = input(&tool.input);
        members["target"] = json!({"const": format!("tool:{}", tool.name)});
        members["message"] = json!({"type": "null"});
        let brings = if schemas::needs_nothing(&tool.input) { None } else { Some("input") };
        all.push(json!({"required": Vec::from_iter(brings), "properties": members}));
    }
    let absent = |name: &str| json!({"properties": {name: {"type": "null"}}});
    let mut rules = ["run", "expires"]
        .map(|name| {
            let ways = ["at", "in"].map(|way| absent(&format!("{name}_{way}")));
            json!({ "anyOf": ways })
        })
        .to_vec();
    if !all.is_empty() {
        rules.push(json!({ "anyOf": all }));
    }
    json!({ "allOf": rules })
}

/// The document.
fn document(kinds: &[KindInfo], tools: &[ToolInfo]) -> Value {
    let mut schemas = Schemas::new();
    let operations = operations(&mut schemas, kinds, tools);
    let mut paths = Map::new();
    for operation in operations {
        let path = paths.entry(operation.path.clone()).or_insert_with(|| json!({}));
        if let Value::Object(methods) = path {
            methods.insert(operation.method.to_owned(), operation.document());
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Greenroom",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A durable actor runtime for agents: agents, tools and tasks, seen and operated.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "session": {
                    "type": "apiKey", "in": "cookie", "name": "greenroom",
                    "description": "A browser's session; what changes something needs the header X-CSRF-Token.",
                },
            },
        },
    })
}

/// The methods and paths, with their scopes, that are described for a program without kinds and tools.
#[cfg(test)]
pub(super) fn described() -> std::collections::BTreeSet<(String, String, Option<Scope>)> {
    let operations = operations(&mut Schemas::new(), &[], &[]);
    operations.into_iter().map(|o| (o.method.to_uppercase(), o.path, o.scope)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document(&[], &[]);
        let text = document.to_string();
        let references: BTreeSet<&str> =
            text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(references.len() > 20, "{references:?}");
        for pointer in references {
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn operations_have_names_of_their_own_and_say_what_they_do() {
        let operations = operations(&mut Schemas::new(), &[], &[]);
        let names: BTreeSet<&str> = operations.iter().map(|o| &*o.id).collect();
        assert_eq!(names.len(), operations.len());
        assert!(operations.iter().all(|o| !o.summary.is_empty()));
    }
}
