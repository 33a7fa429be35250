//! `/config`: what is in force, and where it came from.

use actix_web::{HttpResponse, web::Data};

use super::{body::list, problem::Problem, server::Ctx};

/// `GET /config`: every key with its value and origin; secrets are `***`.
pub(super) async fn show(ctx: Data<Ctx>) -> Result<HttpResponse, Problem> {
    list(ctx.settings.show())
}
