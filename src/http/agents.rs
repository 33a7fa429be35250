//! `/agents`: agents, their states, and operators' actions on them.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{
    audit,
    body::{Body, accepted_plain, list as listed, ok},
    etag::tagged,
    params::Params,
    path,
    problem::Problem,
    server::Ctx,
};
use crate::runtime::{operator::AgentQuery, views::Action};

type Answer = Result<HttpResponse, Problem>;

/// `GET /agents?kind=&status=&cursor=&limit=`.
pub(super) async fn list(ctx: Data<Ctx>, params: Params) -> Answer {
    let query = AgentQuery {
        kind: params.owned("kind")?,
        status: params.owned("status")?,
        cursor: params.owned("cursor")?,
        limit: params.limit()?,
    };
    ok(&ctx.operator.agents(&query).await?)
}

/// `GET /agents/{kind}/{key}`.
pub(super) async fn show(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    let (kind, key) = path::agent(&request)?;
    let agent = ctx.operator.agent(&kind, &key).await?;
    Ok(tagged(ok(&agent)?, agent.version))
}

/// `GET …/state[?version=N]`.
pub(super) async fn state(ctx: Data<Ctx>, request: HttpRequest, params: Params) -> Answer {
    let (kind, key) = path::agent(&request)?;
    let version = params.parsed("version", "a number")?;
    let state = ctx.operator.state(&kind, &key, version).await?;
    Ok(tagged(ok(&state)?, state.version))
}

/// `GET …/snapshots`.
pub(super) async fn snapshots(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    let (kind, key) = path::agent(&request)?;
    listed(&ctx.operator.snapshots(&kind, &key).await?)
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct How {
    /// The kept version with which a quarantine ends.
    version: Option<i64>,
    /// Whether what waits is cleared.
    clear: bool,
}

/// `POST …/{stop|restart|pause|resume|quarantine|release}[?clear=true]`.
pub(super) async fn act(ctx: Data<Ctx>, request: HttpRequest, params: Params, body: Body) -> Answer {
    let (kind, key) = path::agent(&request)?;
    let named = path::part(&request, "action")?;
    let how = if body.is_empty() { None } else { body.read::<Option<How>>()? };
    let How { version, clear } = how.unwrap_or_default();
    let clear = params.parsed("clear", "true or false")?.unwrap_or(false) || clear;
    let action = match named.as_str() {
        "stop" => Action::Stop,
        "restart" => Action::Restart,
        "pause" => Action::Pause,
        "resume" => Action::Resume,
        "quarantine" => Action::Quarantine,
        "release" => Action::Release,
        other => return Err(Problem::not_found(format!("there is no action `{}`", other.escape_debug()))),
    };
    let was = ctx.operator.agent(&kind, &key).await.ok();
    audit::before(&request, was.map(|agent| json!({"status": agent.status})));
    match (action, version) {
        (Action::Release, Some(version)) => ctx.operator.release_at(&kind, &key, version).await?,
        (_, Some(_)) => return Err(Problem::malformed("`version` goes with `release` alone")),
        (_, None) if clear => ctx.operator.act_and_clear(&kind, &key, action).await?,
        (_, None) => ctx.operator.act(&kind, &key, action).await?,
    }
    if let Ok(agent) = ctx.operator.agent(&kind, &key).await {
        audit::now(&request, json!({"status": agent.status, "version": agent.version}));
    }
    accepted_plain()
}
