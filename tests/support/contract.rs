//! Holds what a node answers against the document that it gives of itself.

use serde_json::{Map, Value, json};

use super::Answer;

/// A node's `/api/v1/openapi.json`.
pub struct Contract(Value);

impl Contract {
    /// Takes the document as it came.
    pub fn new(document: Value) -> Self {
        assert_eq!(document["openapi"], "3.1.0", "{document}");
        Self(document)
    }

    /// Checks that an answer is one that the document knows: its status, its media type, its body.
    ///
    /// # Panics
    /// Where it is not.
    #[track_caller]
    pub fn holds(&self, method: &str, url: &str, answer: &Answer) {
        let path = url.split('?').next().unwrap_or(url);
        let Some((template, methods)) = self.find(path) else { return };
        let Some(operation) = methods.get(&method.to_lowercase()) else {
            assert!(
                matches!(answer.status, 200 | 400 | 403 | 405),
                "{method} {path} is not described: {answer:?}"
            );
            return;
        };
        let status = answer.status.to_string();
        let described = &operation["responses"][&status];
        assert!(described.is_object(), "{method} {template} does not say {status}: {answer:?}");
        let Some((media, _)) = described["content"].as_object().and_then(|content| content.iter().next())
        else {
            assert_eq!(answer.text, "", "{method} {template} {status} has no body");
            return;
        };
        assert_eq!(answer.header("content-type"), Some(media.as_str()), "{method} {template} {status}");
        if !media.ends_with("json") {
            return;
        }
        let schema = json!({
            "allOf": [described["content"][media]["schema"]],
            "components": self.0["components"],
        });
        let validator =
            jsonschema::draft202012::new(&schema).unwrap_or_else(|error| panic!("{template}: {error}"));
        let wrong: Vec<String> =
            validator.iter_errors(&answer.json).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(wrong.is_empty(), "{method} {template} {status}: {wrong:?}: {answer:?}");
        assert_eq!(finer(&answer.json), None, "{method} {template} {status}: times are milliseconds");
    }

    /// The path's entry: one without parameters goes before others.
    fn find(&self, path: &str) -> Option<(&str, &Map<String, Value>)> {
        let all = self.0["paths"].as_object()?.iter();
        let mut found: Vec<_> = all.filter(|(template, _)| matches(template, path)).collect();
        found.sort_by_key(|(template, _)| template.matches('{').count());
        let (template, methods) = found.first()?;
        Some((template, methods.as_object()?))
    }
}

/// A time that is finer than a millisecond, if there is one.
fn finer(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => {
            let at: jiff::Timestamp = text.parse().ok()?;
            (at.subsec_nanosecond() % 1_000_000 != 0).then_some(text)
        }
        Value::Array(items) => items.iter().find_map(finer),
        Value::Object(members) => members.values().find_map(finer),
        _ => None,
    }
}

fn matches(template: &str, path: &str) -> bool {
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|(ours, theirs)| ours.starts_with('{') || ours == theirs)
}
