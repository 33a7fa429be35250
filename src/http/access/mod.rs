//! Authentication: tokens, browser sessions, and protection against cross-site requests.
//!
//! A request shows a token (`Authorization: Bearer`), or the cookie of a session that was begun with one. A
//! browser sends the cookie by itself, so with it whatever changes something must also name the session's
//! CSRF token; and what another site's page sends is refused before anybody looks at tokens.

mod brake;
mod headers;
mod keyring;
mod logins;
mod origin;

use std::{
    future::{Future, Ready, ready},
    sync::Arc,
};

use actix_web::{
    FromRequest, HttpMessage as _, HttpRequest,
    dev::{Payload, ServiceRequest},
    http::header::{self, HeaderMap},
};
use parking_lot::Mutex;

use self::{
    brake::Brake,
    keyring::Keyring,
    logins::{Grant, Logins, Session},
};
pub(super) use self::{
    headers::secure,
    logins::SESSION_SECONDS,
    origin::{address_of, is_foreign},
};
use super::{problem::Problem, token::Token};
use crate::{
    clock,
    config::Secret,
    model::access::{Digest, Scope},
    runtime::{
        operator::Operator,
        views::{LoginLink, Me},
    },
};

/// The cookie of a browser's session.
pub(super) const COOKIE: &str = "greenroom";
/// The header with the session's CSRF token.
const CSRF: &str = "X-CSRF-Token";

/// The door's keeper. Cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    token: Token,
    keyring: Keyring,
    logins: Mutex<Logins>,
    brake: Brake,
}

/// Who sent a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    grant: Grant,
    /// Where it came in through a browser's session.
    session: Option<Session>,
}

/// A session that has begun.
pub(super) struct Opened {
    /// The name of the token with which it was.
    pub(super) who: String,
    pub(super) cookie: Secret,
}

impl Access {
    /// Lets those in who show `token`, or one that the store knows.
    pub fn new(token: Token, operator: Operator) -> Self {
        let (keyring, logins) = (Keyring::new(operator), Mutex::default());
        Self(Arc::new(Inner { token, keyring, logins, brake: Brake::default() }))
    }

    /// A link that opens the dashboard of the node at `base` once, for whoever knows the node's own token.
    pub fn first_link(&self, base: &str) -> LoginLink {
        self.link(base, Grant::node())
    }

    /// The same, for whoever asks.
    pub(super) fn link_for(&self, base: &str, caller: &Caller) -> LoginLink {
        self.link(base, caller.grant.clone())
    }

    fn link(&self, base: &str, grant: Grant) -> LoginLink {
        let (code, expires_at) = self.0.logins.lock().invite(grant, clock::now());
        LoginLink { url: format!("{base}/login?code={code}").into(), expires_at }
    }

    /// Begins a session with a link's code.
    pub(super) async fn redeem(&self, code: &str) -> Result<Opened, Problem> {
        let grant = self.0.logins.lock().redeem(code, clock::now());
        let grant = match grant {
            Some(grant) => self.renewed(grant).await?,
            None => None,
        };
        match grant {
            Some(grant) => Ok(self.open(grant)),
            None => Err(self
                .refuse("this link has been used, or is too old: `greenroom login` makes another")
                .await),
        }
    }

    /// Begins a session with a token.
    pub(super) async fn login(&self, token: &str) -> Result<Opened, Problem> {
        let grant = self.known(token.trim().as_bytes()).await?;
        Ok(self.open(grant))
    }

    fn open(&self, grant: Grant) -> Opened {
        let who = grant.name.clone();
        Opened { who, cookie: self.0.logins.lock().open(grant, clock::now()).into() }
    }

    /// Ends the session of a request, if it has one.
    pub(super) fn logout(&self, request: &HttpRequest) {
        if let Some(cookie) = cookie(request.headers()) {
            self.0.logins.lock().close(cookie);
        }
    }

    /// Makes a change to the stored tokens known here at once.
    pub(super) async fn changing<T>(&self, change: impl Future<Output = T>) -> T {
        self.0.keyring.changing(change).await
    }

