//! The routes.

use std::future::Future;

use actix_web::{
    FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, dev::HttpServiceFactory,
    http::Method, middleware::from_fn, web,
};

use super::{
    agents,
    audit::{self, Named},
    config, conversations, crashes, dashboard, events, guard, health, login, logs, messages, node, openapi,
    problem::Problem,
    repair, schedules, sessions, tasks, tokens, tools,
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
        .service(
            at("/kinds/{kind}/{action:pause|resume}")
                .audited("kind.{action}", "{kind}")
                .post(node::pause)
                .done(),
        )
        .service(at("/nodes").get(node::nodes).done())
        .service(
            at("/nodes/{boot}/stop")
                .audited("node.stop", "node:{boot}")
                .needs(Scope::Admin)
                .post(node::stop)
                .done(),
        )
        .service(
            at("/nodes/{boot}/{action:drain|resume}")
                .audited("node.{action}", "node:{boot}")
                .needs(Scope::Admin)
                .post(node::drain)
                .done(),
        )
        .service(at("/crashes").get(crashes::list).done())
        .service(at("/crashes/groups").get(crashes::groups).done())
        .service(at("/crashes/{id}").get(crashes::show).done())
        .service(at("/logs").get(logs::list).done())
        .service(at("/events").get(events::stream).done())
        .service(
            at("/config")
                .needs(Scope::Admin)
                .audited("config.change", "config")
                .get(config::show)
                .on(Method::PATCH, config::change)
                .done(),
        )
        .service(at("/audit").get(audit::list).done())
        .service(at("/me").get(login::me).done())
        .service(at("/login-links").needs(Scope::Read).post(login::link).done())
        .service(
            at("/tokens")
                .audited("token.add", "token:{name}")
                .hidden()
                .get(tokens::list)
                .post(tokens::add)
                .done(),
        )
        .service(
            at("/tokens/{name}")
                .audited("token.remove", "token:{name}")
                .hidden()
                .delete(tokens::remove)
                .done(),
        );
}

fn agent_routes(service: &mut web::ServiceConfig) {
    service
        .service(at("/agents").get(agents::list).done())
        .service(
            at("/agents/{kind}/{key}")
                .audited("agent.delete", "{kind}/{key}")
                .needs(Scope::Admin)
                .get(agents::show)
                .delete(repair::delete)
                .done(),
        )
        .service(
            at("/agents/{kind}/{key}/state")
                .audited_sealed("agent.edit", "{kind}/{key}")
                .needs(Scope::Admin)
                .get(agents::state)
                .on(Method::PUT, repair::edit)
                .done(),
        )
        .service(
            at("/agents/{kind}/{key}/rollback")
                .audited("agent.rollback", "{kind}/{key}")
                .needs(Scope::Admin)
                .post(repair::roll_back)
                .done(),
        )
        .service(at("/agents/{kind}/{key}/snapshots").get(agents::snapshots).done())
        .service(at("/agents/{kind}/{key}/messages/{message}").post(messages::send).done())
        .service(
            at("/agents/{kind}/{key}/{action:stop|restart|pause|resume|quarantine|release}")
                .audited("agent.{action}", "{kind}/{key}")
                .post(agents::act)
                .done(),
        );
}

fn task_routes(service: &mut web::ServiceConfig) {
    service
        .service(at("/tasks").get(tasks::list).post(tasks::submit).done())
        .service(at("/tasks/batch").post(tasks::submit_batch).done())
        .service(at("/tasks/retry").audited("tasks.retry", "tasks").post(tasks::retry_many).done())
        .service(at("/tasks/dismiss").audited("tasks.dismiss", "tasks").post(tasks::dismiss_many).done())
        .service(at("/tasks/{id}").get(tasks::show).done())
        .service(at("/tasks/{id}/history").get(tasks::history).done())
        .service(at("/tasks/{id}/family").get(tasks::family).done())
        .service(at("/tasks/{id}/cancel").audited("task.cancel", "task:{id}").post(tasks::cancel).done())
        .service(at("/tasks/{id}/retry").audited("task.retry", "task:{id}").post(tasks::retry).done())
        .service(at("/tasks/{id}/dismiss").audited("task.dismiss", "task:{id}").post(tasks::dismiss).done())
        .service(
            at("/tasks/{id}/resolve").audited_sealed("task.resolve", "task:{id}").post(tasks::resolve).done(),
        )
        .service(
            at("/tasks/{id}/signals/{name}")
                .audited_sealed("task.signal", "task:{id}")
                .post(tasks::signal)
                .done(),
        )
        .service(at("/tasks/{id}/logs").get(tasks::logs).done())
        .service(
            at("/schedules")
                .audited_sealed("schedule.add", "schedule:{name}")
                .get(schedules::list)
                .post(schedules::add)
                .done(),
        )
        .service(
            at("/schedules/{name}")
                .audited("schedule.remove", "schedule:{name}")
                .get(schedules::show)
                .delete(schedules::remove)
                .done(),
        )
        .service(
            at("/schedules/{name}/{action:run|pause|resume}")
                .audited("schedule.{action}", "schedule:{name}")
                .post(schedules::act)
                .done(),
        )
        .service(at("/tools").get(tools::list).done())
        .service(at("/tools/{name}").get(tools::show).done())
        .service(at("/tools/{name}/call").post(tools::call).done());
}

