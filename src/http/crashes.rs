//! `/crashes`: what crashed, and what supervision did.

use actix_web::{HttpRequest, HttpResponse, web::Data};

use super::{
    body::{list as listed, ok},
    params::Params,
    path,
    problem::Problem,
    server::Ctx,
};
use crate::runtime::operator::PageQuery;

type Answer = Result<HttpResponse, Problem>;

/// `GET /crashes`: newest first.
pub(super) async fn list(ctx: Data<Ctx>) -> Answer {
    listed(&ctx.operator.crashes())
}

/// `GET /crashes/groups?cursor=&limit=`: by site, those with the latest crashes first.
pub(super) async fn groups(ctx: Data<Ctx>, params: Params) -> Answer {
    let query = PageQuery { cursor: params.owned("cursor")?, limit: params.limit()? };
    ok(&ctx.operator.crash_groups(&query).await?)
}

/// `GET /crashes/{id}`: a crash by its id, or the last one of a group by the group's.
pub(super) async fn show(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    ok(&ctx.operator.crash(&path::part(&request, "id")?).await?)
}
