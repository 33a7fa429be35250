//! `/sessions`: JSON documents that are forgotten when nobody has used them for a while.

use actix_web::{HttpRequest, HttpResponse, http::header, web::Data};
use uuid::Uuid;

use super::{
    body::{Body, ok},
    path,
    problem::Problem,
    server::Ctx,
};
use crate::model::session::{Expect, Session};

type Answer = Result<HttpResponse, Problem>;

fn document(session: &Session) -> Answer {
    let mut response = ok(session)?;
    if let Ok(tag) = format!("\"{}\"", session.version).parse() {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// `If-Match: "VERSION"`, or `If-None-Match: *`: there must be none.
fn expected(request: &HttpRequest) -> Result<Expect, Problem> {
    let header = |name: header::HeaderName| match request.headers().get_all(&name).collect::<Vec<_>>()[..] {
        [] => Ok(None),
        [one] => one
            .to_str()
            .map(|t| Some(t.trim()))
            .map_err(|_| Problem::malformed(format!("`{name}` is not text"))),
        _ => Err(Problem::malformed(format!("`{name}` is given twice"))),
    };
    match (header(header::IF_MATCH)?, header(header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Expect::Any),
        (None, Some("*")) => Ok(Expect::Absent),
        (None, Some(_)) => Err(Problem::malformed("of `If-None-Match`, only `*` is understood")),
        (Some(_), Some(_)) => Err(Problem::malformed("`If-Match` and `If-None-Match` exclude each other")),
        (Some(tag), None) => {
            let bare = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
            // A tag that is none of ours matches nothing.
            let version = bare.and_then(|t| t.parse().ok()).unwrap_or(Uuid::nil());
            match tag {
                "*" => {
                    Err(Problem::malformed("of `If-Match`, only one tag is understood, as `ETag` gave it"))
                }
                _ => Ok(Expect::Version(version)),
            }
        }
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