fn conversation_routes(service: &mut web::ServiceConfig) {
    service
        .service(at("/conversations").get(conversations::list).post(conversations::create).done())
        .service(
            at("/conversations/{id}")
                .audited("conversation.delete", "conversation:{id}")
                .get(conversations::show)
                .delete(conversations::delete)
                .done(),
        )
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
    /// What changes something here is an act of an operator's.
    act: Option<Named>,
    #[cfg(test)]
    path: String,
}

fn at(path: &str) -> At {
    At {
        resource: web::resource(path),
        allow: Vec::new(),
        scopes: Some((Scope::Read, Scope::Operate)),
        act: None,
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

    /// What changes something here is written down in the audit log, with what was asked for: `{name}` stands for
    /// a part of the path, else for a member of the body.
    fn audited(self, action: &'static str, subject: &'static str) -> Self {
        Self { act: Some(Named { action, subject, sealed: false }), ..self }
    }

    /// The same, where the body is the agents' own: what it holds is left out.
    fn audited_sealed(self, action: &'static str, subject: &'static str) -> Self {
        Self { act: Some(Named { action, subject, sealed: true }), ..self }
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
        tests::WALKED.with_borrow_mut(|all| {
            all.push((self.path, self.allow.clone(), self.scopes, self.act.is_some()))
        });
        let allow = self.allow.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let resource = self
            .resource
            .default_service(web::to(move |request: HttpRequest| wrong_method(request, allow.clone())));
        let (scopes, act) = (self.scopes, self.act);
        resource.wrap(from_fn(move |request, next| guard::pass(scopes, act, request, next)))
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

    /// A path, its methods, its scopes, whether acts on it are written down.
    type Walked = (String, Vec<Method>, Option<(Scope, Scope)>, bool);

    thread_local! {
        pub(super) static WALKED: RefCell<Vec<Walked>> = const { RefCell::new(Vec::new()) };
    }

    #[actix_web::test]
    async fn every_route_has_its_scope_and_is_audited_where_it_acts() {
        init_service(App::new().configure(routes)).await;
        let walked = WALKED.take();
        assert!(walked.len() > 40, "{}", walked.len());
        let (mut public, mut admin, mut by_all, mut unaudited) = (vec![], vec![], vec![], vec![]);
        for (path, methods, scopes, audited) in &walked {
            let Some((read, write)) = scopes else {
                public.push(path.as_str());
                continue;
            };
            let changes = methods.iter().any(|method| !method.is_safe());
            if changes && !audited {
                unaudited.push(path.as_str());
            }
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
        let work = [
            "",
            "/login-links",
            "/agents/{kind}/{key}/messages/{message}",
            "/tasks",
            "/tasks/batch",
            "/tools/{name}/call",
            "/conversations",
            "/conversations/{id}/messages",
            "/sessions/{id}",
        ];
        assert_eq!(unaudited, work, "all else is an act of an operator's");
        let admins = [
            "/nodes/{boot}/stop",
            "/nodes/{boot}/{action:drain|resume}",
            "/config",
            "/tokens",
            "/tokens/{name}",
            "/agents/{kind}/{key}",
            "/agents/{kind}/{key}/state",
            "/agents/{kind}/{key}/rollback",
        ];
        assert_eq!(admin, admins);
    }

    #[actix_web::test]
    async fn every_route_is_described_and_nothing_else() {
        init_service(App::new().configure(routes)).await;
        let mut walked = BTreeSet::new();
        for (path, methods, scopes, _) in WALKED.take() {
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
                let scope = scopes.map(|(read, write)| if method.is_safe() { read } else { write });
                walked.extend(alternatives(&path).into_iter().map(|path| (method.to_string(), path, scope)));
            }
        }
        let described = openapi::described();
        let differ: Vec<_> = walked.symmetric_difference(&described).collect();
        assert!(differ.is_empty(), "{differ:?}");
    }

    /// `/a/{action:b|c}` is `/a/b` and `/a/c`.
    fn alternatives(path: &str) -> Vec<String> {
        let Some((before, rest)) = path.split_once("{action:") else { return vec![path.to_owned()] };
        let (words, after) = rest.split_once('}').unwrap();
        words.split('|').map(|word| format!("{before}{word}{after}")).collect()
    }
}
