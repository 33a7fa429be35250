//! Bodies and headers: read with a limit and a deadline, and checked.

use std::{future::Future, pin::Pin, time::Duration};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    dev::Payload,
    error::PayloadError,
    http::{StatusCode, header},
    web::{self, Bytes},
};
use futures_util::StreamExt as _;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{deliver::allowed, problem::Problem, server::Ctx, shape};
use crate::model::{
    id::MAX_IDEMPOTENCY_KEY_BYTES,
    json::{pointer, whole_numbers},
    units::{print_duration, print_size},
};

/// A body within `limits.message_bytes`.
pub(super) struct Body(pub(super) Bytes);

/// A body of a few words, such as somebody may send who has not shown a token.
pub(super) struct Few(pub(super) Body);

/// So many bytes are a few words.
const FEW: u64 = 4 << 10;

impl FromRequest for Few {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let read = Body::within(request, payload, FEW);
        Box::pin(async move { read.await.map(Self) })
    }
}

impl FromRequest for Body {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        Self::within(request, payload, u64::MAX)
    }
}

impl Body {
    /// Reads it, where it has no more than so many bytes, and no more than any may have.
    fn within(
        request: &HttpRequest,
        payload: &mut Payload,
        most: u64,
    ) -> Pin<Box<dyn Future<Output = Result<Self, Problem>>>> {
        let settings = request.app_data::<web::Data<Ctx>>().map(|ctx| ctx.operator.settings());
        let limit = settings.as_ref().map_or(0, |settings| settings.limits.message_bytes).min(most);
        let patience = settings.as_ref().map_or(Duration::ZERO, |settings| settings.http.timeout);
        let announced = request.headers().get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|n| n.to_str().ok()).and_then(|n| n.parse::<u64>().ok());
        let payload = payload.take();
        Box::pin(async move {
            if announced.is_some_and(|n| n > limit) {
                return Err(too_large(limit));
            }
            collect(payload, limit, patience).await.map(Self)
        })
    }
}

async fn collect(mut payload: Payload, limit: u64, patience: Duration) -> Result<Bytes, Problem> {
    let (mut all, began) = (web::BytesMut::new(), Instant::now());
    loop {
        let until = began + allowed(patience, all.len() as u64);
        let chunk = match timeout_at(until, payload.next()).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(all.freeze()),
            Err(_) => {
                let why = format!(
                    "the body did not arrive in time: {} of it came within {}",
                    print_size(all.len() as u64),
                    print_duration(began.elapsed())
                );
                return Err(Problem::new("slow", why));
            }
        };
        let chunk = chunk.map_err(|error: PayloadError| {
            Problem::malformed(format!("the body broke off or cannot be read: {error}"))
        })?;
        if (all.len() as u64).saturating_add(chunk.len() as u64) > limit {
            return Err(too_large(limit));
        }
        all.extend_from_slice(&chunk);
    }
}

fn too_large(limit: u64) -> Problem {
    Problem::new(
        "too_large",
        format!("the body is over limits.message_bytes ({}): send less, or raise it", print_size(limit)),
    )
}

impl Body {
    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.0.trim_ascii().is_empty()
    }

    /// The body as `T`. A syntax error is `malformed`; JSON of another shape is `invalid`, with its place.
    pub(super) fn read<T: DeserializeOwned + JsonSchema + 'static>(&self) -> Result<T, Problem> {
        self.read_as(&self.0).or_else(|problem| match whole_numbers(&self.0) {
            Some(text) if problem.code() == "invalid" => self.read_as(&text),
            _ => Err(problem),
        })
    }

    fn read_as<T: DeserializeOwned + JsonSchema + 'static>(&self, text: &[u8]) -> Result<T, Problem> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        match serde_path_to_error::deserialize(&mut reader) {
            Ok(value) => match reader.end() {
                // a list of what stands in an object is read as one, and is none
                Ok(()) => shape::check::<T>(text).map(|()| value).map_err(Problem::from),
                Err(error) => Err(Problem::malformed(format!("the body is not JSON: {error}"))),
            },
            Err(error) if error.inner().is_data() => {
                let pointer = pointer(error.path());
                let detail = error.inner().to_string();
                Err(Problem::new(
                    "invalid",
                    format!("{}: {detail}", if pointer.is_empty() { "the body" } else { &pointer }),
                )
                .with("errors", vec![json!({"pointer": pointer, "detail": detail})]))
            }
            Err(error) => Err(Problem::malformed(format!("the body is not JSON: {}", error.inner()))),
        }
    }

    /// The body as any JSON; nothing where there is none.
    pub(super) fn json(&self) -> Result<Option<Value>, Problem> {
        if self.is_empty() {
            return Ok(None);
        }
        let read = serde_json::from_slice(&self.0);
        read.map(Some).map_err(|error| Problem::malformed(format!("the body is not JSON: {error}")))
    }
}

