//! Security headers of every response.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What a page may load and do: itself, from here, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const ALWAYS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Adds them to the answer at `path`; what a handler has said itself stays.
pub(in super::super) fn secure(path: &str, headers: &mut HeaderMap) {
    let mut add = |name: HeaderName, value: &'static str| {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    };
    ALWAYS.into_iter().for_each(|(name, value)| add(name, value));
    add(header::CONTENT_SECURITY_POLICY, POLICY);
    if path.starts_with("/api/") {
        add(header::CACHE_CONTROL, "no-store");
    }
}
