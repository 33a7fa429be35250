//! Redaction: removes secrets before anything is written.

use serde_json::{Map, Value};

/// What is shown instead of a secret.
pub const HIDDEN: &str = "***";

/// What names of secrets hold.
const SECRET: [&str; 13] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "api_key",
    "apikey",
    "access_key",
    "signing_key",
    "credential",
    "authorization",
    "private_key",
    "bearer",
];
/// What they hold as a word: in others it is a part of harmless ones.
const WORDS: [&str; 5] = ["pass", "pwd", "auth", "cookie", "private"];

/// Whether what has this name is a secret. The name of a file that holds one is none.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    !name.ends_with("_file")
        && (SECRET.iter().any(|word| name.contains(word)) || words.any(|word| WORDS.contains(&word)))
}

/// The same, where it is known what it is: a number of tokens is no secret.
pub fn hides(name: &str, value: &Value) -> bool {
    let counts = value.is_number() && name.to_ascii_lowercase().ends_with("tokens");
    let is_empty = value.is_null() || value.as_str() == Some("");
    is_secret(name) && !counts && !is_empty
}

/// A document without what its names say is secret, and without the passwords of its URLs.
pub fn redacted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let hide = |(name, value): (&String, &Value)| {
                let value = if hides(name, value) { HIDDEN.into() } else { redacted(value) };
                (name.clone(), value)
            };
            Value::Object(members.iter().map(hide).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(redacted).collect()),
        Value::String(text) if text.contains("://") => without_password(text).into(),
        other => other.clone(),
    }
}

/// A document with the names of its members alone: what they hold is nobody's but the agents'.
pub fn outline(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            Value::Object(members.keys().map(|name| (name.clone(), "…".into())).collect::<Map<_, _>>())
        }
        Value::Null => Value::Null,
        _ => "…".into(),
    }
}

/// A document within so many bytes: where it has more, with its longest texts cut; where it still has, how many.
pub fn bounded(value: Value, most: usize) -> Value {
    const TEXT: usize = 256;
    match value.to_string().len() {
        bytes if bytes > most => match cut(value, TEXT) {
            cut if cut.to_string().len() > most => serde_json::json!({"bytes": bytes}),
            cut => cut,
        },
        _ => value,
    }
}

/// A document in which no text, and no name, has more than so many letters.
fn cut(value: Value, most: usize) -> Value {
    let short = |text: String| match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    };
    match value {
        Value::String(text) => short(text).into(),
        Value::Array(items) => items.into_iter().map(|item| cut(item, most)).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (short(name), cut(value, most))).collect()
        }
        other => other,
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

/// The password of a URL, as it stands there and decoded; nothing where there is none.
pub fn passwords(url: &str) -> Vec<String> {
    let Some((_, rest)) = url.split_once("://") else { return Vec::new() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let at = rest.get(..end).and_then(|authority| authority.rfind('@')).or_else(|| rest.rfind('@'));
    let user_info = at.and_then(|at| rest.get(..at)?.split_once(':')).map(|(_, password)| password);
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let in_query =
        query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| is_secret(name));
    let all = user_info.into_iter().chain(in_query.map(|(_, value)| value)).filter(|text| !text.is_empty());
    all.flat_map(|raw| {
        [raw.to_owned(), percent_encoding::percent_decode_str(raw).decode_utf8_lossy().into_owned()]
    })
    .collect()
}

/// Hides `password=…` in a URL's query.
fn hide_query(url: &str) -> String {
    let Some((base, query)) = url.split_once('?') else { return url.to_owned() };
    let hidden: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
            _ => pair.to_owned(),
        })
        .collect();
    format!("{base}?{}", hidden.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_lose_what_is_secret() {
        let document = json!({
            "name": "ci", "token": "gr_1", "max_tokens": 5, "http.token": "x", "http.token_file": "/run/t",
            "deep": [{"API_KEY": "k", "url": "redis://:pw@h:1"}], "password": "",
        });
        let shown = json!({
            "name": "ci", "token": "***", "max_tokens": 5, "http.token": "***", "http.token_file": "/run/t",
            "deep": [{"API_KEY": "***", "url": "redis://:***@h:1"}], "password": "",
        });
        assert_eq!(redacted(&document), shown);
    }

    #[test]
    fn an_outline_tells_names_alone() {
        assert_eq!(outline(&json!({"succeeded": {"a": 1}})), json!({"succeeded": "…"}));
        assert_eq!((outline(&json!(7)), outline(&json!(null))), (json!("…"), json!(null)));
    }

    #[test]
    fn what_is_too_large_is_counted() {
        assert_eq!(bounded(json!("abc"), 5), json!("abc"));
        assert_eq!(bounded(json!("abcd"), 5), json!({"bytes": 6}));
    }

    #[test]
    fn the_passwords_of_urls_are_found_as_they_stand_and_decoded() {
        for (url, found) in [
            ("postgres://me:s3cret@db/x", vec!["s3cret", "s3cret"]),
            ("redis://:a%2Fb@h:1", vec!["a%2Fb", "a/b"]),
            ("postgres://me@db/x?password=p&y=1", vec!["p", "p"]),
            ("sqlite://a:b.db", vec![]),
            ("memory://", vec![]),
            ("plain", vec![]),
        ] {
            assert_eq!(passwords(url), found, "{url}");
        }
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
