//! A client of the node's HTTP API that outlasts the node.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Failure, stop::Stop};

/// How long a request may fail, the node being killed and started meanwhile.
const RETRY_BUDGET: Duration = Duration::from_secs(120);
/// How long to wait before it is sent again.
const PAUSE: Duration = Duration::from_millis(100);

/// What a node answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// The contract's code of a problem.
    pub fn code(&self) -> &str {
        self.body.get("code").and_then(Value::as_str).unwrap_or_default()
    }

    /// The body, if all is well.
    pub fn ok(self) -> anyhow::Result<Value> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let detail = self.body.get("detail").and_then(Value::as_str).unwrap_or_default();
        bail!("{} {}: {detail}", self.status, self.code())
    }
}

/// A client. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    http: ureq::Agent,
    pub url: String,
    pub token: String,
    stop: Stop,
}

impl Client {
    /// A client of the node at `url` that keeps its token in `data`.
    pub fn new(url: &str, data: &Path, stop: Stop) -> anyhow::Result<Self> {
        let token = std::fs::read_to_string(data.join("token")).context("cannot read the node's token")?;
        let http = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None) // the node is on this machine, whatever the environment says
            .timeout_global(Some(Duration::from_secs(35)))
            .timeout_connect(Some(Duration::from_secs(2)))
            .build()
            .into();
        Ok(Self { http, url: url.to_owned(), token: token.trim().to_owned(), stop })
    }

    /// Sends an agent a message until there is an answer. `key` makes the repetitions safe; `how`
    /// is `ask` or `submit`.
    pub fn send(
        &self,
        agent: &str,
        message: &str,
        body: &Value,
        key: &str,
        how: &str,
    ) -> Result<Answer, Failure> {
        let path = format!("/api/v1/agents/{agent}/messages/{message}?mode={how}");
        self.until_answered(|| self.post(&path, body, Some(key)))
    }

    /// Asks an agent for something that changes nothing.
    pub fn query(&self, agent: &str, message: &str, body: &Value) -> Result<Value, Failure> {
        let path = format!("/api/v1/agents/{agent}/messages/{message}");
        let answer = self.until_answered(|| self.post(&path, body, None))?;
        Ok(answer.ok().with_context(|| format!("{message} to {agent}"))?)
    }

    /// Whether the node says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.get("/health/ready").is_ok_and(|answer| answer.status == 200)
    }

    /// The boot id of the node that answers, if one does.
    pub fn boot(&self) -> Option<String> {
        let status = self.get("/api/v1/status").ok()?.ok().ok()?;
        status.pointer("/node/id").and_then(Value::as_str).map(str::to_owned)
    }

    /// Asks the node to shut down.
    pub fn stop_node(&self) -> anyhow::Result<()> {
        self.post("/api/v1/nodes/self/stop", &Value::Null, None)?.ok().map(drop)
    }

    /// A link that opens the dashboard, once; the dashboard's own address where there is none.
    pub fn login_link(&self) -> String {
        let link = self.post("/api/v1/login-links", &Value::Null, None).and_then(Answer::ok);
        let link = link.ok().and_then(|link| link.get("url")?.as_str().map(str::to_owned));
        link.unwrap_or_else(|| self.url.clone())
    }

    fn until_answered(&self, send: impl Fn() -> anyhow::Result<Answer>) -> Result<Answer, Failure> {
        let start = Instant::now();
        loop {
            let outcome = send();
            match outcome {
                Ok(answer) if !matches!(answer.status, 429 | 503 | 504 | 507) => return Ok(answer),
                _ if self.stop.is_raised() => return Err(Failure::Interrupted),
                Ok(answer) if start.elapsed() > RETRY_BUDGET => answer.ok().map(drop)?,
                Err(e) if start.elapsed() > RETRY_BUDGET => {
                    return Err(e.context("the node does not answer").into());
                }
                _ => {}
            }
            if self.stop.wait(PAUSE) {
                return Err(Failure::Interrupted);
            }
        }
    }

    fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let request = self.http.get(format!("{}{path}", self.url)).header("Authorization", self.bearer());
        answer(request.call()?)
    }

    fn post(&self, path: &str, body: &Value, key: Option<&str>) -> anyhow::Result<Answer> {
        let mut request =
            self.http.post(format!("{}{path}", self.url)).header("Authorization", self.bearer());
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        answer(request.send_json(body)?)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

/// Reads an answer to its end: one that is cut short is none.
fn answer(mut response: ureq::http::Response<ureq::Body>) -> anyhow::Result<Answer> {
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string()?;
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    };
    Ok(Answer { status, body })
}
