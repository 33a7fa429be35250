//! The middleware before the handlers: metrics, headers, the `Host` and `Origin` checks, authentication.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use actix_web::{
    Error, HttpMessage as _, HttpRequest, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{ConnectionType, Method, StatusCode, header},
    middleware::Next,
    web,
};
use percent_encoding::percent_decode_str;

use super::{
    access::{Caller, address_of, is_foreign, secure},
    audit::{self, Named},
    deliver::{compressed, paced},
    pipeline::{Pipeline, until_sent},
    problem::{Problem, told},
    request_id::{REQUEST_ID, request_id},
    server::Ctx,
};
use crate::model::{
    access::Scope,
    event::{self, Event, Level},
};

/// The route of which the path ends with the id of a session.
const SESSION: &str = "/api/v1/sessions/{id}";
/// So many characters of a path are told in the log.
const MAX_PATH: usize = 256;

/// The first and the last of all: refuses what nobody should see, and measures.
pub(super) async fn front(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let (began, answering) = (Instant::now(), Pipeline::begin(&mut request));
    let method = method_label(request.method());
    let id = request_id(request.headers());
    let answered = match admit(&request) {
        Err(problem) => request.into_response(problem.error_response()),
        Ok(()) => next.call(request).await?.map_into_boxed_body(),
    };
    let route = answered.request().match_pattern().unwrap_or_else(|| "none".to_owned());
    let code = answered.status().as_u16();
    let ctx = answered.request().app_data::<web::Data<Ctx>>().cloned();
    if let Some(ctx) = ctx.as_ref().filter(|_| code >= 500) {
        let problem = told(answered.response());
        let event = Event::new(Level::Warn, event::HTTP_FAILED, "http")
            .field("request", id.to_str().unwrap_or_default())
            .field("method", method)
            .field("route", route.clone())
            .field("path", path_of(answered.request(), &route))
            .field_opt("who", who_of(answered.request()))
            .field_opt("by", address_of(answered.request(), ctx.settings.http.behind_proxy))
            .field("status", code)
            .field_opt("code", problem.map(Problem::code))
            .field_opt("error", problem.map(Problem::detail))
            .caused_by(problem.into_iter().flat_map(Problem::causes))
            .field("took_ms", u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        ctx.logger.emit(event);
    }
    if let Some(ctx) = ctx.as_ref().filter(|_| is_attempt(&answered)) {
        let event = Event::new(Level::Warn, event::HTTP_REFUSED, "http")
            .field("request", id.to_str().unwrap_or_default())
            .field("method", method)
            .field("route", route.clone())
            .field("status", code)
            .field("path", path_of(answered.request(), &route))
            .field_opt("who", who_of(answered.request()))
            .field_opt("by", address_of(answered.request(), ctx.settings.http.behind_proxy));
        ctx.logger.emit(event);
    }
    metrics::histogram!(
        "greenroom_http_request_duration_seconds",
        "route" => route, "method" => method, "code" => code.to_string()
    )
    .record(began.elapsed().as_secs_f64());
    let mut answered = compressed(answered).await;
    let path = answered.request().path().to_owned();
    secure(&path, answered.headers_mut());
    answered.headers_mut().insert(REQUEST_ID, id);
    // Only the first head on a connection has a time limit (actix-http clears the other timer when a second one
    // begins): a connection is kept for those who have said who they are.
    if answered.request().extensions().get::<Caller>().is_none() {
        answered.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    let patience = ctx.map_or(Duration::ZERO, |ctx| ctx.settings.http.timeout);
    Ok(until_sent(paced(answered, patience), answering))
}

/// The path that was asked for, cut where it is long: whom it was about. Who knows a session's id may be taken for its
/// owner: that is not told.
fn path_of(request: &HttpRequest, route: &str) -> String {
    let path = if route == SESSION { SESSION } else { request.path() };
    path.chars().take(MAX_PATH).collect()
}

fn who_of(request: &HttpRequest) -> Option<String> {
    request.extensions().get::<Caller>().map(|caller| caller.me().name)
}

/// Whether somebody tried what they may not. Who has shown nothing yet, as a browser before its login, did not.
fn is_attempt(answered: &ServiceResponse<BoxBody>) -> bool {
    match answered.status() {
        StatusCode::FORBIDDEN => true,
        StatusCode::UNAUTHORIZED => {
            let request = answered.request();
            request.headers().contains_key(header::AUTHORIZATION) || request.path() == "/login"
        }
        _ => false,
    }
}

/// Lets those pass who show a token, or a session's cookie.
pub(super) async fn token(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let caller = match ctx(&request) {
        Ok(ctx) => ctx.access.clone().identify(&request).await,
        Err(problem) => Err(problem),
    };
    match caller {
        Err(problem) => Ok(request.into_response(problem.error_response())),
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            Ok(next.call(request).await?.map_into_boxed_body())
        }
    }
}

/// Of those, lets them pass who may do what they ask for: to look takes one scope, all else another, and may be
/// an act to be written down.
pub(super) async fn pass(
    scopes: Option<(Scope, Scope)>,
    act: Option<Named>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some((read, write)) = scopes else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let needed = if request.method().is_safe() { read } else { write };
    let has = request.extensions().get::<Caller>().map(Caller::scope);
    let problem = match has {
        Some(has) if has >= needed => {
            return match act {
                Some(named) if !request.method().is_safe() => audit::record(named, request, next).await,
                _ => Ok(next.call(request).await?.map_into_boxed_body()),
            };
        }
        Some(has) => Problem::new(
            "forbidden",
            format!("this takes a token of scope `{needed}`; the one that was shown has `{has}`"),
        ),
        None => Problem::new("unauthorized", "a token is needed"),
    };
    Ok(request.into_response(problem.error_response()))
}

fn ctx(request: &ServiceRequest) -> Result<&Ctx, Problem> {
    let ctx = request.app_data::<web::Data<Ctx>>().map(|data| data.get_ref());
    ctx.ok_or_else(|| Problem::new("unavailable", "the server is not set up"))
}

/// Refuses a page that a browser took for ours, and paths that are no text.
fn admit(request: &ServiceRequest) -> Result<(), Problem> {
    let http = &ctx(request)?.settings.http;
    if http.bind.ip().is_loopback() && !http.behind_proxy {
        // HTTP/1.0 clients may leave `Host` away; browsers never do.
        let host = request.headers().get(header::HOST).map(header::HeaderValue::as_bytes);
        let host = host.or_else(|| request.uri().host().map(str::as_bytes));
        if let Some(host) = host {
            let named = std::str::from_utf8(host).unwrap_or_default();
            if !is_local(named) {
                return Err(Problem::new(
                    "forbidden",
                    format!(
                        "this node answers to localhost alone, not to `{}`; behind a proxy, set http.behind_proxy = true",
                        named.escape_debug()
                    ),
                ));
            }
        }
    }
    let host = own_authority(request.request(), http.behind_proxy);
    if is_foreign(request.method(), request.path(), request.headers(), host) {
        let proxy =
            if http.behind_proxy { "; the proxy must pass on `Host` or `X-Forwarded-Host`" } else { "" };
        let why = format!("a page of another site sent this, and only the node's own pages may{proxy}");
        return Err(Problem::new("forbidden", why));
    }
    check_path(request.uri().path())
}

/// What the client calls this node, by its own or its proxy's words.
pub(super) fn own_authority(request: &HttpRequest, behind_proxy: bool) -> Option<&str> {
    let text = |name: header::HeaderName| request.headers().get(name)?.to_str().ok();
    let forwarded = if behind_proxy { text(header::X_FORWARDED_HOST) } else { None };
    let forwarded = forwarded.and_then(|all| all.rsplit(',').next()).map(str::trim);
    forwarded.or_else(|| text(header::HOST)).or_else(|| request.uri().authority().map(|a| a.as_str()))
}

/// Whether a `Host` header names this machine.
fn is_local(host: &str) -> bool {
    let (name, rest) = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']').unwrap_or((v6, "")),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Every `%` of a path starts an escape, and what the escapes say is UTF-8.
fn check_path(path: &str) -> Result<(), Problem> {
    let mut pieces = path.split('%');
    pieces.next();
    let escaped = |piece: &str| piece.get(..2).is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
    if !pieces.all(escaped) {
        return Err(Problem::malformed("the path holds a `%` that is followed by no two hexadecimal digits"));
    }
    match percent_decode_str(path).decode_utf8() {
        Ok(_) => Ok(()),
        Err(_) => Err(Problem::malformed("the path is not UTF-8")),
    }
}

/// The methods that exist, so that nobody can make up labels.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in
            ["localhost", "LocalHost:7710", "localhost.", "127.0.0.1:1", "127.9.9.9", "[::1]:7710", "[::1]"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "10.0.0.1", "[::2]:1", "127.0.0.1.nip.io:80"]
        {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn paths_are_text() {
        assert!(check_path("/a/%C3%A4%2F").is_ok());
        for bad in ["/a/%", "/a/%4", "/a/%zz", "/a/%FF", "/%é"] {
            assert_eq!(check_path(bad).unwrap_err().code(), "malformed", "{bad}");
        }
    }
}
