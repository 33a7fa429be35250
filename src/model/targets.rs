//! Filters for targets: one, or a prefix.

use std::{fmt, str::FromStr};

use super::id::{NameError, Target, check_key, check_kind};

/// Targets, as a filter names them: `KIND/KEY`, `tool:NAME`, or with a `*` at the end all that begin so
/// (`KIND/*`, `KIND/eu-*`, `tool:fs.*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// This one.
    One(Target),
    /// All whose names begin so.
    Beginning(String),
}

impl Targets {
    /// Whether the target is meant.
    pub fn takes(&self, target: &Target) -> bool {
        match self {
            Self::One(one) => one == target,
            Self::Beginning(beginning) => target.to_string().starts_with(beginning),
        }
    }
}

impl From<Target> for Targets {
    fn from(one: Target) -> Self {
        Self::One(one)
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(one) => one.fmt(f),
            Self::Beginning(beginning) => write!(f, "{beginning}*"),
        }
    }
}

impl FromStr for Targets {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some(beginning) = text.strip_suffix('*') else { return text.parse().map(Self::One) };
        let good = match (beginning.strip_prefix("tool:"), beginning.split_once('/')) {
            (Some(name), _) => {
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b))
            }
            // a whole kind has no mark of its own: the key may be empty, and only begin as a key does
            (None, Some((kind, key))) => check_kind(kind).is_ok() && check_key(&format!("{key}*")).is_ok(),
            (None, None) => false,
        };
        if good {
            Ok(Self::Beginning(beginning.to_owned()))
        } else {
            Err(NameError::Targets(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_meant_or_all_that_begin_so() {
        let read = |text: &str| text.parse::<Targets>();
        let (a, eu, tool) =
            (Target::agent("counter", "a"), Target::agent("counter", "eu-1"), Target::Tool("fs.read".into()));
        for (text, taken) in [
            ("counter/a", [true, false, false]),
            ("counter/*", [true, true, false]),
            ("counter/eu-*", [false, true, false]),
            ("counters/*", [false, false, false]),
            ("tool:fs.*", [false, false, true]),
            ("tool:*", [false, false, true]),
            ("tool:fs.read", [false, false, true]),
        ] {
            let targets = read(text).unwrap();
            assert_eq!([&a, &eu, &tool].map(|target| targets.takes(target)), taken, "{text}");
            assert_eq!(targets.to_string(), text);
        }
        for bad in ["*", "coun*", "Counter/*", "counter/a/*", "tool:Fs*", "counter", "default/*"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("coun*").unwrap_err().to_string().contains("KIND/*"));
    }
}
