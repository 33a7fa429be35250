//! What stands before the handlers: metrics, the `Host` check, the token.

use std::{net::IpAddr, time::Instant};

use actix_web::{
    Error, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{Method, header},
    middleware::Next,
    web,
};
use percent_encoding::percent_decode_str;

use super::{problem::Problem, server::Ctx};

/// The first and the last of all: refuses what nobody should see, and measures.
pub(super) async fn front(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let began = Instant::now();
    let method = method_label(request.method());
    let answered = match admit(&request) {
        Err(problem) => request.into_response(problem.error_response()),
        Ok(()) => next.call(request).await?.map_into_boxed_body(),
    };
    let route = answered.request().match_pattern().unwrap_or_else(|| "none".to_owned());
    let code = answered.status().as_u16().to_string();
    metrics::histogram!(
        "greenroom_http_request_duration_seconds",
        "route" => route, "method" => method, "code" => code
    )
    .record(began.elapsed().as_secs_f64());
    Ok(answered)
}

/// Lets those pass who show the token.
pub(super) async fn token(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match authorise(&request) {
        Err(problem) => Ok(request.into_response(problem.error_response())),
        Ok(()) => Ok(next.call(request).await?.map_into_boxed_body()),
    }
}

fn ctx(request: &ServiceRequest) -> Result<&Ctx, Problem> {
    let ctx = request.app_data::<web::Data<Ctx>>().map(|data| data.get_ref());
    ctx.ok_or_else(|| Problem::new("unavailable", "the server is not set up"))
}

fn authorise(request: &ServiceRequest) -> Result<(), Problem> {
    let ctx = ctx(request)?;
    let Some(shown) = request.headers().get(header::AUTHORIZATION) else {
        return Err(Problem::new(
            "unauthorized",
            "no token: send `Authorization: Bearer TOKEN`; it stands in the file `token` of the node's data directory",
        ));
    };
    let shown = shown.as_bytes();
    let (scheme, token) = shown.split_at_checked(7).unwrap_or((shown, &[]));
    if scheme.eq_ignore_ascii_case(b"bearer ") && ctx.token.is(token.trim_ascii()) {
        return Ok(());
    }
    Err(Problem::new("unauthorized", "this token is not the node's"))
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
    check_path(request.uri().path())
}

/// Whether a `Host` header names this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
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
