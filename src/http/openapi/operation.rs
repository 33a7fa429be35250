//! One operation: its parameters, responses and errors.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    patterns::{part, some_time, whole_or_empty},
    schemas::needs_nothing,
};
use crate::model::{access::Scope, units::DURATION_PATTERN};

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) id: String,
    pub(super) summary: String,
    description: Option<&'static str>,
    tag: &'static str,
    pub(super) scope: Option<Scope>,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: BTreeMap<u16, Value>,
    /// The contract's codes, by status.
    refusals: BTreeMap<u16, Vec<&'static str>>,
}

/// Looks at something.
pub(super) fn get(path: &str, id: &str, summary: &str) -> Operation {
    Operation::new("get", path, id, summary, Scope::Read)
}

/// Does something.
pub(super) fn post(path: &str, id: &str, summary: &str) -> Operation {
    Operation::new("post", path, id, summary, Scope::Operate)
}

/// Writes something whole.
pub(super) fn put(path: &str, id: &str, summary: &str) -> Operation {
    Operation::new("put", path, id, summary, Scope::Operate)
}

/// Changes a part of something.
pub(super) fn patch(path: &str, id: &str, summary: &str) -> Operation {
    Operation::new("patch", path, id, summary, Scope::Operate)
}

/// Removes something.
pub(super) fn delete(path: &str, id: &str, summary: &str) -> Operation {
    Operation::new("delete", path, id, summary, Scope::Operate)
}

impl Operation {
    fn new(method: &'static str, path: &str, id: &str, summary: &str, scope: Scope) -> Self {
        let full = match path {
            "/metrics" | "/health/live" | "/health/ready" => path.to_owned(),
            below => format!("/api/v1{below}"),
        };
        let tag = match path.split('/').nth(1).unwrap_or_default() {
            "agents" => "agents",
            "tasks" | "schedules" => "tasks",
            "tools" | "kinds" => "program",
            "conversations" | "sessions" => "conversations",
            "tokens" | "me" | "login-links" | "audit" => "access",
            _ => "node",
        };
        let operation = Self {
            method,
            path: full,
            id: id.to_owned(),
            summary: summary.to_owned(),
            description: None,
            tag,
            scope: Some(scope),
            parameters: Vec::new(),
            body: None,
            answers: BTreeMap::new(),
            refusals: BTreeMap::new(),
        };
        // What changes something is read whole before it is written down and done.
        let read: &[_] = if method == "get" { &[] } else { &[(408, "slow"), (413, "too_large")] };
        operation.with_parts(path).refuses(read).refuses(&[
            (400, "malformed"),
            (401, "unauthorized"),
            (403, "forbidden"),
            (503, "unavailable"),
        ])
    }

    /// Each `{name}` of the path is a parameter.
    fn with_parts(mut self, path: &str) -> Self {
        let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        for name in names {
            let schema = part(path, name);
            self.parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
        }
        if self.parameters.is_empty() { self } else { self.refuses(&[(404, "not_found")]) }
    }

    /// Takes another scope than its method usually does.
    pub(super) fn needs(self, scope: Scope) -> Self {
        Self { scope: Some(scope), ..self }
    }

    /// Open to everybody.
    pub(super) fn public(mut self) -> Self {
        self.refusals.remove(&401);
        Self { scope: None, ..self }
    }

    /// Takes a parameter behind the `?`.
    pub(super) fn query(mut self, name: &str, about: &str, schema: Value) -> Self {
        let parameter = json!({"name": name, "in": "query", "description": about, "schema": schema});
        self.parameters.push(parameter);
        self
    }

    /// Takes a text behind the `?`.
    pub(super) fn text(self, name: &str, about: &str) -> Self {
        self.query(name, about, json!({"type": "string"}))
    }

