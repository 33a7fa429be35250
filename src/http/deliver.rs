//! Sending responses: compressed where it helps, with a deadline for slow readers.

use std::{
    io::{self, Write as _},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::ServiceResponse,
    http::{
        Method,
        header::{self, HeaderMap, HeaderValue},
    },
    web::{self, Bytes},
};
use flate2::{Compression, write::GzEncoder};
use tokio::time::Instant;

/// What is smaller is sent as it is.
const WORTHWHILE: u64 = 2_048;
/// What is larger is compressed beside the threads that serve.
const LONG_WORK: usize = 64 * 1_024;
/// How much of a body is handed on at once: the next piece is asked for when there is room.
const PIECE: usize = 32 * 1_024;
/// How fast a client is to be at least, in bytes a second, once its time is over.
const SLOWEST: u64 = 64 * 1_024;

/// How long a client may take for so many bytes.
pub(super) fn allowed(patience: Duration, bytes: u64) -> Duration {
    patience.saturating_add(Duration::from_secs(bytes / SLOWEST))
}

/// Compresses an answer that is text and worth it, where the client understands; streams stay as they are.
pub(super) async fn compressed(answered: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let request = answered.request();
    let large = matches!(answered.response().body().size(), BodySize::Sized(bytes) if bytes >= WORTHWHILE);
    let headers = answered.headers();
    if !large
        || request.method() == Method::HEAD
        || !takes_gzip(request.headers())
        || !is_text(headers)
        || headers.contains_key(header::CONTENT_ENCODING)
    {
        return answered;
    }
    let (request, response) = answered.into_parts();
    let (mut response, body) = response.into_parts();
    let body = match body.try_into_bytes() {
        Ok(bytes) => bytes,
        Err(body) => return ServiceResponse::new(request, response.set_body(body)),
    };
    let packed = match body.len() {
        0..LONG_WORK => gzip(&body).ok(),
        _ => {
            let body = body.clone();
            web::block(move || gzip(&body)).await.ok().and_then(Result::ok)
        }
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let body = match packed {
        Some(packed) => {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            packed
        }
        None => body,
    };
    ServiceResponse::new(request, response.set_body(BoxBody::new(body)))
}

/// A text that stays what it is: all who ask for it share its bytes, as they are and compressed.
pub(super) struct Packed {
    plain: Bytes,
    packed: Option<Bytes>,
}

impl Packed {
    pub(super) fn new(text: String) -> Self {
        let plain = Bytes::from(text);
        Self { packed: gzip(&plain).ok(), plain }
    }

    /// 200 with it, as the client takes it.
    pub(super) fn answer(&self, wishes: &HeaderMap, content_type: &str) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        response.content_type(content_type).insert_header((header::VARY, "Accept-Encoding"));
        match &self.packed {
            Some(packed) if takes_gzip(wishes) => {
                response.insert_header((header::CONTENT_ENCODING, "gzip")).body(packed.clone())
            }
            _ => response.body(self.plain.clone()),
        }
    }
}

/// Ends the connection of a client that reads an answer more slowly than it may. (One that reads nothing at all is
/// ended by the system: see `bind`.) Streams, which have no length, may take for ever.
pub(super) fn paced(answered: ServiceResponse<BoxBody>, patience: Duration) -> ServiceResponse<BoxBody> {
    answered.map_body(|_, body| match body.size() {
        BodySize::Sized(bytes) if bytes > PIECE as u64 => match body.try_into_bytes() {
            Ok(left) => BoxBody::new(Paced { left, until: Instant::now() + allowed(patience, bytes) }),
            Err(body) => body,
        },
        _ => body,
    })
}

struct Paced {
    left: Bytes,
    until: Instant,
}

impl MessageBody for Paced {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        if Instant::now() > self.until {
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "it is read too slowly"))));
        }
        let piece = self.left.len().min(PIECE);
        Poll::Ready(Some(Ok(self.left.split_to(piece))))
    }
}

fn gzip(body: &[u8]) -> io::Result<Bytes> {
    let mut packer = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    packer.write_all(body)?;
    packer.finish().map(Bytes::from)
}

/// JSON, and what pages are made of; no stream of events.
fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind != "text/event-stream"
        && (kind.starts_with("text/") || kind.ends_with("json") || kind.ends_with("javascript"))
}

/// Whether `Accept-Encoding` names gzip, and not as the last of all.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).filter_map(|line| line.to_str().ok());
    let mut named = lines.flat_map(|line| line.split(',')).filter_map(|one| {
        let mut parts = one.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        let refused =
            parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0)));
        (name == "gzip" || name == "x-gzip").then_some(!refused)
    });
    named.next().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, pin::pin};

    fn accepts(text: &'static str) -> bool {
        takes_gzip(&[(header::ACCEPT_ENCODING, HeaderValue::from_static(text))].into_iter().collect())
    }

    #[test]
    fn gzip_is_for_those_who_name_it() {
        for yes in ["gzip", "br, GZIP", "gzip;q=0.5, *;q=0", "deflate,x-gzip"] {
            assert!(accepts(yes), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "gzip; q=0.0", "*", "identity"] {
            assert!(!accepts(no), "{no}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[actix_web::test]
    async fn all_who_ask_for_a_lasting_text_share_its_bytes() {
        let text = Packed::new("{}".repeat(4_096));
        let wishes = |name| [(header::ACCEPT_ENCODING, HeaderValue::from_static(name))].into_iter().collect();
        for (wish, bytes) in [("gzip", text.packed.clone().unwrap()), ("identity", text.plain.clone())] {
            let answer = text.answer(&wishes(wish), "application/json");
            assert_eq!(answer.headers().contains_key(header::CONTENT_ENCODING), wish == "gzip");
            let sent = answer.into_body().try_into_bytes().unwrap();
            assert_eq!((sent.as_ptr(), sent.len()), (bytes.as_ptr(), bytes.len()), "nothing is copied");
        }
    }

    #[test]
    fn a_stream_is_no_text() {
        let is = |kind: &'static str| {
            is_text(&[(header::CONTENT_TYPE, HeaderValue::from_static(kind))].into_iter().collect())
        };
        assert!(is("application/json") && is("application/problem+json") && is("text/html; charset=utf-8"));
        assert!(!is("text/event-stream") && !is("text/event-stream; charset=utf-8") && !is("image/png"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_handed_on_in_pieces_until_its_time_is_over() {
        let patience = Duration::from_secs(10);
        let all = Bytes::from(vec![7; PIECE * 5 / 2]);
        let body = Paced { left: all.clone(), until: Instant::now() + allowed(patience, 0) };
        let mut body = pin!(body);
        let mut next = async || poll_fn(|cx| body.as_mut().poll_next(cx)).await;
        assert_eq!(next().await.unwrap().unwrap().len(), PIECE);
        tokio::time::advance(patience).await;
        assert_eq!(next().await.unwrap().unwrap().len(), PIECE);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(next().await.unwrap().is_err());
        let whole = Paced { left: all.clone(), until: Instant::now() + patience };
        assert_eq!(actix_web::body::to_bytes(whole).await.unwrap(), all);
    }

    #[test]
    fn more_bytes_may_take_longer() {
        let patience = Duration::from_secs(30);
        assert_eq!(allowed(patience, 1_000), patience);
        assert_eq!(allowed(patience, 10 << 20), patience + Duration::from_secs(160));
    }
}
