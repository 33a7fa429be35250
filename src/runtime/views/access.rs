//! Tokens, and the identity of a request.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::access::{Scope, StoredToken};

/// A token: `GET /api/v1/tokens`. What it is itself is kept nowhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenView {
    /// Who it is.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is none any more; absent: it stays until it is removed.
    pub expires_at: Option<Timestamp>,
    /// When it was last shown, to the minute; absent: never.
    pub last_used: Option<Timestamp>,
}

impl From<StoredToken> for TokenView {
    fn from(token: StoredToken) -> Self {
        let StoredToken { name, scope, created_at, expires_at, used_at, digest: _ } = token;
        Self { name, scope, created_at, expires_at, last_used: used_at }
    }
}

/// `POST /api/v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Who it is to be.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// For how long (`"30d"`); absent: until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
}

/// A token that was just made, with itself: shown this once.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct NewToken {
    /// What is kept of it.
    #[serde(flatten)]
    pub kept: TokenView,
    /// The token.
    pub token: String,
}

/// Who asks: `GET /api/v1/me`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Me {
    /// The name of the token that was shown; `node` is the node's own.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// In a browser's session: what the header `X-CSRF-Token` of each request that changes something holds.
    pub csrf: Option<String>,
    /// When the session or the token ends, if it does.
    pub expires_at: Option<Timestamp>,
}

/// `POST /api/v1/login-links`: opens the dashboard, once.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LoginLink {
    /// To be opened in a browser.
    pub url: String,
    /// Until when.
    pub expires_at: Timestamp,
}
