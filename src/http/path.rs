//! The segments of a path, percent-decoded.

use actix_web::HttpRequest;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::problem::Problem;
use crate::model::id::{TaskId, check_key};

/// What stays as it is in a part of a path.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One part of a path, encoded.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// One part of the path. (The router decodes all but a few protected characters; this decodes those.)
pub(super) fn part(request: &HttpRequest, name: &str) -> Result<String, Problem> {
    decode(request.match_info().get(name).unwrap_or_default())
}

fn decode(raw: &str) -> Result<String, Problem> {
    let text = percent_decode_str(raw).decode_utf8();
    text.map(Into::into).map_err(|_| Problem::malformed("the path is not UTF-8"))
}

/// `{kind}/{key}`: the key is checked here, the kind where kinds are known.
pub(super) fn agent(request: &HttpRequest) -> Result<(String, String), Problem> {
    let (kind, key) = (part(request, "kind")?, part(request, "key")?);
    check_key(&key)?;
    Ok((kind, key))
}

/// `{id}` of a task. Ids are opaque: what cannot be one is simply not there.
pub(super) fn task(request: &HttpRequest) -> Result<TaskId, Problem> {
    let text = part(request, "id")?;
    text.parse().map_err(|_| Problem::not_found(format!("there is no task `{}`", text.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn keys_are_decoded_once_and_checked() {
        let read = |key: &str| {
            let request = TestRequest::default().param("kind", "k").param("key", key.to_owned());
            agent(&request.to_http_request())
        };
        assert_eq!(read("a").unwrap(), ("k".to_owned(), "a".to_owned()));
        assert_eq!(read("f%2Bg").unwrap().1, "f+g");
        assert_eq!(read("f+g").unwrap().1, "f+g");
        assert_eq!(read("grün").unwrap().1, "grün");
        for bad in ["", ".", "..", "a%2Fb", "a%25", "a%00", &"x".repeat(257)] {
            assert_eq!(read(bad).unwrap_err().code(), "malformed", "{bad}");
        }
    }
}