    /// Takes a whole number behind the `?`.
    pub(super) fn number(self, name: &str, about: &str, least: u64, most: u64) -> Self {
        let number = json!({"type": "integer", "minimum": least, "maximum": most});
        self.query(name, about, json!({"anyOf": [number, {"const": ""}]}))
    }

    /// Takes `true` or `false` behind the `?`.
    pub(super) fn flag(self, name: &str, about: &str) -> Self {
        self.word(name, about, &["true", "false"])
    }

    /// Takes one of these words behind the `?`.
    pub(super) fn word(self, name: &str, about: &str, words: &[&str]) -> Self {
        // what is empty is as absent
        let words: Vec<&str> = words.iter().copied().chain([""]).collect();
        self.query(name, about, json!({"type": "string", "enum": words}))
    }

    /// Takes a duration such as `5s` behind the `?`: how long the answer may wait.
    pub(super) fn duration(self, name: &str, about: &str) -> Self {
        self.query(name, about, whole_or_empty(DURATION_PATTERN))
    }

    /// Takes `timeout`: long enough for something to be done in it.
    pub(super) fn patience(self) -> Self {
        let mut schema = some_time();
        schema["type"] = json!("string");
        let about = "How long to wait, such as 30s; what is not done by then is not done.";
        self.query("timeout", about, json!({"anyOf": [schema, {"const": ""}]}))
    }

    /// Takes `cursor`, which looks like this, and `limit`.
    pub(super) fn paged(self, cursor: &str) -> Self {
        self.query("cursor", "From the page before.", whole_or_empty(cursor)).number(
            "limit",
            "The size of a page; 100 where it is absent.",
            1,
            1_000,
        )
    }

    /// Takes `since` and `until`.
    pub(super) fn within(self, since: &str, until: &str) -> Self {
        let moment = json!({"anyOf": [{"type": "string", "format": "date-time"}, {"const": ""}]});
        self.query("since", since, moment.clone()).query("until", until, moment)
    }

    /// Takes a header.
    pub(super) fn header(mut self, name: &str, about: &str, schema: Value) -> Self {
        self.parameters.push(json!({"name": name, "in": "header", "description": about, "schema": schema}));
        self
    }

    /// Takes an idempotency key.
    pub(super) fn idempotent(self) -> Self {
        let schema =
            json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"});
        self.header("Idempotency-Key", "The same key and body return the first outcome.", schema)
            .refuses(&[(409, "idempotency_conflict")])
    }

    /// Takes `If-Match`: what has another tag is left as it is.
    pub(super) fn if_match(self) -> Self {
        let about = "The `ETag` that it was seen with; what has another is left as it is.";
        self.header("If-Match", about, tag()).refuses(&[(412, "precondition_failed")])
    }

    /// The same, which must be there.
    pub(super) fn needs_if_match(self) -> Self {
        let mut operation = self.if_match().refuses(&[(428, "precondition_required")]);
        if let Some(Value::Object(header)) = operation.parameters.last_mut() {
            header.insert("required".to_owned(), json!(true));
        }
        operation
    }

    /// Takes `If-None-Match: *`: it must not be there yet.
    pub(super) fn if_none_match(self) -> Self {
        let about = "It must not be there. Excludes `If-Match`.";
        self.header("If-None-Match", about, json!({"const": "*"}))
    }

    /// Says more about it.
    pub(super) fn says(self, description: &'static str) -> Self {
        Self { description: Some(description), ..self }
    }

    /// Takes a body that must be there.
    pub(super) fn takes(self, schema: Value) -> Self {
        self.body(schema, true)
    }

    /// Takes a body, which may be left out where nothing in it is required.
    pub(super) fn takes_own(self, schema: Value) -> Self {
        if !needs_nothing(&schema) {
            return self.body(schema, true);
        }
        self.body(json!({"anyOf": [schema, {"type": "null"}]}), false)
    }

    /// Takes a body that may be left out.
    pub(super) fn may_take(self, schema: Value) -> Self {
        self.body(schema, false)
    }

