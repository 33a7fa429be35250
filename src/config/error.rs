//! Configuration errors, all reported at once.

use std::fmt;

use serde::Serialize;

use super::show::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    /// Where it was written; nowhere, where something is missing.
    pub origin: Option<Origin>,
    /// Which key, where there is one.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "  → {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Errors(pub Vec<Problem>);

impl Errors {
    /// One thing, about a key.
    pub fn one(key: &str, message: impl Into<String>) -> Self {
        Self(vec![Problem { origin: None, key: key.to_owned(), message: message.into(), hint: None }])
    }

    /// What is kept in the store is not in a file that one could look at: with how to take it away.
    pub(crate) fn with_remedy(mut self) -> Self {
        for problem in self.0.iter_mut().filter(|problem| problem.origin == Some(Origin::Stored)) {
            problem.hint = Some(format!("greenroom config unset {}", problem.key));
        }
        self
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the configuration is not valid: {one}"),
            many => {
                write!(f, "the configuration is not valid, in {} places:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for Errors {}