/// The `Idempotency-Key` header.
pub(super) fn idempotency_key(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let mut values = request.headers().get_all("Idempotency-Key");
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::malformed("`Idempotency-Key` is given twice"));
    }
    let text = value.to_str().ok().filter(|text| text.bytes().all(|b| matches!(b, b' '..=b'~')));
    let text =
        text.ok_or_else(|| Problem::malformed("`Idempotency-Key` holds more than visible ASCII"))?.trim();
    check_idempotency_key(text)?;
    Ok(Some(text.to_owned()))
}

/// 1 to 255 bytes.
pub(super) fn check_idempotency_key(key: &str) -> Result<(), Problem> {
    if key.is_empty() {
        return Err(Problem::malformed("the idempotency key is empty"));
    }
    if key.len() > MAX_IDEMPOTENCY_KEY_BYTES {
        let most = MAX_IDEMPOTENCY_KEY_BYTES;
        return Err(Problem::malformed(format!("the idempotency key has more than {most} bytes")));
    }
    Ok(())
}

/// An answer with a JSON body.
pub(super) fn answer(status: StatusCode, body: &impl Serialize) -> Result<HttpResponse, Problem> {
    let text = serde_json::to_string(body)
        .map_err(|error| Problem::new("unavailable", format!("the answer cannot be written: {error}")))?;
    Ok(HttpResponse::build(status).content_type("application/json").body(text))
}

/// 200 with a JSON body.
pub(super) fn ok(body: &impl Serialize) -> Result<HttpResponse, Problem> {
    answer(StatusCode::OK, body)
}

/// 202 with a JSON body.
pub(super) fn accepted(body: &impl Serialize) -> Result<HttpResponse, Problem> {
    answer(StatusCode::ACCEPTED, body)
}

/// 202 `{"accepted":true}`.
pub(super) fn accepted_plain() -> Result<HttpResponse, Problem> {
    accepted(&json!({"accepted": true}))
}

/// Marks an answer that is the first one under its idempotency key, if it is.
pub(super) fn replayed(mut response: HttpResponse, is_first: bool) -> HttpResponse {
    if is_first {
        let name = header::HeaderName::from_static("idempotency-replayed");
        response.headers_mut().insert(name, header::HeaderValue::from_static("true"));
    }
    response
}

/// A list that is one page.
pub(super) fn list<T: Serialize>(items: &[T]) -> Result<HttpResponse, Problem> {
    ok(&json!({"items": items, "next_cursor": null}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::views::TaskRequest;
    use actix_web::test::TestRequest;

    fn body(text: &str) -> Body {
        Body(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn no_json_is_malformed_and_other_json_is_invalid() {
        for bad in ["", "{", "{}x", "\u{1}"] {
            assert_eq!(body(bad).read::<Value>().unwrap_err().code(), "malformed", "{bad:?}");
        }
        let problem = body(r#"{"target":"a/b","priority":"high"}"#).read::<TaskRequest>().unwrap_err();
        assert_eq!(problem.code(), "invalid");
        assert_eq!(problem.document()["errors"][0]["pointer"], "/priority");
        let problem = body(r#"{"target":"a/b","prio":1}"#).read::<TaskRequest>().unwrap_err();
        assert_eq!(problem.code(), "invalid");
        assert!(body("  ").json().unwrap().is_none());
        assert_eq!(body("null").json().unwrap(), Some(Value::Null));
    }

    #[test]
    fn keys_have_a_bound() {
        let key = |text: &str| {
            let request = TestRequest::default().insert_header(("Idempotency-Key", text));
            idempotency_key(&request.to_http_request())
        };
        assert_eq!(key("k-1").unwrap().as_deref(), Some("k-1"));
        assert_eq!(idempotency_key(&TestRequest::default().to_http_request()).unwrap(), None);
        assert!(key("").is_err() && key(&"x".repeat(256)).is_err() && key(&"x".repeat(255)).is_ok());
    }
}
