//! `/sessions`: JSON documents that expire after their last use.

use actix_web::{HttpRequest, HttpResponse, http::header, web::Data};
use uuid::Uuid;

use super::{
    body::{Body, ok},
    etag::{if_match, only, tagged},
    path,
    problem::Problem,
    server::Ctx,
};
use crate::model::session::{Expect, Session};

type Answer = Result<HttpResponse, Problem>;

fn document(session: &Session) -> Answer {
    Ok(tagged(ok(session)?, session.version))
}

/// `If-Match: "VERSION"`, or `If-None-Match: *`: there must be none.
fn expected(request: &HttpRequest) -> Result<Expect, Problem> {
    let headers = request.headers();
    match (if_match(headers)?, only(headers, header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Expect::Any),
        (None, Some("*")) => Ok(Expect::Absent),
        (None, Some(_)) => Err(Problem::malformed("of `If-None-Match`, only `*` is understood")),
        (Some(_), Some(_)) => Err(Problem::malformed("`If-Match` and `If-None-Match` exclude each other")),
        // A tag that is none of ours matches nothing.
        (Some(tag), None) => Ok(Expect::Version(tag.parse().unwrap_or(Uuid::nil()))),
    }
}

/// `GET /sessions/{id}`: its time to live starts again.
pub(super) async fn show(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    document(&ctx.operator.session(&path::part(&request, "id")?).await?)
}

/// `PUT /sessions/{id}`.
pub(super) async fn put(ctx: Data<Ctx>, request: HttpRequest, body: Body) -> Answer {
    let (id, expect) = (path::part(&request, "id")?, expected(&request)?);
    document(&ctx.operator.put_session(&id, body.read()?, expect).await?)
}

/// `DELETE /sessions/{id}`.
pub(super) async fn delete(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    ctx.operator.remove_session(&path::part(&request, "id")?, expected(&request)?).await?;
    Ok(HttpResponse::NoContent().finish())
}
