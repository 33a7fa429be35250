//! Exit codes, and the one mapping from an error to its code.

use std::{fmt, io, io::Write as _};

use serde_json::Value;

use super::{advice::advice, out};
use crate::{
    config::Errors,
    http::{BindError, TlsError, TokenError},
    secrets,
};

/// What a command's end means. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed; also a handler's failure, and a task that did not succeed.
    Failed = 1,
    /// The command line or the input is wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Refused by state, by a message's own rules, or because something is in use.
    Refused = 4,
    /// No token, or the wrong one.
    Unauthorised = 5,
    /// The node does not answer.
    Unreachable = 6,
    /// `status --strict`: not all is well.
    Degraded = 7,
    /// No answer in time: the outcome is unknown.
    TimedOut = 8,
    /// The configuration is invalid.
    Config = 9,
    /// Too much at once, or not now: try later.
    Busy = 10,
}

/// The exit code for a problem document: its code decides, else its status.
pub(super) fn exit_for(code: Option<&str>, status: u16) -> Exit {
    match code.unwrap_or_default() {
        "handler_failed" | "handler_crashed" => Exit::Failed,
        "malformed" | "invalid" | "too_large" | "method_not_allowed" => Exit::Usage,
        "unauthorized" | "forbidden" => Exit::Unauthorised,
        "not_found" | "unknown_kind" | "unknown_message" => Exit::NotFound,
        "refused" | "wrong_state" | "ask_cycle" | "diverged" | "idempotency_conflict" => Exit::Refused,
        "overloaded" | "unavailable" | "full" => Exit::Busy,
        "timed_out" | "outcome_unknown" => Exit::TimedOut,
        _ => match status {
            400 | 405 | 413 | 415 | 422 | 428 => Exit::Usage,
            401 | 403 => Exit::Unauthorised,
            404 => Exit::NotFound,
            409 | 412 => Exit::Refused,
            408 | 504 => Exit::TimedOut,
            429 | 503 | 507 => Exit::Busy,
            502 => Exit::Unreachable,
            _ => Exit::Failed,
        },
    }
}

/// Why a command did not do what it was told: the exit code, what was wrong, what to try next.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What the process ends with.
    pub exit: Exit,
    message: String,
    details: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure with its exit code and its message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), details: Vec::new(), hint: None }
    }

    /// An end with an exit code about which nothing more is to be said.
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// The command line or the input is wrong.
    pub(super) fn usage(error: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, error.to_string())
    }

    /// Adds what to try next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What was wrong.
    pub(super) fn what(&self) -> &str {
        &self.message
    }

    /// What to try next.
    pub(super) fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Adds a line of its own.
    #[must_use]
    pub(super) fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    /// The failure that a problem document tells; `path`: of the request.
    pub(super) fn of_problem(status: u16, document: &Value, path: &str, program: &str) -> Self {
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        let code = text("code");
        let said = text("detail").or_else(|| text("title")).map(str::to_owned);
        let message = said.unwrap_or_else(|| format!("the node answered with status {status}"));
        let mut failure = Self::new(exit_for(code, status), message);
        for finding in document.get("errors").and_then(Value::as_array).into_iter().flatten() {
            let part = |name: &str| finding.get(name).and_then(Value::as_str).unwrap_or_default();
            let pointer = if part("pointer").is_empty() { "the body" } else { part("pointer") };
            let line = format!("{pointer}: {}", part("detail"));
            if !failure.message.contains(&line) {
                failure = failure.detail(line);
            }
        }
        for cause in document.get("chain").and_then(Value::as_array).into_iter().flatten() {
            failure = failure.detail(format!("because {}", cause.as_str().unwrap_or_default()));
        }
        if let Some(refusal) = document.get("refusal").filter(|refusal| !refusal.is_null()) {
            failure = failure.detail(format!("refusal: {refusal}"));
        }
        for reason in document.get("reasons").and_then(Value::as_array).into_iter().flatten() {
            let part = |name: &str| reason.get(name).and_then(Value::as_str).unwrap_or_default();
            failure = failure.detail(format!("{}  → {}", part("message"), part("remedy")));
        }
        let hint = match text("crash_id") {
            Some(crash) => Some(format!("{program} crashes show {crash}")),
            None => advice(code.unwrap_or_default(), path, program),
        };
        Self { hint, ..failure }
    }

    /// Tells it on stderr.
    pub(super) fn print(&self) {
        if self.message.is_empty() {
            return;
        }
        let paint = out::Paint::of_stderr();
        let mut text = format!("{} {}", paint.red("error:"), out::plain_lines(&self.message));
        for line in &self.details {
            text.push_str(&format!("\n  {}", out::plain_lines(line)));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\n  {}", paint.dim(&format!("→ {hint}"))));
        }
        // Where stderr is closed there is nobody to tell.
        let _ = writeln!(io::stderr(), "{}", secrets::clean(&text));
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.details.iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        self.hint.iter().try_for_each(|hint| write!(f, "\n  → {hint}"))
    }
}

