//! `/tasks`: durable work.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Data};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    audit,
    body::{Body, accepted, check_idempotency_key, idempotency_key, list as listed, ok, replayed},
    params::Params,
    path,
    problem::Problem,
    server::Ctx,
};
use crate::{
    model::{
        id::TaskId,
        targets::Targets,
        task::{TaskState, TaskView},
    },
    runtime::{
        operator::{Resolution, TaskQuery},
        views::{DismissRequest, RetryRequest, TaskRequest},
    },
};

type Answer = Result<HttpResponse, Problem>;

/// The longest wait of one request: proxies lose patience.
const MAX_WAIT: Duration = Duration::from_secs(60);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Batch {
    tasks: Vec<TaskRequest>,
}

/// `GET /tasks?state=&target=&tag=&cursor=&limit=`.
pub(super) async fn list(ctx: Data<Ctx>, params: Params) -> Answer {
    let query = TaskQuery {
        state: params.text("state")?.map(state).transpose()?,
        target: params.text("target")?.map(str::parse::<Targets>).transpose()?,
        tag: params.owned("tag")?,
        cursor: params.owned("cursor")?,
        limit: params.limit()?,
    };
    ok(&ctx.operator.tasks(&query).await?)
}

fn state(name: &str) -> Result<TaskState, Problem> {
    TaskState::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| {
        let names = TaskState::ALL.map(TaskState::name).join(", ");
        Problem::malformed(format!("`state={}` is none of {names}", name.escape_debug()))
    })
}

/// `POST /tasks`.
pub(super) async fn submit(ctx: Data<Ctx>, request: HttpRequest, body: Body) -> Answer {
    let mut submission: TaskRequest = body.read()?;
    match (idempotency_key(&request)?, &submission.idempotency_key) {
        (Some(header), Some(field)) if header != *field => {
            return Err(Problem::malformed("the header and the field give different idempotency keys"));
        }
        (Some(header), _) => submission.idempotency_key = Some(header),
        (None, Some(field)) => check_idempotency_key(field)?,
        (None, None) => {}
    }
    submitted(ctx.operator.submit(submission).await?)
}

/// 202 with the task and its place; the flag: it is the first one under its key.
pub(super) fn submitted((task, again): (TaskView, bool)) -> Answer {
    let mut response = accepted(&task)?;
    let place = format!("/api/v1/tasks/{}", task.id);
    if let Ok(value) = place.parse() {
        response.headers_mut().insert(actix_web::http::header::LOCATION, value);
    }
    Ok(replayed(response, again))
}

/// `POST /tasks/batch`: all or none.
pub(super) async fn submit_batch(ctx: Data<Ctx>, request: HttpRequest, body: Body) -> Answer {
    let key = idempotency_key(&request)?;
    let batch: Batch = body.read()?;
    if let Some(key) = batch.tasks.iter().find_map(|task| task.idempotency_key.as_deref()) {
        check_idempotency_key(key)?;
    }
    let (tasks, again) = ctx.operator.submit_batch(batch.tasks, key).await?;
    let answer = super::body::answer(StatusCode::ACCEPTED, &json!({"items": tasks, "next_cursor": null}))?;
    Ok(replayed(answer, again))
}

/// `GET /tasks/{id}[?wait=30s][&input=true]`: at once, or when it has ended; at the latest after the wait, or a minute.
pub(super) async fn show(ctx: Data<Ctx>, request: HttpRequest, params: Params) -> Answer {
    let id = path::task(&request)?;
    let input = params.parsed("input", "true or false")?.unwrap_or(false);
    let wait = params.duration("wait")?.unwrap_or_default();
    if !wait.is_zero() {
        tokio::select! {
            ended = ctx.operator.wait(id, wait.min(MAX_WAIT)) => drop(ended?),
            () = ctx.stop.cancelled() => {}
        }
    }
    if input { ok(&ctx.operator.task_with_input(id).await?) } else { ok(&ctx.operator.task(id).await?) }
}

/// `GET /tasks/{id}/history`.
pub(super) async fn history(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    listed(&ctx.operator.history(path::task(&request)?).await?)
}

