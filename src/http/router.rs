//! Which route leads where.

use std::future::Future;

use actix_web::{
    FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, dev::HttpServiceFactory,
    http::Method, middleware::from_fn, web,
};

use super::{
    agents, config, conversations, crashes, dashboard, events, guard, health, login, logs, messages, node,
    openapi, problem::Problem, schedules, sessions, tasks, tokens, tools,
};
use crate::model::access::Scope;

/// All routes.
pub(super) fn routes(service: &mut web::ServiceConfig) {
    service
        .service(at("/").public().get(dashboard::shell).done())
        .service(at("/assets/{file:.+}").public().get(dashboard::file).done())
        .service(at("/login").public().on(Method::GET, login::redeem).post(login::login).done())
        .service(
            web::scope("/logout")
                .wrap(from_fn(guard::token))
                .service(at("").needs(Scope::Read).post(login::logout).done()),
        )
        .service(at("/health/live").public().get(health::live).done())
        .service(at("/health/ready").public().get(health::ready).done())
        .service(
            web::scope("/metrics").wrap(from_fn(guard::token)).service(at("").get(health::metrics).done()),
        )
        .service(at("/api/v1/openapi.json").public().get(openapi::show).done())
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
        .service(at("/tree/{kind}").get(node::branch).done())
        .service(at("/kinds").get(node::kinds).done())
        .service(at("/kinds/{kind}").get(node::kind).done())
        .service(at("/kinds/{kind}/{action:pause|resume}").post(node::pause).done())
        .service(at("/nodes").get(node::nodes).done())
        .service(at("/nodes/{boot}/stop").needs(Scope::Admin).post(node::stop).done())
        .service(at("/crashes").get(crashes::list).done())
        .service(at("/crashes/groups").get(crashes::groups).done())
        .service(at("/crashes/{id}").get(crashes::show).done())
        .service(at("/logs").get(logs::list).done())
        .service(at("/events").get(events::stream).done())
        .service(at("/config").needs(Scope::Admin).get(config::show).on(Method::PATCH, config::change).done())
        .service(at("/me").get(login::me).done())
        .service(at("/login-links").needs(Scope::Read).post(login::link).done())
        .service(at("/tokens").hidden().get(tokens::list).post(tokens::add).done())
        .service(at("/tokens/{name}").hidden().delete(tokens::remove).done());
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
        .service(at("/tasks/{id}/family").get(tasks::family).done())
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

/// A resource that knows its methods, so that the others can be told, and which scope it takes: `read` to look
/// at it, `operate` for all else, where its line does not say otherwise.
struct At {
    resource: Resource,
    allow: Vec<Method>,
    /// To look at it, and for all else; `None`: nobody is asked who they are.
    scopes: Option<(Scope, Scope)>,
    #[cfg(test)]
    path: String,
}

fn at(path: &str) -> At {
    At {
        resource: web::resource(path),
        allow: Vec::new(),
        scopes: Some((Scope::Read, Scope::Operate)),
        #[cfg(test)]
        path: path.to_owned(),
    }
}

impl At {
    /// Open to everybody.
    fn public(self) -> Self {
        Self { scopes: None, ..self }
    }

    /// What changes something here takes this scope.
    fn needs(self, scope: Scope) -> Self {
        Self { scopes: Some((Scope::Read, scope)), ..self }
    }

    /// Also to look at it takes `admin`.
    fn hidden(self) -> Self {
        Self { scopes: Some((Scope::Admin, Scope::Admin)), ..self }
    }

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
        #[cfg(test)]
        tests::WALKED.with_borrow_mut(|all| all.push((self.path, self.allow.clone(), self.scopes)));
        let allow = self.allow.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let resource = self
            .resource
            .default_service(web::to(move |request: HttpRequest| wrong_method(request, allow.clone())));
        let scopes = self.scopes;
        resource.wrap(from_fn(move |request, next| guard::scope(scopes, request, next)))
    }
}

fn wrong_method(request: HttpRequest, allow: String) -> impl Future<Output = Result<HttpResponse, Problem>> {
    let problem = Problem::method_not_allowed(request.method().as_str(), allow);
    std::future::ready(Err(problem))
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeSet};

    use actix_web::{App, test::init_service};

    use super::*;

    /// A path, its methods, its scopes.
    type Walked = (String, Vec<Method>, Option<(Scope, Scope)>);

    thread_local! {
        pub(super) static WALKED: RefCell<Vec<Walked>> = const { RefCell::new(Vec::new()) };
    }

    #[actix_web::test]
    async fn every_route_has_its_scope() {
        init_service(App::new().configure(routes)).await;
        let walked = WALKED.take();
        assert!(walked.len() > 40, "{}", walked.len());
        let (mut public, mut admin, mut by_all) = (Vec::new(), Vec::new(), Vec::new());
        for (path, methods, scopes) in &walked {
            let Some((read, write)) = scopes else {
                public.push(path.as_str());
                continue;
            };
            let changes = methods.iter().any(|method| !method.is_safe());
            match write {
                Scope::Admin if changes => admin.push(path.as_str()),
                Scope::Read if changes => by_all.push(path.as_str()),
                _ => {}
            }
            assert!(*read == Scope::Read || path.starts_with("/tokens"), "{path} is looked at by readers");
        }
        // whoever adds to these lists says why the usual scopes are not right
        assert_eq!(
            public,
            ["/", "/assets/{file:.+}", "/login", "/health/live", "/health/ready", "/api/v1/openapi.json"]
        );
        assert_eq!(by_all, ["", "/login-links"], "a session of one's own, begun and ended");
        assert_eq!(admin, ["/nodes/{boot}/stop", "/config", "/tokens", "/tokens/{name}"]);
    }

    #[actix_web::test]
    async fn every_route_is_described_and_nothing_else() {
        init_service(App::new().configure(routes)).await;
        let mut walked = BTreeSet::new();
        for (path, methods, _) in WALKED.take() {
            // pages and a browser's session are for people; messages and tools are the program's own
            let left_out = ["/", "/login", "/agents/{kind}/{key}/messages/{message}", "/tools/{name}/call"];
            if left_out.contains(&&*path) || path.starts_with("/assets") {
                continue;
            }
            let path = match &*path {
                "" if methods.contains(&Method::POST) => continue,
                "" => "/metrics".to_owned(),
                "/health/live" | "/health/ready" | "/api/v1/openapi.json" => path,
                below => format!("/api/v1{below}"),
            };
            for method in methods.iter().filter(|method| **method != Method::HEAD) {
                walked.extend(alternatives(&path).into_iter().map(|path| (method.to_string(), path)));
            }
        }
        let described = openapi::described();
        assert_eq!(walked.difference(&described).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
        assert_eq!(described.difference(&walked).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
    }

    /// `/a/{action:b|c}` is `/a/b` and `/a/c`.
    fn alternatives(path: &str) -> Vec<String> {
        let Some((before, rest)) = path.split_once("{action:") else { return vec![path.to_owned()] };
        let (words, after) = rest.split_once('}').unwrap();
        words.split('|').map(|word| format!("{before}{word}{after}")).collect()
    }
}
