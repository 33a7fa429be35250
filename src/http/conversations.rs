//! `/conversations`: conversations and their messages.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::Data,
};
use serde_json::json;

use super::{
    audit,
    body::{Body, answer, idempotency_key, ok, replayed},
    params::Params,
    path,
    problem::Problem,
    server::Ctx,
};
use crate::{
    model::conversation::ConversationId,
    runtime::{
        operator::{MessageQuery, PageQuery},
        views::ConversationRequest,
    },
};

type Answer = Result<HttpResponse, Problem>;

/// Ids are opaque: what cannot be one is simply not there.
fn id(request: &HttpRequest) -> Result<ConversationId, Problem> {
    let text = path::part(request, "id")?;
    text.parse()
        .map_err(|_| Problem::not_found(format!("there is no conversation `{}`", text.escape_debug())))
}

/// `GET /conversations?cursor=&limit=`: newest first.
pub(super) async fn list(ctx: Data<Ctx>, params: Params) -> Answer {
    let query = PageQuery { cursor: params.owned("cursor")?, limit: params.limit()? };
    ok(&ctx.operator.conversations(&query).await?)
}

/// `POST /conversations`.
pub(super) async fn create(ctx: Data<Ctx>, request: HttpRequest, body: Body) -> Answer {
    let key = idempotency_key(&request)?;
    let new = if body.is_empty() { ConversationRequest::default() } else { body.read()? };
    let (made, again) = ctx.operator.create_conversation(new, key.as_deref()).await?;
    let mut response = answer(StatusCode::CREATED, &made)?;
    if let Ok(place) = format!("/api/v1/conversations/{}", made.id).parse() {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(replayed(response, again))
}

/// `GET /conversations/{id}`.
pub(super) async fn show(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    ok(&ctx.operator.conversation(id(&request)?).await?)
}

/// `DELETE /conversations/{id}`: for good.
pub(super) async fn delete(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    let id = id(&request)?;
    let was = ctx.operator.conversation(id).await.ok();
    audit::before(&request, was.map(|it| json!({"created_at": it.created_at, "last_seq": it.last_seq})));
    ctx.operator.delete_conversation(id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `GET …/messages?order=desc|asc&cursor=&limit=`: newest first, or oldest first. A cursor is the `seq` of
/// the last message that was read.
pub(super) async fn messages(ctx: Data<Ctx>, request: HttpRequest, params: Params) -> Answer {
    let oldest_first = match params.text("order")? {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(other) => {
            let other = other.escape_debug();
            return Err(Problem::malformed(format!("`order={other}` is neither desc nor asc")));
        }
    };
    let query = MessageQuery { oldest_first, cursor: params.owned("cursor")?, limit: params.limit()? };
    ok(&ctx.operator.messages(id(&request)?, &query).await?)
}

/// `POST …/messages`.
pub(super) async fn append(ctx: Data<Ctx>, request: HttpRequest, body: Body) -> Answer {
    let key = idempotency_key(&request)?;
    let (message, again) = ctx.operator.append(id(&request)?, body.read()?, key.as_deref()).await?;
    Ok(replayed(answer(StatusCode::CREATED, &message)?, again))
}
