//! Tokens, and the identity of a request.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    config::Disclosed,
    model::access::{Scope, StoredToken},
};

/// A token: `GET /api/v1/tokens`. Its secret is stored nowhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenView {
    /// Its name.
    pub name: String,
    /// Its scope.
    pub scope: Scope,
    /// When it was created.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub created_at: Timestamp,
    /// When it expires; absent: valid until it is removed.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute; absent: never.
    #[serde(serialize_with = "crate::model::units::moment")]
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
    /// Its name.
    pub name: String,
    /// Its scope.
    pub scope: Scope,
    /// Its lifetime (`"30d"`); absent: until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
}

/// A token that was just created, with its secret, which is shown only now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct NewToken {
    /// The token without its secret.
    #[serde(flatten)]
    pub kept: TokenView,
    /// The secret.
    #[schemars(with = "String")]
    pub token: Disclosed,
}

/// The identity of the caller: `GET /api/v1/me`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Me {
    /// The name of the caller's token; `node` is the node's own.
    pub name: String,
    /// Its scope.
    pub scope: Scope,
    /// In a browser session: the value of the header `X-CSRF-Token` that each changing request must carry.
    #[schemars(with = "Option<String>")]
    pub csrf: Option<Disclosed>,
    /// When the session or the token ends, if it does.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub expires_at: Option<Timestamp>,
}

/// `POST /api/v1/login-links`: a link that opens the dashboard once.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LoginLink {
    /// The link, to open in a browser.
    #[schemars(with = "String")]
    pub url: Disclosed,
    /// When it expires.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub expires_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They were plain texts, which any `{:?}` would have shown.
    #[test]
    fn what_is_handed_over_is_in_the_document_alone() {
        const CANARY: &str = "canary-5e1f";
        let at = Timestamp::UNIX_EPOCH;
        let kept = TokenView {
            name: "ci".into(),
            scope: Scope::Read,
            created_at: at,
            expires_at: None,
            last_used: None,
        };
        let secret = || Disclosed::from(CANARY.to_owned());
        let token = NewToken { kept, token: secret() };
        let me = Me { name: "ci".into(), scope: Scope::Read, csrf: Some(secret()), expires_at: None };
        let link = LoginLink { url: secret(), expires_at: at };
        let printed = format!("{token:?} {me:?} {link:?}");
        assert!(!printed.contains(CANARY) && printed.contains("***"), "{printed}");
        let documents = [serde_json::json!(token), serde_json::json!(me), serde_json::json!(link)];
        assert_eq!(documents.map(|document| document.to_string().matches(CANARY).count()), [1, 1, 1]);
        let read: NewToken = serde_json::from_value(serde_json::json!(token)).unwrap();
        assert_eq!(read.token.reveal(), CANARY);
    }
}