/// The task that is acted on; its state before is written down.
async fn was(ctx: &Ctx, request: &HttpRequest) -> Result<TaskId, Problem> {
    let id = path::task(request)?;
    let task = ctx.operator.task(id).await.ok();
    audit::before(request, task.map(|task| json!({"state": task.state})));
    Ok(id)
}

/// The task after it was acted on; its state is written down.
fn acted(request: &HttpRequest, task: &TaskView) -> Answer {
    audit::now(request, json!({"state": task.state}));
    accepted(task)
}

/// `GET /tasks/{id}/family`: those that it waits for or was submitted by, and those that do so of it.
pub(super) async fn family(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    ok(&ctx.operator.family(path::task(&request)?).await?)
}

/// `POST /tasks/{id}/cancel`.
pub(super) async fn cancel(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    let id = was(&ctx, &request).await?;
    acted(&request, &ctx.operator.cancel(id).await?)
}

/// `POST /tasks/{id}/retry`.
pub(super) async fn retry(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    let id = was(&ctx, &request).await?;
    acted(&request, &ctx.operator.retry(id).await?)
}

/// `POST /tasks/retry`: those that a filter means, or how many they are.
pub(super) async fn retry_many(ctx: Data<Ctx>, request: HttpRequest, body: Body) -> Answer {
    let asked: RetryRequest = body.read()?;
    let swept = ctx.operator.retry_many(&asked).await?;
    let state = asked.filter.state.unwrap_or(TaskState::Failed);
    audit::before(&request, Some(json!({"state": state, "tasks": swept.count})));
    audit::dry_run(&request, swept.dry_run);
    ok(&swept)
}

/// `POST /tasks/{id}/dismiss`.
pub(super) async fn dismiss(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    let id = was(&ctx, &request).await?;
    acted(&request, &ctx.operator.dismiss(id).await?)
}

/// `POST /tasks/dismiss`: those that a filter means, or how many they are.
pub(super) async fn dismiss_many(ctx: Data<Ctx>, request: HttpRequest, body: Body) -> Answer {
    let swept = ctx.operator.dismiss_many(&body.read::<DismissRequest>()?).await?;
    audit::before(&request, Some(json!({"state": TaskState::Failed, "tasks": swept.count})));
    audit::dry_run(&request, swept.dry_run);
    ok(&swept)
}

/// `POST /tasks/{id}/resolve`: `{succeeded: JSON}` or `{failed: message}`.
pub(super) async fn resolve(ctx: Data<Ctx>, request: HttpRequest, body: Body) -> Answer {
    let said: Map<String, Value> = body.read()?;
    let mut said = said.into_iter();
    let resolution = match (said.next(), said.next()) {
        (Some((word, result)), None) if word == "succeeded" => Resolution::Succeeded(result),
        (Some((word, Value::String(why))), None) if word == "failed" => Resolution::Failed(why),
        _ => return Err(Problem::malformed("write {\"succeeded\": RESULT} or {\"failed\": \"why\"}")),
    };
    let id = was(&ctx, &request).await?;
    acted(&request, &ctx.operator.resolve(id, resolution).await?)
}

/// `POST /tasks/{id}/signals/{name}`: the body is what it says.
pub(super) async fn signal(ctx: Data<Ctx>, request: HttpRequest, body: Body) -> Answer {
    let said: Value = if body.is_empty() { Value::Null } else { body.read()? };
    let name = path::part(&request, "name")?;
    let key = idempotency_key(&request)?;
    accepted(&ctx.operator.signal(was(&ctx, &request).await?, &name, said, key.as_deref()).await?)
}

/// `GET /tasks/{id}/logs?cursor=&limit=`: what it wrote, oldest first.
pub(super) async fn logs(ctx: Data<Ctx>, request: HttpRequest, params: Params) -> Answer {
    let (cursor, limit) = (params.owned("cursor")?, params.limit()?);
    ok(&ctx.operator.task_logs(path::task(&request)?, cursor.as_deref(), limit).await?)
}
