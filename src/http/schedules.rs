//! `/schedules`: recurring tasks.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::Data,
};
use serde_json::{Value, json};

use super::{
    audit,
    body::{Body, accepted, answer, idempotency_key, list as listed, ok},
    path,
    problem::Problem,
    server::Ctx,
    tasks::submitted,
};
use crate::{model::redact::outline, runtime::views::ScheduleView};

type Answer = Result<HttpResponse, Problem>;

/// `GET /schedules`: by name.
pub(super) async fn list(ctx: Data<Ctx>) -> Answer {
    listed(&ctx.operator.schedules().await?)
}

/// `POST /schedules`.
pub(super) async fn add(ctx: Data<Ctx>, body: Body) -> Answer {
    let schedule = ctx.operator.add_schedule(body.read()?).await?;
    let mut response = answer(StatusCode::CREATED, &schedule)?;
    if let Ok(place) = format!("/api/v1/schedules/{}", path::encode(&schedule.name)).parse() {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// `GET /schedules/{name}`.
pub(super) async fn show(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    ok(&ctx.operator.schedule(&path::part(&request, "name")?).await?)
}

/// `DELETE /schedules/{name}`.
pub(super) async fn remove(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    let name = path::part(&request, "name")?;
    let was = ctx.operator.schedule(&name).await.ok();
    audit::before(&request, was.map(|it| whole(&it)));
    ctx.operator.remove_schedule(&name).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST /schedules/{name}/{run|pause|resume}`: 202 with the task, or with the schedule.
pub(super) async fn act(ctx: Data<Ctx>, request: HttpRequest) -> Answer {
    let name = path::part(&request, "name")?;
    let was = ctx.operator.schedule(&name).await.ok();
    audit::before(&request, was.map(|it| json!({"paused": it.paused})));
    match path::part(&request, "action")?.as_str() {
        "run" => {
            let run = ctx.operator.run_schedule(&name, idempotency_key(&request)?).await?;
            audit::now(&request, json!({"task": run.0.id}));
            submitted(run)
        }
        action => {
            let schedule = ctx.operator.pause_schedule(&name, action == "pause").await?;
            audit::now(&request, json!({"paused": schedule.paused}));
            accepted(&schedule)
        }
    }
}

/// All of a schedule; of the input, which is the agents' own, its outline.
fn whole(schedule: &ScheduleView) -> Value {
    let mut all = serde_json::to_value(schedule).unwrap_or_default();
    if let Some(input) = all.get_mut("input") {
        *input = outline(input);
    }
    all
}
