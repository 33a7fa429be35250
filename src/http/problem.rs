//! Problem documents (RFC 9457), and the only mapping from an error's code to a status.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde_json::{Map, Value, json};

use crate::{agent::AskError, model::id::NameError, runtime::operator::OperatorError, secrets};

/// The media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What a request is answered with that was not done.
#[derive(Debug, Clone)]
pub struct Problem {
    code: &'static str,
    detail: String,
    more: Map<String, Value>,
    retry_after: Option<Duration>,
    allow: Option<String>,
}

/// Every code with its status and title.
const CODES: [(&str, u16, &str); 24] = [
    ("malformed", 400, "The request cannot be understood"),
    ("unauthorized", 401, "A valid token is needed"),
    ("forbidden", 403, "Not allowed"),
    ("not_found", 404, "Not found"),
    ("unknown_kind", 404, "No such kind of agent"),
    ("unknown_message", 404, "The kind takes no such message"),
    ("method_not_allowed", 405, "Not with this method"),
    ("slow", 408, "The request did not arrive in time"),
    ("refused", 409, "The receiver refused it"),
    ("wrong_state", 409, "Not in this state"),
    ("ask_cycle", 409, "It would wait for itself"),
    ("diverged", 409, "It goes another way than in its earlier run"),
    ("idempotency_conflict", 409, "The idempotency key was used for another request"),
    ("precondition_failed", 412, "It has changed since"),
    ("too_large", 413, "Too large"),
    ("invalid", 422, "The content is not valid"),
    ("precondition_required", 428, "Say which version it is about"),
    ("overloaded", 429, "Too much at once"),
    ("handler_failed", 500, "The handler failed; its turn was undone"),
    ("handler_crashed", 500, "The handler crashed; its turn was undone"),
    ("unavailable", 503, "Not available now"),
    ("timed_out", 504, "Not done in time; nothing happened"),
    ("outcome_unknown", 504, "No answer in time; the outcome is unknown"),
    ("full", 507, "No room left"),
];

/// The code of every problem.
pub const PROBLEM_CODES: [&str; CODES.len()] = {
    let (mut codes, mut at) = ([""; CODES.len()], 0);
    while at < CODES.len() {
        codes[at] = CODES[at].0;
        at += 1;
    }
    codes
};

/// The status that goes with a code. A code that nobody knows is not the handler's fault: 503.
pub fn status_of(code: &str) -> u16 {
    CODES.iter().find(|(name, ..)| *name == code).map_or(503, |(_, status, _)| *status)
}

/// The problem that an answer tells, if it tells one.
pub(super) fn told<B>(answer: &HttpResponse<B>) -> Option<&Problem> {
    answer.error().and_then(|error| error.as_error::<Problem>())
}

fn title_of(code: &str) -> &'static str {
    CODES.iter().find(|(name, ..)| *name == code).map_or("Not available now", |(.., title)| *title)
}

impl Problem {
    /// A problem with one of the contract's codes.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        let retry_after = matches!(status_of(code), 429 | 503 | 507).then_some(Duration::from_secs(1));
        Self { code, detail: detail.into(), more: Map::new(), retry_after, allow: None }
    }

    /// A request that cannot be understood.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new("malformed", detail)
    }

    /// A thing that is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new("not_found", detail)
    }

    /// A method that the route does not have.
    pub fn method_not_allowed(method: &str, allow: String) -> Self {
        let detail = format!("{method} is not offered here; {allow} is");
        Self { allow: Some(allow), ..Self::new("method_not_allowed", detail) }
    }

    /// Adds a member to the document.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The contract's code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What has happened.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Why, from the nearest cause to the last.
    pub fn causes(&self) -> impl Iterator<Item = &str> {
        let chain = self.more.get("chain").and_then(Value::as_array);
        chain.into_iter().flatten().filter_map(Value::as_str)
    }

    /// The document.
    pub fn document(&self) -> Value {
        let mut document = json!({
            "type": format!("urn:greenroom:problem:{}", self.code),
            "title": title_of(self.code),
            "status": status_of(self.code),
            "detail": self.detail,
            "code": self.code,
        });
        if let Value::Object(members) = &mut document {
            members.extend(self.more.clone());
        }
        document
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(status_of(self.code)).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.content_type(PROBLEM_JSON);
        if matches!(self.code, "too_large" | "slow") {
            // The rest of the body is not read.
            response.force_close();
        }
        if let Some(after) = self.retry_after {
            // Whole seconds, and never 0: "at once" would be an invitation to spin.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.insert_header((header::RETRY_AFTER, seconds.max(1).to_string()));
        }
        if self.code == "unauthorized" {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"greenroom\""));
        }
        if let Some(allow) = &self.allow {
            response.insert_header((header::ALLOW, allow.clone()));
        }
        response.body(secrets::cleaned(self.document().to_string()))
    }
}