    /// Who sent a request.
    ///
    /// # Errors
    /// 401 where nobody can be told; 403 where a session's request does not name its CSRF token; 503 where the
    /// store cannot say.
    pub(super) async fn identify(&self, request: &ServiceRequest) -> Result<Caller, Problem> {
        if let Some(shown) = request.headers().get(header::AUTHORIZATION) {
            let shown = shown.as_bytes();
            let (scheme, token) = shown.split_at_checked(7).unwrap_or((shown, &[]));
            let token = if scheme.eq_ignore_ascii_case(b"bearer ") { token.trim_ascii() } else { b"" };
            return Ok(Caller { grant: self.known(token).await?, session: None });
        }
        let Some(cookie) = cookie(request.headers()) else {
            return Err(Problem::new(
                "unauthorized",
                "no token: send `Authorization: Bearer TOKEN`; the node's own stands in the file `token` of its data directory",
            ));
        };
        let session = self.0.logins.lock().session(cookie, clock::now());
        let over = || Problem::new("unauthorized", "the session is over: log in again");
        let session = session.ok_or_else(over)?;
        let Some(grant) = self.renewed(session.grant.clone()).await? else {
            self.0.logins.lock().close(cookie);
            return Err(over());
        };
        let named = request.headers().get(CSRF).map(|named| Digest::of(named.as_bytes()));
        // by their digests, whose comparison tells nothing of how much is right
        if !request.method().is_safe() && named != Some(Digest::of(session.csrf.reveal().as_bytes())) {
            return Err(Problem::new(
                "forbidden",
                format!("a session's request names its CSRF token: send `{CSRF}` as GET /api/v1/me tells it"),
            ));
        }
        Ok(Caller { grant, session: Some(session) })
    }

    /// Whose token it is.
    async fn known(&self, token: &[u8]) -> Result<Grant, Problem> {
        if self.0.token.is(token) {
            return Ok(Grant::node());
        }
        match self.0.keyring.find(Digest::of(token), clock::now()).await? {
            Some(stored) => Ok(Grant::of(&stored)),
            None => Err(self.refuse("this token is unknown, has expired or was taken away").await),
        }
    }

    /// What a grant that was given earlier is worth now.
    async fn renewed(&self, grant: Grant) -> Result<Option<Grant>, Problem> {
        match grant.digest {
            None => Ok(Some(grant)),
            Some(digest) => Ok(self.0.keyring.find(digest, clock::now()).await?.as_ref().map(Grant::of)),
        }
    }

    /// Whether who came in would still be let in; where the store cannot say, it is so.
    pub(super) async fn still(&self, caller: &Caller) -> bool {
        let is_open = |session| self.0.logins.lock().is_open(session, clock::now());
        caller.session.as_ref().is_none_or(is_open)
            && !matches!(self.renewed(caller.grant.clone()).await, Ok(None))
    }

    /// A refusal, not too fast: who guesses must wait.
    async fn refuse(&self, why: &str) -> Problem {
        self.0.brake.wait().await;
        Problem::new("unauthorized", why)
    }
}

impl Caller {
    /// What it may do.
    pub(super) fn scope(&self) -> Scope {
        self.grant.scope
    }

    /// The name of its token, where it is not the node's own.
    pub(super) fn stored_token(&self) -> Option<&str> {
        self.grant.digest.is_some().then_some(&*self.grant.name)
    }

    /// What it is told about itself.
    pub(super) fn me(&self) -> Me {
        Me {
            name: self.grant.name.clone(),
            scope: self.grant.scope,
            csrf: self.session.as_ref().map(|session| session.csrf.clone().into()),
            expires_at: self.session.as_ref().map(|s| s.expires_at).or(self.grant.expires_at),
        }
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Self>().cloned();
        ready(caller.ok_or_else(|| Problem::new("unauthorized", "a token is needed")))
    }
}

/// The session's cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}
