//! Messages, typed by their reply and their refusal.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Anything that crosses a wire. Blanket-implemented; never implemented by hand.
pub trait Data: Clone + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {}
impl<T: Clone + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static> Data for T {}

/// A message for an agent, or the input of a tool. Declared with [`message!`](crate::message).
///
/// ```
/// use greenroom::prelude::*;
///
/// #[derive(Clone, Serialize, Deserialize, JsonSchema)]
/// struct Add {
///     text: String,
/// }
/// message!(Add -> u64);
/// assert_eq!(Add::NAME, "Add");
/// ```
pub trait Message: Data {
    /// The receiver's reply.
    type Reply: Data;
    /// The receiver's typed refusal; [`Never`] if there is none.
    type Error: Data + std::error::Error;
    /// The stable wire name. Never a Rust path: it is stored with tasks and in schedules.
    const NAME: &'static str;

    /// Checks the content, before the message reaches a mailbox.
    ///
    /// # Errors
    /// The findings, by JSON pointer; over HTTP they are answered as `422 invalid`.
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }

    /// A typed refusal, to be returned from a handler: `Err(Charge::refuse(Declined::Card))`.
    fn refuse(error: Self::Error) -> anyhow::Error {
        anyhow::Error::new(Refused(error))
    }
}

/// Declares messages: `message!(Add -> u64)`, `message!(Charge -> Receipt | Declined)`,
/// `message!(Ship -> () as "ship_now")`; several are separated by `;`.
#[macro_export]
macro_rules! message {
    ($($m:ident -> $reply:ty $(| $error:ty)? $(as $name:literal)?);+ $(;)?) => {$(
        impl $crate::Message for $m {
            type Reply = $reply;
            type Error = $crate::message!(@error $($error)?);
            const NAME: &'static str = $crate::message!(@name $m $($name)?);
        }
    )+};
    (@error) => { $crate::Never };
    (@error $e:ty) => { $e };
    (@name $m:ident) => { ::core::stringify!($m) };
    (@name $m:ident $n:literal) => { $n };
}

/// The refusal of a message that is never refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
impl std::error::Error for Never {}

/// Carries a typed refusal through [`anyhow::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused<E>(pub E);

/// A typed refusal as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct JsonRefusal {
    /// The refusal's own text.
    pub message: String,
    /// The refusal as JSON.
    pub value: serde_json::Value,
}

/// What is wrong with a message's content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invalid(pub Vec<(String, String)>);

impl Invalid {
    /// One finding: a JSON pointer (`/jars`) and what is wrong there.
    pub fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self(vec![(pointer.into(), detail.into())])
    }

    /// Checks a value against a schema.
    ///
    /// # Errors
    /// The findings, at most 32.
    pub(crate) fn check(validator: &jsonschema::Validator, value: &serde_json::Value) -> Result<(), Self> {
        const MAX_FINDINGS: usize = 32;
        let findings: Vec<_> = validator
            .iter_errors(value)
            .take(MAX_FINDINGS)
            .map(|e| (e.instance_path().to_string(), e.to_string().chars().take(300).collect()))
            .collect();
        if findings.is_empty() { Ok(()) } else { Err(Self(findings)) }
    }

    /// The same findings, for a value that is at `pointer` of a larger one.
    pub fn within(self, pointer: &str) -> Self {
        Self(self.0.into_iter().map(|(inner, detail)| (format!("{pointer}{inner}"), detail)).collect())
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid")?;
        for (i, (pointer, detail)) in self.0.iter().enumerate() {
            let sep = if i == 0 { ": " } else { "; " };
            let pointer = if pointer.is_empty() { "the body" } else { pointer };
            write!(f, "{sep}{pointer}: {detail}")?;
        }
        Ok(())
    }
}
impl std::error::Error for Invalid {}
