//! JSON that others wrote.

use serde_json::{Number, Value};

/// The largest whole number below which all are told apart in a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A path as a JSON pointer (RFC 6901): where in a document something is wrong.
pub fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                pointer.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1")))
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// The same text with each number that has no fraction as a whole one: to JSON Schema `2.0` is an integer, to
/// serde it is none. Nothing where there is no such number, or no JSON.
pub fn whole_numbers(text: &[u8]) -> Option<Vec<u8>> {
    let mut value = serde_json::from_slice(text).ok()?;
    if rewrite(&mut value) { serde_json::to_vec(&value).ok() } else { None }
}

/// Whether anything was rewritten.
fn rewrite(value: &mut Value) -> bool {
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= EXACT);
            // within the bounds the cast is exact
            let Some(whole) = whole.map(|n| n as i64) else { return false };
            *number = Number::from(whole);
            true
        }
        Value::Array(items) => items.iter_mut().fold(false, |any, item| rewrite(item) | any),
        Value::Object(members) => members.values_mut().fold(false, |any, member| rewrite(member) | any),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_pointer_whatever_stands_in_its_names() {
        type Deep = std::collections::BTreeMap<String, Vec<u8>>;
        let mut reader = serde_json::Deserializer::from_str(r#"{"a.b/c~[d]": [1, "x"]}"#);
        let error = serde_path_to_error::deserialize::<_, Deep>(&mut reader).unwrap_err();
        assert_eq!(pointer(error.path()), "/a.b~1c~0[d]/1");
    }

    #[test]
    fn numbers_without_a_fraction_are_whole() {
        let text = whole_numbers(br#"{"a": [2.0, 2.5, -3e2], "b": {"c": 1e300}, "d": "2.0"}"#).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value, serde_json::json!({"a": [2, 2.5, -300], "b": {"c": 1e300}, "d": "2.0"}));
        assert_eq!(whole_numbers(br#"{"a": 2}"#), None);
        assert_eq!(whole_numbers(b"{"), None);
    }
}
