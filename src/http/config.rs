//! `/config`: what is in force, where it came from, and changes of it.

use actix_web::{HttpRequest, HttpResponse, http::header, web::Data};
use serde_json::{Value, json};

use super::{
    body::{Body, ok},
    params::Params,
    problem::Problem,
    server::Ctx,
};

type Answer = Result<HttpResponse, Problem>;

/// `GET /config`: every key with its value and origin; secrets are `***`.
pub(super) async fn show(ctx: Data<Ctx>) -> Answer {
    let view = ctx.operator.configuration();
    let document = json!({
        "items": view.items,
        "next_cursor": null,
        "generation": view.generation,
        "needs_restart": view.needs_restart,
    });
    tagged(ok(&document)?, &view.tag)
}

/// `PATCH /config?dry_run=false`: a JSON merge patch of all sections, kept in the store for all nodes that share it. Applied
/// whole or not at all; `If-Match` takes the `ETag` of `GET /config`.
pub(super) async fn change(ctx: Data<Ctx>, request: HttpRequest, params: Params, body: Body) -> Answer {
    let (over, dry_run) = (if_match(&request)?, params.parsed("dry_run", "true or false")?.unwrap_or(false));
    let applied = ctx.operator.configure(&body.read::<Value>()?, over.as_deref(), dry_run).await?;
    tagged(ok(&applied)?, &ctx.operator.configuration().tag)
}

fn tagged(mut response: HttpResponse, tag: &str) -> Answer {
    if let Ok(tag) = format!("\"{tag}\"").parse() {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// The tag that must still be right; `*` is any.
fn if_match(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let Some(given) = request.headers().get(header::IF_MATCH) else { return Ok(None) };
    let given = given.to_str().map_err(|_| Problem::malformed("`if-match` is not text"))?.trim();
    let bare = given.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(given);
    Ok((given != "*").then(|| bare.to_owned()))
}
