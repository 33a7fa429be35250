//! `/status`, `/tree`, `/kinds`, `/nodes`: the node as a whole.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;

use super::{
    audit,
    body::{accepted_plain, list, ok},
    params::Params,
    path,
    problem::Problem,
    server::Ctx,
};

type Answer = Result<HttpResponse, Problem>;

/// `GET /status`.
pub(super) async fn status(ctx: Data<Ctx>) -> Answer {
    ok(&ctx.operator.status().await)
}

/// `GET /tree[?children=N]`: with so many children of each; 1,000 at most, as when absent.
pub(super) async fn tree(ctx: Data<Ctx>, params: Params) -> Answer {
    let example = "a number from 0 to 1000";
    match params.parsed("children", example)? {
        Some(1_001..) => Err(Problem::malformed(format!("`children` is {example}"))),
        Some(children) => ok(&ctx.operator.small_tree(children).await),
        None => ok(&ctx.operator.tree().await),
    }
}

/// `GET /tree/{kind}?cursor=&limit=`: the agents of a kind that run or are held, by their keys.
pub(super) async fn branch(ctx: Data<Ctx>, request: HttpRequest, params: Params) -> Answer {
    let kind = path::part(&request, "kind")?;
    ok(&ctx.operator.branch(&kind, params.text("cursor")?, params.limit()?).await?)
}

/// `GET /kinds`.
pub(super) async fn kinds(ctx: Data<Ctx>) -> Answer {
    list(&ctx.operator.kinds().await)
}

/// `GET /kinds/{kind}`.
pub(super) async fn kind(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    ok(&ctx.operator.kind(&path::part(&request, "kind")?).await?)
}

/// `POST /kinds/{kind}/{pause|resume}`: a kind, or `tool:NAME`.
pub(super) async fn pause(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    let (kind, paused) = (path::part(&request, "kind")?, path::part(&request, "action")? == "pause");
    let was = match kind.strip_prefix("tool:") {
        Some(tool) => ctx.operator.tool(tool).await.ok().map(|tool| tool.paused),
        None => ctx.operator.kind(&kind).await.ok().map(|kind| kind.paused),
    };
    audit::before(&request, was.map(|paused| json!({"paused": paused})));
    ctx.operator.pause_kind(&kind, paused).await?;
    accepted_plain()
}

/// `GET /nodes`.
pub(super) async fn nodes(ctx: Data<Ctx>) -> Answer {
    list(&ctx.operator.nodes().await?)
}

/// The node that is acted on is to be this one; its status before is written down.
async fn meant(ctx: &Ctx, request: &HttpRequest) -> Result<(), Problem> {
    ctx.operator.is_meant(&path::part(request, "boot")?).await?;
    let nodes = ctx.operator.nodes().await.unwrap_or_default();
    let this = nodes.into_iter().find(|node| node.this);
    audit::before(request, this.map(|node| json!({"node": node.name, "status": node.status})));
    Ok(())
}

/// `POST /nodes/{id}/stop`: `self`, this node's boot id or its beginning, or its name.
pub(super) async fn stop(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    meant(&ctx, &request).await?;
    ctx.operator.stop();
    accepted_plain()
}

/// `POST /nodes/{id}/{drain|resume}`.
pub(super) async fn drain(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    meant(&ctx, &request).await?;
    ctx.operator.drain(path::part(&request, "action")? == "drain").await?;
    accepted_plain()
}
