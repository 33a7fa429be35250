//! The client of a node's HTTP API.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::{Agent, Error, Timeout, http, tls::TlsConfig};

use super::{
    Session, advice,
    exit::{Exit, Failure},
    input::AgentName,
    limit::Rest,
    trust,
};
use crate::{
    config::Secret,
    http::{Announcement, Token, url_of},
};

/// How long an answer may take that does not wait for anything.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an ask may take that names no timeout: longer than any sensible `ask_timeout`.
pub(super) const LONG: Duration = Duration::from_secs(900);
/// For how long the few that are wanted of a list are looked for.
const LOOKED_FOR: Duration = Duration::from_secs(5);
/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The largest answer.
const MOST_BYTES: u64 = 256 * 1024 * 1024;
const JSON: &str = "application/json";
/// What stays as it is in a part of a path or a query.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A node's API.
pub(super) struct Client {
    agent: Agent,
    url: String,
    token: Option<Secret>,
    program: String,
}

/// What the node answered, where that was no problem.
pub(super) struct Reply {
    pub body: Vec<u8>,
    /// Its `ETag`.
    pub tag: Option<String>,
}

/// What came of sending a request.
type Sent = Result<Result<http::Response<ureq::Body>, Error>, Failure>;

/// Why there is no answer, and who would have one.
struct Refused {
    failure: Failure,
    owner: Option<String>,
}

impl Reply {
    /// The body as `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::new(Exit::Failed, format!("the node's answer cannot be understood: {error}"))
                .hint("is it a node, and of the same version? --json prints what it says")
        })
    }
}

/// A part of a path or a query, encoded.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// The path of an agent.
pub(super) fn agent_path(name: &AgentName) -> String {
    format!("/api/v1/agents/{}/{}", encode(&name.kind), encode(&name.key))
}

/// `?a=1&b=2` of what there is.
pub(super) fn query(pairs: &[(&str, Option<String>)]) -> String {
    let given = pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_ref()?))));
    let text = given.collect::<Vec<_>>().join("&");
    if text.is_empty() { text } else { format!("?{text}") }
}

