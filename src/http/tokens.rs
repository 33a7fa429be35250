//! `/tokens`: access tokens besides the node's own.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Data};
use serde_json::json;

use super::{
    audit,
    body::{Body, answer, list as listed},
    path,
    problem::Problem,
    server::Ctx,
};
use crate::runtime::views::TokenRequest;

type Answer = Result<HttpResponse, Problem>;

/// `GET /tokens`: by name; never themselves.
pub(super) async fn list(ctx: Data<Ctx>) -> Answer {
    listed(&ctx.operator.tokens().await?)
}

/// `POST /tokens`: 201 with the token, shown this once.
pub(super) async fn add(ctx: Data<Ctx>, body: Body) -> Answer {
    let request: TokenRequest = body.read()?;
    answer(StatusCode::CREATED, &ctx.access.changing(ctx.operator.add_token(&request)).await?)
}

/// `DELETE /tokens/{name}`: in force at once here, within two seconds on other nodes.
pub(super) async fn remove(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    let name = path::part(&request, "name")?;
    let was = ctx.operator.tokens().await.ok().and_then(|all| all.into_iter().find(|it| it.name == name));
    audit::before(&request, was.map(|it| json!({"scope": it.scope, "expires_at": it.expires_at})));
    ctx.access.changing(ctx.operator.remove_token(&name)).await?;
    Ok(HttpResponse::NoContent().finish())
}
