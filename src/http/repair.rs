//! Replacing agents' states: edit and rollback.

use actix_web::{HttpRequest, HttpResponse, http::header::HeaderMap, web::Data};
use serde::Deserialize;
use serde_json::json;

use super::{
    audit,
    body::{Body, ok},
    etag::{if_match, tagged},
    params::Params,
    path,
    problem::Problem,
    server::Ctx,
};

type Answer = Result<HttpResponse, Problem>;

/// The version that `If-Match` names. A tag that is none of ours matches nothing.
fn expected(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    Ok(if_match(headers)?.map(|tag| tag.parse().unwrap_or(-1)))
}

fn written(request: &HttpRequest, version: i64) -> Answer {
    audit::now(request, json!({"version": version}));
    Ok(tagged(ok(&json!({"version": version}))?, version))
}

/// The agent must be there; for the audit log, what it was before.
async fn was(ctx: &Ctx, request: &HttpRequest, kind: &str, key: &str) -> Result<(), Problem> {
    let agent = ctx.operator.agent(kind, key).await?;
    audit::before(request, Some(json!({"status": agent.status, "version": agent.version})));
    Ok(())
}

/// `PUT …/state` with `If-Match: "VERSION"`: the body is the next state.
pub(super) async fn edit(ctx: Data<Ctx>, request: HttpRequest, body: Body) -> Answer {
    let (kind, key) = path::agent(&request)?;
    let tag = expected(request.headers())?;
    was(&ctx, &request, &kind, &key).await?;
    let version = tag.ok_or_else(|| {
        let detail = "`If-Match: \"VERSION\"` is missing: the version that was edited, as `ETag` gave it";
        Problem::new("precondition_required", detail)
    })?;
    if body.json()?.is_none() {
        return Err(Problem::malformed("the body is to be the state, and there is none"));
    }
    written(&request, ctx.operator.edit_state(&kind, &key, version, &body.0).await?)
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct To {
    to: i64,
}

/// `POST …/rollback {to}`, with `If-Match` if it matters what is there now.
pub(super) async fn roll_back(ctx: Data<Ctx>, request: HttpRequest, body: Body) -> Answer {
    let (kind, key) = path::agent(&request)?;
    let (version, To { to }) = (expected(request.headers())?, body.read()?);
    was(&ctx, &request, &kind, &key).await?;
    written(&request, ctx.operator.roll_back(&kind, &key, to, version).await?)
}

/// `DELETE /agents/{kind}/{key}[?cancel_tasks=true]`, with `If-Match` if it matters what is there now.
pub(super) async fn delete(ctx: Data<Ctx>, request: HttpRequest, params: Params) -> Answer {
    let (kind, key) = path::agent(&request)?;
    let cancel = params.parsed("cancel_tasks", "true or false")?.unwrap_or_default();
    let version = expected(request.headers())?;
    was(&ctx, &request, &kind, &key).await?;
    let cancelled = ctx.operator.delete_agent(&kind, &key, cancel, version).await?;
    audit::now(&request, json!({"cancelled_tasks": cancelled}));
    ok(&json!({"deleted": true, "cancelled_tasks": cancelled}))
}