impl Client {
    /// The node that the arguments, the environment or the configuration name.
    pub fn of(session: &Session<'_>) -> Result<Self, Failure> {
        let url = session.common.url.clone().filter(|url| !url.trim().is_empty());
        let token = session.common.token.clone().filter(|token| !token.reveal().trim().is_empty());
        let (url, token) = match (url, token) {
            (Some(url), Some(token)) => (url, Some(token)),
            (url, token) => {
                let settings = session.settings()?;
                let bind = settings.http.bind;
                // The node may have been told another port, or any: it says which one it took.
                let announced = || Announcement::read(&settings.node.data_dir);
                let own =
                    || announced().map_or_else(|| url_of(bind, &settings.http), |announced| announced.url);
                let token = match token {
                    Some(token) => Some(token),
                    None => Token::find(&settings)?.map(Token::into_secret),
                };
                (url.unwrap_or_else(own), token)
            }
        };
        let url = url.trim().trim_end_matches('/').to_owned();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .max_redirects(0)
            .proxy(None)
            .tls_config(trusting(&url, session.common.cacert.as_deref())?)
            .user_agent(concat!("greenroom/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.new_agent(), url, token, program: session.program.to_owned() })
    }

    /// The same at another node.
    pub fn at(&self, url: &str) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        Self { agent: self.agent.clone(), url, token: self.token.clone(), program: self.program.clone() }
    }

    /// Whether the token may go to a node that is said to be there.
    pub fn may_tell(&self, url: &str) -> bool {
        may_be_told(&self.url, url)
    }

    /// Where the node is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Reads.
    pub fn get(&self, path: &str) -> Result<Reply, Failure> {
        self.get_within(path, REQUEST_TIMEOUT)
    }

    /// Reads what may wait for `wait` before it answers.
    pub fn get_within(&self, path: &str, wait: Duration) -> Result<Reply, Failure> {
        self.exchange((path, false), |there| there.bare("GET", path, wait))
    }

    /// Does something.
    pub fn post(&self, path: &str, body: Vec<u8>) -> Result<Reply, Failure> {
        self.post_with(path, body, None, REQUEST_TIMEOUT)
    }

    /// Does something, with an idempotency key, and with an answer that may take `wait`.
    pub fn post_with(
        &self,
        path: &str,
        body: Vec<u8>,
        idempotency_key: Option<&str>,
        wait: Duration,
    ) -> Result<Reply, Failure> {
        let key = idempotency_key.map(|key| ("Idempotency-Key", key));
        self.exchange((path, true), |there| there.with_body(("POST", path), JSON, key, body.clone(), wait))
    }

    /// Changes something, if it is as it was seen where a tag is named.
    pub fn patch(&self, path: &str, document: &Value, if_match: Option<&str>) -> Result<Reply, Failure> {
        let (kind, body) = ("application/merge-patch+json", document.to_string().into_bytes());
        let tag = if_match.map(|tag| ("If-Match", tag));
        self.exchange((path, true), |there| {
            there.with_body(("PATCH", path), kind, tag, body.clone(), REQUEST_TIMEOUT)
        })
    }

    /// Writes something over what is of a version.
    pub fn put(&self, path: &str, body: Vec<u8>, if_match: &str) -> Result<Reply, Failure> {
        let tag = Some(("If-Match", if_match));
        self.exchange((path, true), |there| {
            there.with_body(("PUT", path), JSON, tag, body.clone(), REQUEST_TIMEOUT)
        })
    }

    /// Does something, if it is of a version where one is named.
    pub fn post_if(&self, path: &str, body: Vec<u8>, if_match: Option<&str>) -> Result<Reply, Failure> {
        let tag = if_match.map(|tag| ("If-Match", tag));
        self.exchange((path, true), |there| {
            there.with_body(("POST", path), JSON, tag, body.clone(), REQUEST_TIMEOUT)
        })
    }

    /// Removes something.
    pub fn delete(&self, path: &str) -> Result<Reply, Failure> {
        self.exchange((path, true), |there| there.bare("DELETE", path, REQUEST_TIMEOUT))
    }

    fn bare(&self, method: &str, path: &str, wait: Duration) -> Sent {
        let request = self.request(method, path).body(()).map_err(|error| self.bad_url(&error))?;
        let request = self.agent.configure_request(request).timeout_global(Some(wait)).build();
        Ok(self.agent.run(request))
    }

    fn with_body(
        &self,
        (method, path): (&str, &str),
        kind: &str,
        header: Option<(&str, &str)>,
        body: Vec<u8>,
        wait: Duration,
    ) -> Sent {
        let mut request = self.request(method, path).header("Content-Type", kind);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(body).map_err(|error| self.bad_url(&error))?;
        let request = self.agent.configure_request(request).timeout_global(Some(wait)).build();
        Ok(self.agent.run(request))
    }

    /// Sends a request; where the node says that another one serves what it is about, once more, to that one:
    /// nothing was done of it here.
    fn exchange(&self, (path, writes): (&str, bool), send: impl Fn(&Self) -> Sent) -> Result<Reply, Failure> {
        match self.finish(send(self)?, path, writes) {
            Err(Refused { owner: Some(owner), .. }) if self.may_tell(&owner) => {
                let there = self.at(&owner);
                let answer = there.finish(send(&there)?, path, writes);
                answer.map_err(|refused| refused.failure.detail(format!("asked at {owner}, which serves it")))
            }
            answer => answer.map_err(|refused| refused.failure),
        }
    }

    /// Reads what goes on for ever, from behind an event on, if there is one.
    pub fn stream(
        &self,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<impl io::Read + Send + use<>, Failure> {
        let mut request = self.request("GET", path).header("Accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let request = request.body(()).map_err(|error| self.bad_url(&error))?;
        let request =
            self.agent.configure_request(request).timeout_recv_response(Some(REQUEST_TIMEOUT)).build();
        let response = self.agent.run(request).map_err(|error| self.unanswered(&error, false))?;
        if response.status().is_success() {
            return Ok(response.into_body().into_reader());
        }
        Err(match self.finish(Ok(response), path, false) {
            Err(refused) => refused.failure,
            Ok(_) => Failure::new(Exit::Failed, "the node's answer cannot be understood"),
        })
    }

    /// A stream has ended that should not have.
    pub fn broke_off(&self, error: &io::Error) -> Failure {
        self.unreachable(&error.to_string())
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {}", token.reveal()));
        }
        request
    }

    fn finish(
        &self,
        sent: Result<http::Response<ureq::Body>, Error>,
        path: &str,
        writes: bool,
    ) -> Result<Reply, Refused> {
        let lost = |error: Error| Refused { failure: self.unanswered(&error, writes), owner: None };
        let mut response = sent.map_err(lost)?;
        let status = response.status().as_u16();
        let tag = response.headers().get("ETag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let body = response.body_mut().with_config().limit(MOST_BYTES).read_to_vec().map_err(lost)?;
        if (200..300).contains(&status) {
            return Ok(Reply { body, tag });
        }
        let document = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let owner = document.get("owner").and_then(Value::as_str).filter(|_| status == 503);
        let failure = Failure::of_problem(status, &document, path, &self.program);
        Err(Refused { failure, owner: owner.map(str::to_owned) })
    }

    fn bad_url(&self, error: &http::Error) -> Failure {
        Failure::usage(format!("cannot use `{}`: {error}", self.url)).hint("write --url http://HOST:PORT")
    }

    /// No answer: not reached at all, or reached and then silent.
    fn unanswered(&self, error: &Error, writes: bool) -> Failure {
        let lost = |why: &str| {
            if writes {
                Failure::new(Exit::TimedOut, format!("{why}: whether it was done is not known"))
                    .hint(advice::UNKNOWN)
            } else {
                Failure::new(Exit::TimedOut, why.to_owned()).hint(format!("{} status", self.program))
            }
        };
        match error {
            Error::Timeout(Timeout::Connect | Timeout::Resolve) => self.unreachable("no connection in time"),
            Error::Timeout(_) => lost(&format!("{} has not answered in time", self.url)),
            Error::HostNotFound => self.unreachable("no such host"),
            Error::ConnectionFailed => self.unreachable("no connection"),
            Error::Tls(_) | Error::Rustls(_) => self.untrusted(error),
            Error::Io(io) if is_tls(io) => self.untrusted(error),
            Error::BadUri(_) | Error::Http(_) => {
                Failure::usage(format!("cannot use `{}`: {error}", self.url))
                    .hint("write --url http://HOST:PORT")
            }
            Error::Io(io) if never_reached(io) => self.unreachable(&io.to_string()),
            _ if writes => lost(&format!("the connection to {} broke off ({error})", self.url)),
            _ => self.unreachable(&error.to_string()),
        }
    }

    fn untrusted(&self, error: &Error) -> Failure {
        Failure::new(Exit::Unreachable, format!("no trusted connection to {}: {error}", self.url)).hint(
            "is it the name in its certificate? name its authority with --cacert FILE or GREENROOM_CACERT",
        )
    }

    fn unreachable(&self, why: &str) -> Failure {
        Failure::new(Exit::Unreachable, format!("cannot reach a node at {}: {why}", self.url)).hint(format!(
            "is it running? start it with `{} run`, or name another with --url or GREENROOM_URL",
            self.program
        ))
    }

    /// Pages of a list, joined: up to `limit`, or all, and what is left of it. Where `limit` is given, it is not
    /// looked for long for few that are far apart.
    pub fn pages(
        &self,
        path: &str,
        pairs: &[(&str, Option<String>)],
        limit: Option<usize>,
    ) -> Result<(Vec<Value>, Rest), Failure> {
        const PAGE: usize = 1_000;
        let (mut items, mut cursor, begun) = (Vec::new(), None, Instant::now());
        loop {
            let left = limit.map_or(PAGE, |limit| limit.saturating_sub(items.len()));
            if left == 0 {
                return Ok((items, if cursor.is_some() { Rest::More(cursor) } else { Rest::Nothing }));
            }
            if limit.is_some() && cursor.is_some() && begun.elapsed() > LOOKED_FOR {
                return Ok((items, Rest::NotLookedAt(cursor)));
            }
            let mut all = pairs.to_vec();
            all.push(("limit", Some(left.min(PAGE).to_string())));
            all.push(("cursor", cursor.take()));
            let page: Value = self.get(&format!("{path}{}", query(&all)))?.read()?;
            items.extend(page.get("items").and_then(Value::as_array).cloned().unwrap_or_default());
            cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            if let Some(most) = limit.filter(|most| items.len() > *most) {
                // what has no pages comes whole
                items.truncate(most);
                return Ok((items, Rest::More(None)));
            }
            if cursor.is_none() {
                return Ok((items, Rest::Nothing));
            }
        }
    }
}

/// Items as `T`.
pub(super) fn typed<T: DeserializeOwned>(items: Vec<Value>) -> Result<Vec<T>, Failure> {
    let reply = Reply { body: Value::Array(items).to_string().into_bytes(), tag: None };
    reply.read()
}

/// The certificate authorities are read where they are needed.
fn trusting(url: &str, cacert: Option<&Path>) -> Result<TlsConfig, Failure> {
    match url.get(..8) {
        Some(scheme) if scheme.eq_ignore_ascii_case("https://") => trust::roots(cacert),
        _ => Ok(TlsConfig::default()),
    }
}

fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

fn never_reached(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable)
}

/// Whether the token that is for `own` may go to `other`: by TLS, to this machine, or to the same host in the clear
/// where it went there in the clear.
fn may_be_told(own: &str, other: &str) -> bool {
    let host = |url: &str| -> String {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let name = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        match name.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default().to_owned(),
            None => name.split(':').next().unwrap_or_default().to_owned(),
        }
    };
    let is_tls = |url: &str| url.get(..8).is_some_and(|begin| begin.eq_ignore_ascii_case("https://"));
    let there = host(other);
    is_tls(other)
        || there == "localhost"
        || there.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || (there == host(own) && !is_tls(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        let name = AgentName { kind: "counter".into(), key: "grün b+c".into() };
        assert_eq!(agent_path(&name), "/api/v1/agents/counter/gr%C3%BCn%20b%2Bc");
        assert_eq!(query(&[("a", Some("x&y".into())), ("b", None), ("c", Some("1".into()))]), "?a=x%26y&c=1");
        assert_eq!(query(&[("a", None)]), "");
    }

    /// A node of which the store says that it is elsewhere was sent the token in the clear.
    #[test]
    fn a_token_goes_over_no_open_line_to_another_machine() {
        let local = "http://127.0.0.1:7710";
        for told in [
            "https://eu-2:7710",
            "HTTPS://eu-2",
            "http://127.0.0.1:9",
            "http://[::1]:9/",
            "http://localhost:9",
        ] {
            assert!(may_be_told(local, told), "{told}");
        }
        for untold in [
            "http://eu-2:7710",
            "http://127.0.0.1@evil",
            "http://localhost.evil/",
            "http://evil/?127.0.0.1",
            "evil",
        ] {
            assert!(!may_be_told(local, untold), "{untold}");
        }
        assert!(may_be_told("http://eu-1:7710", "http://eu-1:7711"), "it went there in the clear");
        assert!(!may_be_told("https://eu-1:7710", "http://eu-1:7711"));
    }
}
