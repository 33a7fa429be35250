//! The audit log: records the requests to routes that are marked for it, and serves `/audit`.

use actix_web::{
    Error, HttpMessage as _, HttpRequest, HttpResponse, ResponseError as _,
    body::{BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    middleware::Next,
    web::{self, Data},
};
use serde_json::{Map, Value};

use super::{
    access::{Caller, address_of},
    body::{Body, ok},
    params::Params,
    path,
    problem::{Problem, told},
    server::Ctx,
};
use crate::{
    clock,
    model::{
        act::{self, Act},
        redact::{bounded, outline, redacted},
    },
    runtime::operator::ActQuery,
    secrets,
};

/// The most that is kept of what was there before, and of what was asked for.
const MOST_BYTES: usize = 4_096;
/// The most that is kept of a subject.
const MOST_CHARS: usize = 300;

/// What an act on a route is called: `{name}` stands for a part of the path, else for a member of the body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) action: &'static str,
    pub(super) subject: &'static str,
    /// The body is the agents' own: only the names of its members are kept.
    pub(super) sealed: bool,
}

/// What was there before an act.
struct Before(Value);

/// What is there now.
struct Now(Value);

struct DryRun;

/// Has it written down that nothing was to be done.
pub(super) fn dry_run(request: &HttpRequest, is: bool) {
    if is {
        request.extensions_mut().insert(DryRun);
    }
}

/// Has it written down how it is after what was asked for, under `now`.
pub(super) fn now(request: &HttpRequest, found: Value) {
    request.extensions_mut().insert(Now(found));
}

/// Has it written down what was there before, as the handler of an audited route has found it.
pub(super) fn before(request: &HttpRequest, found: Option<Value>) {
    if let Some(value) = found {
        request.extensions_mut().insert(Before(value));
    }
}

/// Writes down what `who` has done here, where it is not to be refused because it cannot be.
pub(super) fn note(ctx: &Ctx, request: &HttpRequest, who: String, action: &str, after: Option<Value>) {
    ctx.operator.note_act(Act {
        who,
        by: address_of(request, ctx.settings.http.behind_proxy),
        outcome: Some(act::OK.to_owned()),
        after,
        ..Act::new(clock::now(), action, "dashboard")
    });
}

/// `GET /audit?who=&subject=&action=&since=&until=&cursor=&limit=`: the latest first.
pub(super) async fn list(ctx: Data<Ctx>, params: Params) -> Result<HttpResponse, Problem> {
    let query = ActQuery {
        who: params.owned("who")?,
        subject: params.owned("subject")?,
        action: params.owned("action")?,
        period: params.period()?,
        cursor: params.owned("cursor")?,
        limit: params.limit()?,
    };
    ok(&ctx.operator.acts(&query).await?)
}

/// Writes down what a request asks for, does it, and writes down what came of it; all of that also when the
/// client has gone meanwhile.
pub(super) async fn record(
    named: Named,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let done = actix_web::rt::spawn(carry_out(named, request, next)).await;
    done.unwrap_or_else(|_| Err(Problem::new("unavailable", "the request was given up").into()))
}

async fn carry_out(
    named: Named,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let begun = match begin(named, &mut request).await {
        Ok(begun) => begun,
        Err(problem) => return Ok(request.into_response(problem.error_response())),
    };
    let (ctx, act) = begun;
    let answered = next.call(request).await?.map_into_boxed_body();
    let before = answered.request().extensions_mut().remove::<Before>();
    let before = before.map(|Before(value)| kept(&value));
    let after = match answered.request().extensions_mut().remove::<Now>() {
        Some(Now(value)) => Some(with_now(act.after, kept(&value))),
        None => act.after,
    };
    let dry_run = answered.request().extensions_mut().remove::<DryRun>().is_some();
    let outcome = if dry_run { act::DRY_RUN } else { outcome(&answered) };
    ctx.operator.end_act(&Act { outcome: Some(outcome.to_owned()), before, after, ..act }).await;
    Ok(answered)
}

async fn begin(named: Named, request: &mut ServiceRequest) -> Result<(Data<Ctx>, Act), Problem> {
    let unready = || Problem::new("unavailable", "the server is not set up");
    let ctx = request.app_data::<Data<Ctx>>().cloned().ok_or_else(unready)?;
    let who = request.extensions().get::<Caller>().map(|caller| caller.me().name).unwrap_or_default();
    let body = request.extract::<Body>().await?;
    let said = body.json().ok().flatten().unwrap_or_default();
    let bytes = futures_util::stream::iter([Ok(body.0)]);
    request.set_payload(Payload::Stream { payload: Box::pin(bytes) });
    let subject = secrets::cleaned(filled(named.subject, request.request(), &said));
    let act = Act {
        who,
        by: address_of(request.request(), ctx.settings.http.behind_proxy),
        after: asked(request.query_string(), if named.sealed { outline(&said) } else { redacted(&said) }),
        ..Act::new(clock::now(), filled(named.action, request.request(), &said), subject)
    };
    ctx.operator.begin_act(&act).await?;
    Ok((ctx, act))
}

