//! `GET /`: what this is, for a person who opens it in a browser.

use actix_web::HttpResponse;

const PAGE: &str = include_str!("page.html");

/// The page. It holds nothing that is secret and loads nothing.
pub(super) async fn home() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header(("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"))
        .body(PAGE)
}