    fn body(self, schema: Value, required: bool) -> Self {
        let body = json!({"required": required, "content": {"application/json": {"schema": schema}}});
        Self { body: Some(body), ..self }.refuses(&[(408, "slow"), (413, "too_large"), (422, "invalid")])
    }

    /// Answers with JSON.
    pub(super) fn answers(self, status: u16, about: &str, schema: Value) -> Self {
        let answer = json!({"description": about, "content": {"application/json": {"schema": schema}}});
        self.with_answer(status, answer)
    }

    /// Answers without a body.
    pub(super) fn answers_nothing(self, status: u16, about: &str) -> Self {
        self.with_answer(status, json!({"description": about}))
    }

    /// Answers with text of a media type.
    pub(super) fn answers_text(self, status: u16, about: &str, media: &str) -> Self {
        // of a stream, some read the schema as that of each event
        let schema = if media.ends_with("stream") { json!({}) } else { json!({"type": "string"}) };
        let content = json!({media: {"schema": schema}});
        self.with_answer(status, json!({"description": about, "content": content}))
    }

    fn with_answer(mut self, status: u16, answer: Value) -> Self {
        self.answers.insert(status, answer);
        self
    }

    /// Its answers have this header.
    pub(super) fn tells(mut self, header: &str, about: &str) -> Self {
        for answer in self.answers.values_mut().filter_map(Value::as_object_mut) {
            let headers = answer.entry("headers").or_insert_with(|| json!({}));
            if let Value::Object(headers) = headers {
                let schema = json!({"description": about, "schema": {"type": "string"}});
                headers.insert(header.to_owned(), schema);
            }
        }
        self
    }

    /// May be refused with these.
    pub(super) fn refuses(mut self, all: &[(u16, &'static str)]) -> Self {
        for (status, code) in all {
            let codes = self.refusals.entry(*status).or_default();
            if !codes.contains(code) {
                codes.push(code);
            }
        }
        self
    }

    /// Has the program's own code run, which may fail in every way.
    pub(super) fn runs_code(self) -> Self {
        self.refuses(&[
            (409, "refused"),
            (409, "wrong_state"),
            (409, "ask_cycle"),
            (429, "overloaded"),
            (500, "handler_failed"),
            (500, "handler_crashed"),
            (504, "timed_out"),
            (504, "outcome_unknown"),
            (507, "full"),
        ])
    }

    /// Writes, which takes room.
    pub(super) fn writes(self) -> Self {
        self.refuses(&[(507, "full")])
    }

    /// As the document has it.
    pub(super) fn document(self) -> Value {
        let mut responses = Map::new();
        for (status, codes) in &self.refusals {
            let mut refusal = json!({
                "description": codes.join(", "),
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            });
            if matches!(status, 429 | 503 | 507)
                && let Some(refusal) = refusal.as_object_mut()
            {
                let after = json!({"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}});
                refusal.insert("headers".to_owned(), after);
            }
            responses.insert(status.to_string(), refusal);
        }
        for (status, answer) in self.answers {
            responses.insert(status.to_string(), answer);
        }
        let mut document = json!({
            "operationId": self.id,
            "summary": self.summary,
            "tags": [self.tag],
            "parameters": self.parameters,
            "responses": responses,
            "security": match self.scope {
                None => json!([]),
                Some(_) => json!([{"bearer": []}, {"session": []}]),
            },
        });
        if let Value::Object(members) = &mut document {
            if let Some(scope) = self.scope {
                members.insert("x-scope".to_owned(), json!(scope));
            }
            if let Some(description) = self.description {
                members.insert("description".to_owned(), json!(description));
            }
            if let Some(body) = self.body {
                members.insert("requestBody".to_owned(), body);
            }
        }
        document
    }
}

/// An entity tag, as `ETag` gives it.
fn tag() -> Value {
    json!({"type": "string", "format": "entity-tag", "pattern": "^\"[!#-~]+\"$"})
}
