//! `POST …/messages/{message}`: ask, tell, submit.

use actix_web::{HttpRequest, HttpResponse, web::Data};

use super::{
    body::{Body, accepted_plain, idempotency_key},
    params::Params,
    path,
    problem::Problem,
    server::Ctx,
    tasks,
};
use crate::{
    model::{id::Target, units::print_duration},
    runtime::{operator::SendOptions, views::TaskRequest},
};

/// Asks unless `mode` says otherwise.
pub(super) async fn send(
    ctx: Data<Ctx>,
    request: HttpRequest,
    params: Params,
    body: Body,
) -> Result<HttpResponse, Problem> {
    let (kind, key) = path::agent(&request)?;
    let message = path::part(&request, "message")?;
    let timeout = params.timeout()?;
    let idempotency_key = idempotency_key(&request)?;
    let urgent = match params.text("urgent")? {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let other = other.escape_debug();
            return Err(Problem::malformed(format!("`urgent={other}` is neither true nor false")));
        }
    };
    match params.text("mode")? {
        None | Some("ask") => {
            let options = SendOptions { timeout, idempotency_key, urgent };
            let reply = ctx.operator.ask(&kind, &key, &message, &body.0, options).await?;
            let mut response = HttpResponse::Ok();
            response.content_type("application/json");
            response.insert_header(("Greenroom-Version", reply.version.to_string()));
            if let Some(turn) = reply.turn {
                response.insert_header(("Greenroom-Turn", turn.to_string()));
            }
            if reply.replayed {
                response.insert_header(("Idempotency-Replayed", "true"));
            }
            Ok(response.body(reply.body.get().to_owned()))
        }
        Some("tell") if idempotency_key.is_some() => Err(Problem::malformed(
            "a tell has no receipt, so an idempotency key cannot make it safe to repeat: ask or submit",
        )),
        Some("tell") => {
            ctx.operator.tell(&kind, &key, &message, &body.0, urgent).await?;
            accepted_plain()
        }
        Some("submit") => {
            let submission = TaskRequest {
                target: Target::agent(kind, key).to_string(),
                message: Some(message),
                input: body.json()?,
                timeout: timeout.map(print_duration),
                idempotency_key,
                ..TaskRequest::default()
            };
            tasks::submitted(ctx.operator.submit(submission).await?)
        }
        Some(other) => {
            Err(Problem::malformed(format!("`mode={}` is none of ask, tell, submit", other.escape_debug())))
        }
    }
}
