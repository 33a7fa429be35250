//! `/config`: the effective configuration with its origins, and changes of it.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::{Value, json};

use super::{
    audit,
    body::{Body, ok},
    etag::{if_match, tagged},
    params::Params,
    problem::Problem,
    server::Ctx,
};
use crate::config::Change;

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
    Ok(tagged(ok(&document)?, view.tag))
}

/// `PATCH /config?dry_run=false`: a JSON merge patch of all sections, kept in the store for all nodes that share
/// it. Applied whole or not at all; `If-Match` takes the `ETag` of `GET /config`.
pub(super) async fn change(ctx: Data<Ctx>, request: HttpRequest, params: Params, body: Body) -> Answer {
    let dry_run = params.parsed("dry_run", "true or false")?.unwrap_or(false);
    let over = if_match(request.headers())?;
    let applied = ctx.operator.configure(&body.read::<Value>()?, over, dry_run).await?;
    audit::before(&request, Some(Change::before(&applied.changed)));
    audit::dry_run(&request, dry_run);
    Ok(tagged(ok(&applied)?, &applied.tag))
}
