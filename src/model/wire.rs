//! The wire interface of a program: every wire name with its schemas, and whether a later version is compatible
//! with an earlier one.
//!
//! What clients of the earlier version send must still be accepted, and what they read must still be there.
//! Additions are always allowed: a message, an optional field, a value of a reply's enumeration.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How deep schemas are compared.
const DEEPEST: usize = 48;

/// Every wire name of a program, with its schemas.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Wire {
    /// Kinds of agents by name.
    pub kinds: BTreeMap<String, WireKind>,
    /// Tools by name.
    pub tools: BTreeMap<String, WireTool>,
}

/// A kind of agents.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WireKind {
    /// The schema version of its states.
    pub version: u32,
    /// Its messages by name.
    pub messages: BTreeMap<String, WireMessage>,
}

/// A message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WireMessage {
    /// What it is.
    pub takes: Value,
    /// What answers it.
    pub replies: Value,
    /// What refuses it.
    pub refuses: Value,
}

/// A tool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WireTool {
    /// What repeating a call does.
    pub effect: String,
    /// Its input.
    pub takes: Value,
    /// Its output.
    pub replies: Value,
}

/// A promise that is not kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Break {
    /// Where, as a JSON pointer into the earlier document.
    pub pointer: String,
    /// What.
    pub detail: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pointer, self.detail)
    }
}

/// Which way a value goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Others send it: what was taken must be taken.
    In,
    /// Others read it: what was there must be there.
    Out,
}

impl Wire {
    /// What `now` does not keep of what this one has promised, in the order of the places.
    pub fn broken_by(&self, now: &Self) -> Vec<Break> {
        let mut found = Found::default();
        for (name, kind) in &self.kinds {
            let place = format!("/kinds/{}", escape(name));
            let Some(later) = now.kinds.get(name) else {
                found.add(&place, "the kind is gone");
                continue;
            };
            if later.version < kind.version {
                found.add(&format!("{place}/version"), format!("it went back to {}", later.version));
            }
            for (name, message) in &kind.messages {
                let place = format!("{place}/messages/{}", escape(name));
                let Some(later) = later.messages.get(name) else {
                    found.add(&place, "the message is gone");
                    continue;
                };
                found.compare(&format!("{place}/takes"), Way::In, &message.takes, &later.takes);
                found.compare(&format!("{place}/replies"), Way::Out, &message.replies, &later.replies);
            }
        }
        for (name, tool) in &self.tools {
            let place = format!("/tools/{}", escape(name));
            let Some(later) = now.tools.get(name) else {
                found.add(&place, "the tool is gone");
                continue;
            };
            if later.effect != tool.effect {
                let detail = format!("it was {} and is {}", tool.effect, later.effect);
                found.add(&format!("{place}/effect"), detail);
            }
            found.compare(&format!("{place}/takes"), Way::In, &tool.takes, &later.takes);
            found.compare(&format!("{place}/replies"), Way::Out, &tool.replies, &later.replies);
        }
        found.0.sort();
        found.0
    }
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[derive(Default)]
struct Found(Vec<Break>);

impl Found {
    fn add(&mut self, pointer: &str, detail: impl Into<String>) {
        self.0.push(Break { pointer: pointer.to_owned(), detail: detail.into() });
    }

    fn compare(&mut self, place: &str, way: Way, old: &Value, new: &Value) {
        Comparison { way, olds: old, news: new, found: self }.schemas(place, old, new, 0);
    }
}

/// Two schemas, with the documents that their references lead into.
struct Comparison<'a> {
    way: Way,
    olds: &'a Value,
    news: &'a Value,
    found: &'a mut Found,
}

