//! The secrets of this process: removed from every text that people read.
//!
//! Field names identify most secrets ([`redact`](crate::model::redact)), but not those that a panic, a driver's
//! error or third-party code quotes. So the secrets of the configuration and the node's token are remembered here,
//! and removed from the log, from stored crashes and errors, and from problem documents.

use std::borrow::Cow;

use parking_lot::RwLock;

use crate::model::redact::HIDDEN;

/// What is shorter is likely to stand in a text by chance.
const SHORTEST: usize = 6;

static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Has these taken out of all texts from now on, as they are and as they stand in JSON. What has less than
/// six bytes is left alone: no secret is that short.
pub(crate) fn hide(secrets: impl IntoIterator<Item = String>) {
    let mut known = KNOWN.write();
    for secret in secrets.into_iter().filter(|secret| secret.len() >= SHORTEST) {
        let quoted = serde_json::Value::from(secret.as_str()).to_string();
        let inside = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let in_json = inside.unwrap_or(&quoted).to_owned();
        for form in [secret, in_json] {
            if !known.contains(&form) {
                known.push(form);
            }
        }
    }
    // one may hold another
    known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
}

/// What the tokens begin with that are drawn here, and how many hexadecimal digits follow.
const DRAWN: (&str, usize) = ("gr_", 64);

/// A text without tokens that were drawn here: they are told by how they look, for only their digests are kept.
fn without_tokens(text: &str) -> Cow<'_, str> {
    let (begin, digits) = DRAWN;
    let (mut left, mut clean, mut any) = (text, String::new(), false);
    while let Some(at) = left.find(begin) {
        let (before, found) = left.split_at(at + begin.len());
        let drawn = found.get(..digits).is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        clean.push_str(before);
        left = if drawn { found.get(digits..).unwrap_or_default() } else { found };
        if drawn {
            clean.push_str(HIDDEN);
            any = true;
        }
    }
    if !any {
        return Cow::Borrowed(text);
    }
    clean.push_str(left);
    Cow::Owned(clean)
}

/// A text without secrets.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let mut text = without_tokens(text);
    for secret in KNOWN.read().iter() {
        if text.contains(secret.as_str()) {
            text = Cow::Owned(text.replace(secret.as_str(), HIDDEN));
        }
    }
    text
}

/// The same, of one's own.
pub(crate) fn cleaned(text: String) -> String {
    match clean(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(clean) => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_taken_out_as_it_is_and_out_of_json() {
        hide(["secrets-test \"a\\b\"".to_owned(), "secrets-test".to_owned(), "of".to_owned()]);
        assert_eq!(clean("x secrets-test \"a\\b\" y"), "x *** y");
        let json = serde_json::json!({"a": "secrets-test \"a\\b\""}).to_string();
        assert_eq!(clean(&json), r#"{"a":"***"}"#);
        assert_eq!(cleaned("secrets-test of old".to_owned()), "*** of old");
        assert!(matches!(clean("nothing of it, but gr_ and gr_12"), Cow::Borrowed(_)));
        let drawn = crate::model::access::draw();
        assert_eq!(clean(&format!("a {drawn}, {drawn}\"")), "a gr_***, gr_***\"");
    }
}