impl std::error::Error for Failure {}

impl From<Errors> for Failure {
    fn from(errors: Errors) -> Self {
        Self::new(Exit::Config, errors.to_string())
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let exit = match error {
            BindError::InUse(_) => Exit::Refused,
            BindError::Exposed(_) => Exit::Config,
            BindError::System { .. } => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::new(Exit::Config, error.to_string())
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        Self::new(Exit::Config, error.to_string())
    }
}

/// A closed pipe is no error: whoever closed it has seen enough.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(Exit::Ok),
            _ => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::status_of;
    use serde_json::json;

    #[test]
    fn every_code_has_its_exit() {
        for (code, exit) in [
            ("handler_failed", 1),
            ("handler_crashed", 1),
            ("malformed", 2),
            ("invalid", 2),
            ("too_large", 2),
            ("not_found", 3),
            ("unknown_kind", 3),
            ("unknown_message", 3),
            ("refused", 4),
            ("wrong_state", 4),
            ("ask_cycle", 4),
            ("idempotency_conflict", 4),
            ("unauthorized", 5),
            ("forbidden", 5),
            ("timed_out", 8),
            ("outcome_unknown", 8),
            ("overloaded", 10),
            ("unavailable", 10),
            ("full", 10),
        ] {
            let status = status_of(code);
            assert_eq!(exit_for(Some(code), status) as u8, exit, "{code}");
            // A node that knows codes that we do not still has a status.
            assert_eq!(exit_for(Some("new"), status), exit_for(Some(code), status), "{code} by its status");
        }
        assert_eq!(exit_for(None, 502), Exit::Unreachable);
    }

    #[test]
    fn a_problem_is_told_with_what_to_do() {
        let document = json!({"code": "invalid", "detail": "invalid: /n: no", "errors": [{"pointer": "/n", "detail": "no"}]});
        let text = Failure::of_problem(422, &document, "/", "mine").to_string();
        assert_eq!(text.lines().next(), Some("invalid: /n: no"));
        assert_eq!(text.lines().count(), 2, "nothing is said twice: {text}");
        let document =
            json!({"code": "invalid", "detail": "invalid", "errors": [{"pointer": "", "detail": "no"}]});
        let text = Failure::of_problem(422, &document, "/", "mine").to_string();
        assert!(text.starts_with("invalid\n  the body: no\n  → mine schema"), "{text}");
        let document = json!({"code": "handler_crashed", "detail": "boom", "crash_id": "c1"});
        let failure = Failure::of_problem(500, &document, "/", "mine");
        assert_eq!(failure.to_string(), "boom\n  → mine crashes show c1");
        assert_eq!(failure.exit, Exit::Failed);
        let document = json!({"code": "overloaded", "detail": "the agent's mailbox is full"});
        let text = Failure::of_problem(429, &document, "/", "mine").to_string();
        assert!(text.contains("mine tree shows"), "a status says nothing of one full mailbox: {text}");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit, Exit::Ok);
    }
}
