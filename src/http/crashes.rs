//! `/crashes`: what crashed, and what supervision did.

use actix_web::{HttpRequest, HttpResponse, web::Data};

use super::{
    body::{list as listed, ok},
    path,
    problem::Problem,
    server::Ctx,
};

type Answer = Result<HttpResponse, Problem>;

/// `GET /crashes`: newest first.
pub(super) async fn list(ctx: Data<Ctx>) -> Answer {
    listed(&ctx.operator.crashes())
}

/// `GET /crashes/{id}`.
pub(super) async fn show(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    ok(&ctx.operator.crash(&path::part(&request, "id")?)?)
}
