//! Which route leads where.

use std::future::Future;

use actix_web::{
    FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, dev::HttpServiceFactory,
    http::Method, middleware::from_fn, web,
};

use super::{
    agents, config, conversations, crashes, events, guard, health, logs, messages, node, page,
    problem::Problem, schedules, sessions, tasks, tools,
};

/// All routes.
pub(super) fn routes(service: &mut web::ServiceConfig) {
    service
        .service(at("/").get(page::home).done())
        .service(at("/health/live").get(health::live).done())
        .service(at("/health/ready").get(health::ready).done())
        .service(
            web::scope("/metrics").wrap(from_fn(guard::token)).service(at("").get(health::metrics).done()),
        )
        .service(
            web::scope("/api/v1")
                .wrap(from_fn(guard::token))
                .configure(node_routes)
                .configure(agent_routes)
                .configure(task_routes)
                .configure(conversation_routes)
                .default_service(web::to(nowhere)),
        );
}

fn node_routes(service: &mut web::ServiceConfig) {
    service
        .service(at("/status").get(node::status).done())
        .service(at("/tree").get(node::tree).done())
        .service(at("/kinds").get(node::kinds).done())
        .service(at("/kinds/{kind}").get(node::kind).done())
        .service(at("/kinds/{kind}/{action:pause|resume}").post(node::pause).done())
        .service(at("/nodes").get(node::nodes).done())
        .service(at("/nodes/{id}/stop").post(node::stop).done())
        .service(at("/crashes").get(crashes::list).done())
        .service(at("/crashes/groups").get(crashes::groups).done())
        .service(at("/crashes/{id}").get(crashes::show).done())
        .service(at("/logs").get(logs::list).done())
        .service(at("/events").get(events::stream).done())
        .service(at("/config").get(config::show).done());
}

fn agent_routes(service: &mut web::ServiceConfig) {
    service
        .service(at("/agents").get(agents::list).done())
        .service(at("/agents/{kind}/{key}").get(agents::show).done())
        .service(at("/agents/{kind}/{key}/state").get(agents::state).done())
        .service(at("/agents/{kind}/{key}/snapshots").get(agents::snapshots).done())
        .service(at("/agents/{kind}/{key}/messages/{message}").post(messages::send).done())
        .service(
            at("/agents/{kind}/{key}/{action:stop|restart|pause|resume|quarantine|release}")
                .post(agents::act)
                .done(),
        );
}

fn task_routes(service: &mut web::ServiceConfig) {
    service
        .service(at("/tasks").get(tasks::list).post(tasks::submit).done())
        .service(at("/tasks/batch").post(tasks::submit_batch).done())
        .service(at("/tasks/retry").post(tasks::retry_many).done())
        .service(at("/tasks/{id}").get(tasks::show).done())
        .service(at("/tasks/{id}/history").get(tasks::history).done())
        .service(at("/tasks/{id}/cancel").post(tasks::cancel).done())
        .service(at("/tasks/{id}/retry").post(tasks::retry).done())
        .service(at("/tasks/{id}/resolve").post(tasks::resolve).done())
        .service(at("/tasks/{id}/signals/{name}").post(tasks::signal).done())
        .service(at("/tasks/{id}/logs").get(tasks::logs).done())
        .service(at("/schedules").get(schedules::list).post(schedules::add).done())
        .service(at("/schedules/{name}").get(schedules::show).delete(schedules::remove).done())
        .service(at("/schedules/{name}/{action:run|pause|resume}").post(schedules::act).done())
        .service(at("/tools").get(tools::list).done())
        .service(at("/tools/{name}").get(tools::show).done())
        .service(at("/tools/{name}/call").post(tools::call).done());
}

fn conversation_routes(service: &mut web::ServiceConfig) {
    service
        .service(at("/conversations").get(conversations::list).post(conversations::create).done())
        .service(at("/conversations/{id}").get(conversations::show).delete(conversations::delete).done())
        .service(
            at("/conversations/{id}/messages")
                .get(conversations::messages)
                .post(conversations::append)
                .done(),
        )
        .service(
            at("/sessions/{id}")
                .get(sessions::show)
                .on(Method::PUT, sessions::put)
                .delete(sessions::delete)
                .done(),
        );
}

/// The answer where there is nothing.
pub(super) async fn nowhere(request: HttpRequest) -> HttpResponse {
    let detail = format!("there is nothing at {} {}", request.method(), request.path().escape_debug());
    actix_web::ResponseError::error_response(&Problem::not_found(detail))
}

/// A resource that knows its methods, so that the others can be told.
struct At {
    resource: Resource,
    allow: Vec<Method>,
}

fn at(path: &str) -> At {
    At { resource: web::resource(path), allow: Vec::new() }
}

impl At {
    fn get<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args> + Clone,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::GET, handler.clone()).on(Method::HEAD, handler)
    }

    fn post<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::POST, handler)
    }

    fn delete<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::DELETE, handler)
    }

    fn on<F, Args>(mut self, method: Method, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.allow.push(method.clone());
        Self { resource: self.resource.route(web::method(method).to(handler)), ..self }
    }

    fn done(self) -> impl HttpServiceFactory + 'static {
        let allow = self.allow.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        self.resource
            .default_service(web::to(move |request: HttpRequest| wrong_method(request, allow.clone())))
    }
}

fn wrong_method(request: HttpRequest, allow: String) -> impl Future<Output = Result<HttpResponse, Problem>> {
    let problem = Problem::method_not_allowed(request.method().as_str(), allow);
    std::future::ready(Err(problem))
}
