//! Entity tags and conditional requests (RFC 9110).

use std::fmt::Display;

use actix_web::{
    HttpResponse,
    http::header::{ETAG, HeaderMap, HeaderName, IF_MATCH},
};

use super::problem::Problem;

/// The answer with its tag.
pub(super) fn tagged(mut response: HttpResponse, tag: impl Display) -> HttpResponse {
    if let Ok(tag) = format!("\"{tag}\"").parse() {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// What a header says that stands there once at most.
pub(super) fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Problem> {
    let mut given = headers.get_all(&name);
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => one
            .to_str()
            .map(|t| Some(t.trim()))
            .map_err(|_| Problem::malformed(format!("`{name}` is not text"))),
        (Some(_), Some(_)) => Err(Problem::malformed(format!("`{name}` is given twice"))),
    }
}

/// What stands between the quotation marks of `If-Match`; a weak tag is none of ours, and matches nothing.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(text) = only(headers, IF_MATCH)? else { return Ok(None) };
    let strong = text.strip_prefix("W/").unwrap_or(text);
    match strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(tag) if !tag.contains('"') => Ok(Some(if strong == text { tag } else { "" })),
        _ => {
            let why = "`If-Match` takes one tag, with its quotation marks, as `ETag` gave it: \"7\"";
            Err(Problem::malformed(why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn given(tags: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        tags.iter().for_each(|tag| headers.append(IF_MATCH, HeaderValue::from_static(tag)));
        headers
    }

    #[test]
    fn one_tag_is_understood() {
        assert_eq!(if_match(&given(&[])).unwrap(), None);
        assert_eq!(if_match(&given(&[" \"7\" "])).unwrap(), Some("7"));
        assert_eq!(if_match(&given(&["W/\"7\""])).unwrap(), Some(""), "it is none of ours");
        for bad in [&["*"][..], &["\"1\"", "\"2\""], &["7"], &["\"7"], &["\"1\", \"2\""], &["\""]] {
            assert_eq!(if_match(&given(bad)).unwrap_err().code(), "malformed", "{bad:?}");
        }
    }
}
