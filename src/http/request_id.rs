//! Request ids: the client's, or a new one.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header with it, both ways.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest that is taken over.
const MAX_BYTES: usize = 128;

/// What the client calls its request, where that can be printed as it is; else a fresh id.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=');
    let given = headers
        .get(REQUEST_ID)
        .filter(|id| (1..=MAX_BYTES).contains(&id.len()) && id.as_bytes().iter().all(plain));
    match given {
        Some(id) => id.clone(),
        None => HeaderValue::from_str(&Uuid::now_v7().to_string()).unwrap_or(HeaderValue::from_static("-")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_over_or_made() {
        let of = |id: &str| {
            let given = (REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap());
            request_id(&[given].into_iter().collect())
        };
        assert_eq!(of("trace-1:a/b+c=_."), "trace-1:a/b+c=_.");
        for bad in ["", "a b", "ä", "<x>", &"x".repeat(129)] {
            assert!(of(bad).to_str().unwrap().parse::<Uuid>().is_ok(), "{bad}");
        }
        assert!(request_id(&HeaderMap::new()).to_str().unwrap().parse::<Uuid>().is_ok());
    }
}