impl<'a> Comparison<'a> {
    fn schemas(&mut self, place: &str, old: &'a Value, new: &'a Value, depth: usize) {
        let (old, new) = (resolved(self.olds, old), resolved(self.news, new));
        // Schemas that hold themselves end somewhere, or were equal all the way.
        if depth > DEEPEST || old == new {
            return;
        }
        let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return };
        self.types(place, old, new);
        self.bounds(place, old, new);
        self.properties(place, old, new, depth);
        for inner in ["items", "additionalProperties"] {
            if let (Some(old), Some(new)) = (old.get(inner), new.get(inner)) {
                self.schemas(&format!("{place}/{inner}"), old, new, depth + 1);
            }
        }
        self.alternatives(place, old, new, depth);
    }

    /// Types and values: none that was sent may be refused, none may come that nobody expects.
    fn types(&mut self, place: &str, old: &Map<String, Value>, new: &Map<String, Value>) {
        let types = |schema: &Map<String, Value>| match schema.get("type") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(some)) => some.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let (was, is) = (types(old), types(new));
        let (from, to) = if self.way == Way::In { (&was, &is) } else { (&is, &was) };
        // A whole number is a number.
        let holds = |t: &String| to.contains(t) || (t == "integer" && to.iter().any(|t| t == "number"));
        if !to.is_empty() && (from.is_empty() || !from.iter().all(holds)) {
            self.found.add(place, format!("its type was {} and is {}", listed(&was), listed(&is)));
        }
        let values = |schema: &Map<String, Value>| match (schema.get("enum"), schema.get("const")) {
            (Some(Value::Array(values)), _) => Some(values.clone()),
            (_, Some(value)) => Some(vec![value.clone()]),
            _ => None,
        };
        if self.way == Way::In
            && let Some(taken) = values(new)
        {
            match values(old) {
                None => self.found.add(place, "only some values are taken any more"),
                Some(was) => {
                    for value in was.iter().filter(|value| !taken.contains(value)) {
                        self.found.add(place, format!("the value {value} is not taken any more"));
                    }
                }
            }
        }
    }

    /// Limits: what was taken may not be too small, too large or too long.
    fn bounds(&mut self, place: &str, old: &Map<String, Value>, new: &Map<String, Value>) {
        if self.way == Way::Out {
            return;
        }
        let number = |schema: &Map<String, Value>, name: &str| schema.get(name).and_then(Value::as_f64);
        for (name, is_least) in [
            ("minimum", true),
            ("minLength", true),
            ("minItems", true),
            ("maximum", false),
            ("maxLength", false),
            ("maxItems", false),
        ] {
            let narrower = match (number(old, name), number(new, name)) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(was), Some(is)) => {
                    if is_least {
                        is > was
                    } else {
                        is < was
                    }
                }
            };
            if narrower {
                let to = new.get(name).unwrap_or(&Value::Null);
                self.found.add(place, format!("{name} is {to}, which is narrower than it was"));
            }
        }
        if let Some(pattern) = new.get("pattern").filter(|pattern| Some(*pattern) != old.get("pattern")) {
            self.found.add(place, format!("it must be like {pattern}"));
        }
    }

    fn properties(
        &mut self,
        place: &str,
        old: &'a Map<String, Value>,
        new: &'a Map<String, Value>,
        depth: usize,
    ) {
        let of = |schema: &'a Map<String, Value>| schema.get("properties").and_then(Value::as_object);
        let needs = |schema: &Map<String, Value>, name: &str| {
            let required = schema.get("required").and_then(Value::as_array);
            required.is_some_and(|names| names.iter().any(|needed| needed == name))
        };
        for (name, schema) in of(old).into_iter().flatten() {
            let place = format!("{place}/properties/{}", escape(name));
            match of(new).and_then(|there| there.get(name)) {
                None => self.found.add(&place, "the field is gone"),
                Some(later) => {
                    if self.way == Way::Out && needs(old, name) && !needs(new, name) {
                        self.found.add(&place, "the field may be left out");
                    }
                    self.schemas(&place, schema, later, depth + 1);
                }
            }
        }
        if self.way == Way::Out {
            return;
        }
        for name in
            new.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if !needs(old, name) {
                self.found.add(&format!("{place}/properties/{}", escape(name)), "the field must be there");
            }
        }
    }

    /// Of alternatives, each that was taken must still be: as one of those that there are.
    fn alternatives(
        &mut self,
        place: &str,
        old: &'a Map<String, Value>,
        new: &'a Map<String, Value>,
        depth: usize,
    ) {
        if self.way == Way::Out {
            return;
        }
        for name in ["oneOf", "anyOf"] {
            let Some(was) = old.get(name).and_then(Value::as_array) else { continue };
            let is = new.get(name).and_then(Value::as_array);
            for (n, schema) in was.iter().enumerate() {
                let fits = |later: &&'a Value| {
                    let mut found = Found::default();
                    let (olds, news) = (self.olds, self.news);
                    Comparison { way: Way::In, olds, news, found: &mut found }.schemas(
                        "",
                        schema,
                        later,
                        depth + 1,
                    );
                    found.0.is_empty()
                };
                if !is.is_some_and(|is| is.iter().any(|later| fits(&later))) {
                    self.found.add(&format!("{place}/{name}/{n}"), "it is not taken any more");
                }
            }
        }
    }
}

/// What a schema is, or refers to.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    for _ in 0..DEEPEST {
        let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { break };
        let Some(there) = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer)) else {
            break;
        };
        schema = there;
    }
    schema
}

