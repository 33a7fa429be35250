//! `/login`, `/logout`, `/me`: a browser's session.

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
    web::Data,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{
    access::{COOKIE, Caller, Opened, SESSION_SECONDS},
    audit,
    body::{Few, answer, ok},
    guard::own_authority,
    params::Params,
    problem::Problem,
    server::Ctx,
};
use crate::config::Secret;

type Answer = Result<HttpResponse, Problem>;

/// What a browser shows whose link has had its time.
const SPENT: &str = include_str!("spent.html");

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    #[schemars(with = "String")]
    token: Secret,
}

/// `GET /login?code=C`: begins a session, and goes on to the dashboard.
pub(super) async fn redeem(ctx: Data<Ctx>, request: HttpRequest, params: Params) -> Answer {
    // Another site, or a page on another port, would have the browser act as somebody else from here on.
    let from = request.headers().get("Sec-Fetch-Site").map(HeaderValue::as_bytes);
    if !matches!(from, None | Some(b"none" | b"same-origin")) {
        let why = "a page of another site led here: open the link yourself, in a window of its own";
        return Err(Problem::new("forbidden", why));
    }
    let code = params.text("code")?.unwrap_or_default();
    match ctx.access.redeem(code).await {
        Ok(Opened { who, cookie }) => {
            audit::note(&ctx, &request, who, "login", Some(json!({"with": "link"})));
            let mut response = HttpResponse::SeeOther();
            response.insert_header((header::LOCATION, "/"));
            Ok(with_cookie(response, &ctx, cookie.reveal(), SESSION_SECONDS))
        }
        Err(problem) if problem.code() == "unauthorized" => {
            Ok(HttpResponse::Unauthorized().content_type("text/html; charset=utf-8").body(SPENT))
        }
        Err(problem) => Err(problem),
    }
}

/// `POST /login` `{token}`: begins a session; 204.
pub(super) async fn login(ctx: Data<Ctx>, request: HttpRequest, Few(body): Few) -> Answer {
    let Opened { who, cookie } = ctx.access.login(body.read::<Login>()?.token.reveal()).await?;
    audit::note(&ctx, &request, who, "login", Some(json!({"with": "token"})));
    Ok(with_cookie(HttpResponse::NoContent(), &ctx, cookie.reveal(), SESSION_SECONDS))
}

/// `POST /logout`: ends the session; 204.
pub(super) async fn logout(ctx: Data<Ctx>, request: HttpRequest, caller: Caller) -> Answer {
    ctx.access.logout(&request);
    audit::note(&ctx, &request, caller.me().name, "logout", None);
    Ok(with_cookie(HttpResponse::NoContent(), &ctx, "", 0))
}

/// `GET /me`.
pub(super) async fn me(caller: Caller) -> Answer {
    ok(&caller.me())
}

/// `POST /login-links`: 201 with a link that begins a session for whoever asks.
pub(super) async fn link(ctx: Data<Ctx>, request: HttpRequest, caller: Caller) -> Answer {
    let behind_proxy = ctx.settings.http.behind_proxy;
    let scheme = match request.headers().get(header::X_FORWARDED_PROTO) {
        Some(forwarded) if behind_proxy && forwarded.as_bytes() == b"https" => "https",
        _ if ctx.settings.http.tls.cert.is_some() => "https",
        _ => "http",
    };
    let base = format!("{scheme}://{}", own_authority(&request, behind_proxy).unwrap_or("localhost"));
    audit::note(&ctx, &request, caller.me().name, "login.link", None);
    answer(StatusCode::CREATED, &ctx.access.link_for(&base, &caller))
}

fn with_cookie(mut response: HttpResponseBuilder, ctx: &Ctx, value: &str, seconds: i64) -> HttpResponse {
    let secure = if ctx.settings.http.is_encrypted() { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    response.insert_header((header::SET_COOKIE, cookie));
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    response.finish()
}
