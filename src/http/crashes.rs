//! `/crashes`: crash reports, and the decisions of supervision.

use actix_web::{HttpRequest, HttpResponse, web::Data};

use super::{body::ok, params::Params, path, problem::Problem, server::Ctx};
use crate::runtime::operator::CrashQuery;

type Answer = Result<HttpResponse, Problem>;

/// `GET /crashes?since=&until=&cursor=&limit=`: newest first; all that are kept where no limit is given.
pub(super) async fn list(ctx: Data<Ctx>, params: Params) -> Answer {
    ok(&ctx.operator.crash_page(&query(&params)?)?)
}

/// `GET /crashes/groups?since=&until=&cursor=&limit=`: by site, those with the latest crashes first.
pub(super) async fn groups(ctx: Data<Ctx>, params: Params) -> Answer {
    ok(&ctx.operator.crash_groups(&query(&params)?).await?)
}

fn query(params: &Params) -> Result<CrashQuery, Problem> {
    Ok(CrashQuery { period: params.period()?, cursor: params.owned("cursor")?, limit: params.limit()? })
}

/// `GET /crashes/{id}`: a crash by its id, or the last one of a group by the group's.
pub(super) async fn show(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    ok(&ctx.operator.crash(&path::part(&request, "id")?).await?)
}
