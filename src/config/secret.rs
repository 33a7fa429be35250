//! Text that is never printed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is shown instead of a secret.
pub const HIDDEN: &str = "***";

/// Text that prints as `***`, in `{}`, `{:?}` and JSON alike.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Compare it in constant time, and hand it to no log.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(HIDDEN)
    }
}

/// A URL that may hold a password: read it through [`std::ops::Deref`] (`&*url`); `{:?}` and JSON
/// show it without.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Url(pub(super) String);

impl std::ops::Deref for Url {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&without_password(&self.0), f)
    }
}

impl Serialize for Url {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&without_password(&self.0))
    }
}

/// A URL without the password between `:` and the last `@` of its authority.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A password may itself hold `/`: take the last `@` of the whole when the authority has none.
    let Some(at) = rest.get(..end).and_then(|a| a.rfind('@')).or_else(|| rest.rfind('@')) else {
        return hide_query(url);
    };
    let (user_info, host) = rest.split_at_checked(at).unwrap_or(("", rest));
    match user_info.split_once(':') {
        Some((user, _)) => hide_query(&format!("{scheme}://{user}:{HIDDEN}{host}")),
        None => hide_query(url),
    }
}

/// Hides `password=…` in a URL's query.
fn hide_query(url: &str) -> String {
    let Some((base, query)) = url.split_once('?') else { return url.to_owned() };
    let hidden: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if name.to_ascii_lowercase().contains("password") => format!("{name}={HIDDEN}"),
            _ => pair.to_owned(),
        })
        .collect();
    format!("{base}?{}", hidden.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_stars_everywhere() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(
            format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap()),
            "*** *** \"***\""
        );
        assert_eq!(secret.reveal(), "hunter2");
    }

    #[test]
    fn urls_lose_their_password_only() {
        for (url, shown) in [
            ("postgres://me:s3cret@db/x", "postgres://me:***@db/x"),
            ("postgres://me:a/b@c@db/x", "postgres://me:***@db/x"),
            ("postgres://me@db/x?password=a&y=1", "postgres://me@db/x?password=***&y=1"),
            ("sqlite://./x/greenroom.db", "sqlite://./x/greenroom.db"),
            ("redis://:pw@h:1", "redis://:***@h:1"),
            ("memory://", "memory://"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