fn listed(types: &[String]) -> String {
    if types.is_empty() { "anything".to_owned() } else { types.join(" or ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wire(takes: Value, replies: Value) -> Wire {
        let message = WireMessage { takes, replies, refuses: Value::Null };
        let messages = [("Add".to_owned(), message)].into();
        Wire { kinds: [("tally".to_owned(), WireKind { version: 2, messages })].into(), ..Wire::default() }
    }

    fn broken(old: (Value, Value), new: (Value, Value)) -> Vec<String> {
        let place = "/kinds/tally/messages/Add";
        let found = wire(old.0, old.1).broken_by(&wire(new.0, new.1));
        found.iter().map(|b| b.to_string().replacen(place, "", 1)).collect()
    }

    #[test]
    fn what_is_taken_may_grow_and_not_shrink() {
        let taken = |old: Value, new: Value| broken((old, json!({})), (new, json!({})));
        let object = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
        let old =
            object(json!({"n": {"type": "integer"}, "note": {"type": ["string", "null"]}}), json!(["n"]));
        assert_eq!(taken(old.clone(), old.clone()), [""; 0]);
        let more = object(
            json!({"n": {"type": "number"}, "note": {"type": ["string", "null", "array"]}, "new": {}}),
            json!(["n"]),
        );
        assert_eq!(taken(old.clone(), more), [""; 0]);
        let less = object(json!({"n": {"type": "string"}, "by": {"type": "string"}}), json!(["n", "by"]));
        assert_eq!(
            taken(old, less),
            [
                "/takes/properties/by: the field must be there",
                "/takes/properties/n: its type was integer and is string",
                "/takes/properties/note: the field is gone",
            ]
        );
        assert_eq!(
            taken(json!({"enum": ["a", "b"]}), json!({"enum": ["b", "c"]})),
            ["/takes: the value \"a\" is not taken any more"]
        );
        assert_eq!(taken(json!({"maximum": 9}), json!({"maximum": 10})), [""; 0]);
        assert_eq!(taken(json!({}), json!({"maxLength": 10})).len(), 1);
    }

    #[test]
    fn what_is_read_stays_there() {
        let read = |old: Value, new: Value| broken((json!({}), old), (json!({}), new));
        let object = |required: Value| json!({"type": "object", "properties": {"t": {"type": "integer"}}, "required": required});
        assert_eq!(read(object(json!([])), object(json!(["t"]))), [""; 0]);
        assert_eq!(
            read(object(json!(["t"])), object(json!([]))),
            ["/replies/properties/t: the field may be left out"]
        );
        assert_eq!(
            read(json!({"enum": ["a"]}), json!({"enum": ["a", "b"]})),
            [""; 0],
            "enums may gain values"
        );
        assert_eq!(read(json!({"type": "integer"}), json!({"type": ["integer", "null"]})).len(), 1);
    }

    #[test]
    fn references_and_alternatives_are_looked_through() {
        let with = |mode: Value| {
            json!({
                "type": "object", "properties": {"mode": {"$ref": "#/$defs/Mode"}},
                "$defs": {"Mode": mode},
            })
        };
        let taken = |old: Value, new: Value| broken((old, json!({})), (new, json!({})));
        let (fast, slow) = (json!({"const": "fast"}), json!({"const": "slow"}));
        let both = with(json!({"oneOf": [fast, slow]}));
        assert_eq!(taken(both.clone(), with(json!({"oneOf": [slow, {"const": "new"}, fast]}))), [""; 0]);
        assert_eq!(
            taken(both, with(json!({"oneOf": [slow]}))),
            ["/takes/properties/mode/oneOf/0: it is not taken any more"]
        );
        let list =
            json!({"$ref": "#/$defs/L", "$defs": {"L": {"properties": {"next": {"$ref": "#/$defs/L"}}}}});
        let longer = json!({"$ref": "#/$defs/L", "$defs": {"L": {"properties": {"next": {"$ref": "#/$defs/L"}, "x": {}}}}});
        assert_eq!(taken(list, longer), [""; 0], "it ends");
    }

    #[test]
    fn names_that_are_gone_are_told() {
        let (old, now) = (wire(json!({}), json!({})), Wire::default());
        assert_eq!(old.broken_by(&now)[0].to_string(), "/kinds/tally: the kind is gone");
        let mut back = old.clone();
        if let Some(kind) = back.kinds.get_mut("tally") {
            (kind.version, kind.messages) = (1, BTreeMap::new());
        }
        let found: Vec<String> = old.broken_by(&back).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            ["/kinds/tally/messages/Add: the message is gone", "/kinds/tally/version: it went back to 1"]
        );
        assert!(now.broken_by(&old).is_empty(), "more is always allowed");
    }
}