impl From<OperatorError> for Problem {
    fn from(error: OperatorError) -> Self {
        let problem = Self::new(error.code(), error.to_string());
        let error = match error {
            OperatorError::Ask(error) => error,
            OperatorError::Elsewhere { owner: Some(owner), .. } => return problem.with("owner", owner),
            _ => return problem,
        };
        match error {
            AskError::Refused(refusal) => problem.with("refusal", refusal.value),
            AskError::Failed(fault) => {
                // The status says already that it failed and was undone: the detail is the cause.
                let problem = Self { detail: fault.message, ..problem };
                let problem =
                    if fault.chain.is_empty() { problem } else { problem.with("chain", fault.chain) };
                match fault.crash_id {
                    Some(id) => problem.with("crash_id", id),
                    None => problem,
                }
            }
            AskError::Invalid(invalid) => {
                let finding =
                    |(pointer, detail): (String, String)| json!({"pointer": pointer, "detail": detail});
                problem.with("errors", invalid.0.into_iter().map(finding).collect::<Vec<_>>())
            }
            AskError::Overloaded { retry_after, .. } => Self { retry_after: Some(retry_after), ..problem },
            _ => problem,
        }
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::malformed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Fault, Invalid, JsonRefusal};

    fn problem(error: AskError<JsonRefusal>) -> Problem {
        OperatorError::from(error).into()
    }

    #[test]
    fn every_error_has_the_status_of_the_contract() {
        let crash = Fault { crash_id: Some("c".into()), ..Fault::new("boom") };
        let refusal = JsonRefusal { message: "no".into(), value: json!({"reason": "no"}) };
        let after = Duration::from_millis(1_200);
        for (error, status, code) in [
            (AskError::Refused(refusal), 409, "refused"),
            (AskError::Failed(Fault::new("x")), 500, "handler_failed"),
            (AskError::Failed(crash), 500, "handler_crashed"),
            (AskError::Invalid(Invalid::at("/n", "no")), 422, "invalid"),
            (AskError::Overloaded { what: "m".into(), retry_after: after }, 429, "overloaded"),
            (AskError::Unavailable("s".into()), 503, "unavailable"),
            (AskError::NoRoom("d".into()), 507, "full"),
            (AskError::WrongState("p".into()), 409, "wrong_state"),
            (AskError::NotFound("x".into()), 404, "not_found"),
            (AskError::TooLarge("x".into()), 413, "too_large"),
            (AskError::Conflict, 409, "idempotency_conflict"),
            (AskError::Cycle(vec!["a/b".into()]), 409, "ask_cycle"),
            (AskError::Diverged("x".into()), 409, "diverged"),
            (AskError::TimedOut, 504, "timed_out"),
            (AskError::Unknown, 504, "outcome_unknown"),
        ] {
            let problem = problem(error);
            assert_eq!((problem.status_code().as_u16(), problem.code()), (status, code));
            let response = problem.error_response();
            assert_eq!(response.headers().contains_key("retry-after"), matches!(status, 429 | 503 | 507));
            assert_eq!(response.headers().get("content-type").unwrap(), PROBLEM_JSON);
        }
    }

    #[test]
    fn the_document_says_what_a_client_needs() {
        let refusal = JsonRefusal { message: "no".into(), value: json!({"reason": "card"}) };
        let document = problem(AskError::Refused(refusal)).document();
        assert_eq!(document["refusal"]["reason"], "card");
        assert_eq!(document["status"], 409);
        let crash = Fault { crash_id: Some("c1".into()), ..Fault::new("boom") };
        let document = problem(AskError::Failed(crash)).document();
        assert_eq!((&document["crash_id"], &document["detail"]), (&json!("c1"), &json!("boom")));
        let document = problem(AskError::Invalid(Invalid::at("/n", "not a number"))).document();
        assert_eq!(document["errors"], json!([{"pointer": "/n", "detail": "not a number"}]));
    }

    #[test]
    fn who_asks_the_wrong_node_is_told_the_right_one() {
        let owner = Some("http://10.0.0.2:7710".to_owned());
        let problem = Problem::from(OperatorError::Elsewhere { why: "it is there".into(), owner });
        assert_eq!((problem.status_code().as_u16(), problem.code()), (503, "unavailable"));
        assert_eq!(problem.document()["owner"], "http://10.0.0.2:7710");
        assert!(problem.error_response().headers().contains_key("retry-after"));
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let error = AskError::Overloaded { what: "m".into(), retry_after: Duration::from_millis(1_200) };
        assert_eq!(problem(error).error_response().headers().get("retry-after").unwrap(), "2");
    }
}
