//! `/tools`: listing and calling them.

use actix_web::{HttpRequest, HttpResponse, web::Data};

use super::{
    body::{Body, idempotency_key, list as listed, ok, replayed},
    params::Params,
    path,
    problem::Problem,
    server::Ctx,
};
use crate::runtime::operator::SendOptions;

type Answer = Result<HttpResponse, Problem>;

/// `GET /tools`.
pub(super) async fn list(ctx: Data<Ctx>) -> Answer {
    listed(&ctx.operator.tools().await)
}

/// `GET /tools/{name}`.
pub(super) async fn show(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    ok(&ctx.operator.tool(&path::part(&request, "name")?).await?)
}

/// `POST /tools/{name}/call`: 200 with the bare output.
pub(super) async fn call(ctx: Data<Ctx>, request: HttpRequest, params: Params, body: Body) -> Answer {
    let name = path::part(&request, "name")?;
    let options = SendOptions {
        timeout: params.timeout()?,
        idempotency_key: idempotency_key(&request)?,
        urgent: false,
    };
    let (output, again) = ctx.operator.call(&name, &body.0, options).await?;
    let response = HttpResponse::Ok().content_type("application/json").body(output.get().to_owned());
    Ok(replayed(response, again))
}
