//! Tokens and their scopes.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::id::NameError;

/// The name of the token that the node makes for itself; no other has it.
pub const NODE: &str = "node";
/// At most so many tokens are stored.
pub const MAX_TOKENS: usize = 1_000;
/// The longest name of a token.
pub const MAX_TOKEN_NAME_BYTES: usize = 64;

/// What a caller may do. Each scope holds those before it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look at everything but tokens; change nothing.
    Read,
    /// Send messages, submit tasks, act on agents, tasks, schedules and kinds.
    Operate,
    /// Rewrite and delete states, drain and stop nodes, change settings, give and take tokens.
    Admin,
}

impl Scope {
    /// Every scope, least first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Operate, Self::Admin];

    /// Its name on every surface.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| format!("`{text}` is not a scope: use read, operate or admin"))
    }
}

/// Draws a token, a cookie, a code: 244 bits from the system's generator.
pub fn draw() -> String {
    let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
    format!("gr_{}{}", a.simple(), b.simple())
}

/// What is kept of a token, of a session's cookie, of a login code: enough to know it again, and of no use to
/// whoever reads it. They are drawn from 244 random bits, so one fast hash is enough.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// That of a text.
    pub fn of(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From where it is stored; `None` where that is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// A token as it is kept: without the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredToken {
    /// Who it is.
    pub name: String,
    /// What it is known by.
    pub digest: Digest,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is none any more.
    pub expires_at: Option<Timestamp>,
    /// When it was last shown, to the minute.
    pub used_at: Option<Timestamp>,
}

impl StoredToken {
    /// Whether it has not expired.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }
}

/// Whether `name` may name a token: lower-case letters, digits, `.`, `_` and `-`, 1 to 64 bytes, beginning with
/// a letter or digit, and not that of the node's own.
///
/// # Errors
/// It may not.
pub fn check_token_name(name: &str) -> Result<(), NameError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let good = (1..=MAX_TOKEN_NAME_BYTES).contains(&name.len())
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
        && name != NODE;
    if good { Ok(()) } else { Err(NameError::Token(name.chars().take(MAX_TOKEN_NAME_BYTES).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_holds_those_before_it() {
        assert!(Scope::Read < Scope::Operate && Scope::Operate < Scope::Admin);
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.name());
        }
        assert!("root".parse::<Scope>().is_err());
    }

    #[test]
    fn a_digest_is_known_again_and_not_printed() {
        let digest = Digest::of(b"gr_1");
        assert_eq!(Digest::from_bytes(digest.as_bytes()), Some(digest));
        assert_eq!(Digest::from_bytes(b"short"), None);
        assert_ne!(Digest::of(b"gr_2"), digest);
        assert_eq!(format!("{digest:?}"), "Digest(…)");
    }

    #[test]
    fn a_token_ends_when_it_says() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let token = StoredToken {
            name: "ci".into(),
            digest: Digest::of(b""),
            scope: Scope::Read,
            created_at: at(0),
            expires_at: Some(at(10)),
            used_at: None,
        };
        assert!(token.is_valid(at(9)) && !token.is_valid(at(10)));
        assert!(StoredToken { expires_at: None, ..token }.is_valid(Timestamp::MAX));
    }

    #[test]
    fn tokens_have_plain_names() {
        for good in ["ci", "anna.m", "9-to_5", &"x".repeat(64)] {
            assert_eq!(check_token_name(good), Ok(()), "{good}");
        }
        for bad in ["", "node", "Ci", "a b", "-a", ".a", "ä", &"x".repeat(65)] {
            assert!(check_token_name(bad).is_err(), "{bad}");
        }
    }
}
