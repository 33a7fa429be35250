//! The schema of a body: that of the type it is read as.

use std::{
    any::TypeId,
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use jsonschema::Validator;
use parking_lot::Mutex;
use schemars::{JsonSchema, generate::SchemaSettings};

use crate::{Invalid, agent::AskError, runtime::operator::OperatorError};

static KNOWN: LazyLock<Mutex<HashMap<TypeId, Option<Arc<Validator>>>>> = LazyLock::new(Mutex::default);

/// Checks JSON against the schema of `T`.
///
/// # Errors
/// Every finding, with its place.
pub(super) fn check<T: JsonSchema + 'static>(text: &[u8]) -> Result<(), OperatorError> {
    let known = KNOWN.lock().entry(TypeId::of::<T>()).or_insert_with(validator::<T>).clone();
    let (Some(validator), Ok(value)) = (known, serde_json::from_slice(text)) else { return Ok(()) };
    Invalid::check(&validator, &value).map_err(|invalid| AskError::Invalid(invalid).into())
}

fn validator<T: JsonSchema>() -> Option<Arc<Validator>> {
    let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    jsonschema::validator_for(generator.into_root_schema_for::<T>().as_value()).ok().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::views::{RetryRequest, TaskRequest};

    #[test]
    fn a_list_is_no_object() {
        let check = |text: &str| check::<RetryRequest>(text.as_bytes());
        assert!(check(r#"{"filter": {"state": "failed"}}"#).is_ok());
        assert!(check(r#"{"filter": {}}"#).is_ok());
        for bad in [r#"[{}]"#, r#"{"filter": [null, null]}"#] {
            assert!(serde_json::from_str::<RetryRequest>(bad).is_ok(), "it would be read: {bad}");
            assert_eq!(check(bad).unwrap_err().code(), "invalid", "{bad}");
        }
    }

    #[test]
    fn what_may_be_left_out_may_be_null() {
        let text = r#"{"target": "counter/a", "message": null, "tags": [], "timeout": null}"#;
        assert!(check::<TaskRequest>(text.as_bytes()).is_ok());
    }
}