/// A template with its names replaced.
fn filled(template: &str, request: &HttpRequest, body: &Value) -> String {
    let mut pieces = template.split('{');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once('}').unwrap_or((piece, ""));
        let in_path = path::part(request, name).ok().filter(|part| !part.is_empty());
        let value = in_path.or_else(|| body.get(name)?.as_str().map(str::to_owned));
        text.extend(value.as_deref().unwrap_or("?").chars().filter(|c| !c.is_control()).take(MOST_CHARS));
        text.push_str(rest);
    }
    text
}

/// What was asked for: the query's parameters and the body's members. Neither can hide the other.
fn asked(query: &str, body: Value) -> Option<Value> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(query).map(web::Query::into_inner);
    let mut all = match body {
        Value::Null => Map::new(),
        Value::Object(members) => members,
        other => Map::from_iter([("body".to_owned(), other)]),
    };
    for (mut name, value) in pairs.unwrap_or_default() {
        while all.contains_key(&name) {
            name.insert(0, '?');
        }
        all.insert(name, value.into());
    }
    (!all.is_empty()).then(|| kept(&Value::Object(all)))
}

/// What was asked for, and how it is now.
fn with_now(asked: Option<Value>, now: Value) -> Value {
    let mut all = match asked {
        Some(Value::Object(members)) => members,
        Some(other) => Map::from_iter([("body".to_owned(), other)]),
        None => Map::new(),
    };
    all.insert("now".to_owned(), now);
    all.into()
}

/// A document as it is kept: without secrets, and not too large.
fn kept(value: &Value) -> Value {
    let text = redacted(value).to_string();
    let clean = serde_json::from_str(&secrets::clean(&text)).unwrap_or_default();
    bounded(clean, MOST_BYTES)
}

/// `ok`, or the code of the problem.
fn outcome(answered: &ServiceResponse<BoxBody>) -> &'static str {
    match told(answered.response()).map(Problem::code) {
        Some(code) => code,
        None if answered.status().is_client_error() || answered.status().is_server_error() => "failed",
        None => act::OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;
    use serde_json::json;

    #[test]
    fn a_template_is_filled_from_the_path_and_else_from_the_body() {
        let request = TestRequest::default().param("kind", "counter").param("key", "f%2Bg").to_http_request();
        let body = json!({"name": "ci\n", "n": 1});
        assert_eq!(filled("{kind}/{key}", &request, &body), "counter/f+g");
        assert_eq!(filled("token:{name}", &request, &body), "token:ci");
        assert_eq!(filled("x:{n}:{none}", &request, &body), "x:?:?");
        assert_eq!(filled("tasks", &request, &body), "tasks");
    }

    #[test]
    fn what_was_asked_for_is_kept_without_secrets_and_within_bounds() {
        assert_eq!(asked("", Value::Null), None);
        assert_eq!(asked("clear=true", json!({"version": 3})), Some(json!({"clear": "true", "version": 3})));
        assert_eq!(asked("", json!({"token": "gr_1"})), Some(json!({"token": "***"})));
        assert_eq!(asked("", json!("…")), Some(json!({"body": "…"})));
        let many: Map<String, Value> = (0..MOST_BYTES).map(|n| (n.to_string(), n.into())).collect();
        let large = asked("", many.into()).unwrap();
        assert!(large["bytes"].as_u64().unwrap() > MOST_BYTES as u64, "{large}");
    }

    /// A token was made with nothing in the audit log but how long the request was.
    #[test]
    fn nothing_is_hidden_behind_what_is_long_or_named_alike() {
        let padded =
            asked(&format!("x={}", "A".repeat(MOST_BYTES)), json!({"name": "bd", "scope": "admin"})).unwrap();
        assert_eq!((&padded["name"], &padded["scope"]), (&json!("bd"), &json!("admin")), "{padded}");
        assert!(padded.to_string().len() < MOST_BYTES);
        let alike = asked("scope=read&scope=none", json!({"scope": "admin"}));
        assert_eq!(alike, Some(json!({"scope": "admin", "?scope": "read", "??scope": "none"})));
    }
}
