//! `/health/live`, `/health/ready`, `/metrics`: for load balancers and collectors.

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde_json::json;

use super::{body::answer, problem::Problem, server::Ctx};
use crate::{clock, runtime::views::Reason};

type Answer = Result<HttpResponse, Problem>;

/// `GET /health/live`: the process serves.
pub(super) async fn live() -> Answer {
    answer(StatusCode::OK, &json!({"status": "ok", "reasons": []}))
}

/// `GET /health/ready`: the node may be sent work; else 503 with reasons.
pub(super) async fn ready(ctx: Data<Ctx>) -> Answer {
    if ctx.stop.is_cancelled() {
        let reason = Reason {
            code: "stopping".to_owned(),
            message: "the node is stopping".to_owned(),
            since: clock::now(),
            remedy: "send work to another node, or wait until it has started again".to_owned(),
        };
        let reasons = serde_json::to_value([&reason]).unwrap_or_default();
        return Err(Problem::new("unavailable", reason.message).with("reasons", reasons));
    }
    match ctx.operator.ready().await {
        Ok(()) => answer(StatusCode::OK, &json!({"status": "ok", "reasons": []})),
        Err(reasons) => {
            let detail = reasons.iter().map(|reason| reason.message.as_str()).collect::<Vec<_>>().join("; ");
            let reasons = serde_json::to_value(&reasons).unwrap_or_default();
            Err(Problem::new("unavailable", format!("not ready: {detail}")).with("reasons", reasons))
        }
    }
}

/// `GET /metrics`: Prometheus text.
pub(super) async fn metrics(ctx: Data<Ctx>) -> Answer {
    match &ctx.metrics {
        Some(metrics) => {
            ctx.operator.refresh_metrics().await;
            Ok(HttpResponse::Ok()
                .content_type("text/plain; version=0.0.4; charset=utf-8")
                .body(metrics.render()))
        }
        None => Err(Problem::not_found("this program keeps no metrics")),
    }
}
